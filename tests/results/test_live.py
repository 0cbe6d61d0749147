"""Curves while trials run: each point once, before the record where it can be, and by its end in any case."""

from __future__ import annotations

import importlib.util
import json

import pytest

from creditbench.cli import main
from creditbench.errors import UsageError
from creditbench.executors import Job, make_executor
from creditbench.results.live import Logs
from creditbench.results.store import Store
from creditbench.trials.grid import Options, make_grid
from creditbench.trials.record import Point
from creditbench.trials.trainer import run_trials

SMALL = {
    "hidden": 4,
    "budget": 200,
    "evaluations": 4,
    "segment": 10,
    "settings": {"mackey_glass.steps": "300"},
}


@pytest.fixture(scope="module")
def record():
    (trial,) = make_grid(
        Options(tasks=("mackey_glass",), learners=("bptt",), preset="smoke", seeds=(0,), **SMALL)
    ).trials
    told = []
    (found,) = run_trials([trial], lambda *news: told.append(news))
    # The trainer tells every point once, in order, with the part that is done.
    assert [point for _, _, points in told for point in points] == list(found.curve)
    assert [part for _, part, _ in told] == [0.25, 0.5, 0.75, 1.0] and len(found.curve) == 5
    return found


def lines(folder):
    return [json.loads(line) for line in (folder / "live.jsonl").read_text().splitlines()]


def test_points_are_lines_at_once_and_the_record_brings_the_rest(record, tmp_path):
    with Logs(["jsonl"], tmp_path) as logs:
        logs.points(record.trial, record.curve[:2])
        found = lines(tmp_path)  # while the trial runs
        assert [Point(*(line[name] for name in Point._fields)) for line in found] == list(record.curve[:2])
        assert found[0]["trial"] == record.trial.id and found[0]["rule"] == "bptt"
        logs.finished(record)
        *found, last = lines(tmp_path)
        assert [line["step"] for line in found] == [point.step for point in record.curve]
        assert (last["status"], last["test_score"]) == ("ok", record.test_score)


def test_a_trial_that_begins_anew_tells_its_points_again(record, tmp_path):
    with Logs(["jsonl"], tmp_path) as logs:
        logs.points(record.trial, record.curve[:3])
        logs.points(record.trial, record.curve[:1])
        logs.finished(record)
    steps = [line.get("step") for line in lines(tmp_path)]
    own = [point.step for point in record.curve]
    assert steps == [*own[:3], own[0], *own[1:], None]


def test_without_a_log_nothing_is_written(record, tmp_path):
    with Logs([], tmp_path / "none") as logs:
        logs.points(record.trial, record.curve)
        logs.finished(record)
    assert not (tmp_path / "none").exists()


def test_a_run_tells_what_its_records_have(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [
        "--task",
        "mackey_glass",
        "--learner",
        "bptt",
        "--seeds",
        "2",
        "--hidden",
        "4",
        "--budget",
        "200",
    ]
    words += ["--evaluations", "4", "--no-measure", "--set", "mackey_glass.steps=300", "--log", "jsonl"]
    assert main(["run", *words, "--results", "r", "--segment", "10"]) == 0
    found = lines(tmp_path / "r")
    for record in Store("r").all():
        own = [line["step"] for line in found if line["trial"] == record.trial.id and "step" in line]
        assert own == [point.step for point in record.curve]


def test_a_worker_sends_points_before_the_record(monkeypatch):
    asked = make_grid(
        Options(tasks=("mackey_glass",), learners=("bptt",), preset="smoke", seeds=(0,), **SMALL)
    )
    told = []
    executor = make_executor("local", slots=1)
    (found,) = executor.run([Job(asked.trials)], lambda *news: told.append(news))
    points = [point for _, _, own in told for point in own]
    assert points and points == list(found.curve[: len(points)])


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_what_is_not_installed_is_named(name, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    with pytest.raises(UsageError, match=rf"pip install 'creditbench\[{name}\]'"):
        Logs([name], tmp_path)


def test_an_unknown_log_is_told(tmp_path):
    with pytest.raises(UsageError, match="unknown log 'json': did you mean 'jsonl'"):
        Logs(["json"], tmp_path)


def test_tensorboard_reads_the_curve_back(record, tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with Logs(["tensorboard"], tmp_path) as logs:
        logs.points(record.trial, record.curve[:3])
        logs.finished(record)
    (folder,) = (tmp_path / "tensorboard" / "mackey_glass").iterdir()
    read = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    read.Reload()
    for name in ("loss", "validation"):
        found = [(event.step, event.tensor_proto.float_val[0]) for event in read.Tensors(name)]
        own = [(p.step, getattr(p, name)) for p in record.curve if getattr(p, name) is not None]
        assert found == [(step, pytest.approx(value, rel=1e-6)) for step, value in own]
    assert read.Tensors("test")[0].tensor_proto.float_val[0] == pytest.approx(record.test_score, rel=1e-6)


def leveldb_log(content, start, block=32768):
    """The records of a log of LevelDB, whose first block has `start` bytes before it."""
    place, whole = 0, b""
    while place < len(content):
        left = block - (start + place) % block
        if left < 7:
            place += left
            continue
        size, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        whole += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # a whole record, or its last part
            yield whole
            whole = b""


def test_the_offline_folder_of_wandb_has_the_curve(record, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_MODE", "offline")
    with Logs(["wandb"], tmp_path) as logs:
        logs.points(record.trial, record.curve[:3])
        logs.finished(record)
    wandb.teardown()
    (file,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    found = []
    for data in leveldb_log(file.read_bytes()[7:], 7):  # after the name of the format
        kept = wandb_internal_pb2.Record()
        kept.ParseFromString(data)
        if kept.WhichOneof("record_type") == "history":
            items = {(i.key or ".".join(i.nested_key)): json.loads(i.value_json) for i in kept.history.item}
            found.append((items["_step"], items["validation"]))
    assert found == [(p.step, pytest.approx(p.validation)) for p in record.curve]
