"""What holds for `add_stream`."""

from __future__ import annotations

import numpy as np
import pytest

from creditbench.errors import UsageError
from creditbench.task import Task


@pytest.fixture
def add_stream(tasks: dict[str, type[Task]]) -> type[Task]:
    return tasks["add_stream"]


def entropy(p: float) -> float:
    return -sum(q * np.log(q) for q in (p, 1 - p) if q > 0)


def test_the_target_is_what_the_formula_says(add_stream: type[Task]) -> None:
    inputs, targets, weights = add_stream(t1=2, t2=3).generate("train", 0, 2)
    x = inputs[..., 0]
    assert set(np.unique(x)) == {0.0, 1.0} and (inputs.sum(-1) == 1).all()
    for t in range(3, 200):
        np.testing.assert_array_equal(targets[t, :, 0], 0.5 + 0.5 * x[t - 2] - 0.25 * x[t - 3])
    np.testing.assert_array_equal(targets.sum(-1), 1)
    assert not weights[:3].any() and weights[3:].all()


def test_the_levels_are_those_of_the_closed_form(add_stream: type[Task]) -> None:
    levels = add_stream.levels()
    assert levels["none"] == pytest.approx(entropy(5 / 8), rel=1e-12)
    assert levels["t1"] == pytest.approx((entropy(3 / 8) + entropy(7 / 8)) / 2, rel=1e-12)
    assert levels["t2"] == pytest.approx((entropy(3 / 4) + entropy(1 / 2)) / 2, rel=1e-12)
    assert levels["both"] == pytest.approx((entropy(1 / 2) + 2 * entropy(1 / 4)) / 4, rel=1e-12)
    assert add_stream.trivial == pytest.approx(levels["none"], abs=1e-6)
    one, both = levels["t1"], levels["both"]
    test = add_stream(t1=3, t2=20).generate("test", 0, 1)
    assert add_stream().solved_score(test) == pytest.approx(both + (one - both) / 10, rel=1e-12)


@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize(
    ("seen", "level"), [((0, 1, 4), "none"), ((5,), "t1"), ((0, 5, 8), "t1"), ((9,), "t2"), ((5, 9), "both")]
)
def test_a_predictor_reaches_the_level_of_what_it_sees(
    add_stream: type[Task], seen: tuple[int, ...], level: str, sampled: bool
) -> None:
    """The best table from the bits at those delays to a probability, fitted and scored on two splits."""
    task = add_stream(sampled=sampled, steps=100_000)

    def cases(sequences):
        x = sequences.inputs[..., 0].astype(int)
        return sum(np.roll(x, delay, axis=0) << k for k, delay in enumerate(seen))

    train, test = task.generate("train", 0, 1), task.generate("test", 0, 1)
    scored, case = train.weights > 0, cases(train)
    table = np.array([train.targets[scored & (case == k)].mean(0) for k in range(2 ** len(seen))])
    outputs = np.log(np.maximum(table, 1e-6))[cases(test)].astype(np.float32)
    assert task.score(outputs, test) == pytest.approx(task.levels()[level], abs=0.008)


def test_seeing_up_to_now_cannot_beat_the_floor_and_seeing_the_answer_does(add_stream: type[Task]) -> None:
    """Least squares on the last 30 bits and their products, with the answer among them or not."""
    task = add_stream(sampled=True, steps=40_000)

    def features(sequences, leak: bool):
        x = sequences.inputs[:, 0, 0]
        past = [np.roll(x, k) for k in range(30)] + ([sequences.targets[:, 0, 0]] if leak else [])
        pairs = [a * b for i, a in enumerate(past) for b in past[:i]]
        return np.stack([np.ones_like(x), *past, *pairs], axis=1).astype(np.float64)

    train, test = (task.generate(split, 0, 1) for split in ("train", "test"))
    for leak in (False, True):
        fit = np.linalg.lstsq(features(train, leak)[30:], train.targets[30:, 0, 0], rcond=None)[0]
        p = np.clip(features(test, leak) @ fit, 1e-3, 1 - 1e-3)
        row = type(test)(*(array[:, :1] for array in test))
        score = task.score(np.log(np.stack([p, 1 - p], axis=-1))[:, None].astype(np.float32), row)
        floor = task.levels()["both"]
        assert score < floor / 10 if leak else floor - 0.01 < score < floor + 0.06


@pytest.mark.parametrize("field", [{"t1": 0}, {"t2": 5}, {"t2": "9"}, {"steps": 49}, {"sampled": 1}])
def test_a_bad_field_is_named(add_stream: type[Task], field: dict[str, object]) -> None:
    ((name, value),) = field.items()
    with pytest.raises(UsageError) as error:
        add_stream(**field)
    assert f"add_stream.{name} is {value!r}: set it to" in str(error.value)
