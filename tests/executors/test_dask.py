"""The executor `dask`: as `local`, wherever the trials run, and whatever becomes of the cluster."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
import threading
from pathlib import Path

import psutil
import pytest

from creditbench.errors import UsageError
from creditbench.executors import Job, make_executor, make_jobs
from creditbench.trials.grid import Options, make_grid

distributed = pytest.importorskip("distributed", reason="dask.distributed is not installed")

from creditbench.executors import dask, dask_worker  # noqa: E402 - it needs distributed
from tests.executors import played  # noqa: E402
from tests.executors.played import Played  # noqa: E402

HONEST = Path(__file__).parents[1] / "submissions" / "honest.py"


def trials(*learners, **options):
    small = {"hidden": 4, "budget": 40, "evaluations": 2, "segment": 1}
    small["settings"] = {"mackey_glass.steps": "300"}
    asked = {"tasks": ("mackey_glass",), "learners": learners, "preset": "smoke"} | small | options
    return make_grid(Options(**asked)).trials


def at(*rates, seeds=(0,)):
    """Families of trials, one for each learning rate."""
    return trials("bptt", lrs=rates, seeds=seeds)


def numbers(record):
    points = tuple((point.step, point.loss, point.validation) for point in record.curve)
    trial = record.trial.model_dump_json()
    return trial, record.learner_source, record.status, record.test_score, points


@pytest.fixture
def cluster(monkeypatch):
    """Two workers in this process, which play."""
    monkeypatch.setattr(dask_worker, "_make", lambda settings, worker: Played())
    monkeypatch.setattr(dask_worker, "_warm", dask_worker._Warm())
    monkeypatch.setattr(dask_worker, "_IDLE_SECONDS", 0.0)
    monkeypatch.setattr(Played, "broken_off", 0)
    monkeypatch.setattr(Played, "not_waited_for", 0)
    Played.started.clear()
    Played.go_on.clear()
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
    ) as made:
        yield made


def joined(cluster, **options):
    return make_executor("dask", scheduler=cluster.scheduler_address, **options)


# -- what cannot run -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("local", {"scheduler": "tcp://h:1"}, "and the executor is 'local': give --executor dask"),
        ("dask", {"scheduler": "tcp://h:1", "slots": 2}, "and --jobs is 2: its workers decide; leave out"),
        ("dask", {"scheduler": "tcp://127.0.0.1:1"}, "'tcp://127.0.0.1:1' cannot be reached"),
        ("dask", {"scheduler": "no host"}, "'no host' cannot be reached"),
        ("dask", {"scheduler": "no.json"}, "scheduler file 'no.json' cannot be read (No such file"),
        ("dask", {"threads": 10_000}, "threads is 10000"),
    ],
)
def test_a_cluster_that_cannot_be_had_is_told_of(name, options, said, monkeypatch):
    monkeypatch.setattr(dask, "_REACH_SECONDS", 0.2)
    with pytest.raises(UsageError) as caught:
        make_executor(name, **options)
    assert said in str(caught.value)


def test_without_distributed_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'creditbench\[cluster\]'"):
        make_executor("dask")


# -- what runs -----------------------------------------------------------------------------------------------


def test_every_trial_has_one_record_and_the_run_alone_writes(cluster, tmp_path):
    asked = at(0.1, 0.2, 0.3, played.LOSES, played.WRITES, seeds=(0, 1))
    executor, parts = joined(cluster, logs=tmp_path / "logs"), []
    assert executor.slots == 2
    records = list(executor.run(make_jobs(asked), lambda trial, part, points: parts.append((trial.lr, part))))
    lost = [trial for trial in asked if trial.lr == played.LOSES]
    assert {record.trial.id for record in records} == {t.id for t in asked} - {t.id for t in lost}
    assert len(records) == 8 and all(record.test_score == record.trial.lr for record in records)
    assert [trial for trial, _ in executor.lost] == lost
    assert all(why.startswith("the disk was full (on inproc://") for _, why in executor.lost)
    assert (0.1, 0.5) in parts and Played.not_waited_for == 0  # else a worker would not stay warm
    logs = {path.stem: path.read_text() for path in (tmp_path / "logs").iterdir()}
    assert logs == {trial.id: "what it printed" for trial in asked if trial.lr == played.WRITES}


def test_a_scheduler_file_names_its_scheduler(cluster, tmp_path):
    file = tmp_path / "scheduler.json"
    file.write_text(json.dumps({"address": cluster.scheduler_address}))
    (record,) = make_executor("dask", scheduler=str(file)).run([Job(at(0.1))])
    assert record.trial == at(0.1)[0]


def wait_for(true, seconds=10.0):
    pause = threading.Event()
    for _ in range(int(seconds / 0.02)):
        if true():
            return
        pause.wait(0.02)
    raise TimeoutError


def in_background(executor, jobs):
    """Runs jobs in a thread; returns it and the list of their records so far."""
    found = []
    thread = threading.Thread(target=lambda: found.extend(executor.run(jobs)), daemon=True)
    thread.start()
    return thread, found


def busy(cluster):
    return [address for address, worker in cluster.scheduler.workers.items() if worker.processing]


def test_a_job_is_taken_once_there_is_room_for_it(cluster):
    """So that two runs on one folder share the work."""
    taken = []

    def coming():
        for job in [Job(at(played.WAITS, seeds=(seed,))) for seed in range(30)]:
            taken.append(job)
            yield job

    thread, found = in_background(joined(cluster), coming())
    assert Played.started.wait(10.0)
    wait_for(lambda: len(busy(cluster)) == 2)
    assert len(taken) == 2 * 2 + dask._AHEAD
    Played.go_on.set()
    thread.join(20.0)
    assert len(found) == len(taken) == 30


def test_what_is_broken_off_is_broken_off_in_the_workers_too(cluster):
    records = joined(cluster).run([Job(at(0.1)), Job(at(played.WAITS)), Job(at(0.2))])
    assert {next(records).trial.lr, next(records).trial.lr} == {0.1, 0.2}
    records.close()
    wait_for(lambda: Played.broken_off == 1)


def test_a_worker_that_is_told_to_close_hands_its_job_over(cluster):
    executor = joined(cluster)
    thread, found = in_background(executor, [Job(at(played.WAITS, seeds=(0, 1)))])
    assert Played.started.wait(10.0)
    (first,) = busy(cluster)
    retired = cluster.scheduler.retire_workers([first], close_workers=True)
    asyncio.run_coroutine_threadsafe(retired, cluster.loop.asyncio_loop).result(20.0)
    wait_for(lambda: Played.broken_off == 1 and len(busy(cluster)) == 1)
    assert busy(cluster) != [first]
    Played.go_on.set()
    thread.join(20.0)
    assert [record.trial.seed for record in found] == [0, 1] and not executor.lost


def test_a_job_that_has_lost_its_worker_four_times_is_lost_and_no_other(cluster):
    cluster.scale(5)
    wait_for(lambda: len(cluster.scheduler.workers) == 5)
    executor = joined(cluster)
    thread, found = in_background(executor, [Job(at(played.WAITS, seeds=(0, 1))), Job(at(0.1))])
    for times in range(4):
        wait_for(lambda: found and len(busy(cluster)) == 1)
        gone = cluster.scheduler.remove_worker(busy(cluster)[0], stimulus_id="test", expected=False)
        asyncio.run_coroutine_threadsafe(gone, cluster.loop.asyncio_loop).result(20.0)
        wait_for(lambda times=times: Played.broken_off == times + 1)
    thread.join(20.0)
    assert [record.trial.lr for record in found] == [0.1]
    assert [trial.seed for trial, _ in executor.lost] == [0, 1]
    assert all(why.startswith("its worker was lost 4 times, the last one inproc") for _, why in executor.lost)


def test_a_cluster_that_adapts_is_given_work_before_it_has_workers(cluster):
    cluster.scale(0)
    wait_for(lambda: not cluster.scheduler.workers)
    executor = joined(cluster)
    cluster.adapt(minimum=0, maximum=2, interval="50ms")
    assert executor.slots == 1
    records = list(executor.run([Job(at(0.1, seeds=(seed,))) for seed in range(9)]))
    assert sorted(record.trial.seed for record in records) == list(range(9))


def test_a_scheduler_that_is_lost_costs_what_it_had(cluster, monkeypatch):
    monkeypatch.setattr(dask, "_REACH_SECONDS", 0.5)
    executor, asked = joined(cluster), [Job(at(played.WAITS, seeds=(seed,))) for seed in range(30)]
    thread, found = in_background(executor, [Job(at(0.1)), *asked])
    assert Played.started.wait(10.0)
    wait_for(lambda: found)
    cluster.close()
    thread.join(30.0)
    assert not thread.is_alive() and len(found) == 1
    assert sorted(trial.seed for trial, _ in executor.lost) == list(range(30))
    assert {why for _, why in executor.lost} == {f"the scheduler '{executor.scheduler}' was lost"}


# -- what a worker refuses -----------------------------------------------------------------------------------


def test_another_harness_is_refused(cluster, monkeypatch):
    monkeypatch.setattr(dask, "harness", lambda: {"version": "2", "sha256": "here"})
    monkeypatch.setattr(dask_worker, "harness", lambda: {"version": "1", "sha256": "there"})
    with pytest.raises(UsageError) as caught:
        list(joined(cluster).run([Job(at(0.1))]))
    assert "has another creditbench (1, there) than this machine (2, here): install one" in str(caught.value)


def test_the_harness_is_all_that_is_shipped(monkeypatch, tmp_path):
    before = dask_worker.harness.__wrapped__()
    for kind in ("tasks", "learners"):
        (tmp_path / kind).mkdir()
    monkeypatch.setattr(dask_worker, "shipped", lambda kind: tmp_path / kind)
    (tmp_path / "learners" / "a.py").write_text("a")
    found = {before["sha256"], dask_worker.harness.__wrapped__()["sha256"]}
    (tmp_path / "tasks" / "data.csv").write_text("1")
    found.add(dask_worker.harness.__wrapped__()["sha256"])
    assert len(found) == 3 and dask_worker.harness.__wrapped__()["version"] == before["version"]


def test_other_versions_are_told_of_once(cluster, monkeypatch, capsys):
    here = dask._versions("jax", "cpu")
    monkeypatch.setattr(dask, "_versions", lambda *_: here | {"numpy": "0.1"})
    assert len(list(joined(cluster).run([Job(at(0.1, seeds=(seed,))) for seed in range(6)]))) == 6
    (line,) = capsys.readouterr().err.splitlines()
    assert f"has other versions than this machine: numpy {here['numpy']} (0.1); the last digits" in line


def test_a_users_file_that_is_not_on_the_workers_machine_is_brought_along(cluster, tmp_path, monkeypatch):
    rule = tmp_path / "honest.py"
    rule.write_bytes(HONEST.read_bytes())
    (trial,) = trials(str(rule))
    sources, seen = dask._files(trial), []
    assert dask_worker._placed(trial, sources, str(tmp_path)) is trial
    monkeypatch.setattr(dask, "_files", lambda trial: sources)
    run = Played.run
    monkeypatch.setattr(Played, "run", lambda self, jobs, *a: seen.extend(jobs) or run(self, jobs, *a))
    rule.unlink()
    (record,) = joined(cluster).run([Job((trial,))])
    ((copy,),) = [job.trials for job in seen]
    assert copy.learner_path != trial.learner_path and Path(copy.learner_path).name == "honest.py"
    assert (record.trial, record.learner_source) == (trial, str(rule))
    rule.write_text("# another one\n")
    assert dask_worker._placed(trial, sources, str(tmp_path)).learner_path != str(rule)
    with pytest.raises(UsageError, match=r"lacks .*honest.py as it was when the run began"):
        dask_worker._placed(trial, {}, str(tmp_path))


def test_other_data_than_the_runs_are_refused(tmp_path):
    (trial,) = at(0.1)
    data = tmp_path / "data.csv"
    sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # of no byte
    trial = trial.model_copy(update={"task_parameters": {"data": str(data)}, "data_sha256": sha256})
    with pytest.raises(UsageError, match="cannot read the data file"):
        dask_worker._require_data(trial)
    data.write_text("1")
    with pytest.raises(UsageError, match="has another data file"):
        dask_worker._require_data(trial)
    data.write_text("")
    dask_worker._require_data(trial)


# -- workers that are processes ------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_cluster_here_trains_as_this_process_does_though_a_worker_is_killed(tmp_path, monkeypatch):
    """And though the working folder has files that are named as modules."""
    for name in ("multiprocessing", "json", "numpy", "creditbench"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w')\n")
    monkeypatch.chdir(tmp_path)
    asked = trials("bptt", str(HONEST), seeds=(0, 1))
    executor, struck, before = make_executor("dask", slots=2), [], dict(os.environ)

    def strike(trial, part, points):
        """Kill the dask worker that has reported, with all below it."""
        if not struck:
            workers = [p for p in psutil.Process().children() if "spawn_main" in " ".join(p.cmdline())]
            struck.append(next(p for p in workers if p.children()).pid)
            os.kill(struck[0], signal.SIGKILL)

    records = list(executor.run(make_jobs(asked), strike))
    assert len(records) == len(asked) and struck and not executor.lost and dict(os.environ) == before
    assert all(record.environment["cores_usable"] == 1 for record in records)
    assert all(("confinement" in r.environment["host"]) == (r.trial.learner == "honest") for r in records)
    assert not (tmp_path / "marker").exists()
    inline = {numbers(record) for record in make_executor("inline").run(make_jobs(asked))}
    assert {numbers(record) for record in records} == inline
    assert not [p for p in psutil.Process().children() if "spawn_main" in " ".join(p.cmdline())]
