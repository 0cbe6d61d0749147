"""What holds for `creditbench.data`, which tasks read tables with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from creditbench.data import cached, read_table
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
    monkeypatch.setattr("creditbench.data._from_file", lambda *_: pytest.fail("read again"))
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
    whole = entry.read_bytes()
    for broken in (b"", b"nonsense", whole[: len(whole) // 2]):
        entry.write_bytes(broken)
        np.testing.assert_array_equal(read_table(path, ["a"])["a"], [1, 2])
        assert entry.read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDITBENCH_CACHE", str(write(tmp_path / "a file", "") / "below"))
    path = write(tmp_path / "t.csv", "a\n1\n2\n")
    np.testing.assert_array_equal(read_table(path, ["a"])["a"], [1, 2])


def test_an_entry_is_never_half_written(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(file, **_):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", interrupted)
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
    assert [entry.suffix for entry in folder.iterdir()] == [".npz"]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("t.csv", "a,b\n1,2\n1,calm\n", "column 'b' has 'calm' in data row 2: put"),
        ("t.csv", "a,b\n" + "1,2\n" * 20_000 + "1,calm\n", "has 'calm' in data row 20001: put"),
        ("t.csv", "a,b\n1,2\n3, \n", "column 'b' has nothing in data row 2: put"),
        ("t.csv", "a,b\n1,2\n3\n", "column 'b' has nothing in data row 2: put"),
        ("t.csv", "a,b\n1,NaN\n", "column 'b' has 'NaN' in data row 1: put"),
        ("t.csv", "a,b\n1,2\n3,inf\n", "column 'b' has 'inf' in data row 2: put"),
        ("t.csv", "a;b\n1;2\n", "lacks the column 'a': it has a;b"),
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
    with pytest.raises(UsageError, match=r"folder\.csv' cannot be opened"):
        read_table(tmp_path / "folder.csv", ["a"])


def test_bad_values_in_other_kinds_are_named(tmp_path: Path) -> None:
    pd.DataFrame({"a": [1.0, None]}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(UsageError, match="column 'a' has nothing in data row 2"):
        read_table(tmp_path / "t.parquet", ["a"])
    np.savez(tmp_path / "deep.npz", a=np.ones((2, 3)))
    with pytest.raises(UsageError, match=r"column 'a' has the shape \(2, 3\)"):
        read_table(tmp_path / "deep.npz", ["a"])
    np.savez(tmp_path / "ragged.npz", a=np.ones(2), b=np.ones(3))
    with pytest.raises(UsageError, match="columns of unequal lengths"):
        read_table(tmp_path / "ragged.npz", ["a", "b"])


def test_a_hub_data_set_takes_the_same_way_in(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked = {}

    def load(name: str, **options: object) -> datasets.Dataset:
        asked.update(options, name=name)
        return datasets.Dataset.from_dict({"a": [1, 2], "b": ["x", "y"]})

    monkeypatch.setattr(datasets, "load_dataset", load)
    np.testing.assert_array_equal(read_table("hf:owner/name", ["a"])["a"], [1, 2])
    assert asked["name"] == "owner/name" and asked["split"] == "train"
    with pytest.raises(UsageError, match="hf:owner/name: column 'b' has 'x' in data row 1"):
        read_table("hf:owner/name", ["b"])

    def fail(name: str, **_: object) -> None:
        raise ConnectionError("no route\nto the hub")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(UsageError, match=r"cannot be loaded \(no route to the hub\): check"):
        read_table("hf:owner/name", ["a"])
