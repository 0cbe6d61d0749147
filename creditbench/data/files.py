"""A file of a user, as columns: csv, Parquet, npz or text. It is data, and never run."""

from __future__ import annotations

import codecs
import csv
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from creditbench.data.loading import PACKED, check_size, columns_of, quiet_datasets, reason_of
from creditbench.errors import UsageError

_BEGINNINGS = {"parquet": b"PAR1", "npz": b"PK\x03\x04"}
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_PIECE = 1 << 20  # bytes of a text that are decoded at once


def from_file(path: Path, kind: str, what: str) -> Mapping[str, Any]:
    """The columns of a file, unchecked."""
    try:
        _check_beginning(path, kind)
        if kind == "npz":
            _check_npz(path)
            with np.load(path, allow_pickle=False) as arrays:
                return dict(arrays)
        if kind == "text":
            return {"text": _text(path)}
        if kind == "parquet":
            _check_parquet(path)
        with quiet_datasets() as datasets, tempfile.TemporaryDirectory() as folder:
            # A copy, because `datasets` takes brackets and stars in a path for a pattern.
            copy = shutil.copyfile(path, Path(folder) / f"table.{kind}")
            options: dict[str, Any] = {}
            if kind == "csv":
                options = {
                    "keep_default_na": False,
                    # A comma at the end of every line would otherwise shift the columns by one.
                    "index_col": False,
                }
                header = _header(copy)
                if what != "images":  # tables of pixels have too many columns for this, and need it less
                    # As text: a column of numbers would change its type at the first bad row.
                    text = {column: datasets.Value("string") for column in header}
                    options["features"] = datasets.Features(text)
            return columns_of(
                datasets.load_dataset(kind, data_files=str(copy), split="train", cache_dir=folder, **options),
                alone=True,
            )
    except (UsageError, MemoryError):
        raise
    except Exception as error:  # decoders raise any kind of error on broken bytes
        raise UsageError(
            f"data file '{path}' cannot be read as {kind} ({reason_of(error)}): mend the file or name another"
        ) from None


def _check_beginning(path: Path, kind: str) -> None:
    """Raise ValueError for a file of another kind than its name says: packed, or not text."""
    with path.open("rb") as file:
        beginning = file.read(4096)
    if kind in _BEGINNINGS:
        if not beginning.startswith(_BEGINNINGS[kind]):
            raise ValueError(f"it does not begin as a file of the kind {kind} does")
    elif beginning.startswith(PACKED):
        raise ValueError("it is packed: unpack it first")
    elif beginning.startswith(_UTF_16):
        raise ValueError("it is UTF-16: save it as UTF-8")
    elif b"\0" in beginning:
        raise ValueError("it is no text")


def _text(path: Path) -> bytes:
    """A text as UTF-8, with the line ends of Unix. Raises ValueError if it is not a text."""
    whole, decoder = path.read_bytes(), codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(whole), _PIECE):
        decoder.decode(whole[start : start + _PIECE])
    decoder.decode(b"", final=True)
    if not whole.strip():
        raise ValueError("it has no text in it")
    return whole.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in whole else whole


def _check_npz(path: Path) -> None:
    """Refuse arrays that are pickles or too large, by their headers. Raises UsageError or ValueError."""
    total = 0
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            with archive.open(member) as file:
                version = np.lib.format.read_magic(file)
                reader = {(1, 0): np.lib.format.read_array_header_1_0}.get(
                    version, np.lib.format.read_array_header_2_0
                )
                shape, _, dtype = reader(file)
            if dtype.hasobject:
                name = member.filename.removesuffix(".npy")
                raise UsageError(
                    f"data file '{path}': array {name!r} is a pickle of Python objects, which could run "
                    "anything and is not loaded: save plain numbers"
                )
            total += max(member.file_size, int(np.prod(shape, dtype=object)) * dtype.itemsize)
    check_size(f"data file '{path}'", total)


def _check_parquet(path: Path) -> None:
    """Refuse a table that is empty, or too large once unpacked. Reads only its metadata."""
    # For Parquet alone; slow to import.
    import pyarrow.parquet

    metadata = pyarrow.parquet.read_metadata(path)
    if not metadata.num_rows:
        raise ValueError("it has no rows of data")
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    # A column of one repeated value takes almost no room in the file, but 8 bytes a row in memory.
    size = max(sum(g.total_byte_size for g in groups), 8 * metadata.num_rows * metadata.num_columns)
    check_size(f"data file '{path}'", size)


def _header(path: Path) -> list[str]:
    """The column names of a csv file. Raises ValueError if no row follows them."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = (line for line in csv.reader(file) if line)
        header = next(lines, None)
        if header is None or next(lines, None) is None:
            raise ValueError("it has no rows of data")
        for mark in ";\t|":
            if len(header) == 1 and mark in header[0]:
                raise ValueError(
                    f"its columns are separated by {mark!r}: separate them by commas, and write points in "
                    "numbers"
                )
        if len(header) > 1 and all(_is_number(name) for name in header):
            raise ValueError(
                "its first row has numbers where the names of the columns belong: put names there"
            )
        # pandas names a column without a name, such as its own index, in this way.
        names = [name or f"Unnamed: {number}" for number, name in enumerate(header)]
        for number, name in enumerate(names):
            if name in names[:number]:
                raise ValueError(f"it has two columns {name!r}")
        return names


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
