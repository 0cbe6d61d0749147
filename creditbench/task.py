"""Tasks: a seeded generator or loader of sequences, in NumPy alone.

The examples of these names go on from this one:

>>> import numpy as np
>>> import creditbench as cb
>>> task = cb.make_task("adding", length=20)
>>> data = task.generate("test", seed=0, batch=4)
"""

from __future__ import annotations

import dataclasses
import functools
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from creditbench.errors import UsageError

Split = Literal["train", "validation", "test"]
_SPLITS: tuple[Split, ...] = ("train", "validation", "test")
_SCORED = 1 << 18  # the number of steps, over all rows, that a metric scores at once


class Sequences(NamedTuple):
    """N sequences of T steps, time first, float32.

    >>> data.inputs.shape == (20, len(data.weights[0]), 2), data.inputs.dtype
    (True, dtype('float32'))
    """

    inputs: NDArray[np.float32]  #: [T, N, I]
    targets: NDArray[np.float32]  #: [T, N, O]
    weights: NDArray[np.float32]  #: [T, N]; a step of weight 0 is not scored


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """A task. Its fields are its generator's parameters; its class attributes are its metadata.

    A subclass sets the class attributes and writes `generate` and `score`.

    >>> task.protocol, task.metric, task.better(0.1, 0.2)
    ('episodes', 'mse', True)
    >>> task.normalise(task.trivial_score(data), task.trivial_score(data), task.solved)
    0.0
    """

    id: ClassVar[str]
    name: ClassVar[str]
    citation: ClassVar[str]
    version: ClassVar[int]  #: goes up with every change of the task's numbers
    protocol: ClassVar[Literal["stream", "episodes"]]
    loss: ClassVar[Literal["mse", "cross_entropy"]]
    metric: ClassVar[str]
    metric_direction: ClassVar[Literal["min", "max"]]  #: whether a lower or a higher metric is better
    trivial: ClassVar[float]  #: metric of the best trivial predictor, at default parameters
    solved: ClassVar[float]  #: metric of a solved task, at default parameters and on default data
    budgets: ClassVar[dict[str, int]]  #: preset -> training time steps of one batch row
    batch: ClassVar[int] = 1  #: default number of rows trained together
    alpha: ClassVar[float] = 1.0  #: default leak of the cell, in (0, 1]
    reads_data: ClassVar[bool] = False  #: whether the task takes a user's file in its field `data`

    def generate(self, split: Split, seed: int, batch: int) -> Sequences:
        """The sequences of one split.

        `split`, `seed`: the same pair gives the same bytes. Different splits share no data.
        `batch`: the number of rows trained together. A stream's train split has exactly `batch` rows. The
        task chooses the number of rows of every other split.
        """
        raise NotImplementedError

    def score(self, outputs: NDArray[np.float32], sequences: Sequences) -> float:
        """The metric of the network's raw outputs [T, N, O] on `sequences`."""
        raise NotImplementedError

    def trivial_score(self, sequences: Sequences) -> float:
        """The metric of the best predictor that learns nothing from the order of its inputs."""
        raise NotImplementedError

    def solved_score(self, sequences: Sequences) -> float | None:
        """The metric of a solved task on `sequences`, with these parameters and these data.

        None where it is not known; then there is no normalised score. This method knows it at default
        parameters alone. A task that can compute it for others overrides it.
        """
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        return self.solved if vars(self).items() >= defaults.items() else None

    def stretches(self, batch: int) -> int:
        """The number of stretches of equal length, end to end, in a stream's training row.

        The network starts each stretch from rest. After the last stretch the first comes again.
        """
        return 1

    def sizes(self) -> tuple[int, int, int, int]:
        """T, N, I, O of the train split, at the task's own batch."""
        train = self.generate("train", 0, self.batch)
        return (*train.inputs.shape, train.targets.shape[-1])

    def rng(self, split: Split, seed: int) -> np.random.Generator:
        """The random generator of a split. Different splits and seeds have independent streams."""
        return np.random.default_rng([seed, _SPLITS.index(split)])

    def better(self, a: float, b: float) -> bool:
        """Whether the metric `a` is better than the metric `b`."""
        return a < b if self.metric_direction == "min" else a > b

    def normalise(self, metric: float, trivial: float, solved: float | None) -> float | None:
        """The normalised score, unbounded: 0 is the trivial predictor, 1 is solved.

        None where `solved` is not known or is no better than `trivial`.
        """
        if solved is None or not self.better(solved, trivial):
            return None
        return (trivial - metric) / (trivial - solved)

    def require_whole(self, **least: int) -> None:
        """Raise `UsageError` unless each named field is a whole number and at least the number given."""
        for field, low in least.items():
            value = getattr(self, field)
            if type(value) is not int or value < low:
                raise UsageError(f"{self.id}.{field} is {value!r}: set it to a whole number from {low}")

    def require_number(self, field: str, above: float, to: float) -> None:
        """Raise `UsageError` unless the field is a number above `above` and at most `to`."""
        value = getattr(self, field)
        if isinstance(value, bool) or not isinstance(value, int | float) or not above < value <= to:
            raise UsageError(
                f"{self.id}.{field} is {value!r}: set it to a number above {above:g} and at most {to:g}"
            )

    def require_one_of(self, field: str, allowed: tuple[object, ...]) -> None:
        """Raise `UsageError` unless the field equals an allowed value and has its type."""
        value = getattr(self, field)
        if not any(value == one and type(value) is type(one) for one in allowed):
            raise UsageError(f"{self.id}.{field} is {value!r}: set it to {' or '.join(map(repr, allowed))}")


# -- metrics on the scored steps alone; NaN where an output there is not finite ----------------------------


def accuracy(outputs: NDArray[np.float32], sequences: Sequences) -> float:
    """The fraction of scored steps at which the largest output is the largest target.

    >>> sure = Sequences(*(np.ones((1, 4, 1), np.float32),) * 2, np.ones((1, 4), np.float32))
    >>> accuracy(sure.targets, sure)
    1.0
    """
    found, target = _scored(outputs, sequences)
    if not np.isfinite(found).all():
        return float("nan")
    return float((found.argmax(-1) == target.argmax(-1)).mean())


def mse(outputs: NDArray[np.float32], sequences: Sequences) -> float:
    """The mean squared error.

    >>> mse(data.targets, data), round(mse(data.targets + 0.5, data), 6)
    (0.0, 0.25)
    """
    found, target = _scored(outputs, sequences)
    return float(np.mean((found - target) ** 2))


def nrmse(outputs: NDArray[np.float32], sequences: Sequences) -> float:
    """Root mean squared error over the standard deviation of the target.

    For several outputs: the root mean square over the outputs.

    >>> nrmse(np.full_like(data.targets, data.targets[-1].mean()), data).__round__(3)   # their mean
    1.0
    """
    found, target = _scored(outputs, sequences)
    return float(np.sqrt(np.mean(np.mean((found - target) ** 2, axis=0) / np.var(target, axis=0))))


def cross_entropy(outputs: NDArray[np.float32], sequences: Sequences) -> float:
    """The cross-entropy between the targets, as probabilities, and the softmax of the outputs, in nats.

    >>> fair = Sequences(data.inputs, np.eye(2, dtype=np.float32)[np.zeros((20, 4), int)], np.ones((20, 4)))
    >>> round(cross_entropy(np.zeros((20, 4, 2), np.float32), fair), 4)         # ln 2
    0.6931
    """
    terms = []
    # One part at a time: a long text is large in float64.
    steps = max(1, _SCORED // outputs.shape[1])
    for start in range(0, len(outputs), steps):
        part = slice(start, start + steps)
        found, target = _scored(outputs[part], Sequences(*(array[part] for array in sequences)))
        shifted = found - found.max(-1, keepdims=True)
        log_probabilities = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
        terms.append((target * log_probabilities).sum(-1))
    return float(-np.concatenate(terms).mean())


# -- scores of predictors without a network, for `Task.solved_score` ---------------------------------------


@functools.lru_cache(maxsize=256)
def linear_score(task: Task, lags: int) -> float:
    """The score of the best linear filter of a stream's last `lags` inputs.

    The filter is fitted by least squares to 4 rows of the train split of seed 0. It is scored on 4 rows of
    seed 1, without their first `lags` steps. So the score depends on the task's parameters alone. Pass a
    task with rows of a fixed length, so that the score does not depend on the length.

    >>> stream = cb.make_task("narma10")
    >>> linear_score(stream, lags=10) < linear_score(stream, lags=1)            # a lower nrmse is better
    True
    """
    fit, test = (task.generate("train", seed, 4) for seed in (0, 1))
    known = _past(fit.inputs, lags)[lags:]
    known = known.reshape(-1, known.shape[-1])
    said = fit.targets[lags:].astype(np.float64).reshape(len(known), -1)
    # The ridge is too small to matter. It keeps the matrix invertible if inputs depend on each other.
    gram = known.T @ known + 1e-6 * np.eye(known.shape[1])
    test.weights[:lags] = 0.0
    return task.score(_past(test.inputs, lags) @ np.linalg.solve(gram, known.T @ said), test)


def _past(inputs: NDArray[np.float32], lags: int) -> NDArray[np.float64]:
    """[T, N, lags I + 1]: the last `lags` inputs, 0 before the start, and a 1."""
    padded = np.concatenate([np.zeros((lags - 1, *inputs.shape[1:])), inputs])
    shifted = [padded[lags - 1 - k :][: len(inputs)] for k in range(lags)]
    return np.concatenate([*shifted, np.ones((*inputs.shape[:2], 1))], axis=-1)


def _scored(
    outputs: NDArray[np.float32], sequences: Sequences
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Outputs and targets of the scored steps, [steps, O]."""
    at = sequences.weights > 0
    return outputs[at].astype(np.float64), sequences.targets[at].astype(np.float64)
