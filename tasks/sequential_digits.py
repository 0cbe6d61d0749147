"""Classify a handwritten digit that is read one pixel a step.

The 1,797 images of 8 x 8 pixels of real handwriting that scikit-learn ships are read pixel by
pixel, in one fixed random order of the pixels (`permuted`) or row by row. The class is asked for
at the last step.

    inputs  [64, N, 1]    brightness in [0, 1]
    targets [64, N, 10]   the class, one-hot, at every step
    weights [64, N]       1 at the last step, 0 before

Train, validation and test hold 70%, 10% and 20% of the images of every class, the same ones for
every seed; the seed sets the order of the training images. The loss is cross-entropy, the metric
accuracy. The largest class is a tenth of the images. Solved is 0.9, about what the nearest class
mean reaches that sees all pixels at once.

Source: Le, Jaitly and Hinton (2015), A simple way to initialize recurrent networks of rectified
linear units, arXiv:1504.00941 (reading order and permutation); Alpaydin and Kaynak (1998), Optical
recognition of handwritten digits, UCI machine learning repository, doi:10.24432/C50P49 (images).
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from creditbench.data import cached
from creditbench.errors import UsageError
from creditbench.task import Sequences, Split, Task

CLASSES = 10
SHARES = {"train": 0.7, "validation": 0.8}  # where the splits of a class end; test is the rest
SPLIT_SEED = 88
PERMUTATION_SEED = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class SequentialDigits(Task):
    """Classify a digit read pixel by pixel; see the module's text."""

    permuted: bool = True  #: whether the pixels come in one fixed random order

    id: ClassVar[str] = "sequential_digits"
    name: ClassVar[str] = "Sequential handwritten digits"
    citation: ClassVar[str] = "Le et al. (2015), arXiv:1504.00941"
    version: ClassVar[int] = 1
    protocol: ClassVar[Literal["stream", "episodes"]] = "episodes"
    loss: ClassVar[Literal["mse", "cross_entropy"]] = "cross_entropy"
    metric: ClassVar[str] = "accuracy"
    metric_direction: ClassVar[Literal["min", "max"]] = "max"
    trivial: ClassVar[float] = 37 / 359
    solved: ClassVar[float] = 0.9
    budgets: ClassVar[dict[str, int]] = {"smoke": 320, "quick": 12_800, "full": 128_000}
    batch: ClassVar[int] = 32

    def __post_init__(self) -> None:
        if type(self.permuted) is not bool:
            raise UsageError(f"sequential_digits.permuted is {self.permuted!r}: set it to true or false")

    def generate(self, split: Split, seed: int, batch: int) -> Sequences:
        """All images of the split; `batch` plays no part."""
        # scikit-learn takes more than a second to import, so its images are kept in the cache.
        version = importlib.metadata.version("scikit-learn")
        digits = cached(f"digits-{version}", _digits)
        rows = _rows(digits["labels"], split)
        if split == "train":
            rows = self.rng(split, seed).permutation(rows)
        pixels = digits["pixels"][rows].T
        if self.permuted:
            pixels = pixels[np.random.default_rng(PERMUTATION_SEED).permutation(len(pixels))]
        labels = np.eye(CLASSES, dtype=np.float32)[digits["labels"][rows]]
        weights = np.zeros(pixels.shape, np.float32)
        weights[-1] = 1.0
        return Sequences(
            np.ascontiguousarray(pixels[..., None]), np.tile(labels, (len(pixels), 1, 1)), weights
        )

    def score(self, outputs: NDArray[np.float32], sequences: Sequences) -> float:
        """Accuracy at the last step; not a number where an output there is not finite."""
        if not np.isfinite(outputs[-1]).all():
            return float("nan")
        right = outputs[-1].argmax(-1) == sequences.targets[-1].argmax(-1)
        return float(right.mean())

    def trivial_score(self, sequences: Sequences) -> float:
        """The share of the largest class."""
        return float(sequences.targets[-1].mean(0).max())


def _digits() -> dict[str, NDArray]:
    """`pixels` [images, 64] float32 in [0, 1] and `labels` [images]."""
    from sklearn.datasets import load_digits

    images = load_digits()
    return {"pixels": (images.data / 16).astype(np.float32), "labels": images.target}


def _rows(labels: NDArray, split: Split) -> NDArray:
    """The images of a split: the same share of every class."""
    rng = np.random.default_rng(SPLIT_SEED)
    rows = []
    for label in range(CLASSES):
        members = rng.permutation(np.flatnonzero(labels == label))
        ends = [round(share * len(members)) for share in SHARES.values()]
        parts = dict(zip(("train", "validation", "test"), np.split(members, ends), strict=True))
        rows.append(parts[split])
    return np.concatenate(rows)
