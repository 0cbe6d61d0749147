"""Tell whether a number of bits holds an odd number of ones.

Random bits are shown, one per step. The answer at every step is the parity of the bits so far. If not
`running`, only the last step is scored, which is far harder.

    inputs  [T, N, 2]   one-hot: the bit, 1 - the bit
    targets [T, N, 2]   one-hot: odd, even; of the bits so far
    weights [T, N]      1 at every step; if not `running`, only at the last one

No two episodes of a seed show the same bits, in any split. The metric is accuracy. Chance is 0.5, and so is
the score of any predictor that misses one of the bits so far. Solved is 0.95. Counting up to 5 ones and then
guessing scores 0.84.

Source: Hochreiter and Schmidhuber (1997), Long short-term memory, Neural Computation 9:1735-1780,
doi:10.1162/neco.1997.9.8.1735, on parity; Minsky and Papert (1969), Perceptrons (the problem).
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from creditbench.errors import UsageError
from creditbench.task import Sequences, Split, Task, accuracy


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parity(Task):
    """Parity of bits; see the module's text."""

    length: int = 16  #: bits, time steps
    running: bool = True  #: whether every step is scored, or the last one alone
    train_sequences: int = 10_000
    evaluation_sequences: int = 2000  #: in validation and in test

    id: ClassVar[str] = "parity"
    name: ClassVar[str] = "Parity"
    citation: ClassVar[str] = "Hochreiter & Schmidhuber (1997), doi:10.1162/neco.1997.9.8.1735"
    version: ClassVar[int] = 1
    protocol: ClassVar[Literal["stream", "episodes"]] = "episodes"
    loss: ClassVar[Literal["mse", "cross_entropy"]] = "cross_entropy"
    metric: ClassVar[str] = "accuracy"
    metric_direction: ClassVar[Literal["min", "max"]] = "max"
    trivial: ClassVar[float] = 0.5
    solved: ClassVar[float] = 0.95
    budgets: ClassVar[dict[str, int]] = {"smoke": 320, "quick": 40_000, "full": 800_000}
    batch: ClassVar[int] = 32

    def __post_init__(self) -> None:
        self.require_whole(length=2, train_sequences=1, evaluation_sequences=1)
        self.require_one_of("running", (False, True))
        needed = self.train_sequences + 2 * self.evaluation_sequences
        if not needed <= 2**self.length < 2**63:
            raise UsageError(
                f"parity.length is {self.length}: {needed} different sequences need one of at least "
                f"{(needed - 1).bit_length()} and at most 62 bits"
            )

    def generate(self, split: Split, seed: int, batch: int) -> Sequences:
        """`train_sequences` or `evaluation_sequences` episodes. `batch` is not used."""
        ends = np.cumsum([self.train_sequences, self.evaluation_sequences])
        total = int(ends[-1]) + self.evaluation_sequences
        # One draw without replacement for all splits, so that they share nothing.
        codes = self.rng("train", seed).choice(2**self.length, total, replace=False)
        parts = dict(zip(("train", "validation", "test"), np.split(codes, ends), strict=True))
        bits = parts[split] >> np.arange(self.length)[:, None] & 1
        odd = np.bitwise_xor.accumulate(bits, axis=0)
        weights = np.ones(bits.shape, np.float32)
        if not self.running:
            weights[:-1] = 0.0
        one_hot = np.eye(2, dtype=np.float32)
        return Sequences(one_hot[1 - bits], one_hot[1 - odd], weights)

    def score(self, outputs: NDArray[np.float32], sequences: Sequences) -> float:
        """Accuracy at the scored steps."""
        return accuracy(outputs, sequences)

    def trivial_score(self, sequences: Sequences) -> float:
        """Chance: a constant's accuracy if both answers are equally frequent."""
        return 0.5

    def solved_score(self, sequences: Sequences) -> float:
        """Nine tenths of the way from chance to no error, for all parameters."""
        return self.solved
