"""Follow a nonlinear system that remembers ten steps.

    y_{t+1} = 0.3 y_t + 0.05 y_t (y_t + ... + y_{t-9}) + 1.5 u_{t-9} u_t + 0.1

Its input u is uniform in [0, 0.5). The answer is its next value.

    inputs  [T, N, 1]   4 u_t, uniform in [0, 2)
    targets [T, N, 1]   y_{t+1}

The system starts from y = 0, and has 100 steps of washout. For rare inputs it diverges: a row in which y
passes 1.25, about one of 30 rows of 5,000 steps, is drawn again. If the budget is longer than a training row,
the row is repeated, from rest. Validation and test are 5 shorter rows each, whose first 50 steps are not
scored.

The metric is the root mean squared error over the standard deviation of the target, so that the best constant
scores 1. The best linear filter of the last 40 inputs scores 0.38. Solved is half of that, 0.19: it needs the
product of inputs ten steps apart.

Source: Atiya and Parlos (2000), New results on recurrent network training, IEEE Transactions on Neural
Networks 11:697-709, doi:10.1109/72.846741; Jaeger (2003), Adaptive nonlinear system identification with
echo state networks, Advances in Neural Information Processing Systems 15.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from creditbench.task import Sequences, Split, Task, linear_score, nrmse

EVALUATION_ROWS = 5
ORDER = 10
BOUND = 1.25  # y = 0.3 y + 0.5 y² + 0.1, without input, holds at 1.24: above it hardly any row comes back
SCALE = 4.0  # of the input shown: a variance of about 1, and a mean that serves as a bias


@dataclasses.dataclass(frozen=True, kw_only=True)
class Narma10(Task):
    """Follow the tenth-order nonlinear system; see the module's text."""

    steps: int = 5000  #: length of a training row, and of all rows of another split together
    warmup: int = 50  #: first steps of a validation or test row that are not scored
    washout: int = 100  #: steps thrown away at the start of every row

    id: ClassVar[str] = "narma10"
    name: ClassVar[str] = "NARMA-10"
    citation: ClassVar[str] = "Atiya & Parlos (2000), doi:10.1109/72.846741"
    version: ClassVar[int] = 2
    protocol: ClassVar[Literal["stream", "episodes"]] = "stream"
    loss: ClassVar[Literal["mse", "cross_entropy"]] = "mse"
    metric: ClassVar[str] = "nrmse"
    metric_direction: ClassVar[Literal["min", "max"]] = "min"
    trivial: ClassVar[float] = 1.0
    solved: ClassVar[float] = 0.19203
    budgets: ClassVar[dict[str, int]] = {"smoke": 400, "quick": 40_000, "full": 2_000_000}
    batch: ClassVar[int] = 4

    def __post_init__(self) -> None:
        self.require_whole(steps=EVALUATION_ROWS, warmup=0, washout=ORDER)
        self.require_whole(steps=EVALUATION_ROWS * (self.warmup + 2))

    def generate(self, split: Split, seed: int, batch: int) -> Sequences:
        """Train: `batch` rows of `steps`; validation and test: 5 rows of a fifth as many."""
        rows = batch if split == "train" else EVALUATION_ROWS
        steps = self.steps if split == "train" else self.steps // EVALUATION_ROWS
        rng, total = self.rng(split, seed), self.washout + steps
        u = 0.5 * rng.random((rows, total)).T
        y = _respond(u)
        while (away := ~(np.abs(y) < BOUND).all(axis=0)).any():
            u[:, away] = 0.5 * rng.random((int(away.sum()), total)).T
            y[:, away] = _respond(u[:, away])
        weights = np.ones((steps, rows), np.float32)
        if split != "train":
            weights[: self.warmup] = 0.0
        u *= SCALE
        shown, said = (np.ascontiguousarray(x[self.washout :, :, None], np.float32) for x in (u, y))
        return Sequences(shown, said, weights)

    def score(self, outputs: NDArray[np.float32], sequences: Sequences) -> float:
        """Root mean squared error over the standard deviation of the target."""
        return nrmse(outputs, sequences)

    def trivial_score(self, sequences: Sequences) -> float:
        """The score of the best constant."""
        mean = sequences.targets[sequences.weights > 0].mean(dtype=np.float64)
        return nrmse(np.full_like(sequences.targets, mean), sequences)

    def solved_score(self, sequences: Sequences) -> float | None:
        """Half of the score of the best linear filter of the last 40 inputs, on fixed data."""
        solved = linear_score(dataclasses.replace(self, steps=5000, warmup=0), 40) / 2
        return solved if self.better(solved, self.trivial_score(sequences)) else None


def _respond(u: NDArray[np.float64]) -> NDArray[np.float64]:
    """y_{t+1} for every u_t, [T, N], from rest. It may diverge."""
    # y[t + ORDER - 1] is y_t; nine zeros come before the first.
    y = np.zeros((len(u) + ORDER, u.shape[1]))
    product = np.zeros_like(u)
    product[ORDER - 1 :] = 1.5 * u[: len(u) - ORDER + 1] * u[ORDER - 1 :]
    with np.errstate(over="ignore", invalid="ignore"):
        for t in range(len(u)):
            now = y[t + ORDER - 1]
            y[t + ORDER] = 0.3 * now + 0.05 * now * y[t : t + ORDER].sum(axis=0) + product[t] + 0.1
    return y[ORDER:]
