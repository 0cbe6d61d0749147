"""Predict a chaotic series 15 steps ahead.

The Mackey-Glass equation with delay tau = 17, for which the series is chaotic,

    dx/dt = beta x(t - tau) / (1 + x(t - tau)^n) - gamma x(t)

is integrated by Euler's method with 10 sub-steps of 0.1 per time step, from x = 1.2 and the history
1.2 + 0.2 (U - 0.5), U uniform in [0, 1). After 2,000 time steps of washout the series is
y_t = tanh(x(t) - 1), less its long-run mean at the default parameters. Each row is a series with its own
history. Rows with such histories need the long washout to get out of step with each other. If the budget is
longer than a training row, the row is repeated, from rest.

    inputs  [T, N, 1]   y_t
    targets [T, N, 1]   y_{t+15} (direction "predict") or y_{t-15} (direction "recall")

Validation and test are 5 shorter series each, whose first 50 steps are not scored, because a network begins
them with an empty memory.

The metric is the root mean squared error over the standard deviation of the target, so that the best constant
scores 1. "No change" scores 1.6; the best linear predictor from the last 40 steps scores 0.47. Solved is a
fifth of that, 0.094, which leaves a hundredth of the variance. It is well below any linear memory, and within
reach of 128 units trained by backpropagation through time for 200,000 steps. For "recall" it is a fifth of
the score of the best linear predictor from the steps after the target. It is never less than a twentieth of
the trivial score.

The code published with Garcia Fernandez et al. (2024) computes the direction "recall". It needs only memory.

Source: Mackey and Glass (1977), Oscillation and chaos in physiological control systems, Science
197:287-289, doi:10.1126/science.267326; as used by Garcia Fernandez, Keemink and van Gerven
(2024), Gradient-free training of recurrent neural networks using random perturbations, Frontiers
in Neuroscience 18:1439155, doi:10.3389/fnins.2024.1439155.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from creditbench.errors import UsageError
from creditbench.task import Sequences, Split, Task, linear_score, nrmse

MEAN = -0.0656  # long-run mean of tanh(x - 1) at the default parameters
EVALUATION_ROWS = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class MackeyGlass(Task):
    """Predict, or recall, the Mackey-Glass series; see the module's text."""

    direction: Literal["predict", "recall"] = "predict"
    horizon: int = 15  #: distance of the target, time steps
    steps: int = 5000  #: length of a training series, and of all series of another split together
    warmup: int = 50  #: first steps of a validation or test series that are not scored
    washout: int = 2000  #: time steps thrown away at the start of every series
    tau: int = 17  #: delay, time steps
    beta: float = 0.2
    gamma: float = 0.1
    n: int = 10  #: exponent
    substeps: int = 10  #: Euler steps per time step

    id: ClassVar[str] = "mackey_glass"
    name: ClassVar[str] = "Mackey-Glass series"
    citation: ClassVar[str] = "Mackey & Glass (1977), doi:10.1126/science.267326"
    version: ClassVar[int] = 2
    protocol: ClassVar[Literal["stream", "episodes"]] = "stream"
    loss: ClassVar[Literal["mse", "cross_entropy"]] = "mse"
    metric: ClassVar[str] = "nrmse"
    metric_direction: ClassVar[Literal["min", "max"]] = "min"
    trivial: ClassVar[float] = 1.0
    solved: ClassVar[float] = 0.093785
    budgets: ClassVar[dict[str, int]] = {"smoke": 300, "quick": 10_000, "full": 200_000}
    batch: ClassVar[int] = 1

    def __post_init__(self) -> None:
        self.require_one_of("direction", ("predict", "recall"))
        self.require_whole(horizon=1, steps=1, warmup=0, washout=0, tau=1, n=1, substeps=1)
        if self.steps // EVALUATION_ROWS <= self.warmup:
            raise UsageError(
                f"mackey_glass.steps is {self.steps!r}: set it to more than "
                f"{EVALUATION_ROWS} times the warmup, or set a warmup below {self.warmup}"
            )
        for field in ("beta", "gamma"):
            value = getattr(self, field)
            if not isinstance(value, int | float) or not 0 < value < self.substeps:
                raise UsageError(
                    f"mackey_glass.{field} is {value!r}: "
                    f"set it to a number above 0 and below the {self.substeps} substeps"
                )

    def generate(self, split: Split, seed: int, batch: int) -> Sequences:
        """Train: `batch` rows of `steps`; validation and test: 5 rows of a fifth as many."""
        rows = batch if split == "train" else EVALUATION_ROWS
        steps = self.steps if split == "train" else self.steps // EVALUATION_ROWS
        series = self._series(self.rng(split, seed), steps + self.horizon, rows)
        early, late = series[:steps, :, None], series[self.horizon :, :, None]
        inputs, targets = (early, late) if self.direction == "predict" else (late, early)
        weights = np.ones((steps, rows), np.float32)
        if split != "train":
            weights[: self.warmup] = 0.0
        return Sequences(inputs.copy(), targets.copy(), weights)

    def score(self, outputs: NDArray[np.float32], sequences: Sequences) -> float:
        """Root mean squared error over the standard deviation of the target, on scored steps."""
        return nrmse(outputs, sequences)

    def trivial_score(self, sequences: Sequences) -> float:
        """The better of the best constant and of "no change"."""
        scored = sequences.weights > 0
        mean = np.full_like(sequences.targets, sequences.targets[scored].mean())
        return min(self.score(mean, sequences), self.score(sequences.inputs, sequences))

    def solved_score(self, sequences: Sequences) -> float | None:
        """A fifth of the best linear predictor's score, on fixed data; None for a constant series."""
        lags = 40 if self.direction == "predict" else self.horizon
        trivial = self.trivial_score(sequences)
        solved = max(0.2 * linear_score(dataclasses.replace(self, steps=5000, warmup=0), lags), trivial / 20)
        return solved if self.better(solved, trivial) else None

    def _series(self, rng: np.random.Generator, steps: int, rows: int) -> NDArray[np.float32]:
        """`rows` independent series, [steps, rows].

        Chaos magnifies every rounding error, so only exactly rounded operations come before tanh: a library's
        power function would give another series on another processor.
        """
        delay = self.tau * self.substeps
        total = (self.washout + steps) * self.substeps
        x = np.empty((delay + 1 + total, rows))
        x[:delay] = 1.2 + 0.2 * (rng.random((rows, delay)).T - 0.5)
        x[delay] = 1.2
        # Within one delay the drive is known in advance, and Euler's x' = decay x + drive is a sum:
        # x_k = decay^k (x_0 + sum_j drive_j / decay^(j+1)). The bound keeps decay^-k below e^5.
        block = max(1, min(delay, int(5 * self.substeps / self.gamma)))
        decay = np.cumprod(np.full((block, 1), 1 - self.gamma / self.substeps), axis=0)
        for start in range(0, total, block):
            delayed = x[start : min(start + block, total)]
            k = len(delayed)
            drive = self.beta / self.substeps * delayed / (1 + _power(delayed, self.n))
            now = x[delay + start]
            x[delay + start + 1 :][:k] = decay[:k] * (now + np.cumsum(drive / decay[:k], axis=0))
        sampled = x[delay + self.substeps :: self.substeps][self.washout :]
        return (np.tanh(sampled - 1) - MEAN).astype(np.float32)


def _power(base: NDArray[np.float64], exponent: int) -> NDArray[np.float64]:
    """`base` to a whole power of at least 1, by products alone."""
    result = np.ones_like(base)
    while exponent:
        if exponent & 1:
            result = result * base
        base, exponent = base * base, exponent >> 1
    return result
