"""Images and their classes, from the columns of a table."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from creditbench.data.numbers import listed, number, numbers, require
from creditbench.errors import UsageError

ROWS = 12  # so many numbers do not rise or count by chance
COUNTS = 0.95  # in a column that counts rows, this share of the steps between rows is the same
LEVELS = 256  # of a pixel; a column with more values than that, each once, is not a pixel
BRIGHTER = 50.0  # the largest ratio between the brightest pixels of the training and the test images
FEW = 10  # images of a class; with fewer, a split may have none
MOST = 0.9  # the largest share of images of one class without a note

#: Modes of Pillow with more than 8 bits per pixel. Its conversion to grey would cut them off.
_DEEP = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")


# -- packed images ---------------------------------------------------------------------------------------


def decoded(column: str, dataset: Any, limit: int, local: bool) -> NDArray[Any]:
    """The images of a column of a `datasets.Dataset`, as brightness [N, H, W].

    They are uint8, or keep the type of deeper images. The result is an object array if the sizes differ.
    limit: the most bytes that the images may take. local: whether an image must lie in the table itself.
    Raises ValueError for an image that is missing, broken or transparent, or of another depth.
    """
    images: list[NDArray[Any]] = []
    total = 0
    for row, image in enumerate(_opened(column, dataset, local), start=1):
        total += image.width * image.height * 4
        if total > limit:
            raise ValueError(
                f"its images take more than the {limit:,} bytes that are read: take a part of it"
            )
        try:
            images.append(_brightness(image))
        except UsageError:
            raise
        except Exception as error:  # decoders raise any kind of error on broken bytes
            raise _broken(column, row, error) from None
        if images[-1] is None:
            raise ValueError(
                f"the image in data row {row} is transparent in places: lay it on a background of one colour"
            )
    depths = sorted({image.dtype.name for image in images})
    if len(depths) > 1:
        raise ValueError(f"its images are {' and '.join(depths)}: save all of them with one depth")
    if len({image.shape for image in images}) != 1:
        return np.array([None] * len(images))
    return np.stack(images)


def _opened(column: str, dataset: Any, local: bool) -> Iterator[Any]:
    """Each image, not yet decoded if possible."""
    # For folders of pictures alone; slow to import.
    import datasets
    import PIL.Image

    decoder = dataset.features[column]
    for row, cell in enumerate(dataset.cast_column(column, datasets.Image(decode=False))[column], start=1):
        if cell is None or (cell["bytes"] is None and (local or not cell["path"])):
            raise ValueError(
                f"column {column!r} has no image in data row {row}: put one there or leave out the row"
            )
        try:
            # `datasets` opens a path, because it knows the folder.
            yield (
                decoder.decode_example(cell)
                if cell["bytes"] is None
                else PIL.Image.open(io.BytesIO(cell["bytes"]))
            )
        except Exception as error:
            raise _broken(column, row, error) from None


def _broken(column: str, row: int, error: Exception) -> ValueError:
    said = " ".join(str(error).split())[:100] or type(error).__name__
    return ValueError(f"the image of column {column!r} in data row {row} cannot be decoded ({said})")


def _brightness(image: Any) -> Any:
    """The pixels [H, W]; None for an image with transparent pixels."""
    # For folders of pictures alone; slow to import.
    import PIL.ImageOps

    image.load()
    image = PIL.ImageOps.exif_transpose(image)
    if image.mode in _DEEP:
        pixels = np.asarray(image)
        return pixels.astype(pixels.dtype.newbyteorder("="))
    if image.has_transparency_data and np.asarray(image.convert("RGBA"))[..., 3].min() < 255:
        return None
    return np.asarray(image.convert("L"))


# -- pixels and classes ----------------------------------------------------------------------------------


def images(name: str, table: Mapping[str, Any], notes: list[str]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Pixels [N, P], uint8 or float32, and classes [N] of a table. Messages name it `name`.

    Adds remarks on them to `notes`. Raises UsageError if there are no such images.
    """
    require(name, table, "label")
    labels = _classes(name, np.asarray(table["label"]))
    pixels = _packed(name, table["image"], notes) if "image" in table else _spread(name, table, labels, notes)
    if len(pixels) != len(labels):
        raise UsageError(f"{name} has {len(pixels)} images and {len(labels)} labels: give one label an image")
    if not pixels.size:
        raise UsageError(f"{name} has no image with a pixel in it: name another")
    if pixels.dtype.kind not in "buif" or not np.isfinite(pixels).all():
        raise UsageError(f"{name}: its images hold something else than finite numbers: give brightnesses")
    if pixels.dtype != np.uint8:
        with np.errstate(over="ignore"):
            pixels = pixels.astype(np.float32)
        if not np.isfinite(pixels).all():
            raise UsageError(f"{name}: its images hold numbers too large for float32: give brightnesses")
    return pixels, labels


def _classes(name: str, values: NDArray[Any]) -> NDArray[np.int64]:
    """The column `label` as classes."""
    labels = number(name, "label", values, "a class as 0, 1, 2, ...")
    if not len(labels):
        raise UsageError(f"{name} has no rows of data: name another")
    bad = (labels != np.floor(labels)) | (labels < 0) | (labels > 2**31)
    if bad.any():
        row = int(bad.argmax())
        raise UsageError(
            f"{name}: column 'label' has {labels[row]:g} in it, in data row {row + 1}: give classes as 0, 1, "
            "2, ..."
        )
    return labels.astype(np.int64)


def _packed(name: str, values: Any, notes: list[str]) -> NDArray[Any]:
    """The pixels of a column of images or of arrays."""
    values = np.asarray(values)
    if values.dtype == object:
        try:
            # Lists of equal lengths, nested or not, become one array.
            values = np.array([np.array(_plain(value), np.float64) for value in values])
        except (TypeError, ValueError):
            raise UsageError(
                f"{name}: column 'image' has images of unequal sizes, or something else than images: "
                "give images of one size"
            ) from None
    if values.ndim < 2 or not len(values):
        raise UsageError(
            f"{name}: column 'image' has the shape {values.shape}: give an image a row, [rows, height, width]"
        )
    if values.ndim == 4 and values.shape[-1] in (3, 4):
        notes.append(
            f"its images have {values.shape[-1]} numbers a pixel, which are read one after another, as pixels"
        )
    return values.reshape(len(values), -1)


def _plain(value: Any) -> Any:
    """An array of arrays as a list of lists."""
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, bool | int | float | np.number):
        return value
    raise TypeError


def _spread(
    name: str, table: Mapping[str, Any], labels: NDArray[np.int64], notes: list[str]
) -> NDArray[np.float64]:
    """The pixels of a table with one column per pixel. Columns that count the rows are left out."""
    others = [column for column in table if column != "label"]
    if not others:
        raise UsageError(f"{name} lacks the column 'image': it has {listed(table)}")
    for column in others:
        if np.ndim(table[column]) > 1:
            raise UsageError(
                f"{name}: column {column!r} has the shape {np.shape(table[column])}: call it 'image' if it is"
            )
    columns = numbers(name, table, others)
    counting = {column: how for column, values in columns.items() if (how := _counts(column, values))}
    once = [column for column, how in counting.items() if how == "once"]
    if len(once) > len(others) / 2:  # pixels with many levels, in few images
        counting = {column: how for column, how in counting.items() if how != "once"}
    for column in list(counting):
        if _is_unnamed(column):
            notes.append(f"column {column!r} counts the rows, and is not read as a pixel")
            del columns[column]
        else:
            raise UsageError(
                f"{name}: column {column!r} tells one row from another ({_some(columns[column])}), and is no "
                "pixel: leave out the column"
            )
    for column, values in columns.items():
        if len(values) == len(labels) and len(values) >= ROWS and (values == labels).all() and np.ptp(labels):
            raise UsageError(
                f"{name}: column {column!r} is the column 'label' again, and is no pixel: leave it out"
            )
    if not columns:
        raise UsageError(f"{name} has no column of pixels: it has {listed(table)}")
    return np.stack(list(columns.values()), axis=1)


def _is_unnamed(column: str) -> bool:
    """Whether pandas writes or reads an index without a name under this column name."""
    return column in ("", "index") or column.startswith(("Unnamed: ", "__index_level_"))


def _counts(column: str, values: NDArray[np.float64]) -> str:
    """How a column identifies rows: it "rises" or "counts" with them, has each number "once", or ""."""
    if len(values) < (2 if _is_unnamed(column) else ROWS):
        return ""
    steps = np.diff(values)
    if (steps > 0).all() or (steps < 0).all():
        return "rises"
    whole = (values == np.floor(values)).all()
    usual = np.median(steps)
    if usual and (steps == usual).mean() >= COUNTS:
        return "counts"
    if not whole or np.ptp(values) < len(values) - 1 or len(np.unique(values)) < len(values):
        return ""
    if len(set(np.diff(np.sort(values)))) == 1 or _is_unnamed(column):
        return "counts"
    return "once" if len(values) > LEVELS else ""


def _some(values: NDArray[np.float64]) -> str:
    return ", ".join(f"{value:g}" for value in values[:3]) + ", ..."


# -- checks over all splits ------------------------------------------------------------------------------


def require_splits(name: str, arrays: Mapping[str, NDArray[Any]], notes: list[str]) -> None:
    """Raise UsageError, naming the data `name`, for splits that do not fit each other. Note odd ones.

    arrays: `train_pixels` [N, P] and `train_labels` [N]; the same of `test` if it is a split of its own.
    """
    widths = {split: array.shape[1] for split, array in arrays.items() if array.ndim == 2}
    if len(set(widths.values())) > 1:
        raise UsageError(f"{name} has images of unequal sizes, {widths}: give images of one size")
    _tell_classes(name, arrays, notes)
    twins = _twins(arrays["train_pixels"])
    if twins.any():
        notes.append(
            f"{int(twins.sum())} of its {len(twins)} {'training ' if 'test_pixels' in arrays else ''}images "
            "are those of an earlier row again: what is trained on may come again in another split"
        )
    if "test_pixels" not in arrays:
        return
    train, test = (float(arrays[f"{split}_pixels"].max()) for split in ("train", "test"))
    if train > 0 and test > 0 and not 1 / BRIGHTER <= test / train <= BRIGHTER:
        raise UsageError(
            f"{name}: the brightest pixel of test is {test:g} where that of train is {train:g}: give both on "
            "one scale"
        )
    seen = _twins(np.concatenate([arrays["train_pixels"], arrays["test_pixels"]]))[len(twins) :]
    own = _twins(arrays["test_pixels"])
    if shared := int((seen & ~own).sum()):
        notes.append(f"{shared} of its {len(seen)} test images are training images too")


def _tell_classes(name: str, arrays: Mapping[str, NDArray[Any]], notes: list[str]) -> None:
    labels = arrays["train_labels"]
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) == 1 and len(labels) >= FEW:
        raise UsageError(
            f"{name}: all its training images are of class {classes[0]}: give two classes or more"
        )
    if counts.max() > MOST * counts.sum():
        notes.append(f"{counts.max()} of its {counts.sum()} images are of class {classes[counts.argmax()]}")
    if few := [f"{label} ({count})" for label, count in zip(classes, counts, strict=True) if count < FEW]:
        notes.append(f"it has fewer than {FEW} images of class {listed(few)}: not every split has some")
    if missing := sorted(set(range(int(classes[-1]))) - set(classes.tolist()))[: FEW + 1]:
        notes.append(f"it has no image of class {listed(missing)}")
    if "test_labels" in arrays and (
        new := sorted(set(arrays["test_labels"].tolist()) - set(classes.tolist()))
    ):
        notes.append(f"its test images have the class {listed(new)}, of which no image trains")


def _twins(pixels: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether each image repeats that of an earlier row."""
    seen: set[bytes] = set()
    found = np.zeros(len(pixels), bool)
    for row, image in enumerate(np.ascontiguousarray(pixels)):
        digest = hashlib.blake2b(image, digest_size=16).digest()
        found[row] = digest in seen
        seen.add(digest)
    return found
