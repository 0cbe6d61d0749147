"""A user's own task: say again what was shown `delay` steps ago."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from creditbench.task import Sequences, Task, mse


@dataclasses.dataclass(frozen=True, kw_only=True)
class Echo(Task):
    delay: int = 1

    id = "echo"
    name = "Echo"
    citation = "none"
    version = 1
    protocol = "episodes"
    loss = "mse"
    metric = "mse"
    metric_direction = "min"
    trivial = 1.0
    solved = 0.05
    budgets: ClassVar[dict[str, int]] = {"smoke": 100, "quick": 1000, "full": 10_000}
    batch = 8

    def generate(self, split, seed, batch):
        signs = self.rng(split, seed).choice(np.array([-1, 1], np.float32), (10, 64, 1))
        targets = np.zeros_like(signs)
        targets[self.delay :] = signs[: -self.delay]
        return Sequences(signs, targets, np.ones((10, 64), np.float32))

    def score(self, outputs, sequences):
        return mse(outputs, sequences)

    def trivial_score(self, sequences):
        return float((sequences.targets**2).mean())
