"""What holds for `weather`."""

from __future__ import annotations

import hashlib
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


@pytest.mark.parametrize("horizon", [1, 24, 48])
def test_the_target_is_the_temperature_ahead(weather: type[Task], horizon: int) -> None:
    inputs, targets, _ = weather(horizon=horizon).generate("train", 0, 1)
    np.testing.assert_array_equal(targets[:-horizon, :, 0], inputs[horizon:, :, 0])


@pytest.mark.parametrize("horizon", [1, 24, 48])
def test_splits_follow_each_other_and_share_no_hour(weather: type[Task], horizon: int) -> None:
    """Every hour of the file is in one split alone, as an input, a target or both."""
    temperature = pd.read_csv(EMBEDDED)["temp"].to_numpy()
    train = temperature[:6984]
    scaled = (temperature - train.min()) / (train.max() - train.min())
    start = 0
    for split, hours in zip(SPLITS, (6984, 873, 873), strict=True):
        inputs, targets, _ = weather(horizon=horizon).generate(split, 0, 1)
        assert inputs.shape == (hours - horizon, 1, 8)
        span = scaled[start : start + hours]
        np.testing.assert_allclose(inputs[:, 0, 0], span[:-horizon], atol=1e-6)
        np.testing.assert_allclose(targets[:, 0, 0], span[horizon:], atol=1e-6)
        start += hours
    assert start == len(temperature)


def test_the_rows_of_a_batch_are_stretches_in_the_order_of_time(weather: type[Task]) -> None:
    one = weather().generate("train", 0, 1)
    three = weather().generate("train", 0, 3)
    assert three.inputs.shape == (len(one.inputs) // 3, 3, 8)
    for alone, together in zip(one, three, strict=True):
        joined = np.concatenate([together[:, row] for row in range(3)])
        np.testing.assert_array_equal(joined, alone[: len(joined), 0])


def test_the_scale_sees_no_test_data_unless_asked_to(weather: type[Task], write) -> None:
    frame = table()
    plain = write(frame, "plain.csv")
    frame.loc[len(frame) - 1, list(NAMES)] = 1000.0  # the last hour of test
    extreme = write(frame, "extreme.csv")
    for scale_on, same in (("train", True), ("all", False)):
        one, other = (
            weather(data=path, scale_on=scale_on).generate("train", 0, 1).inputs for path in (plain, extreme)
        )
        assert np.array_equal(one, other) == same
    train = weather(data=extreme).generate("train", 0, 1).inputs
    assert train.min() == 0 and train.max() == 1
    assert weather(data=extreme).generate("test", 0, 1).targets.max() > 5
    assert weather(data=extreme, scale_on="all").generate("test", 0, 1).targets.max() == 1


def test_the_score_is_in_degrees_celsius(weather: type[Task], write) -> None:
    frame = table()
    for task, fahrenheit in (
        (weather(), pd.read_csv(EMBEDDED)["temp"].to_numpy()),
        (weather(data=write(frame)), frame["DryBulbFarenheit"].to_numpy()),
    ):
        test = task.generate("test", 0, 1)
        celsius = in_celsius(fahrenheit[-len(test.inputs) - 24 :])
        expected = np.sqrt(np.mean((celsius[24:] - celsius[:-24]) ** 2))
        assert task.score(test.inputs[..., :1], test) == pytest.approx(expected, rel=1e-4)


def test_trivial_is_the_better_of_persistence_and_the_training_mean(weather: type[Task], write) -> None:
    test = weather().generate("test", 0, 1)
    persistence = weather().score(test.inputs[..., :1], test)
    assert weather().trivial_score(test) == persistence
    # In white noise the mean is better, and it is that of the training hours.
    frame = table()
    noise = weather(data=write(frame))
    temperature = in_celsius(frame["DryBulbFarenheit"].to_numpy())
    error = temperature[-76:] - temperature[:800].mean()
    expected = np.sqrt(np.mean(error**2))
    assert noise.trivial_score(noise.generate("test", 0, 1)) == pytest.approx(expected, rel=1e-4)


def test_solved_is_what_ridge_regression_reaches(weather: type[Task]) -> None:
    task, lags = weather(), 72
    whole = np.concatenate([task.generate(split, 0, 1).inputs[:, 0] for split in SPLITS])
    assert len(whole) > lags
    scaled = task._series.scaled.astype(np.float64)
    past = np.concatenate([scaled[lags - 1 - k : len(scaled) - 24 - k] for k in range(0, lags, 3)], axis=1)
    past = np.concatenate([past, np.ones((len(past), 1))], axis=1)
    ahead = scaled[lags - 1 + 24 :, 0]
    train = 6984 - 24 - lags
    gram = past[:train].T @ past[:train] + np.eye(past.shape[1])
    fit = np.linalg.solve(gram, past[:train].T @ ahead[:train])
    test = task.generate("test", 0, 1)
    outputs = (past @ fit)[-len(test.inputs) :, None, None]
    assert task.score(outputs, test) == pytest.approx(task.solved, abs=0.02)


def test_train_hours_are_those_given(weather: type[Task], write) -> None:
    path = write(table())
    for given, hours in ((None, 800), (500, 500)):
        parts = [weather(data=path, train_hours=given).generate(split, 0, 1) for split in SPLITS]
        rest = (1000 - hours) // 2
        assert [len(part.inputs) + 24 for part in parts] == [hours, rest, rest]


def test_a_table_as_long_as_the_papers_trains_on_33600_hours(weather: type[Task], write) -> None:
    path = write(table(35_064))
    parts = [weather(data=path).generate(split, 0, 1) for split in SPLITS]
    assert [len(part.inputs) + 24 for part in parts] == [33_600, 732, 732]
    assert parts[0].inputs.shape[-1] == 9


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
    frame.loc[:799, "WindSpeed"] = 3.0
    return frame


def short(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[:200]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (missing, ["lacks the column 'WindSpeed'", "it has date, "]),
        (text, ["column 'WindSpeed' has 'calm' in data row 17", "put a finite number there"]),
        (gap, ["column 'WindSpeed' has nothing in data row 17", "put a finite number there"]),
        (constant, ["column 'WindSpeed' is 3 in all 800 hours", "give a series in which"]),
        (constant_in_train, ["column 'WindSpeed' is 3 in all 800 hours", "give a series"]),
        (short, ["have 200 hours, of which 160 train", "give a longer series"]),
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


def test_too_large_a_batch_is_named(weather: type[Task]) -> None:
    assert weather().generate("train", 0, 290).inputs.shape == (24, 290, 8)
    with pytest.raises(UsageError, match=r"in each of 300 rows .* a smaller batch"):
        weather().generate("train", 0, 300)


@pytest.mark.parametrize(
    "field",
    [
        {"horizon": 2},
        {"horizon": "24"},
        {"scale_on": "test"},
        {"train_hours": 0},
        {"train_hours": 0.8},
        {"data": 5},
    ],
)
def test_a_bad_field_is_named(weather: type[Task], field: dict[str, object]) -> None:
    ((name, value),) = field.items()
    with pytest.raises(UsageError) as error:
        weather(**field)
    assert f"weather.{name} is {value!r}: " in str(error.value)


@pytest.mark.skipif(
    "CREDITBENCH_WTH" not in os.environ, reason="CREDITBENCH_WTH does not name the paper's WTH.csv"
)
def test_the_papers_file(weather: type[Task]) -> None:
    task = weather(data=os.environ["CREDITBENCH_WTH"])
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
    assert task.trivial_score(parts[2]) == pytest.approx(4.85, abs=0.01)
