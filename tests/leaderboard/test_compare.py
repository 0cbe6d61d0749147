"""Two results compared: planted differences are reported, and no others."""

from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import pytest

from creditbench.cli import main
from creditbench.errors import UsageError
from creditbench.leaderboard.compare import agreement, compare
from creditbench.results.version import Results, write_tables
from tests.conftest import thorough
from tests.synthetic import make


@pytest.fixture(scope="module")
def before(source) -> Results:
    return make(source, measured=False)


@pytest.fixture
def changes_alone(monkeypatch) -> None:
    """What takes most of a comparison's time, and no test of changes reads: the order of the two boards."""
    monkeypatch.setattr("creditbench.leaderboard.compare.agreement", lambda a, b: None)


def found(a: Results, b: Results, **options) -> set[tuple[str, str, str]]:
    return {(c.kind, c.rule, c.quantity) for c in compare(a, b, **options).changes}


@pytest.mark.usefixtures("changes_alone")
def test_two_runs_of_one_commit_differ_in_nothing_ten_times_of_ten(source, before):
    """Scores are the same, times are drawn anew."""
    for noise in range(1, 11):
        comparison = compare(before, make(source, measured=False, noise=noise))
        assert comparison.changes == ()
        assert comparison.compared == {
            "score": 4, "ratio_forward": 8, "algorithm_bytes": 8, "flops_per_step": 8,
        }  # fmt: skip


@pytest.mark.usefixtures("changes_alone")
@pytest.mark.statistical
@pytest.mark.parametrize("count", thorough([60, 200], but=[60]))
def test_a_busy_machine_makes_a_rule_faster_or_slower_in_few_comparisons(source, count):
    """Times vary by half by chance: at most 5 % of the comparisons have an alarm."""
    runs = [make(source, measured=False, seeds=1, points=2, noise=n, jitter=0.4) for n in range(count + 1)]
    alarms = sum(bool(compare(a, b).changes) for a, b in itertools.pairwise(runs))
    assert alarms <= 0.05 * count


@pytest.mark.usefixtures("changes_alone")
def test_a_rule_of_wild_times_does_not_hide_that_another_is_half_as_slow_again(source):
    """Each fourth time of `rule_03` is off by a factor of up to 20; `rule_01` is 1.47 times as slow."""

    def slower(trial):
        chance = np.random.default_rng([int(trial.task[-1]), trial.seed, trial.backend == "jax"])
        wild = 20 ** chance.uniform(-1, 1) if chance.random() < 0.25 else 1.0
        return {"rule_01": 1.47, "rule_03": wild}.get(trial.learner, 1.0)

    for noise in range(1, 11):
        after = make(source, measured=False, seeds=1, noise=noise, slower=slower)
        changes = compare(make(source, measured=False, seeds=1), after).changes
        assert {(c.kind, c.rule, c.backend) for c in changes} == {
            ("slower", "rule_01", "jax"), ("slower", "rule_01", "torch"),
        }  # fmt: skip
        assert all(1 < c.low < 1.47 < c.high for c in changes)


def test_other_conditions_are_other_columns(source, before):
    def budget(results: Results, steps: int) -> Results:
        records = (
            r.model_copy(update={"trial": r.trial.model_copy(update={"budget_steps": steps})})
            if r.trial.task == "task_00"
            else r
            for r in results.records
        )
        return dataclasses.replace(results, records=tuple(records))

    changes = compare(before, budget(before, 7)).changes
    assert {(c.kind, c.task) for c in changes} == {
        ("new", "task_00 budget_steps=7"), ("gone", "task_00 budget_steps=100000"),
    }  # fmt: skip
    alone = [
        dataclasses.replace(before, records=tuple(r for r in before.records if r.trial.task == "task_00"))
    ]
    with pytest.raises(
        UsageError, match="'task_00 budget_steps=100000' stands against 'task_00 budget_steps=7'"
    ):
        compare(alone[0], budget(alone[0], 7))


def test_runs_are_relabelled_within_studies_that_both_have_else_studies_as_a_whole(source):
    """Chance in tuning of 0.5 hides a change of 0.2 only if the studies differ."""
    options = dict(rules=3, tasks=3, seeds=3, studies=3, tuning=0.5, measured=False)
    before = make(source, **options)
    after = make(source, **options, worse=lambda t: 0.2 if t.learner == "rule_01" else 0.0)
    assert ("worse", "rule_01", "normalised_score") in found(before, after)
    again = [
        r.model_copy(
            update={"trial": r.trial.model_copy(update={"study": r.trial.study.replace("0/", "1/")})}
        )
        for r in after.records
    ]
    assert found(before, dataclasses.replace(after, records=tuple(again))) == set()


def test_a_column_without_a_scale_is_compared_in_its_metric(source, before):
    def unscaled(results: Results, shift: float = 0.0) -> Results:
        records = (
            r.model_copy(
                update={"normalised_score": None, "solved": None}
                | {"test_score": r.test_score + shift * (r.trial.learner == "rule_02")}
            )
            if r.trial.task == "task_00"
            else r
            for r in results.records
        )
        return dataclasses.replace(results, records=tuple(records))

    (change,) = compare(unscaled(before), unscaled(before, 0.5)).changes
    assert (change.kind, change.rule, change.task, change.quantity) == (
        "worse",
        "rule_02",
        "task_00",
        "−nrmse",
    )
    assert change.difference == pytest.approx(-0.5) and change.low < -0.5 < change.high


def test_a_run_that_diverges_counts_as_the_floor_of_the_scale(source, before):
    after = make(source, measured=False, status=lambda t: "diverged" if t.learner == "rule_01" else "ok")
    (overall,) = [c for c in compare(before, after).changes if c.task is None]
    assert (overall.kind, overall.rule, overall.after) == ("worse", "rule_01", -10.0)


def test_what_is_counted_in_one_column_is_told_of_it(source, before):
    def less(record):
        return (record.trial.learner, record.trial.task) == ("rule_01", "task_02")

    records = (
        r.model_copy(update={"flops_per_step": 2.47 * r.flops_per_step}) if less(r) else r
        for r in before.records
    )
    changes = compare(before, dataclasses.replace(before, records=tuple(records))).changes
    assert {(c.kind, c.rule, c.task) for c in changes} == {("more work", "rule_01", "task_02")}
    assert all(c.ratio == pytest.approx(2.47) and c.difference is None for c in changes)


def test_other_versions_are_noted(source, before):
    environment = {**before.records[0].environment, "packages": {"jax": "9", "torch": "9"}}
    records = tuple(r.model_copy(update={"environment": environment}) for r in before.records)
    (note,) = compare(before, dataclasses.replace(before, records=records)).notes
    assert note.startswith("versions differ") and "jax 0.0.1 → jax 9" in note


def test_a_ratio_that_training_does_not_confirm_is_a_note(source, before):
    records = [
        r.model_copy(update={"ratio_forward": 2 * r.ratio_forward}) if r.trial.learner == "rule_01" else r
        for r in make(source, measured=False, noise=1).records
    ]
    comparison = compare(before, dataclasses.replace(before, records=tuple(records)))
    assert comparison.changes == ()
    assert (
        "ratio_forward of rule_01 jax is × 1.95, and its steps a second did not go along"
        in comparison.notes[0]
    )
    assert len(comparison.notes) == 2


@pytest.mark.usefixtures("changes_alone")
@pytest.mark.statistical
def test_scores_that_are_drawn_anew_differ_no_more_often_than_allowed(source):
    """As on two machines with different rounding: at most 5 % of comparisons, here one of 20 and two more."""
    runs = [make(source, tasks=2, backends=("jax",), measured=False, noise=n, redraw=True) for n in range(21)]
    alarms = sum(bool(compare(a, b).changes) for a, b in itertools.pairwise(runs))
    assert alarms <= 3


@pytest.mark.usefixtures("changes_alone")
@pytest.mark.parametrize("noise", range(1, 11))
def test_a_rule_made_20_percent_slower_is_found_alone(source, before, noise):
    after = make(source, measured=False, noise=noise, slower=lambda t: 1.2 if t.learner == "rule_02" else 1.0)
    comparison = compare(before, after)
    assert {(c.kind, c.rule, c.backend) for c in comparison.changes} == {
        ("slower", "rule_02", "jax"),
        ("slower", "rule_02", "torch"),
    }
    for change in comparison.regressions:
        assert 1 < change.low < 1.2 < change.high and change.p < change.p_corrected < 0.05


def test_what_is_as_fast_again_is_faster(source, before):
    slow = make(source, measured=False, noise=3, slower=lambda t: 1.2 if t.backend == "torch" else 1.0)
    assert {kind for kind, *_ in found(slow, before)} == {"faster"}


def test_without_ratios_steps_a_second_are_compared_on_one_machine_alone(source, before):
    def without(results: Results, **environment) -> Results:
        records = (r.model_copy(update={"ratio_forward": None} | environment) for r in results.records)
        return dataclasses.replace(results, records=tuple(records))

    slow = make(source, measured=False, noise=1, slower=lambda t: 1.2 if t.learner == "bptt" else 1.0)
    assert found(without(before), without(slow)) == {("slower", "bptt", "steps_per_second")}
    elsewhere = compare(without(before), without(slow, environment={"cpu": "another"}))
    assert elsewhere.changes == ()
    assert any("no time was compared" in note for note in elsewhere.notes)
    assert any("An imagined processor, 1 thread → another, 1 thread" in note for note in elsewhere.notes)


def test_a_rule_made_worse_is_found_with_its_tasks(source, before):
    after = make(source, measured=False, noise=1, worse=lambda t: 0.3 if t.learner == "rule_01" else 0.0)
    comparison = compare(before, after)
    assert {(c.kind, c.rule) for c in comparison.changes} == {("worse", "rule_01")}
    (overall,) = [c for c in comparison.changes if c.task is None]
    assert overall.difference == pytest.approx(-0.3, abs=0.01) and overall.low < -0.3 < overall.high
    assert {c.task for c in comparison.changes} == {None, *(f"task_0{i}" for i in range(5))}
    assert found(after, before) == {("better", "rule_01", "normalised_score")}


def test_a_rule_made_worse_on_one_task_and_three_seeds_is_found(source):
    options = dict(tasks=1, seeds=3, rules=4, measured=False)
    after = make(source, **options, worse=lambda t: 0.3 if t.learner == "rule_01" else 0.0)
    assert ("worse", "rule_01", "normalised_score") in found(make(source, **options), after)


def test_what_is_counted_is_told_exactly(source, before):
    grown = tuple(
        r.model_copy(update={"algorithm_bytes": r.algorithm_bytes + 4096})
        if r.trial.learner == "rule_03"
        else r
        for r in before.records
    )
    after = dataclasses.replace(before, records=grown)
    assert found(before, after) == {("bigger", "rule_03", "algorithm_bytes")}


def test_bytes_that_came_from_none_are_told(source, before):
    none = tuple(
        r.model_copy(update={"algorithm_bytes": 0}) if r.trial.learner == "rule_03" else r
        for r in before.records
    )
    changes = compare(dataclasses.replace(before, records=none), before).changes
    assert {(c.kind, c.rule, c.ratio) for c in changes} == {("bigger", "rule_03", None)}
    assert compare(*2 * [dataclasses.replace(before, records=none)]).changes == ()


def test_what_broke_went_or_came_is_told(source, before):
    def status(trial):
        broken = trial.learner == "rule_01" and trial.task == "task_00" and trial.backend == "jax"
        return "crashed" if broken and trial.seed == 0 else "ok"

    after = make(source, measured=False, rules=4, tasks=4, status=status)
    kinds = {(c.kind, c.rule, c.task) for c in compare(before, after).changes}
    assert ("broken", "rule_01", "task_00") in kinds
    assert ("gone", "bptt", "task_04") in kinds
    assert all(kind in ("broken", "gone") for kind, *_ in kinds)


def test_nothing_in_common_is_refused(source, before):
    with pytest.raises(UsageError, match="share no rule"):
        compare(
            make(source, backends=("jax",), measured=False), make(source, backends=("torch",), measured=False)
        )


def test_one_measurement_is_not_tested(source):
    options = dict(tasks=1, seeds=1, measured=False)
    comparison = compare(make(source, **options), make(source, **options, noise=1, slower=lambda t: 3.0))
    assert not any(c.kind == "slower" for c in comparison.changes)
    assert "no time was tested" in comparison.notes[0]


def test_the_command_prints_and_exits_by_what_it_found(source, before, tmp_path, capsys):
    after = make(source, measured=False, noise=1, slower=lambda t: 1.3 if t.learner == "rule_01" else 1.0)
    write_tables(before, tmp_path / "a", "")
    write_tables(after, tmp_path / "b", "")
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "a")]) == 0
    assert "score of 4 rules" in capsys.readouterr().err
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--json"]) == 1
    rows = json.loads(capsys.readouterr().out)
    assert {row["kind"] for row in rows} == {"slower"} and rows[0]["quantity"] == "ratio_forward"
    assert main(["compare", str(tmp_path / "a"), "v9"]) == 2
    assert "no folder 'v9'" in capsys.readouterr().err


# -- order -------------------------------------------------------------------------------------------------


def test_boards_agree_with_themselves_and_not_with_their_reverse(source):
    one = make(source, rules=6, measured=False, backends=("jax",))
    same = compare(one, one).agreement
    assert (same.rules, same.columns, same.turned) == (6, 5, 0) and same.settled == 30
    assert same.tau == pytest.approx(1.0)
    worst = {f"rule_{i:02}": 0.3 * (6 - i) for i in range(1, 6)} | {"bptt": 1.8}
    reverse = make(source, rules=6, measured=False, backends=("jax",), worse=lambda t: worst[t.learner])
    turned = agreement(one, reverse)
    assert turned.tau == pytest.approx(-1.0) and turned.turned == turned.settled == 30


def test_the_order_is_of_what_both_ran(source):
    one = make(source, rules=6, measured=False, backends=("jax",))
    kept = [r for r in one.records if (r.trial.learner, r.trial.task) != ("rule_03", "task_01")]
    part = dataclasses.replace(one, records=tuple(r for r in kept if r.trial.task != "task_04"))
    found = agreement(one, part)
    assert (found.rules, found.columns) == (5, 4)
    few = dataclasses.replace(one, records=tuple(r for r in kept if r.trial.learner in ("bptt", "rule_01")))
    assert agreement(one, few) is None
