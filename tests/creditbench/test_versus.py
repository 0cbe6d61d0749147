"""A rule held against a reference: what was planted in score, convergence and cost is what comes out."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy.stats import t, ttest_ind

from creditbench.cli import main
from creditbench.errors import UsageError
from creditbench.grid import Options, make_grid
from creditbench.leaderboard.versus import versus, welch
from creditbench.record import Point
from creditbench.store import Results, Store
from tests.creditbench.test_table import record

SPREAD = np.array([-0.02, -0.01, 0.0, 0.01, 0.02])


def curve(best, reaches):
    """Validation 2 at the start, the best from step `reaches` on; a second takes 100 steps."""
    return tuple(
        Point(step=s, seconds=s / 100, loss=None, validation=best if s >= reaches else 2.0)
        for s in range(0, 500, 100)
    )


def runs(learner, normalised, reaches, best=0.5, **values):
    grid = make_grid(
        Options(tasks=("mackey_glass",), learners=(learner,), seeds=tuple(range(5)), preset="smoke")
    )
    return [
        record(
            trial,
            **{"normalised_score": normalised + d, "test_score": 1 - normalised - d, "trivial": 1.0}
            | {"validation_best": best, "curve": curve(best, reaches), "process_peak_bytes": None}
            | values,
        )
        for trial, d in zip(grid.trials, SPREAD, strict=True)
    ]


@pytest.fixture(scope="module")
def results():
    return Results(
        records=(
            *runs("bptt", 0.6, 100, ratio_forward=4.0, algorithm_bytes=1000),
            *runs("anp", 0.61, 300, ratio_forward=6.0, algorithm_bytes=100),
            *runs("np", 0.3, 200, best=1.9),
            *runs("wp", 0.9, 100),
            *runs("rflo", 0.0, 100, status="crashed", normalised_score=None, test_score=None),
        ),
        scaling=(), gradients=(), learners={}, tasks={},
    )  # fmt: skip


def rows(results, **options):
    return {row.rule: row for row in versus(results, **options)}


def test_scores_are_judged_by_their_intervals(results):
    found = rows(results)
    assert {rule: row.verdict for rule, row in found.items()} == {
        "bptt": "reference", "anp": "matches", "np": "worse", "wp": "better", "rflo": "5 crashed",
    }  # fmt: skip
    assert found["anp"].difference == pytest.approx(0.01)
    # The same spread on both sides: Welch's interval is Student's with 2 (n - 1) degrees of freedom.
    half = t.ppf(0.975, 8) * math.sqrt(2 * SPREAD.var(ddof=1) / 5)
    assert found["anp"].interval == pytest.approx((0.01 - half, 0.01 + half))
    assert rows(results, margin=0.02)["anp"].verdict == "undecided"


def test_convergence_is_counted_to_the_references_level(results):
    """The level lies at 2 - 0.95 · 1.5 = 0.575, which `np` never reaches."""
    found = rows(results)
    assert (found["bptt"].steps, found["bptt"].seconds, found["bptt"].reached) == (100, 1.0, "5/5")
    assert (found["anp"].steps_ratio, found["anp"].seconds_ratio) == (3.0, 3.0)
    assert (found["np"].steps, found["np"].reached) == (math.inf, "0/5")
    assert rows(results, level=0.06)["np"].steps == 200


def test_costs_are_ratios_to_the_references(results):
    found = rows(results)
    assert (found["anp"].step_time_ratio, found["anp"].bytes_ratio) == (1.5, 0.1)
    assert found["np"].step_time_ratio is None


def test_p_values_are_corrected_for_the_number_of_rules(results):
    """Three rules are tested; the least p is tripled (Holm 1979)."""
    found = rows(results)
    alone = {r: welch(found[r].normalised + SPREAD, 0.6 + SPREAD)[2] for r in ("anp", "np", "wp")}
    least = min(alone, key=alone.get)
    assert found[least].p == pytest.approx(3 * alone[least])
    assert found["anp"].p == pytest.approx(alone["anp"])


def test_welchs_interval_is_scipys():
    x, y = np.array([0.1, 0.4, 0.2, 0.9]), np.array([0.3, 0.35, 0.31])
    found = ttest_ind(x, y, equal_var=False)
    difference, interval, p = welch(x, y)
    assert difference == pytest.approx(x.mean() - y.mean())
    assert interval == pytest.approx(tuple(found.confidence_interval(0.95)))
    assert p == pytest.approx(found.pvalue)
    same = np.full(5, 0.3)
    assert welch(same, same + 1e-13)[2] == 1.0 and welch(same, same + 0.1)[2] == 0.0
    assert welch(same[:1], same)[1:] == (None, None)


def test_a_row_of_a_changed_source_is_marked(results, tmp_path):
    from creditbench.leaderboard.text import versus_markdown

    changed = [
        r.model_copy(update={"trial": r.trial.model_copy(update={"learner_sha256": "0" * 64})})
        if r.trial.learner == "np"
        else r
        for r in results.records
    ]
    found = versus(Results(tuple(changed)))
    assert {row.rule: row.stale for row in found if row.stale} == {"np": "learner np has changed"}
    assert versus_markdown(found).count("worse; stale: learner np has changed") == 1


def test_bad_input_is_named(results):
    with pytest.raises(UsageError, match="unknown rule in these results 'bpt': did you mean 'bptt'"):
        versus(results, "bpt")
    for option in ({"level": 0.0}, {"margin": 0.0}):
        with pytest.raises(UsageError, match=next(iter(option))):
            versus(results, **option)


def test_the_command_prints_every_form(results, tmp_path, capsys):
    store = Store(tmp_path)
    for one in results.records:
        store.put(one)
    assert main(["versus", "--results", str(tmp_path), "--json"]) == 0
    found = {row["rule"]: row for row in json.loads(capsys.readouterr().out)}
    assert found["np"]["steps"] is None and found["anp"]["verdict"] == "matches"
    assert main(["versus", "--results", str(tmp_path), "--format", "markdown"]) == 0
    out = capsys.readouterr().out
    assert "| ∞ |" in out and "+0.010 [" in out
    assert main(["versus", "--results", str(tmp_path), "--format", "csv"]) == 0
    assert capsys.readouterr().out.count("\n") == 6
    assert main(["versus", "--results", str(tmp_path), "--format", "xml"]) == 2
    assert main(["versus", "--results", str(tmp_path), "--format", "csv", "--json"]) == 2
    assert "--format is csv and --json is given" in capsys.readouterr().err
