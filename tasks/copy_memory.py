"""Recall 5 symbols after a delay of 10.

The alphabet has 10 letters: 0 is blank, 1 to 8 are the symbols, 9 is "go". An episode shows 5 random symbols,
then 10 blanks, then "go" 5 times. The answer is blank until the first "go", and then the symbols in their
order, one per step.

    inputs  [T, N, 10]   one-hot;  T = 5 + 10 + 5
    targets [T, N, 10]   one-hot

No two episodes of a seed show the same symbols, in any split. The loss is the mean squared error on the
one-hot target at every step, as in the paper. The metric is the fraction of wrong symbols on recall; the
largest of the 10 outputs is the answer. A guess is wrong 7 times in 8. Solved is a tenth of that, 0.0875. (If
four of five symbols are recalled and one is guessed, 0.175 of the answers are wrong.)

Five symbols can be learned: a plain tanh network of 64 units solves them after 1,000 to 2,000 updates of
backpropagation through time (Adam, learning rate 0.003). Ten symbols need ten times as many updates.

The paper has sequences of 100 symbols, which no rule learns to recall here. As published, training has one
sequence and the test another: `length=100`, `train_sequences=1`, `evaluation_sequences=1`.

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

from creditbench.errors import UsageError
from creditbench.task import Sequences, Split, Task

BLANK = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class CopyMemory(Task):
    """Recall a sequence of symbols after a delay; see the module's text."""

    length: int = 5  #: symbols to recall
    delay: int = 10  #: blanks between the last symbol and the first "go"
    symbols: int = 8  #: different symbols; the alphabet also has a blank and a "go"
    train_sequences: int = 2000
    evaluation_sequences: int = 500  #: in validation and in test

    id: ClassVar[str] = "copy_memory"
    name: ClassVar[str] = "Copying memory"
    citation: ClassVar[str] = "Garcia Fernandez et al. (2024), doi:10.3389/fnins.2024.1439155"
    version: ClassVar[int] = 3
    protocol: ClassVar[Literal["stream", "episodes"]] = "episodes"
    loss: ClassVar[Literal["mse", "cross_entropy"]] = "mse"
    metric: ClassVar[str] = "wrong_symbols"
    metric_direction: ClassVar[Literal["min", "max"]] = "min"
    trivial: ClassVar[float] = 7 / 8
    solved: ClassVar[float] = 7 / 80
    budgets: ClassVar[dict[str, int]] = {"smoke": 400, "quick": 20_000, "full": 400_000}
    batch: ClassVar[int] = 16

    def __post_init__(self) -> None:
        self.require_whole(length=1, delay=0, symbols=2, train_sequences=1, evaluation_sequences=1)
        needed, there = self.train_sequences + 2 * self.evaluation_sequences, self.symbols**self.length
        if needed > there:
            raise UsageError(
                f"copy_memory.length is {self.length}: {self.symbols} symbols make {there} different "
                f"sequences of that length, and {needed} are needed: set a longer one, or fewer "
                "train_sequences and evaluation_sequences"
            )

    def generate(self, split: Split, seed: int, batch: int) -> Sequences:
        """`train_sequences` or `evaluation_sequences` episodes. `batch` is not used."""
        shown, go = 1 + self._symbols(split, seed), self.symbols + 1
        blanks = np.full((self.delay, shown.shape[1]), BLANK)
        seen = np.concatenate([shown, blanks, np.full_like(shown, go)])
        said = np.concatenate([np.full_like(shown, BLANK), blanks, shown])
        one_hot = np.eye(self.symbols + 2, dtype=np.float32)
        return Sequences(one_hot[seen], one_hot[said], np.ones(seen.shape, np.float32))

    def score(self, outputs: NDArray[np.float32], sequences: Sequences) -> float:
        """The fraction of wrong symbols on recall; NaN if an output is not finite."""
        recalled = outputs[-self.length :]
        if not np.isfinite(recalled).all():
            return float("nan")
        wrong = recalled.argmax(-1) != sequences.targets[-self.length :].argmax(-1)
        return float(wrong.mean())

    def trivial_score(self, sequences: Sequences) -> float:
        """The expected fraction of wrong guesses."""
        return 1 - 1 / self.symbols

    def solved_score(self, sequences: Sequences) -> float:
        """The expected fraction of wrong symbols if one in ten is guessed and the others are known."""
        return self.trivial_score(sequences) / 10

    def _symbols(self, split: Split, seed: int) -> NDArray[np.int64]:
        """The symbols to recall, from 0 on, [length, N]."""
        ends = np.cumsum([self.train_sequences, self.evaluation_sequences])
        there = self.symbols**self.length
        if there >= 2**62:  # among so many no two draws will be alike
            rows = self.train_sequences if split == "train" else self.evaluation_sequences
            return self.rng(split, seed).integers(0, self.symbols, (self.length, rows))
        # One draw without replacement for all splits, so that they share nothing.
        total = int(ends[-1]) + self.evaluation_sequences
        codes = self.rng("train", seed).choice(there, total, replace=False)
        parts = dict(zip(("train", "validation", "test"), np.split(codes, ends), strict=True))
        return parts[split] // self.symbols ** np.arange(self.length)[:, None] % self.symbols
