"""Tables of a version, their board, and the page, opened from disk in a real browser if there is one."""

from __future__ import annotations

import base64
import csv
import dataclasses
import io
import json
import math
import re
import shutil
import time

import numpy as np
import pytest

from creditbench.cli import main
from creditbench.errors import UsageError
from creditbench.leaderboard import statistics, text
from creditbench.leaderboard.board import command, make_board
from creditbench.leaderboard.claims import claims
from creditbench.leaderboard.page import page
from creditbench.results.measured import write_checks, write_gradients, write_scaling
from creditbench.results.store import Store
from creditbench.results.version import Results, load, write_tables
from creditbench.trials.record import SCHEMA_VERSION
from tests.browser import DRAWN, unpacked, wait
from tests.browser import browser as open_browser
from tests.conftest import thorough
from tests.synthetic import make

DRAWS = 300


@pytest.fixture(scope="module")
def results(source):
    def status(trial):
        if trial.learner == "rule_03" and trial.backend == "torch" and trial.task == "task_00":
            return "crashed"
        return "diverged" if trial.learner == "rule_02" and trial.seed == 1 else "ok"

    return make(source, status=status)


@pytest.fixture(scope="module")
def board(results):
    return make_board(results, DRAWS)


@pytest.fixture
def version(results, tmp_path):
    write_tables(results, tmp_path / "v0.1", "# made by a test\n")
    return tmp_path / "v0.1"


# -- tables ------------------------------------------------------------------------------------------------


def test_tables_come_back_as_they_were_written(results, version):
    found = load(version)
    known = {record.trial.id: record for record in results.records}
    assert len(found.records) == len(known)
    for record in found.records:
        before = known[record.trial.id]
        assert record.trial == before.trial and record.status == before.status
        assert record.curve == before.curve and record.environment == before.environment
        for name in ("test_score", "normalised_score", "seconds_to_target", "flops_per_step", "trivial"):
            now, then = getattr(record, name), getattr(before, name)
            assert now is then is None or now == pytest.approx(then, rel=1e-8)
        for name in ("steps_to_target", "algorithm_bytes", "process_peak_source", "started_at", "metric"):
            assert getattr(record, name) == getattr(before, name)
    for kind in ("scaling", "gradients"):
        rows = {str(list(row.model_dump().values())[:6]): row.model_dump() for row in getattr(found, kind)}
        assert len(rows) == len(getattr(results, kind))
        for row in getattr(results, kind):
            for name, value in row.model_dump().items():
                now = rows[str(list(row.model_dump().values())[:6])][name]
                assert now == (pytest.approx(value, rel=1e-8) if isinstance(value, float) else value)
    assert (found.learners, found.tasks) == (results.learners, results.tasks)


def test_what_was_read_is_written_to_the_same_bytes(results, version, tmp_path):
    again = load(version)
    shuffled = dataclasses.replace(again, records=tuple(reversed(again.records)))
    write_tables(again, tmp_path / "one", "")
    write_tables(shuffled, tmp_path / "two", "")
    for name in ("trials.csv", "scaling.csv", "gradients.csv", "environments.json", "manifest.json"):
        content = (version / name).read_bytes()
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
        if name != "manifest.json":
            assert sorted(content.splitlines()) == sorted((tmp_path / "two" / name).read_bytes().splitlines())


def test_no_text_of_a_table_is_a_spreadsheets_formula(results, tmp_path):
    """What a rule says of its failure comes back as it was, and is inert in the file."""
    from creditbench.results.table import render

    said = ["=HYPERLINK(1)", "+1", "-1", "@SUM(A1)", "\tx", "'=1", "'tis plain", "a=b", "ValueError: -1"]
    records = [
        r.model_copy(update={"status_detail": text}) for r, text in zip(results.records, said, strict=False)
    ]
    write_tables(dataclasses.replace(results, records=tuple(records)), tmp_path / "v", "")
    assert {r.status_detail for r in load(tmp_path / "v").records} == set(said)
    for content in ((tmp_path / "v" / "trials.csv").read_text(), render(records, "csv")):
        cells = {row["status_detail"] for row in csv.DictReader(content.splitlines())}
        assert cells >= {"'=HYPERLINK(1)", "'-1", "'@SUM(A1)", "''=1", "'tis plain", "a=b"}


def test_the_columns_that_papers_read_are_there(version):
    columns = (version / "trials.csv").read_text().splitlines()[0].split(",")
    expected = [
        *("trial", "suite_version", "task", "task_version", "learner", "cell"),
        *("learner_sha256", "learner_source", "decorrelate", "backend", "backend_version", "device"),
        *("device_name", "hidden", "layers", "batch", "alpha"),
        *(
            "seq_len",
            "protocol",
            "optimizer",
            "lr",
            "hyperparameters",
            "seed",
            "preset",
            "budget_steps",
            "status",
        ),
        *("status_detail", "metric", "validation_best", "test_score", "normalised_score", "steps_to_target"),
        *("seconds_to_target", "train_seconds", "compile_seconds", "steps_per_second", "ratio_forward"),
        *("ratio_bptt", "flops_per_step", "algorithm_bytes", "process_peak_bytes", "device_peak_bytes"),
        *("environment", "started_at"),
    ]
    assert columns[: len(expected)] == expected
    assert len(set(columns)) == len(columns)
    # Floats of every table have at most nine digits, but for those that a trial's hash is taken of.
    for cell in (version / "gradients.csv").read_text().split(","):
        assert len(re.sub(r"[^0-9]", "", cell).lstrip("0")) <= 9


def _edit(path, change):
    content = path.read_text()
    changed = change(content)
    assert changed != content
    path.write_text(changed)


def _swap(old, new):
    return lambda content: content.replace(old, new, 1)


def _put(content, column, value):
    """The table with that value in its first row."""
    head, first, *rest = csv.reader(content.splitlines())
    first[head.index(column)] = value
    lines = io.StringIO()
    csv.writer(lines, lineterminator="\n").writerows([head, first, *rest])
    return lines.getvalue()


@pytest.mark.parametrize(
    ("file", "change", "says"),
    [
        ("trials.csv", lambda c: c[: len(c) // 2], "cells of|is there twice|not a whole record"),
        ("trials.csv", lambda c: c[: c.rindex("\n", 0, -1) + 1], "has 199 rows, and manifest.json says 200"),
        ("trials.csv", lambda c: c + c.splitlines()[5] + "\n", "has 201 rows"),
        ("trials.csv", lambda c: "", "it is empty"),
        ("trials.csv", _swap(",128,1,1,1.0,", ",129,1,1,1.0,"), "its settings are those of the trial"),
        ("trials.csv", _swap(",ok,", ",fine,"), "not a whole record"),
        (
            "manifest.json",
            _swap(f'"schema_version": {SCHEMA_VERSION}', '"schema_version": 99'),
            "update creditbench",
        ),
        ("manifest.json", lambda c: c[:-20], "manifest.json' cannot be read"),
        ("environments.json", _swap("imagined", "other"), "there is no environment|not a whole record"),
        ("scaling.csv", _swap(",time,32,", ",time,many,"), "scaling.csv' cannot be read"),
        ("gradients.csv", lambda c: c[: c.rindex("\n", 0, -1) + 1], "gradients.csv' has 47 rows"),
        ("trials.csv", _swap(",12345678,", ",12345679,"), "trials.csv' cannot be read .it is not the one"),
        ("trials.csv", _swap(",12345678,", ",-5,"), "process_peak_bytes: Input should be greater"),
        ("trials.csv", _swap(",12345678,", f",{10**400},"), "process_peak_bytes: "),
        ("trials.csv", _swap(",min,1,", ",min,nan,"), "trivial: Input should be a finite number"),
        ("trials.csv", _swap(",metric,", ",trivial,"), "the column 'trivial' is there twice"),
        ("trials.csv", lambda c: _put(c, "schema_version", "0" * 5000), "whole record .Exceeds the limit"),
        ("manifest.json", lambda c: "[]", "it is no object"),
        ("manifest.json", _swap('"schema_version": 3', '"schema_version": 0'), "schema_version: "),
        ("manifest.json", _swap('"schema_version": 3', '"schema_version": 3.0'), "schema_version: "),
        ("manifest.json", _swap('"rows": {', '"rows": {"../x.csv": 1,'), "rows"),
        ("manifest.json", _swap('"trials.csv": 200', '"trials.csv": -1'), "rows.trials.csv"),
        ("manifest.json", _swap('"trivial": 1.0', '"trivial": NaN'), "NaN is no finite number"),
        ("manifest.json", _swap('"family"', '"kin"'), "family: Field required"),
        ("environments.json", lambda c: "[" * 100_000, "nested too deep"),
    ],
)  # fmt: skip
def test_a_broken_table_is_named_with_its_cure(version, file, change, says):
    _edit(version / file, change)
    with pytest.raises(UsageError, match=says) as caught:
        load(version)
    assert re.search("from git again|update creditbench|delete one", str(caught.value))
    assert "\n" not in str(caught.value)


def test_a_trial_that_is_there_twice_is_named(version):
    lines = (version / "trials.csv").read_text().splitlines(keepends=True)
    (version / "trials.csv").write_text("".join([*lines[:-1], lines[3]]))
    with pytest.raises(UsageError, match=rf"line 201: the trial {lines[3][:16]} is there twice"):
        load(version)


def test_curves_cut_short_are_named(version):
    path = version / "curves.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UsageError, match=r"curves\.parquet' cannot be read"):
        load(version)


def test_a_row_of_an_older_schema_is_migrated_and_of_a_newer_one_refused(version):
    lines = (version / "trials.csv").read_text().splitlines()
    place = lines[0].split(",").index("schema_version")
    assert place > 40

    def with_version(value):
        # No cell after the settings holds a comma.
        head, _, tail = lines[1].rpartition('}"')
        cells = tail.split(",")
        cells[place - len(lines[0].split(","))] = value
        return head + '}"' + ",".join(cells)

    # A version of then has no checksums either.
    _edit(version / "manifest.json", lambda text: json.dumps(json.loads(text) | {"sha256": {}}))
    _edit(version / "trials.csv", _swap(lines[1], with_version("1").replace("VmHWM", "")))
    found = {record.trial.id: record for record in load(version).records}
    migrated = found[lines[1][:16]]
    assert (migrated.schema_version, migrated.process_peak_source) == (SCHEMA_VERSION, "ru_maxrss")
    _edit(version / "trials.csv", _swap(with_version("1").replace("VmHWM", ""), with_version("99")))
    with pytest.raises(UsageError, match=r"schema version is 99.*update creditbench"):
        load(version)


def test_records_of_runs_are_compacted_beside_a_version(results, source, tmp_path):
    first, rest = results.records[:100], results.records[100:]
    write_tables(dataclasses.replace(results, records=first, scaling=(), gradients=()), tmp_path / "v1", "")
    store = Store(tmp_path / "run")
    for record in rest:
        store.put(record)
    fit = {"learner": "bptt", "cell": "tanh", "backend": "jax", "axis": "T", "quantity": "time"}
    fit |= {"exponent": 1.0, "interval": [0.9, 1.1], "claimed": 1.0, "held": True}
    point = {"learner": "bptt", "cell": "tanh", "backend": "jax", "axis": "T", "quantity": "time"}
    points = [point | {"size": size, "values": [9.0, size / 64, 0.1]} for size in (32, 64)]
    write_scaling(tmp_path / "run" / "scaling", points, [fit])
    out = tmp_path / "v2"
    arguments = ["--results", str(tmp_path / "v1"), "--results", str(tmp_path / "run"), "--compact", str(out)]
    assert main(["table", *arguments]) == 0
    found = load(out)
    assert {r.trial.id for r in found.records} == {r.trial.id for r in results.records}
    assert [(p.size, p.low, p.exponent) for p in found.scaling] == [(32, 0.9, 1.0), (64, 0.9, 1.0)]
    assert [(p.value, p.blocks) for p in found.scaling] == [(0.5, 3), (1.0, 3)]
    assert not (out / "gradients.csv").exists()
    shown = (out / "README.md").read_text()
    assert "--compact" in shown and "| `trials.csv` | 200 |" in shown


def test_a_file_of_measurements_has_one_schema_wherever_it_is(results, version, tmp_path):
    store = Store(tmp_path / "run")
    store.put(results.records[0])
    for name in ("scaling", "gradients"):
        (tmp_path / "run" / name).mkdir()
        shutil.copy(version / f"{name}.csv", tmp_path / "run" / name)
    found, whole = load(tmp_path / "run"), load(version)
    assert found.scaling == whole.scaling != () and found.gradients == whole.gradients != ()
    again = []
    for g in whole.gradients:
        values = g.model_dump()
        names = ("cosine", "bias", "variance", "draws_to_cosine")
        intervals = {f"{n}_interval": [values.pop(f"{n}_low"), values.pop(f"{n}_high")] for n in names}
        again.append(values | intervals)
    write_gradients(tmp_path / "again", again)
    assert (tmp_path / "again" / "gradients.csv").read_bytes() == (version / "gradients.csv").read_bytes()


@pytest.mark.parametrize("verb", ["scale", "gradients"])
def test_measurements_that_cannot_be_read_are_to_be_taken_again(verb, results, tmp_path):
    Store(tmp_path).put(results.records[0])
    name = {"scale": "scaling"}.get(verb, verb)
    (tmp_path / name).mkdir()
    with pytest.raises(UsageError, match=f"again with creditbench {verb} --output {tmp_path / name}"):
        load(tmp_path)
    (tmp_path / name / f"{name}.csv").write_text("learner,backend,exponent,interval\nbptt,jax,1.0,[1]\n")
    with pytest.raises(UsageError, match=f"again with creditbench {verb} --output {tmp_path / name}"):
        load(tmp_path)


def test_a_version_names_a_users_data_without_its_folder(results, tmp_path):
    one = results.records[0]
    parameters = one.trial.task_parameters | {"data": str(tmp_path / "mine" / "WTH.csv")}
    trial = one.trial.model_copy(update={"task_parameters": parameters, "data_sha256": "0" * 64})
    given = dataclasses.replace(results, records=(one.model_copy(update={"trial": trial}),))
    write_tables(given, tmp_path / "v", "# A version\n")
    (back,) = load(tmp_path / "v").records
    assert back.trial.task_parameters["data"] == "WTH.csv" and back.trial.id == trial.id
    assert str(tmp_path) not in (tmp_path / "v" / "trials.csv").read_text()


def test_what_a_users_file_says_of_itself_is_read_and_not_run(tmp_path):
    from creditbench.results.version import _describe
    from tests.records import record, trials

    path = tmp_path / "mine.py"
    path.write_text(
        "raise SystemExit('it was run')\n"
        "class Mine(Learner):\n"
        "    id = 'mine'\n    name = 'My rule'\n    paper: ClassVar[str] = 'I 2030, doi:10.0/1'\n    family "
        "= 'mine'\n"
        "    claims = Claims(online=True, time='O(n)')\n    sigma: float = open('no such file')\n"
    )
    (trial,) = trials("bptt")
    learners, tasks = _describe(
        [record(trial.model_copy(update={"learner": "mine", "learner_path": str(path)})), record(trial)]
    )
    assert learners["mine"]["name"] == "My rule" and learners["mine"]["paper"] == "I 2030, doi:10.0/1"
    assert learners["mine"]["claims"]["online"] is True and learners["mine"]["claims"]["time"] == "O(n)"
    assert learners["bptt"]["name"] == "Backpropagation through time"
    assert tasks["mackey_glass"]["metric_direction"] == "min"


def test_what_a_rule_says_of_itself_is_what_its_record_says(tmp_path):
    """The text of its file may have more than the class that ran: another class, or unreadable parts."""
    from creditbench.plugins.importing import embedded
    from creditbench.results.version import _describe
    from tests.records import record, trials

    own = (
        "class Mine(Learner):\n    id = 'mine'\n    name = 'My rule'\n    paper = 'I 2030'\n    family = "
        "'mine'\n"
        "    claims = Claims()\n"
    )
    decoy = (
        "class Notes:\n    name = 'Exact'\n    family = 'exact'\n"
        "    claims = Claims(unbiased=True, online=True)\n"
    )
    (trial,) = trials("bptt")
    path = tmp_path / "mine.py"
    of_mine = record(trial.model_copy(update={"learner": "mine", "learner_path": str(path)}))
    for content in (own + decoy, decoy + own):
        path.write_text(content)
        about = _describe([of_mine])[0]["mine"]
        assert about["family"] == "mine" and about["claims"]["unbiased"] is False
    said = {"name": "N", "paper": "P", "family": "F", "claims": {"online": True}}
    deep = ".a" * 600
    path.write_text(f"class A(Task{deep}): pass\n{own}    x = Claims{deep}()\nEMBEDDED = 1{' + 1' * 600}\n")
    assert _describe([of_mine])[0]["mine"]["family"] == "mine" and embedded(path) is None
    assert _describe([of_mine.model_copy(update={"described": said})])[0]["mine"] == said
    for content in (b"x = " + b"-" * 200_000 + b"1\n", b"x = 1\0\n", b"# coding: nonsense\n", b"\xff\xfe"):
        path.write_bytes(content + b"# EMBEDDED\n")
        assert _describe([of_mine])[0] == {} and embedded(path) is None
    path.write_bytes(b"# coding: latin-1\n# \xe9\n" + own.encode())
    assert _describe([of_mine])[0]["mine"]["family"] == "mine"


def test_an_empty_folder_is_refused(tmp_path, capsys):
    assert main(["leaderboard", "--results", str(tmp_path), "--output", str(tmp_path / "x")]) == 2
    assert "no records in" in capsys.readouterr().err


def test_a_folder_of_checks_alone_stands_beside_records_and_not_alone(version, tmp_path):
    write_checks(
        tmp_path / "run",
        {"kind": "learners", "id": "bptt", "sha256": "0" * 64},
        [{"name": "online", "held": None, "detail": "not claimed"}],
    )
    assert [row.learner for row in load(version, tmp_path / "run").checks] == ["bptt"]
    with pytest.raises(UsageError, match="no records in"):
        load(tmp_path / "run")


# -- the board ---------------------------------------------------------------------------------------------


def test_scores_ranks_and_what_has_none(results, board):
    rows = {(row.rule, row.backend): row for row in board.rows}
    assert len(rows) == 8
    bptt, rule = rows["bptt", "jax"], rows["rule_01", "jax"]
    mine = [r for r in results.records if (r.trial.rule, r.trial.backend) == ("rule_01", "jax")]
    own = [[[r.normalised_score] for r in mine if r.trial.task == task] for task in board.tasks]
    assert rule.scores == statistics.aggregates(own, DRAWS)
    assert (bptt.rank, rule.rank) == (1, 2)
    assert bptt.improvement is None and rule.improvement.high < 0.5
    # A diverged seed is the floor of the scale; a crashed one is missing, and takes the rank.
    assert all(cell.runs[1] == -math.inf for cell in rows["rule_02", "jax"].cells.values())
    broken = rows["rule_03", "torch"]
    assert broken.rank is None and broken.unranked == "task_00: 5 crashed"
    assert board.rows[-1] == broken


def test_a_row_is_ranked_with_seeds_enough_on_every_task(source):
    few = make_board(make(source, seeds=4, measured=False), DRAWS)
    assert {row.unranked for row in few.rows} == {"4 seeds: a rank takes 5"}
    quick = make_board(make(source, seeds=3, preset="quick", measured=False), DRAWS)
    assert all(row.rank and row.quick for row in quick.rows)
    one = make(source, measured=False)
    missing = [r for r in one.records if (r.trial.rule, r.trial.task) != ("bptt", "task_01")]
    gone = make_board(dataclasses.replace(one, records=tuple(missing)), DRAWS)
    assert {row.unranked for row in gone.rows if row.rule == "bptt"} == {"not run on task_01"}
    here = [r for r in one.records if r.trial.rule != "bptt" or r.trial.task == "task_01"]
    left = make_board(dataclasses.replace(one, records=tuple(here)), DRAWS)
    assert {row.unranked for row in left.rows if row.rule == "bptt"} == {"run on task_01 alone"}


def test_a_task_of_one_rule_alone_takes_nobodys_rank(source, tmp_path, capsys):
    """Whoever runs a rule on more tasks than a version has stands beside the version's rows all the same."""
    made = make(source, measured=False)
    kept = [r for r in made.records if (r.trial.task, r.trial.learner == "rule_03") != ("task_04", False)]
    found = make_board(dataclasses.replace(made, records=tuple(kept)), DRAWS)
    assert found.left_out == ("task_04",) and found.tasks == ("task_00", "task_01", "task_02", "task_03")
    assert all(row.rank and set(row.cells) == set(found.tasks) for row in found.rows)
    without = [r for r in kept if r.trial.task != "task_04"]
    assert found.rows == make_board(dataclasses.replace(made, records=tuple(without)), DRAWS).rows
    assert "one rule alone was run there: task_04." in text.markdown(found, [tmp_path])
    assert "one rule alone was run there: task_04." in page(found, [tmp_path])
    # A rule by itself is shown on all that it ran on.
    alone = [r for r in kept if r.trial.learner == "rule_03"]
    assert len(make_board(dataclasses.replace(made, records=tuple(alone)), DRAWS).tasks) == 5
    write_tables(dataclasses.replace(made, records=tuple(kept)), tmp_path / "v", "")
    assert main(["leaderboard", "--results", str(tmp_path / "v"), "--output", str(tmp_path / "page")]) == 0
    assert "task_04" in capsys.readouterr().err


def test_a_row_that_is_stale_or_lacks_a_score_is_on_no_front(board):
    rows = board.groups["torch", "cpu"]
    assert board.front(rows, "algorithm_bytes")[0]
    cells = dict(rows[0].cells)
    cells["task_00"] = dataclasses.replace(cells["task_00"], stale="learner bptt has changed")
    stale = [dataclasses.replace(rows[0], cells=cells), *rows[1:]]
    assert not board.front(stale, "algorithm_bytes")[0]
    broken = next(i for i, row in enumerate(rows) if row.rule == "rule_03")
    cheap = {k: float(v == broken) for v, k in enumerate(row.key for row in rows)}
    assert sum(cheap.values()) == 1
    best = dataclasses.replace(rows[broken], scores=rows[0].scores)
    assert not board.front([rows[0], best], "algorithm_bytes")[1]


def test_a_record_whose_source_has_changed_is_stale_and_takes_no_rank(source, tmp_path):
    other = tmp_path / "changed.py"
    other.write_text("as_it = was\n")
    found = make(other, measured=False, rules=2)
    from creditbench.results import store

    other.write_text("as_it = is_now\n")
    store._source_sha256.cache_clear()
    stale = make_board(found, DRAWS)
    assert all(row.rank is None and "has changed" in row.unranked for row in stale.rows)
    assert "stale" in page(stale, [tmp_path])
    # A fresh family of the same rule counts before a stale one, and alone.
    fresh = make(source, measured=False, rules=2)
    both = make_board(dataclasses.replace(fresh, records=(*found.records, *fresh.records)), DRAWS)
    assert all(row.rank and not row.stale for row in both.rows)


def test_ranks_fronts_and_profiles(board):
    for rows in board.groups.values():
        ranked, ranks = board.ranks(rows)
        best = dict(zip([row.rule for row in ranked], ranks.mean_ranks, strict=True))
        assert min(best, key=best.__getitem__) == "bptt"
        tau, rho = board.profile(rows, "steps")
        assert rho.shape == (len(rows), len(tau)) and (np.diff(rho, axis=1) >= 0).all()
        assert rho[[row.rule for row in rows].index("bptt"), 0] == 1.0
        front = dict(zip([row.rule for row in rows], board.front(rows, "algorithm_bytes"), strict=True))
        assert front["bptt"] and front["rule_01"] and not front["rule_02"]


def test_claims_are_held_against_what_was_measured(results):
    found = {claim.name: claim for claim in claims(results, "rule_02")}
    assert found["unbiased"].held is True and found["memory in T"].held is True
    assert found["forward only"].held is None and "creditbench check" in found["forward only"].detail
    biased = [
        dataclasses.replace(results).gradients[0].model_copy(update={"learner": "rule_02", "bias_low": 0.2})
    ] * 3
    worse = dataclasses.replace(results, gradients=(*results.gradients, *biased))
    assert next(c for c in claims(worse, "rule_02") if c.name == "unbiased").held is False
    assert {
        c.held for c in claims(dataclasses.replace(results, scaling=()), "bptt") if c.name != "unbiased"
    } == {None}


def test_the_command_beside_a_number_names_its_very_trials(tmp_path, capsys):
    """What the command asks for is resolved to the same trials, and so finds their records."""
    import shlex

    from creditbench.trials.grid import Options, make_grid
    from tests.records import record

    options = Options(
        tasks=("mackey_glass", "copy_memory"),
        learners=("bptt", "anp+D"),
        backends=("torch",),
        preset="smoke",
        seeds=(0, 3),
        settings={"anp.sigma": "0.02"},
        hidden=8,
        lrs=(0.3,),
        bias=True,
        threads=2,
    )
    families = {}
    custom = dataclasses.replace(options, tasks=("mackey_glass",), budget=40, evaluations=2, segment=4)
    for trial in (*make_grid(options).trials, *make_grid(custom).trials):
        families.setdefault(trial.family, []).append(record(trial))
    for records in families.values():
        words = shlex.split(command(records))
        assert words[:2] == ["creditbench", "run"]
        store = Store(tmp_path)
        for one in records:
            store.put(one)
        # Everything is done already, so that nothing is run.
        assert main([*words[1:], "--results", str(tmp_path), "--json"]) == 0
        found = {row["trial"] for row in json.loads(capsys.readouterr().out)}
        assert found == {one.trial.id for one in records}
        assert len(list(store.records.iterdir())) == len(found)
        shutil.rmtree(store.records)


def test_a_run_takes_the_rows_of_a_version_and_runs_the_rest(tmp_path, capsys):
    from creditbench.trials.grid import Options, make_grid
    from tests.records import record

    options = Options(
        tasks=("mackey_glass",), learners=("bptt",), backends=("torch",), preset="smoke", hidden=4
    )
    (trial,) = make_grid(options).trials
    known = record(trial, test_score=0.125, status_detail="of a version")
    write_tables(Results((known,)), tmp_path / "v", "")
    arguments = [
        "run",
        "--task",
        "mackey_glass",
        "--learner",
        "bptt",
        "--backend",
        "torch",
        "--preset",
        "smoke",
    ]
    arguments += ["--hidden", "4", "--seeds", "2", "--executor", "inline", "--no-measure", "--json"]
    assert main([*arguments, "--reuse", str(tmp_path / "v"), "--results", str(tmp_path / "run")]) == 0
    shown = capsys.readouterr()
    rows = {row["seed"]: row for row in json.loads(shown.out)}
    assert "1 of 2 trials taken from" in shown.err
    assert rows[0]["test_score"] == 0.125 and rows[0]["status_detail"] == "of a version"
    assert rows[1]["status"] == "ok" and rows[1]["status_detail"] == ""


# -- text and page -----------------------------------------------------------------------------------------


def test_the_ranking_prints_what_the_board_holds(board, tmp_path):
    rows = text.ranking(board)
    assert [row[1:3] for row in rows] == [(row.rule, row.backend) for row in board.rows]
    first = board.rows[0].scores["iqm"]
    assert rows[0][4] == f"{first.value:.2f} [{first.low:.2f}, {first.high:.2f}]"
    assert any(row[8].endswith("▼") for row in rows)
    latex = text.ranking_latex(board)
    assert (
        r"\toprule" in latex
        and r"rule\_01" in latex
        and "▼" not in latex
        and r"$\blacktriangledown$" in latex
    )
    twin = text.markdown(board, [tmp_path])
    for line in (line for line in twin.splitlines() if line.startswith("| ")):
        assert line.endswith(" |")
    assert (
        "5 crashed" in twin
        and "creditbench run --task" in twin
        and "missing" not in twin.split("## Rules")[0]
    )


def test_the_page_is_whole_and_asks_for_nothing(board, tmp_path):
    found = page(board, [tmp_path])
    assert "{{" not in found.split("<script")[0]
    data = unpacked(found)
    outside = re.sub(r"<script.*?</script>", "", found, flags=re.DOTALL) + "".join(data["sections"].values())
    assert not re.search(r'(?:src|href)="(?!#|data:|https://doi\.org|https://arxiv\.org)', outside)
    assert len(data["rows"]) == 8 and set(data["curves"]) == set(board.tasks)
    assert "default-src 'none'" in found


@pytest.mark.parametrize("direction", ["min", "max"])
@pytest.mark.parametrize("shift", [0.0, 3.0, -3.0])
def test_where_most_curves_end_and_trivial_are_within_the_axis(source, direction, shift):
    """However good or bad the rules are: all better than trivial, or all worse."""
    from creditbench.leaderboard.page import _curves

    def moved(record):
        points = tuple(p._replace(validation=p.validation + shift) for p in record.curve)
        return record.model_copy(update={"curve": points, "metric_direction": direction})

    made = make(source, tasks=1, measured=False)
    found = _curves(
        make_board(dataclasses.replace(made, records=tuple(map(moved, made.records))), 100), "task_00"
    )
    low, high = found["domain"]
    assert low < high and low <= found["trivial"] <= high
    assert (found["solved"] is None) == (direction == "max")  # 0.1, where trivial is 1
    assert found["solved"] is None or low < found["solved"] < high
    ends = [median[-1] for _, _, _, median, *_ in found["lines"]]
    # What is missing is farther from trivial than the best is, on the other side.
    worse = (lambda end: end >= high) if direction == "min" else (lambda end: end <= low)
    assert all(low < end < high or worse(end) for end in ends)
    assert sum(low < end < high for end in ends) >= len(ends) / 2


def test_a_rule_cannot_write_into_the_page(results, tmp_path):
    attack = "</script><script>alert(1)</script>\"'{{data}}"
    about = {k: dict(v) | {"name": attack, "paper": f"doi:{attack}"} for k, v in results.learners.items()}
    records = tuple(
        r.model_copy(update={"learner_source": attack, "metric": attack, "status_detail": attack})
        for r in results.records
    )
    found = page(make_board(dataclasses.replace(results, learners=about, records=records), 100), [tmp_path])
    data = unpacked(found)
    for written in (found, *data["sections"].values()):
        assert "alert(1)</script>" not in written and "<script>" not in written
    assert found.count("<script") == 3
    assert any("alert(1)" in section for section in data["sections"].values())
    assert "<script" not in text.markdown(
        make_board(dataclasses.replace(results, learners=about), 100), [tmp_path]
    )


def colours(image) -> int:
    """The number of colours of an image [H, W, RGBA] in 0 to 1."""
    return len(np.unique((image * 255).round().astype(np.uint8).view(np.uint32)))


def test_figures_for_print_are_drawn(results, tmp_path, capsys):
    import matplotlib.image

    write_tables(results, tmp_path / "v", "")
    where = ["--results", str(tmp_path / "v"), "--output"]
    for name in ("curves", "scaling", "gradients", "pareto", "profiles"):
        assert main(["figure", name, *where, str(tmp_path / "x.png"), "--width", "column"]) == 0
        image = matplotlib.image.imread(tmp_path / "x.png")
        assert image.shape[1] == round(200 * 3.35) and colours(image) > 20
        if name in ("gradients", "pareto"):  # the slowest two; all have their fonts from one place
            continue
        assert main(["figure", name, *where, str(tmp_path / "x.pdf"), "--width", "page"]) == 0
        content = (tmp_path / "x.pdf").read_bytes()
        assert b"/Type3" not in content and b"/FontFile2" in content  # Type 42
        box = re.search(rb"/MediaBox \[ 0 0 ([\d.]+) ([\d.]+) \]", content)
        assert box and float(box[1]) == pytest.approx(72 * 7.0, abs=0.1)
    assert main(["figure", "pareto", "--width", "wide", "--output", "x.png"]) == 2
    assert "--width is wide: give column or page" in capsys.readouterr().err
    some = ["--results", str(tmp_path / "v"), "--output", str(tmp_path / "x.pdf"), "--rule", "bptt"]
    assert main(["figure", "scaling", *some, "--axis", "B"]) == 2
    assert "no scaling in B (known: T, n)" in capsys.readouterr().err
    assert main(["figure", "profiles", *some]) == 0
    assert main(["figure", "profiles", *some, "--axis", "n"]) == 2
    assert "--axis is n: only the figure scaling has it" in capsys.readouterr().err


def drawn_by(draw, *arguments):
    """The figure of a function, written to the last of the arguments, and what it left out."""
    figure = draw(*arguments[:-1])
    figure.savefig(arguments[-1])
    return figure, figure.notes


def labels(figure) -> set[str]:
    return {text.get_text() for text in figure.legends[0].get_texts()}


def test_curves_have_six_lines_a_panel_and_say_what_they_left_out(source, tmp_path):
    from creditbench.leaderboard import figures

    found = make(source, rules=9, tasks=5, seeds=3, measured=False)
    figure, (note,) = drawn_by(figures.curves, found.records, tmp_path / "x.png")
    best = {"bptt", *(f"rule_{i:02}" for i in range(1, 6))}  # the later a rule, the worse
    assert labels(figure) == {*best, "trivial"}
    panels = [ax for ax in figure.axes if ax.get_visible()]
    assert [ax.get_title() for ax in panels] == [f"task_{i:02}" for i in range(5)]
    for ax in panels:
        assert sum(len(line.get_xdata()) > 2 for line in ax.lines) == 6
    assert "rule_06, rule_07, rule_08, torch" in note and "--rule" in note
    few = [r for r in found.records if r.trial.rule in ("rule_07", "rule_08")]
    figure, notes = drawn_by(figures.curves, few, tmp_path / "x.png")
    assert labels(figure) == {"rule_07", "rule_08", "jax", "torch", "trivial"} and notes == []
    figure, (note,) = drawn_by(figures.profiles, make_board(found, 100), tmp_path / "x.png")
    assert all(len(ax.lines) <= 6 for ax in figure.axes)
    assert len(labels(figure)) <= 6 and "torch" in note


def test_a_figure_names_every_mark_and_no_backend_that_did_not_run(source, tmp_path):
    from creditbench.leaderboard import figures

    found = make(source, rules=12, tasks=3, seeds=2, backends=("jax",))
    rules = {r.trial.rule for r in found.records}
    board = make_board(found, 100)
    for name, arguments in (
        ("curves", (found.records,)),
        ("pareto", (board,)),
        ("profiles", (board,)),
        ("scaling", None),
        ("gradients", None),
    ):
        if arguments is None:
            figure, _ = drawn_by(figures.draw, name, found, tmp_path / "x.png")
        else:
            figure, _ = drawn_by(getattr(figures, name), *arguments, tmp_path / "x.png")
        assert not any("torch" in label for label in labels(figure))
        assert name != "pareto" or rules <= labels(figure)
        width, height = figure.get_size_inches()
        assert width == 7.0 and height < 9.5


@pytest.mark.parametrize("name", thorough(["scaling", "gradients"], but=["gradients"]))
def test_measurements_of_many_rules_fit_a_page(source, tmp_path, name):
    from creditbench.leaderboard import figures

    found = make(source, rules=25, tasks=2, seeds=1)
    figure, _ = drawn_by(figures.draw, name, found, tmp_path / "x.png")
    width, height = figure.get_size_inches()
    assert width == 7.0 and height < 10
    sizes = [text.get_fontsize() for ax in figure.axes for text in (ax.title, *ax.get_xticklabels())]
    assert min(sizes) >= 5.5
    shown = {ax.title.get_text() for ax in figure.axes} if name == "scaling" else set()
    shown |= {label.get_text() for label in figure.axes[0].get_yticklabels()}
    assert {p.learner for p in found.scaling} <= shown


def test_no_score_presses_the_others_of_a_pareto_figure_together(source, tmp_path):
    from creditbench.leaderboard import figures

    found = make(
        source, rules=8, tasks=3, measured=False, worse=lambda t: 9.0 if t.learner == "rule_07" else 0.0
    )
    figure, _ = drawn_by(figures.pareto, make_board(found, 100), tmp_path / "x.png")
    assert figure.axes[0].get_ylim()[0] > -2
    assert any("↓" in text.get_text() for text in figure.axes[0].texts)


def test_rows_that_lack_a_task_are_in_no_pareto_figure_beside_others(source, tmp_path):
    """Scores of three tasks and of two do not compare. A second backend has marks of its own."""
    from creditbench.leaderboard import figures

    found = make(source, rules=4, tasks=2, seeds=2, measured=False)
    figure, notes = drawn_by(figures.pareto, make_board(found, 100), tmp_path / "x.png")
    assert {"jax", "torch"} <= labels(figure) and not notes
    lack = [
        r
        for r in found.records
        if (r.trial.backend, r.trial.rule, r.trial.task) != ("torch", "bptt", "task_01")
    ]
    board = make_board(dataclasses.replace(found, records=tuple(lack)), 100)
    figure, (note,) = drawn_by(figures.pareto, board, tmp_path / "x.png")
    assert "left out" in note and note.endswith("some task: bptt torch")
    fewer = [r for r in lack if r.trial.backend == "jax" or r.trial.task == "task_00"]
    board = make_board(dataclasses.replace(found, records=tuple(fewer)), 100)
    figure, _ = drawn_by(figures.pareto, board, tmp_path / "x.png")
    assert not {"jax", "torch"} & labels(figure)
    alone = [r for r in found.records if (r.trial.rule in ("bptt", "rule_01")) == (r.trial.task == "task_00")]
    board = make_board(dataclasses.replace(found, records=tuple(alone)), 100)
    figure, notes = drawn_by(figures.pareto, board, tmp_path / "x.png")  # no row is complete
    assert {"bptt", "rule_01", "rule_02", "rule_03"} <= labels(figure) and not notes


def test_what_cannot_be_drawn_is_said(results, tmp_path, capsys):
    bare = [r.model_copy(update={"curve": ()}) for r in results.records]
    write_tables(dataclasses.replace(results, records=tuple(bare), scaling=()), tmp_path / "v", "")
    for name, said in (("curves", "no curves to draw"), ("scaling", "no scaling in T (known: none)")):
        where = ["--results", str(tmp_path / "v"), "--output", str(tmp_path / "x.png")]
        assert main(["figure", name, *where]) == 2
        assert said in capsys.readouterr().err


def test_curves_of_two_settings_are_not_taken_for_seeds_of_one(results, tmp_path, monkeypatch):
    from creditbench.leaderboard import figures

    one = [r for r in results.records if (r.trial.learner, r.trial.task) == ("bptt", "task_00")]
    more = [r.model_copy(update={"trial": r.trial.model_copy(update={"lr": 9.0})}) for r in one[:3]]
    drawn = []
    monkeypatch.setattr(
        figures, "_band", lambda seeds, band=figures._band: drawn.append(seeds) or band(seeds)
    )
    figures.curves([*one, *more]).savefig(tmp_path / "x.png")
    assert [{r.trial.lr for r in seeds} for seeds in drawn] == [{one[0].trial.lr}] * 2


def test_scores_are_drawn_against_units(results, tmp_path, capsys):
    import matplotlib.image
    from matplotlib.figure import Figure

    from creditbench.leaderboard import figures

    def of(hidden, **changes):
        some = [r for r in results.records if r.trial.task == "task_00" and r.status in ("ok", "diverged")]
        return [
            r.model_copy(update={"trial": r.trial.model_copy(update={"hidden": hidden}), **changes})
            for r in some
        ]

    with pytest.raises(UsageError, match="two numbers of units"):
        figures.units(of(8)).savefig(tmp_path / "x.png")
    drawn, save = [], Figure.savefig
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda self, *a, **k: drawn.append(self) or save(self, *a, **k))
        records = [
            *of(8, status="ok", normalised_score=0.25),
            *of(64, status="diverged", normalised_score=0.5),
        ]
        figures.units(records).savefig(tmp_path / "units.png")
    (ax,) = drawn[0].axes
    lines = {tuple(line.get_ydata()) for line in ax.lines if line.get_marker() == "o"}
    ((first, second),) = lines
    assert first == 0.25 and second < 0  # one that diverged is the lower edge, which says so
    assert [t.get_text() for t in ax.texts] == ["diverged"]
    image = matplotlib.image.imread(tmp_path / "units.png")
    assert colours(image) > 20
    write_tables(results, tmp_path / "v", "")
    assert (
        main(["figure", "units", "--results", str(tmp_path / "v"), "--output", str(tmp_path / "y.png")]) == 2
    )
    assert "another --hidden" in capsys.readouterr().err


def test_a_data_set_is_read_by_datasets(results, tmp_path):
    import datasets

    from creditbench.results.measured import CheckResult

    found = [
        CheckResult(learner="bptt", learner_sha256="0", name=name, held=held, detail="None")
        for name, held in (("online", None), ("unbiased", True))
    ]
    write_tables(dataclasses.replace(results, checks=tuple(found)), tmp_path / "v", "")
    hub = tmp_path / "hub"
    assert main(["export", "--results", str(tmp_path / "v"), "--hub-format", str(hub)]) == 0
    expected = {
        "trials": 200,
        "curves": sum(len(r.curve) for r in results.records),
        "scaling": 96,
        "gradients": 48,
        "checks": 2,
    }
    for name, rows in expected.items():
        found = datasets.load_dataset(str(hub), name, split="train", cache_dir=str(tmp_path / "cache"))
        assert len(found) == rows
    checks = datasets.load_dataset(str(hub), "checks", split="train", cache_dir=str(tmp_path / "cache"))
    assert [(row["held"], row["detail"]) for row in checks] == [(None, "None"), (True, "None")]
    trials = datasets.load_dataset(str(hub), split="train", cache_dir=str(tmp_path / "cache"))
    known = {record.trial.id: record for record in results.records}
    for row in list(trials)[:50]:
        score = known[row["trial"]].test_score
        assert (row["test_score"] is None) == (score is None)
        assert score is None or math.isclose(row["test_score"], score, rel_tol=1e-8)
    assert set(trials["environment"]) <= set(json.loads((hub / "environments.json").read_text()))


def _luminance(colour):
    """Relative luminance by WCAG 2.2 of (red, green, blue), each 0 to 255."""
    parts = [c / 255 for c in colour]
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def test_text_stands_out_from_its_ground_in_light_and_in_dark():
    """At least 4.5 : 1 (WCAG 2.2, 1.4.3), on the strongest cells of the heat map too."""
    from importlib.resources import files

    style = (files("creditbench.leaderboard") / "static" / "page.css").read_text()
    assert "var(--s) * 0.75" in style
    for theme in re.findall(r"^(?::root|@media).*?\{([^{}]*--ground[^{}]*)\}", style, re.MULTILINE):
        names = {}
        for name, value in re.findall(r"--(\w+): ([^;]+)", theme):
            short = value.removeprefix("#")
            double = "".join(2 * c for c in short) if len(short) == 3 else short
            names[name] = (
                [int(double[i : i + 2], 16) for i in (0, 2, 4)]
                if value.startswith("#")
                else list(map(int, value.split()))
            )
        pairs = [
            (text, ground) for text in ("text", "soft", "accent", "warn") for ground in ("ground", "panel")
        ]
        for cell in ("good", "bad"):
            names[f"{cell}-cell"] = [
                0.75 * c + 0.25 * g for c, g in zip(names[cell], names["ground"], strict=True)
            ]
            pairs.append(("text", f"{cell}-cell"))
        for text_, ground in pairs:
            low, high = sorted(_luminance(names[name]) for name in (text_, ground))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (theme[:30], text_, ground)


# -- in a browser ------------------------------------------------------------------------------------------


def _column(browser, name: str) -> list[str]:
    """The values of a column of the ranking, by the field it shows."""
    return browser.execute_script(
        "return [...document.querySelectorAll(`#board tbody [data-field=${arguments[0]}]`)].map(cell => "
        "cell.dataset.value)",
        name,
    )


@pytest.mark.slow
@pytest.mark.parametrize(("width", "height"), thorough([(1280, 900), (390, 844)], but=[(390, 844)]))
def test_the_page_in_a_browser(results, board, tmp_path, width, height):
    path = tmp_path / "index.html"
    cells = {"tanh": "index.html", "gru": "cells/gru/index.html"}
    path.write_text(page(board, [tmp_path], highlight=["rule_02"], cells=cells), encoding="utf-8")
    browser = open_browser(width, height)
    try:
        from selenium.webdriver.common.action_chains import ActionChains
        from selenium.webdriver.common.by import By
        from selenium.webdriver.common.keys import Keys
        from selenium.webdriver.support.ui import Select

        browser.get("about:blank")
        browser.get_log("performance")  # the browser's own start page
        browser.get(path.as_uri())
        assert wait(browser, DRAWN) == 4  # curves, profile, scaling, gradients
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        # The title is whole beside the choice of cells.
        lines = "h.clientHeight / parseFloat(getComputedStyle(h).fontSize)"
        assert browser.execute_script(f"const h = document.querySelector('h1'); return {lines}") < 2
        costs = browser.find_elements(By.CSS_SELECTOR, "#chart-scatter text[text-anchor=middle]:not(.title)")
        assert len(costs) >= 2

        # The summary is of the numbers: who leads, who does without reverse mode, where the new rule is.
        jax = {row.rule: row for row in board.rows if row.backend == "jax"}
        first, second, third = (item.text for item in browser.find_elements(By.CSS_SELECTOR, "#verdict li"))
        assert first.startswith(f"bptt leads, score {text.interval(jax['bptt'].scores['iqm'])}.")
        assert "rule_01 leads" in second and "rank 2" in second
        assert third.startswith(f"rule_02 has rank {text.rank(jax['rule_02'])} of 4, score ")
        assert f"{jax['rule_02'].cost('ratio_forward'):.3g} × a forward pass" in third
        assert _column(browser, "rule") == ["bptt", "rule_01", "rule_02", "rule_03"]
        assert len(browser.find_elements(By.CSS_SELECTOR, "#board tr.strong")) == 1

        # Every rule has its name in the chart of scores against costs, and no name hides another.
        names = browser.execute_script(
            "return [...document.querySelectorAll('#chart-scatter a text')].map(t => {"
            "const b = t.getBoundingClientRect(); return [t.textContent, b.left, b.right, b.top, b.bottom]})"
        )
        assert {name.split(" ")[0] for name, *_ in names} == set(jax)
        for i, (_, left, right, top, bottom) in enumerate(names):
            for _, left_, right_, top_, bottom_ in names[:i]:
                assert left >= right_ or left_ >= right or top >= bottom_ - 2 or top_ >= bottom - 2

        # Sorted by a header, with the keyboard alone.
        button = browser.find_element(By.CSS_SELECTOR, "#board [data-column=ratio_forward]")
        browser.execute_script("arguments[0].focus()", button)
        button.send_keys(Keys.ENTER)
        values = list(map(float, _column(browser, "ratio_forward")))
        assert values == sorted(values) and values[0] != values[-1]
        header = button.find_element(By.XPATH, "../..")
        assert header.get_attribute("aria-sort") == "ascending"
        button.send_keys(Keys.ENTER)
        assert list(map(float, _column(browser, "ratio_forward"))) == values[::-1]

        def pick(name: str, value: str) -> None:
            Select(browser.find_element(By.ID, f"filter-{name}")).select_by_value(value)

        def count(beginning: str) -> None:
            wait(browser, f"document.getElementById('count').textContent.startsWith('{beginning}')")

        # Filtered by backend, claim and name; the heat map goes along.
        count("4 of 8 rows, jax")
        pick("backend", "")
        count("8 of 8 rows")
        # What has no value comes last, whichever way it is sorted.
        rank = browser.find_element(By.CSS_SELECTOR, "#board [data-column=rank]")
        for _ in range(2):
            rank.send_keys(Keys.ENTER)
            assert _column(browser, "rank")[-1] == ""
        pick("backend", "jax")
        shown = "document.querySelectorAll('#heat tbody tr:not([hidden])').length"
        assert browser.execute_script(f"return {shown}") == 4
        pick("claim", "online")
        assert (_column(browser, "rule"), _column(browser, "rank")) == (["rule_01"], ["1"])
        pick("claim", "")
        browser.find_element(By.ID, "filter-text").send_keys("rule_0")
        assert len(_column(browser, "rule")) == 3
        count("3 of 8 rows")
        # Some tasks in place of all: scores and ranks are of them.
        for task in ("task_00", "task_01", "task_03"):
            box = browser.find_element(By.CSS_SELECTOR, f"#picked input[value={task}]")
            browser.execute_script("arguments[0].click()", box)
        count("3 of 8 rows, jax; 2 of 5 tasks")
        some = [r for r in results.records if r.trial.task in ("task_02", "task_04")]
        fewer = make_board(dataclasses.replace(results, records=tuple(some)), DRAWS)
        expected = {row.rule: row.scores["iqm"].value for row in fewer.rows if row.backend == "jax"}
        found = dict(zip(_column(browser, "rule"), map(float, _column(browser, "iqm")), strict=True))
        assert found == pytest.approx({k: expected[k] for k in found}, rel=1e-7) and len(found) == 3

        # Rules side by side; the address has all of it, and opens it again.
        for rule in ("rule_01", "rule_03"):
            pin = browser.find_element(By.CSS_SELECTOR, f"[data-pin='{rule} jax']")
            pin.send_keys(Keys.ENTER)
        heads = [head.text for head in browser.find_elements(By.CSS_SELECTOR, "#pinned thead th")]
        assert heads == ["Figure", "rule_02 jax", "rule_01 jax", "rule_03 jax"]
        seen = "return [document.querySelector('main').innerText, location.hash]"
        before, address = browser.execute_script(seen)
        assert "task=task_02" in address and "text=rule_0" in address
        browser.get("about:blank")
        browser.get(path.as_uri() + address)
        wait(browser, DRAWN)
        assert browser.execute_script(seen) == [before, address]

        # Nothing found is said.
        browser.find_element(By.ID, "filter-text").send_keys("nothing of that name")
        count("0 of 8 rows")
        assert "No rule passes" in browser.find_element(By.ID, "none").text
        assert browser.find_element(By.ID, "scatter-caption").text.startswith("No rule to draw")
        browser.find_element(By.ID, "none-clear").send_keys(Keys.ENTER)
        count("4 of 8 rows")
        browser.find_element(By.ID, "filter-text").send_keys("x")
        browser.find_element(By.CSS_SELECTOR, ".filters button[type=reset]").send_keys(Keys.ENTER)
        count("4 of 8 rows")
        wait(browser, DRAWN)

        # A word is explained where it stands, to the keyboard too; so is a cell of the heat map.
        explain = browser.find_element(By.CSS_SELECTOR, "#board [data-field=iqm] .help")
        explain.send_keys(Keys.ENTER)
        assert "middle half of all runs" in browser.find_element(By.ID, "tip").text
        explain.send_keys(Keys.ESCAPE)
        assert not browser.find_element(By.ID, "tip").is_displayed()
        browser.execute_script("document.querySelector('#heat td[tabindex=\"0\"]').focus()")
        browser.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
        browser.switch_to.active_element.send_keys(Keys.ARROW_DOWN)
        second = _column(browser, "rule")[1]
        assert browser.find_element(By.ID, "tip").text.startswith(f"{second} jax: task_01: ")

        # Dark mode: the ground and the charts' text turn.
        colour = "getComputedStyle(document.body).backgroundColor"
        label = "getComputedStyle(document.querySelector('#chart-curves svg .role-axis-label text')).fill"
        before = browser.execute_script(f"return [{colour}, {label}]")
        toggle = browser.find_element(By.ID, "theme")
        toggle.send_keys(Keys.SPACE)
        wait(browser, DRAWN)
        after = browser.execute_script(f"return [{colour}, {label}]")
        assert toggle.get_attribute("aria-pressed") == "true"
        assert before[0] == "rgb(255, 255, 255)" and sum(map(int, re.findall(r"\d+", after[0]))) < 100
        assert before[1] != after[1]

        # By second and by FLOP in place of by step, on axes of both kinds.
        for axis, title in (("seconds", "training seconds"), ("flops", "training FLOPs")):
            Select(browser.find_element(By.ID, "curve-axis")).select_by_value(axis)
            wait(browser, f"document.querySelector('#chart-curves svg')?.textContent.includes('{title}')")
        Select(browser.find_element(By.ID, "curve-scale")).select_by_value("xy")
        wait(browser, DRAWN)
        assert (
            wait(browser, "document.querySelectorAll('#chart-curves .mark-line.role-mark path').length") >= 4
        )

        # A rule is hidden by a click on its name.
        lines = browser.execute_script(
            "return document.querySelectorAll('#legend label:not([hidden])').length"
        )
        browser.execute_script("document.querySelector('#legend input[value=rule_01]').click()")
        wait(
            browser,
            f"document.querySelectorAll('#chart-curves .mark-line.role-mark path').length === {lines - 1}",
        )
        wait(browser, DRAWN)

        # A tooltip says what a mark is.
        browser.execute_script("document.getElementById('scatter').scrollIntoView({behavior: 'instant'})")
        mark = browser.find_element(By.CSS_SELECTOR, "#chart-scatter a[aria-label^='rule_03:'] path")
        ActionChains(browser).move_to_element(mark).perform()
        tip = wait(browser, "document.querySelector('#tip:popover-open')?.innerText")
        assert tip.startswith("rule_03: score") and "× forward" in tip

        # The same figures as a table; a rule's section, opened by its link.
        summary = browser.find_element(By.CSS_SELECTOR, "#curves figure details summary")
        browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", summary)
        summary.send_keys(Keys.ENTER)
        assert wait(browser, "document.querySelectorAll('#curves figure details tbody tr').length") >= 15
        browser.execute_script("document.querySelector('#board a').click()")
        wait(
            browser,
            "document.querySelector('details.rule[open] .command "
            "code')?.textContent.startsWith('creditbench run')",
        )

        # What is touched is 24 pixels or more, but for links in a line of text (WCAG 2.2, 2.5.8).
        small = (
            "[...document.querySelectorAll('button, select, input, summary, fieldset label, nav a')]"
            ".map(e => [e, e.getBoundingClientRect()]).filter(([, b]) => b.width && "
            "(b.width < 24 || b.height < 24)).map(([e]) => e.closest('label')?.offsetHeight >= 24 ? '' : "
            "e.outerHTML).filter(Boolean)"
        )
        assert browser.execute_script(f"return {small}") == []

        # Every control has a name, every chart a description.
        nameless = (
            "[...document.querySelectorAll('button, select, input')]"
            ".filter(e => !(e.textContent.trim() || e.labels?.length)).length"
        )
        assert browser.execute_script(f"return {nameless}") == 0
        documents = browser.find_elements(By.CSS_SELECTOR, ".chart [role=graphics-document]")
        descriptions = [document.get_attribute("aria-label") for document in documents]
        assert len(set(descriptions)) == 4 and all(len(text) > 20 for text in descriptions)

        assert [line for line in browser.get_log("browser") if line["level"] != "INFO"] == []
        sent = [json.loads(line["message"])["message"] for line in browser.get_log("performance")]
        asked = {m["params"]["request"]["url"] for m in sent if m["method"] == "Network.requestWillBeSent"}
        assert {url for url in asked if not url.startswith(("data:", "blob:"))} == {path.as_uri()}
    finally:
        browser.quit()


@pytest.mark.slow
def test_downloads_come_from_the_page_itself(results, board, tmp_path):
    import pandas as pd

    (tmp_path / "index.html").write_text(page(board, [tmp_path]), encoding="utf-8")
    browser = open_browser(1280, 900)
    try:
        from selenium.webdriver.common.by import By

        place = {"behavior": "allow", "downloadPath": str(tmp_path / "down")}
        browser.execute_cdp_cmd("Browser.setDownloadBehavior", place)
        browser.get((tmp_path / "index.html").as_uri() + "#backend=torch&claim=forward_only")
        wait(browser, DRAWN)
        names = {
            "save-ranking": "ranking.csv",
            "save-csv": "runs.csv",
            "save-parquet": "runs.parquet",
            "save-bibtex": "creditbench.bib",
        }
        for button, name in names.items():
            browser.find_element(By.ID, button).click()
            end = time.monotonic() + 20
            while not (tmp_path / "down" / name).exists():
                assert time.monotonic() < end, name
                time.sleep(0.05)
    finally:
        browser.quit()
    down = tmp_path / "down"
    ranking = pd.read_csv(down / "ranking.csv")
    rows = {row.rule: row for row in board.rows if row.backend == "torch" and row.rule != "bptt"}
    assert set(ranking.rule) == set(rows) and set(ranking.backend) == {"torch"}
    for line in ranking.itertuples():
        found = rows[line.rule].scores["iqm"]
        assert (line.iqm, line.iqm_low, line.iqm_high) == pytest.approx(tuple(found), rel=1e-8)
    runs, same = pd.read_csv(down / "runs.csv"), pd.read_parquet(down / "runs.parquet")
    assert len(runs) == len(same) == 200 and list(runs) == list(same)
    for name in ("rule", "backend", "task", "seed", "status"):
        assert list(runs[name]) == list(same[name])
    known = {(r.trial.rule, r.trial.backend, r.trial.task, r.trial.seed): r for r in results.records}
    for line in runs.itertuples():
        score = known[line.rule, line.backend, line.task, line.seed].normalised_score
        assert (
            math.isnan(line.normalised_score)
            if score is None
            else line.normalised_score == pytest.approx(score)
        )
    assert (down / "creditbench.bib").read_text(encoding="utf-8").startswith("@software{creditbench,")


@pytest.mark.slow
def test_a_large_board_makes_a_page_of_less_than_three_megabytes(source, tmp_path):
    large = make_board(make(source, rules=30, tasks=12, points=51), 100)
    assert len(page(large, [tmp_path]).encode()) < 3e6


def test_releases_are_pages_that_lead_to_each_other(results, tmp_path, capsys, monkeypatch):
    old = dataclasses.replace(
        results, records=tuple(r for r in results.records if r.trial.learner != "rule_03")
    )
    for name, content in (("v2", results), ("v1", old)):
        write_tables(content, tmp_path / name, "")
    given = [f"--results={name}={tmp_path / name}" for name in ("v2", "v1")]
    arguments = ["--output", str(tmp_path / "page"), "--draws", "100", "--highlight", "rule_03"]
    assert main(["leaderboard", *given, *arguments]) == 0
    new, older = (
        (tmp_path / "page" / place).read_text(encoding="utf-8") for place in ("index.html", "v1/index.html")
    )
    assert '<option value="index.html" selected>v2</option><option value="v1/index.html">v1</option>' in new
    assert '<option value="../index.html">v2</option><option value="index.html" selected>v1' in older
    assert unpacked(new)["highlight"] == ["rule_03"] and unpacked(older)["highlight"] == []
    assert (tmp_path / "page" / "v1" / "leaderboard.md").exists()
    capsys.readouterr()
    plain = [f"--results={tmp_path / 'v2'}"]
    for changed, said in (
        ([*plain, given[1]], "has no name, and others have"),
        ([f"--results=../x={tmp_path / 'v1'}"], "names a release '../x'"),
        ([*plain, "--highlight", "rule_3"], "did you mean 'rule_03'"),
    ):
        assert main(["leaderboard", *changed, "--output", str(tmp_path / "y"), "--draws", "100"]) == 2
        assert said in capsys.readouterr().err
    # A version goes by its name in results/, as everywhere.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    (tmp_path / "v2").rename(tmp_path / "results" / "v2")
    assert main(["leaderboard", "--results", "v2", "--output", str(tmp_path / "y"), "--draws", "100"]) == 0
    assert "<label hidden>Release" in (tmp_path / "y" / "index.html").read_text(encoding="utf-8")


def test_what_is_downloaded_is_what_was_run(board):
    """The Parquet file has the runs of the page's data, and the citation is that of CITATION.cff."""
    from pathlib import Path

    import pandas as pd
    import yaml

    from creditbench.leaderboard.page import _data

    found = _data(board, ())
    frame = pd.read_parquet(io.BytesIO(base64.b64decode(found["parquet"])))
    assert len(frame) == 200 and set(frame.task) == set(board.tasks)
    for name, values in found["runs"].items():
        assert [None if pd.isna(value) else value for value in frame[name]] == values
    cell = board.rows[0].cells["task_02"]
    own = frame[(frame.rule == board.rows[0].rule) & (frame.backend == board.rows[0].backend)]
    assert sorted(own[own.task == "task_02"].normalised_score) == pytest.approx(sorted(cell.runs), rel=1e-8)
    cited = yaml.safe_load((Path(__file__).parents[2] / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["authors"][0]["name"] in found["citation"]
    assert cited["title"].lower() in found["citation"].lower()


def test_a_repository_is_named_where_the_package_names_one(board, tmp_path, monkeypatch):
    from email.message import Message

    from creditbench.leaderboard import page as module

    about = Message()
    about["Author"], about["Summary"] = "A", "S"
    monkeypatch.setattr(module.metadata, "metadata", lambda name: about)
    assert "https://example.org" not in page(board, [tmp_path])
    about["Project-URL"] = "Repository, https://example.org/x"
    found = page(board, [tmp_path])
    assert '<a href="https://example.org/x">Repository</a>' in found
    assert "url = {https://example.org/x}" in unpacked(found)["citation"]
