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

import contextlib
import contextvars
import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from creditbench.data import hours, pictures
from creditbench.data.files import from_file
from creditbench.data.hub import HUB, from_hub
from creditbench.data.loading import Splits, check_size
from creditbench.data.numbers import joined, numbers
from creditbench.errors import UsageError
from creditbench.machine.folders import cache_folder

Arrays = dict[str, NDArray[Any]]

_FORMAT = 3  # part of every cache key here: goes up when the cached arrays would change
_KINDS = {".csv": "csv", ".parquet": "parquet", ".npz": "npz", ".txt": "text"}


# -- the cache -------------------------------------------------------------------------------------------


def cached(key: str, make: Callable[[], Mapping[str, NDArray[Any]]]) -> Arrays:
    """The arrays that `make` returns, by name. They are kept on disk under `key`, a plain file name.

    Arrays from the cache are memory-mapped and read-only. The entry is written whole or not at all, so
    processes can share the cache. A cache that cannot be read or written costs only time.

    >>> import numpy as np
    >>> cached("example-of-squares", lambda: {"squares": np.arange(4) ** 2})["squares"].tolist()
    [0, 1, 4, 9]
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
    """A record of what was read.

    >>> Seen()
    Seen(sha256=set(), notes=[])
    """

    #: The sha256 of the values read from a hub data set, over all splits read. It does not depend on the
    #: place of the data set, nor on the order in which a task takes its rows.
    sha256: set[str] = dataclasses.field(default_factory=set)
    #: remarks on the data; each names its source
    notes: list[str] = dataclasses.field(default_factory=list)


_seen: contextvars.ContextVar[Seen | None] = contextvars.ContextVar("_seen", default=None)


@contextlib.contextmanager
def noting(seen: Seen) -> Iterator[None]:
    """Record in `seen` what is read in this context.

    >>> with noting(seen := Seen()):
    ...     _ = read_text("book.txt")
    >>> len(seen.sha256), seen.notes                                # only a hub data set has a sha256
    (0, [])
    """
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


def read_table(source: str | os.PathLike[str], columns: Sequence[str]) -> Arrays:
    """The named columns of a table of hourly rows, each float64 [rows] and finite, in the order of the rows.

    A hub data set gives its train split. The first other column that holds dates gives the time of each row.
    Further columns are not read. Raises UsageError if the source is missing or cannot be read, or lacks a
    column; if a value is not a finite number, or is a mark of a missing value such as -9999; and if rows are
    not in the order of time, or not an hour apart. Messages count rows from 1, without the header.

    >>> read_table("hours.csv", ["T"])["T"].tolist()
    [1.5, 2.5]
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

    >>> bytes(read_text("book.txt"))
    b'to be'
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

    >>> _ = Path("digits.csv").write_text("label,p0,p1\\n1,0,255\\n0,255,0\\n")
    >>> found = read_images("digits.csv")
    >>> found["train_pixels"].shape, found["train_labels"].tolist()
    ((2, 2), [1, 0])
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
    if str(source).startswith(HUB):
        name, fingerprint, splits = from_hub(str(source))
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
            check_size(f"data file '{path}'", path.stat().st_size)
            digest = hashlib.file_digest(file, "sha256")
    except FileNotFoundError:
        raise UsageError(f"data file '{path}' does not exist: check the path") from None
    except OSError as error:
        raise UsageError(
            f"data file '{path}' cannot be opened ({error.strerror}): name a file that can be read"
        ) from None
    digest.update(repr((_FORMAT, what, kind)).encode())
    name = f"data file '{path}'"
    return _taken(name, digest.hexdigest(), lambda: {"train": from_file(path, kind, what)}, take)


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
