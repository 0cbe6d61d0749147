"""What holds for `mackey_glass`."""

from __future__ import annotations

import collections

import numpy as np
import pytest

from creditbench.errors import UsageError
from creditbench.task import Task

SPLITS = ("train", "validation", "test")


@pytest.fixture
def mackey_glass(tasks: dict[str, type[Task]]) -> type[Task]:
    return tasks["mackey_glass"]


def test_the_series_is_eulers(mackey_glass: type[Task]) -> None:
    """Step by step, as the definition says; chaos lets rounding errors grow, so for 200 steps."""
    task = mackey_glass(steps=300, washout=0)
    inputs = task.generate("train", 5, 2).inputs[:200, 1, 0]
    draws = task.rng("train", 5).random((2, 170))[1]
    history = collections.deque(1.2 + 0.2 * (draws - 0.5))
    x, series = 1.2, []
    for _ in range(200):
        for _ in range(10):
            delayed = history.popleft()
            history.append(x)
            x += 0.1 * (0.2 * delayed / (1 + delayed**10) - 0.1 * x)
        series.append(np.tanh(x - 1) + 0.0656)
    assert np.ptp(series) > 0.5
    np.testing.assert_allclose(inputs, series, atol=1e-5)


@pytest.mark.parametrize("changed", [{"tau": 3}, {"gamma": 2.0, "beta": 4.0}, {"n": 7}, {"substeps": 20}])
def test_other_parameters_give_another_finite_series(
    mackey_glass: type[Task], changed: dict[str, float]
) -> None:
    usual = mackey_glass(steps=400, washout=0).generate("train", 0, 1).inputs
    other = mackey_glass(steps=400, washout=0, **changed).generate("train", 0, 1).inputs
    assert np.isfinite(other).all()
    assert not np.allclose(usual, other, atol=1e-3)


@pytest.mark.parametrize("split", ["train", "test"])
def test_recall_asks_for_the_value_15_steps_earlier(mackey_glass: type[Task], split: str) -> None:
    inputs, targets, _ = mackey_glass(direction="recall").generate(split, 0, 2)
    np.testing.assert_array_equal(targets[15:], inputs[:-15])


@pytest.mark.parametrize("horizon", [1, 15])
def test_predict_asks_for_the_value_ahead(mackey_glass: type[Task], horizon: int) -> None:
    inputs, targets, _ = mackey_glass(horizon=horizon).generate("train", 0, 2)
    np.testing.assert_array_equal(targets[:-horizon], inputs[horizon:])


def test_washout_is_thrown_away(mackey_glass: type[Task]) -> None:
    whole = mackey_glass(washout=0).generate("train", 0, 1).inputs
    washed = mackey_glass(washout=100).generate("train", 0, 1).inputs
    np.testing.assert_array_equal(washed[:-100], whole[100:])


@pytest.mark.parametrize(("washout", "in_step"), [(2000, False), (1000, True), (100, True)])
def test_rows_are_out_of_step_from_the_first_scored_step_on(
    mackey_glass: type[Task], washout: int, in_step: bool
) -> None:
    """Rows of all splits and of eight seeds correlate no more often than they anticorrelate.

    Over the 300 steps after the warm-up, about six times round the attractor; a shorter washout would not do.
    """
    assert mackey_glass().washout == 2000
    task = mackey_glass(washout=washout)
    rows = [task.generate(split, seed, 5).inputs[50:350, :, 0] for split in SPLITS for seed in range(8)]
    between = np.corrcoef(np.concatenate(rows, axis=1).T)[np.triu_indices(5 * len(rows), 1)]
    assert between.mean() > 0.1 if in_step else abs(between.mean()) < 0.07


def test_the_series_is_centred(mackey_glass: type[Task]) -> None:
    inputs = mackey_glass().generate("train", 0, 20).inputs
    assert abs(inputs.mean()) < 0.003 and 0.2 < inputs.std() < 0.23


def test_a_row_does_not_depend_on_the_number_of_rows(mackey_glass: type[Task]) -> None:
    one = mackey_glass().generate("train", 0, 1).inputs
    three = mackey_glass().generate("train", 0, 3).inputs
    np.testing.assert_array_equal(one[:, 0], three[:, 0])
    assert np.abs(three[:, 0] - three[:, 1]).max() > 0.5


def test_warmup_is_scored_in_training_only(mackey_glass: type[Task]) -> None:
    assert mackey_glass().generate("train", 0, 1).weights.all()
    weights = mackey_glass().generate("test", 0, 1).weights
    assert not weights[:50].any() and weights[50:].all()


def test_no_change_is_worse_than_the_mean(mackey_glass: type[Task]) -> None:
    test = mackey_glass().generate("test", 0, 1)
    assert mackey_glass().score(test.inputs, test) == pytest.approx(1.62, abs=0.05)


def test_solved_is_far_below_the_best_linear_predictor(mackey_glass: type[Task]) -> None:
    task, lags = mackey_glass(), 40
    test = task.generate("test", 0, 1)

    def past(inputs: np.ndarray) -> np.ndarray:
        """[T, N, lags]: the value now and those before, 0 before the start."""
        padded = np.concatenate([np.zeros((lags - 1, *inputs.shape[1:])), inputs])
        return np.concatenate([padded[lags - 1 - k :][: len(inputs)] for k in range(lags)], -1)

    train = task.generate("train", 0, 4)
    known = past(train.inputs)[lags:].reshape(-1, lags)
    fit = np.linalg.lstsq(known, train.targets[lags:].reshape(-1), rcond=1e-8)[0]
    linear = task.score((past(test.inputs) @ fit)[..., None], test)
    assert linear == pytest.approx(0.47, abs=0.03)
    assert task.solved == pytest.approx(linear / 5, rel=0.07)


def test_recall_is_solved_below_what_the_steps_since_then_tell(mackey_glass: type[Task]) -> None:
    """The linear predictor does not see the target's own step; a linear memory of 40 steps would know all."""
    task = mackey_glass(direction="recall", horizon=1)
    test = task.generate("test", 0, 1)
    known = test.inputs[test.weights > 0].astype(np.float64)
    said = test.targets[test.weights > 0].astype(np.float64)
    fit = np.linalg.lstsq(np.c_[known, np.ones(len(known))], said, rcond=None)
    linear = np.sqrt(fit[1][0] / len(said)) / said.std()
    assert task.solved_score(test) == pytest.approx(linear / 5, rel=0.05)


@pytest.mark.parametrize(
    "field",
    [
        {"direction": "backwards"},
        {"horizon": 0},
        {"horizon": 1.5},
        {"steps": 0},
        {"steps": 250},
        {"warmup": -1},
        {"warmup": 1000},
        {"tau": 0},
        {"n": 2.5},
        {"substeps": 0},
        {"washout": -1},
        {"gamma": 0.0},
        {"gamma": 10},
        {"beta": float("nan")},
        {"beta": "0.2"},
    ],
)
def test_a_bad_field_is_named(mackey_glass: type[Task], field: dict[str, object]) -> None:
    ((name, value),) = field.items()
    with pytest.raises(UsageError, match=r"mackey_glass\.\w+ is .*: set it to") as error:
        mackey_glass(**field)
    assert repr(value) in str(error.value) or name == "warmup"
