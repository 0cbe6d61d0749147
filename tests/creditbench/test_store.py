"""Records on disk: whole or not at all, and refused with a sentence where they cannot be read."""

from __future__ import annotations

import hashlib
import json
import os

import pytest

from creditbench import registry, store
from creditbench.errors import UsageError
from creditbench.grid import Options, make_grid
from creditbench.record import SCHEMA_VERSION, Point, Record
from creditbench.store import Store


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
    with pytest.raises(OSError, match="no space left"):
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
    assert "numerics version" in changed(numerics_version=0)


def test_a_users_file_is_compared_where_it_lies(tmp_path, record):
    path = tmp_path / "rule.py"
    path.write_bytes(registry.find("learners", "bptt").path.read_bytes() + b"# mine\n")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    trial = record.trial.model_copy(update={"learner_path": str(path), "learner_sha256": sha256})
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
    assert store._describe([own])[0]["bptt"]["family"] == "reverse mode"
    assert "--learner bptt " in command([own])
    path.write_text("")
    assert f"--learner {path} " in command([own])
