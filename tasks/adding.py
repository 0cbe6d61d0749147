"""Add the two marked ones of 20 numbers.

Every step shows a number, uniform in [0, 1), and a mark. The mark is 1 at two steps, one in each half of the
episode, and 0 elsewhere. The answer at the last step is the sum of the two marked numbers.

    inputs  [T, N, 2]   number, mark
    targets [T, N, 1]   sum of the marked numbers at the last step, 0 before
    weights [T, N]      1 at the last step, 0 before

The metric is the mean squared error. The constant 1, the mean of the sum, scores the sum's variance, 1/6.
Knowing one of the two numbers scores 1/12. Solved is 0.01, an error of 0.1 in the typical sum. No predictor
that forgets either number reaches it.

Twenty steps can be learned: a plain tanh network of 128 units begins to solve them after 1,000 to 2,000
updates of backpropagation through time. At 30 steps it is still at the trivial score.

Source: Hochreiter and Schmidhuber (1997), Long short-term memory, Neural Computation 9:1735-1780,
doi:10.1162/neco.1997.9.8.1735, experiment 4; in the form of Le, Jaitly and Hinton (2015), A simple
way to initialize recurrent networks of rectified linear units, arXiv:1504.00941.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from creditbench.task import Sequences, Split, Task, mse


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adding(Task):
    """Add two marked numbers; see the module's text."""

    length: int = 20  #: numbers shown, time steps
    train_sequences: int = 10_000
    evaluation_sequences: int = 2000  #: in validation and in test

    id: ClassVar[str] = "adding"
    name: ClassVar[str] = "Adding problem"
    citation: ClassVar[str] = "Hochreiter & Schmidhuber (1997), doi:10.1162/neco.1997.9.8.1735"
    version: ClassVar[int] = 1
    protocol: ClassVar[Literal["stream", "episodes"]] = "episodes"
    loss: ClassVar[Literal["mse", "cross_entropy"]] = "mse"
    metric: ClassVar[str] = "mse"
    metric_direction: ClassVar[Literal["min", "max"]] = "min"
    trivial: ClassVar[float] = 1 / 6
    solved: ClassVar[float] = 0.01
    budgets: ClassVar[dict[str, int]] = {"smoke": 300, "quick": 20_000, "full": 100_000}
    batch: ClassVar[int] = 32

    def __post_init__(self) -> None:
        self.require_whole(length=2, train_sequences=1, evaluation_sequences=1)

    def generate(self, split: Split, seed: int, batch: int) -> Sequences:
        """`train_sequences` or `evaluation_sequences` episodes. `batch` is not used."""
        rows = self.train_sequences if split == "train" else self.evaluation_sequences
        rng = self.rng(split, seed)
        row, half = np.arange(rows), self.length // 2
        inputs = np.zeros((self.length, rows, 2), np.float32)
        inputs[..., 0] = rng.random((self.length, rows))
        first, second = rng.integers(0, half, rows), rng.integers(half, self.length, rows)
        inputs[first, row, 1] = inputs[second, row, 1] = 1.0
        targets = np.zeros((self.length, rows, 1), np.float32)
        targets[-1, :, 0] = inputs[first, row, 0] + inputs[second, row, 0]
        weights = np.zeros((self.length, rows), np.float32)
        weights[-1] = 1.0
        return Sequences(inputs, targets, weights)

    def score(self, outputs: NDArray[np.float32], sequences: Sequences) -> float:
        """The mean squared error at the last step."""
        return mse(outputs, sequences)

    def trivial_score(self, sequences: Sequences) -> float:
        """The mean squared error of the constant 1, the mean of the sum of two uniform numbers."""
        return self.score(np.ones_like(sequences.targets), sequences)

    def solved_score(self, sequences: Sequences) -> float | None:
        """0.01 at every length, which the sum's variance does not depend on; None if trivial is no worse."""
        return self.solved if self.solved < self.trivial_score(sequences) else None
