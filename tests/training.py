"""Blocks of updates, as training runs them, of one rule in a small cell."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from creditbench.cells import Tanh
from creditbench.learner import Batch, Decorrelated
from creditbench.learner.training import training_step
from creditbench.optimizers import make_optimizer

SEGMENTS, ROWS = 4, 2


class Training(NamedTuple):
    """`learner` under Adam, decorrelated where it can be: `SEGMENTS` segments of `steps` steps a block."""

    ops: Any
    learner: Any
    steps: int
    episodes: bool  #: the state is reset before each segment

    @property
    def cell(self):
        return Tanh(
            2, 8, 2, alpha=0.5, bias=True, decorrelate="both" if self.learner.decorrelates else "none"
        )

    @property
    def rule(self):
        return Decorrelated(learner=self.learner, rate=1e-3) if self.learner.decorrelates else self.learner

    def block(self, carry, xs):
        ops, cell, rule, optimizer = self.ops, self.cell, self.rule, make_optimizer("adam", 1e-2)

        def update(carry, xs):
            return training_step(ops, cell, rule, optimizer, carry, *xs, episodes=self.episodes)

        return ops.scan(update, carry, xs)

    def start(self):
        params = self.ops.from_numpy(self.cell.init(0))
        moments = make_optimizer("adam", 1e-2).init(self.ops, self.cell.trainable(params))
        return params, moments, self.rule.init(self.ops, self.cell, params, ROWS)

    def data(self, seed):
        rng, shape = np.random.default_rng(seed), (SEGMENTS, self.steps, ROWS)
        inputs, targets = rng.standard_normal((2, *shape, 2))
        batch = Batch(*self.ops.from_numpy((inputs, targets, rng.random(shape) / self.steps)))
        return batch, self.ops.split(self.ops.key(seed), SEGMENTS)
