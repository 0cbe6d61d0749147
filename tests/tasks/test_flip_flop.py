"""What holds for `flip_flop`."""

from __future__ import annotations

import numpy as np
import pytest

from creditbench.errors import UsageError
from creditbench.task import Task


@pytest.fixture
def flip_flop(tasks: dict[str, type[Task]]) -> type[Task]:
    return tasks["flip_flop"]


def test_the_target_is_the_sign_of_the_last_pulse(flip_flop: type[Task]) -> None:
    inputs, targets, weights = flip_flop().generate("train", 0, 2)
    assert set(np.unique(inputs)) == {-1.0, 0.0, 1.0} and inputs[0].all() and weights.all()
    held = np.zeros_like(inputs[0])
    for x, y in zip(inputs, targets, strict=True):
        held = np.where(x != 0, x, held)
        np.testing.assert_array_equal(y, held)


@pytest.mark.parametrize("rate", [0.05, 0.3])
def test_pulses_come_at_their_rate_and_are_fair(flip_flop: type[Task], rate: float) -> None:
    inputs = flip_flop(rate=rate).generate("train", 0, 20).inputs[1:]
    assert (inputs != 0).mean() == pytest.approx(rate, abs=0.003)
    assert (inputs > 0).mean() == pytest.approx(rate / 2, abs=0.002)


def test_zero_scores_one_and_the_pulses_themselves_a_little_less(flip_flop: type[Task]) -> None:
    task = flip_flop()
    test = task.generate("test", 0, 4)
    assert task.trivial_score(test) == 1 == flip_flop.trivial
    assert task.score(test.inputs, test) == pytest.approx(1 - task.rate, abs=0.01)


def test_solved_is_beyond_linear_filters_and_fading_memories(flip_flop: type[Task], linear_score) -> None:
    task = flip_flop()
    assert linear_score(task, 60) == pytest.approx(0.48, abs=0.04)
    test = task.generate("test", 0, 4)
    fading, held = [], np.zeros_like(test.inputs[0])
    for x in test.inputs:
        held = np.where(x != 0, x, held * (1 - 1 / 50))
        fading.append(held)
    faded = task.score(np.array(fading), test)
    steps = np.arange(2000)  # since the last pulse, geometric
    exact = (0.05 * 0.95**steps * (1 - (1 - 1 / 50) ** steps) ** 2).sum()
    assert faded == pytest.approx(exact, abs=0.02) and exact == pytest.approx(0.1214, abs=1e-3)
    assert task.solved < exact


@pytest.mark.parametrize("rate", [0.02, 0.05, 0.5])
def test_solved_is_what_a_memory_of_three_times_the_mean_pause_leaves(
    flip_flop: type[Task], rate: float
) -> None:
    task = flip_flop(rate=rate, steps=50_000)
    test = task.generate("test", 0, 4)
    fading, held = [], np.zeros_like(test.inputs[0])
    for x in test.inputs:
        held = np.where(x != 0, x, held * (1 - rate / 3))
        fading.append(held)
    assert task.solved_score(test) == pytest.approx(task.score(np.array(fading), test), rel=0.06)


@pytest.mark.parametrize("field", [{"bits": 0}, {"rate": 0}, {"rate": 1.5}, {"rate": True}, {"steps": 4}])
def test_a_bad_field_is_named(flip_flop: type[Task], field: dict[str, object]) -> None:
    ((name, value),) = field.items()
    with pytest.raises(UsageError) as error:
        flip_flop(**field)
    assert f"flip_flop.{name} is {value!r}: set it to" in str(error.value)
