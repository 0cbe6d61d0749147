"""`creditbench check` on the sequences of a task: leaks, chance, and nothing to learn."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from creditbench.check.base import Result, outcomes
from creditbench.check.task import CHECKS, TaskSubject
from creditbench.plugins import registry
from creditbench.plugins.templates.task import MyTask
from creditbench.task import Sequences, Task

SPLITS = ("train", "validation", "test")


def checked(name: str, **parts: object) -> Result:
    """The result of that check on the template with other methods or attributes."""
    cls = dataclasses.dataclass(frozen=True, kw_only=True)(
        type("Changed", (MyTask,), {"__module__": MyTask.__module__, **parts})
    )
    plugin = dataclasses.replace(registry.find("tasks", "adding"), cls=cls)
    (found,) = outcomes([one for one in CHECKS if one.name == name], TaskSubject(plugin), plugin.path)
    return found


def recalled(x: np.ndarray, delay: int = 2) -> Sequences:
    """The input of `delay` steps ago."""
    targets, weights = np.zeros_like(x), np.zeros(x.shape[:2], np.float32)
    targets[delay:], weights[delay:] = x[:-delay], 1.0
    return Sequences(x, targets, weights)


def uniform(seed: object, steps: int, rows: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (steps, rows, 1)).astype(np.float32)


def shifted(self: Task, split: str, seed: int, batch: int) -> Sequences:
    return recalled(
        np.roll(uniform(seed, 3000, batch), {"train": 0, "validation": 700, "test": 1500}[split], 0)
    )


def noisy(self: Task, split: str, seed: int, batch: int) -> Sequences:
    x = uniform(seed, 2000, batch)
    return recalled(
        x if split == "train" else x + np.float32(1e-2) * uniform([seed, len(split)], 2000, batch)
    )


def shorter(self: Task, split: str, seed: int, batch: int) -> Sequences:
    return recalled(uniform(seed, 2000, batch)[: {"train": 2000, "validation": 900, "test": 1000}[split]])


def overlapping(self: Task, split: str, seed: int, batch: int) -> Sequences:
    """One series for every seed, whose splits overlap."""
    start = {"train": 0, "validation": 1500, "test": 2500}[split]
    x = uniform(0, 4500, 1)[start : start + 2000]
    return recalled(x[:2000].reshape(batch, -1, 1).swapaxes(0, 1) if split == "train" else x)


def windows(self: Task, split: str, seed: int, batch: int) -> Sequences:
    """Episodes that are windows of one series a seed, of which train and test are drawn at random."""
    starts = self.rng(split, seed).integers(0, 970, 600 if split == "train" else 50)
    return recalled(uniform(seed, 1000, 1)[starts[None] + np.arange(30)[:, None], 0])


LEAKING = {"shifted": shifted, "noisy": noisy, "shorter": shorter, "overlapping": overlapping}


@pytest.mark.parametrize("name", LEAKING)
def test_a_stretch_of_train_in_another_split_is_found(name: str) -> None:
    found = checked("splits", generate=LEAKING[name])
    assert found.held is False and "stretches of validation" in found.detail, found
    assert "are in train too, at another place perhaps" in found.detail


def test_windows_of_one_series_in_train_and_test_are_found() -> None:
    found = checked("splits", generate=windows, protocol="episodes")
    assert found.held is False and ("are in train too" in found.detail or "are twice in" in found.detail), (
        found
    )


def independent(self: Task, split: str, seed: int, batch: int) -> Sequences:
    return recalled(uniform([seed, SPLITS.index(split)], 2000, batch))


def smooth(self: Task, split: str, seed: int, batch: int) -> Sequences:
    """A sine: every stretch repeats, in the train split of any seed."""
    phase = self.rng(split, seed).uniform(0, 6, batch)
    return recalled(np.sin(np.arange(2000)[:, None, None] / 9 + phase[:, None]).astype(np.float32))


def rare(self: Task, split: str, seed: int, batch: int) -> Sequences:
    """A pulse now and then, and otherwise nothing."""
    return recalled((self.rng(split, seed).random((2000, batch, 1)) < 0.001).astype(np.float32))


def cut(self: Task, split: str, seed: int, batch: int) -> Sequences:
    """One series for every seed, cut into splits."""
    start = {"train": 0, "validation": 2000, "test": 3000}[split]
    x = uniform(0, 4000, 1)[start : start + (2000 if split == "train" else 1000)]
    return recalled(x.reshape(batch, -1, 1).swapaxes(0, 1) if split == "train" else x)


@pytest.mark.parametrize("generate", [independent, smooth, rare, cut], ids=lambda f: f.__name__)
def test_what_is_alike_by_chance_is_no_leak(generate: object) -> None:
    assert checked("splits", generate=generate).held, checked("splits", generate=generate)


@pytest.mark.parametrize("scale", [1.0, -3.0])
@pytest.mark.parametrize("beside", [True, False])
def test_a_target_in_the_inputs_is_found(scale: float, beside: bool) -> None:
    def generate(self: Task, split: str, seed: int, batch: int) -> Sequences:
        x, targets, weights = independent(self, split, seed, batch)
        if not beside:
            return Sequences(x, np.float32(scale) * x + 1, weights)
        return Sequences(np.concatenate([x, np.float32(scale) * targets], -1), targets, weights)

    found = checked("target in input", generate=generate)
    assert found.held is False and "linear function of the same step's inputs" in found.detail


def test_a_target_in_the_inputs_with_noise_is_found_by_its_score() -> None:
    def generate(self: Task, split: str, seed: int, batch: int) -> Sequences:
        x, targets, weights = independent(self, split, seed, batch)
        return Sequences(np.concatenate([x, targets + 0.1 * uniform(5, *x.shape[:2])], -1), targets, weights)

    found = checked("target in input", generate=generate, solved_score=lambda self, sequences: 1 / 30)
    assert found.held is False and "and solved is 0.03333: nothing has to be remembered" in found.detail


def test_a_class_in_the_inputs_is_found_where_targets_are_probabilities() -> None:
    def generate(self: Task, split: str, seed: int, batch: int) -> Sequences:
        shown = self.rng(split, seed).integers(0, 3, (1000, batch))
        one_hot = np.eye(3, dtype=np.float32)[shown]
        return Sequences(np.concatenate([one_hot, one_hot], -1), one_hot, np.ones(shown.shape, np.float32))

    assert checked("target in input", generate=generate, loss="cross_entropy").held is False


def test_pure_noise_is_told_and_no_fault() -> None:
    def generate(self: Task, split: str, seed: int, batch: int) -> Sequences:
        x, targets, weights = independent(self, split, seed, batch)
        return Sequences(
            x, self.rng(split, seed + 99).uniform(-1, 1, targets.shape).astype(np.float32), weights
        )

    found = checked("learnable", generate=generate)
    assert found.held is None and found.detail.startswith("nothing was found to learn: a ridge regression")
    found = checked("learnable", generate=independent)
    assert found.held is True and "scores" in found.detail


def test_a_task_that_chance_solves_is_found() -> None:
    found = checked("direction", solved=0.333, solved_score=lambda self, sequences: None)
    assert found.held is False and "over 8 seeds: chance reaches it" in found.detail
    # In another order the targets are mostly the same ones.
    found = checked(
        "score",
        solved=0.1,
        solved_score=lambda self, sequences: 0.1,
        score=lambda self, outputs, s: float(np.mean((np.sort(outputs, 0) - np.sort(s.targets, 0)) ** 2)),
    )
    assert found.held is False and "the targets in another order score" in found.detail


def test_the_template_passes() -> None:
    for name in ("splits", "target in input", "learnable", "direction", "score"):
        assert checked(name).held, name
