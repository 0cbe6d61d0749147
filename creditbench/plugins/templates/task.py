"""My task: say what was shown `delay` steps ago.

    x_t ~ U(-1, 1)
    y*_t = x_{t-delay}                               weight 0 for t < delay: those steps are not scored

The metric is the mean squared error. The constant 0, the mean, scores the variance of a uniform number, 1/3.
Solved is a tenth of that.

Source: Jaeger 2001, Short term memory in echo state networks, GMD report 152.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from creditbench.task import Sequences, Split, Task, mse


@dataclasses.dataclass(frozen=True, kw_only=True)
class MyTask(Task):
    """Delayed recall of a stream; see the module's text."""

    delay: int = 2  #: steps, a parameter: `--set my_task.delay=5`
    steps: int = 3000  #: length of each split

    id: ClassVar[str] = "my_task"
    name: ClassVar[str] = "My task"
    citation: ClassVar[str] = "Jaeger 2001, GMD report 152"
    version: ClassVar[int] = 1  # goes up with every change of the task's numbers
    protocol: ClassVar[Literal["stream", "episodes"]] = "stream"
    loss: ClassVar[Literal["mse", "cross_entropy"]] = "mse"
    metric: ClassVar[str] = "mse"
    metric_direction: ClassVar[Literal["min", "max"]] = "min"
    trivial: ClassVar[float] = 1 / 3
    solved: ClassVar[float] = 1 / 30
    budgets: ClassVar[dict[str, int]] = {"smoke": 400, "quick": 10_000, "full": 50_000}

    def __post_init__(self) -> None:
        self.require_whole(delay=1, steps=1)

    def generate(self, split: Split, seed: int, batch: int) -> Sequences:
        """`batch` streams of their own; the generator of a split and seed shares nothing with any other."""
        x = self.rng(split, seed).uniform(-1, 1, (self.steps, batch, 1)).astype(np.float32)
        targets, weights = np.zeros_like(x), np.zeros((self.steps, batch), np.float32)
        targets[self.delay :] = x[: -self.delay]
        weights[self.delay :] = 1.0
        return Sequences(x, targets, weights)

    def score(self, outputs: NDArray[np.float32], sequences: Sequences) -> float:
        """The mean squared error of the scored steps."""
        return mse(outputs, sequences)

    def trivial_score(self, sequences: Sequences) -> float:
        """The mean squared error of the constant 0."""
        return self.score(np.zeros_like(sequences.targets), sequences)

    def solved_score(self, sequences: Sequences) -> float:
        """A tenth of that, at every delay; return None where nobody knows."""
        return self.trivial_score(sequences) / 10
