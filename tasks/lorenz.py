"""Predict all three coordinates of a chaotic flow.

    dx/dt = 10 (y - x)      dy/dt = x (28 - z) - y      dz/dt = x y - 8/3 z

is integrated by the Runge-Kutta method of fourth order with steps of 0.025. Every second step is shown. The
answer is the state after each of the `horizons`, in Lyapunov times of 1/0.9056.

    inputs  [T, N, 3]   x/20, y/20, z/25
    targets [T, N, 3H]  the same, after each of H horizons

z is not centred: the equations do not change if x and y change their signs, so an odd network without biases
could not predict a centred z. Every row starts near the attractor at a random place. After 200 steps of
washout the rows are out of step. If the budget is longer than a training row, the row is repeated, from rest.
Validation and test are 5 shorter rows each, whose first 50 steps are not scored.

The metric is the root mean squared error over the standard deviation of the target, as a root mean square
over coordinates and horizons. `valid_time` is the longest horizon, in Lyapunov times, at which the error is
still below 0.4. At the horizons 0.25, 0.5 and 1 the best constant scores 1, and persistence is worse. The
best linear predictor from the last 20 steps scores 0.83. Solved is three tenths of that, 0.25.

Source: Lorenz (1963), Deterministic nonperiodic flow, Journal of the Atmospheric Sciences 20:130-141,
doi:10.1175/1520-0469(1963)020<0130:DNF>2.0.CO;2; valid time: Vlachas et al. (2020), Backpropagation
algorithms and reservoir computing in recurrent neural networks for the forecasting of complex
spatiotemporal dynamics, Neural Networks 126:191-217, doi:10.1016/j.neunet.2020.02.016.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from creditbench.errors import UsageError
from creditbench.task import Sequences, Split, Task, linear_score, nrmse

EVALUATION_ROWS = 5
LYAPUNOV_EXPONENT = 0.9056
STEP, SUBSTEPS = 0.025, 2
SCALE = np.array([20.0, 20.0, 25.0])
VALID = 0.4  # error below which a prediction counts as valid


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lorenz(Task):
    """Predict the Lorenz system; see the module's text."""

    horizons: tuple[float, ...] = (0.25, 0.5, 1.0)  #: Lyapunov times
    steps: int = 2500  #: length of a training row, and of all rows of another split together
    warmup: int = 50  #: first steps of a validation or test row that are not scored
    washout: int = 200  #: steps thrown away at the start of every row

    id: ClassVar[str] = "lorenz"
    name: ClassVar[str] = "Lorenz system"
    citation: ClassVar[str] = "Lorenz (1963), doi:10.1175/1520-0469(1963)020<0130:DNF>2.0.CO;2"
    version: ClassVar[int] = 2
    protocol: ClassVar[Literal["stream", "episodes"]] = "stream"
    loss: ClassVar[Literal["mse", "cross_entropy"]] = "mse"
    metric: ClassVar[str] = "nrmse"
    metric_direction: ClassVar[Literal["min", "max"]] = "min"
    trivial: ClassVar[float] = 1.0
    solved: ClassVar[float] = 0.24924
    budgets: ClassVar[dict[str, int]] = {"smoke": 400, "quick": 40_000, "full": 2_000_000}
    batch: ClassVar[int] = 8

    def __post_init__(self) -> None:
        self.require_whole(steps=EVALUATION_ROWS, warmup=0, washout=0)
        self.require_whole(steps=EVALUATION_ROWS * (self.warmup + 2))
        # A file of settings may give a list, but a field of a frozen class must be hashable.
        object.__setattr__(self, "horizons", tuple(self.horizons))
        if not self.horizons or not all(
            isinstance(h, int | float) and not isinstance(h, bool) and 0.05 <= h <= 100 for h in self.horizons
        ):
            raise UsageError(
                f"lorenz.horizons is {self.horizons!r}: set it to numbers from 0.05 to 100 Lyapunov times"
            )

    def generate(self, split: Split, seed: int, batch: int) -> Sequences:
        """Train: `batch` rows of `steps`; validation and test: 5 rows of a fifth as many."""
        rows = batch if split == "train" else EVALUATION_ROWS
        steps = self.steps if split == "train" else self.steps // EVALUATION_ROWS
        ahead = [round(h / LYAPUNOV_EXPONENT / (STEP * SUBSTEPS)) for h in self.horizons]
        start = self.rng(split, seed).uniform(-1, 1, (rows, 3)).T * 10 + np.array([[0.0], [0.0], [25.0]])
        flow = _flow(start, self.washout + steps + max(ahead))[self.washout :]  # [steps, 3, N]
        series = np.ascontiguousarray(flow.swapaxes(1, 2) / SCALE, np.float32)
        targets = np.concatenate([series[k : k + steps] for k in ahead], axis=-1)
        weights = np.ones((steps, rows), np.float32)
        if split != "train":
            weights[: self.warmup] = 0.0
        return Sequences(series[:steps].copy(), targets, weights)

    def score(self, outputs: NDArray[np.float32], sequences: Sequences) -> float:
        """Root mean squared error over the standard deviation, over all coordinates and horizons."""
        return nrmse(outputs, sequences)

    def valid_time(self, outputs: NDArray[np.float32], sequences: Sequences) -> float:
        """The longest horizon, in Lyapunov times, up to which the error stays below 0.4; 0 if none."""
        valid = 0.0
        for k, horizon in sorted(enumerate(self.horizons), key=lambda pair: pair[1]):
            three = slice(3 * k, 3 * k + 3)
            part = sequences._replace(targets=sequences.targets[..., three])
            if not nrmse(outputs[..., three], part) < VALID:
                break
            valid = horizon
        return valid

    def trivial_score(self, sequences: Sequences) -> float:
        """The better of the best constant and of "no change"."""
        scored = sequences.weights > 0
        mean = np.broadcast_to(sequences.targets[scored].mean(0, dtype=np.float64), sequences.targets.shape)
        unchanged = np.tile(sequences.inputs, len(self.horizons))
        return min(nrmse(mean, sequences), nrmse(unchanged, sequences))

    def solved_score(self, sequences: Sequences) -> float | None:
        """Three tenths of the score of the best linear predictor from the last 20 steps, on fixed data."""
        solved = 0.3 * linear_score(dataclasses.replace(self, steps=2500, warmup=0), 20)
        return solved if self.better(solved, self.trivial_score(sequences)) else None


def _flow(state: NDArray[np.float64], steps: int) -> NDArray[np.float64]:
    """`steps` states [steps, 3, N] from `state` [3, N] on.

    Chaos magnifies every rounding error. So there are only sums and products here: they are rounded exactly,
    and give the same bytes on every processor.
    """
    states = np.empty((steps, *state.shape))
    for out in states:
        for _ in range(SUBSTEPS):
            k1 = _velocity(state)
            k2 = _velocity(state + (STEP / 2) * k1)
            k3 = _velocity(state + (STEP / 2) * k2)
            k4 = _velocity(state + STEP * k3)
            state = state + (STEP / 6) * (k1 + 2 * (k2 + k3) + k4)
        out[:] = state
    return states


def _velocity(state: NDArray[np.float64]) -> NDArray[np.float64]:
    x, y, z = state
    velocity = np.empty_like(state)
    velocity[0] = 10 * (y - x)
    velocity[1] = x * (28 - z) - y
    velocity[2] = x * y - (8 / 3) * z
    return velocity
