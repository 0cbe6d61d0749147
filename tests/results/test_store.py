"""Records on disk: whole or not at all, and refused with a sentence if they cannot be read."""

from __future__ import annotations

import ctypes
import json
import os
import pickle
import re
import shutil
from pathlib import Path

import pytest
from pydantic import BaseModel

from creditbench.errors import UsageError
from creditbench.machine import files
from creditbench.plugins import registry
from creditbench.plugins.importing import source_sha256
from creditbench.results import store
from creditbench.results import version as tables
from creditbench.results.store import Store
from creditbench.results.version import Results, read_tables, write_tables
from creditbench.trials.grid import Options, make_grid
from creditbench.trials.record import SCHEMA_VERSION, Curve, Point, Record


@pytest.fixture(scope="module")
def record() -> Record:
    (trial,) = make_grid(Options(tasks=("mackey_glass",), learners=("bptt",), preset="smoke")).trials
    curve = (Point(step=0, seconds=0.0, loss=None, validation=1.25),)
    return Record(
        suite_version="0",
        trial=trial,
        learner_source="builtin",
        status="ok",
        metric="nrmse",
        metric_direction="min",
        test_score=0.5,
        curve=curve,
    )


def test_a_record_comes_back_as_it_was_put(tmp_path, record):
    there = Store(tmp_path / "new")
    assert not there.has(record.trial)
    with pytest.raises(KeyError):
        there.get(record.trial)
    there.put(record)
    assert there.has(record.trial)
    assert there.get(record.trial) == record
    assert there.all() == [record]
    assert [path.name for path in there.records.iterdir()] == [f"{record.trial.id}.json"]


def test_a_write_that_breaks_off_leaves_the_old_record_and_nothing_else(tmp_path, record, monkeypatch):
    there = Store(tmp_path)
    there.put(record)

    def fail(_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(UsageError, match="no space left"):
        there.put(record.model_copy(update={"test_score": 0.25}))
    assert there.all() == [record]
    assert len(list(there.records.iterdir())) == 1


@pytest.mark.parametrize(
    "broken", ["", '{"schema_version": 1', "[]", '{"schema_version": 1, "trial": {}}', "\x00\xff"]
)
def test_a_broken_record_is_named_with_its_cure(tmp_path, record, broken):
    there = Store(tmp_path)
    there.put(record)
    there.path(record.trial).write_bytes(broken.encode("latin-1"))
    with pytest.raises(UsageError) as caught:
        there.get(record.trial)
    message = str(caught.value)
    assert str(there.path(record.trial)) in message and "delete it and run again" in message
    assert "\n" not in message


def test_a_newer_schema_is_refused(tmp_path, record):
    there = Store(tmp_path)
    there.put(record)
    values = json.loads(there.path(record.trial).read_text()) | {
        "schema_version": SCHEMA_VERSION + 1,
        "new": 1,
    }
    there.path(record.trial).write_text(json.dumps(values))
    with pytest.raises(UsageError, match="update creditbench"):
        there.all()


def edited(there: Store, record: Record, change: dict, where: str = "") -> None:
    """The record's file, with values that no run would write."""
    values = json.loads(there.path(record.trial).read_text())
    inner = values
    for name in where.split(".") if where else ():
        inner = inner[int(name) if name.isdecimal() else name]
    inner.update(change)
    there.path(record.trial).write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("change", "where", "said"),
    [
        ({"test_score": float("nan")}, "", "NaN is no finite number"),
        ({"trivial": float("inf")}, "", "Infinity is no finite number"),
        ({"train_seconds": -1.0}, "", "train_seconds: Input should be greater than or equal to 0"),
        ({"algorithm_bytes": -1}, "", "algorithm_bytes: "),
        ({"algorithm_bytes": 10**400}, "", "has 401 digits"),
        ({"algorithm_bytes": 2**63}, "", "algorithm_bytes: "),
        ({"algorithm_bytes": "5"}, "", "algorithm_bytes: "),
        ({"algorithm_bytes": True}, "", "algorithm_bytes: "),
        ({"test_score": 10**19 * 10}, "", "has 21 digits"),
        ({"trained_together": 0}, "", "trained_together: "),
        ({"schema_version": 0}, "", "the schema version is 0: there are 1 to 3"),
        ({"schema_version": -1}, "", "the schema version is -1"),
        ({"schema_version": 1.0}, "", "the schema version is 1.0"),
        ({"schema_version": True}, "", "the schema version is True"),
        ({"schema_version": "3"}, "", "the schema version is '3'"),
        ({"schema_version": None}, "", "the schema version is None"),
        ({"curve": {}}, "", "curve: "),
        ({"step": -1}, "curve.0", "curve.0.step: "),
        ({"validation": 1e305}, "curve.0", "curve.0.validation: "),
        ({"seed": -1}, "trial", "trial.seed: "),
        ({"learner": "<b>"}, "trial", "trial.learner: "),
        ({"task": "../x"}, "trial", "trial.task: "),
        ({"hyperparameters": []}, "trial", "trial.hyperparameters: "),
        ({"seed": 7}, "trial", "it is of the trial "),
        ({"packages": []}, "environment", "environment: Value error, packages is []"),
        ({"accelerators": [1]}, "environment", "environment: "),
        ({"deep": json.loads("[" * 40 + "]" * 40)}, "environment", "nested too deep"),
        ({"cpu": "\ud800"}, "environment", "environment: "),
    ],
)
def test_what_no_run_writes_is_refused(tmp_path, record, change, where, said):
    there = Store(tmp_path)
    there.put(record)
    edited(there, record, change, where)
    with pytest.raises(UsageError, match=re.escape(said)) as caught:
        there.get(record.trial)
    assert str(there.path(record.trial)) in str(caught.value) and "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_key_that_is_there_twice_is_refused_and_a_byte_order_mark_is_not(tmp_path, record):
    there = Store(tmp_path)
    there.put(record)
    path = there.path(record.trial)
    content = path.read_bytes()
    path.write_bytes(b"\xef\xbb\xbf" + content)
    assert there.get(record.trial) == record
    path.write_bytes(content.replace(b'"test_score": 0.5', b'"test_score": 0.5, "test_score": 0.1'))
    with pytest.raises(UsageError, match="'test_score' is there twice"):
        there.get(record.trial)


def other_kinds(path):
    """What may lie where a file is looked for, beside a file."""
    yield "a folder", path.mkdir
    yield "a pipe", lambda: os.mkfifo(path)
    yield "a device", lambda: path.symlink_to("/dev/zero")


@pytest.mark.parametrize("number", range(3))
def test_a_record_that_is_no_file_is_refused_at_once(tmp_path, record, number):
    there = Store(tmp_path)
    there.put(record)
    there.path(record.trial).unlink()
    said, make = list(other_kinds(there.path(record.trial)))[number]
    make()
    with pytest.raises(UsageError, match=f"it is {said} and no regular file"):
        there.all()


def test_reports_go_on_without_a_record_that_cannot_be_read_and_say_so(tmp_path, record, capsys):
    there = Store(tmp_path)
    there.put(record)
    other = record.model_copy(update={"trial": record.trial.model_copy(update={"seed": 1})})
    there.put(other)
    edited(there, other, {"algorithm_bytes": 10**400})
    assert tables.load(tmp_path).records == (record,)
    said = capsys.readouterr().err
    assert said.startswith(f"note: left out: record '{there.path(other.trial)}'") and said.count("\n") == 1
    with pytest.raises(UsageError, match="has 401 digits"):
        tables.load(tmp_path, whole=True)
    there.path(record.trial).unlink()
    with pytest.raises(UsageError, match="has 401 digits"):
        tables.load(tmp_path)


def test_a_version_that_breaks_off_leaves_the_old_one_whole(tmp_path, record, monkeypatch):
    """Wherever the writing ends: what is read is the one or the other."""
    one, two = Results((record,)), Results((record.model_copy(update={"test_score": 0.25}),))
    version = tmp_path / "v"
    write_tables(one, version, "# one\n")
    (version / "tuned").mkdir()
    (version / "tuned" / "a.toml").write_text("")
    (version / "curves.png").write_bytes(b"picture")
    calls = 0

    def count(real):
        def counted(*arguments, **named):
            nonlocal calls
            calls -= 1
            if calls == 0:
                raise KeyboardInterrupt
            return real(*arguments, **named)

        return counted

    monkeypatch.setattr(files, "sync", count(files.sync))
    monkeypatch.setattr(Path, "write_bytes", count(Path.write_bytes))
    monkeypatch.setattr(tables, "_exchange", count(tables._exchange))
    for last in range(1, 100):
        calls = last
        try:
            write_tables(two, version, "# two\n")
        except KeyboardInterrupt:
            pass
        else:
            break
        expected = read_tables(version).records[0].test_score, (version / "README.md").read_text()
        assert expected in ((0.5, "# one\n"), (0.25, "# two\n"))
        assert (version / "tuned" / "a.toml").exists() and (version / "curves.png").exists()
        assert [path.name for path in tmp_path.iterdir()] == ["v"]
    assert 10 < last < 99
    assert read_tables(version).records[0].test_score == 0.25
    assert (version / "tuned" / "a.toml").exists() and (version / "curves.png").read_bytes() == b"picture"


def test_a_folder_of_another_file_system_and_an_exchange_that_is_none_do_too(tmp_path, record, monkeypatch):
    def refuse(*_, **__):
        raise OSError("not here")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: None)
    write_tables(Results((record,)), tmp_path / "v", "")
    (tmp_path / "v" / "curves.png").write_bytes(b"picture")
    write_tables(Results((record.model_copy(update={"test_score": 0.25}),)), tmp_path / "v", "")
    assert read_tables(tmp_path / "v").records[0].test_score == 0.25
    assert (tmp_path / "v" / "curves.png").read_bytes() == b"picture"
    assert [path.name for path in tmp_path.iterdir()] == ["v"]


def test_scores_beside_curves_of_another_version_are_refused(tmp_path, record):
    """As a copy that was broken off leaves them."""
    for name, values in (
        ("a", {}),
        ("b", {"curve": (Point(step=0, seconds=0.0, loss=None, validation=9.0),)}),
    ):
        write_tables(Results((record.model_copy(update=values),)), tmp_path / name, "")
    shutil.copy(tmp_path / "b" / "curves.parquet", tmp_path / "a" / "curves.parquet")
    with pytest.raises(UsageError, match=r"curves\.parquet' cannot be read \(it is not the one"):
        read_tables(tmp_path / "a")


POINTS = [
    Point(i, i / 3, None if i % 3 == 1 else -i / 7, None if i % 4 == 2 else i * 1e299) for i in range(9)
]


def test_a_packed_curve_is_its_points(record):
    """To the bit, each figure that was not finite among them."""
    for points in (POINTS, POINTS[:1], []):
        curve = Curve(points)
        assert list(curve) == points and curve == tuple(points) and tuple(points) == curve
        assert list(reversed(curve)) == points[::-1] and len(curve) == len(points)
        assert [curve[i] for i in range(-len(points), len(points))] == points * 2
        assert curve[1::2] == tuple(points[1::2]) and pickle.loads(pickle.dumps(curve)) == curve
        with pytest.raises(IndexError):
            curve[len(points)]
    bare = record.model_copy(update={"curve": tuple(POINTS)})
    packed = record.model_copy(update={"curve": Curve(POINTS)})
    assert packed == bare and store.as_text(packed) == store.as_text(bare)


@pytest.mark.parametrize("most", [1, 4, 9, 10, 1000])
def test_curves_that_are_written_in_parts_are_those_that_are_written_at_once(
    most, tmp_path, record, monkeypatch
):
    lengths = [0, 9, 1, 0, 9, 4, 0]
    trials = [record.trial.model_copy(update={"seed": seed}) for seed in range(len(lengths))]
    records = [
        record.model_copy(update={"trial": trial, "curve": tuple(POINTS[:n])})
        for trial, n in zip(trials, lengths, strict=True)
    ]
    monkeypatch.setattr(tables, "_ROW_GROUP", most)
    write_tables(Results(tuple(records)), tmp_path / "v", "")
    read = read_tables(tmp_path / "v")
    assert {r.trial.id: tuple(r.curve) for r in read.records} == {r.trial.id: r.curve for r in records}
    assert read.points == sum(lengths) == read_tables(tmp_path / "v", curves=False).points
    groups = list(tables._in_groups(records, most))
    assert [sum(len(packed) // 32 for _, packed in group) for group in groups[:-1]] == [most] * (
        len(groups) - 1
    )


def test_the_next_seed_of_a_family_is_the_copy_that_pydantic_makes(record):
    trial = record.trial
    assert trial.id != trial.family
    made = trial.model_copy(update={"seed": 77})
    usual = BaseModel.model_copy(trial, update={"seed": 77})
    assert made == usual and made.model_fields_set == usual.model_fields_set
    assert made.id == type(trial).model_validate(usual.model_dump()).id != trial.id


def test_no_tables_hide_the_records_of_runs(tmp_path, record):
    Store(tmp_path).put(record)
    with pytest.raises(UsageError, match="has records of runs"):
        write_tables(Results((record,)), tmp_path, "")


def test_a_folder_that_cannot_be_written_is_named(tmp_path, record):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        Store(tmp_path / "file").put(record)


def test_a_record_is_stale_once_a_source_has_changed(record):
    assert store.stale(record) == ""

    def changed(**fields) -> str:
        return store.stale(record.model_copy(update={"trial": record.trial.model_copy(update=fields)}))

    assert changed(learner_sha256="0" * 64) == "learner bptt has changed"
    assert changed(task_sha256="0" * 64) == "task mackey_glass has changed"
    assert changed(learner="gone") == "learner gone is gone"
    assert changed(vocabulary_sha256="0" * 64) == "what bptt runs through has changed"
    assert changed(vocabulary_sha256=None) == "what bptt runs through has changed"
    assert "numerics version" in changed(numerics_version=0)


def test_a_users_file_is_compared_where_it_lies(tmp_path, record):
    path = tmp_path / "rule.py"
    shipped = registry.find("learners", "bptt").path.read_bytes()
    path.write_bytes(shipped + b"# a comment is no part of it\n")
    assert source_sha256(path) == record.trial.learner_sha256
    path.write_bytes(shipped + b"MINE = 1\n")
    trial = record.trial.model_copy(update={"learner_path": str(path), "learner_sha256": source_sha256(path)})
    own = record.model_copy(update={"trial": trial})
    assert store.stale(own) == ""
    store._source_sha256.cache_clear()
    path.write_text("changed")
    assert store.stale(own) == "learner bptt has changed"
    store._source_sha256.cache_clear()
    path.unlink()
    assert store.stale(own) == "learner bptt is gone"


def test_a_users_file_that_was_taken_in_as_it_was_keeps_its_records(tmp_path, record):
    """It was run where it lay, and lies in the shipped folder now."""
    from creditbench.leaderboard.board import command

    path = tmp_path / "rule.py"
    own = record.model_copy(update={"trial": record.trial.model_copy(update={"learner_path": str(path)})})
    assert store.stale(own) == ""
    assert tables._describe([own])[0]["bptt"]["family"] == "reverse mode"
    assert "--learner bptt " in command([own])
    path.write_text("")
    assert f"--learner {path} " in command([own])
