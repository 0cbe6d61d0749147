"""Values that look wrong are read right, refused with one sentence, or noted."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from creditbench.data import Seen, noting, read_images, read_table, read_text
from creditbench.errors import UsageError
from creditbench.plugins import registry
from creditbench.trials import grid

COLUMNS = ("temperature", "wind")
HOURS = 400


def read(path: Path, images: bool = False) -> tuple[dict[str, np.ndarray], list[str]]:
    """The values read from a file, and its notes without its name."""
    seen = Seen()
    with noting(seen):
        found = read_images(path) if images else read_table(path, COLUMNS)
    assert all(note.startswith(f"data file '{path}': ") and "\n" not in note for note in seen.notes)
    return found, [note.partition("': ")[2] for note in seen.notes]


def refused(path: Path, images: bool = False) -> str:
    with pytest.raises(UsageError) as error:
        read(path, images)
    said = str(error.value)
    assert str(path) in said and "\n" not in said and ": " in said
    return said


# -- hours -------------------------------------------------------------------------------------------------


def hours(start: str = "2015-01-01", count: int = HOURS, every: str = "h") -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"when": pd.date_range(start, periods=count, freq=every)})
    frame["temperature"] = (50 + 20 * np.sin(np.arange(count) / 12) + rng.normal(size=count)).round(2)
    frame["wind"] = rng.integers(0, 20, count).astype(float)
    return frame


@pytest.fixture
def table(tmp_path: Path):
    """Write a table with a number in its name, so that no other table's cache is used."""

    def write(frame: pd.DataFrame, kind: str = "csv", **options: object) -> Path:
        path = tmp_path / f"t{len(list(tmp_path.iterdir()))}.{kind}"
        getattr(frame, f"to_{kind}")(path, index=False, **options)
        return path

    return write


@pytest.mark.parametrize(
    "form", ["%Y-%m-%d %H:%M:%S", "%Y/%m/%d %H:00", "%d.%m.%Y %H:%M", "%m/%d/%Y %H:%M", "%Y-%m-%dT%H:%M:%SZ"]
)
def test_hours_in_their_order_are_read_and_nothing_is_told(table, form: str) -> None:
    frame = hours(start="2015-01-30")
    found, notes = read(table(frame.assign(when=frame["when"].dt.strftime(form))))
    assert notes == []
    np.testing.assert_array_equal(found["temperature"], frame["temperature"])
    found, notes = read(table(frame, "parquet"))
    assert notes == []
    np.testing.assert_array_equal(found["wind"], frame["wind"])


def test_clocks_of_summer_with_their_zone_are_hours(table) -> None:
    frame = hours(start="2015-10-20")
    local = frame["when"].dt.tz_localize("UTC").dt.tz_convert("Europe/Amsterdam")
    assert read(table(frame.assign(when=local)))[1] == []
    # Without its zone one hour is there twice, and its rows are hours all the same.
    assert local.dt.tz_localize(None).duplicated().sum() == 1
    found, (note,) = read(table(frame.assign(when=local.dt.tz_localize(None))))
    assert "has '2015-10-25 02:00:00' in data rows 121 and 122, as when clocks go back" in note
    np.testing.assert_array_equal(found["temperature"], frame["temperature"])
    spring = hours(start="2015-03-20")
    local = spring["when"].dt.tz_localize("UTC").dt.tz_convert("Europe/Amsterdam").dt.tz_localize(None)
    _, (note,) = read(table(spring.assign(when=local)))
    assert "is 2 hours after it" in note


@pytest.mark.parametrize("mark", [-9999.0, -999.0, -99.9, 999.9, 9999.0, 99999.0, 1e20, -32768.0])
@pytest.mark.parametrize("row", [3, HOURS - 1])
def test_a_mark_of_a_missing_value_is_refused(table, mark: float, row: int) -> None:
    frame = hours()
    frame.loc[row, "temperature"] = mark
    said = refused(table(frame))
    assert f"column 'temperature' has {mark:g} in data row {row + 1}, where all else lies from" in said
    assert said.endswith("put a number there or leave out the row")
    frame.loc[5:9, "temperature"] = mark
    assert f"in data row {min(row, 5) + 1} and 5 more, where" in refused(table(frame))


@pytest.mark.parametrize("value", [99.0, 9.9, 99.9])
def test_a_number_that_may_be_one_is_no_mark(table, value: float) -> None:
    frame = hours()
    frame["wind"] = 5 * frame["wind"]  # 0 to 95
    frame.loc[7, "wind"] = value
    found, notes = read(table(frame))
    assert notes == [] and found["wind"][7] == value


def test_a_value_far_from_all_others_is_told_of(table) -> None:
    frame = hours()
    frame.loc[[7, 9], "temperature"] = -300.0
    found, (note,) = read(table(frame))
    assert note.startswith(
        "column 'temperature' has -300 in data row 8, and 1 more such values, far from all else"
    )
    assert found["temperature"][7] == -300


def test_rows_out_of_order_or_not_hourly_are_refused(table) -> None:
    frame = hours()
    assert (
        "column 'when' goes back from '2015-01-17 15:00:00' to '2015-01-17 14:00:00' in data row 2"
        in refused(table(frame[::-1]))
    )
    assert "goes back" in refused(table(frame.sample(frac=1, random_state=0)))
    for every, said in (("10min", "10 minutes"), ("30min", "30 minutes"), ("3h", "3 hours"), ("D", "1 day")):
        assert f"its rows are {said} apart by column 'when': give a row an hour" in refused(
            table(hours(every=every))
        )
    halves = pd.concat([hours(count=300), hours("2015-01-13 12:10", 100, "10min")])
    assert "100 of its 400 rows are not an hour after the one before" in refused(table(halves))


def test_doubled_rows_are_refused_and_gaps_are_told_of(table) -> None:
    frame = hours()
    twice = pd.concat([frame[:200], frame[199:200], frame[200:]])
    assert "in data rows 200 and 201, with the same values: leave out one of each two" in refused(
        table(twice)
    )
    other = pd.concat([frame[:200], frame[190:200].assign(wind=99.5), frame[200:]]).sort_values("when")
    assert "in data rows 191 and 192, and 9 more times twice: give a row an hour" in refused(table(other))
    gap = pd.concat([frame[:100], frame[150:]])
    found, (note,) = read(table(gap))
    assert "data row 101 is 51 hours after it: its rows are taken to be an hour apart" in note
    assert len(found["wind"]) == 350


def test_what_notes_say_is_said_again_from_the_cache(table) -> None:
    frame = hours()
    path = table(pd.concat([frame[:100], frame[150:]]))
    assert read(path)[1] == read(path)[1] != []


def test_stretches_that_come_again_or_stand_still_are_told_of(table) -> None:
    frame = hours().drop(columns="when")
    again = pd.concat([frame[:300], frame[100:200]])
    _, (note,) = read(table(again))
    assert note.startswith(
        "100 of its 400 rows are, 24 in a row or more, those of an earlier stretch: data row 101"
    )
    assert "from data row 301 on" in note
    still = frame.copy()
    still.loc[50:99] = still.loc[50].to_numpy()
    _, (note,) = read(table(still))
    assert note.startswith(
        "nothing changes in 50 of its 400 rows, 24 in a row or more, first from data row 51 on"
    )


def test_dates_without_hours_and_stamps_that_are_none(table) -> None:
    frame = hours()
    days = frame.assign(when=frame["when"].dt.strftime("%Y-%m-%d"))
    assert read(table(days))[1] == []
    frame["when"] = frame["when"].dt.strftime("%Y-%m-%d %H:%M")
    frame.loc[9, "when"] = "?"
    _, (note,) = read(table(frame))
    assert "column 'when' has '?' in data row 10, which is no time" in note


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sep": ";"}, "its columns are separated by ';': separate them by commas"),
        ({"sep": "\t"}, r"its columns are separated by '\t': separate them by commas"),
        ({"decimal": ","}, "column 'temperature' has '"),
        ({"header": False}, "lacks the column 'temperature'"),
        ({"encoding": "utf-16"}, "it is UTF-16: save it as UTF-8"),
    ],
)
def test_other_ways_to_write_a_table_are_named(table, options: dict[str, object], said: str) -> None:
    message = refused(table(hours(), **options))
    assert said in message and ("decimal" not in options or "write a point where it has a comma" in message)


def test_a_table_without_a_header_is_named(table) -> None:
    frame = hours().drop(columns="when")
    assert "its first row has numbers where the names of the columns belong" in refused(
        table(frame, header=False)
    )


# -- images ------------------------------------------------------------------------------------------------

COUNT = 120
LABELS = np.arange(COUNT) % 10
IMAGES = np.random.default_rng(1).integers(0, 200, (COUNT, 4, 4), np.uint8)
PIXELS = IMAGES.reshape(COUNT, -1)


def spread(**first: object) -> pd.DataFrame:
    """A table with one column per pixel, after the given columns."""
    return pd.DataFrame({**first, "label": LABELS} | {f"p{k}": PIXELS[:, k] for k in range(16)})


SHUFFLED = np.random.default_rng(2).permutation(COUNT)


@pytest.mark.parametrize(
    "numbers",
    [
        np.arange(COUNT),
        5 + 3 * np.arange(COUNT),
        np.arange(COUNT)[::-1],
        SHUFFLED,
        np.arange(COUNT) % 60,
        np.sort(np.random.default_rng(3).choice(10_000, COUNT, replace=False)),
    ],
    ids=["range", "step", "backwards", "shuffled", "concatenated", "chosen"],
)
def test_a_column_that_counts_the_rows_is_no_pixel(table, numbers: np.ndarray) -> None:
    for kind in ("csv", "parquet"):
        said = refused(table(spread(id=numbers), kind), images=True)
        assert f"column 'id' tells one row from another ({numbers[0]}, {numbers[1]}, " in said
        assert said.endswith("is no pixel: leave out the column")
    # As pandas writes it: without a name.
    found, notes = read(table(spread(**{"": numbers})), images=True)
    assert notes == ["column 'Unnamed: 0' counts the rows, and is not read as a pixel"]
    np.testing.assert_array_equal(found["train_pixels"], PIXELS)


def test_pandas_own_row_numbers_are_left_out(tmp_path: Path) -> None:
    frame = spread()
    frame.to_csv(tmp_path / "t.csv")
    frame.iloc[SHUFFLED].to_parquet(tmp_path / "t.parquet")
    for name, rows in (("t.csv", slice(None)), ("t.parquet", SHUFFLED)):
        found, (note,) = read(tmp_path / name, images=True)
        assert note.endswith("counts the rows, and is not read as a pixel")
        np.testing.assert_array_equal(found["train_pixels"], PIXELS[rows])
        np.testing.assert_array_equal(found["train_labels"], LABELS[rows])


def test_an_id_with_gaps_is_told_from_pixels_of_16_bits(table) -> None:
    rng, count = np.random.default_rng(0), 400
    labels = np.arange(count) % 10
    deep = {f"p{k}": rng.choice(65_536, count, replace=False) for k in range(5)}
    assert read(table(pd.DataFrame({"label": labels, **deep})), images=True)[1] == []
    flat = {f"p{k}": rng.integers(0, 256, count) for k in range(5)}
    numbers = rng.choice(10**6, count, replace=False)
    assert "column 'id' tells one row" in refused(
        table(pd.DataFrame({"id": numbers, "label": labels, **flat})), images=True
    )


def test_the_class_again_is_no_pixel(table) -> None:
    assert "column 'digit' is the column 'label' again" in refused(table(spread(digit=LABELS)), images=True)


def packed(tmp_path: Path, images: list[Image.Image], kind: str = "PNG", column: str = "struct") -> Path:
    """A parquet file of packed images, in the form of programs other than `datasets`."""
    import pyarrow
    import pyarrow.parquet

    files = []
    for image in images:
        buffer = io.BytesIO()
        image.save(buffer, kind)
        files.append(buffer.getvalue())
    cells = files if column == "bytes" else [{"bytes": file, "path": None} for file in files]
    path = tmp_path / f"t{len(list(tmp_path.iterdir()))}.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"image": cells, "label": LABELS[: len(cells)]}), path)
    return path


GREY = [Image.fromarray(image) for image in IMAGES]
RGB = [image.convert("RGB") for image in GREY]


@pytest.mark.parametrize(
    ("images", "kind", "expected"),
    [
        (GREY, "PNG", PIXELS),
        (RGB, "PNG", PIXELS),
        ([image.convert("RGBA") for image in GREY], "PNG", PIXELS),
        ([image.convert("LA") for image in GREY], "PNG", PIXELS),
        ([image.convert("P") for image in GREY], "PNG", PIXELS),
        ([Image.fromarray(image > 99) for image in IMAGES], "PNG", np.where(PIXELS > 99, 255, 0)),
        ([Image.fromarray(image * np.uint16(257)) for image in IMAGES], "PNG", PIXELS * 257.0),
        ([Image.fromarray(image / np.float32(256)) for image in IMAGES], "TIFF", PIXELS / 256),
        ([image.convert("CMYK") for image in RGB], "TIFF", PIXELS),
    ],
    ids=["L", "RGB", "RGBA", "LA", "P", "1", "I;16", "F", "CMYK"],
)
def test_the_brightness_of_every_mode_is_kept(
    tmp_path: Path, images: list[Image.Image], kind: str, expected: np.ndarray
) -> None:
    for column in ("struct", "bytes"):
        found, notes = read(packed(tmp_path, images, kind, column), images=True)
        np.testing.assert_array_equal(found["train_pixels"], expected)
        assert notes == []


def test_transparent_deep_and_broken_images_are_named(tmp_path: Path) -> None:
    ink = np.zeros((COUNT, 4, 4, 4), np.uint8)
    ink[..., 3] = IMAGES
    said = refused(packed(tmp_path, [Image.fromarray(image) for image in ink]), images=True)
    assert "the image in data row 1 is transparent in places: lay it on a background of one colour" in said
    palette = [image.convert("P") for image in GREY]
    for image in palette:
        image.info["transparency"] = int(np.asarray(image)[0, 0])
    assert "transparent" in refused(packed(tmp_path, palette), images=True)
    deep = [*GREY[:50], *(Image.fromarray(image * np.uint16(257)) for image in IMAGES[50:])]
    assert "its images are uint16 and uint8: save all of them with one depth" in refused(
        packed(tmp_path, deep), images=True
    )
    sizes = [*GREY[:-1], Image.new("L", (5, 5))]
    assert "images of unequal sizes" in refused(packed(tmp_path, sizes), images=True)
    import pyarrow
    import pyarrow.parquet

    png = io.BytesIO()
    GREY[0].save(png, "PNG")
    for broken in (b"no image", png.getvalue()[:50], b""):
        cells = [{"bytes": png.getvalue(), "path": None}] * 11 + [{"bytes": broken, "path": None}]
        path = tmp_path / "broken.parquet"
        pyarrow.parquet.write_table(pyarrow.table({"image": cells, "label": LABELS[:12]}), path)
        assert "image of column 'image' in data row 12 cannot be decoded (" in refused(path, images=True)
    cells[-1] = {"bytes": None, "path": "/etc/hostname"}
    pyarrow.parquet.write_table(pyarrow.table({"image": cells, "label": LABELS[:12]}), path)
    assert "has no image in data row 12" in refused(path, images=True)


def test_images_that_unpack_to_too_much_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = packed(tmp_path, [Image.new("L", (3000, 3000))] * 3)
    assert path.stat().st_size < 100_000
    monkeypatch.setattr("creditbench.data.loading.LIMIT", 80_000_000)
    assert "its images take more than the 80,000,000 bytes" in refused(path, images=True)


def test_what_keras_has_of_mnist_is_read_with_its_own_split(tmp_path: Path) -> None:
    parts = {"x_train": IMAGES[:90], "y_train": LABELS[:90], "x_test": IMAGES[90:], "y_test": LABELS[90:]}
    np.savez(tmp_path / "mnist.npz", **parts)
    found, notes = read(tmp_path / "mnist.npz", images=True)
    assert list(found) == ["train_pixels", "train_labels", "test_pixels", "test_labels"]
    np.testing.assert_array_equal(found["train_pixels"], PIXELS[:90])
    np.testing.assert_array_equal(found["test_labels"], LABELS[90:])
    assert [note.partition(":")[0] for note in notes] == [
        "it has fewer than 10 images of class 0 (9), 1 (9), 2 (9), "
        "3 (9), 4 (9), 5 (9), 6 (9), 7 (9), 8 (9), 9 (9)"
    ]
    np.savez(tmp_path / "scale.npz", **parts | {"x_train": IMAGES[:90] / 255})
    assert "brightest pixel of test is 199 where that of train is 0.78" in refused(
        tmp_path / "scale.npz", images=True
    )
    np.savez(tmp_path / "width.npz", **parts | {"x_test": IMAGES[90:, :2]})
    assert "images of unequal sizes" in refused(tmp_path / "width.npz", images=True)


def test_images_that_are_there_twice_are_told_of(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", image=np.concatenate([IMAGES, IMAGES[:30]]), label=np.arange(150) % 10)
    _, (note,) = read(tmp_path / "t.npz", images=True)
    assert note.startswith("30 of its 150 images are those of an earlier row again: what is trained on")
    np.savez(tmp_path / "k.npz", x_train=IMAGES, y_train=LABELS, x_test=IMAGES[:40], y_test=LABELS[:40])
    _, (note,) = read(tmp_path / "k.npz", images=True)
    assert note == "40 of its 40 test images are training images too"


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (np.zeros(COUNT, int), "all its training images are of class 0: give two classes or more"),
        (np.where(np.arange(COUNT) < 90, LABELS, -1), "'label' has -1 in it, in data row 91"),
        (np.array([f"digit_{k}" for k in LABELS]), "has 'digit_0' in data row 1: put a class as 0, 1, 2"),
    ],
)
def test_labels_that_are_no_classes_are_refused(tmp_path: Path, labels: np.ndarray, said: str) -> None:
    np.savez(tmp_path / "t.npz", image=IMAGES, label=labels)
    assert said in refused(tmp_path / "t.npz", images=True)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (LABELS[LABELS < 9] + 1, "it has no image of class 0"),
        (np.where(np.arange(COUNT) < 10, 1, 0), "110 of its 120 images are of class 0"),
        (np.where(np.arange(COUNT) < 3, 1, LABELS // 5 * 2), "it has fewer than 10 images of class 1 (3)"),
    ],
)
def test_odd_classes_are_told_of(tmp_path: Path, labels: np.ndarray, said: str) -> None:
    np.savez(tmp_path / "t.npz", image=IMAGES[: len(labels)], label=labels)
    assert any(note.startswith(said) for note in read(tmp_path / "t.npz", images=True)[1])


# -- text, and the command line ----------------------------------------------------------------------------


def test_a_text_is_its_bytes_whatever_its_line_ends(tmp_path: Path) -> None:
    for number, ends in enumerate(("\n", "\r\n", "\r")):
        path = tmp_path / f"t{number}.txt"
        path.write_bytes(f"one{ends}two{ends}".encode())
        assert read_text(path).tobytes() == b"one\ntwo\n"
    (tmp_path / "text8").write_bytes(b" anarchism originated")
    assert read_text(tmp_path / "text8").tobytes() == b" anarchism originated"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("café".encode("utf-16"), "it is UTF-16: save it as UTF-8"),
        (b"x" * 2_000_000 + "é".encode("latin-1"), "can't decode byte 0xe9"),
        (b"", "it has no text in it"),
        (b" \n", "it has no text in it"),
    ],
)
def test_a_text_that_is_none_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "t.txt").write_bytes(content)
    with pytest.raises(UsageError, match=said):
        read_text(tmp_path / "t.txt")


def test_what_is_told_of_data_is_a_note_of_the_grid(tmp_path: Path) -> None:
    spread().to_csv(tmp_path / "t.csv")
    options = grid.Options(
        tasks=("sequential_digits",),
        learners=("bptt",),
        data={"sequential_digits": str(tmp_path / "t.csv")},
        budget=32,
        evaluations=1,
    )
    (note,) = grid.make_grid(options).notes
    assert (
        note
        == f"data file '{tmp_path / 't.csv'}': column 'Unnamed: 0' counts the rows, and is not read as a "
        "pixel"
    )


def test_nothing_is_told_of_the_embedded_data() -> None:
    seen = Seen()
    with noting(seen):
        for name in ("weather", "text8_chars", "sequential_digits"):
            registry.find("tasks", name).cls().generate("train", 0, 8)
    assert seen.notes == []
