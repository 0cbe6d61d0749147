"""`creditbench table` and folders of results: which are read, and which rows of them."""

from __future__ import annotations

import os

import pytest

from creditbench.cli import main, options
from creditbench.results.store import Store
from creditbench.results.version import Results, write_tables
from tests.records import record, trials


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(folder, rule, age=0):
    (trial,) = trials(rule)
    store = Store(folder)
    store.put(record(trial, test_score=0.25))
    written = store.records.stat().st_mtime - age
    os.utime(store.records, (written, written))


def test_without_a_name_the_newest_folder_of_runs_is_read_and_named(here, capsys):
    put("results/local", "anp", 20)
    put("results/quick", "bptt", 10)
    put("results/tuning", "wp", 0)  # points of tuning are no results
    assert main(["table", "--columns", "rule,test score"]) == 0
    said = capsys.readouterr()
    assert "bptt" in said.out and "anp" not in said.out and "wp" not in said.out
    assert said.err == "results: results/quick, the newest folder of runs; --results names another\n"
    assert main(["table", "--results", "results/local", "--json"]) == 0
    said = capsys.readouterr()
    assert '"anp"' in said.out and said.err == ""


def test_without_any_run_the_error_names_the_cure(here, capsys):
    assert main(["table"]) == 2
    assert "make some with creditbench run" in capsys.readouterr().err


@pytest.mark.parametrize(
    "verb",
    [
        ("table",),
        ("versus",),
        ("figure", "pareto", "--output", "x.png"),
        ("export", "--hub-format", "hub"),
        ("leaderboard", "--output", "page", "--draws", "100"),
    ],
    ids=lambda verb: verb[0],
)
def test_a_version_is_read_by_its_name(verb, here, capsys):
    write_tables(
        Results((record(*trials("bptt"), test_score=0.5, normalised_score=0.5, solved=0.1),)),
        here / "results/v9",
        "",
    )
    assert main([*verb, "--results", "v9"]) == 0
    assert main([*verb, "--results", "v8"]) == 2
    assert "no records in 'v8'" in capsys.readouterr().err


def test_a_folder_at_the_path_comes_before_one_of_that_name(here):
    (here / "results" / "v9").mkdir(parents=True)
    assert str(options.place(options.Path("v9"))) == os.path.join("results", "v9")
    (here / "v9").mkdir()
    assert str(options.place(options.Path("v9"))) == "v9"
    assert options.place(here / "no") == here / "no"


def test_trials_are_taken_from_a_version_by_its_name(here, capsys):
    small = ["--task", "mackey_glass", "--learner", "bptt", "--preset", "smoke", "--seeds", "1"]
    (trial,) = trials("bptt", measure=True)
    write_tables(Results((record(trial, test_score=0.5),)), here / "results/v9", "")
    (here / "results" / "mine").mkdir()
    assert main(["run", *small, "--reuse", "v9", "--results", "mine"]) == 0
    assert "1 of 1 trials taken from results/v9" in capsys.readouterr().err
    assert (here / "results" / "mine" / "records").is_dir() and not (here / "mine").exists()


def test_rows_and_columns_are_chosen(here, capsys):
    put("results/local", "anp")
    put("results/local", "bptt")
    assert main(["table", "--rule", "anp", "--columns", "rule,seeds", "--format", "markdown"]) == 0
    assert "| rule | seeds |" in (said := capsys.readouterr().out) and "bptt" not in said
    for words, error in (
        (("--rule", "bptx"), "unknown rule in these results 'bptx': did you mean 'bptt'"),
        (("--backend", "torch"), "unknown backend in these results 'torch'"),
        (("--format", "latex", "--columns", "rule"), "--columns is rule and --format is latex"),
        (("--columns", "rul"), "unknown column 'rul': did you mean 'rule'"),
        (("--compact", "v", "--rule", "anp"), "--rule is anp and --compact is v: give one of them"),
    ):
        assert main(["table", *words]) == 2
        assert error in capsys.readouterr().err
