"""The board: only like runs are compared, ranks follow from intervals, diverged runs are the floor."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from creditbench.leaderboard import statistics, text
from creditbench.leaderboard.board import HIGH, LOW, make_board, make_cells
from creditbench.leaderboard.page import page
from creditbench.results.conditions import columns_of
from creditbench.results.table import render, summarise
from creditbench.results.version import Results
from tests.synthetic import CPU, make

DRAWS = 300


@pytest.fixture(scope="module")
def results(source):
    return make(source, rules=4, backends=("jax",), measured=False)


def changed(results, which, trial=None, **values):
    """The results with changes in the records that `which(record)` picks. `trial`: new fields of trials."""
    records = [
        r.model_copy(update=values | {"trial": r.trial.model_copy(update=trial or {})}) if which(r) else r
        for r in results.records
    ]
    return dataclasses.replace(results, records=tuple(records))


def of(*learners):
    return lambda record: record.trial.learner in learners


def scored(results, scores):
    """Results with these normalised scores of each rule on every task; None for a diverged run."""

    def one(record):
        values = scores[record.trial.learner]
        value = values[record.trial.seed % len(values)]
        if value is None:
            lost = dict(status="diverged", normalised_score=None, test_score=None)
            return record.model_copy(update=lost | {"solved": 0.1})
        return record.model_copy(
            update={"normalised_score": value, "test_score": 1 - 0.9 * value, "solved": 0.1, "status": "ok"}
        )

    kept = [r for r in results.records if r.trial.learner in scores]
    return dataclasses.replace(results, records=tuple(map(one, kept)))


def rows(board):
    return {row.rule: row for row in board.rows}


# -- like with like ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trial", "said"),
    [
        ({"budget_steps": 20_000}, "budget_steps=20000"),
        ({"hidden": 256}, "hidden=256"),
        ({"batch": 7}, "batch=7"),
        ({"task_parameters": {"length": 2}}, "length=2"),
        ({"data_sha256": "abcdef0123456789"}, "data_sha256=abcdef01"),
        ({"evaluations": 50}, "evaluations=50"),
        ({"task_version": 2}, "task_version=2"),
    ],
)
def test_what_was_not_run_alike_stands_in_columns_of_its_own(results, tmp_path, trial, said):
    """Their ranks are separate: a rule with more steps, an easier task or other data is not compared."""
    mixed = changed(results, of("rule_01"), trial)
    board = make_board(mixed, DRAWS)
    assert len({column for column in columns_of(mixed.records).values() if said in column}) == 5
    row = rows(board)["rule_01"]
    assert row.rank is None and not set(row.cells) & set(rows(board)["bptt"].cells)
    assert all(rows(board)[name].rank for name in ("bptt", "rule_02", "rule_03"))
    other = changed(mixed, of("rule_02"), trial)  # now two rules have run so: nobody has run everything
    both = make_board(other, DRAWS)
    assert all(row.rank is None and "not run on" in row.unranked for row in both.rows)
    assert any(said in note for note in both.notes)
    assert said in text.markdown(both, [tmp_path]) and said in page(both, [tmp_path])
    sections = summarise([r for r in mixed.records if r.trial.task == "task_00"])
    assert any(said in row[0] for row in sections[0].rows)


def test_draws_that_are_kept_for_the_next_rule_are_those_it_would_have_made():
    rng = np.random.default_rng(0)
    kept = statistics.Draws(200, seed=3)
    for counts in ([5, 5], [5, 5], [5, 7], [3], [5, 7, 2], [5, 7]):
        x, y = ([[rng.normal(size=1) for _ in range(n)] for n in counts] for _ in range(2))
        assert statistics.aggregates(x, kept) == statistics.aggregates(x, 200, seed=3)
        improvement = statistics.probability_of_improvement
        assert improvement(x, y, kept) == improvement(x, y, 200, seed=3)


def test_what_tuning_and_rules_choose_separates_nothing(results):
    own = {"hyperparameters": {"sigma": 9.0}, "lr": 0.5, "optimizer": "adam", "segment": 1}
    assert make_board(changed(results, of("rule_01"), own), DRAWS).tasks == make_board(results, DRAWS).tasks


def test_seconds_of_two_machines_are_not_compared(results, tmp_path):
    """Scores are. The profile of seconds leaves out the machine with fewer cells, and the board says so."""
    other = CPU | {"cpu": "Another Processor 9000"}
    quick = changed(results, of("rule_01"), environment=other, seconds_to_target=1e-3)
    board = make_board(quick, DRAWS)
    assert rows(board)["rule_01"].rank == rows(make_board(results, DRAWS))["rule_01"].rank
    place = [row.rule for row in board.rows].index("rule_01")
    assert board.profile(board.rows, "seconds")[1][place, -1] == 0.0
    assert board.profile(board.rows, "steps")[1][place, -1] > 0.0
    for shown in (
        text.markdown(board, [tmp_path]),
        page(board, [tmp_path]),
        text.readme(board, tmp_path, []),
    ):
        assert "2 machines" in shown and "Another Processor 9000" in shown
    assert not make_board(results, DRAWS).notes


def test_a_cell_is_of_one_machine_and_of_one_version(results):
    """Seeds of another machine or version are left out of the cell and counted."""
    for environment in (
        CPU | {"cpu": "Another"},
        CPU | {"packages": {"jax": "9.9.9"}},
        CPU | {"precision": {"threefry_partitionable": False}},
    ):
        mixed = changed(
            results, lambda r: r.trial.learner == "bptt" and r.trial.seed > 2, environment=environment
        )
        cell = make_cells(mixed)["bptt", "jax", "cpu"]["task_00"]
        assert len(cell.records) == 3 and cell.others == 1
        assert len({(r.machine, r.versions) for r in cell.records}) == 1
    table = render([r for r in mixed.records if r.trial.learner == "bptt"], "markdown")
    assert "versions=" in table


# -- the scale ---------------------------------------------------------------------------------------------


def test_a_rule_that_diverges_stands_below_one_that_ends_badly(results):
    """However bad the end is. (A diverged seed used to score 0, and a stable one less.)"""
    scores = {
        "bptt": [0.9],
        "rule_01": [-7.0, -6.0, -8.0, -7.5, -6.5],
        "rule_02": [None],
        "rule_03": [0.5, 0.4, None],
    }
    board = make_board(scored(results, scores), DRAWS)
    found = rows(board)
    assert found["rule_02"].rank == 4 and found["rule_01"].rank == 3
    assert (found["rule_02"].cells["task_00"].runs == -math.inf).all()
    assert found["rule_02"].scores["iqm"].value == LOW
    assert found["rule_02"].improvement.value == 0.0
    # Ranked by rule too: the worst place within each task.
    assert {board.places(board.rows, t)[found["rule_02"].key] for t in board.tasks} == {4}
    assert "25 runs diverged" in found["rule_02"].remarks and "rule_02" in text.ranking_markdown(board)
    beyond = make_board(scored(results, scores | {"rule_01": [LOW - 1, HIGH + 1]}), DRAWS)
    assert "25 beyond ±10" in rows(beyond)["rule_01"].remarks
    won = statistics.wins(
        rows(beyond)["rule_01"].cells["task_00"].runs, found["rule_02"].cells["task_00"].runs
    )
    assert (won == 1).all()  # beyond the bounds too, a run that ended beats one that did not


def test_no_cap_hides_who_is_better(results):
    """Also beyond solved: in ranks, tests, tables."""
    board = make_board(scored(results, {"bptt": [1.3], "rule_01": [1.9], "rule_02": [1.1]}), DRAWS)
    assert [row.rule for row in board.rows] == ["rule_01", "bptt", "rule_02"]
    assert rows(board)["rule_01"].improvement.value == 1.0
    assert "1.90 (1.90 … 1.90)" in text.tasks_markdown(board)
    assert "1.900 (1.900 … 1.900)" in render(board.results.records, "markdown")


def test_a_seed_whose_metric_is_no_number_takes_the_rank(results):
    """The seed is neither ok nor diverged, and the other four do not replace it."""
    lacking = changed(
        results,
        lambda r: (r.trial.learner, r.trial.task, r.trial.seed) == ("bptt", "task_01", 3),
        status="invalid",
        status_detail="the metric on the test split is nan",
        normalised_score=None,
        test_score=None,
    )
    row = rows(make_board(lacking, DRAWS))["bptt"]
    assert row.rank is None and row.unranked == "task_01: 4 ok, 1 invalid"


def test_where_nobody_knows_what_solved_is_the_metric_ranks(results, tmp_path):
    """Within that task. The scores cover the other tasks, and the board says so."""
    unknown = changed(results, lambda r: r.trial.task == "task_02", solved=None, normalised_score=None)
    board = make_board(unknown, DRAWS)
    assert board.unscaled == ("task_02",) and all(row.rank for row in board.rows)
    without = [r for r in results.records if r.trial.task != "task_02"]
    fewer = make_board(dataclasses.replace(results, records=tuple(without)), DRAWS)
    assert rows(board)["rule_01"].scores["mean"].value == rows(fewer)["rule_01"].scores["mean"].value
    places = board.places(board.rows, "task_02")
    best = min(board.rows, key=lambda row: np.mean([r.test_score for r in row.cells["task_02"].records]))
    assert places[best.key] == 1 and sorted(places.values()) == [1, 2, 3, 4]
    assert "place 1" in text.tasks_markdown(board) and "no normalised score on task_02" in board.notes[0]
    assert "ormalised score on task_02" in page(board, [tmp_path])
    alone = make_board(changed(results, lambda r: True, solved=None, normalised_score=None), DRAWS)
    assert all("no task here has a normalised score" in row.unranked for row in alone.rows)
    assert page(alone, [tmp_path])


# -- ranks -------------------------------------------------------------------------------------------------


def test_rows_of_one_score_share_their_rank(results):
    scores = {"bptt": [0.9, 0.8, 0.7, 0.8, 0.85], "rule_01": [0.9, 0.8, 0.7, 0.8, 0.85], "rule_02": [0.1]}
    found = rows(make_board(scored(results, scores), DRAWS))
    assert found["bptt"].rank == found["rule_01"].rank == 1 and found["rule_02"].rank == 3
    assert found["bptt"].ranks == found["rule_01"].ranks == (1, 2) and found["rule_02"].ranks == (3, 3)
    assert [text.rank(found[name]) for name in ("bptt", "rule_02")] == ["1–2", "3"]


def test_ranks_are_what_the_intervals_allow():
    """Against every order of values within the intervals, drawn at random."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        middle, half = rng.normal(size=6), rng.exponential(0.4, 6)
        low, high = middle - half, middle + half
        found = statistics.rank_ranges(low, high)
        values = rng.uniform(low, high, (4000, 6))
        places = 1 + (values[:, None, :] > values[:, :, None]).sum(2)
        assert (places.min(0) >= found[:, 0]).all() and (places.max(0) <= found[:, 1]).all()
        for i in range(6):  # and no wider: each end is reached by the ends of the intervals
            others = np.delete(np.arange(6), i)
            assert found[i, 0] == 1 + (low[others] > high[i]).sum()
            assert found[i, 1] == 6 - (high[others] < low[i]).sum()


# -- studies -----------------------------------------------------------------------------------------------


def studied(results, draw=0):
    """Three studies of five runs: each has the seeds 0 to 4 and its own learning rate."""
    records = [
        r.model_copy(
            update={
                "trial": r.trial.model_copy(
                    update={"seed": r.trial.seed + 5 * k, "lr": 0.1 + k + 10 * draw, "study": f"{draw}/{k}"}
                )
            }
        )
        for r in results.records
        for k in range(3)
    ]
    return dataclasses.replace(results, records=tuple(records))


def test_a_rows_runs_are_study_by_seed(results):
    board = make_board(studied(results), DRAWS)
    cell = rows(board)["bptt"].cells["task_00"]
    assert (len(cell.records), cell.studies, cell.others) == (15, 3, 0)
    assert [len(unit) for unit in cell.units] == [5, 5, 5]
    assert len(cell.commands) == 3 and all("--seed" in line for line in cell.commands)
    (section,) = summarise([r for r in board.results.records if r.trial.task == "task_00"])
    seeds = dict(zip([row[0] for row in section.rows], [row[2] for row in section.rows], strict=True))
    assert seeds["bptt"] == "15 in 3 studies"


def test_two_draws_of_tuning_are_not_taken_for_one(results):
    one, two = studied(results), studied(results, draw=1)
    both = dataclasses.replace(results, records=(*one.records, *two.records))
    cell = make_cells(both)["bptt", "jax", "cpu"]["task_00"]
    assert (len(cell.records), cell.studies, cell.others) == (15, 3, 1)
    assert len({r.trial.study.partition("/")[0] for r in cell.records}) == 1


def test_a_row_of_which_no_point_beat_trivial_is_marked(results, tmp_path):
    marked = changed(
        studied(results),
        lambda r: (r.trial.learner, r.trial.task, r.trial.study) == ("rule_02", "task_03", "0/1"),
        {"beat_trivial": False},
    )
    board = make_board(marked, DRAWS)
    assert rows(board)["rule_02"].remarks == ["submitted", "no point of tuning beat trivial on task_03"]
    assert "no point of tuning beat trivial" in text.ranking_markdown(board)
    assert "no point of tuning beat trivial" in page(board, [tmp_path])


def test_what_chance_did_in_tuning_is_in_the_intervals(results):
    """Differing studies widen the interval; runs treated as independent would hide this."""
    rng = np.random.default_rng(3)
    effect = {(r, t, k): 0.2 * rng.normal() for r in ("bptt", "rule_01") for t in range(5) for k in range(3)}
    made = studied(results)

    def moved(record):
        trial = record.trial
        by = effect.get((trial.learner, int(trial.task[-2:]), int(trial.study[-1])), 0.0)
        return record.model_copy(update={"normalised_score": record.normalised_score + by})

    tuned = dataclasses.replace(made, records=tuple(map(moved, made.records)))
    plain = dataclasses.replace(
        tuned,
        records=tuple(
            r.model_copy(update={"trial": r.trial.model_copy(update={"study": None, "lr": 0.1})})
            for r in tuned.records
        ),
    )
    wide, narrow = (rows(make_board(x, 2000))["bptt"].scores["iqm"] for x in (tuned, plain))
    assert wide.value == pytest.approx(narrow.value)
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


def test_an_empty_board_has_no_column():
    assert columns_of(()) == {} and make_cells(Results()) == {}
