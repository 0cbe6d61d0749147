"""Predict the next character of a text.

A text is reduced to 27 characters as text8 was: letters become lower case, digits are spelled out, and every
run of other characters becomes one space. The answer at each character is the next one.

    inputs  [T, N, 27]  one-hot: space, a to z
    targets [T, N, 27]  the next character

The text is cut, in its order, into train (90%), validation and test (5% each), as text8 is. The splits do not
overlap. The training rows are contiguous stretches of equal length. If the budget is longer than a row, the
row is repeated, from rest. Validation and test are 5 such rows each, whose first 20 characters are not
scored. Data do not depend on the seed. A text of more than 10 million characters has more rows of validation
and test, of at most 100,000 characters; they use the first million characters of the two splits.

Without `data`, the text is 300,000 characters of the King James Bible (see `data/README.md`). `data` names a
.txt file, or a .csv or .parquet table or hub data set with a column `text`, whose rows are joined with a
space. For a long text, such as text8 itself, one-hot vectors are made only when they are read.

The loss is the cross-entropy, the metric bits per character. The trivial predictor has the frequencies of the
characters in the training text: 4.02 bits. Solved is the score with the frequencies of triples of characters
there, 2.49, or of pairs, here 3.16, if that is better. To each count one is added.

Source: Mahoney (2006), About the test data, http://mattmahoney.net/dc/textdata; as a task for recurrent
networks: Mikolov et al. (2012), Subword language modeling with neural networks.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from creditbench.data import read_text
from creditbench.errors import UsageError
from creditbench.task import Sequences, Split, Task, cross_entropy

EMBEDDED = Path(__file__).parent / "data" / "text_kjv.txt"
CHARACTERS = " abcdefghijklmnopqrstuvwxyz"
SHARES = (0.9, 0.95)  # the ends of train and validation
EVALUATION_ROWS = 5
LONGEST = 100_000  # the most steps of a validation or test row: a longer text has more rows
EVALUATED = 1_000_000  # the most characters of validation, and of test: a million give bits to 0.01
CHUNK = 1_000_000  # characters counted at a time
LARGE = 10_000_000  # a split with so many characters is not laid out as one-hot vectors
LEAST = 0.1  # the smallest share of letters and digits: with less, the text is in another script
WARMUP = 20  # first characters of a validation or test row that are not scored
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


class Rows:
    """The rows `places` [T, N] of a table, [T, N, ·]. They are taken when the object is indexed."""

    def __init__(self, table: NDArray[np.float32], places: NDArray[Any]) -> None:
        self.table, self.places = table, places
        self.shape, self.dtype, self.ndim = (*places.shape, table.shape[1]), table.dtype, places.ndim + 1

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, steps: Any) -> NDArray[np.float32]:
        """The rows at `steps`, an index of the first axis or of the first two."""
        return self.table[self.places[steps]]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self[:].astype(dtype or self.dtype, copy=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Text8Chars(Task):
    """Predict the next character; see the module's text."""

    data: str | None = None  #: a user's text; None for the embedded one

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
        """Train: `batch` stretches; validation and test: 5 or more. Raises UsageError for a short text.

        For a split of `LARGE` characters or more, inputs and targets are `Rows`, and weights a view of one
        number.
        """
        part = self._parts[split]
        part = part if split == "train" else part[:EVALUATED]
        rows = batch if split == "train" else max(EVALUATION_ROWS, -(-len(part) // LONGEST))
        steps = (len(part) - 1) // rows
        if steps <= WARMUP:
            raise UsageError(
                f"text '{self._source}': {len(part)} characters of {split} make {max(steps, 0)} steps in "
                f"each of {rows} rows, and more than {WARMUP} are needed: give a longer text or a smaller "
                "batch"
            )
        now, later = (part[k : k + rows * steps].reshape(rows, steps).T for k in (0, 1))
        shown: Any = [Rows(np.eye(len(CHARACTERS), dtype=np.float32), codes) for codes in (now, later)]
        if len(part) < LARGE:
            shown = [rows[:] for rows in shown]
        if split == "train" and len(part) >= LARGE:
            weights = np.broadcast_to(np.float32(1), (steps, rows))
        else:
            weights = np.ones((steps, rows), np.float32)
        if split != "train":
            weights[:WARMUP] = 0.0
        return Sequences(shown[0], shown[1], weights)

    def score(self, outputs: NDArray[np.float32], sequences: Sequences) -> float:
        """The cross-entropy in bits per character."""
        return cross_entropy(outputs, sequences) / np.log(2)

    def trivial_score(self, sequences: Sequences) -> float:
        """Bits per character with the frequencies of the training text, with one added to each count."""
        train = self._parts["train"]
        counts = np.ones(len(CHARACTERS), np.int64)
        for start in range(0, len(train), CHUNK):
            counts += np.bincount(train[start : start + CHUNK], minlength=len(CHARACTERS))
        frequencies = np.log(counts / counts.sum()).astype(np.float32)
        return self.score(np.broadcast_to(frequencies, sequences.targets.shape), sequences)

    def solved_score(self, sequences: Sequences) -> float | None:
        """Bits per character with the better of pairs and triples; None if trivial is as good."""
        inputs: Any = sequences.inputs
        shown = inputs.places if isinstance(inputs, Rows) else inputs.argmax(-1)
        places = np.arange(len(shown))
        scores = []
        for order, table in self._tables.items():
            # Before the first character of a row is, for want of another, that one.
            context = np.zeros(shown.shape, np.int32)
            for k in range(order - 1):
                context += shown[np.maximum(places - k, 0)] * np.int32(len(CHARACTERS) ** k)
            outputs: Any = Rows(table, context)
            scores.append(float(self.score(outputs, sequences)))
        best = min(scores)
        return best if best < self.trivial_score(sequences) else None

    @functools.cached_property
    def _tables(self) -> dict[int, NDArray[np.float32]]:
        """The log-probabilities [contexts, 27] of pairs and triples, with one added to each count."""
        kinds, train, tables = len(CHARACTERS), self._parts["train"], {}
        for order in (2, 3):
            counts = np.ones(kinds**order)
            # One piece at a time, so that a long text takes little memory.
            for start in range(0, len(train) - order + 1, CHUNK):
                piece = train[start : start + CHUNK + order - 1].astype(np.int64)
                length = len(piece) - order + 1
                codes = sum(piece[k : k + length] * kinds ** (order - 1 - k) for k in range(order))
                counts += np.bincount(codes, minlength=kinds**order)
            after = counts.reshape(-1, kinds)
            tables[order] = np.log(after / after.sum(1, keepdims=True)).astype(np.float32)
        return tables

    @property
    def _source(self) -> str:
        return self.data or EMBEDDED.name

    @functools.cached_property
    def _parts(self) -> dict[str, NDArray[np.uint8]]:
        """The characters of each split, as indices into CHARACTERS."""
        text = read_text(EMBEDDED if self.data is None else self.data)
        codes = _reduced(text)
        if np.count_nonzero(codes) < LEAST * len(text):
            raise UsageError(
                f"text '{self._source}': of its {len(text)} bytes {np.count_nonzero(codes)} become letters a "
                "to z: give a text in Latin letters"
            )
        ends = [int(share * len(codes)) for share in SHARES]
        return dict(zip(("train", "validation", "test"), np.split(codes, ends), strict=True))


def _reduced(text: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """UTF-8 bytes as indices into CHARACTERS. Runs of spaces become one."""
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
