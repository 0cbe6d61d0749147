"""Leaks in a task's sequences: stretches that recur in another split, and targets among the inputs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from creditbench.task import Sequences, Task

#: The most and the fewest stretches of a split that are searched for, and the steps that all of them are
#: compared to: more steps mean fewer stretches.
STRETCHES, LEAST, COMPARED = 32, 8, 2_000_000
#: Root mean squared distance, in standard deviations, up to which two stretches are the same.
SAME = 1e-3
#: The same as a part of the distance to independent data: the train split of another seed.
NEAR = 0.1
_MIXED = 3  # channels that a stretch is mixed to: equal stretches stay equal, others stay apart
_STEPS, _FEATURES = 10_000, 400  # of the fit of a ridge regression


def count_for(train: Sequences) -> int:
    """The number of stretches that are searched for in `train`."""
    return int(np.clip(COMPARED // train.weights.size, LEAST, STRETCHES))


def stretches(part: Sequences, count: int, steps: int, scale: tuple[NDArray, NDArray]) -> NDArray[np.float64]:
    """About `count` even stretches [K, L, _MIXED] of `part`, of at most `steps` steps."""
    mixed = _mix(part, scale)
    T, N = mixed.shape[:2]
    length = min(T, steps)
    rows = np.unique(np.linspace(0, N - 1, min(N, count)).astype(int))
    starts = np.unique(np.linspace(0, T - length, max(1, count // len(rows))).astype(int))
    found = np.stack([mixed[start : start + length, row] for row in rows for start in starts])
    return found[found.std(axis=1).max(-1) > SAME]  # constant stretches are all alike


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
    """The root mean squared distance of each stretch [K, L, ·] to the nearest one anywhere in `part`."""
    # SciPy is slow to import.
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
        # Computed again, since the difference of large numbers is inexact.
        found[k] = np.sqrt(np.mean((mixed[row, :, start : start + length].T - stretch) ** 2))
    return found


def ridge(task: Task, train: Sequences, test: Sequences, lags: int) -> NDArray[np.float32]:
    """Outputs on `test` of a ridge regression from the last `lags` inputs or fewer, fitted to `train`."""
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
    """The better score of the outputs and of their logarithms: some metrics take log probabilities."""
    scores = [task.score(outputs, test)]
    if task.loss == "cross_entropy":
        scores.append(task.score(np.log(np.clip(outputs, 1e-4, None)), test))
    return min(scores) if task.metric_direction == "min" else max(scores)


def given(test: Sequences, outputs: NDArray[np.float32]) -> bool:
    """Whether the outputs equal, up to rounding, all targets that vary at the scored steps."""
    at = test.weights > 0
    said, target = outputs[at].astype(np.float64), test.targets[at].astype(np.float64)
    varies = target.var(0) > 0
    missed = ((said - target) ** 2).mean(0)[varies]
    return bool(varies.any() and (missed < 1e-6 * target.var(0)[varies]).all())
