"""Predict the next character of a text.

A text is reduced to 27 characters as that of text8 was: letters are made small, digits spelled out, and
every run of anything else becomes one space. At each character the next one is asked for.

    inputs  [T, N, 27]  one-hot: space, a to z
    targets [T, N, 27]  the next character

The text is cut, in its order, into train (90%), validation and test (5% each), as text8 is, and no
character is in two of them. The training rows are contiguous stretches of equal length, gone through again,
from rest, when the budget is longer; validation and test are 5 such rows each, the first 20 characters of which
are not scored. Data do not depend on the seed.

Without `data`, the text is 300,000 characters of the King James Bible (see `data/README.md`). `data`
names a .txt file, or a .csv or .parquet table or hub data set with a column `text`; there, rows are
joined with a space.

The loss is the cross-entropy, the metric bits a character. The trivial predictor has the frequencies of
the characters in the training text: 4.02 bits. Solved is what the frequencies of triples of characters there
reach, 2.49, or those of pairs, 3.16, where these are better, as they are of a short text. Each character is
counted once more after each one or two.

Source: Mahoney (2006), About the test data, http://mattmahoney.net/dc/textdata; as a task for recurrent
networks: Mikolov et al. (2012), Subword language modeling with neural networks.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from creditbench.data import read_text
from creditbench.errors import UsageError
from creditbench.task import Sequences, Split, Task, cross_entropy

EMBEDDED = Path(__file__).parent / "data" / "text_kjv.txt"
CHARACTERS = " abcdefghijklmnopqrstuvwxyz"
SHARES = (0.9, 0.95)  # where train and validation end
EVALUATION_ROWS = 5
CHUNK = 1_000_000  # characters counted at a time
WARMUP = 20  # first characters of a validation or test row that are not scored
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Text8Chars(Task):
    """Predict the next character; see the module's text."""

    data: str | None = None  #: a text of the user's; None for the embedded one

    id: ClassVar[str] = "text8_chars"
    name: ClassVar[str] = "Characters of a text"
    citation: ClassVar[str] = "Mahoney (2006), http://mattmahoney.net/dc/textdata"
    version: ClassVar[int] = 2
    protocol: ClassVar[Literal["stream", "episodes"]] = "stream"
    loss: ClassVar[Literal["mse", "cross_entropy"]] = "cross_entropy"
    metric: ClassVar[str] = "bits_per_character"
    metric_direction: ClassVar[Literal["min", "max"]] = "min"
    trivial: ClassVar[float] = 4.0230
    solved: ClassVar[float] = 2.49425
    budgets: ClassVar[dict[str, int]] = {"smoke": 400, "quick": 40_000, "full": 600_000}
    batch: ClassVar[int] = 16
    reads_data: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.data is not None and not isinstance(self.data, str):
            raise UsageError(f"text8_chars.data is {self.data!r}: name a file, or hf:OWNER/NAME")

    def generate(self, split: Split, seed: int, batch: int) -> Sequences:
        """Train: `batch` stretches; validation and test: 5. Raises UsageError for a text that is too short."""
        part, rows = self._parts[split], batch if split == "train" else EVALUATION_ROWS
        steps = (len(part) - 1) // rows
        if steps <= WARMUP:
            raise UsageError(
                f"text '{self.data or EMBEDDED.name}': {len(part)} characters of {split} make {max(steps, 0)} steps in "
                f"each of {rows} rows, and more than {WARMUP} are needed: give a longer text or a smaller batch"
            )
        now, later = (part[k : k + rows * steps].reshape(rows, steps).T for k in (0, 1))
        one_hot = np.eye(len(CHARACTERS), dtype=np.float32)
        weights = np.ones((steps, rows), np.float32)
        if split != "train":
            weights[:WARMUP] = 0.0
        return Sequences(one_hot[now], one_hot[later], weights)

    def score(self, outputs: NDArray[np.float32], sequences: Sequences) -> float:
        """The cross-entropy in bits a character."""
        return cross_entropy(outputs, sequences) / np.log(2)

    def trivial_score(self, sequences: Sequences) -> float:
        """Bits a character with the frequencies of the training text, each character counted once more."""
        counts = 1 + np.bincount(self._parts["train"], minlength=len(CHARACTERS))
        frequencies = np.log(counts / counts.sum()).astype(np.float32)
        return self.score(np.broadcast_to(frequencies, sequences.targets.shape), sequences)

    def solved_score(self, sequences: Sequences) -> float | None:
        """Bits a character of the best of pairs and triples of the training text; None where trivial is as good."""
        shown = sequences.inputs.argmax(-1)
        places = np.arange(len(shown))
        scores = []
        for order, table in self._tables.items():
            # Before the first character of a row is, for want of another, that one.
            context = sum(
                shown[np.maximum(places - k, 0)] * len(CHARACTERS) ** k for k in range(order - 1)
            )
            scores.append(self.score(table[context], sequences))
        best = min(scores)
        return best if best < self.trivial_score(sequences) else None

    @functools.cached_property
    def _tables(self) -> dict[int, NDArray[np.float32]]:
        """Of pairs and triples: the log-probabilities [contexts, 27] of a character, each counted once more."""
        kinds, train, tables = len(CHARACTERS), self._parts["train"], {}
        for order in (2, 3):
            counts = np.ones(kinds**order)
            # A piece at a time, so that a long text takes little memory.
            for start in range(0, len(train) - order + 1, CHUNK):
                piece = train[start : start + CHUNK + order - 1].astype(np.int64)
                length = len(piece) - order + 1
                codes = sum(piece[k : k + length] * kinds ** (order - 1 - k) for k in range(order))
                counts += np.bincount(codes, minlength=kinds**order)
            counts = counts.reshape(-1, kinds)
            tables[order] = np.log(counts / counts.sum(1, keepdims=True)).astype(np.float32)
        return tables

    @functools.cached_property
    def _parts(self) -> dict[str, NDArray[np.uint8]]:
        """The characters of each split, as their places in CHARACTERS."""
        codes = _reduced(read_text(EMBEDDED if self.data is None else self.data))
        ends = [int(share * len(codes)) for share in SHARES]
        return dict(zip(("train", "validation", "test"), np.split(codes, ends), strict=True))


def _reduced(text: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """UTF-8 bytes as places in CHARACTERS; runs of spaces become one."""
    raw = text.tobytes()
    for digit, word in enumerate(_DIGITS):
        raw = raw.replace(str(digit).encode(), f" {word} ".encode())
    table = np.zeros(256, np.uint8)
    for first in b"aA":
        table[first : first + 26] = np.arange(1, 27)
    codes = table[np.frombuffer(raw, np.uint8)]
    again = np.zeros(len(codes), bool)
    again[1:] = (codes[1:] == 0) & (codes[:-1] == 0)
    return codes[~again]
