"""With shuffled targets there is nothing to learn, and every learner ends at the trivial score."""

from __future__ import annotations

import numpy as np
import pytest

from creditbench.plugins import registry
from creditbench.task import Sequences, Task
from creditbench.trials.grid import Options, make_grid
from creditbench.trials.trainer import run_trials
from tests.conftest import thorough

#: (learner, task, budget): what the normalised score is at least, where the targets are in their order.
LEARNED = {
    ("readout_rls", "add_stream", 3000): 0.2,
    ("readout_rls", "flip_flop", 3000): 0.3,
    ("readout_rls", "narma10", 3000): 0.3,
    ("readout_rls", "lorenz", 3000): 0.3,
    ("readout_rls", "evidence", 400): 0.3,
    ("bptt", "delayed_match", 16_000): 0.9,
}
LEARNERS = [plugin.id for plugin in registry.load("learners").values() if plugin.source == "builtin"]


def shuffled(generate):
    """`generate` with shuffled targets: over the rows of episodes, or over the steps of a stream."""

    def shuffling(self: Task, split: str, seed: int, batch: int) -> Sequences:
        inputs, targets, weights = generate(self, split, seed, batch)
        axis = 1 if self.protocol == "episodes" else 0
        order = self.rng(split, seed + 1).permutation(targets.shape[axis])
        return Sequences(inputs, np.ascontiguousarray(targets.take(order, axis)), weights)

    return shuffling


def score(task: str, learner: str, budget: int, hidden: int = 64, **options: object) -> float:
    """The normalised score: 0 is trivial, 1 is solved."""
    (trial,) = make_grid(
        Options(tasks=(task,), learners=(learner,), hidden=hidden, budget=budget, evaluations=4, **options)
    ).trials
    (record,) = run_trials([trial])
    assert record.status == "ok", record.status_detail
    return record.normalised_score


@pytest.mark.parametrize(
    ("learner", "task", "budget"),
    thorough(LEARNED, but=[key for key in LEARNED if key[1] in ("add_stream", "evidence", "delayed_match")]),
    ids=str,
)
def test_shuffled_targets_bring_the_score_to_trivial(
    tasks: dict[str, type[Task]], learner: str, task: str, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert score(task, learner, budget) > LEARNED[learner, task, budget]
    monkeypatch.setattr(tasks[task], "generate", shuffled(tasks[task].generate))
    assert score(task, learner, budget) < 0.08


@pytest.mark.parametrize("learner", thorough(LEARNERS, but=("bptt", "rtrl", "anp", "es", "readout_rls")))
def test_no_learner_finds_anything_in_shuffled_targets(
    tasks: dict[str, type[Task]], learner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cls = tasks["delayed_match"]
    monkeypatch.setattr(cls, "generate", shuffled(cls.generate))
    backend = "jax" if "jax" in registry.find("learners", learner).cls.backends else "torch"
    short = {"delayed_match.delay": 2, "delayed_match.train_sequences": 1000}
    assert score("delayed_match", learner, 1200, hidden=24, backends=(backend,), settings=short) < 0.1
