"""Classify a handwritten digit that is read one pixel per step.

scikit-learn ships 1,797 images of 8 x 8 pixels of real handwriting. They are read pixel by pixel, in one
fixed random order (`permuted`) or row by row. The answer at the last step is the class. With
`scored = "every"`, every step is trained, as in the code published with Garcia Fernandez et al. (2024), but
still only the last one is scored.

    inputs  [T, N, 1]     brightness in [0, 1];  T = 64
    targets [T, N, 10]    the class, one-hot, at every step
    weights [T, N]        1 at the last step, 0 before; with "every", 1 at all training steps

Train, validation and test hold 70%, 10% and 20% of the images of every class, the same ones for every seed.
The seed sets the order of the training images. The loss is cross-entropy, the metric accuracy. The largest
class is a tenth of the images. Solved is the accuracy of the nearest class mean of the training images, which
sees all pixels at once: 0.908.

`data` names other images of up to 10 classes, such as MNIST of the hub (`hf:ylecun/mnist`, 28 x 28 pixels,
T = 784). It is a table or data set with the class in the column `label`, and the image in the column `image`
or its pixels in all other columns. The brightest pixel becomes 1. If the data set has a test split, that is
the test split, and its train split is divided into 90% training and 10% validation of every class.

Source: Le, Jaitly and Hinton (2015), A simple way to initialize recurrent networks of rectified
linear units, arXiv:1504.00941 (reading order and permutation); Alpaydin and Kaynak (1998), Optical
recognition of handwritten digits, UCI machine learning repository, doi:10.24432/C50P49 (images).
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from creditbench.data import cached, read_images
from creditbench.errors import UsageError
from creditbench.task import Sequences, Split, Task, accuracy

CLASSES = 10
SHARES = (0.7, 0.8)  # the ends of train and validation in a class; test is the rest
SHARES_BESIDE_TEST = (0.9, 1.0)  # the same for data with a test split of their own
SPLIT_SEED = 88
PERMUTATION_SEED = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class SequentialDigits(Task):
    """Classify a digit read pixel by pixel; see the module's text."""

    permuted: bool = True  #: whether the pixels come in one fixed random order
    scored: Literal["last", "every"] = "last"  #: the steps at which the label is trained
    data: str | None = None  #: a user's images; None for those of scikit-learn

    id: ClassVar[str] = "sequential_digits"
    name: ClassVar[str] = "Sequential handwritten digits"
    citation: ClassVar[str] = "Le et al. (2015), arXiv:1504.00941"
    version: ClassVar[int] = 2
    protocol: ClassVar[Literal["stream", "episodes"]] = "episodes"
    loss: ClassVar[Literal["mse", "cross_entropy"]] = "cross_entropy"
    metric: ClassVar[str] = "accuracy"
    metric_direction: ClassVar[Literal["min", "max"]] = "max"
    trivial: ClassVar[float] = 37 / 359
    solved: ClassVar[float] = 326 / 359
    budgets: ClassVar[dict[str, int]] = {"smoke": 320, "quick": 12_800, "full": 128_000}
    batch: ClassVar[int] = 32
    reads_data: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if type(self.permuted) is not bool:
            raise UsageError(f"sequential_digits.permuted is {self.permuted!r}: set it to true or false")
        self.require_one_of("scored", ("last", "every"))
        if self.data is not None and not isinstance(self.data, str):
            raise UsageError(f"sequential_digits.data is {self.data!r}: name a file, or hf:OWNER/NAME")

    def generate(self, split: Split, seed: int, batch: int) -> Sequences:
        """All images of the split. `batch` is not used. Raises UsageError for unfit images."""
        pixels, labels = self._images[split]
        rows = self.rng(split, seed).permutation(len(labels)) if split == "train" else np.arange(len(labels))
        series = pixels[rows].T
        if self.permuted:
            series = series[np.random.default_rng(PERMUTATION_SEED).permutation(len(series))]
        one_hot = np.eye(CLASSES, dtype=np.float32)[labels[rows]]
        everywhere = split == "train" and self.scored == "every"
        weights = np.full(series.shape, float(everywhere), np.float32)
        weights[-1] = 1.0
        inputs = np.ascontiguousarray(series[..., None], np.float32)
        return Sequences(inputs / self._brightest, np.tile(one_hot, (len(series), 1, 1)), weights)

    def score(self, outputs: NDArray[np.float32], sequences: Sequences) -> float:
        """Accuracy at the last step."""
        return accuracy(outputs, sequences)

    def trivial_score(self, sequences: Sequences) -> float:
        """The share of the largest class."""
        return float(sequences.targets[-1].mean(0).max())

    def solved_score(self, sequences: Sequences) -> float | None:
        """The accuracy of the nearest class mean on these sequences; None if it is no better than trivial."""
        means = self._means
        near = sequences.inputs[..., 0].T @ means - (means**2).sum(0) / 2  # and |x|² the same for all
        near[:, np.isnan(means[0])] = -np.inf
        solved = float((near.argmax(-1) == sequences.targets[-1].argmax(-1)).mean())
        return solved if solved > self.trivial_score(sequences) else None

    @functools.cached_property
    def _means(self) -> NDArray[np.float64]:
        """The mean training image of each class, [T, 10], in the order read; NaN for an empty class."""
        train = self.generate("train", 0, self.batch)
        classes = train.targets[-1].astype(np.float64)
        with np.errstate(invalid="ignore"):
            return (train.inputs[..., 0] @ classes) / classes.sum(0)

    @functools.cached_property
    def _brightest(self) -> np.float32:
        """The brightness of white: the largest in the training images."""
        return np.float32(self._images["train"][0].max())

    @functools.cached_property
    def _images(self) -> dict[Split, tuple[NDArray, NDArray]]:
        """The pixels [N, P] and the classes [N] of each split."""
        if self.data is None:
            # scikit-learn takes more than a second to import, so its images are kept in the cache.
            found = cached(f"digits-{importlib.metadata.version('scikit-learn')}", _digits)
        else:
            found = read_images(self.data)
        own_test = "test_labels" in found
        for part in ("train", "test") if own_test else ("train",):
            self._check(part, found[f"{part}_pixels"], found[f"{part}_labels"])
        pixels, labels = found["train_pixels"], found["train_labels"]
        splits: dict[Split, tuple[NDArray, NDArray]] = {
            split: (pixels[rows], labels[rows])
            for split, rows in _rows(labels, SHARES_BESIDE_TEST if own_test else SHARES).items()
        }
        if own_test:
            splits["test"] = found["test_pixels"], found["test_labels"]
        for split, (_, own) in splits.items():
            if not len(own):
                raise UsageError(
                    f"image data '{self.data}' leave none for {split}: give 10 or more images of each class"
                )
        if np.ptp(splits["train"][0]) == 0:
            raise UsageError(
                f"image data '{self.data}': every pixel is {pixels.max():g}: give images that vary"
            )
        return splits

    def _check(self, part: str, pixels: NDArray, labels: NDArray) -> None:
        """Raise UsageError for a class or a brightness out of range."""
        if labels.max() >= CLASSES:
            raise UsageError(
                f"image data '{self.data}': {part} has the class {labels.max()}: "
                f"give classes from 0 to {CLASSES - 1}"
            )
        if pixels.min() < 0:
            raise UsageError(
                f"image data '{self.data}': {part} has a pixel of {pixels.min():g}: give brightnesses from 0"
            )


def _digits() -> dict[str, NDArray]:
    """`train_pixels` [images, 64], from 0 to 16, and `train_labels` [images]."""
    from sklearn.datasets import load_digits

    images = load_digits()
    return {"train_pixels": images.data.astype(np.float32), "train_labels": images.target}


def _rows(labels: NDArray, shares: tuple[float, float]) -> dict[Split, NDArray]:
    """The images of each split: the same share of every class."""
    rng = np.random.default_rng(SPLIT_SEED)
    rows: dict[Split, list[NDArray]] = {"train": [], "validation": [], "test": []}
    for label in range(CLASSES):
        members = rng.permutation(np.flatnonzero(labels == label))
        ends = [round(share * len(members)) for share in shares]
        for own, part in zip(rows.values(), np.split(members, ends), strict=True):
            own.append(part)
    return {split: np.concatenate(own) for split, own in rows.items()}
