"""Tables as text: CSV and JSON in a fixed form. Each row is checked as it is read."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from creditbench.errors import UsageError, reason
from creditbench.machine import files

#: Advice for a table of a version that cannot be read.
AGAIN = "take it from git again, or make it again with creditbench table --compact"


class Row(BaseModel):
    """A row of a table: its fields are the columns."""

    model_config = ConfigDict(frozen=True, extra="forbid")


R = TypeVar("R", bound=Row)


#: First characters of a cell that a spreadsheet would run as a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def inert(text: str) -> str:
    """A text for a cell of a CSV file, behind an apostrophe if a spreadsheet would run it."""
    return f"'{text}" if text.lstrip("'").startswith(_FORMULA) else text


def _inert_read(text: str) -> str:
    """The text that `inert` was given."""
    return text[1:] if text.startswith("'") and text.lstrip("'").startswith(_FORMULA) else text


def as_csv(rows: Sequence[Mapping[str, Any]], exact: Collection[str] = ()) -> str:
    """Rows as text. A float has nine significant digits, and all of its digits in the columns `exact`."""

    def cell(name: str, value: Any) -> str:
        if value is None:
            return ""
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, float):
            return repr(value) if name in exact else format(value, ".9g")
        return inert(value) if isinstance(value, str) else str(value)

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(rows[0])
    writer.writerows([cell(name, value) for name, value in row.items()] for row in rows)
    return text.getvalue()


def read(path: Path, cure: str = AGAIN) -> bytes:
    """The content of a file. Raises `UsageError`."""
    try:
        return files.read(path)
    except (OSError, ValueError) as error:
        raise broken(path, error, cure) from None


def read_csv(path: Path, cure: str = AGAIN) -> list[dict[str, str]]:
    """The rows of a CSV file. Raises `UsageError` if a row has more or fewer cells than there are columns."""
    try:
        lines = list(csv.reader(io.StringIO(read(path, cure).decode(), newline=""), strict=True))
    except (ValueError, csv.Error) as error:
        raise broken(path, error, cure) from None
    if not lines:
        raise broken(path, ValueError("it is empty"), cure)
    if len(set(lines[0])) < len(lines[0]):
        twice = next(name for name in lines[0] if lines[0].count(name) > 1)
        raise broken(path, ValueError(f"the column {twice!r} is there twice"), cure)
    for number, line in enumerate(lines[1:], 2):
        if len(line) != len(lines[0]):
            raise broken(path, ValueError(f"line {number} has {len(line)} cells of {len(lines[0])}"), cure)
    return [dict(zip(lines[0], map(_inert_read, line), strict=True)) for line in lines[1:]]


def read_json(path: Path) -> Any:
    """The value in a JSON file. Raises `UsageError`."""
    try:
        return files.parse_json(read(path))
    except ValueError as error:
        raise broken(path, error) from None


def validate(
    model: type[R], values: Mapping[str, Any], path: Path, strict: bool = False, cure: str = AGAIN
) -> R:
    """A row of a table; an empty cell is None. Raises `UsageError`."""
    try:
        own = {name: None if value == "" else value for name, value in values.items()}
        return model.model_validate(own, strict=strict)
    except ValidationError as error:
        raise broken(path, error, cure) from None


def read_objects(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON array. Raises `UsageError`."""
    rows = read_json(path)
    if not (isinstance(rows, list) and all(isinstance(row, dict) for row in rows)):
        raise broken(path, ValueError("it is no array of objects"))
    return rows


def broken(path: Path, error: Exception, cure: str = AGAIN) -> UsageError:
    """The error for a table that cannot be read."""
    return UsageError(f"table '{path}' cannot be read ({reason(error)}): {cure}")
