"""What holds for `copy_memory`."""

from __future__ import annotations

import numpy as np
import pytest

from creditbench.errors import UsageError
from creditbench.task import Task


@pytest.fixture
def copy_memory(tasks: dict[str, type[Task]]) -> type[Task]:
    return tasks["copy_memory"]


@pytest.mark.parametrize("length", [5, 100])
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_symbols_are_shown_and_then_asked_for(copy_memory: type[Task], split: str, length: int) -> None:
    inputs, targets, weights = copy_memory(length=length).generate(split, 0, 16)
    go = length + 10
    assert inputs.shape == targets.shape == (go + length, 2000 if split == "train" else 500, 10)
    for array in (inputs, targets):
        assert set(np.unique(array)) == {0.0, 1.0} and (array.sum(-1) == 1).all()
    seen, said = inputs.argmax(-1), targets.argmax(-1)
    assert set(np.unique(seen[:length])) == set(range(1, 9))
    assert (seen[length:go] == 0).all() and (seen[go:] == 9).all()
    assert (said[:go] == 0).all()
    np.testing.assert_array_equal(said[go:], seen[:length])
    assert weights.all()


def test_symbols_are_equally_frequent_at_every_place(copy_memory: type[Task]) -> None:
    shown = copy_memory(train_sequences=20_000).generate("train", 0, 16).inputs[:5]
    assert np.abs(shown.mean(1)[:, 1:9] - 1 / 8).max() < 0.01


@pytest.mark.parametrize(("length", "symbols"), [(5, 8), (9, 2), (3, 7)])
def test_no_two_episodes_show_the_same_symbols(copy_memory: type[Task], length: int, symbols: int) -> None:
    """Not even if nearly all possible ones are used."""
    task = copy_memory(length=length, symbols=symbols, train_sequences=200, evaluation_sequences=70)
    parts = [task.generate(split, 0, 1).inputs[:length] for split in ("train", "validation", "test")]
    shown = [part[:, row].tobytes() for part in parts for row in range(part.shape[1])]
    assert len(set(shown)) == len(shown) == 340


def test_more_sequences_than_there_are_are_named(copy_memory: type[Task]) -> None:
    with pytest.raises(UsageError, match=r"length is 3: 8 symbols make 512 .* 3000 are needed: set a longer"):
        copy_memory(length=3)


def test_the_papers_one_sequence_trains_and_another_tests(copy_memory: type[Task]) -> None:
    task = copy_memory(length=100, train_sequences=1, evaluation_sequences=1)
    parts = [task.generate(split, 0, 1) for split in ("train", "validation", "test")]
    assert [part.inputs.shape for part in parts] == [(210, 1, 10)] * 3
    same = [(parts[0].inputs[:100] == part.inputs[:100]).all(-1).mean() for part in parts]
    assert same[0] == 1 and max(same[1:]) < 0.35


def test_parameters_set_the_sizes(copy_memory: type[Task]) -> None:
    task = copy_memory(length=5, delay=0, symbols=3, train_sequences=7, evaluation_sequences=6)
    assert task.generate("train", 0, 1).inputs.shape == (10, 7, 5)
    assert task.generate("test", 0, 1).targets.shape == (10, 6, 5)


def test_wrong_symbols_are_counted_on_recall_alone(copy_memory: type[Task]) -> None:
    task = copy_memory()
    test = task.generate("test", 0, 16)
    outputs = test.targets.copy()
    outputs[:15] = np.nan  # is not looked at
    outputs[15:17] = 0
    outputs[15:17, :, 0] = 1  # blank, twice of 5 times
    assert task.score(outputs, test) == pytest.approx(0.4)


@pytest.mark.parametrize("symbols", [2, 8])
def test_guessing_scores_trivial_and_guessing_a_tenth_solved(copy_memory: type[Task], symbols: int) -> None:
    task = copy_memory(length=10, symbols=symbols, train_sequences=300, evaluation_sequences=300)
    test = task.generate("test", 0, 16)
    guess = np.zeros_like(test.targets)
    guess[..., 1] = 1
    assert task.score(guess, test) == pytest.approx(task.trivial_score(test), abs=0.03)
    guess[:-1] = test.targets[:-1]
    assert task.score(guess, test) == pytest.approx(task.solved_score(test), abs=0.01)


def test_solved_is_beyond_recalling_all_but_one(copy_memory: type[Task]) -> None:
    task = copy_memory()
    test = task.generate("test", 0, 16)
    outputs = test.targets.copy()
    outputs[-1] = 0
    outputs[-1, :, 5] = 1
    assert task.score(outputs, test) == pytest.approx(7 / 8 / 5, abs=0.01)
    assert task.solved_score(test) < 7 / 8 / 5 * 0.6


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
