"""Predict the dry-bulb temperature a day ahead from hourly weather.

A station reports its weather every hour. The answer is the temperature 24 hours later (or 1, or 48).

    inputs  [T, N, I]   the variables of the hour, each scaled to [0, 1] by its least and greatest
                        value in the training hours
    targets [T, N, 1]   the temperature `horizon` hours later, scaled in the same way

With `splits = "weeks"` all seasons are in every split. The series is cut into cycles of equal length, about
6.5 weeks. The last fortnight of each cycle is a validation week and a test week; the hours before are a
stretch of training. No hour, as input or target, is in two splits. The stretches are divided among the
training rows, in the order of time, and each begins from rest. If the budget is longer than a row, the row is
repeated. `batch` has to divide the number of cycles, or to be a multiple of it; then stretches are cut.
Validation and test have one row per week. Its first `warmup` hours are not scored, because a network begins
it from rest. In training every step is scored. Data do not depend on the seed.

`splits = "tail"`, as published, trains on the first hours, validates on half of the rest and tests on the
last hours, with one row each; their seasons differ from the last ones in training. There, a table as long as
the paper's trains on its first 33,600 hours, a shorter one on 80% of its hours, or on `train_hours`.

Without `data`, the series is the embedded year 2013 at New York's JFK airport (8 variables, see
`data/README.md`), of 8 cycles. `data` names a table of hourly rows in the order of time with at least the
columns of `COLUMNS`, such as the paper's file WTH.csv (9 variables; 32 cycles; its Celsius columns repeat
others; in 64 of its hours zeros replace missing values, and are read as they are, as in the paper).

The loss is the mean squared error on the scaled target, the metric the root mean squared error in degrees
Celsius. The trivial predictor is persistence ("as warm as now"; for 24 hours ahead also "as yesterday at that
hour"), or the mean of the training hours if that is better. Persistence scores 3.08 on the embedded data.
Solved is the score of a ridge regression that predicts the change of temperature from the hour and the
`warmup` hours before it. It is fitted to the training stretches and scored on the same steps as the network:
2.84 on the embedded data, and 0.81 one hour ahead, where persistence scores 0.97. With one row a network
forgets winter during summer; 8 rows see all seasons in every update.

`scale_on = "all"` takes the extremes from the whole series, including test hours, as the code published with
the paper does.

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
from creditbench.task import Sequences, Split, Task, mse

EMBEDDED = Path(__file__).parent / "data" / "weather_nyc.csv"
EMBEDDED_COLUMNS = (*("temp", "dewp", "humid", "wind_dir"), *("wind_speed", "precip", "pressure", "visib"))
#: Columns of a user's file, as in the paper. The first one, in Fahrenheit, is the target.
COLUMNS = (
    *("DryBulbFarenheit", "WetBulbFarenheit", "DewPointFarenheit", "RelativeHumidity"),
    *("Visibility", "WindSpeed", "WindDirection", "StationPressure", "Altimeter"),
)
PAPER_HOURS = 35_064
PAPER_TRAIN_HOURS = 33_600
TRAIN_SHARE = 0.8
LEAST_STEPS = 24  # the fewest scored steps of a row: a day
WEEK = 168  # hours
CYCLE = 1092  # hours, 6.5 weeks: the length aimed at for a cycle, with its validation and test week
CHUNK = 4096  # steps whose past is laid out at a time
CELSIUS = 5 / 9  # degrees Celsius in a degree Fahrenheit


class _Series(NamedTuple):
    pieces: dict[Split, NDArray[np.float32]]  # [pieces, hours, I], scaled; the temperature comes first
    degrees: float  # degrees Celsius in one unit of the scaled temperature


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weather(Task):
    """Predict the temperature from hourly weather; see the module's text."""

    horizon: Literal[1, 24, 48] = 24  #: hours
    data: str | None = None  #: a user's table; None for the embedded one
    splits: Literal["weeks", "tail"] = "weeks"  #: how the series is cut
    warmup: int = 48  #: first steps of a validation or test row that are not scored
    train_hours: int | None = None  #: of "tail"; None for the default in the module's text
    scale_on: Literal["train", "all"] = "train"

    id: ClassVar[str] = "weather"
    name: ClassVar[str] = "Hourly weather"
    citation: ClassVar[str] = "Garcia Fernandez et al. (2024), doi:10.3389/fnins.2024.1439155"
    version: ClassVar[int] = 2
    protocol: ClassVar[Literal["stream", "episodes"]] = "stream"
    loss: ClassVar[Literal["mse", "cross_entropy"]] = "mse"
    metric: ClassVar[str] = "rmse_celsius"
    metric_direction: ClassVar[Literal["min", "max"]] = "min"
    trivial: ClassVar[float] = 3.0832
    solved: ClassVar[float] = 2.8424
    budgets: ClassVar[dict[str, int]] = {"smoke": 300, "quick": 10_000, "full": 200_000}
    batch: ClassVar[int] = 8
    reads_data: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if type(self.horizon) is not int or self.horizon not in (1, 24, 48):
            raise UsageError(f"weather.horizon is {self.horizon!r}: set it to 1, 24 or 48 hours")
        if self.scale_on not in ("train", "all"):
            raise UsageError(f"weather.scale_on is {self.scale_on!r}: set it to 'train' or 'all'")
        self.require_one_of("splits", ("weeks", "tail"))
        if self.data is not None and not isinstance(self.data, str):
            raise UsageError(f"weather.data is {self.data!r}: name a file, or hf:OWNER/NAME")
        hours = self.train_hours
        if hours is not None and (type(hours) is not int or hours < 1):
            raise UsageError(f"weather.train_hours is {hours!r}: set it to a whole number from 1")

        if hours is not None and self.splits == "weeks":
            raise UsageError(
                f"weather.train_hours is {hours}, and the weeks leave no choice: set weather.splits to "
                "'tail' too"
            )
        self.require_whole(warmup=0)
        most = WEEK - self.horizon - LEAST_STEPS
        if self.splits == "weeks" and self.warmup > most:
            raise UsageError(
                f"weather.warmup is {self.warmup}: set it to at most {most}, "
                f"which leaves {LEAST_STEPS} scored steps of a week at horizon {self.horizon}"
            )

    def generate(self, split: Split, seed: int, batch: int) -> Sequences:
        """Train: `batch` rows of one or more stretches; validation and test: one row per piece.

        The seed is not used. Raises UsageError if the data cannot be read, are too short, or do not give so
        many rows.
        """
        hours = self._series.pieces[split]
        last, count = hours.shape[1] - self.horizon, len(hours)
        rows = batch if split == "train" else count
        unscored = 0 if split == "train" else self.warmup
        if rows % count and count % rows:
            parts = [k for k in range(1, count + 1) if count % k == 0]
            raise UsageError(
                f"batch is {rows}, and the {count} cycles of weather data '{self._source}' do not go into so "
                f"many rows: give {', '.join(map(str, parts))} or a multiple of {count}, or set "
                "weather.splits to 'tail'"
            )
        # A row is one or more whole pieces, or a piece is cut into rows.
        cuts = max(1, rows // count)
        steps = last // cuts
        if steps - unscored < LEAST_STEPS:
            raise UsageError(
                f"weather data '{self._source}': {hours.shape[1]} hours of {split} make {steps} steps in "
                "each of "
                f"{cuts} rows at horizon {self.horizon}, and at least {LEAST_STEPS + unscored} are needed: "
                "give a longer series" + (" or a smaller batch" if cuts > 1 else "")
            )
        inputs = hours[:, : cuts * steps].reshape(rows, -1, hours.shape[2])
        targets = hours[:, self.horizon :, :1][:, : cuts * steps].reshape(rows, -1, 1)
        weights = np.ones((inputs.shape[1], rows), np.float32)
        weights[:unscored] = 0.0
        return Sequences(inputs.swapaxes(0, 1).copy(), targets.swapaxes(0, 1).copy(), weights)

    def stretches(self, batch: int) -> int:
        """The number of cycles in a training row."""
        return max(1, len(self._series.pieces["train"]) // batch)

    def score(self, outputs: NDArray[np.float32], sequences: Sequences) -> float:
        """Root mean squared error of the scored steps, in degrees Celsius."""
        return float(np.sqrt(mse(outputs, sequences)) * self._series.degrees)

    def trivial_score(self, sequences: Sequences) -> float:
        """The better of "as warm as now" and the mean temperature of the training hours."""
        train = self._series.pieces["train"][..., 0]
        mean = np.full_like(sequences.targets, train.mean(dtype=np.float64))
        now = sequences.inputs[..., :1]
        return min(self.score(now, sequences), self.score(mean, sequences))

    def solved_score(self, sequences: Sequences) -> float | None:
        """The score of the ridge regression on these sequences; None if it is not better than trivial."""
        steps = np.arange(len(sequences.inputs))
        rows = sequences.inputs.swapaxes(0, 1)
        change = np.stack([self._past(row, steps) @ self._ridge for row in rows], axis=1)
        found = (sequences.inputs[..., :1] + change[..., None]).astype(np.float32)
        solved = self.score(found, sequences)
        return solved if self.better(solved, self.trivial_score(sequences)) else None

    def _past(self, hours: NDArray[np.float32], steps: NDArray[np.intp]) -> NDArray[np.float64]:
        """[steps, lags I + 1]: the hour, the two before, every third one of the `warmup` before, and a 1.

        Hours before the first one have its values.
        """
        lags = np.array([k for k in range(self.warmup + 1) if k < 3 or k % 3 == 0])
        known = hours[np.maximum(steps[:, None] - lags, 0)].reshape(len(steps), -1)
        return np.concatenate([known, np.ones((len(steps), 1))], axis=1, dtype=np.float64)

    @functools.cached_property
    def _ridge(self) -> NDArray[np.float64]:
        """Coefficients from the past to the change of temperature, fitted to training with a ridge of 1."""
        size = self._past(self._series.pieces["train"][0], np.arange(1)).shape[1]
        gram, product = np.eye(size), np.zeros(size)
        for hours in self._series.pieces["train"]:
            last = len(hours) - self.horizon
            # A piece no longer than the warm-up has no step with a whole past.
            for start in range(min(self.warmup, last - 1), last, CHUNK):
                steps = np.arange(start, min(start + CHUNK, last))
                known = self._past(hours, steps)
                gram += known.T @ known
                product += known.T @ (hours[steps + self.horizon, 0] - hours[steps, 0])
        return np.linalg.solve(gram, product).astype(np.float64)

    @property
    def _source(self) -> str:
        return self.data or EMBEDDED.name

    @functools.cached_property
    def _series(self) -> _Series:
        """The pieces of each split, scaled."""
        source = EMBEDDED if self.data is None else self.data
        columns = EMBEDDED_COLUMNS if self.data is None else COLUMNS
        table = read_table(source, columns)
        values = np.stack([table[column] for column in columns], axis=1)
        pieces = self._weeks(values) if self.splits == "weeks" else self._tail(values)
        seen = values if self.scale_on == "all" else pieces["train"].reshape(-1, len(columns))
        least, greatest = seen.min(0), seen.max(0)
        for column, low, high in zip(columns, least, greatest, strict=True):
            if low == high:
                raise UsageError(
                    f"weather data '{source}': column {column!r} is {low:g} in all {len(seen)} "
                    "hours that set the scale: give a series in which it varies"
                )
        degrees = float(greatest[0] - least[0]) * CELSIUS
        scaled = {
            split: ((hours - least) / (greatest - least)).astype(np.float32)
            for split, hours in pieces.items()
        }
        return _Series(scaled, degrees)

    def _weeks(self, values: NDArray[np.float64]) -> dict[Split, NDArray[np.float64]]:
        """All but the last two weeks of each cycle for training, a week for validation, a week for test."""
        cycles = max(1, round(len(values) / CYCLE))
        length = len(values) // cycles
        needed = 2 * WEEK + self.horizon + LEAST_STEPS
        if length < needed:
            raise UsageError(
                f"weather data '{self._source}' have {len(values)} hours, and a cycle with its two weeks "
                f"needs {needed} at horizon {self.horizon}: give a longer series, or set weather.splits to "
                "'tail'"
            )
        cut = values[: cycles * length].reshape(cycles, length, -1)
        train, validation, test = np.split(cut, [length - 2 * WEEK, length - WEEK], axis=1)
        return {"train": train, "validation": validation, "test": test}

    def _tail(self, values: NDArray[np.float64]) -> dict[Split, NDArray[np.float64]]:
        """The first hours for training; of the rest, one half for validation and one for test."""
        train = self._train_hours(len(values))
        parts = np.split(values[None], [train, (train + len(values)) // 2], axis=1)
        return dict(zip(("train", "validation", "test"), parts, strict=True))

    def _train_hours(self, hours: int) -> int:
        """The number of training hours of `hours`. Raises UsageError if too few are given or left."""
        if self.train_hours is not None:
            train = self.train_hours
        elif self.data is not None and hours >= PAPER_HOURS:
            train = PAPER_TRAIN_HOURS
        else:
            train = int(TRAIN_SHARE * hours)
        needed = self.horizon + LEAST_STEPS + self.warmup  # in each of the splits
        if train < needed or hours - train < 2 * needed:
            raise UsageError(
                f"weather data '{self._source}' have {hours} hours, of which {train} "
                f"train: horizon {self.horizon} needs {needed} or more in each of train, "
                "validation and test: give a longer series, another train_hours or a smaller warmup"
            )
        return train
