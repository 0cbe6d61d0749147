"""Tuning: equal budgets, scored on validation, frozen so that a run reads it, resumed where it was broken off."""

from __future__ import annotations

import json
import math
import tomllib

import numpy as np
import pytest

from creditbench.cli import main
from creditbench.errors import UsageError
from creditbench.grid import Options, make_grid
from creditbench.store import Store
from creditbench.tuning import LEARNING_RATES, choose, draw, frozen, trials_of
from tests.creditbench.test_table import record


@pytest.fixture
def trial():
    return make_grid(
        Options(tasks=("mackey_glass",), learners=("anp+D",), seeds=(1000,), preset="smoke")
    ).trials[0]


def test_points_fill_the_space_evenly_and_are_the_same_again():
    points = draw({"sigma": (1e-4, 1e-1)}, 64, seed=0, decorrelated=True)
    assert points == draw({"sigma": (1e-4, 1e-1)}, 64, seed=0, decorrelated=True)
    assert points != draw({"sigma": (1e-4, 1e-1)}, 64, seed=1, decorrelated=True)
    for optimizer, (low, high) in LEARNING_RATES.items():
        rates = np.array([p.lr for p in points if p.optimizer == optimizer])
        assert len(rates) == 32
        places = np.log(rates / low) / np.log(high / low)
        # Two of 32 points in each of 16 parts, but for the rounding to three digits.
        assert np.histogram(places, 16, (0, 1))[0].min() >= 1
    sigmas = np.log10([p.hyperparameters["sigma"] for p in points])
    assert np.histogram(sigmas, 4, (-4, -1))[0].tolist() == pytest.approx([16] * 4, abs=1)


def test_every_rule_has_the_same_optimisers_and_rates():
    one, two = draw({}, 20, 3, False), draw({"sigma": (1e-4, 1e-1)}, 20, 3, True)
    assert len(one) == len(two) == 20
    assert [(p.optimizer, p.lr) for p in one] == [(p.optimizer, p.lr) for p in two]
    assert {p.decorrelation_rate for p in one} == {None}
    with pytest.raises(UsageError, match="search axis sigma"):
        draw({"sigma": (0.0, 1.0)}, 4, 0, False)


def test_the_best_on_validation_is_chosen_never_on_test(trial):
    points = draw({}, 4, 0, True)
    good = [record(t, validation_best=v, test_score=s, train_seconds=2.0) for t, v, s in zip(
        trials_of(trial, points), (0.9, 0.3, 0.55, 0.2), (0.1, 0.5, 0.5, 0.9), strict=True)]  # fmt: skip
    diverged = good[3].model_copy(update={"status": "diverged"})
    found = choose([*good[:3], diverged])
    assert found.values == {
        "optimizer": points[1].optimizer, "lr": points[1].lr, "decorrelation_rate": points[1].decorrelation_rate,
        "sigma": 1e-3,
    }  # fmt: skip
    from creditbench import registry

    task = registry.find("tasks", "mackey_glass").cls
    scores = [(task.trivial - v) / (task.trivial - task.solved) for v in (0.9, 0.3, 0.55)]
    assert found.score == pytest.approx(min(scores[1], 1.1))
    assert found.sensitivity == sum(s >= found.score / 2 for s in scores) / 4
    assert found.train_seconds == 8.0
    together = [r.model_copy(update={"trained_together": 4}) for r in [*good[:3], diverged]]
    assert choose(together).train_seconds == 2.0
    crashed = good[1].model_copy(update={"status": "crashed"})
    assert choose([good[0], crashed, good[2]]).values["lr"] == points[2].lr
    with pytest.raises(UsageError, match="no point of anp"):
        choose([crashed])
    none = choose([diverged])
    assert none.sensitivity is None and none.score == 0


def test_what_is_frozen_is_what_a_run_reads(trial, tmp_path):
    (chosen,) = trials_of(trial, draw({}, 1, 5, True))
    path = tmp_path / "tuned.toml"
    path.write_text(frozen([choose([record(chosen, validation_best=0.5)])], "creditbench tune"))
    assert tomllib.loads(path.read_text())["mackey_glass"]["anp+D"]["lr"] == chosen.lr
    options = dict(tasks=("mackey_glass",), learners=("anp+D",), seeds=(1000,), preset="smoke")
    (again,) = make_grid(Options(**options, tuned=str(path))).trials
    assert again == chosen


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
    ]
    arguments += ["--preset", "smoke", "--hidden", "4", "--results", str(tmp_path / "r"), "--json"]
    arguments += ["--output", str(tmp_path / "tuned.toml")]
    assert main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert {(row["rule"], row["points"]) for row in found} == {("readout_rls", 2), ("bptt", 2)}
    records = Store(tmp_path / "r").all()
    assert {r.trial.seed for r in records} == {1000}
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
        for option in ("backend", "device", "points", "seeds", "draw", "preset", "hidden")
    )


def test_a_file_of_run_is_tuned_but_for_what_is_not_for_tuning(tmp_path, capsys):
    """Its seeds, backends and budget are the results' own; a rule that fails at every point is told, and left out."""
    config = tmp_path / "grid.toml"
    config.write_text(
        'task = ["mackey_glass"]\nlearner = ["bptt", "np"]\nset = ["np.credit=trace"]\nbackend = ["jax", "torch"]\n'
        'seeds = 5\nbudget = 20000\nhidden = 4\npreset = "smoke"\ntuned = "none.toml"\nresults = "nowhere"\n'
    )
    out = tmp_path / "tuned.toml"
    arguments = ["tune", "--config", str(config), "--points", "4", "--results", str(tmp_path / "r")]
    assert main([*arguments, "--output", str(out)]) == 0
    records = Store(tmp_path / "r").all()
    assert {(r.trial.seed, r.trial.backend, r.trial.budget_steps) for r in records} == {(1000, "jax", 300)}
    assert {r.trained_together for r in records} == {2}
    assert all(r.trial.hyperparameters["credit"] == "trace" for r in records if r.trial.learner == "np")
    assert set(tomllib.loads(out.read_text())["mackey_glass"]) == {"bptt", "np"}
    store = Store(tmp_path / "r")
    for one in records:
        if one.trial.learner == "np":
            store.put(one.model_copy(update={"status": "crashed", "status_detail": "exit code 3"}))
    capsys.readouterr()
    assert main([*arguments, "--output", str(out)]) == 1
    assert "mackey_glass np: not tuned: crashed: exit code 3" in capsys.readouterr().err
    assert set(tomllib.loads(out.read_text())["mackey_glass"]) == {"bptt"}
