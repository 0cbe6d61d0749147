"""The library `datasets`, which reads tables and the hub, and what is refused of all data."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from creditbench.data import pictures
from creditbench.errors import UsageError

Splits = Mapping[str, Mapping[str, Any]]  #: split -> column -> its values

#: The most bytes of a file, and of the data in it.
LIMIT = 1 << 30
#: gzip, zip, bzip2, xz, zstandard, lz4, 7z, rar: `datasets` would unpack such a file, whatever its name.
PACKED = (
    b"\x1f\x8b",
    b"PK\x03\x04",
    b"BZh",
    b"\xfd7zXZ",
    b"(\xb5/\xfd",
    b"\x04\x22\x4d\x18",
    b"7z\xbc\xaf",
    b"Rar!",
)
_LONGEST_REASON = 400


@contextlib.contextmanager
def quiet_datasets() -> Iterator[Any]:
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


def columns_of(dataset: Any, alone: bool) -> Mapping[str, Any]:
    """The columns of one split. Images are decoded. Numbers are not copied where Arrow allows it.

    alone: whether images must lie in the data themselves; otherwise paths are allowed.
    """
    columns: dict[str, Any] = {}
    for name, feature in dataset.features.items():
        if name == "image" and _is_packed(feature):
            # Other programs write images of the hub back in this form.
            with quiet_datasets() as datasets:
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


def reason_of(error: Exception) -> str:
    """The cause of an error, in a few words."""
    cause = error.__cause__ or error
    return " ".join(str(cause).split())[:_LONGEST_REASON] or type(cause).__name__


def check_size(name: str, size: int) -> None:
    """Raise UsageError for more than `LIMIT` bytes of data."""
    if size > LIMIT:
        raise UsageError(
            f"{name} has {size:,} bytes of data, more than the {LIMIT:,} that are read: take a part of it"
        )
