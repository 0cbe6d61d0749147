"""Add two delayed effects of random bits.

Every step shows a fair random bit x(t). The probability of the answer 1 depends on two earlier bits, t1 and
t2 steps ago:

    p(t) = 0.5 + 0.5 x(t - t1) - 0.25 x(t - t2)

    inputs  [T, N, 2]   one-hot: x, 1 - x
    targets [T, N, 2]   p, 1 - p; if `sampled`, a draw from them, one-hot
    weights [T, N]      0 at the first t2 steps, whose causes were not shown

The metric is the cross-entropy in nats. The best scores are known exactly, and show which dependencies a
predictor has learned: with neither 0.6616, the entropy of the mean of p; with that on x(t - t1) alone 0.5192,
on x(t - t2) alone 0.6278; with both 0.4545, the floor. `levels` computes them. Solved is 0.461 for all
delays: nine tenths of the way from the stronger dependency alone to both. The causes of every scored step
were shown. If the budget is longer than a training row, the row is repeated, from rest.

With probabilities as targets no predictor can be below the floor, even by chance. `sampled` targets, as in
the first of the two sources, are noisier in training and in the score.

Source: Pitis (2016), Recurrent neural networks in Tensorflow I (the problem, with sampled answers);
Marschall, Cho and Savin (2020), A unified framework of online learning algorithms for training
recurrent neural networks, Journal of Machine Learning Research 21(135):1-34 (delays, probabilities as
targets).
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from creditbench.task import Sequences, Split, Task, cross_entropy

EVALUATION_ROWS = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class AddStream(Task):
    """Add two delayed effects of random bits; see the module's text."""

    t1: int = 5  #: delay of the stronger effect, time steps
    t2: int = 9  #: delay of the weaker effect, longer than t1
    sampled: bool = False  #: whether the targets are draws, not probabilities
    steps: int = 5000  #: length of a training row, and of all rows of another split together

    id: ClassVar[str] = "add_stream"
    name: ClassVar[str] = "Adding stream"
    citation: ClassVar[str] = "Marschall et al. (2020), JMLR 21(135):1-34"
    version: ClassVar[int] = 1
    protocol: ClassVar[Literal["stream", "episodes"]] = "stream"
    loss: ClassVar[Literal["mse", "cross_entropy"]] = "cross_entropy"
    metric: ClassVar[str] = "cross_entropy"
    metric_direction: ClassVar[Literal["min", "max"]] = "min"
    trivial: ClassVar[float] = 0.661563
    solved: ClassVar[float] = 0.460926
    budgets: ClassVar[dict[str, int]] = {"smoke": 400, "quick": 40_000, "full": 2_000_000}
    batch: ClassVar[int] = 4

    def __post_init__(self) -> None:
        self.require_whole(t1=1, t2=2)
        self.require_whole(t2=self.t1 + 1, steps=EVALUATION_ROWS * (self.t2 + 1))
        self.require_one_of("sampled", (False, True))

    def generate(self, split: Split, seed: int, batch: int) -> Sequences:
        """Train: `batch` rows of `steps`; validation and test: 5 rows of a fifth as many."""
        rows = batch if split == "train" else EVALUATION_ROWS
        steps = self.steps if split == "train" else self.steps // EVALUATION_ROWS
        rng = self.rng(split, seed)
        x = rng.integers(0, 2, (self.t2 + steps, rows)).astype(np.float64)
        p = 0.5 + 0.5 * x[self.t2 - self.t1 : -self.t1] - 0.25 * x[: -self.t2]
        if self.sampled:
            p = (rng.random(p.shape) < p).astype(np.float64)
        shown = x[self.t2 :]
        weights = np.ones((steps, rows), np.float32)
        weights[: self.t2] = 0.0
        inputs, targets = (np.stack([y, 1 - y], axis=-1).astype(np.float32) for y in (shown, p))
        return Sequences(inputs, targets, weights)

    def score(self, outputs: NDArray[np.float32], sequences: Sequences) -> float:
        """The cross-entropy in nats."""
        return cross_entropy(outputs, sequences)

    def trivial_score(self, sequences: Sequences) -> float:
        """The best score with neither dependency."""
        return self.levels()["none"]

    def solved_score(self, sequences: Sequences) -> float:
        """A tenth of the way from the score with both dependencies to that with the stronger one alone."""
        levels = self.levels()
        return levels["both"] + (levels["t1"] - levels["both"]) / 10

    @staticmethod
    def levels() -> dict[str, float]:
        """The best cross-entropy of a predictor that knows neither dependency, one of them, both."""
        # p by (x(t - t1), x(t - t2)); the four cases are equally frequent.
        p = np.array([[0.5 + 0.5 * a - 0.25 * b for b in (0, 1)] for a in (0, 1)])
        known = {"none": (0, 1), "t1": (1,), "t2": (0,), "both": ()}
        return {name: float(_entropy(p.mean(axis, keepdims=True))) for name, axis in known.items()}


def _entropy(p: NDArray[np.float64]) -> float:
    """The mean entropy of the coins of probability `p`, in nats."""
    terms = itertools.chain.from_iterable((q, 1 - q) for q in p.ravel())
    return -sum(q * np.log(q) for q in terms if q > 0) / p.size
