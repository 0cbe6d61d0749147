"""Tuning: equal budgets, scored on validation, frozen for a run to read, resumed after an interruption."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shutil
import tomllib
from collections import Counter

import numpy as np
import pytest

from creditbench.cli import main
from creditbench.errors import UsageError
from creditbench.plugins import registry
from creditbench.results.store import Store
from creditbench.trials.grid import Options, make_grid
from creditbench.trials.record import Record
from creditbench.trials.tuning import (
    FIRST_SEED,
    LEARNING_RATES,
    choose,
    draw,
    frozen,
    kept_studies,
    study_seeds,
    to_confirm,
    trials_of,
)
from tests.records import record


@pytest.fixture
def trial():
    return make_grid(
        Options(tasks=("mackey_glass",), learners=("anp+D",), seeds=(1000,), preset="smoke")
    ).trials[0]


def test_points_fill_the_space_evenly_and_are_the_same_again():
    points = draw({"sigma": (1e-4, 1e-1)}, 64, seed=(0, 0), decorrelated=True)
    assert points == draw({"sigma": (1e-4, 1e-1)}, 64, seed=(0, 0), decorrelated=True)
    for other in ((0, 1), (1, 0)):
        assert points != draw({"sigma": (1e-4, 1e-1)}, 64, seed=other, decorrelated=True)
    for optimizer, (low, high) in LEARNING_RATES.items():
        rates = np.array([p.lr for p in points if p.optimizer == optimizer])
        assert len(rates) == 32
        places = np.log(rates / low) / np.log(high / low)
        # Two of 32 points in each of 16 parts, but for the rounding to three digits.
        assert np.histogram(places, 16, (0, 1))[0].min() >= 1
    sigmas = np.log10([p.hyperparameters["sigma"] for p in points])
    assert np.histogram(sigmas, 4, (-4, -1))[0].tolist() == pytest.approx([16] * 4, abs=1)


def test_every_rule_has_the_same_optimisers_and_rates():
    one, two = draw({}, 20, (3, 1), False), draw({"sigma": (1e-4, 1e-1)}, 20, (3, 1), True)
    assert len(one) == len(two) == 20
    assert [(p.optimizer, p.lr) for p in one] == [(p.optimizer, p.lr) for p in two]
    assert {p.decorrelation_rate for p in one} == {None}
    with pytest.raises(UsageError, match="search axis sigma"):
        draw({"sigma": (0.0, 1.0)}, 4, (0, 0), False)


def test_what_is_set_is_not_searched(trial):
    points = draw({"sigma": (1e-4, 1e-1)}, 8, (0, 0), decorrelated=True)
    free = trials_of(trial, points, {})
    assert len({t.lr for t in free}) > 1 and len({t.hyperparameters["sigma"] for t in free}) > 1
    fixed = trials_of(trial, points, {}, ["lr", "sigma"])
    assert {(t.lr, t.hyperparameters["sigma"]) for t in fixed} == {(trial.lr, trial.hyperparameters["sigma"])}
    assert len(fixed) == 8  # they differ in optimiser and rate of decorrelation
    alike = [dataclasses.replace(point, optimizer="sgd", decorrelation_rate=None) for point in points]
    assert len(trials_of(trial, alike, {}, ["lr", "sigma"])) == 1


def test_a_rate_in_the_file_of_options_is_not_searched(tmp_path):
    """`tune` trains at the rate that the file sets for one rule, and searches those of the others."""
    (tmp_path / "grid.toml").write_text(
        'task = "mackey_glass"\nlearner = "bptt,readout_rls"\npreset = "smoke"\nhidden = 4\nbudget = 50\n'
        "[set]\nmackey_glass.steps = 300\nbptt.lr = 0.25\n"
    )
    words = ["tune", "--config", tmp_path / "grid.toml", "--points", "2", "--studies", "1", "--confirm", "0"]
    words += ["--results", tmp_path / "t", "--output", tmp_path / "t.toml", "--executor", "inline"]
    assert main([str(word) for word in words]) == 0
    rates: dict[str, set[float]] = {}
    for one in Store(tmp_path / "t").all():
        rates.setdefault(one.trial.rule, set()).add(one.trial.lr)
    assert rates["bptt"] == {0.25} and 0.25 not in rates["readout_rls"]


def test_no_two_studies_share_a_tuning_seed():
    taken = [seed for draw in range(3) for study in range(4) for seed in study_seeds(draw, study, 5)]
    assert len(set(taken)) == len(taken) and min(taken) >= FIRST_SEED


def points_of(trial, metrics, **values):
    """One record per point, with these metrics on validation; None means diverged."""
    points = draw({}, len(metrics), (0, 0), True)
    return [
        record(t, validation_best=v, test_score=0.1, train_seconds=2.0, **values)
        if v is not None
        else record(t, status="diverged", train_seconds=2.0)
        for t, v in zip(trials_of(trial, points, {}), metrics, strict=True)
    ]


def test_the_best_on_validation_is_chosen_never_on_test(trial):
    points = draw({}, 4, (0, 0), True)
    good = points_of(trial, (0.9, 0.3, 0.55, 0.2))
    good = [r.model_copy(update={"test_score": s}) for r, s in zip(good, (0.1, 0.5, 0.5, 0.9), strict=True)]
    diverged = good[3].model_copy(update={"status": "diverged"})
    found = choose([*good[:3], diverged], "0/2")
    assert found.values == {
        "optimizer": points[1].optimizer, "lr": points[1].lr,
        "decorrelation_rate": points[1].decorrelation_rate, "sigma": 1e-3,
    }  # fmt: skip
    assert (found.study, found.validation, found.diverged, found.beat_trivial) == ("0/2", 0.3, 1, True)
    assert found.sensitivity == 2 / 4  # 0.3 and 0.55 come half of the way from 1 to 0.3
    assert found.train_seconds == 8.0
    together = [r.model_copy(update={"trained_together": 4}) for r in [*good[:3], diverged]]
    assert choose(together).train_seconds == 2.0
    crashed = good[1].model_copy(update={"status": "crashed"})
    assert choose([good[0], crashed, good[2]]).values["lr"] == points[2].lr
    with pytest.raises(UsageError, match="no point of anp"):
        choose([crashed])


def test_no_cap_hides_which_point_is_better(trial):
    """Among points far better than solved the best counts, not the first one drawn."""
    points = draw({}, 4, (0, 0), True)
    solved = choose(points_of(trial, (0.09, 0.05, 0.01, 0.03)))
    assert solved.values["lr"] == points[2].lr and solved.validation == 0.01
    task = registry.find("tasks", "mackey_glass").cls()
    validation = task.generate("validation", trial.seed, 1)
    trivial, level = task.trivial_score(validation), task.solved_score(validation)
    assert solved.score == pytest.approx((trivial - 0.01) / (trivial - level)) and solved.score > 1


def test_a_point_that_diverged_is_worse_than_any_that_did_not(trial):
    """Otherwise it could replace stable points worse than trivial, and a rule that diverges be frozen."""
    points = draw({}, 4, (0, 0), True)
    found = choose(points_of(trial, (None, 7.0, 3.0, None)))
    assert found.values["lr"] == points[2].lr
    assert not found.beat_trivial and found.sensitivity is None and found.score < 0
    lost = choose(points_of(trial, (None, None)))
    assert lost.validation is None and lost.score is None and not lost.beat_trivial and lost.diverged == 2
    # Over seeds: fewer that diverged are better, whatever the others scored.
    other = trial.model_copy(update={"seed": trial.seed + 1})
    first, second = points_of(trial, (0.1, 0.9)), points_of(other, (None, 0.9))
    assert choose([*first, *second]).values["lr"] == points[1].lr


def test_a_choice_that_diverges_at_further_seeds_gives_way_to_the_next_best(trial):
    """One tuning seed does not see a point that diverges at four seeds of five."""
    points, records = draw({}, 4, (0, 0), True), points_of(trial, (0.9, 0.3, 0.2, None))

    def at(point, *statuses):
        seeds = [point.trial.model_copy(update={"seed": trial.seed + 1 + k}) for k in range(len(statuses))]
        return [
            record(t, status=s, validation_best=0.01, train_seconds=2.0)
            for t, s in zip(seeds, statuses, strict=True)
        ]

    confirmed = []
    assert to_confirm(records, confirmed) == records[2].trial
    confirmed += at(records[2], "ok", "diverged")
    assert to_confirm(records, confirmed) == records[1].trial
    confirmed += at(records[1], "ok", "ok")
    assert to_confirm(records, confirmed) is None
    found = choose(records, confirmed=confirmed)
    # The further seeds tell whether it diverges; they are no part of its metric.
    assert (found.values["lr"], found.validation, found.diverged) == (points[1].lr, 0.3, 2)
    assert (found.points, found.train_seconds) == (4, 16.0)
    # Where none is stable, that counts which diverged at the smallest share of its seeds, and it is marked.
    confirmed = (
        at(records[0], "diverged", "ok")
        + at(records[1], "diverged", "ok")
        + at(records[2], "diverged", "diverged")
    )
    assert to_confirm(records, confirmed) is None
    found = choose(records, confirmed=confirmed)
    assert found.values["lr"] == points[1].lr and not found.beat_trivial


def test_a_metric_of_which_more_is_better_is_chosen_by_its_height():
    (trial,) = make_grid(
        Options(tasks=("evidence",), learners=("anp+D",), seeds=(1000,), preset="smoke")
    ).trials
    points = draw({}, 3, (0, 0), True)
    found = choose(points_of(trial, (0.6, 0.9, 0.7), metric="accuracy", metric_direction="max"))
    assert found.values["lr"] == points[1].lr and found.beat_trivial


def test_without_a_scale_the_raw_metric_chooses_all_the_same(trial, monkeypatch):
    monkeypatch.setattr(
        registry.find("tasks", "mackey_glass").cls, "solved_score", lambda self, sequences: None
    )
    found = choose(points_of(trial, (0.9, 0.3, 0.55)))
    assert (found.validation, found.score, found.beat_trivial) == (0.3, None, True)


def test_what_is_frozen_is_what_a_run_reads(trial, tmp_path):
    """Each study's choice, with its own seeds and its origin."""
    chosen = [trials_of(trial, draw({}, 1, (5, k), True), {})[0] for k in range(3)]
    values = ({"validation_best": 0.5}, {"validation_best": 2.0}, {"status": "diverged"})
    found = [choose([record(t, **v)], f"5/{k}") for k, (t, v) in enumerate(zip(chosen, values, strict=True))]
    path = tmp_path / "tuned.toml"
    path.write_text(frozen(found, "creditbench tune"))
    assert "no point beat trivial" in path.read_text() and "all 1 points diverged" in path.read_text()
    tables = tomllib.loads(path.read_text())["mackey_glass"]["anp+D"]
    assert [table["lr"] for table in tables] == [t.lr for t in chosen]
    options = dict(tasks=("mackey_glass",), learners=("anp+D",), preset="smoke", tuned=str(path))
    ran = make_grid(Options(**options, seeds=(0, 1), seeds_apart=True)).trials
    assert [(t.study, t.lr, t.seed) for t in ran] == [
        (f"5/{k}", t.lr, seed) for k, t in enumerate(chosen) for seed in (5000 + 2 * k, 5001 + 2 * k)
    ]
    assert [t.beat_trivial for t in ran] == [True] * 2 + [False] * 4
    # A study keeps its seeds wherever it stands in the file; one without a number has those of its place.
    path.write_text(frozen(found[1:], "creditbench tune"))
    again = make_grid(Options(**options, seeds=(0, 1), seeds_apart=True)).trials
    assert [t.id for t in again] == [t.id for t in ran[2:]]
    path.write_text(path.read_text().replace('"5/', '"mine '))
    named = make_grid(Options(**options, seeds=(0, 1), seeds_apart=True)).trials
    assert [(t.study, t.seed) for t in named] == [("mine 1", 0), ("mine 1", 1), ("mine 2", 2), ("mine 2", 3)]
    path.write_text(frozen(found, "creditbench tune"))
    listed = make_grid(Options(**options, seeds=(7,))).trials
    assert [(t.study, t.seed) for t in listed] == [("5/0", 7), ("5/1", 7), ("5/2", 7)]


def test_where_its_numbers_are_from_is_no_part_of_a_trials_id(trial):
    labelled = trial.model_copy(update={"study": "0/1", "beat_trivial": False})
    assert (labelled.id, labelled.family, labelled.conditions) == (trial.id, trial.family, trial.conditions)
    kept = record(labelled, validation_best=0.5)
    row = kept.row()
    again = Record.from_row({k: "" if v is None else v for k, v in row.items()}, (), kept.environment)
    assert (again.trial.study, again.trial.beat_trivial) == ("0/1", False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[mackey_glass]\nanp = 3\n", "mackey_glass.anp is no table"),
        ("[[mackey_glass.anp]]\nlr = 0.1\nstudy = 3\n", "study in .* is 3: give it as text"),
        ("[[mackey_glass.anp]]\nlr = 0.1\nsigmo = 3\n", "sigmo"),
        ('[[mackey_glass.anp]]\nstudy = "0/1"\nbeat_trivial = 3\n', "beat_trivial"),
    ],
)
def test_a_tuned_file_that_makes_no_sense_is_refused(tmp_path, text, said):
    path = tmp_path / "tuned.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=said):
        make_grid(Options(tasks=("mackey_glass",), learners=("anp",), preset="smoke", tuned=str(path)))


def test_the_command_tunes_and_goes_on_where_it_was_broken_off(tmp_path, capsys):
    arguments = [
        "tune",
        "--task",
        "mackey_glass",
        "--learner",
        "readout_rls,bptt",
        "--backend",
        "torch",
        "--points",
        "2",
        "--studies",
        "2",
    ]
    arguments += ["--preset", "smoke", "--budget", "50", "--hidden", "4", "--json"]
    arguments += ["--set", "mackey_glass.steps=300", "--results", str(tmp_path / "r")]
    arguments += ["--confirm", "2", "--executor", "inline", "--output", str(tmp_path / "tuned.toml")]
    assert main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert sorted((row["rule"], row["study"], row["points"]) for row in found) == [
        (rule, study, 2) for rule in ("bptt", "readout_rls") for study in ("0/0", "0/1")
    ]
    records = Store(tmp_path / "r").all()
    # Two points of each rule and study, and each choice at two further seeds.
    assert Counter(r.trial.seed for r in records) == {
        first + k: count for first in (1_000_000, 1_001_000) for k, count in enumerate((4, 2, 2))
    }
    assert len({(r.trial.rule, r.trial.lr, r.trial.seed) for r in records}) == len(records) == 16
    assert all(math.isfinite(r.trial.lr) for r in records)
    lost = Store(tmp_path / "r").path(records[0].trial)
    kept = Store(tmp_path / "r").path(records[1].trial).stat().st_mtime_ns
    first = (tmp_path / "tuned.toml").read_text()
    lost.unlink()
    assert main(arguments) == 0
    assert "[1/1]" in capsys.readouterr().err and lost.exists()
    assert Store(tmp_path / "r").path(records[1].trial).stat().st_mtime_ns == kept
    tables = [tomllib.loads(text) for text in (first, (tmp_path / "tuned.toml").read_text())]
    assert tables[0] == tables[1]
    command = next(line for line in first.splitlines() if "creditbench tune" in line)
    assert all(
        f"--{option} " in command
        for option in ("backend", "points", "studies", "seeds", "confirm", "draw", "preset", "hidden")
    )
    # Another folder of records serves as well as its own.
    other = [word if word != str(tmp_path / "r") else str(tmp_path / "s") for word in arguments]
    assert main([*other, "--reuse", str(tmp_path / "r")]) == 0
    assert "[1/" not in capsys.readouterr().err and len(Store(tmp_path / "s").all()) == 16
    # A choice that diverges at a further seed gives way to the next best, which is confirmed too.
    chosen = tomllib.loads(first)["mackey_glass"]["bptt"][0]
    store = Store(tmp_path / "r")
    for one in records:
        if one.trial.learner == "bptt" and one.trial.seed == 1_000_001:
            assert one.trial.lr == chosen["lr"]
            store.put(one.model_copy(update={"status": "diverged", "validation_best": None}))
    assert main(arguments) == 0
    assert "[2/2]" in capsys.readouterr().err
    other = tomllib.loads((tmp_path / "tuned.toml").read_text())["mackey_glass"]["bptt"]
    assert other[0]["lr"] != chosen["lr"] and other[1] == tables[0]["mackey_glass"]["bptt"][1]
    assert len(store.all()) == 18


def test_rules_are_added_to_a_file_that_keeps_what_it_has(tmp_path, capsys):
    out = tmp_path / "tuned.toml"
    common = [
        "tune",
        "--task",
        "mackey_glass",
        "--backend",
        "torch",
        "--points",
        "2",
        "--studies",
        "2",
        "--preset",
    ]
    common += [
        "smoke",
        "--budget",
        "100",
        "--set",
        "mackey_glass.steps=300",
        "--hidden",
        "4",
        "--results",
        str(tmp_path / "r"),
        "--output",
        str(out),
        "--keep",
        "--executor",
        "inline",
    ]
    assert main([*common, "--learner", "readout_ridge"]) == 0
    first = out.read_text()
    shutil.rmtree(tmp_path / "r")  # what is kept needs no records
    assert main([*common, "--learner", "readout_ridge,bptt"]) == 0
    assert out.read_text().startswith(first)
    found = tomllib.loads(out.read_text())["mackey_glass"]
    assert {rule: [s["study"] for s in studies] for rule, studies in found.items()} == {
        "readout_ridge": ["0/0", "0/1"],
        "bptt": ["0/0", "0/1"],
    }
    assert {r.trial.rule for r in Store(tmp_path / "r").all()} == {"bptt"}
    whole = out.read_text()
    assert main([*common, "--learner", "readout_ridge,bptt"]) == 0 and out.read_text() == whole
    out.write_text("mackey_glass = 3\n")
    capsys.readouterr()
    assert main([*common, "--learner", "bptt"]) == 2
    assert "no table of tables" in capsys.readouterr().err and out.read_text() == "mackey_glass = 3\n"


def test_a_file_of_run_is_tuned_but_for_what_is_not_for_tuning(tmp_path, capsys):
    """Its seeds and backends are for results only. A rule that fails at every point is noted and left out."""
    config = tmp_path / "grid.toml"
    config.write_text(
        'task = ["mackey_glass"]\nlearner = ["bptt", "np"]\nset = ["np.credit=trace"]\n'
        'backend = ["jax", "torch"]\n'
        'seeds = 5\nbudget = 200\nhidden = 4\npreset = "smoke"\ntuned = "none.toml"\nresults = "nowhere"\n'
    )
    out = tmp_path / "tuned.toml"
    arguments = ["tune", "--config", str(config), "--points", "4", "--studies", "1", "--confirm", "0"]
    arguments += ["--executor", "inline", "--results", str(tmp_path / "r")]
    assert main([*arguments, "--output", str(out)]) == 0
    records = Store(tmp_path / "r").all()
    assert {(r.trial.seed, r.trial.backend, r.trial.budget_steps) for r in records} == {
        (1_000_000, "jax", 200)
    }
    assert {r.trained_together for r in records} == {2}
    assert all(r.trial.hyperparameters["credit"] == "trace" for r in records if r.trial.learner == "np")
    assert set(tomllib.loads(out.read_text())["mackey_glass"]) == {"bptt", "np"}
    store = Store(tmp_path / "r")
    for one in records:
        if one.trial.learner == "np":
            store.put(one.model_copy(update={"status": "crashed", "status_detail": "exit code 3"}))
    capsys.readouterr()
    assert main([*arguments, "--output", str(out)]) == 1
    assert "mackey_glass np 0/0: not tuned: crashed: exit code 3" in capsys.readouterr().err
    assert set(tomllib.loads(out.read_text())["mackey_glass"]) == {"bptt"}


def test_a_choice_is_of_one_cell_and_run_with_that_alone(tmp_path, capsys):
    """A file without cells is of tanh; those of another cell are added to it."""
    config, out, results = tmp_path / "grid.toml", tmp_path / "tuned.toml", tmp_path / "r"
    config.write_text(
        'task = "mackey_glass"\nlearner = ["bptt", "readout_ridge"]\npreset = "smoke"\nhidden = 4\n'
        'cell = ["tanh", "lif"]\n[set]\nlif.decay = 0.8\nmackey_glass.steps = 400\n'
    )
    tune = ["tune", "--config", str(config), "--points", "2", "--studies", "1", "--confirm", "0"]
    tune += ["--budget", "100", "--backend", "torch", "--executor", "inline", "--results", str(results)]
    tune += ["--output", str(out), "--keep"]
    assert main([*tune, "--cell", "tanh", "--set", "mackey_glass.steps=400"]) == 0
    first = out.read_text()
    assert "cell =" not in first and "--cell tanh" in first
    assert main([*tune, "--json"]) == 0
    said = capsys.readouterr()
    rows = json.loads(said.out[said.out.index("[\n {") :])
    assert [(row["rule"], row["cell"]) for row in rows] == [("bptt", "lif"), ("readout_ridge", "lif")]
    assert "mackey_glass bptt with lif lr=" in said.err
    assert out.read_text().startswith(first) and out.read_text().count('cell = "lif"') == 2
    found = tomllib.loads(out.read_text())["mackey_glass"]
    assert {rule: [s.get("cell") for s in studies] for rule, studies in found.items()} == {
        "bptt": [None, "lif"],
        "readout_ridge": [None, "lif"],
    }
    tried = [r.trial for r in Store(results).all() if r.trial.cell == "lif"]
    assert {t.cell_parameters["decay"] for t in tried} == {0.8}
    grid = make_grid(
        Options(
            tasks=("mackey_glass",),
            learners=("bptt",),
            cells=("lif", "tanh", "gru"),
            preset="smoke",
            tuned=str(out),
            settings={"lif.decay": 0.8},
        )
    )
    lrs = {trial.cell: trial.lr for trial in grid.trials}
    assert lrs["tanh"] == found["bptt"][0]["lr"] and lrs["lif"] == found["bptt"][1]["lr"]
    assert any("has nothing for bptt with gru on mackey_glass" in note for note in grid.notes)


def test_a_choice_is_of_the_constants_of_its_cell_too(tmp_path, capsys):
    """A file without constants is of their defaults; those at other values are added to it."""
    out, results = tmp_path / "tuned.toml", tmp_path / "r"
    tune = ["tune", "--task", "mackey_glass", "--learner", "bptt", "--cell", "lif", "--points", "2", "--keep"]
    tune += ["--studies", "1", "--confirm", "0", "--budget", "100", "--hidden", "4", "--backend", "torch"]
    tune += ["--set", "mackey_glass.steps=400", "--executor", "inline", "--results", str(results), "--json"]
    tune += ["--output", str(out)]
    assert main([*tune, "--set", "lif.decay=0.95"]) == 0  # its default
    first = out.read_text()
    assert 'cell = "lif"' in first and "cell_parameters" not in first
    capsys.readouterr()
    assert main([*tune, "--set", "lif.decay=0.8"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["cell_parameters"] == {"decay": 0.8}
    assert out.read_text().startswith(first)
    assert tomllib.loads(out.read_text())["mackey_glass"]["bptt"][1]["cell_parameters"] == {"decay": 0.8}
    whole = out.read_text()
    for decay in ("0.95", "0.8"):
        assert main([*tune, "--set", f"lif.decay={decay}"]) == 0
    assert out.read_text() == whole
    found = tomllib.loads(whole)["mackey_glass"]["bptt"]

    def run(**settings):
        options = Options(
            tasks=("mackey_glass",),
            learners=("bptt",),
            cells=("lif",),
            preset="smoke",
            tuned=str(out),
            settings={f"lif.{name}": value for name, value in settings.items()},
        )
        grid = make_grid(options)
        return [(trial.lr, trial.study) for trial in grid.trials], grid.notes

    assert found[0]["lr"] == found[1]["lr"]  # studies of one number have the same points
    out.write_text(whole.replace(f"lr = {found[0]['lr']!r}", "lr = 0.125", 1))
    assert run()[0] == run(decay="0.95")[0] == [(0.125, "0/0")]
    assert run(decay="0.8")[0] == [(found[1]["lr"], "0/0")]
    (other,), notes = run(decay="0.8", threshold="2")
    assert other[1] is None
    assert any("has nothing for bptt with lif decay=0.8 threshold=2.0 on mackey_glass" in n for n in notes)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("cell_parameters = 3", "has the cell_parameters 3: give a table"),
        ("cell_parameters = {dekay = 0.8}", "unknown parameter of lif 'dekay': did you mean 'decay'"),
        ('cell_parameters = {decay = "much"}', "lif.decay is 'much': give a value of the type float"),
    ],
)
def test_constants_that_make_no_sense_are_refused(tmp_path, line, said):
    path = tmp_path / "tuned.toml"
    path.write_text(f'[[mackey_glass.bptt]]\nlr = 0.1\nstudy = "0/0"\ncell = "lif"\n{line}\n')
    options = dict(tasks=("mackey_glass",), learners=("bptt",), preset="smoke", tuned=str(path))
    with pytest.raises(UsageError, match=re.escape(said)):
        make_grid(Options(**options, cells=("lif",)))


def test_constants_of_every_kind_are_written_and_read(tmp_path):
    """Text, truth, numbers, none and lists."""
    path = tmp_path / "many.py"
    path.write_text(
        "from dataclasses import dataclass\n"
        "from creditbench.cells.tanh import Tanh\n"
        "@dataclass(frozen=True)\n"
        "class Many(Tanh):\n"
        '    id = "many"\n'
        '    kind: str = "a"\n'
        "    on: bool = False\n"
        "    count: int = 3\n"
        "    part: float | None = 0.5\n"
        "    sizes: tuple[int, ...] = (1,)\n"
    )
    given = {"kind": 'b"\\', "on": "true", "count": "4", "part": "none", "sizes": [2, 3]}
    options = dict(tasks=("mackey_glass",), learners=("bptt",), cells=(str(path),), preset="smoke")
    options |= {"settings": {f"many.{name}": value for name, value in given.items()}}
    (trial,) = make_grid(Options(**options)).trials
    values = {"kind": 'b"\\', "on": True, "count": 4, "part": None, "sizes": [2, 3]}
    assert {name: trial.cell_parameters[name] for name in values} == values
    found = choose([record(trial, validation_best=0.5)])
    tuned = tmp_path / "tuned.toml"
    tuned.write_text(frozen([dataclasses.replace(found, values={"lr": 0.125})], "creditbench tune"))
    assert [t.lr for t in make_grid(Options(**options, tuned=str(tuned))).trials] == [0.125]
    assert kept_studies(tuned).has(trial, "0/0") and not kept_studies(tuned).has(trial, "0/1")
