"""Recall 100 symbols after a delay of 10.

The alphabet has 10 letters: 0 is blank, 1 to 8 are the symbols, 9 is "go". An episode shows 100
random symbols, then 10 blanks, then "go" 100 times. The answer is blank until the first "go", and
then the symbols in their order, one a step.

    inputs  [T, N, 10]   one-hot;  T = 100 + 10 + 100
    targets [T, N, 10]   one-hot

The loss is the mean squared error on the one-hot target at every step, as in the paper; the metric
is the fraction of wrong symbols on recall, where the largest of the 10 outputs is the answer.
Always to say the same symbol is wrong 7 times in 8. Solved is 0.1: a network that recalls 90 of
100 symbols and guesses the others scores 0.0875.

Source: Garcia Fernandez, Keemink and van Gerven (2024), Gradient-free training of recurrent neural
networks using random perturbations, Frontiers in Neuroscience 18:1439155,
doi:10.3389/fnins.2024.1439155; after Hochreiter and Schmidhuber (1997), Long short-term memory,
and Arjovsky, Shah and Bengio (2016), Unitary evolution recurrent neural networks,
arXiv:1511.06464.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from creditbench.task import Sequences, Split, Task

BLANK = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class CopyMemory(Task):
    """Recall a sequence of symbols after a delay; see the module's text."""

    length: int = 100  #: symbols to recall
    delay: int = 10  #: blanks between the last symbol and the first "go"
    symbols: int = 8  #: different symbols; the alphabet has a blank and a "go" besides
    train_sequences: int = 1000
    evaluation_sequences: int = 100  #: in validation and in test

    id: ClassVar[str] = "copy_memory"
    name: ClassVar[str] = "Copying memory"
    citation: ClassVar[str] = "Garcia Fernandez et al. (2024), doi:10.3389/fnins.2024.1439155"
    version: ClassVar[int] = 2
    protocol: ClassVar[Literal["stream", "episodes"]] = "episodes"
    loss: ClassVar[Literal["mse", "cross_entropy"]] = "mse"
    metric: ClassVar[str] = "wrong_symbols"
    metric_direction: ClassVar[Literal["min", "max"]] = "min"
    trivial: ClassVar[float] = 7 / 8
    solved: ClassVar[float] = 0.1
    budgets: ClassVar[dict[str, int]] = {"smoke": 420, "quick": 21_000, "full": 420_000}
    batch: ClassVar[int] = 16

    def __post_init__(self) -> None:
        self.require_whole(length=1, delay=0, symbols=2, train_sequences=1, evaluation_sequences=1)

    def generate(self, split: Split, seed: int, batch: int) -> Sequences:
        """`train_sequences` or `evaluation_sequences` episodes; `batch` plays no part."""
        rows = self.train_sequences if split == "train" else self.evaluation_sequences
        shown = self.rng(split, seed).integers(1, self.symbols + 1, (self.length, rows))
        go = self.symbols + 1
        blanks = np.full((self.delay, rows), BLANK)
        seen = np.concatenate([shown, blanks, np.full_like(shown, go)])
        said = np.concatenate([np.full_like(shown, BLANK), blanks, shown])
        one_hot = np.eye(self.symbols + 2, dtype=np.float32)
        return Sequences(one_hot[seen], one_hot[said], np.ones(seen.shape, np.float32))

    def score(self, outputs: NDArray[np.float32], sequences: Sequences) -> float:
        """The fraction of wrong symbols on recall; not a number where an output is not finite."""
        recalled = outputs[-self.length :]
        if not np.isfinite(recalled).all():
            return float("nan")
        wrong = recalled.argmax(-1) != sequences.targets[-self.length :].argmax(-1)
        return float(wrong.mean())

    def trivial_score(self, sequences: Sequences) -> float:
        """The fraction wrong when always the most frequent symbol is said."""
        return float(1 - sequences.targets[-self.length :].mean((0, 1)).max())
