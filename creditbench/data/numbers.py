"""The columns of a table as numbers and as text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from creditbench.errors import UsageError

_SHOWN = 12  # column names in a message
_LONGEST = 40  # letters of a value in a message


def listed(names: Iterable[object]) -> str:
    """Column names for a message: the first ones, and the number of others.

    >>> listed(["label", "pixel0"])
    'label, pixel0'
    """
    every = [str(name) for name in names]
    more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return ", ".join(every[:_SHOWN]) + more


def require(name: str, table: Mapping[str, Any], column: str) -> None:
    """Raise UsageError, naming the table `name`, if it lacks the column."""
    if column not in table:
        raise UsageError(f"{name} lacks the column {column!r}: it has {listed(table)}")


def numbers(name: str, table: Mapping[str, Any], columns: Sequence[str]) -> dict[str, NDArray[Any]]:
    """The columns of `table` as numbers. Raises UsageError, naming the table `name`."""
    for column in columns:
        require(name, table, column)
    found = {column: number(name, column, np.asarray(table[column])) for column in columns}
    lengths = {column: len(values) for column, values in found.items()}
    if len(set(lengths.values())) > 1:
        raise UsageError(f"{name} has columns of unequal lengths, {lengths}: give one value a row")
    if not all(lengths.values()):
        raise UsageError(f"{name} has no rows of data: name another")
    return found


def number(
    name: str, column: str, values: NDArray[Any], want: str = "a finite number"
) -> NDArray[np.float64]:
    """One column as numbers. Raises UsageError for the first row without a number."""
    if values.ndim != 1:
        raise UsageError(f"{name}: column {column!r} has the shape {values.shape}: give one number a row")
    if values.dtype.kind not in "biufOUST":
        raise UsageError(f"{name}: column {column!r} is of the type {values.dtype}: give finite real numbers")
    try:
        found = values.astype(np.float64, copy=False)
    except (TypeError, ValueError, OverflowError):
        found = np.array([_parsed(value) for value in values], np.float64)
    bad = ~np.isfinite(found)
    if bad.any():
        row = int(bad.argmax())
        cure = f"put {want} there or leave out the row"
        if isinstance(values[row], str) and np.isfinite(_parsed(values[row].strip().replace(",", ".", 1))):
            cure = "write a point where it has a comma"
        raise UsageError(f"{name}: column {column!r} has {shown(values[row])} in data row {row + 1}: {cure}")
    return found


def shown(value: object) -> str:
    """A value of a table for a message."""
    if value is None or (isinstance(value, float) and np.isnan(value)) or not str(value).strip():
        return "nothing"
    text = " ".join(str(value).split())
    return repr(text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "...")


def _parsed(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return np.nan


def joined(name: str, table: Mapping[str, Any]) -> NDArray[np.uint8]:
    """The rows of the column `text`, joined with a space, as UTF-8. UsageErrors name the table `name`."""
    require(name, table, "text")
    for row, value in enumerate(table["text"]):
        if not isinstance(value, str):
            raise UsageError(
                f"{name}: column 'text' has {shown(value)} in data row {row + 1}: "
                "put a text there or leave out the row"
            )
    text = " ".join(table["text"]).encode()
    if not text.strip():
        raise UsageError(f"{name}: column 'text' holds no text: name another")
    return np.frombuffer(text, np.uint8)
