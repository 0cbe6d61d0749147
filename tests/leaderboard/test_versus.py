"""A rule compared with a reference: planted differences in score, convergence and cost are reported."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy.stats import t, ttest_ind

from creditbench.cli import main
from creditbench.errors import UsageError
from creditbench.leaderboard.versus import contrast, versus, welch
from creditbench.results.store import Store
from creditbench.results.version import Results
from creditbench.trials.grid import Options, make_grid
from creditbench.trials.record import Point
from tests.records import record

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
            **{
                "normalised_score": normalised + d,
                "test_score": 1 - normalised - d,
                "trivial": 1.0,
                "solved": 0.0,
            }
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
    assert found[least].p == pytest.approx(alone[least])
    assert found[least].p_corrected == pytest.approx(3 * alone[least])
    assert found["anp"].p == found["anp"].p_corrected == pytest.approx(alone["anp"])


def test_p_values_are_corrected_for_what_is_asked_alone(results):
    found = rows(results, rules=["anp"])
    assert set(found) == {"bptt", "anp"} and found["anp"].p_corrected == found["anp"].p
    two = rows(results, rules=["np", "anp"], tasks=["mackey_glass"])
    least = min(two["np"].p, two["anp"].p)
    assert min(two["np"].p_corrected, two["anp"].p_corrected) == pytest.approx(2 * least)


def test_the_verdict_agrees_with_the_interval_it_stands_beside():
    """For rows of any size: undecided if the interval holds 0; (raw) if only the correction undoes it."""
    rng = np.random.default_rng(3)
    seen = set()
    for _ in range(25):
        records = [
            r.model_copy(update={"normalised_score": float(rng.normal(0.1 * k, 0.08)), "test_score": 0.5})
            for k, learner in enumerate(("bptt", "anp", "np", "wp", "rflo"))
            for r in runs(learner, 0.5, 100)
        ]
        for row in versus(Results(tuple(records))):
            if row.verdict == "reference":
                continue
            low, high = row.interval
            seen.add(row.verdict)
            assert low <= row.difference <= high
            assert (low <= 0 <= high) == (row.p >= 0.05)
            if row.verdict != "matches":
                assert (row.verdict == "undecided") == (low <= 0 <= high)
                assert row.verdict.endswith("(raw)") == (row.p < 0.05 <= row.p_corrected)
    assert {"better", "better (raw)", "undecided"} <= seen


def with_(records, learner, **values):
    """The records, those of a learner with other values."""
    return [r.model_copy(update=values) if r.trial.learner == learner else r for r in records]


def test_a_run_that_diverged_is_at_the_floor(results):
    found = rows(Results(tuple(with_(results.records, "wp", status="diverged", normalised_score=None))))
    assert (found["wp"].verdict, found["wp"].normalised) == ("worse", -10.0)
    both = with_(with_(results.records, "wp", status="diverged"), "bptt", status="diverged")
    found = rows(Results(tuple(both)))
    assert found["wp"].verdict == "5 diverged; bptt: 5 diverged" and found["wp"].p is None


def test_the_interval_is_over_studies(results):
    """Two studies of five runs, whose means differ by 0.2: Welch's interval of two means a side."""
    records = []
    for learner, level in (("bptt", 0.6), ("anp", 0.5)):
        for study, d in enumerate((-0.1, 0.1)):
            for r in runs(learner, level + d, 100):
                trial = r.trial.model_copy(update={"study": f"0/{study}", "seed": 5 * study + r.trial.seed})
                records.append(r.model_copy(update={"trial": trial}))
    row = rows(Results(tuple(records)))["anp"]
    assert (row.studies, row.seeds, row.verdict) == (2, 10, "undecided")
    assert row.interval == pytest.approx(welch([0.4, 0.6], [0.5, 0.7])[1])
    one = rows(Results(tuple(r for r in records if r.trial.study == "0/0")))["anp"]
    assert (one.verdict, one.interval, one.p) == ("undecided (one study)", None, None)


def test_a_task_without_a_scale_is_judged_by_its_metric_and_never_matches(results):
    unscaled = [r.model_copy(update={"normalised_score": None, "solved": None}) for r in results.records]
    found = rows(Results(tuple(unscaled)), margin=9.0)
    assert {r: row.verdict for r, row in found.items()} == {
        "bptt": "reference", "anp": "undecided", "np": "worse", "wp": "better", "rflo": "5 crashed",
    }  # fmt: skip
    assert found["np"].difference == pytest.approx(-0.3) and found["np"].scale == "−nrmse"
    assert rows(Results(tuple(with_(unscaled, "wp", status="diverged"))))["wp"].verdict == "5 diverged"


def test_seconds_are_held_against_those_of_one_machine_alone(results):
    found = rows(Results(tuple(with_(results.records, "anp", environment={"cpu": "another"}))))
    assert found["anp"].seconds_ratio is None and found["anp"].steps_ratio == 3.0
    assert found["wp"].seconds_ratio == 1.0


def test_other_conditions_are_other_columns(results):
    other = [
        r.model_copy(update={"trial": r.trial.model_copy(update={"budget_steps": 7})})
        for r in results.records
        if r.trial.learner in ("bptt", "np")
    ]
    both = Results((*results.records, *other))
    budget = results.records[0].trial.budget_steps
    assert {(r.task, r.rule) for r in versus(both, tasks=["mackey_glass budget_steps=7"])} == {
        ("mackey_glass budget_steps=7", "bptt"), ("mackey_glass budget_steps=7", "np"),
    }  # fmt: skip
    assert {r.task for r in versus(both, tasks=["mackey_glass"], rules=["np"])} == {
        "mackey_glass budget_steps=7", f"mackey_glass budget_steps={budget}",
    }  # fmt: skip


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


def test_a_contrast_of_two_groups_is_welchs_and_of_more_has_the_variance_of_the_sum():
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal(5), 1 + 2 * rng.standard_normal(8)
    found = contrast((1, a), (-1, b))
    known = ttest_ind(a, b, equal_var=False, alternative="less")
    assert found.p(below=True) == pytest.approx(known.pvalue) and found.df == pytest.approx(known.df)
    twice = contrast((1, a), (-1, b), (1, b), (-1, a))
    assert twice.mean == pytest.approx(0.0) and twice.error == pytest.approx(np.sqrt(2) * found.error)
    assert contrast((1, np.ones(3)), (-1, np.zeros(2))).p(below=True) == 1.0
    assert contrast((1, np.zeros(3)), (-1, np.ones(2))).p(below=True) == 0.0


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
    with pytest.raises(UsageError, match="unknown rule in these results 'amp'"):
        versus(results, rules=["amp"])
    with pytest.raises(
        UsageError, match="unknown task in these results 'mackey': did you mean 'mackey_glass'"
    ):
        versus(results, tasks=["mackey"])
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
    assert "p corrected of all 3 that are compared here" in out
    assert main(["versus", "--results", str(tmp_path), "--format", "csv"]) == 0
    assert capsys.readouterr().out.count("\n") == 6
    assert (
        main(["versus", "--results", str(tmp_path), "--rule", "np,wp", "--task", "mackey_glass", "--json"])
        == 0
    )
    asked = json.loads(capsys.readouterr().out)
    assert [row["rule"] for row in asked] == ["bptt", "np", "wp"] and asked[1]["p"] < asked[1]["p_corrected"]
    assert main(["versus", "--results", str(tmp_path), "--rule", "npp"]) == 2
    assert main(["versus", "--results", str(tmp_path), "--format", "xml"]) == 2
    assert main(["versus", "--results", str(tmp_path), "--format", "csv", "--json"]) == 2
    assert "--format is csv and --json is given" in capsys.readouterr().err
