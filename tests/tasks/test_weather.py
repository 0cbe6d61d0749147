"""What holds for `weather`."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from creditbench.errors import UsageError
from creditbench.task import Task

SPLITS = ("train", "validation", "test")
EMBEDDED = Path(__file__).parents[2] / "tasks" / "data" / "weather_nyc.csv"
NAMES = (
    *("DryBulbFarenheit", "WetBulbFarenheit", "DewPointFarenheit", "RelativeHumidity"),
    *("Visibility", "WindSpeed", "WindDirection", "StationPressure", "Altimeter"),
)


@pytest.fixture
def weather(tasks: dict[str, type[Task]]) -> type[Task]:
    return tasks["weather"]


def table(hours: int = 1000) -> pd.DataFrame:
    """A table with the paper's columns."""
    rng = np.random.default_rng(0)
    columns = {name: rng.integers(0, 100, hours).astype(float) for name in NAMES}
    return pd.DataFrame({"date": np.arange(hours).astype(str), **columns})


@pytest.fixture
def write(tmp_path: Path):
    """Write a table to a csv file and return its path."""

    def write(frame: pd.DataFrame, name: str = "weather.csv") -> str:
        frame.to_csv(tmp_path / name, index=False)
        return str(tmp_path / name)

    return write


def in_celsius(fahrenheit: np.ndarray) -> np.ndarray:
    return (fahrenheit - 32) * 5 / 9


def test_the_embedded_series_is_hourly_without_gaps() -> None:
    frame = pd.read_csv(EMBEDDED)
    hours = pd.to_datetime(frame["hour_utc"])
    assert len(frame) == 8730 and (hours.diff().dropna() == pd.Timedelta("1h")).all()
    assert not frame.isna().any(axis=None)
    digest = hashlib.sha256(EMBEDDED.read_bytes()).hexdigest()
    assert digest in (EMBEDDED.parent / "README.md").read_text()


def scaled_temperature(train: np.ndarray) -> np.ndarray:
    """The embedded temperature, scaled by its extremes in the hours of `train`."""
    temperature = pd.read_csv(EMBEDDED)["temp"].to_numpy()
    low, high = temperature[train].min(), temperature[train].max()
    return (temperature - low) / (high - low)


def weeks(cycles: int, length: int) -> dict[str, np.ndarray]:
    """The hours of each split, [cycles, hours], when the last fortnight of each cycle is not for training."""
    hours = np.arange(cycles * length).reshape(cycles, length)
    return dict(zip(SPLITS, np.split(hours, [length - 336, length - 168], axis=1), strict=True))


@pytest.mark.parametrize("horizon", [1, 24, 48])
def test_the_pieces_of_the_cycles_share_no_hour(weather: type[Task], horizon: int) -> None:
    """Every hour of the file is in one split at most, as an input, a target or both."""
    hours = weeks(8, 1091)
    scaled = scaled_temperature(hours["train"])
    for split in SPLITS:
        inputs, targets, weights = weather(horizon=horizon).generate(split, 0, 8)
        assert inputs.shape == (hours[split].shape[1] - horizon, 8, 8)
        for row, span in enumerate(hours[split]):
            np.testing.assert_allclose(inputs[:, row, 0], scaled[span[:-horizon]], atol=1e-6)
            np.testing.assert_allclose(targets[:, row, 0], scaled[span[horizon:]], atol=1e-6)
        unscored = 0 if split == "train" else 48
        assert not weights[:unscored].any() and weights[unscored:].all()


def test_every_split_has_every_season(weather: type[Task]) -> None:
    """Validation and test have a scored week at least every 46 days, and so every season twice or so."""
    when = pd.to_datetime(pd.read_csv(EMBEDDED)["hour_utc"]).to_numpy()
    for split, hours in weeks(8, 1091).items():
        assert weather().generate(split, 0, 8).inputs.shape[1] == 8
        scored = when[hours[:, 72:]]
        assert (np.diff(scored[:, 0]) < np.timedelta64(46, "D")).all()
        seasons = (pd.DatetimeIndex(scored.ravel()).month % 12 // 3).value_counts()
        assert set(seasons.index) == {0, 1, 2, 3} and seasons.min() >= 72


@pytest.mark.parametrize("horizon", [1, 24, 48])
def test_the_tails_follow_each_other_and_share_no_hour(weather: type[Task], horizon: int) -> None:
    scaled = scaled_temperature(np.arange(6984))
    start = 0
    for split, hours in zip(SPLITS, (6984, 873, 873), strict=True):
        inputs, targets, weights = weather(horizon=horizon, splits="tail").generate(split, 0, 1)
        assert inputs.shape == (hours - horizon, 1, 8)
        span = scaled[start : start + hours]
        np.testing.assert_allclose(inputs[:, 0, 0], span[:-horizon], atol=1e-6)
        np.testing.assert_allclose(targets[:, 0, 0], span[horizon:], atol=1e-6)
        unscored = 0 if split == "train" else 48
        assert not weights[:unscored].any() and weights[unscored:].all()
        start += hours
    assert start == len(scaled)


@pytest.mark.parametrize(("batch", "stretches"), [(1, 8), (2, 4), (4, 2), (8, 1)])
def test_a_row_is_stretches_of_whole_cycles_in_the_order_of_time(
    weather: type[Task], batch: int, stretches: int
) -> None:
    every = weather().generate("train", 0, 8)
    few = weather().generate("train", 0, batch)
    assert weather().stretches(batch) == stretches and few.inputs.shape[:2] == (731 * stretches, batch)
    for cycles, together in zip(every, few, strict=True):
        found = together.swapaxes(0, 1).reshape(8, 731, *together.shape[2:])
        np.testing.assert_array_equal(found, cycles.swapaxes(0, 1))


@pytest.mark.parametrize(("splits", "batch", "uncut"), [("weeks", 24, 8), ("tail", 3, 1)])
def test_stretches_are_cut_for_more_rows(weather: type[Task], splits: str, batch: int, uncut: int) -> None:
    task = weather(splits=splits)
    whole, cut = task.generate("train", 0, uncut), task.generate("train", 0, batch)
    steps = len(whole.inputs) // 3
    assert cut.inputs.shape[:2] == (steps, batch) and task.stretches(batch) == 1
    for long, short in zip(whole, cut, strict=True):
        found = short.swapaxes(0, 1).reshape(uncut, 3 * steps, *short.shape[2:])
        np.testing.assert_array_equal(found, long[: 3 * steps].swapaxes(0, 1))


def test_a_batch_that_makes_unequal_rows_is_named_with_the_cure(weather: type[Task]) -> None:
    with pytest.raises(
        UsageError, match=r"batch is 3, and the 8 cycles .* give 1, 2, 4, 8 or a multiple of 8"
    ):
        weather().generate("train", 0, 3)


def test_the_scale_sees_no_test_data_unless_asked_to(weather: type[Task], write) -> None:
    frame = table()
    plain = write(frame, "plain.csv")
    frame.loc[len(frame) - 1, list(NAMES)] = 1000.0  # the last hour of test
    extreme = write(frame, "extreme.csv")
    for splits, scale_on in itertools.product(("weeks", "tail"), ("train", "all")):
        one, other = (
            weather(data=path, splits=splits, scale_on=scale_on).generate("train", 0, 1).inputs
            for path in (plain, extreme)
        )
        assert np.array_equal(one, other) == (scale_on == "train")
    train = weather(data=extreme).generate("train", 0, 1).inputs
    assert train.min() == 0 and train.max() == 1
    assert weather(data=extreme).generate("test", 0, 1).targets.max() > 5
    assert weather(data=extreme, scale_on="all").generate("test", 0, 1).targets.max() == 1


def test_the_score_is_in_degrees_celsius_on_scored_steps(weather: type[Task], write) -> None:
    frame = table()
    for task, fahrenheit, test_hours in (
        (weather(), pd.read_csv(EMBEDDED)["temp"].to_numpy(), weeks(8, 1091)["test"]),
        (weather(data=write(frame)), frame["DryBulbFarenheit"].to_numpy(), weeks(1, 1000)["test"]),
    ):
        test = task.generate("test", 0, 1)
        celsius = in_celsius(fahrenheit[test_hours])
        expected = np.sqrt(np.mean((celsius[:, 72:] - celsius[:, 48:-24]) ** 2))
        assert task.score(test.inputs[..., :1], test) == pytest.approx(expected, rel=1e-4)


def test_trivial_is_the_better_of_persistence_and_the_training_mean(weather: type[Task], write) -> None:
    test = weather().generate("test", 0, 1)
    persistence = weather().score(test.inputs[..., :1], test)
    assert weather().trivial_score(test) == persistence
    # In white noise the mean is better, and it is that of the training hours; a ridge finds nothing in it.
    frame = table()
    noise = weather(data=write(frame))
    temperature = in_celsius(frame["DryBulbFarenheit"].to_numpy())
    error = temperature[-96:] - temperature[:664].mean()
    expected = np.sqrt(np.mean(error**2))
    test = noise.generate("test", 0, 1)
    assert noise.trivial_score(test) == pytest.approx(expected, rel=1e-4)
    assert noise.solved_score(test) is None


@pytest.mark.parametrize(
    ("splits", "horizon", "trivial", "solved"),
    [
        ("weeks", 1, 0.967, 0.813),
        ("weeks", 24, 3.083, 2.842),
        ("weeks", 48, 4.272, 3.729),
        ("tail", 1, 0.820, 0.793),
        ("tail", 24, 4.404, 4.043),
        ("tail", 48, 6.100, 5.396),
    ],
)
def test_solved_is_what_ridge_regression_reaches(
    weather: type[Task], splits: str, horizon: int, trivial: float, solved: float
) -> None:
    """By scikit-learn, on the hour, the two before and every third of the 48 before."""
    from sklearn.linear_model import Ridge

    task = weather(splits=splits, horizon=horizon)

    def past_and_change(split: str) -> tuple[np.ndarray, np.ndarray]:
        inputs, targets, _ = task.generate(split, 0, 8 if splits == "weeks" else 1)
        lags = [0, 1, 2, *range(3, 49, 3)]
        past = np.concatenate([inputs[48 - k : len(inputs) - k] for k in lags], axis=-1)
        change = (targets - inputs[..., :1])[48:]
        return past.reshape(-1, past.shape[-1]).astype(np.float64), change.reshape(-1)

    past, change = past_and_change("train")
    # The one more column of ones, with the ridge on it too, as the intercept.
    fit = Ridge(alpha=1.0, fit_intercept=False).fit(np.c_[past, np.ones(len(past))], change)
    past, change = past_and_change("test")
    error = fit.predict(np.c_[past, np.ones(len(past))]) - change
    expected = np.sqrt(np.mean(error**2)) * task._series.degrees
    test = task.generate("test", 0, 1)
    assert task.solved_score(test) == pytest.approx(expected, rel=1e-4)
    assert task.solved_score(test) == pytest.approx(solved, abs=1e-3)
    assert task.trivial_score(test) == pytest.approx(trivial, abs=1e-3)


def test_train_hours_are_those_given(weather: type[Task], write) -> None:
    path = write(table())
    for given, hours in ((None, 800), (500, 500)):
        task = weather(data=path, splits="tail", train_hours=given)
        parts = [task.generate(split, 0, 1) for split in SPLITS]
        rest = (1000 - hours) // 2
        assert [len(part.inputs) + 24 for part in parts] == [hours, rest, rest]


def test_a_table_as_long_as_the_papers_trains_on_33600_hours(weather: type[Task], write) -> None:
    path = write(table(35_064))
    parts = [weather(data=path, splits="tail").generate(split, 0, 1) for split in SPLITS]
    assert [len(part.inputs) + 24 for part in parts] == [33_600, 732, 732]
    assert parts[0].inputs.shape[-1] == 9
    assert [weather(data=path).generate(split, 0, 8).inputs.shape for split in SPLITS] == [
        (4 * 735, 8, 9),
        (144, 32, 9),
        (144, 32, 9),
    ]


def test_parquet_and_npz_read_as_csv_does(weather: type[Task], write, tmp_path: Path) -> None:
    frame = table()
    expected = weather(data=write(frame)).generate("test", 0, 1)
    frame.to_parquet(tmp_path / "weather.parquet")
    np.savez(tmp_path / "weather.npz", **{name: frame[name].to_numpy() for name in NAMES})
    for kind in ("parquet", "npz"):
        found = weather(data=str(tmp_path / f"weather.{kind}")).generate("test", 0, 1)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)


def missing(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.drop(columns="WindSpeed")


def text(frame: pd.DataFrame) -> pd.DataFrame:
    frame["WindSpeed"] = frame["WindSpeed"].astype(object)
    frame.loc[16, "WindSpeed"] = "calm"
    return frame


def gap(frame: pd.DataFrame) -> pd.DataFrame:
    frame.loc[16, "WindSpeed"] = np.nan
    return frame


def constant(frame: pd.DataFrame) -> pd.DataFrame:
    frame["WindSpeed"] = 3.0
    return frame


def constant_in_train(frame: pd.DataFrame) -> pd.DataFrame:
    frame.loc[:663, "WindSpeed"] = 3.0
    return frame


def short(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[:200]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (missing, ["lacks the column 'WindSpeed'", "it has date, "]),
        (text, ["column 'WindSpeed' has 'calm' in data row 17", "put a finite number there"]),
        (gap, ["column 'WindSpeed' has nothing in data row 17", "put a finite number there"]),
        (constant, ["column 'WindSpeed' is 3 in all 664 hours", "give a series in which"]),
        (constant_in_train, ["column 'WindSpeed' is 3 in all 664 hours", "give a series"]),
        (short, ["have 200 hours, and a cycle with its two weeks needs 384", "give a longer series"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_bad_file_is_named_with_the_cure(weather: type[Task], write, spoil, words) -> None:
    path = write(spoil(table()), "spoiled.csv")
    with pytest.raises(UsageError) as error:
        weather(data=path).generate("train", 0, 1)
    message = str(error.value)
    assert "\n" not in message
    for word in [path, *words]:
        assert word in message


def test_a_missing_file_is_named(weather: type[Task], tmp_path: Path) -> None:
    path = str(tmp_path / "nowhere.csv")
    with pytest.raises(UsageError, match="does not exist: check the path") as error:
        weather(data=path).generate("train", 0, 1)
    assert path in str(error.value)


def test_too_short_a_tail_is_named(weather: type[Task], write) -> None:
    with pytest.raises(UsageError, match=r"have 200 hours, of which 160 train: .* another train_hours"):
        weather(data=write(short(table())), splits="tail").generate("train", 0, 1)


def test_too_large_a_batch_is_named(weather: type[Task]) -> None:
    assert weather().generate("train", 0, 240).inputs.shape == (24, 240, 8)
    with pytest.raises(UsageError, match=r"make 23 steps in each of 31 rows .* a smaller batch"):
        weather().generate("train", 0, 248)


@pytest.mark.parametrize(
    "field",
    [
        {"horizon": 2},
        {"horizon": "24"},
        {"scale_on": "test"},
        {"splits": "months"},
        {"train_hours": 800},  # the weeks leave no choice
        {"warmup": -1},
        {"warmup": 121},
        {"train_hours": 0},
        {"train_hours": 0.8},
        {"data": 5},
    ],
)
def test_a_bad_field_is_named(weather: type[Task], field: dict[str, object]) -> None:
    ((name, value),) = field.items()
    with pytest.raises(UsageError) as error:
        weather(**field)
    assert f"weather.{name} is {value!r}" in str(error.value)
    assert ("name a file" if name == "data" else "set ") in str(error.value)


@pytest.mark.skipif(
    "CREDITBENCH_WTH" not in os.environ, reason="CREDITBENCH_WTH does not name the paper's WTH.csv"
)
def test_the_papers_file(weather: type[Task]) -> None:
    task = weather(data=os.environ["CREDITBENCH_WTH"], splits="tail")
    parts = [task.generate(split, 0, 1) for split in SPLITS]
    assert [len(part.inputs) + 24 for part in parts] == [33_600, 732, 732]
    frame = pd.read_csv(os.environ["CREDITBENCH_WTH"])
    fahrenheit = frame["DryBulbFarenheit"].to_numpy()
    low, high = fahrenheit[:33_600].min(), fahrenheit[:33_600].max()
    found = parts[2].inputs[:, 0, 0] * (high - low) + low
    np.testing.assert_allclose(found, fahrenheit[-732:-24], atol=1e-4)
    # The file's own Celsius column agrees, but for its rounding to whole degrees and a few hours in
    # which both are 0 because no report came.
    celsius = frame["DryBulbCelsius"].to_numpy()[-732:-24]
    reported = (celsius != 0) | (np.abs(found) > 0.01)
    assert reported.mean() > 0.9
    np.testing.assert_allclose(in_celsius(found)[reported], celsius[reported], atol=0.6)
    for horizon, splits, trivial, solved in (
        (1, "weeks", 1.486, 1.165),
        (24, "weeks", 3.820, 3.198),
        (48, "weeks", 5.181, 4.011),
        (1, "tail", 1.431, 1.175),
        (24, "tail", 4.892, 2.853),
        (48, "tail", 6.378, 3.856),
    ):
        task = dataclasses.replace(task, horizon=horizon, splits=splits)
        test = task.generate("test", 0, 8)
        assert task.trivial_score(test) == pytest.approx(trivial, abs=1e-3)
        assert task.solved_score(test) == pytest.approx(solved, abs=1e-3)
