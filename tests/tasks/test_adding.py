"""What holds for `adding`."""

from __future__ import annotations

import numpy as np
import pytest

from creditbench.errors import UsageError
from creditbench.task import Task


@pytest.fixture
def adding(tasks: dict[str, type[Task]]) -> type[Task]:
    return tasks["adding"]


@pytest.mark.parametrize("length", [2, 7, 20])
def test_the_target_is_the_sum_of_the_marked(adding: type[Task], length: int) -> None:
    inputs, targets, weights = adding(length=length).generate("test", 0, 32)
    assert inputs.shape == (length, 2000, 2) and targets.shape == (length, 2000, 1)
    numbers, marks = inputs[..., 0], inputs[..., 1]
    assert set(np.unique(marks)) <= {0.0, 1.0}
    assert (marks[: length // 2].sum(0) == 1).all() and (marks[length // 2 :].sum(0) == 1).all()
    np.testing.assert_allclose(targets[-1, :, 0], (numbers * marks).sum(0), rtol=1e-6)
    assert not targets[:-1].any()
    assert weights[-1].all() and not weights[:-1].any()


def test_numbers_are_uniform_and_marks_anywhere(adding: type[Task]) -> None:
    inputs = adding().generate("train", 0, 32).inputs
    assert inputs[..., 0].min() >= 0 and inputs[..., 0].max() <= 1
    assert inputs[..., 0].mean() == pytest.approx(0.5, abs=0.005)
    assert inputs[..., 0].var() == pytest.approx(1 / 12, abs=0.002)
    assert np.abs(inputs[..., 1].mean(1) - 2 / 20).max() < 0.015


def test_solved_needs_both_numbers(adding: type[Task]) -> None:
    task = adding()
    test = task.generate("test", 0, 32)
    first = (test.inputs[:10, :, 0] * test.inputs[:10, :, 1]).sum(0)
    guess = np.broadcast_to((first + 0.5)[None, :, None], test.targets.shape)
    assert task.score(guess, test) == pytest.approx(1 / 12, abs=0.01)
    assert task.solved < 1 / 12 / 5


def test_the_score_is_the_squared_error_at_the_end(adding: type[Task]) -> None:
    task = adding()
    test = task.generate("test", 0, 32)
    assert task.score(test.targets + np.float32(0.1), test) == pytest.approx(0.01, rel=1e-4)


@pytest.mark.parametrize(
    "field", [{"length": 1}, {"length": "20"}, {"train_sequences": 0}, {"evaluation_sequences": 0}]
)
def test_a_bad_field_is_named(adding: type[Task], field: dict[str, object]) -> None:
    ((name, value),) = field.items()
    with pytest.raises(UsageError) as error:
        adding(**field)
    assert f"adding.{name} is {value!r}: set it to" in str(error.value)
