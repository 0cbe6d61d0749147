"""Checks of a table of hourly rows: marks of missing values, and rows that are not an hour apart."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from creditbench.data.numbers import shown
from creditbench.errors import UsageError

HOUR = 3600  # seconds
#: A number such as -9999 is a mark if it lies more than this part of the other values' range away from them.
APART = 0.5
#: A note reports values that lie further out than this many ranges of the other values.
FAR = 2.0
RARE = 0.01  # the largest share of rows that such values may have
IRREGULAR = 0.1  # the largest share of time steps that may differ from an hour
TWICE = 1 / 2000  # the largest share of rows whose time may repeat, as when clocks go back
DAY = 24  # so many rows in a row do not repeat by chance

_DATE = re.compile(r"\s*\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}")


def require_hours(
    name: str, table: Mapping[str, Any], numbers: Mapping[str, NDArray[np.float64]]
) -> list[str]:
    """Notes on a table's hourly rows. Raises UsageError, naming the table `name`, if they are not hourly.

    numbers: the columns in use, each [rows]. The first other column of `table` that holds dates gives the
    time of each row. Without such a column the times are not checked.
    """
    notes = [note for column, values in numbers.items() for note in _outliers(name, column, values)]
    notes += _times(name, table, numbers)
    return notes + _again(numbers)


def _outliers(name: str, column: str, values: NDArray[np.float64]) -> list[str]:
    """Raise UsageError for a mark of a missing value, such as -9999. Note other values far from the rest."""
    found, rows, counts = np.unique(values, return_index=True, return_counts=True)
    marks = np.array([_is_mark(value) for value in found])
    if marks.all() or len(values) < DAY:
        return []
    low, high = found[~marks][[0, -1]]
    for value, row, count in zip(found[marks], rows[marks], counts[marks], strict=True):
        if max(low - value, value - high) > APART * (high - low):
            raise UsageError(
                f"{name}: column {column!r} has {value:g} in data row {row + 1}"
                + (f" and {count - 1} more" if count > 1 else "")
                + f", where all else lies from {low:g} to {high:g}: if it stands for a missing value, "
                "put a number there or leave out the row"
            )
    if len(found) < 3:
        return []
    gaps = np.diff(found)
    below = int(gaps.argmax()) + 1  # the largest gap lies between the values before this one and the rest
    for rest, odd in ((found[below:], slice(below)), (found[:below], slice(below, None))):
        if counts[odd].sum() <= RARE * len(values) and gaps[below - 1] > FAR * np.ptp(rest) > 0:
            first = int(rows[odd].min())
            return [
                f"column {column!r} has {values[first]:g} in data row {first + 1}"
                + (f", and {counts[odd].sum() - 1} more such values," if counts[odd].sum() > 1 else "")
                + f" far from all else, which lies from {rest[0]:g} to {rest[-1]:g}: it is read as it is"
            ]
    return []


def _is_mark(value: float) -> bool:
    """Whether files often mark a missing value by this number: nines alone, or the end of a type's range."""
    digits = f"{abs(value):.10g}".replace(".", "")
    nines = len(digits) > 1 and set(digits) == {"9"}
    return nines or value in (-32768, 32767, -(2**31), 2**31 - 1) or abs(value) >= 1e19


def _times(name: str, table: Mapping[str, Any], numbers: Mapping[str, NDArray[np.float64]]) -> list[str]:
    """Raise UsageError for rows not in the order of time or not hourly. Note gaps and double hours."""
    count = len(next(iter(numbers.values())))
    for column, values in table.items():
        values = np.asarray(values)
        if column in numbers or values.shape != (count,) or not _is_date(values[:1]):
            continue
        times = _parsed(values)
        break
    else:
        return []
    unknown = np.flatnonzero(np.isnat(times))
    if len(unknown):
        return [
            f"column {column!r} has {shown(values[unknown[0]])} in data row {unknown[0] + 1}, which is no "
            "time: whether its rows are an hour apart is not known"
        ]
    steps = np.diff(times) / np.timedelta64(1, "s")
    if not len(steps):
        return []
    if (steps < 0).any():
        row = int((steps < 0).argmax())
        raise UsageError(
            f"{name}: column {column!r} goes back from {shown(values[row])} to {shown(values[row + 1])} in "
            f"data row {row + 2}: put the rows in the order of time"
        )
    usual = float(np.median(steps))
    if usual == 0 and not ((times - times.astype("M8[D]")) != np.timedelta64(0)).any():
        return []  # dates without a time of day: many rows share one
    if usual != HOUR:
        raise UsageError(
            f"{name}: its rows are {_span(usual)} apart by column {column!r}: give a row an hour"
        )
    notes, twice = [], np.flatnonzero(steps == 0)
    if len(twice):
        row = int(twice[0])
        where = f"column {column!r} has {shown(values[row])} in data rows {row + 1} and {row + 2}"
        more = f", and {len(twice) - 1} more times twice" if len(twice) > 1 else ""
        if all((column[twice] == column[twice + 1]).all() for column in numbers.values()):
            raise UsageError(f"{name}: {where}{more}, with the same values: leave out one of each two")
        if len(twice) > max(1, TWICE * count):
            raise UsageError(f"{name}: {where}{more}: give a row an hour")
        notes.append(f"{where}{more}, as when clocks go back: its rows are taken to be an hour apart")
    odd = np.flatnonzero((steps != HOUR) & (steps != 0))
    if len(odd) > IRREGULAR * len(steps):
        raise UsageError(
            f"{name}: {len(odd)} of its {count} rows are not an hour after the one before by column "
            f"{column!r}, first data row {odd[0] + 2}: give a row an hour"
        )
    if len(odd):
        row = int(steps.argmax())
        notes.append(
            f"{len(odd)} of its {count} rows are not an hour after the one before by column {column!r}, and "
            f"data row {row + 2} is {_span(steps[row])} after it: its rows are taken to be an hour apart"
        )
    return notes


def _is_date(first: NDArray[Any]) -> bool:
    if first.dtype.kind == "M":
        return True
    value = first[0] if len(first) else None
    return hasattr(value, "isoformat") or (isinstance(value, str) and _DATE.match(value) is not None)


def _parsed(values: NDArray[Any]) -> NDArray[np.datetime64]:
    """Dates as times, read month first or day first.

    The order that gives more valid and more ascending times is used. Times with a zone become UTC.
    """
    # pandas is slow to import.
    import pandas as pd

    best: tuple[int, NDArray[np.datetime64]] | None = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for form, day_first in ((None, False), (None, True), ("mixed", False), ("mixed", True)):
            read = pd.to_datetime(
                pd.Series(values), format=form, dayfirst=day_first, utc=True, errors="coerce"
            )
            times = read.dt.tz_localize(None).to_numpy("M8[s]")
            wrong = int(np.isnat(times).sum() * len(times) + (np.diff(times) < np.timedelta64(0)).sum())
            if best is None or wrong < best[0]:
                best = wrong, times
            if not wrong or (form is None and day_first and best[0] < len(times)):
                break  # the mixed formats are slow, and help only where rows differ in format
    assert best is not None
    return best[1]


def _span(seconds: float) -> str:
    """A span of time for a message.

    >>> _span(600), _span(7200.0)
    ('10 minutes', '2 hours')
    """
    for unit, size in (("day", 86_400), ("hour", HOUR), ("minute", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds / size:g} {unit}{'s' if seconds > size else ''}"
    return f"{seconds:g} seconds"


def _again(numbers: Mapping[str, NDArray[np.float64]]) -> list[str]:
    """Note days whose values, row for row, repeat later, and days in which nothing changes."""
    count = len(next(iter(numbers.values())))
    if count < 2 * DAY:
        return []
    rows, runs = np.zeros(count, np.uint64), np.zeros(count - DAY + 1, np.uint64)
    for values in numbers.values():
        rows = _mixed(rows ^ (values + 0.0).view(np.uint64))
    for k in range(DAY):
        runs = _mixed(runs ^ rows[k : k + len(runs)])
    same = np.concatenate([[0], np.cumsum(rows[1:] == rows[:-1])])
    still = same[DAY - 1 :] - same[: len(runs)] == DAY - 1
    _, first, which = np.unique(runs, return_index=True, return_inverse=True)
    later = (first[which] < np.arange(len(runs))) & ~still
    notes = []
    if still.any():
        notes.append(
            f"nothing changes in {_covered(still)} of its {count} rows, {DAY} in a row or more, first from "
            f"data row {still.argmax() + 1} on: they are read as they are"
        )
    if later.any():
        row = int(later.argmax())
        notes.append(
            f"{_covered(later)} of its {count} rows are, {DAY} in a row or more, those of an earlier "
            f"stretch: data row {first[which[row]] + 1} and those after it come again from data row "
            f"{row + 1} on, and what is tested may have been trained on"
        )
    return notes


def _covered(runs: NDArray[np.bool_]) -> int:
    """The number of rows in the runs of `DAY` rows that begin where `runs` is true."""
    edges = np.zeros(len(runs) + DAY, np.int64)
    edges[: len(runs)] += runs
    edges[DAY:] -= runs
    return int((np.cumsum(edges) > 0).sum())


def _mixed(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A hash of each number."""
    bits = (bits ^ (bits >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    return bits ^ (bits >> np.uint64(29))
