"""What holds for `copy_memory`."""

from __future__ import annotations

import numpy as np
import pytest

from creditbench.errors import UsageError
from creditbench.task import Task


@pytest.fixture
def copy_memory(tasks: dict[str, type[Task]]) -> type[Task]:
    return tasks["copy_memory"]


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_symbols_are_shown_and_then_asked_for(copy_memory: type[Task], split: str) -> None:
    inputs, targets, weights = copy_memory().generate(split, 0, 16)
    assert inputs.shape == targets.shape == (210, 1000 if split == "train" else 100, 10)
    for array in (inputs, targets):
        assert set(np.unique(array)) == {0.0, 1.0} and (array.sum(-1) == 1).all()
    seen, said = inputs.argmax(-1), targets.argmax(-1)
    assert set(np.unique(seen[:100])) == set(range(1, 9))
    assert (seen[100:110] == 0).all() and (seen[110:] == 9).all()
    assert (said[:110] == 0).all()
    np.testing.assert_array_equal(said[110:], seen[:100])
    assert weights.all()


def test_symbols_are_equally_frequent(copy_memory: type[Task]) -> None:
    shown = copy_memory().generate("train", 0, 16).inputs[:100].argmax(-1)
    counts = np.bincount(shown.ravel(), minlength=9)[1:]
    assert np.abs(counts / shown.size - 1 / 8).max() < 0.005


def test_parameters_set_the_sizes(copy_memory: type[Task]) -> None:
    task = copy_memory(length=5, delay=0, symbols=3, train_sequences=7, evaluation_sequences=6)
    assert task.generate("train", 0, 1).inputs.shape == (10, 7, 5)
    assert task.generate("test", 0, 1).targets.shape == (10, 6, 5)


def test_wrong_symbols_are_counted_on_recall_alone(copy_memory: type[Task]) -> None:
    task = copy_memory()
    test = task.generate("test", 0, 16)
    outputs = test.targets.copy()
    outputs[:110] = np.nan  # is not looked at
    outputs[110:135] = 0
    outputs[110:135, :, 0] = 1  # blank, 25 times of 100
    assert task.score(outputs, test) == pytest.approx(0.25)


def test_guessing_is_wrong_seven_times_in_eight(copy_memory: type[Task]) -> None:
    task = copy_memory()
    test = task.generate("test", 0, 16)
    guess = np.zeros_like(test.targets)
    guess[..., 4] = 1
    assert task.score(guess, test) == pytest.approx(7 / 8, abs=0.015)
    assert task.trivial_score(test) <= task.score(guess, test) + 1e-6


def test_solved_is_to_recall_ninety_and_guess_the_rest(copy_memory: type[Task]) -> None:
    task = copy_memory()
    test = task.generate("test", 0, 16)
    outputs = test.targets.copy()
    outputs[-10:] = 0
    outputs[-10:, :, 1] = 1
    assert 0.08 < task.score(outputs, test) < task.solved


@pytest.mark.parametrize(
    "field",
    [
        {"length": 0},
        {"delay": -1},
        {"symbols": 1},
        {"symbols": 8.0},
        {"train_sequences": 0},
        {"evaluation_sequences": "200"},
    ],
)
def test_a_bad_field_is_named(copy_memory: type[Task], field: dict[str, object]) -> None:
    ((name, value),) = field.items()
    with pytest.raises(UsageError) as error:
        copy_memory(**field)
    assert f"copy_memory.{name} is {value!r}: set it to" in str(error.value)
