"""What holds for `evidence`."""

from __future__ import annotations

import numpy as np
import pytest

from creditbench.errors import UsageError
from creditbench.task import Task


@pytest.fixture
def evidence(tasks: dict[str, type[Task]]) -> type[Task]:
    return tasks["evidence"]


def outputs(test, score: np.ndarray) -> np.ndarray:
    """Outputs that say "above 0" where `score` [N] is."""
    return np.broadcast_to(np.stack([score, -score], axis=-1), test.targets.shape)


def test_the_answer_is_the_sign_of_the_sum(evidence: type[Task]) -> None:
    inputs, targets, weights = evidence().generate("test", 0, 1)
    np.testing.assert_array_equal(targets[-1, :, 0] == 1, inputs[..., 0].sum(0) > 0)
    assert (targets.sum(-1) == 1).all() and (targets == targets[-1]).all()
    assert weights[-1].all() and not weights[:-1].any()
    assert targets[-1, :, 0].mean() == pytest.approx(0.5, abs=0.04)


def test_rows_take_turns_in_coherence(evidence: type[Task]) -> None:
    samples = 3 * evidence().generate("train", 0, 1).inputs[..., 0]
    for k, coherence in enumerate((0.0, 0.1, 0.2, 0.4)):
        own = samples[:, k::4]
        # The mean of the squared mean sample is coherence² + 1/T.
        assert (own.mean(0) ** 2).mean() - 1 / 20 == pytest.approx(coherence**2, abs=0.01)
        assert own.std() == pytest.approx(np.sqrt(1 + coherence**2), abs=0.01)


def test_accuracy_comes_apart_by_coherence(evidence: type[Task]) -> None:
    task = evidence()
    test = task.generate("test", 0, 1)
    half = outputs(test, test.inputs[10:, :, 0].sum(0))
    apart = task.accuracy_by_coherence(half, test)
    assert list(apart) == [0.0, 0.1, 0.2, 0.4]
    assert np.mean(list(apart.values())) == pytest.approx(task.score(half, test))
    # Without coherence the sign of half of the samples' sum agrees with that of all three times in four.
    assert apart[0.0] == pytest.approx(0.75, abs=0.06) and apart[0.4] > apart[0.0] + 0.1
    assert set(task.accuracy_by_coherence(test.targets, test).values()) == {1.0}


def test_solved_needs_all_of_the_evidence(evidence: type[Task]) -> None:
    task = evidence()
    test = task.generate("train", 0, 1)
    x = test.inputs[..., 0]
    assert task.score(outputs(test, x.sum(0)), test) > 0.999
    forgetful = (x * (0.95 ** np.arange(19, -1, -1))[:, None]).sum(0)
    for score, expected in ((x[-1], 0.59), (x[2:].sum(0), 0.925), (forgetful, 0.93)):
        found = task.score(outputs(test, score), test)
        assert found == pytest.approx(expected, abs=0.015) and found < task.solved


@pytest.mark.parametrize("length", [20, 80])
def test_solved_is_the_ideal_observer_of_all_but_a_twentieth(evidence: type[Task], length: int) -> None:
    task = evidence(length=length, train_sequences=50_000)
    test = task.generate("train", 0, 1)
    seen = test.inputs[length // 20 :, :, 0].sum(0)
    assert task.solved_score(test) == pytest.approx(task.score(outputs(test, seen), test), abs=0.004)


@pytest.mark.parametrize("field", [{"length": 0}, {"train_sequences": 2.0}, {"evaluation_sequences": 0}])
def test_a_bad_field_is_named(evidence: type[Task], field: dict[str, object]) -> None:
    ((name, value),) = field.items()
    with pytest.raises(UsageError) as error:
        evidence(**field)
    assert f"evidence.{name} is {value!r}: set it to" in str(error.value)
