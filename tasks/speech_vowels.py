"""Tell nine speakers apart by one vowel sequence.

Nine men said the Japanese vowels "ae"; each utterance is 7 to 29 frames of 12 LPC cepstrum coefficients. The
answer at an utterance's last frame is the speaker.

    inputs  [29, N, 12]  half of the coefficients; 0 after the last frame
    targets [29, N, 9]   the speaker, one-hot, at every step
    weights [29, N]      1 at the last frame, else 0

The test split is the data's own: 370 utterances. The 270 others, 30 per speaker, are divided into 24 for
training and 6 for validation, the same ones for every seed. The seed sets the order of the training
utterances. The loss is the cross-entropy, the metric accuracy. The largest class of the test split is 88 of
370. Solved is 0.941, the accuracy in the paper of the data.

The data come with the optional package aeon. One of its files is read, and nothing is imported. If it is
missing, `generate` says how to install it.

Source: Kudo, Toyama and Shimbo (1999), Multidimensional curve classification using passing-through regions,
Pattern Recognition Letters 20:1103-1111, doi:10.1016/S0167-8655(99)00077-X; data: UCI machine learning
repository, doi:10.24432/C5NS47 (CC BY 4.0).
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from creditbench.data import cached
from creditbench.errors import UsageError
from creditbench.task import Sequences, Split, Task, accuracy

FRAMES, COEFFICIENTS, SPEAKERS = 29, 12, 9
VALIDATION = 6  # utterances of each speaker
SPLIT_SEED = 9
SCALE = 2.0  # keeps the inputs in the range of a tanh


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpeechVowels(Task):
    """Tell speakers apart; see the module's text."""

    id: ClassVar[str] = "speech_vowels"
    name: ClassVar[str] = "Japanese vowels"
    citation: ClassVar[str] = "Kudo et al. (1999), doi:10.1016/S0167-8655(99)00077-X"
    version: ClassVar[int] = 1
    protocol: ClassVar[Literal["stream", "episodes"]] = "episodes"
    loss: ClassVar[Literal["mse", "cross_entropy"]] = "cross_entropy"
    metric: ClassVar[str] = "accuracy"
    metric_direction: ClassVar[Literal["min", "max"]] = "max"
    trivial: ClassVar[float] = 88 / 370
    solved: ClassVar[float] = 0.941
    budgets: ClassVar[dict[str, int]] = {"smoke": 290, "quick": 29_000, "full": 435_000}
    batch: ClassVar[int] = 32

    def generate(self, split: Split, seed: int, batch: int) -> Sequences:
        """All utterances of the split. `batch` is not used. Raises UsageError if aeon is missing."""
        if importlib.util.find_spec("aeon") is None:
            raise UsageError(
                "task 'speech_vowels' reads its data from the package aeon, which is not installed: "
                "pip install 'creditbench[speech]', or, for its data alone, pip install --no-deps aeon"
            )
        kept = cached(f"vowels-{importlib.metadata.version('aeon')}", _utterances)
        part = "test" if split == "test" else "train"
        frames, lengths, speakers = (kept[f"{part}_{name}"] for name in ("frames", "lengths", "speakers"))
        rows = np.arange(len(lengths))
        if split != "test":
            rng = np.random.default_rng(SPLIT_SEED)
            own = [rng.permutation(np.flatnonzero(speakers == s)) for s in range(SPEAKERS)]
            cut = slice(VALIDATION, None) if split == "train" else slice(VALIDATION)
            rows = np.concatenate([utterances[cut] for utterances in own])
        if split == "train":
            rows = self.rng(split, seed).permutation(rows)
        weights = np.zeros((FRAMES, len(rows)), np.float32)
        weights[lengths[rows] - 1, np.arange(len(rows))] = 1.0
        targets = np.tile(np.eye(SPEAKERS, dtype=np.float32)[speakers[rows]], (FRAMES, 1, 1))
        inputs = np.ascontiguousarray(frames[rows].swapaxes(0, 1), np.float32) / np.float32(SCALE)
        return Sequences(inputs, targets, weights)

    def sizes(self) -> tuple[int, int, int, int]:
        """T, N, I, O of the train split, known without the data."""
        return FRAMES, SPEAKERS * (30 - VALIDATION), COEFFICIENTS, SPEAKERS

    def score(self, outputs: NDArray[np.float32], sequences: Sequences) -> float:
        """Accuracy at the last frames."""
        return accuracy(outputs, sequences)

    def trivial_score(self, sequences: Sequences) -> float:
        """The share of the largest class."""
        return float(sequences.targets[-1].mean(0).max())


def _utterances() -> dict[str, NDArray]:
    """For each part: `frames` [N, 29, 12] float32, 0 after the last, `lengths` [N], `speakers` [N]."""
    spec = importlib.util.find_spec("aeon")
    assert spec is not None and spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0]) / "datasets" / "data" / "JapaneseVowels"
    arrays: dict[str, NDArray] = {}
    for part in ("train", "test"):
        path = folder / f"JapaneseVowels_{part.upper()}.ts"
        try:
            lines = path.read_text(encoding="utf-8").partition("@data\n")[2].split()
        except OSError as error:
            raise UsageError(
                f"data file '{path}' cannot be read ({error.strerror}): install aeon 1.x, as in pip install "
                "aeon"
            ) from None
        # A line has the 12 coefficients, each as its values over the frames, and the speaker from 1 on.
        fields = [line.split(":") for line in lines]
        series = [np.array([values.split(",") for values in f[:-1]], np.float32).T for f in fields]
        frames = np.zeros((len(series), FRAMES, COEFFICIENTS), np.float32)
        for row, values in zip(frames, series, strict=True):
            row[: len(values)] = values
        arrays[f"{part}_frames"] = frames
        arrays[f"{part}_lengths"] = np.array([len(values) for values in series])
        arrays[f"{part}_speakers"] = np.array([int(f[-1]) - 1 for f in fields])
    return arrays
