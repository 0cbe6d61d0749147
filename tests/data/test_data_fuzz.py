"""Any data file is read or refused in one sentence, and soon: CREDITBENCH_FUZZ=2000 pytest FILE."""

from __future__ import annotations

import io
import os
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from creditbench.data import read_images, read_table, read_text
from creditbench.errors import UsageError

EXAMPLES = int(os.environ.get("CREDITBENCH_FUZZ", "10"))
SECONDS = 5.0  # of processor, because others may have the machine
NAMES = ("label", "image", "a", "text", "", "date", "x_train", "y_train", "x_test", "y_test")
READERS: tuple[Callable, ...] = (read_images, read_text, lambda path: read_table(path, ("a", "label")))

fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=EXAMPLES <= 10,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No cache, because everything is read once."""
    (tmp_path / "none").touch()
    monkeypatch.setenv("CREDITBENCH_CACHE", str(tmp_path / "none" / "below"))


def hold(source: Path | str) -> None:
    """It is read as finite numbers, or refused in one sentence that names it."""
    for read in READERS:
        began = time.process_time()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = read(source)
        except UsageError as error:
            said = str(error)
            assert "\n" not in said and ": " in said and len(said) < 1500, said
            assert str(source).removeprefix("hf:") in said, said
        else:
            for array in found.values() if isinstance(found, dict) else [found]:
                assert array.size and np.isfinite(array).all()
        assert time.process_time() - began < SECONDS


def put(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def broken(draw: st.DrawFn, content: bytes) -> bytes:
    """The content, or the same with a part cut off, or a few bytes changed."""
    how = draw(st.sampled_from(["whole", "whole", "cut", "changed"]))
    if how == "cut":
        return content[: draw(st.integers(0, len(content)))]
    changed = bytearray(content)
    if how == "changed" and content:
        for place in draw(st.lists(st.integers(0, len(content) - 1), max_size=5)):
            changed[place] = draw(st.integers(0, 255))
    return bytes(changed)


#: What stands in a table.
VALUES = st.one_of(
    st.integers(-3, 12).map(str),
    st.floats().map(str),
    st.sampled_from(
        ["", "NA", "nan", "-9999", "1e400", "1_0", "1,5", '"', "'", "2015-01-01 03:00", "99.9", "\0", "é"]
    ),
    st.text(max_size=5),
)


@st.composite
def csv_files(draw: st.DrawFn) -> bytes:
    columns = draw(st.lists(st.sampled_from(NAMES) | st.text(max_size=3), min_size=0, max_size=6))
    rows = draw(st.lists(st.lists(VALUES, max_size=7), max_size=30))
    if draw(st.booleans()):  # a sound one, whose rows come again
        count = draw(st.integers(1, 60))
        columns = ["label", "a", *draw(st.lists(st.text(max_size=2), max_size=3, unique=True))]
        rows = [[str(k % 3), str(k * 7 % 5), *("1" for _ in columns[2:])] for k in range(count)]
    comma, end = (
        draw(st.sampled_from([",", ",", ",", ";", "\t"])),
        draw(st.sampled_from(["\n", "\r\n", "\r"])),
    )
    text = end.join(comma.join(row) for row in [columns, *rows])
    encoding = draw(st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1"]))
    return broken(draw, text.encode(encoding, "replace"))


@fuzzed
@given(content=csv_files() | st.binary(max_size=200))
def test_csv(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    hold(put(tmp_path_factory.mktemp("f") / "t.csv", content))


@fuzzed
@given(
    content=st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "replace"))
)
def test_text(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    hold(put(tmp_path_factory.mktemp("f") / "t.txt", content))


SHAPES = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=13)
ARRAYS = st.one_of(
    *(
        arrays.arrays(dtype, SHAPES)
        for dtype in ("u1", "i8", "f4", "f8", "?", "U3", "S2", "c16", "M8[s]", "f2", ">i2")
    ),
    st.integers(1, 40).map(lambda count: np.arange(count) % 4),
    st.integers(1, 40).map(lambda count: np.arange(16 * count, dtype=np.uint8).reshape(count, 4, 4)),
)


@st.composite
def npz_files(draw: st.DrawFn) -> bytes:
    held = draw(st.dictionaries(st.sampled_from([name for name in NAMES if name]), ARRAYS, max_size=5))
    buffer = io.BytesIO()
    (np.savez_compressed if draw(st.booleans()) else np.savez)(buffer, **held)
    if draw(st.booleans()):
        return broken(draw, buffer.getvalue())
    other = io.BytesIO()  # an archive that is sound, of arrays that are not
    with zipfile.ZipFile(buffer) as whole, zipfile.ZipFile(other, "w") as part:
        for name in whole.namelist():
            part.writestr(name, broken(draw, whole.read(name)))
    return other.getvalue()


@fuzzed
@given(content=npz_files())
def test_npz(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    hold(put(tmp_path_factory.mktemp("f") / "t.npz", content))


@st.composite
def pictures(draw: st.DrawFn) -> bytes:
    mode = draw(
        st.sampled_from(["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16", "I", "F", "LAB", "YCbCr", "HSV"])
    )
    kind = draw(st.sampled_from(["PNG", "TIFF", "JPEG", "GIF", "BMP", "WEBP"]))
    size = draw(st.sampled_from([(4, 4), (4, 4), (4, 4), (1, 3), (9, 2)]))
    image = Image.new(mode, size)
    if mode in ("L", "RGB", "RGBA", "LA"):
        values = draw(arrays.arrays("u1", (*size[::-1], len(image.getbands()))))
        image = Image.fromarray(values.squeeze(-1) if mode == "L" else values, mode)
    buffer = io.BytesIO()
    try:
        image.save(buffer, kind)
    except (OSError, KeyError, ValueError):  # a mode that the kind does not have
        Image.new("L", size).save(buffer, "PNG")
    return broken(draw, buffer.getvalue())


@st.composite
def parquet_files(draw: st.DrawFn) -> bytes:
    count = draw(st.integers(0, 14))

    def of(values: st.SearchStrategy) -> list:
        return draw(st.lists(values, min_size=count, max_size=count))

    def column() -> list:
        inner = draw(
            st.sampled_from(
                [
                    st.none() | st.integers(-3, 12),
                    st.floats(width=32) | st.none(),
                    st.text(max_size=4) | st.none(),
                    st.booleans(),
                    st.datetimes(),
                    st.dates(),
                    st.lists(st.integers(0, 9), max_size=3),
                    st.lists(st.lists(st.integers(0, 9), min_size=2, max_size=2), min_size=2, max_size=2),
                    st.fixed_dictionaries({"bytes": pictures(), "path": st.none()}),
                    st.fixed_dictionaries({"bytes": pictures() | st.none(), "path": st.text(max_size=3)}),
                    st.fixed_dictionaries({"x": st.integers(0, 3)}),
                    pictures() | st.none(),
                    st.binary(max_size=9),
                    st.decimals(allow_nan=False, allow_infinity=False, places=2, min_value=-99, max_value=99),
                ]
            )
        )
        return of(inner)

    table = {name: column() for name in draw(st.lists(st.sampled_from(NAMES), max_size=4, unique=True))}
    if draw(st.booleans()):
        table["label"] = [k % 3 for k in range(count)]
    try:
        made = pyarrow.table(table)
    except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError):
        made = pyarrow.table({"label": [1, 2]})
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(made, buffer)
    return broken(draw, buffer.getvalue())


@fuzzed
@given(content=parquet_files())
def test_parquet(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    hold(put(tmp_path_factory.mktemp("f") / "t.parquet", content))


@fuzzed
@given(files=st.lists(st.tuples(st.sampled_from(["0", "1", "2", "x y"]), pictures()), max_size=12))
def test_a_folder_of_pictures(
    tmp_path_factory: pytest.TempPathFactory, files: list[tuple[str, bytes]]
) -> None:
    folder = tmp_path_factory.mktemp("f") / "pictures"
    folder.mkdir()
    for number, (label, content) in enumerate(files):
        (folder / label).mkdir(exist_ok=True)
        put(folder / label / f"{number}.png", content)
    hold(f"hf:{folder}")


def test_a_series_of_fuzz_reads_something(tmp_path: Path) -> None:
    """Some of the generated files are read; otherwise the tests would say nothing about reading."""
    frame = pd.DataFrame({"label": np.arange(30) % 3, "a": np.arange(30) * 7 % 5})
    frame.to_csv(tmp_path / "t.csv", index=False)
    assert read_images(tmp_path / "t.csv")["train_pixels"].shape == (30, 1)
    assert list(read_table(tmp_path / "t.csv", ("a", "label"))) == ["a", "label"]
