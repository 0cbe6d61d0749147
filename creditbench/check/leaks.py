"""What a task's sequences give away: stretches that come again in another split, targets among the inputs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from creditbench.task import Sequences, Task

#: Stretches of a split that are looked for, at most and at least, and steps that all of
#: them are compared to: fewer where there is much to compare.
STRETCHES, LEAST, COMPARED = 32, 8, 2_000_000
#: Root mean squared distance, in standard deviations, at which two stretches are one.
SAME = 1e-3
#: The same as a part of the distance to what is independent: the train split of another seed.
NEAR = 0.1
_MIXED = 3  # channels that a stretch's own are mixed to: what is alike stays so, and what is not stays far
_STEPS, _FEATURES = 10_000, 400  # that a ridge is fitted to


def count_for(train: Sequences) -> int:
    """How many stretches are looked for in `train`."""
    return int(np.clip(COMPARED // train.weights.size, LEAST, STRETCHES))


def stretches(part: Sequences, count: int, steps: int, scale: tuple[NDArray, NDArray]) -> NDArray[np.float64]:
    """About `count` stretches [K, L, _MIXED] of `part`, evenly over its rows and steps, of at most `steps`."""
    mixed = _mix(part, scale)
    T, N = mixed.shape[:2]
    length = min(T, steps)
    rows = np.unique(np.linspace(0, N - 1, min(N, count)).astype(int))
    starts = np.unique(np.linspace(0, T - length, max(1, count // len(rows))).astype(int))
    found = np.stack([mixed[start : start + length, row] for row in rows for start in starts])
    return found[found.std(axis=1).max(-1) > SAME]  # where nothing happens, all is alike


def scale_of(part: Sequences) -> tuple[NDArray, NDArray]:
    """Mean and standard deviation [C] of each channel of inputs and targets."""
    both = np.concatenate([part.inputs, part.targets], axis=-1, dtype=np.float64)
    return both.mean((0, 1)), both.std((0, 1))


def _mix(part: Sequences, scale: tuple[NDArray, NDArray]) -> NDArray[np.float64]:
    """Inputs and targets [T, N, C], standardised, mixed to fewer channels."""
    mean, deviation = scale
    kept = deviation > 0
    both = np.concatenate([part.inputs, part.targets], axis=-1)[..., kept]
    mixing = np.random.default_rng(0).normal(size=(int(kept.sum()), _MIXED)) / np.sqrt(max(1, kept.sum()))
    return ((both - mean[kept]) / deviation[kept]) @ mixing


def nearest(
    sought: NDArray[np.float64], part: Sequences, scale: tuple[NDArray, NDArray]
) -> NDArray[np.float64]:
    """Of each stretch [K, L, ·] the root mean squared distance to the nearest one of `part`, at any step of any row."""
    import scipy.fft

    mixed = _mix(part, scale).transpose(1, 2, 0)  # [N, C, T]
    length, T = sought.shape[1], mixed.shape[-1]
    if length > T or not len(sought):
        return np.full(len(sought), np.inf)
    size = scipy.fft.next_fast_len(T + length, real=True)
    squares = np.cumsum(np.pad((mixed**2).sum(1), ((0, 0), (1, 0))), axis=1)
    energy = squares[:, length:] - squares[:, :-length]  # [N, T - L + 1]
    spectrum = scipy.fft.rfft(mixed, size, axis=-1)
    found = np.empty(len(sought))
    for k, stretch in enumerate(sought):
        own = np.conj(scipy.fft.rfft(stretch.T, size, axis=-1))
        product = scipy.fft.irfft((spectrum * own).sum(1), size, axis=-1)[:, : T - length + 1]
        row, start = np.unravel_index(np.argmin(energy - 2 * product), energy.shape)
        # Once more, because the difference of large numbers has lost what is small.
        found[k] = np.sqrt(np.mean((mixed[row, :, start : start + length].T - stretch) ** 2))
    return found


def ridge(task: Task, train: Sequences, test: Sequences, lags: int) -> NDArray[np.float32]:
    """What a ridge regression from the last `lags` inputs, or fewer, says at each step of `test`, fitted to `train`."""
    lags = max(1, min(lags, _FEATURES // train.inputs.shape[-1], len(train.inputs), len(test.inputs)))
    every = np.flatnonzero(np.asarray(train.weights).ravel() > 0)
    chosen = every[np.linspace(0, len(every) - 1, min(len(every), _STEPS)).astype(int)]
    known = _past(train, lags, chosen)
    said = np.asarray(train.targets.reshape(-1, train.targets.shape[-1])[chosen], np.float64)
    scale = np.where((deviation := known.std(0)) > 1e-9, deviation, 1.0)
    gram = (known / scale).T @ (known / scale) + 1e-6 * len(known) * np.eye(known.shape[1])
    weights = np.linalg.solve(gram, (known / scale).T @ said) / scale[:, None]
    found = _past(test, lags, np.arange(test.weights.size)) @ weights
    return found.astype(np.float32).reshape(*test.weights.shape, -1)


def _past(part: Sequences, lags: int, chosen: NDArray[np.intp]) -> NDArray[np.float64]:
    """[S, lags I + 1], of the steps `chosen` of T N: the inputs now and before, 0 before the start, and 1."""
    padded = np.concatenate([np.zeros((lags - 1, *part.inputs.shape[1:])), part.inputs])
    step, row = np.divmod(chosen, part.inputs.shape[1])
    width = part.inputs.shape[-1]
    found = np.ones((len(chosen), lags * width + 1))
    for k in range(lags):
        found[:, k * width : (k + 1) * width] = padded[lags - 1 - k + step, row]
    return found


def best_score(task: Task, outputs: NDArray[np.float32], test: Sequences) -> float:
    """The score of the outputs, or, where it is better, of their logarithms: some metrics take probabilities so."""
    scores = [task.score(outputs, test)]
    if task.loss == "cross_entropy":
        scores.append(task.score(np.log(np.clip(outputs, 1e-4, None)), test))
    return min(scores) if task.metric_direction == "min" else max(scores)


def given(test: Sequences, outputs: NDArray[np.float32]) -> bool:
    """Whether the outputs say exactly, up to rounding, all targets that vary at the scored steps."""
    at = test.weights > 0
    said, target = outputs[at].astype(np.float64), test.targets[at].astype(np.float64)
    varies = target.var(0) > 0
    missed = ((said - target) ** 2).mean(0)[varies]
    return bool(varies.any() and (missed < 1e-6 * target.var(0)[varies]).all())
