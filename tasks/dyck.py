"""Tell which brackets may come next.

The input is a string of brackets of 2 kinds, nested at most 4 deep. At depth 0 a bracket is opened, at depth
4 one is closed; in between, both have probability one half. Kinds are equally frequent.

    inputs  [T, N, 4]   one-hot: ( [ ) ]
    targets [T, N, 4]   1 for each bracket that may come next, else 0

The metric is accuracy at closing brackets: the fraction of steps before a closing bracket at which the
largest output among the closing brackets has the right kind. After an opening bracket that kind is in the
input; after a closing one it has to be remembered. The trivial predictor closes a bracket opened at this very
step, and guesses otherwise; it is right 0.826 of the time. Remembering the innermost two brackets and
guessing the others scores 0.929; the innermost three, 0.975. `remembering` computes these. Solved is midway
between them, 0.952; if brackets are nested two deep, midway between the innermost one and all. With one kind,
or a depth of one, nothing has to be remembered, and there is no such score.

Source: Hewitt, Hahn, Ganguli, Liang and Manning (2020), RNNs can generate bounded hierarchical
languages with optimal memory, EMNLP, arXiv:2010.07515; Suzgun et al. (2019), LSTM networks can perform
dynamic counting, arXiv:1906.03648 (next-symbol validity as the target).
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from creditbench.task import Sequences, Split, Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dyck(Task):
    """Which brackets may come next; see the module's text."""

    kinds: int = 2  #: of brackets
    depth: int = 4  #: deepest nesting
    length: int = 40  #: symbols read, time steps
    train_sequences: int = 5000
    evaluation_sequences: int = 1000  #: in validation and in test

    id: ClassVar[str] = "dyck"
    name: ClassVar[str] = "Nested brackets"
    citation: ClassVar[str] = "Hewitt et al. (2020), arXiv:2010.07515"
    version: ClassVar[int] = 2
    protocol: ClassVar[Literal["stream", "episodes"]] = "episodes"
    loss: ClassVar[Literal["mse", "cross_entropy"]] = "mse"
    metric: ClassVar[str] = "closing_accuracy"
    metric_direction: ClassVar[Literal["min", "max"]] = "max"
    trivial: ClassVar[float] = 0.825658
    solved: ClassVar[float] = 0.952211
    budgets: ClassVar[dict[str, int]] = {"smoke": 400, "quick": 30_000, "full": 600_000}
    batch: ClassVar[int] = 32

    def __post_init__(self) -> None:
        self.require_whole(kinds=1, depth=1, length=2, train_sequences=1, evaluation_sequences=1)

    def generate(self, split: Split, seed: int, batch: int) -> Sequences:
        """`train_sequences` or `evaluation_sequences` episodes. `batch` is not used."""
        rows = self.train_sequences if split == "train" else self.evaluation_sequences
        rng, row = self.rng(split, seed), np.arange(rows)
        coins = rng.integers(0, 2, (self.length, rows)) == 1
        drawn = rng.integers(0, self.kinds, (self.length, rows))
        stack, depth = np.zeros((self.depth + 1, rows), int), np.zeros(rows, int)
        symbols, top, depths = (np.empty((self.length, rows), int) for _ in range(3))
        for t in range(self.length):
            opens = (coins[t] | (depth == 0)) & (depth < self.depth)
            symbols[t] = np.where(opens, drawn[t], self.kinds + stack[depth, row])
            depth = np.where(opens, depth + 1, depth - 1)
            stack[depth, row] = np.where(opens, drawn[t], stack[depth, row])
            top[t], depths[t] = stack[depth, row], depth
        inputs = np.eye(2 * self.kinds, dtype=np.float32)[symbols]
        may_open = np.broadcast_to((depths < self.depth)[..., None], (*depths.shape, self.kinds))
        may_close = np.eye(self.kinds)[top] * (depths > 0)[..., None]
        targets = np.concatenate([may_open, may_close], axis=-1).astype(np.float32)
        return Sequences(inputs, targets, np.ones(depths.shape, np.float32))

    def score(self, outputs: NDArray[np.float32], sequences: Sequences) -> float:
        """Accuracy at closing brackets; NaN if an output there is not finite."""
        k = self.kinds
        closes = sequences.inputs[1:, :, k:].any(-1)
        found = outputs[:-1][closes][:, k:]
        if not np.isfinite(found).all():
            return float("nan")
        right = found.argmax(-1) == sequences.targets[:-1][closes][:, k:].argmax(-1)
        return float(right.mean())

    def trivial_score(self, sequences: Sequences) -> float:
        """The exact expected accuracy of remembering the innermost bracket alone."""
        return self.remembering(1)

    def solved_score(self, sequences: Sequences) -> float | None:
        """Midway between remembering the innermost two and three brackets; None if trivial is as good."""
        reach = min(2, self.depth - 1)
        solved = (self.remembering(reach) + self.remembering(reach + 1)) / 2
        return solved if solved > self.remembering(1) else None

    def remembering(self, reach: int) -> float:
        """The exact accuracy of remembering the innermost `reach` open brackets and guessing the others.

        The kind of a bracket is lost once it has been more than `reach` deep below the innermost. The
        accuracy follows from expected counts over the string, by a Markov chain over (depth, number of known
        innermost brackets).
        """
        m = self.depth
        state = np.zeros((m + 1, reach + 1))  # [depth, known]
        state[0, 0] = 1.0
        right = closed = 0.0
        for _ in range(self.length):
            after = np.zeros_like(state)
            for depth in range(m + 1):
                opening = 1.0 if depth == 0 else 0.0 if depth == m else 0.5
                for known in range(reach + 1):
                    mass = state[depth, known]
                    if opening:
                        after[depth + 1, min(known + 1, reach)] += opening * mass
                    if opening < 1:
                        closing = (1 - opening) * mass
                        after[depth - 1, max(known - 1, 0)] += closing
                        closed += closing
                        right += closing * (1.0 if known else 1 / self.kinds)
            state = after
        return float(right / closed)
