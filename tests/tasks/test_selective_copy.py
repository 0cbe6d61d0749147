"""What holds for `selective_copy`."""

from __future__ import annotations

import numpy as np
import pytest

from creditbench.errors import UsageError
from creditbench.task import Task


@pytest.fixture
def selective_copy(tasks: dict[str, type[Task]]) -> type[Task]:
    return tasks["selective_copy"]


@pytest.mark.parametrize(("length", "marked", "symbols"), [(12, 3, 8), (4, 4, 2), (9, 1, 5)])
def test_the_marked_symbols_are_asked_for(
    selective_copy: type[Task], length: int, marked: int, symbols: int
) -> None:
    task = selective_copy(length=length, marked=marked, symbols=symbols)
    inputs, targets, weights = task.generate("test", 0, 1)
    assert inputs.shape == (length + marked, 1000, symbols + 2)
    shown, go, marks = inputs[..., :symbols], inputs[..., symbols], inputs[..., symbols + 1] == 1
    assert (shown[:length].sum(-1) == 1).all() and not shown[length:].any()
    assert go[length:].all() and not go[:length].any() and not marks[length:].any()
    assert (marks.sum(0) == marked).all()
    for row in range(100):
        np.testing.assert_array_equal(targets[length:, row], shown[marks[:, row], row])
    assert not targets[:length].any()
    assert weights[length:].all() and not weights[:length].any()


def test_marks_and_symbols_are_everywhere_alike(selective_copy: type[Task]) -> None:
    inputs = selective_copy().generate("train", 0, 1).inputs[:12]
    assert np.abs(inputs[..., 9].mean(1) - 3 / 12).max() < 0.02
    assert np.abs(inputs[..., :8].mean((0, 1)) - 1 / 8).max() < 0.005


def test_solved_is_beyond_recalling_all_but_one(selective_copy: type[Task]) -> None:
    task = selective_copy()
    test = task.generate("test", 0, 1)
    outputs = test.targets.copy()
    outputs[-1] = 0
    outputs[-1, :, 5] = 1
    assert task.score(outputs, test) == pytest.approx(7 / 8 / 3, abs=0.02) and 2 * task.solved < 7 / 8 / 3


def test_guessing_is_wrong_seven_times_in_eight(selective_copy: type[Task]) -> None:
    task = selective_copy()
    test = task.generate("train", 0, 1)
    guess = np.zeros_like(test.targets)
    guess[..., 4] = 1
    assert task.score(guess, test) == pytest.approx(task.trivial, abs=0.01)
    assert task.trivial_score(test) == task.trivial


@pytest.mark.parametrize("symbols", [2, 8])
def test_solved_is_to_guess_one_symbol_in_ten(selective_copy: type[Task], symbols: int) -> None:
    task = selective_copy(symbols=symbols, length=20, marked=10)
    test = task.generate("test", 0, 1)
    outputs = test.targets.copy()
    outputs[-1] = 0
    outputs[-1, :, 1] = 1
    assert task.score(outputs, test) == pytest.approx(task.solved_score(test), abs=0.006)


@pytest.mark.parametrize("field", [{"length": 0}, {"marked": 0}, {"symbols": 1}, {"train_sequences": "1"}])
def test_a_bad_field_is_named(selective_copy: type[Task], field: dict[str, object]) -> None:
    ((name, value),) = field.items()
    with pytest.raises(UsageError) as error:
        selective_copy(**field)
    assert f"selective_copy.{name} is {value!r}: set it to" in str(error.value)


def test_more_marks_than_symbols_are_named(selective_copy: type[Task]) -> None:
    with pytest.raises(UsageError, match="marked is 5: no more than the 4 symbols"):
        selective_copy(length=4, marked=5)
