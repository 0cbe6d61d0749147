"""Hold 3 bits that sparse pulses set.

Each of 3 channels has occasional pulses of +1 or -1. A channel's answer is the sign of its last pulse. Every
row begins with a pulse on every channel, so that every step has an answer and is scored. If the budget is
longer than a training row, the row is repeated, from rest.

    inputs  [T, N, 3]   +1 or -1 at a pulse, else 0
    targets [T, N, 3]   sign of the channel's last pulse

At every later step a channel has a pulse with probability 0.05. Half of the pulses change nothing. The metric
is the mean squared error. The best constant is 0 and scores 1; repeating the pulses, with 0 between them,
scores 0.95. Solved is the error of an answer that decays with a time constant of three times the mean time
between pulses, 0.095. The best linear filter of the last 60 steps scores 0.48.

Source: Sussillo and Barak (2013), Opening the black box: low-dimensional dynamics in high-dimensional
recurrent neural networks, Neural Computation 25:626-649, doi:10.1162/NECO_a_00409.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from creditbench.task import Sequences, Split, Task, mse

EVALUATION_ROWS = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlipFlop(Task):
    """Hold bits that sparse pulses set; see the module's text."""

    bits: int = 3  #: channels
    rate: float = 0.05  #: probability of a pulse, per step and channel
    steps: int = 5000  #: length of a training row, and of all rows of another split together

    id: ClassVar[str] = "flip_flop"
    name: ClassVar[str] = "Flip-flop"
    citation: ClassVar[str] = "Sussillo & Barak (2013), doi:10.1162/NECO_a_00409"
    version: ClassVar[int] = 2
    protocol: ClassVar[Literal["stream", "episodes"]] = "stream"
    loss: ClassVar[Literal["mse", "cross_entropy"]] = "mse"
    metric: ClassVar[str] = "mse"
    metric_direction: ClassVar[Literal["min", "max"]] = "min"
    trivial: ClassVar[float] = 1.0
    solved: ClassVar[float] = 0.095242
    budgets: ClassVar[dict[str, int]] = {"smoke": 400, "quick": 40_000, "full": 2_000_000}
    batch: ClassVar[int] = 4
    alpha: ClassVar[float] = 0.5

    def __post_init__(self) -> None:
        self.require_whole(bits=1, steps=EVALUATION_ROWS)
        self.require_number("rate", 0, 1)

    def generate(self, split: Split, seed: int, batch: int) -> Sequences:
        """Train: `batch` rows of `steps`; validation and test: 5 rows of a fifth as many."""
        rows = batch if split == "train" else EVALUATION_ROWS
        steps = self.steps if split == "train" else self.steps // EVALUATION_ROWS
        rng, shape = self.rng(split, seed), (steps, rows, self.bits)
        comes = rng.random(shape) < self.rate
        comes[0] = True
        sign = 2 * rng.integers(0, 2, shape) - 1
        # The step of the last pulse, then its sign.
        last = np.maximum.accumulate(np.where(comes, np.arange(steps)[:, None, None], 0), axis=0)
        held = np.take_along_axis(sign, last, axis=0)
        return Sequences(
            (comes * sign).astype(np.float32), held.astype(np.float32), np.ones(shape[:2], np.float32)
        )

    def score(self, outputs: NDArray[np.float32], sequences: Sequences) -> float:
        """The mean squared error."""
        return mse(outputs, sequences)

    def trivial_score(self, sequences: Sequences) -> float:
        """The mean squared error of 0, the best constant."""
        return mse(np.zeros_like(sequences.targets), sequences)

    def solved_score(self, sequences: Sequences) -> float:
        """The exact expected error of an answer that loses rate / 3 of itself at every step.

        After s steps without a pulse, which have the probability rate (1 - rate)^s, it is kept^s.
        """
        rate, kept = self.rate, 1 - self.rate / 3
        return 1 - 2 * rate / (1 - (1 - rate) * kept) + rate / (1 - (1 - rate) * kept**2)
