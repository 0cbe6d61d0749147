"""Sum up noisy evidence and tell its sign.

Every step gives a sample of evidence. Its mean is the episode's direction, +1 or -1, times the episode's
coherence; its standard deviation is 1. The input is a third of it. The answer at the last step is the sign of
the sum of all samples. At low coherence it may differ from the direction.

    inputs  [T, N, 1]   a third of the sample
    targets [T, N, 2]   one-hot: the sum is above 0, or below; at every step
    weights [T, N]      1 at the last step, 0 before

Row r has the coherence number r modulo 4 of 0, 0.1, 0.2 and 0.4. The metric is accuracy;
`accuracy_by_coherence` gives it for each coherence. Chance is 0.5; the sign of the last sample alone scores
0.58. Solved is the score of the ideal observer of all but a twentieth of the evidence, 0.95. A sum that
misses the first 2 of the 20 samples scores 0.92, and one that forgets a twentieth at every step 0.93. So all
of the evidence must be summed, and nearly evenly.

Source: Gold and Shadlen (2007), The neural basis of decision making, Annual Review of Neuroscience
30:535-574, doi:10.1146/annurev.neuro.29.051605.113038; as a task for networks, Song, Yang and Wang
(2016), PLoS Computational Biology 12:e1004792, doi:10.1371/journal.pcbi.1004792.
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from creditbench.task import Sequences, Split, Task, accuracy

COHERENCES = (0.0, 0.1, 0.2, 0.4)
MISSED = 0.05  # the share of the evidence that a solver of the task may miss
SCALE = 3.0  # keeps the inputs in the range of a tanh


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evidence(Task):
    """Sign of summed evidence; see the module's text."""

    length: int = 20  #: samples, time steps
    train_sequences: int = 10_000
    evaluation_sequences: int = 2000  #: in validation and in test

    id: ClassVar[str] = "evidence"
    name: ClassVar[str] = "Accumulating evidence"
    citation: ClassVar[str] = "Gold & Shadlen (2007), doi:10.1146/annurev.neuro.29.051605.113038"
    version: ClassVar[int] = 1
    protocol: ClassVar[Literal["stream", "episodes"]] = "episodes"
    loss: ClassVar[Literal["mse", "cross_entropy"]] = "cross_entropy"
    metric: ClassVar[str] = "accuracy"
    metric_direction: ClassVar[Literal["min", "max"]] = "max"
    trivial: ClassVar[float] = 0.5
    solved: ClassVar[float] = 0.949679
    budgets: ClassVar[dict[str, int]] = {"smoke": 400, "quick": 30_000, "full": 600_000}
    batch: ClassVar[int] = 32
    alpha: ClassVar[float] = 0.5

    def __post_init__(self) -> None:
        self.require_whole(length=1, train_sequences=1, evaluation_sequences=1)

    def generate(self, split: Split, seed: int, batch: int) -> Sequences:
        """`train_sequences` or `evaluation_sequences` episodes. `batch` is not used."""
        rows = self.train_sequences if split == "train" else self.evaluation_sequences
        rng = self.rng(split, seed)
        mean = (2 * rng.integers(0, 2, rows) - 1) * np.resize(COHERENCES, rows)
        samples = (mean + rng.standard_normal((self.length, rows))).astype(np.float32)
        # The sum of the inputs as float32, so that rounding cannot change the answer.
        below = (samples.sum(0, dtype=np.float64) < 0).astype(int)
        weights = np.zeros(samples.shape, np.float32)
        weights[-1] = 1.0
        targets = np.tile(np.eye(2, dtype=np.float32)[below], (self.length, 1, 1))
        return Sequences(samples[..., None] / np.float32(SCALE), targets, weights)

    def score(self, outputs: NDArray[np.float32], sequences: Sequences) -> float:
        """Accuracy at the last step."""
        return accuracy(outputs, sequences)

    def accuracy_by_coherence(self, outputs: NDArray[np.float32], sequences: Sequences) -> dict[float, float]:
        """Coherence -> accuracy at the last step."""
        return {
            coherence: accuracy(outputs[:, k :: len(COHERENCES)], _rows(sequences, k))
            for k, coherence in enumerate(COHERENCES)
        }

    def trivial_score(self, sequences: Sequences) -> float:
        """Chance: a constant's accuracy if both answers are equally frequent."""
        return 0.5

    def solved_score(self, sequences: Sequences) -> float:
        """The exact expected accuracy of the sign of a sum without `MISSED` of the evidence."""
        missed, seen = MISSED * self.length, (1 - MISSED) * self.length
        z = np.linspace(-8, 8, 2001)
        density = np.exp(-(z**2) / 2)
        density /= density.sum()
        right = 0.0
        for coherence in COHERENCES:
            part = seen * coherence + math.sqrt(seen) * z  # the sum of the seen evidence
            # The rest has mean `missed` times the coherence and variance `missed`. It must keep the sign.
            beyond = np.sign(part) * (part + missed * coherence) / math.sqrt(missed)
            right += float(density @ [(1 + math.erf(b / math.sqrt(2))) / 2 for b in beyond])
        return right / len(COHERENCES)


def _rows(sequences: Sequences, k: int) -> Sequences:
    """The rows of one coherence."""
    return Sequences(*(array[:, k :: len(COHERENCES)] for array in sequences))
