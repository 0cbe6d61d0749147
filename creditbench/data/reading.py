"""Data from files and from the Hugging Face hub: read once through `datasets`, then from a cache.

The same functions read embedded data, a user's file and a hub data set. They return NumPy arrays.

    read_table(source, columns)   columns of numbers, of hourly rows
    read_text(source)             a text, as its UTF-8 bytes
    read_images(source)           images of one size with their classes

`source` is the path of a .csv, .parquet, .npz or .txt file; or `hf:OWNER/NAME` or `hf:OWNER/NAME:CONFIG`, a
data set of the hub; or `hf:FOLDER` or `hf:FOLDER:CONFIG`, a local folder laid out as one. Files are data and
never run: no pickle is loaded, no packed file is unpacked, and data of more than `LIMIT` bytes are refused. A
faulty source raises a `UsageError` that names it. Data that can be read but look wrong, such as an image that
is there twice, give a note: see `noting`.

`datasets` takes about a second to import, so it is imported only when a file is read for the first time. The
arrays are kept under the fingerprint of the file's content and memory-mapped from there without a copy. They
lie in the folder that the environment variable CREDITBENCH_CACHE names (default: ~/.cache/creditbench). The
folder can be removed at any time.
"""

from __future__ import annotations

import codecs
import contextlib
import contextvars
import csv
import dataclasses
import hashlib
import json
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

from creditbench.data import hours, pictures
from creditbench.data.numbers import joined, numbers
from creditbench.errors import UsageError
from creditbench.machine.folders import cache_folder

Arrays = dict[str, NDArray[Any]]
Splits = Mapping[str, Mapping[str, Any]]  #: split -> column -> its values

#: The most bytes of a file, and of the data in it.
LIMIT = 1 << 30
_FORMAT = 3  # part of every cache key here: goes up when the cached arrays would change
_KINDS = {".csv": "csv", ".parquet": "parquet", ".npz": "npz", ".txt": "text"}
_BEGINNINGS = {"parquet": b"PAR1", "npz": b"PK\x03\x04"}
#: gzip, zip, bzip2, xz, zstandard, lz4, 7z, rar: `datasets` would unpack such a file, whatever its name.
_PACKED = (
    b"\x1f\x8b",
    b"PK\x03\x04",
    b"BZh",
    b"\xfd7zXZ",
    b"(\xb5/\xfd",
    b"\x04\x22\x4d\x18",
    b"7z\xbc\xaf",
    b"Rar!",
)
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_PIECE = 1 << 20  # bytes of a text that are decoded at once
_LONGEST_REASON = 400
_HUB = "hf:"


# -- the cache -------------------------------------------------------------------------------------------


def cached(key: str, make: Callable[[], Mapping[str, NDArray[Any]]]) -> Arrays:
    """The arrays that `make` returns, by name. They are kept on disk under `key`, a plain file name.

    Arrays from the cache are memory-mapped and read-only. The entry is written whole or not at all, so
    processes can share the cache. A cache that cannot be read or written costs only time.
    """
    entry = cache_folder() / key
    with contextlib.suppress(OSError, ValueError, EOFError):
        names = json.loads((entry / "names.json").read_text(encoding="utf-8"))
        # A memory map of no bytes is an error, so an empty array is read.
        return {name: _mapped(entry / f"{number}.npy") for number, name in enumerate(names)}
    arrays = dict(make())
    with contextlib.suppress(OSError):
        entry.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=entry.parent, prefix=f".{key}-") as folder:
            whole = Path(folder) / "entry"
            whole.mkdir()
            for number, array in enumerate(arrays.values()):
                np.save(whole / f"{number}.npy", array, allow_pickle=False)
            (whole / "names.json").write_text(json.dumps(list(arrays)), encoding="utf-8")
            if entry.exists():  # it is broken, or another process was quicker
                entry.rename(Path(folder) / "before")
            whole.rename(entry)
    return arrays


def _mapped(path: Path) -> NDArray[Any]:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    return array.view(np.ndarray) if array.size else np.array(array)


# -- the functions that read -----------------------------------------------------------------------------


@dataclasses.dataclass
class Seen:
    """A record of what was read."""

    #: The sha256 of the values read from a hub data set, over all splits read. It does not depend on the
    #: place of the data set, nor on the order in which a task takes its rows.
    sha256: set[str] = dataclasses.field(default_factory=set)
    #: remarks on the data; each names its source
    notes: list[str] = dataclasses.field(default_factory=list)


_seen: contextvars.ContextVar[Seen | None] = contextvars.ContextVar("_seen", default=None)


@contextlib.contextmanager
def noting(seen: Seen) -> Iterator[None]:
    """Record in `seen` what is read in this context."""
    before = _seen.set(seen)
    try:
        yield
    finally:
        _seen.reset(before)


def _note(arrays: Arrays, seen: Seen) -> None:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(repr((name, array.dtype.str, array.shape)).encode())
        digest.update(array.tobytes())
    seen.sha256.add(digest.hexdigest())


def absolute(source: str) -> str:
    """`source` with an absolute path, so that it names the same data from any working folder."""
    if not source.startswith(_HUB):
        return str(Path(source).expanduser().resolve())
    name, config = _hub_name(source)
    if not _is_folder(name):
        return source
    return f"{_HUB}{Path(name).expanduser().resolve()}" + (f":{config}" if config else "")


def read_table(source: str | os.PathLike[str], columns: Sequence[str]) -> Arrays:
    """The named columns of a table of hourly rows, each float64 [rows] and finite, in the order of the rows.

    A hub data set gives its train split. The first other column that holds dates gives the time of each row.
    Further columns are not read. Raises UsageError if the source is missing or cannot be read, or lacks a
    column; if a value is not a finite number, or is a mark of a missing value such as -9999; and if rows are
    not in the order of time, or not an hour apart. Messages count rows from 1, without the header.
    """

    def table(name: str, splits: Splits, notes: list[str]) -> Arrays:
        found = numbers(name, splits["train"], columns)
        notes += hours.require_hours(name, splits["train"], found)
        return found

    return _read(source, f"table {tuple(columns)}", ("csv", "parquet", "npz"), table)


def read_text(source: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """A text as its UTF-8 bytes: a .txt file, or the column `text` of a table.

    A hub data set gives its train split. The rows of a column are joined with a space. Raises UsageError if
    there is no such text.
    """

    def text(name: str, splits: Splits, notes: list[str]) -> Arrays:
        train = splits["train"]
        whole = train["text"] if isinstance(train.get("text"), bytes) else None
        return {"text": joined(name, train) if whole is None else np.frombuffer(whole, np.uint8)}

    return _read(source, "text", ("text", "csv", "parquet"), text)["text"]


def read_images(source: str | os.PathLike[str]) -> Arrays:
    """Images of one size with their classes: `train_pixels` [N, P] and `train_labels` [N].

    Pixels are uint8 or float32; classes count from 0. The classes are the column `label`. The pixels are the
    column `image` (images, or arrays of one shape). Without it they are all other columns in their order,
    except pandas' row numbers. A hub data set with a test split also gives `test_pixels` and `test_labels`.
    So does an .npz file with `x_train`, `y_train`, `x_test` and `y_test`, the names of MNIST in Keras. Raises
    UsageError if there are no such images.
    """

    def images(name: str, splits: Splits, notes: list[str]) -> Arrays:
        arrays: Arrays = {}
        for split, table in _keras(splits).items():
            pixels, labels = pictures.images(f"{name}, {split}," if len(splits) > 1 else name, table, notes)
            arrays |= {f"{split}_pixels": pixels, f"{split}_labels": labels}
        pictures.require_splits(name, arrays, notes)
        return arrays

    return _read(source, "images", ("csv", "parquet", "npz"), images)


def _keras(splits: Splits) -> Splits:
    """The splits of a file of Keras under the names used here. The splits of other files stay as they are."""
    train = splits["train"]
    if not train.keys() >= {"x_train", "y_train", "x_test", "y_test"}:
        return splits
    return {
        split: {"image": train[f"x_{split}"], "label": train[f"y_{split}"]} for split in ("train", "test")
    }


def _read(
    source: str | os.PathLike[str],
    what: str,
    kinds: Sequence[str],
    take: Callable[[str, Splits, list[str]], Arrays],
) -> Arrays:
    """The arrays of `take(name, splits, notes)`, cached under the content's fingerprint with the notes.

    name: the source's name in messages. `take` adds its remarks to `notes`.
    """
    if str(source).startswith(_HUB):
        name, fingerprint, splits = _from_hub(str(source))
        digest = hashlib.sha256(repr((_FORMAT, what, fingerprint)).encode())
        return _taken(name, digest.hexdigest(), splits, take)
    path = Path(source).expanduser()
    kind = _KINDS.get(path.suffix.lower() or ".txt")  # the file text8 is a text without an ending
    if kind is None or kind not in kinds:
        endings = ", ".join(suffix for suffix, known in _KINDS.items() if known in kinds)
        raise UsageError(
            f"data file '{path}' ends in {path.suffix!r}: name a file that ends in {endings}, not packed, "
            "or a hub data set as hf:OWNER/NAME"
        )
    try:
        # A read from a pipe would wait for its writer.
        if path.exists() and not path.is_file():
            raise UsageError(f"data file '{path}' is no regular file: name one that is")
        with path.open("rb") as file:
            _check_size(f"data file '{path}'", path.stat().st_size)
            digest = hashlib.file_digest(file, "sha256")
    except FileNotFoundError:
        raise UsageError(f"data file '{path}' does not exist: check the path") from None
    except OSError as error:
        raise UsageError(
            f"data file '{path}' cannot be opened ({error.strerror}): name a file that can be read"
        ) from None
    digest.update(repr((_FORMAT, what, kind)).encode())
    name = f"data file '{path}'"
    return _taken(name, digest.hexdigest(), lambda: {"train": _from_file(path, kind, what)}, take)


def _taken(
    name: str, key: str, splits: Callable[[], Splits], take: Callable[[str, Splits, list[str]], Arrays]
) -> Arrays:
    """The arrays of `take` on the splits, from the cache if they are there. Records them in `Seen`."""

    def make() -> Arrays:
        notes: list[str] = []
        arrays = take(name, splits(), notes)
        return arrays | {"notes": np.array(notes, np.str_)}

    arrays = cached(f"data-{key[:32]}", make)
    notes = arrays.pop("notes")
    if (seen := _seen.get()) is not None:
        if name.startswith("hub"):
            _note(arrays, seen)
        seen.notes += (f"{name}: {note}" for note in notes)
    return arrays


def _check_size(name: str, size: int) -> None:
    if size > LIMIT:
        raise UsageError(
            f"{name} has {size:,} bytes of data, more than the {LIMIT:,} that are read: take a part of it"
        )


# -- files -----------------------------------------------------------------------------------------------


def _from_file(path: Path, kind: str, what: str) -> Mapping[str, Any]:
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
        with _datasets() as datasets, tempfile.TemporaryDirectory() as folder:
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
            return _columns(
                datasets.load_dataset(kind, data_files=str(copy), split="train", cache_dir=folder, **options),
                alone=True,
            )
    except (UsageError, MemoryError):
        raise
    except Exception as error:  # decoders raise any kind of error on broken bytes
        raise UsageError(
            f"data file '{path}' cannot be read as {kind} ({_reason(error)}): mend the file or name another"
        ) from None


def _reason(error: Exception) -> str:
    """The cause of an error, in a few words."""
    cause = error.__cause__ or error
    return " ".join(str(cause).split())[:_LONGEST_REASON] or type(cause).__name__


def _check_beginning(path: Path, kind: str) -> None:
    """Raise ValueError for a file of another kind than its name says: packed, or not text."""
    with path.open("rb") as file:
        beginning = file.read(4096)
    if kind in _BEGINNINGS:
        if not beginning.startswith(_BEGINNINGS[kind]):
            raise ValueError(f"it does not begin as a file of the kind {kind} does")
    elif beginning.startswith(_PACKED):
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
    _check_size(f"data file '{path}'", total)


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
    _check_size(f"data file '{path}'", size)


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


def _columns(dataset: Any, alone: bool) -> Mapping[str, Any]:
    """The columns of one split. Images are decoded. Numbers are not copied where Arrow allows it.

    alone: whether images must lie in the data themselves; otherwise paths are allowed.
    """
    columns: dict[str, Any] = {}
    for name, feature in dataset.features.items():
        if name == "image" and _is_packed(feature):
            # Other programs write images of the hub back in this form.
            with _datasets() as datasets:
                dataset = dataset.cast_column(name, datasets.Image())
            feature = dataset.features[name]
        if type(feature).__name__ == "Image":
            columns[name] = pictures.decoded(name, dataset, LIMIT, alone)
            continue
        chunks = dataset.data.column(name).chunks
        plain = len(chunks) == 1 and chunks[0].null_count == 0 and chunks[0].type.num_fields == 0
        try:
            columns[name] = chunks[0].to_numpy(zero_copy_only=True) if plain else None
        except ValueError:  # text, booleans
            columns[name] = None
        if columns[name] is None:
            columns[name] = dataset.data.column(name).to_numpy()
    return columns


def _is_packed(feature: Any) -> bool:
    """Whether a column holds the bytes of files, or those and their paths."""
    inner = feature.get("bytes") if isinstance(feature, dict) else feature
    return getattr(inner, "dtype", None) in ("binary", "large_binary")


# -- the hub ---------------------------------------------------------------------------------------------


def _hub_name(source: str) -> tuple[str, str | None]:
    """`hf:NAME` or `hf:NAME:CONFIG` as (NAME, CONFIG)."""
    name, _, config = source.removeprefix(_HUB).partition(":")
    return name, config or None


def _is_folder(name: str) -> bool:
    return name.startswith((".", "/", "~")) or Path(name).is_dir()


def _from_hub(source: str) -> tuple[str, str, Callable[[], Splits]]:
    """(name in messages, fingerprint of the content, function that reads the splits) of a hub data set."""
    name, config = _hub_name(source)
    what = f"hub data set '{name}'" + (f", configuration '{config}'," if config else "")
    if not _is_folder(name):
        # `datasets` keeps a fetched data set under its commit, and finds it there without a network.
        loaded = _load(what, name, config, cache_folder() / "hub")
        fingerprint = "-".join(split._fingerprint for split in loaded.values())
        return what, fingerprint, lambda: _hub_columns(what, loaded)

    folder = Path(name).expanduser()
    fingerprint = repr((config, _fingerprint(what, folder)))

    def columns() -> Splits:
        # `datasets` does not notice that a folder has changed, so its cache of one is thrown away.
        with tempfile.TemporaryDirectory() as temporary:
            loaded = _load(what, str(folder), config, Path(temporary))
            return _hub_columns(what, loaded)

    return what, fingerprint, columns


def _hub_columns(what: str, loaded: Mapping[str, Any]) -> Splits:
    try:
        return {split: _columns(part, alone=False) for split, part in loaded.items()}
    except (UsageError, MemoryError):
        raise
    except Exception as error:  # decoders raise any kind of error on broken bytes
        raise UsageError(f"{what} cannot be read ({_reason(error)}): mend it or name another") from None


def _fingerprint(what: str, folder: Path) -> str:
    """The sha256 of a folder's files. Raises UsageError if it is missing, too large or has a packed file."""
    if not folder.is_dir():
        raise UsageError(f"{what} is a folder that does not exist: check the path")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    _check_size(what, sum(path.stat().st_size for path in files))
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            if file.read(8).startswith(_PACKED):
                raise UsageError(f"{what} has a packed file, '{path.relative_to(folder)}': unpack it first")
            file.seek(0)
            digest.update(repr(path.relative_to(folder).as_posix()).encode())
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _load(what: str, name: str, config: str | None, cache: Path) -> dict[str, Any]:
    """The train split, and the test split if there is one."""
    with _datasets() as datasets:
        try:
            loaded = datasets.load_dataset(name, config, cache_dir=str(cache))
        except Exception as error:  # no network, no such data set, no right to it, bad data in it, ...
            offline = datasets.config.HF_HUB_OFFLINE
            raise _not_loaded(what, Path(name).expanduser().is_dir(), offline, cache, error) from None
    splits = {split: loaded[split] for split in ("train", "test") if split in loaded}
    if "train" not in splits:
        raise UsageError(f"{what} has no train split but {', '.join(loaded)}: name one that has")
    _check_size(what, sum(part.data.nbytes for part in splits.values()))
    return splits


def _not_loaded(what: str, local: bool, offline: bool, cache: Path, error: Exception) -> UsageError:
    reason = _reason(error).partition(" Example of usage")[0]
    if "onfig name is missing" in reason or "BuilderConfig" in reason:
        return UsageError(f"{what} cannot be loaded ({reason}): name one as hf:NAME:CONFIG")
    if local:
        return UsageError(f"{what} cannot be loaded ({reason}): mend the folder or name another")
    embedded = "or leave out --data, and the task takes its embedded data"
    if offline:
        return UsageError(
            f"{what} cannot be loaded: HF_HUB_OFFLINE is set and it is not in '{cache}'; fetch it first, "
            f"with the same command and HF_HUB_OFFLINE=0 where there is a network, {embedded}"
        )
    return UsageError(
        f"{what} cannot be loaded ({reason}): check its name and the network, name a file, {embedded}"
    )


@contextlib.contextmanager
def _datasets() -> Iterator[Any]:
    """The `datasets` module, without its printing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # For data of the hub alone; slow to import.
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
