"""Tables of numbers from files: read once through Hugging Face `datasets`, then from a cache.

`datasets` takes about a second to import, so it is imported only when a file is seen for the first
time. What it yielded is kept under the fingerprint of the file's content, in the folder that the
environment variable CREDITBENCH_CACHE names (default: ~/.cache/creditbench). The folder can be
removed at any time.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import logging
import os
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from creditbench.errors import UsageError

Arrays = dict[str, NDArray[Any]]

_FORMAT = 1  # part of every table's cache key: goes up when what is kept would change
_KINDS = {".csv": "csv", ".parquet": "parquet", ".npz": "npz"}
_HUB = "hf:"


def cache_folder() -> Path:
    """Where read tables are kept; it need not exist."""
    named = os.environ.get("CREDITBENCH_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "creditbench"


def cached(key: str, make: Callable[[], Mapping[str, NDArray[Any]]]) -> Arrays:
    """The arrays that `make` returns, by name; kept on disk under `key`, a plain file name.

    The entry is written whole or not at all, so that processes may share the cache. A cache that
    cannot be read or written costs time and nothing else.
    """
    path = cache_folder() / f"{key}.npz"
    with (
        contextlib.suppress(OSError, ValueError, EOFError, zipfile.BadZipFile),
        np.load(path, allow_pickle=False) as kept,
    ):
        return dict(kept)
    arrays = dict(make())
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{key}-", suffix=".npz")
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    return arrays


def read_table(source: str | os.PathLike[str], columns: Sequence[str]) -> Arrays:
    """The named columns of a table, each float64 [rows] and finite, in the order of the rows.

    `source`: path of a .csv, .parquet or .npz file, or `hf:OWNER/NAME`, the train split of a data
    set of the Hugging Face hub. Other columns are not looked at.

    Raises UsageError where the source is missing or cannot be read, lacks a column, or has
    something else than a finite number in a row of one. Rows are counted from 1, and the header is
    not counted.
    """
    if str(source).startswith(_HUB):
        return _numbers(str(source), _from_hub(str(source)[len(_HUB) :]), columns)
    path = Path(source).expanduser()
    kind = _KINDS.get(path.suffix.lower())
    if kind is None:
        raise UsageError(
            f"data file '{path}' ends in {path.suffix!r}: name a file that ends in "
            f"{', '.join(_KINDS)}, or a hub data set as hf:OWNER/NAME"
        )
    try:
        content = hashlib.sha256(path.read_bytes())
    except FileNotFoundError:
        raise UsageError(f"data file '{path}' does not exist: check the path") from None
    except OSError as error:
        raise UsageError(
            f"data file '{path}' cannot be opened ({error.strerror}): name a file that can be read"
        ) from None
    content.update(repr((_FORMAT, kind, tuple(columns))).encode())
    return cached(
        f"table-{content.hexdigest()[:32]}",
        lambda: _numbers(f"data file '{path}'", _from_file(path, kind), columns),
    )


def _from_file(path: Path, kind: str) -> Mapping[str, Any]:
    """The columns of a file, unchecked."""
    failures: tuple[type[Exception], ...] = (OSError, ValueError, csv.Error, zipfile.BadZipFile)
    try:
        if kind == "npz":
            with np.load(path, allow_pickle=False) as arrays:
                return dict(arrays)
        with _datasets() as datasets, tempfile.TemporaryDirectory() as folder:
            failures += (datasets.exceptions.DatasetsError,)
            # A copy, because `datasets` takes brackets and stars in a path for a pattern.
            copy = shutil.copyfile(path, Path(folder) / f"table.{kind}")
            options: dict[str, Any] = {}
            if kind == "csv":
                # As text: a column of numbers would change its type at the first bad row.
                text = {column: datasets.Value("string") for column in _header(copy)}
                options = {
                    "features": datasets.Features(text),
                    "keep_default_na": False,
                    # A comma at the end of every line would otherwise shift the columns by one.
                    "index_col": False,
                }
            return datasets.load_dataset(
                kind, data_files=str(copy), split="train", cache_dir=folder, **options
            ).to_pandas()
    except failures as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise UsageError(
            f"data file '{path}' cannot be read as {kind} ({reason}): mend the file or name another"
        ) from None


def _header(path: Path) -> list[str]:
    """The column names of a csv file; raises ValueError where no row follows them."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = (line for line in csv.reader(file) if line)
        header = next(lines, None)
        if header is None or next(lines, None) is None:
            raise ValueError("it has no rows of data")
        return header


def _from_hub(name: str) -> Mapping[str, Any]:
    """The columns of a hub data set's train split, unchecked."""
    try:
        with _datasets() as datasets:
            folder = cache_folder() / "hub"
            return datasets.load_dataset(name, split="train", cache_dir=str(folder)).to_pandas()
    except Exception as error:  # no network, no such data set, no such split, no right to it, ...
        reason = " ".join(str(error).split())
        raise UsageError(
            f"hub data set '{name}' cannot be loaded ({reason}): check its name and the network, "
            "or name a file"
        ) from None


@contextlib.contextmanager
def _datasets() -> Iterator[Any]:
    """The `datasets` module, kept from printing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import datasets

        loggers = [logging.getLogger(name) for name in ("datasets", "huggingface_hub")]
        levels = [logger.level for logger in loggers]
        had_bars = datasets.is_progress_bar_enabled()
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        datasets.disable_progress_bars()
        try:
            yield datasets
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
            if had_bars:
                datasets.enable_progress_bars()


def _numbers(name: str, table: Mapping[str, Any], columns: Sequence[str]) -> Arrays:
    """The named columns of `table` as numbers; raises UsageError, calling the table `name`."""
    for column in columns:
        if column not in table:
            raise UsageError(f"{name} lacks the column {column!r}: it has {', '.join(map(str, table))}")
    numbers = {column: _number(name, column, np.asarray(table[column])) for column in columns}
    lengths = {column: len(values) for column, values in numbers.items()}
    if len(set(lengths.values())) > 1:
        raise UsageError(f"{name} has columns of unequal lengths, {lengths}: give one value a row")
    return numbers


def _number(name: str, column: str, values: NDArray[Any]) -> NDArray[np.float64]:
    """One column as numbers; raises UsageError for the first row that holds none."""
    if values.ndim != 1:
        raise UsageError(f"{name}: column {column!r} has the shape {values.shape}: give one number a row")
    try:
        numbers = values.astype(np.float64)
    except (TypeError, ValueError):
        numbers = np.array([_parsed(value) for value in values])
    bad = ~np.isfinite(numbers)
    if bad.any():
        row = int(bad.argmax())
        value = values[row]
        absent = value is None or value != value or (isinstance(value, str) and not value.strip())
        found = "nothing" if absent else repr(str(value))
        raise UsageError(
            f"{name}: column {column!r} has {found} in data row {row + 1}: "
            "put a finite number there or leave out the row"
        )
    return numbers


def _parsed(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return np.nan
