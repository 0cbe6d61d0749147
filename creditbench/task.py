"""What is to be learned: a seeded generator or loader of sequences, in NumPy alone."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Split = Literal["train", "validation", "test"]
_SPLITS: tuple[Split, ...] = ("train", "validation", "test")


class Sequences(NamedTuple):
    """N sequences of T steps, time first, float32."""

    inputs: NDArray[np.float32]  #: [T, N, I]
    targets: NDArray[np.float32]  #: [T, N, O]
    weights: NDArray[np.float32]  #: [T, N]; a step of weight 0 is not scored


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """A task. Its fields are its generator's parameters; its class attributes are its metadata.

    A subclass sets the class attributes and writes `generate` and `score`.
    """

    id: ClassVar[str]
    name: ClassVar[str]
    citation: ClassVar[str]
    version: ClassVar[int]  #: goes up whenever the numbers of the task would change
    protocol: ClassVar[Literal["stream", "episodes"]]
    loss: ClassVar[Literal["mse", "cross_entropy"]]
    metric: ClassVar[str]
    metric_direction: ClassVar[Literal["min", "max"]]  #: whether a lower or a higher metric is better
    trivial: ClassVar[float]  #: metric of the best trivial predictor, at default parameters
    solved: ClassVar[float]  #: metric at which the task counts as solved
    budgets: ClassVar[dict[str, int]]  #: preset -> training time steps of one batch row
    batch: ClassVar[int] = 1  #: default number of rows trained together
    alpha: ClassVar[float] = 1.0  #: default leak of the cell, in (0, 1]
    reads_data: ClassVar[bool] = False  #: whether the task takes a user's file in its field `data`

    def generate(self, split: Split, seed: int, batch: int) -> Sequences:
        """The sequences of one split.

        `split`, `seed`: the same pair yields the same bytes; different splits share no data.
        `batch`: how many rows are trained together. A stream's train split has exactly `batch`
        rows; every other split has as many rows as the task finds right.
        """
        raise NotImplementedError

    def score(self, outputs: NDArray[np.float32], sequences: Sequences) -> float:
        """The metric of `outputs` [T, N, O] (the network's raw outputs) on `sequences`."""
        raise NotImplementedError

    def trivial_score(self, sequences: Sequences) -> float:
        """The metric of the best predictor that learns nothing from the order of its inputs."""
        raise NotImplementedError

    def rng(self, split: Split, seed: int) -> np.random.Generator:
        """The generator of a split: streams of different splits and seeds are independent."""
        return np.random.default_rng([seed, _SPLITS.index(split)])

    def normalise(self, metric: float, trivial: float) -> float:
        """Score in [-1, 1.1]: 0 is the trivial predictor, 1 is solved."""
        return float(np.clip((trivial - metric) / (trivial - self.solved), -1.0, 1.1))
