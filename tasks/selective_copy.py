"""Recall the marked symbols and no others.

Each of 12 steps shows one of 8 symbols, and 3 of the steps, at random, have a mark. Then "go" is shown 3
times, and the answers are the marked symbols in their order.

    inputs  [T, N, 10]  one-hot: 8 symbols, "go"; and the mark;  T = 12 + 3
    targets [T, N, 8]   one-hot: the symbol to recall; blank, all 0, before the first "go"
    weights [T, N]      1 at "go", 0 before

The loss is the cross-entropy, the metric the fraction of wrong symbols. A guess is wrong 7 times in 8. Solved
is a tenth of that, 0.0875. (If two of three symbols are recalled and one is guessed, 0.29 of the answers are
wrong.)

Source: Gu and Dao (2023), Mamba: linear-time sequence modeling with selective state spaces,
arXiv:2312.00752.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from creditbench.errors import UsageError
from creditbench.task import Sequences, Split, Task, accuracy


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelectiveCopy(Task):
    """Recall the marked symbols; see the module's text."""

    length: int = 12  #: symbols shown
    marked: int = 3  #: symbols to recall
    symbols: int = 8  #: different symbols
    train_sequences: int = 10_000
    evaluation_sequences: int = 1000  #: in validation and in test

    id: ClassVar[str] = "selective_copy"
    name: ClassVar[str] = "Selective copying"
    citation: ClassVar[str] = "Gu & Dao (2023), arXiv:2312.00752"
    version: ClassVar[int] = 2
    protocol: ClassVar[Literal["stream", "episodes"]] = "episodes"
    loss: ClassVar[Literal["mse", "cross_entropy"]] = "cross_entropy"
    metric: ClassVar[str] = "wrong_symbols"
    metric_direction: ClassVar[Literal["min", "max"]] = "min"
    trivial: ClassVar[float] = 7 / 8
    solved: ClassVar[float] = 7 / 80
    budgets: ClassVar[dict[str, int]] = {"smoke": 300, "quick": 37_500, "full": 750_000}
    batch: ClassVar[int] = 32

    def __post_init__(self) -> None:
        self.require_whole(length=1, marked=1, symbols=2, train_sequences=1, evaluation_sequences=1)
        if self.marked > self.length:
            raise UsageError(
                f"selective_copy.marked is {self.marked}: no more than the {self.length} symbols shown can be"
            )

    def generate(self, split: Split, seed: int, batch: int) -> Sequences:
        """`train_sequences` or `evaluation_sequences` episodes. `batch` is not used."""
        rows = self.train_sequences if split == "train" else self.evaluation_sequences
        rng, k = self.rng(split, seed), self.symbols
        shown = rng.integers(0, k, (self.length, rows))
        places = rng.permuted(np.tile(np.arange(self.length)[:, None], rows), axis=0)
        places = np.sort(places[: self.marked], axis=0)
        said = np.take_along_axis(shown, places, axis=0)
        steps = self.length + self.marked
        inputs = np.zeros((steps, rows, k + 2), np.float32)
        inputs[: self.length, :, :k] = np.eye(k)[shown]
        inputs[self.length :, :, k] = 1.0
        inputs[places, np.arange(rows), k + 1] = 1.0
        targets, weights = np.zeros((steps, rows, k), np.float32), np.zeros((steps, rows), np.float32)
        targets[self.length :] = np.eye(k)[said]
        weights[self.length :] = 1.0
        return Sequences(inputs, targets, weights)

    def score(self, outputs: NDArray[np.float32], sequences: Sequences) -> float:
        """The fraction of wrong symbols on recall."""
        return 1 - accuracy(outputs, sequences)

    def trivial_score(self, sequences: Sequences) -> float:
        """The expected fraction of wrong guesses."""
        return 1 - 1 / self.symbols

    def solved_score(self, sequences: Sequences) -> float:
        """The expected fraction of wrong symbols if one in ten is guessed and the others are known."""
        return self.trivial_score(sequences) / 10
