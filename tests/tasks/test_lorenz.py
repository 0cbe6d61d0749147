"""What holds for `lorenz`."""

from __future__ import annotations

import numpy as np
import pytest

from creditbench.errors import UsageError
from creditbench.task import Task


@pytest.fixture
def lorenz(tasks: dict[str, type[Task]]) -> type[Task]:
    return tasks["lorenz"]


def test_the_flow_is_the_lorenz_systems(lorenz: type[Task]) -> None:
    """Against an integrator with tight tolerances, from the shown state, over 1.5 Lyapunov times."""
    from scipy.integrate import solve_ivp

    inputs = lorenz().generate("train", 0, 2).inputs[:, 1].astype(np.float64) * [20, 20, 25]

    def velocity(_, s):
        x, y, z = s
        return [10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z]

    steps = 33
    exact = solve_ivp(velocity, (0, steps * 0.05), inputs[0], rtol=1e-10, atol=1e-10, dense_output=True)
    found = exact.sol(np.arange(steps) * 0.05).T
    assert np.ptp(inputs[:steps, 0]) > 10
    np.testing.assert_allclose(inputs[:steps], found, atol=0.1)


def test_targets_are_the_horizons_ahead(lorenz: type[Task]) -> None:
    inputs, targets, _ = lorenz(horizons=(0.25, 1.0)).generate("train", 0, 2)
    assert targets.shape[-1] == 6
    for k, steps in ((0, 6), (3, 22)):  # of 0.05; a Lyapunov time is 1.104
        np.testing.assert_array_equal(targets[:-steps, :, k : k + 3], inputs[steps:])


def test_valid_time_is_the_longest_horizon_below_the_bound(lorenz: type[Task]) -> None:
    task = lorenz()
    test = task.generate("test", 0, 4)
    outputs = test.targets.copy()
    assert task.valid_time(outputs, test) == 1.0
    outputs[..., 6:] = outputs[..., 6:].mean((0, 1))
    assert task.valid_time(outputs, test) == 0.5
    outputs[..., :3] = np.nan
    assert task.valid_time(outputs, test) == 0.0


def test_persistence_is_worse_than_the_mean_and_better_a_step_ahead(lorenz: type[Task]) -> None:
    for task, better in ((lorenz(), False), (lorenz(horizons=(0.05,)), True)):
        test = task.generate("test", 0, 4)
        unchanged = task.score(np.tile(test.inputs, len(task.horizons)), test)
        assert (unchanged < 1) == better
        assert task.trivial_score(test) == pytest.approx(min(1, unchanged), abs=1e-6)


def test_solved_is_far_below_the_best_linear_predictor(lorenz: type[Task], linear_score) -> None:
    linear = linear_score(lorenz(), 20)
    assert linear == pytest.approx(0.83, abs=0.04)
    assert lorenz.solved == pytest.approx(0.3 * linear, rel=0.05)


def test_rows_are_out_of_step_from_the_first_step_on(lorenz: type[Task]) -> None:
    """Of all splits, in z, whose turns are most alike; without a washout they would not be."""

    def correlation(washout: int) -> float:
        task = lorenz(washout=washout, steps=400, warmup=5)
        found = []
        for seed in range(6):
            rows = [
                task.generate(split, seed, 40).inputs[:50, :, 2] for split in ("train", "validation", "test")
            ]
            both = np.concatenate(rows, axis=1)
            found.append(np.corrcoef(both.T)[np.triu_indices(both.shape[1], 1)].mean())
        return float(np.mean(found))

    assert lorenz().washout == 200
    assert abs(correlation(200)) < 0.02 and correlation(0) > 0.05


def test_horizons_may_come_as_a_list(lorenz: type[Task]) -> None:
    assert lorenz(horizons=[0.5]) == lorenz(horizons=(0.5,))
    assert hash(lorenz(horizons=[0.5]))


@pytest.mark.parametrize(
    "field",
    [
        {"horizons": ()},
        {"horizons": (0.0,)},
        {"horizons": ("1",)},
        {"steps": 255},
        {"warmup": -1},
        {"washout": "0"},
    ],
)
def test_a_bad_field_is_named(lorenz: type[Task], field: dict[str, object]) -> None:
    ((name, value),) = field.items()
    with pytest.raises(UsageError) as error:
        lorenz(**field)
    assert f"lorenz.{name} is {value!r}: set it to" in str(error.value)
