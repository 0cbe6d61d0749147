"""Tables as text: CSV and JSON in a fixed form. Each row is checked as it is read."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

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


def as_csv(rows: Iterable[Mapping[str, Any]], exact: Collection[str] = ()) -> str:
    """Rows as text. A float has nine significant digits, and all of its digits in the columns `exact`."""
    return "".join(csv_lines(rows, exact))


def csv_lines(rows: Iterable[Mapping[str, Any]], exact: Collection[str] = ()) -> Iterator[str]:
    """As `as_csv`, the head and each row in turn; nothing without rows."""

    def cell(name: str, value: Any) -> str:
        if value is None:
            return ""
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, float):
            return repr(value) if name in exact else format(value, ".9g")
        return inert(value) if isinstance(value, str) else str(value)

    lines: list[str] = []
    writer = csv.writer(_Lines(lines.append), lineterminator="\n")
    for number, row in enumerate(rows):
        if number == 0:
            writer.writerow(row)
        writer.writerow([cell(name, value) for name, value in row.items()])
        yield from lines
        lines.clear()


class _Lines(NamedTuple):
    """What `csv.writer` takes for a file."""

    write: Callable[[str], None]


def read(path: Path, cure: str = AGAIN) -> bytes:
    """The content of a file. Raises `UsageError`."""
    try:
        return files.read(path)
    except (OSError, ValueError) as error:
        raise broken(path, error, cure) from None


def read_csv(path: Path, cure: str = AGAIN) -> list[dict[str, str]]:
    """The rows of a CSV file. Raises `UsageError` if a row has more or fewer cells than there are columns."""
    return list(csv_rows(path, read(path, cure), cure))


def csv_rows(path: Path, content: bytes, cure: str = AGAIN) -> Iterator[dict[str, str]]:
    """As `read_csv`, the rows of the file's content in turn: all at once take twenty times its size."""
    # The text is not made as a whole either.
    lines = csv.reader(io.TextIOWrapper(io.BytesIO(content), "utf-8", newline=""), strict=True)
    try:
        if (head := next(lines, None)) is None:
            raise ValueError("it is empty")
        if len(set(head)) < len(head):
            twice = next(name for name in head if head.count(name) > 1)
            raise ValueError(f"the column {twice!r} is there twice")
        for number, line in enumerate(lines, 2):
            if len(line) != len(head):
                raise ValueError(f"line {number} has {len(line)} cells of {len(head)}")
            yield dict(zip(head, map(_inert_read, line), strict=True))
    except (ValueError, csv.Error) as error:
        raise broken(path, error, cure) from None


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
