"""What holds for `delayed_match`."""

from __future__ import annotations

import numpy as np
import pytest

from creditbench.errors import UsageError
from creditbench.task import Task


@pytest.fixture
def delayed_match(tasks: dict[str, type[Task]]) -> type[Task]:
    return tasks["delayed_match"]


@pytest.mark.parametrize(("noise", "stimuli"), [(0.1, 4), (0.5, 4), (1.0, 3)])
def test_solved_is_nine_tenths_of_the_way_to_the_ideal_observer(
    delayed_match: type[Task], noise: float, stimuli: int
) -> None:
    """The observer uses Bayes' rule on the likelihood of every pair of stimuli, on the task's episodes."""
    task = delayed_match(noise=noise, stimuli=stimuli)
    episodes = task.generate("train", 0, 1)
    x = episodes.inputs[..., 1:].astype(np.float64)
    means = np.eye(stimuli)
    likely = [
        np.exp(-((part[:, :, None] - means) ** 2).sum((0, 3)) / (2 * noise**2)) for part in (x[:2], x[-2:])
    ]
    joint = likely[0][:, :, None] * likely[1][:, None, :]
    same = np.trace(joint, axis1=1, axis2=2)
    match = same / stimuli > (joint.sum((1, 2)) - same) / (stimuli * (stimuli - 1))
    outputs = np.zeros_like(episodes.targets)
    outputs[-1] = np.stack([match, ~match], axis=-1)
    ideal = task.score(outputs, episodes)
    assert task.solved_score(episodes) == pytest.approx(0.5 + 0.9 * (ideal - 0.5), abs=0.01)
    assert ideal == 1 if noise == 0.1 else 0.6 < ideal < 0.99


@pytest.mark.parametrize(("stimuli", "delay"), [(4, 12), (2, 0), (6, 3)])
def test_the_answer_is_whether_the_stimuli_match(delayed_match: type[Task], stimuli: int, delay: int) -> None:
    inputs, targets, weights = delayed_match(stimuli=stimuli, delay=delay).generate("test", 0, 1)
    assert inputs.shape == (4 + delay, 2000, 1 + stimuli)
    first, second = inputs[:2, :, 1:].sum(0).argmax(-1), inputs[-2:, :, 1:].sum(0).argmax(-1)
    np.testing.assert_array_equal(targets[-1, :, 0] == 1, first == second)
    assert (targets == targets[-1]).all() and (targets.sum(-1) == 1).all()
    assert weights[-1].all() and not weights[:-1].any()
    assert inputs[:-2, :, 0].all() and not inputs[-2:, :, 0].any()


def test_matches_and_stimuli_are_equally_frequent(delayed_match: type[Task]) -> None:
    inputs, targets, _ = delayed_match().generate("train", 0, 1)
    assert targets[-1, :, 0].mean() == pytest.approx(0.5, abs=0.02)
    for steps in (slice(2), slice(-2, None)):
        counts = np.bincount(inputs[steps, :, 1:].sum(0).argmax(-1), minlength=4)
        assert np.abs(counts / 10_000 - 1 / 4).max() < 0.02


def test_nothing_is_shown_in_the_delay_but_noise(delayed_match: type[Task]) -> None:
    quiet = delayed_match().generate("train", 0, 1).inputs[2:-2, :, 1:]
    assert quiet.mean() == pytest.approx(0, abs=1e-3) and quiet.std() == pytest.approx(0.1, abs=1e-3)


def test_solved_needs_every_stimulus(delayed_match: type[Task]) -> None:
    """Confusing two stimuli is right 11 times in 12; seeing one of the two alone is at chance."""
    task = delayed_match()
    test = task.generate("test", 0, 1)
    first, second = (test.inputs[steps, :, 1:].sum(0).argmax(-1) for steps in (slice(2), slice(-2, None)))

    def score(same: np.ndarray) -> float:
        return task.score(np.broadcast_to(np.stack([same, ~same], -1), test.targets.shape), test)

    merged = score(np.maximum(first, 1) == np.maximum(second, 1))
    assert merged == pytest.approx(11 / 12, abs=0.02) and merged < task.solved
    assert score(first == 0) == pytest.approx(task.trivial, abs=0.04)
    assert score(second == 0) == pytest.approx(task.trivial, abs=0.04)


@pytest.mark.parametrize("field", [{"stimuli": 1}, {"delay": -1}, {"noise": 0.0}, {"train_sequences": 0}])
def test_a_bad_field_is_named(delayed_match: type[Task], field: dict[str, object]) -> None:
    ((name, value),) = field.items()
    with pytest.raises(UsageError) as error:
        delayed_match(**field)
    assert f"delayed_match.{name} is {value!r}: set it to" in str(error.value)
