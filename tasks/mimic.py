"""Follow a fixed random network.

The target is the readout of a teacher driven by random signs. The teacher is a leaky tanh network like the
learning one, but smaller and never trained. Its weights are the same for every seed:

    h_t = (1 - a) h_{t-1} + a tanh(W h_{t-1} + V x_t)      y_t = U h_t

a = 0.5, W of `gain` / sqrt(n) times a normal, V normal over sqrt(I), U normal over sqrt(n).

    inputs  [T, N, 4]   signs, independent
    targets [T, N, 4]   y_t

The teacher forgets its first state: after the 300 steps of washout its outputs agree to 1e-6 for any first
state, so that the answer depends on the inputs alone. If the budget is longer than a training row, the row is
repeated, from rest. Validation and test are 5 shorter rows each, whose first 50 steps are not scored.

The metric is the mean squared error. The trivial predictor is the mean of the target; its score is the
variance. The best linear filter of the last 30 inputs scores 0.090. Solved is an eighth of that, 0.0112, a
22nd of the variance: a network must learn the teacher's nonlinearity as well as its memory.

Source: Marschall, Cho and Savin (2020), A unified framework of online learning algorithms for training
recurrent neural networks, Journal of Machine Learning Research 21(135):1-34.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from creditbench.task import Sequences, Split, Task, linear_score, mse

EVALUATION_ROWS = 5
CHANNELS = 4  # of the input and of the output
TEACHER_SEED = 2020
LEAK = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mimic(Task):
    """Follow a fixed random network; see the module's text."""

    units: int = 16  #: of the teacher
    gain: float = 2.0  #: of the teacher's recurrent weights
    steps: int = 20_000  #: length of a training row, and of all rows of another split together
    warmup: int = 50  #: first steps of a validation or test row that are not scored
    washout: int = 300  #: steps before the first one shown

    id: ClassVar[str] = "mimic"
    name: ClassVar[str] = "Mimicking a random network"
    citation: ClassVar[str] = "Marschall et al. (2020), JMLR 21(135):1-34"
    version: ClassVar[int] = 2
    protocol: ClassVar[Literal["stream", "episodes"]] = "stream"
    loss: ClassVar[Literal["mse", "cross_entropy"]] = "mse"
    metric: ClassVar[str] = "mse"
    metric_direction: ClassVar[Literal["min", "max"]] = "min"
    trivial: ClassVar[float] = 0.2475
    solved: ClassVar[float] = 0.011217
    budgets: ClassVar[dict[str, int]] = {"smoke": 400, "quick": 40_000, "full": 2_000_000}
    batch: ClassVar[int] = 4
    alpha: ClassVar[float] = LEAK

    def __post_init__(self) -> None:
        self.require_whole(units=1, steps=EVALUATION_ROWS, warmup=0, washout=0)
        self.require_whole(steps=EVALUATION_ROWS * (self.warmup + 1))
        self.require_number("gain", 0, 2)  # with a larger gain, a teacher may not forget its first state

    def generate(self, split: Split, seed: int, batch: int) -> Sequences:
        """Train: `batch` rows of `steps`; validation and test: 5 rows of a fifth as many."""
        rows = batch if split == "train" else EVALUATION_ROWS
        steps = self.steps if split == "train" else self.steps // EVALUATION_ROWS
        signs = _signs(self.rng(split, seed), (self.washout + steps, rows, CHANNELS))
        outputs = self.teach(signs, np.zeros((rows, self.units)))
        weights = np.ones((steps, rows), np.float32)
        if split != "train":
            weights[: self.warmup] = 0.0
        shown, said = (array[self.washout :].astype(np.float32) for array in (signs, outputs))
        return Sequences(shown, said, weights)

    def teach(self, signs: NDArray[np.float64], h: NDArray[np.float64]) -> NDArray[np.float64]:
        """The teacher's outputs [T, N, 4] to `signs` [T, N, 4] from its state `h` [N, units]."""
        rng, n = np.random.default_rng(TEACHER_SEED), self.units
        W = self.gain / np.sqrt(n) * rng.standard_normal((n, n))
        V = rng.standard_normal((CHANNELS, n)) / np.sqrt(CHANNELS)
        U = rng.standard_normal((n, CHANNELS)) / np.sqrt(n)
        drives, states = signs @ V, np.empty((*signs.shape[:2], n))
        for drive, state in zip(drives, states, strict=True):
            state[:] = h = (1 - LEAK) * h + LEAK * np.tanh(h @ W + drive)
        return states @ U

    def score(self, outputs: NDArray[np.float32], sequences: Sequences) -> float:
        """The mean squared error."""
        return mse(outputs, sequences)

    def trivial_score(self, sequences: Sequences) -> float:
        """The variance of the target, mean over the outputs."""
        return float(sequences.targets[sequences.weights > 0].var(0, dtype=np.float64).mean())

    def solved_score(self, sequences: Sequences) -> float | None:
        """An eighth of the error of the best linear filter of the last 30 inputs, on fixed data."""
        solved = linear_score(dataclasses.replace(self, steps=5000, warmup=0), 30) / 8
        return solved if self.better(solved, self.trivial_score(sequences)) else None


def _signs(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    return 2.0 * rng.integers(0, 2, shape).astype(np.float64) - 1
