"""What holds for `parity`."""

from __future__ import annotations

import numpy as np
import pytest

from creditbench.errors import UsageError
from creditbench.task import Task


@pytest.fixture
def parity(tasks: dict[str, type[Task]]) -> type[Task]:
    return tasks["parity"]


@pytest.mark.parametrize("running", [False, True])
@pytest.mark.parametrize("length", [16, 40])
def test_the_answer_is_the_parity_so_far(parity: type[Task], length: int, running: bool) -> None:
    inputs, targets, weights = parity(length=length, running=running).generate("validation", 0, 1)
    assert inputs.shape == targets.shape == (length, 2000, 2)
    assert (inputs.sum(-1) == 1).all() and set(np.unique(inputs)) == {0.0, 1.0}
    np.testing.assert_array_equal(targets[..., 0], inputs[..., 0].cumsum(0) % 2)
    np.testing.assert_array_equal(targets[..., 1], 1 - targets[..., 0])
    assert weights[-1].all() and weights[:-1].all() == running and weights[:-1].any() == running


def test_no_two_episodes_show_the_same_bits(parity: type[Task]) -> None:
    """Not even if nearly all possible ones are used."""
    task = parity(length=9, train_sequences=400, evaluation_sequences=50)
    parts = [task.generate(split, 0, 1).inputs[..., 0] for split in ("train", "validation", "test")]
    shown = [row.tobytes() for part in parts for row in part.T]
    assert len(set(shown)) == len(shown) == 500


def test_bits_are_fair(parity: type[Task]) -> None:
    bits = parity().generate("train", 0, 1).inputs[..., 0]
    assert np.abs(bits.mean(1) - 0.5).max() < 0.02


def test_missing_a_bit_is_chance_and_counting_to_five_is_not_solved(parity: type[Task]) -> None:
    task = parity()
    test = task.generate("train", 0, 1)
    bits = test.inputs[..., 0]

    def score(odd: np.ndarray) -> float:
        return task.score(np.stack([odd, 1 - odd], axis=-1), test)

    late = bits.copy()
    late[0] = 0
    assert score(late.cumsum(0) % 2) == pytest.approx(task.trivial, abs=0.01)
    ones = bits.cumsum(0)
    guess = np.random.default_rng(0).integers(0, 2, ones.shape)
    few = score(np.where(ones <= 5, ones % 2, guess))
    assert few == pytest.approx(0.84, abs=0.01) and few < task.solved


@pytest.mark.parametrize("field", [{"length": 1}, {"running": 1}, {"train_sequences": 0}])
def test_a_bad_field_is_named(parity: type[Task], field: dict[str, object]) -> None:
    ((name, value),) = field.items()
    with pytest.raises(UsageError) as error:
        parity(**field)
    assert f"parity.{name} is {value!r}: set it to" in str(error.value)


@pytest.mark.parametrize("length", [13, 63])
def test_too_few_or_too_many_bits_are_named(parity: type[Task], length: int) -> None:
    with pytest.raises(
        UsageError, match=f"parity.length is {length}: 14000 different .* at least 14 and at most"
    ):
        parity(length=length)
