"""What holds for `dyck`."""

from __future__ import annotations

import numpy as np
import pytest

from creditbench.errors import UsageError
from creditbench.task import Task


@pytest.fixture
def dyck(tasks: dict[str, type[Task]]) -> type[Task]:
    return tasks["dyck"]


@pytest.mark.parametrize(("kinds", "depth"), [(2, 4), (3, 2), (1, 1)])
def test_targets_are_what_a_stack_allows(dyck: type[Task], kinds: int, depth: int) -> None:
    inputs, targets, weights = dyck(kinds=kinds, depth=depth).generate("test", 0, 1)
    assert (inputs.sum(-1) == 1).all() and weights.all()
    for row in range(50):
        stack: list[int] = []
        for symbol, valid in zip(inputs[:, row].argmax(-1), targets[:, row], strict=True):
            if symbol < kinds:
                stack.append(symbol)
            else:
                assert stack.pop() == symbol - kinds
            assert len(stack) <= depth
            expected = np.zeros(2 * kinds)
            expected[:kinds] = len(stack) < depth
            if stack:
                expected[kinds + stack[-1]] = 1
            np.testing.assert_array_equal(valid, expected)


def test_brackets_open_and_close_equally_often_in_between(dyck: type[Task]) -> None:
    inputs, targets, _ = dyck().generate("train", 0, 1)
    free = (targets[:-1, :, :2].any(-1)) & (targets[:-1, :, 2:].any(-1))
    assert inputs[1:, :, :2].any(-1)[free].mean() == pytest.approx(0.5, abs=0.01)
    assert inputs[..., 0].sum() == pytest.approx(inputs[..., 1].sum(), rel=0.02)


@pytest.mark.parametrize("reach", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("kinds", [2, 3])
def test_what_remembering_some_brackets_scores_is_computed(dyck: type[Task], reach: int, kinds: int) -> None:
    """Against a reader with a stack that drops what is too deep, and a guess where the stack is empty."""
    task = dyck(kinds=kinds, train_sequences=3000)
    train = task.generate("train", 0, 1)
    rng, right, closed = np.random.default_rng(0), 0, 0
    for row in train.inputs.argmax(-1).T:
        stack: list[int] = []
        for symbol in row:
            if symbol < kinds:
                stack = [*stack, symbol][-reach:] if reach else []
            else:
                guess = stack.pop() if stack else rng.integers(kinds)
                right, closed = right + (guess == symbol - kinds), closed + 1
    assert task.remembering(reach) == pytest.approx(right / closed, abs=0.006)


def test_trivial_remembers_nothing_and_solved_more_than_two_brackets(dyck: type[Task]) -> None:
    task = dyck()
    test = task.generate("train", 0, 1)
    # Without memory: closes what has just been opened, else the first kind.
    outputs = np.zeros_like(test.targets)
    outputs[..., 2:] = test.inputs[..., :2]
    assert task.score(outputs, test) == pytest.approx(dyck.trivial, abs=0.006)
    assert task.remembering(1) == pytest.approx(dyck.trivial, abs=1e-6)
    assert dyck.solved == pytest.approx((task.remembering(2) + task.remembering(3)) / 2, abs=1e-6)
    assert task.remembering(4) == 1


def test_where_nothing_is_to_be_remembered_nothing_is_solved(dyck: type[Task]) -> None:
    for task in (dyck(kinds=1), dyck(depth=1)):
        test = task.generate("test", 0, 1)
        assert task.trivial_score(test) == 1 and task.solved_score(test) is None
    two = dyck(depth=2)
    expected = (two.remembering(1) + two.remembering(2)) / 2
    assert two.solved_score(two.generate("test", 0, 1)) == expected < 1


@pytest.mark.parametrize("field", [{"kinds": 0}, {"depth": 0}, {"length": 1}, {"evaluation_sequences": None}])
def test_a_bad_field_is_named(dyck: type[Task], field: dict[str, object]) -> None:
    ((name, value),) = field.items()
    with pytest.raises(UsageError) as error:
        dyck(**field)
    assert f"dyck.{name} is {value!r}: set it to" in str(error.value)
