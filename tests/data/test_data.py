"""`creditbench.data`, by which tasks read data."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from creditbench.data.hub import absolute
from creditbench.data.loading import LIMIT, columns_of, quiet_datasets
from creditbench.data.numbers import number
from creditbench.data.reading import cached, read_images, read_table, read_text
from creditbench.errors import UsageError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "a cache"
    monkeypatch.setenv("CREDITBENCH_CACHE", str(folder))
    return folder


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize(
    "text",
    [
        "a,b,c\n1,2.5,x\n-3,4e1,y\n",
        "\ufeffa,b,c\r\n1, 2.5,x\r\n-3,40,y\r\n",
        '"b","a"\n"2.5","1"\n"40.0","-3"\n',
        "a,b\n\n1,2.5,\n-3,40,\n\n",
    ],
    ids=["plain", "windows", "quoted", "trailing commas"],
)
def test_named_columns_come_as_numbers(tmp_path: Path, text: str) -> None:
    found = read_table(write(tmp_path / "odd [1] *name.csv", text), ["b", "a"])
    assert list(found) == ["b", "a"]
    for name, expected in (("a", [1, -3]), ("b", [2.5, 40])):
        assert found[name].dtype == np.float64
        np.testing.assert_array_equal(found[name], expected)


def test_a_table_is_read_once_and_then_from_the_cache(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "t.csv", "a\n1\n2\n")
    first = read_table(path, ["a"])
    assert len(list(cache.iterdir())) == 1
    monkeypatch.setattr("creditbench.data.reading.from_file", lambda *_: pytest.fail("read again"))
    np.testing.assert_array_equal(read_table(path, ["a"])["a"], first["a"])
    moved = write(tmp_path / "moved.csv", path.read_bytes())
    np.testing.assert_array_equal(read_table(moved, ["a"])["a"], first["a"])


def test_a_changed_file_is_read_again(tmp_path: Path, cache: Path) -> None:
    path = write(tmp_path / "t.csv", "a\n1\n2\n")
    stamp = path.stat()
    read_table(path, ["a"])
    write(path, "a\n1\n3\n")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    np.testing.assert_array_equal(read_table(path, ["a"])["a"], [1, 3])


def test_a_broken_cache_entry_is_made_again(tmp_path: Path, cache: Path) -> None:
    path = write(tmp_path / "t.csv", "a\n1\n2\n")
    read_table(path, ["a"])
    (entry,) = cache.iterdir()
    assert sorted(file.name for file in entry.iterdir()) == ["0.npy", "1.npy", "names.json"]
    for file in entry.iterdir():
        whole = file.read_bytes()
        for broken in (b"", b"nonsense", whole[: len(whole) // 2]):
            file.write_bytes(broken)
            np.testing.assert_array_equal(read_table(path, ["a"])["a"], [1, 2])
            assert file.read_bytes() == whole
        file.unlink()
        np.testing.assert_array_equal(read_table(path, ["a"])["a"], [1, 2])
        assert file.read_bytes() == whole and list(cache.iterdir()) == [entry]


def test_what_is_cached_is_memory_mapped_and_cannot_be_changed(cache: Path) -> None:
    arrays = {"of any name/": np.arange(6).reshape(2, 3), "none": np.zeros((0, 2), np.float32)}
    cached("key", lambda: arrays)
    found = cached("key", lambda: pytest.fail("made again"))
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
    assert isinstance(found["of any name/"].base, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        found["of any name/"][0] = 1


def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDITBENCH_CACHE", str(write(tmp_path / "a file", "") / "below"))
    path = write(tmp_path / "t.csv", "a\n1\n2\n")
    np.testing.assert_array_equal(read_table(path, ["a"])["a"], [1, 2])


def test_an_entry_is_never_half_written(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(path, *_, **__):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cached("key", lambda: {"a": np.ones(3)})
    assert list(cache.iterdir()) == []


def test_reading_is_silent_leaves_the_home_alone_and_imports_late(tmp_path: Path) -> None:
    """`datasets` is imported for a file seen the first time, and not for one in the cache."""
    path = write(tmp_path / "t.csv", "a\n1\n2\n")
    code = (
        "import sys; from creditbench.data import read_table\n"
        f"found = read_table({str(path)!r}, ['a'])['a'].tolist()\n"
        "assert found == [1, 2] and ('datasets' in sys.modules) == (sys.argv[1] == 'first')"
    )
    home, folder = tmp_path / "home", tmp_path / "cache"
    home.mkdir()
    names = {"HOME": str(home), "CREDITBENCH_CACHE": str(folder), "PYTHONPATH": str(ROOT)}
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "XDG_"))}
    for turn in ("first", "second"):
        done = subprocess.run(
            [sys.executable, "-c", code, turn], env=kept | names, capture_output=True, text=True
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(home.rglob("*")) == []
    assert [entry.name[:5] for entry in folder.iterdir()] == ["data-"]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("t.csv", "a,b\n1,2\n1,calm\n", "column 'b' has 'calm' in data row 2: put"),
        ("t.csv", "a,b\n" + "1,2\n" * 20_000 + "1,calm\n", "has 'calm' in data row 20001: put"),
        ("t.csv", "a,b\n1,2\n3, \n", "column 'b' has nothing in data row 2: put"),
        ("t.csv", "a,b\n1,2\n3\n", "column 'b' has nothing in data row 2: put"),
        ("t.csv", "a,b\n1,NaN\n", "column 'b' has 'NaN' in data row 1: put"),
        ("t.csv", "a,b\n1,2\n3,inf\n", "column 'b' has 'inf' in data row 2: put"),
        ("t.csv", "a;b\n1;2\n", "its columns are separated by ';': separate them by commas"),
        ("t.csv", "", "cannot be read as csv (it has no rows of data): mend"),
        ("t.csv", "a,b\n", "cannot be read as csv (it has no rows of data): mend"),
        ("t.csv", "a,b\n1,2\n3,4,5\n", "cannot be read as csv (Error tokenizing data."),
        ("t.csv", bytes(range(256)), "cannot be read as csv ("),
        ("t.parquet", "a,b\n1,2\n", "cannot be read as parquet ("),
        ("t.npz", "a,b\n1,2\n", "cannot be read as npz ("),
        ("t.xlsx", "", "ends in '.xlsx': name a file that ends in .csv, .parquet, .npz"),
    ],
)
def test_a_bad_file_is_named_with_the_cure(tmp_path: Path, name: str, text: str | bytes, words: str) -> None:
    path = write(tmp_path / name, text)
    with pytest.raises(UsageError) as error:
        read_table(path, ["a", "b"])
    message = str(error.value)
    assert message.startswith(f"data file '{path}'") and words in message
    assert "\n" not in message and ": " in message


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.csv' does not exist: check the path"):
        read_table(tmp_path / "nowhere.csv", ["a"])
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UsageError, match=r"folder\.csv' is no regular file"):
        read_table(tmp_path / "folder.csv", ["a"])


def test_bad_values_in_other_kinds_are_named(tmp_path: Path) -> None:
    pd.DataFrame({"a": [1.0, None]}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(UsageError, match="column 'a' has nothing in data row 2"):
        read_table(tmp_path / "t.parquet", ["a"])
    np.savez(tmp_path / "deep.npz", a=np.ones((2, 3)))
    with pytest.raises(UsageError, match=r"column 'a' has the shape \(2, 3\)"):
        read_table(tmp_path / "deep.npz", ["a"])
    np.savez(tmp_path / "ragged.npz", a=np.ones(2), b=np.ones(3))
    np.savez(tmp_path / "empty.npz", a=np.ones(0))
    with pytest.raises(UsageError, match="has no rows of data: name another"):
        read_table(tmp_path / "empty.npz", ["a"])
    with pytest.raises(UsageError, match="columns of unequal lengths"):
        read_table(tmp_path / "ragged.npz", ["a", "b"])


# -- bombs and pickles -------------------------------------------------------------------------------------


def refused(path: Path | str, columns: tuple[str, ...] = ("a",)) -> str:
    """The message of the source's refusal, one sentence that names it."""
    with pytest.raises(UsageError) as error:
        read_table(path, columns)
    message = str(error.value)
    assert "\n" not in message and str(path).removeprefix("hf:").partition(":")[0] in message
    return message


def test_a_file_above_the_limit_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    with path.open("wb") as file:
        file.truncate(LIMIT + 1)  # of holes, which take no room
    assert "has 1,073,741,825 bytes of data, more than the 1,073,741,824 that are read" in refused(path)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_packed_csv_is_refused_and_not_unpacked(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    bomb = pack(b"a\n" + b"1\n" * 1_000_000)
    assert len(bomb) < 20_000
    for name in ("t.csv", "t.txt"):
        path = write(tmp_path / name, bomb)
        with pytest.raises(UsageError, match=r"cannot be read as \w+ \(it is packed: unpack it first\)"):
            read_table(path, ["a"]) if name == "t.csv" else read_text(path)
    assert "ends in '.gz': name a file that ends in .csv, .parquet, .npz, not packed" in refused(
        write(tmp_path / "t.csv.gz", bomb)
    )


def test_a_zip_under_another_name_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "t.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("t.csv", "a\n" + "1\n" * 1_000_000)
    bomb = (tmp_path / "t.zip").read_bytes()
    assert "it is packed" in refused(write(tmp_path / "t.csv", bomb))
    assert "it does not begin as a file of the kind parquet does" in refused(
        write(tmp_path / "t.parquet", bomb)
    )


def test_a_small_parquet_file_of_many_rows_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("creditbench.data.loading.LIMIT", 10_000_000)
    import pyarrow
    import pyarrow.parquet

    rows = 10_000_000 // 8 + 1
    with pyarrow.parquet.ParquetWriter(
        tmp_path / "t.parquet", pyarrow.schema([("a", pyarrow.int8())]), compression="zstd"
    ) as writer:
        part = pyarrow.table({"a": pyarrow.array(np.zeros(2**20, np.int8))})
        for _ in range(-(-rows // 2**20)):
            writer.write_table(part)
    assert (tmp_path / "t.parquet").stat().st_size < 10_000
    assert "more than the" in refused(tmp_path / "t.parquet")


def npz(path: Path, header: bytes, body: bytes) -> Path:
    """An archive of one array, made of those bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + body)
    return path


def test_an_npz_that_is_or_claims_to_be_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (%d,), }\n"
    claims = npz(tmp_path / "claims.npz", header % 10**15, b"")
    assert "has 8,000,000,000,000,000 bytes of data" in refused(claims)
    holds = npz(tmp_path / "holds.npz", header % 1, bytes(8))
    read_table(holds, ["a"])
    monkeypatch.setattr("creditbench.data.loading.LIMIT", 10_000_000)
    rows = 10_000_000 // 8 + 1
    zeros = npz(tmp_path / "zeros.npz", header % rows, bytes(8 * rows))
    assert zeros.stat().st_size < 20_000
    assert "more than the" in refused(zeros)


class Trap:
    """Runs code when it is unpickled."""

    sprung = False

    def __reduce__(self):
        return setattr, (Trap, "sprung", True)


def test_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", a=np.array([Trap()], dtype=object), allow_pickle=True)
    assert "array 'a' is a pickle of Python objects, which could run anything" in refused(tmp_path / "t.npz")
    assert "it does not begin as" in refused(write(tmp_path / "bare.npz", pickle.dumps(Trap())))
    np.save(tmp_path / "one.npy", np.ones(2))
    assert "it does not begin as" in refused(write(tmp_path / "one.npz", (tmp_path / "one.npy").read_bytes()))
    assert not Trap.sprung
    pickle.loads(pickle.dumps(Trap()))  # the trap does work
    assert Trap.sprung


@pytest.mark.parametrize(
    "values", [np.array([1 + 2j, 3]), np.array(["2020-01-01"], "M8[D]"), np.array([b"x"])]
)
def test_a_wrong_type_is_named(tmp_path: Path, values: np.ndarray) -> None:
    np.savez(tmp_path / "t.npz", a=values)
    message = refused(tmp_path / "t.npz")
    assert f"column 'a' is of the type {values.dtype}: give" in message or "in data row 1: put" in message


@pytest.mark.parametrize(
    ("text", "words"),
    [("a,a\n1,2\n", "it has two columns 'a'"), ("b\n1\n", "lacks the column 'a': it has b")],
)
def test_columns_named_twice_or_not_at_all(tmp_path: Path, text: str, words: str) -> None:
    assert words in refused(write(tmp_path / "t.csv", text))
    unnamed = write(tmp_path / "unnamed.csv", ",a\n0,1\n1,2\n")  # as pandas writes one
    np.testing.assert_array_equal(read_table(unnamed, ["a"])["a"], [1, 2])


def test_numbers_lie_where_arrow_has_them() -> None:
    """Without a copy, if the column is one stretch without gaps."""
    import datasets

    column = columns_of(datasets.Dataset.from_dict({"a": [1.0, 2.0, 3.0], "b": ["x", "y", "z"]}), True)["a"]
    assert not column.flags.owndata and not column.flags.writeable
    assert number("table", "a", column) is column


# -- the hub -----------------------------------------------------------------------------------------------

CARD = """---
configs:
- config_name: hours
  default: true
  data_files:
  - split: train
    path: hours.csv
- config_name: days
  data_files:
  - split: train
    path: days/*.csv
---
# A table of toys
"""


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """A data set in the layout of the hub, with a card and two configurations."""
    folder = tmp_path / "toys"
    (folder / "days").mkdir(parents=True)
    write(folder / "README.md", CARD)
    write(folder / "hours.csv", "a,b\n1,x\n2,y\n")
    write(folder / "days" / "0.csv", "a\n3.5\n")
    write(folder / "days" / "1.csv", "a\n4.5\n")
    return folder


def test_a_folder_in_the_layout_of_the_hub_is_read(
    hub: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.testing.assert_array_equal(read_table(f"hf:{hub}", ["a"])["a"], [1, 2])
    np.testing.assert_array_equal(read_table(f"hf:{hub}:days", ["a"])["a"], [3.5, 4.5])
    assert "column 'b' has 'x' in data row 1" in refused(f"hf:{hub}", ("b",))
    assert "lacks the column 'c'" in refused(f"hf:{hub}", ("c",))
    assert "BuilderConfig 'weeks' not found" in refused(f"hf:{hub}:weeks")
    monkeypatch.chdir(hub.parent)
    assert absolute("hf:toys:days") == f"hf:{hub}:days" and absolute("hf:./toys") == f"hf:{hub}"
    assert absolute("hf:owner/name:days") == "hf:owner/name:days"
    monkeypatch.setattr("creditbench.data.hub._load", lambda *_: pytest.fail("read again"))
    np.testing.assert_array_equal(read_table("hf:toys", ["a"])["a"], [1, 2])


def test_a_changed_folder_is_read_again(hub: Path, cache: Path) -> None:
    path = hub / "hours.csv"
    read_table(f"hf:{hub}", ["a"])
    stamp = path.stat()
    write(path, "a,b\n1,x\n3,y\n")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    np.testing.assert_array_equal(read_table(f"hf:{hub}", ["a"])["a"], [1, 3])


def test_a_bad_folder_is_named(hub: Path, tmp_path: Path) -> None:
    assert "is a folder that does not exist" in refused(f"hf:{tmp_path}/nowhere")
    write(hub / "hours.csv", "a,b\n1,2\n3,4,5\n")
    assert "cannot be loaded (" in refused(f"hf:{hub}")
    write(hub / "hours.csv", gzip.compress(b"a\n" + b"1\n" * 10_000))
    assert "has a packed file, 'hours.csv': unpack it first" in refused(f"hf:{hub}")


def test_configurations_are_named_where_one_must_be_chosen(hub: Path) -> None:
    write(hub / "README.md", CARD.replace("  default: true\n", ""))
    said = refused(f"hf:{hub}")
    assert "['hours', 'days']" in said and said.endswith("name one as hf:NAME:CONFIG")


def test_without_a_network_a_hub_data_set_comes_from_the_cache_or_is_refused(
    hub: Path, tmp_path: Path
) -> None:
    """In a process with HF_HUB_OFFLINE=1, whose cache is like that of a process with a network."""
    import datasets

    folder = tmp_path / "cache"
    with quiet_datasets():
        datasets.load_dataset(str(hub), "days", cache_dir=str(folder / "hub"))
    (folder / "hub" / "toys").rename(folder / "hub" / "owner___toys")
    code = (
        "import sys; from creditbench.data import read_table\n"
        "from creditbench.errors import UsageError\n"
        "print(read_table('hf:owner/toys:days', ['a'])['a'].tolist())\n"
        "try: read_table('hf:owner/others', ['a'])\n"
        "except UsageError as error: print(error)"
    )
    names = {"CREDITBENCH_CACHE": str(folder), "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | names, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    found, said = done.stdout.splitlines()
    assert found == "[3.5, 4.5]"
    assert said.startswith("hub data set 'owner/others' cannot be loaded: HF_HUB_OFFLINE is set")
    assert "fetch it first, with the same command and HF_HUB_OFFLINE=0" in said
    assert said.endswith("or leave out --data, and the task takes its embedded data")


def test_what_the_hub_says_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("no route\nto the hub")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    assert "cannot be loaded (no route to the hub): check its name and the network" in refused(
        "hf:owner/name"
    )


def test_a_data_set_without_a_train_split_is_named(hub: Path) -> None:
    write(hub / "README.md", CARD.replace("split: train", "split: other"))
    assert "has no train split but other: name one that has" in refused(f"hf:{hub}")


# -- text and images ---------------------------------------------------------------------------------------


def test_a_text_is_its_bytes(tmp_path: Path) -> None:
    text = "A first line.\n\nÉté, a third.\n"
    assert read_text(write(tmp_path / "t.txt", text)).tobytes() == text.encode()
    pd.DataFrame({"text": ["one", "two"]}).to_parquet(tmp_path / "t.parquet")
    assert read_text(tmp_path / "t.parquet").tobytes() == b"one two"
    for frame, words in (
        ({"a": ["x"]}, "lacks the column 'text'"),
        ({"text": ["x", None]}, "nothing in data row 2"),
        ({"text": ["", " "]}, "column 'text' holds no text"),
    ):
        pd.DataFrame(frame).to_parquet(tmp_path / "bad.parquet")
        with pytest.raises(UsageError, match=words):
            read_text(tmp_path / "bad.parquet")
    with pytest.raises(UsageError, match="it is no text"):
        read_text(write(tmp_path / "binary.txt", bytes(100)))


IMAGES = np.random.default_rng(0).integers(0, 256, (30, 4, 4), np.uint8)
LABELS = np.arange(30) % 10


def test_images_are_the_same_from_every_kind(tmp_path: Path) -> None:
    flat = {f"pixel{k}": IMAGES.reshape(30, -1)[:, k] for k in range(16)}
    np.savez(tmp_path / "t.npz", image=IMAGES, label=LABELS)
    pd.DataFrame({"label": LABELS} | flat).to_csv(tmp_path / "t.csv", index=False)
    pd.DataFrame({"label": LABELS} | flat).to_parquet(tmp_path / "t.parquet")
    pd.DataFrame({"image": [image.tolist() for image in IMAGES], "label": LABELS}).to_parquet(
        tmp_path / "nested.parquet"
    )
    for name in ("t.npz", "t.csv", "t.parquet", "nested.parquet"):
        found = read_images(tmp_path / name)
        np.testing.assert_array_equal(found["train_pixels"], IMAGES.reshape(30, -1))
        np.testing.assert_array_equal(found["train_labels"], LABELS)


def test_images_of_the_hub_come_decoded_with_their_test_split(tmp_path: Path) -> None:
    """In the layout of ylecun/mnist: parquet files with PNG images."""
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(10)})
    folder = tmp_path / "mnist"
    (folder / "mnist").mkdir(parents=True)
    for split, part in (("train", slice(20)), ("test", slice(20, 30))):
        rows = {"image": list(IMAGES[part]), "label": LABELS[part].tolist()}
        with quiet_datasets():
            datasets.Dataset.from_dict(rows, features).to_parquet(
                str(folder / "mnist" / f"{split}-0.parquet")
            )
    write(folder / "README.md", "---\nconfigs:\n- config_name: mnist\n  data_dir: mnist\n---\n")
    found = read_images(f"hf:{folder}:mnist")
    assert found["train_pixels"].dtype == np.uint8
    np.testing.assert_array_equal(found["train_pixels"], IMAGES[:20].reshape(20, -1))
    np.testing.assert_array_equal(found["test_pixels"], IMAGES[20:].reshape(10, -1))
    np.testing.assert_array_equal(found["test_labels"], LABELS[20:])


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"image": IMAGES}, "lacks the column 'label'"),
        ({"label": LABELS}, "lacks the column 'image'"),
        ({"image": IMAGES, "label": LABELS[:-1]}, "30 images and 29 labels"),
        ({"image": IMAGES, "label": LABELS - 1}, "'label' has -1 in it"),
        ({"image": IMAGES, "label": LABELS + 0.5}, "'label' has 0.5 in it"),
        ({"image": np.where(IMAGES > 9, np.nan, IMAGES), "label": LABELS}, "something else than finite"),
        ({"image": IMAGES.astype(str), "label": LABELS}, "something else than finite"),
    ],
)
def test_bad_images_are_named(tmp_path: Path, arrays: dict[str, np.ndarray], words: str) -> None:
    np.savez(tmp_path / "t.npz", **arrays)
    with pytest.raises(UsageError) as error:
        read_images(tmp_path / "t.npz")
    assert words in str(error.value) and str(tmp_path) in str(error.value) and "\n" not in str(error.value)
