"""Predict the dry-bulb temperature a day ahead from hourly weather.

Every hour a station reports its weather; the temperature 24 hours later (or 1, or 48) is asked
for.

    inputs  [T, N, I]   the variables of the hour, each scaled to [0, 1] by its least and greatest
                        value in the training hours
    targets [T, N, 1]   the temperature `horizon` hours later, scaled alike

The series is cut, in the order of time, into train, validation and test, and no input or target is
in two of them. The training rows are contiguous stretches of equal length. Data do not depend on
the seed.

Without `data`, the series is the embedded year 2013 at New York's JFK airport (8 variables, see
`data/README.md`): 80% of its hours train, 10% validate, 10% test. `data` names a table of hourly
rows in the order of time with at least the columns of `COLUMNS`, such as the paper's file WTH.csv
(9 variables; its Celsius columns repeat others; in 64 of its hours zeros stand for values that are
missing, and are read as they are, as in the paper). A table as long as the paper's trains on its
first 33,600 hours, a shorter one on 80% of its hours; half of the rest validates, half tests.

The loss is the mean squared error on the scaled target, the metric the root mean squared error in
degrees Celsius. The trivial predictor is persistence ("as warm as now"; 24 hours ahead that is
also "as yesterday at that hour"), or the mean of the training hours where that is better.
Persistence is 4.59 on the embedded data. Solved is 4.15, what ridge regression on the last 72
hours reaches there. An hour ahead persistence can hardly be beaten; that is why a day is the
default. With 8 rows every update sees all seasons; with 1 row a network forgets winter over
summer, and its error ends above 10 degrees.

`scale_on = "all"` takes the extremes from the whole series, test hours included, as the code
published with the paper does.

Source: Garcia Fernandez, Keemink and van Gerven (2024), Gradient-free training of recurrent neural
networks using random perturbations, Frontiers in Neuroscience 18:1439155,
doi:10.3389/fnins.2024.1439155; data of the paper: Zhou et al. (2021), Informer, arXiv:2012.07436.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from creditbench.data import read_table
from creditbench.errors import UsageError
from creditbench.task import Sequences, Split, Task

EMBEDDED = Path(__file__).parent / "data" / "weather_nyc.csv"
EMBEDDED_COLUMNS = (
    *("temp", "dewp", "humid", "wind_dir"),
    *("wind_speed", "precip", "pressure", "visib"),
)
#: Columns of a user's file: those of the paper's. The first one, in Fahrenheit, is the target.
COLUMNS = (
    *("DryBulbFarenheit", "WetBulbFarenheit", "DewPointFarenheit", "RelativeHumidity"),
    *("Visibility", "WindSpeed", "WindDirection", "StationPressure", "Altimeter"),
)
PAPER_HOURS = 35_064
PAPER_TRAIN_HOURS = 33_600
TRAIN_SHARE = 0.8
LEAST_STEPS = 24  # of any row: less than a day is no series
CELSIUS = 5 / 9  # degrees Celsius in a degree Fahrenheit


class _Series(NamedTuple):
    scaled: NDArray[np.float32]  # [hours, I]; the temperature comes first
    degrees: float  # degrees Celsius in one unit of the scaled temperature
    train_hours: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weather(Task):
    """Predict the temperature from hourly weather; see the module's text."""

    horizon: Literal[1, 24, 48] = 24  #: hours
    data: str | None = None  #: a table of the user's; None for the embedded one
    train_hours: int | None = None  #: None for what the module's text says
    scale_on: Literal["train", "all"] = "train"

    id: ClassVar[str] = "weather"
    name: ClassVar[str] = "Hourly weather"
    citation: ClassVar[str] = "Garcia Fernandez et al. (2024), doi:10.3389/fnins.2024.1439155"
    version: ClassVar[int] = 1
    protocol: ClassVar[Literal["stream", "episodes"]] = "stream"
    loss: ClassVar[Literal["mse", "cross_entropy"]] = "mse"
    metric: ClassVar[str] = "rmse_celsius"
    metric_direction: ClassVar[Literal["min", "max"]] = "min"
    trivial: ClassVar[float] = 4.5897
    solved: ClassVar[float] = 4.15
    budgets: ClassVar[dict[str, int]] = {"smoke": 300, "quick": 10_000, "full": 200_000}
    batch: ClassVar[int] = 8
    reads_data: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if type(self.horizon) is not int or self.horizon not in (1, 24, 48):
            raise UsageError(f"weather.horizon is {self.horizon!r}: set it to 1, 24 or 48 hours")
        if self.scale_on not in ("train", "all"):
            raise UsageError(f"weather.scale_on is {self.scale_on!r}: set it to 'train' or 'all'")
        if self.data is not None and not isinstance(self.data, str):
            raise UsageError(f"weather.data is {self.data!r}: name a file, or hf:OWNER/NAME")
        hours = self.train_hours
        if hours is not None and (type(hours) is not int or hours < 1):
            raise UsageError(f"weather.train_hours is {hours!r}: set it to a whole number from 1")

    def generate(self, split: Split, seed: int, batch: int) -> Sequences:
        """Train: `batch` contiguous stretches; validation and test: one stretch. No seed matters.

        Raises UsageError where the data cannot be read or are too short.
        """
        scaled, _, train = self._series
        middle = (train + len(scaled)) // 2
        bounds = {"train": (0, train), "validation": (train, middle), "test": (middle, None)}
        hours = scaled[slice(*bounds[split])]
        rows = batch if split == "train" else 1
        steps = (len(hours) - self.horizon) // rows
        if steps < LEAST_STEPS:
            raise UsageError(
                f"weather data '{self.data or EMBEDDED.name}': {len(hours)} hours of {split} make "
                f"{steps} steps in each of {rows} rows at horizon {self.horizon}, and at least "
                f"{LEAST_STEPS} are needed: give a longer series or a smaller batch"
            )
        # [rows * steps, ...] -> [steps, rows, ...]: a row is a stretch of its own.
        inputs = hours[: rows * steps].reshape(rows, steps, -1)
        targets = hours[self.horizon :, :1][: rows * steps].reshape(rows, steps, 1)
        return Sequences(
            inputs.swapaxes(0, 1).copy(),
            targets.swapaxes(0, 1).copy(),
            np.ones((steps, rows), np.float32),
        )

    def score(self, outputs: NDArray[np.float32], sequences: Sequences) -> float:
        """Root mean squared error, degrees Celsius."""
        error = outputs.astype(np.float64) - sequences.targets
        return float(np.sqrt(np.mean(error**2)) * self._series.degrees)

    def trivial_score(self, sequences: Sequences) -> float:
        """The better of "as warm as now" and the mean temperature of the training hours."""
        train = self._series.scaled[: self._series.train_hours, 0]
        mean = np.full_like(sequences.targets, train.mean(dtype=np.float64))
        now = sequences.inputs[..., :1]
        return min(self.score(now, sequences), self.score(mean, sequences))

    @functools.cached_property
    def _series(self) -> _Series:
        """The whole series, scaled."""
        source = EMBEDDED if self.data is None else self.data
        columns = EMBEDDED_COLUMNS if self.data is None else COLUMNS
        table = read_table(source, columns)
        values = np.stack([table[column] for column in columns], axis=1)
        train = self._train_hours(len(values))
        seen = values if self.scale_on == "all" else values[:train]
        least, greatest = seen.min(0), seen.max(0)
        for column, low, high in zip(columns, least, greatest, strict=True):
            if low == high:
                raise UsageError(
                    f"weather data '{source}': column {column!r} is {low:g} in all {len(seen)} "
                    "hours that set the scale: give a series in which it varies"
                )
        scaled = (values - least) / (greatest - least)
        degrees = float(greatest[0] - least[0]) * CELSIUS
        return _Series(scaled.astype(np.float32), degrees, train)

    def _train_hours(self, hours: int) -> int:
        """How many of `hours` train; raises UsageError where too few are left, or too few given."""
        if self.train_hours is not None:
            train = self.train_hours
        elif self.data is not None and hours >= PAPER_HOURS:
            train = PAPER_TRAIN_HOURS
        else:
            train = int(TRAIN_SHARE * hours)
        needed = self.horizon + LEAST_STEPS  # in each of the splits
        if train < needed or hours - train < 2 * needed:
            raise UsageError(
                f"weather data '{self.data or EMBEDDED.name}' have {hours} hours, of which {train} "
                f"train: horizon {self.horizon} needs {needed} or more in each of train, "
                "validation and test: give a longer series or another train_hours"
            )
        return train
