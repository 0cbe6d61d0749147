"""Two runs on one folder: no trial runs twice, none is waited for in vain, deleted records are made again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from creditbench.errors import UsageError
from creditbench.executors.base import Executor, Job
from creditbench.results.shared import Locks, run_missing
from creditbench.results.store import Store
from creditbench.trials.record import Record
from creditbench.trials.trial import Trial
from tests.synthetic import make

ROOT = Path(__file__).parents[2]


def records(folder: Path, seeds: int = 12) -> list[Record]:
    source = folder / "source.py"
    source.write_text("# stands for every rule and task\n")
    return list(make(source, rules=1, tasks=1, backends=("torch",), seeds=seeds, measured=False).records)


class Played(Executor):
    """Gives the records that are known of trials, at its leisure, and notes who gave them."""

    def __init__(
        self, known: list[Record], log: Path, seconds: float = 0.0, loses: int | None = None
    ) -> None:
        super().__init__()
        self.known, self.log, self.seconds, self.loses = {r.trial.id: r for r in known}, log, seconds, loses

    def run(self, jobs, progress=None) -> Iterator[Record]:
        for job in jobs:
            for trial in job.trials:
                time.sleep(self.seconds)
                if trial.seed != self.loses:
                    with self.log.open("a") as file:
                        file.write(f"{os.getpid()} {trial.id}\n")
                    yield self.known[trial.id]


def each(trials) -> list[Job]:
    return [Job((trial,)) for trial in trials]


def ran(log: Path) -> dict[str, list[str]]:
    """The processes that ran each trial."""
    found: dict[str, list[str]] = {}
    for line in log.read_text().splitlines():
        process, trial = line.split()
        found.setdefault(trial, []).append(process)
    return found


OTHER = """
import sys, time
from pathlib import Path
from tests.results.test_shared import Played, each, records, run_missing
from creditbench.results.store import Store
folder = Path(sys.argv[1])
known = records(folder)
print("ready", flush=True)
while not (folder / "go").exists():
    time.sleep(0.001)
trials = [record.trial for record in known]
played = Played(known, folder / "log", float(sys.argv[2]))
for record, new in run_missing(Store(folder / "results"), trials, played, each):
    print(new, flush=True)
"""


@pytest.fixture
def other(tmp_path):
    """Start another process that runs the same trials, and wait until it is about to."""
    started = []

    def start(seconds: float) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", OTHER, str(tmp_path), str(seconds)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def trials_of(known: list[Record]) -> list[Trial]:
    return [record.trial for record in known]


def test_two_runs_that_start_at_the_same_moment_share_the_work(tmp_path, other):
    pair = [other(0.05), other(0.05)]
    for process in pair:
        assert process.stdout.readline() == "ready\n"
    (tmp_path / "go").touch()
    said = [process.communicate(timeout=60)[0].split() for process in pair]
    assert [process.returncode for process in pair] == [0, 0]
    assert [len(lines) for lines in said] == [12, 12]  # each has them all in the end
    found = ran(tmp_path / "log")
    assert len(found) == 12 and all(len(who) == 1 for who in found.values())
    assert min(lines.count("True") for lines in said) > 1
    assert sum(lines.count("True") for lines in said) == 12
    assert len(Store(tmp_path / "results").all()) == 12


def test_what_a_killed_run_was_at_is_run_by_the_one_that_waits(tmp_path, other):
    known = records(tmp_path)
    process = other(600.0)
    assert process.stdout.readline() == "ready\n"
    (tmp_path / "go").touch()
    store, said = Store(tmp_path / "results"), []
    while not (store.directory / ".lock").exists():
        time.sleep(0.01)
    time.sleep(0.2)
    played = Played(known, tmp_path / "log")

    def say(line: str) -> None:
        said.append(line)
        process.send_signal(signal.SIGKILL)
        process.wait()

    found = list(run_missing(store, trials_of(known), played, each, say=say))
    assert said == [f"waiting for 1 trials that other runs on '{store.directory}' are at"]
    assert len(found) == 12 and all(new for _, new in found)
    assert found[-1][0].trial.id == known[0].trial.id  # the other one took the first


def test_what_has_a_record_again_is_not_run_again_though_it_was_to_be(tmp_path):
    """As with --force: what another run has written since is new enough."""
    known = records(tmp_path, 2)
    store = Store(tmp_path / "results")
    for record in known:
        store.put(record)
    played = Played(known, tmp_path / "log")

    def meanwhile(trials):
        store.put(known[1])
        return each(trials)

    found = list(run_missing(store, trials_of(known), played, meanwhile))
    assert [(record.trial.seed, new) for record, new in found] == [(0, True), (1, False)]
    assert list(ran(tmp_path / "log")) == [known[0].trial.id]


def test_a_trial_at_which_the_machine_failed_is_left_without_a_record(tmp_path):
    known = records(tmp_path, 3)
    store = Store(tmp_path / "results")
    played = Played(known, tmp_path / "log", loses=1)
    assert [r.trial.seed for r, _ in run_missing(store, trials_of(known), played, each)] == [0, 2]
    assert len(store.all()) == 2
    played.loses = None
    assert len(list(run_missing(store, trials_of(known), played, each))) == 3  # its lock is free


def test_records_that_are_deleted_under_a_run_are_written_again_and_told_of(tmp_path):
    known = records(tmp_path, 3)
    store, said = Store(tmp_path / "results"), []
    for record, _ in run_missing(
        store, trials_of(known), Played(known, tmp_path / "log"), each, say=said.append
    ):
        if record.trial.seed in (0, 2):
            shutil.rmtree(tmp_path / "results")
    assert [line.partition(":")[0] for line in said] == [
        f"results folder '{store.directory}' was deleted under the run"
    ] * 2
    assert "the 3 records" in said[1]
    assert {record.trial.id for record in store.all()} == {record.trial.id for record in known}


def test_a_file_system_without_locks_is_told_of_once_and_runs_all_the_same(tmp_path, monkeypatch):
    import fcntl

    def refuse(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    known, said = records(tmp_path, 3), []
    played = Played(known, tmp_path / "log")
    found = list(run_missing(Store(tmp_path / "r"), trials_of(known), played, each, say=said.append))
    assert len(found) == 3
    assert len(said) == 1 and "has no locks (No locks available)" in said[0]


def test_a_results_folder_that_cannot_be_written_is_found_before_the_first_trial(tmp_path, monkeypatch):
    known = records(tmp_path, 1)
    played = Played(known, tmp_path / "log")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UsageError, match=r"No space left on device\): name another with --results, or make"):
        list(run_missing(Store(tmp_path / "r"), trials_of(known), played, each))
    assert not (tmp_path / "log").exists()


def test_a_lock_is_of_one_trial(tmp_path):
    known = records(tmp_path, 2)
    (tmp_path / "r").mkdir()
    locks = Locks(Store(tmp_path / "r"), print)
    assert locks.take(known[0].trial)
    code = (
        "import sys; from pathlib import Path; from tests.results.test_shared import *\n"
        "folder = Path(sys.argv[1]); locks = Locks(Store(folder / 'r'), print)\n"
        "print([locks.take(r.trial) for r in records(folder, 2)])"
    )
    words = [sys.executable, "-c", code, str(tmp_path)]
    assert subprocess.run(words, capture_output=True, text=True, cwd=ROOT).stdout == "[False, True]\n"
    locks.release(known[0].trial)
    assert subprocess.run(words, capture_output=True, text=True, cwd=ROOT).stdout == "[True, True]\n"
    locks.close()


def test_runs_that_are_killed_at_any_moment_lose_nothing(tmp_path, other):
    """Several, one after another, in the midst of trials and of writing; the last one ends what is left."""
    known = records(tmp_path)
    by_id = {record.trial.id: record for record in known}
    store, rng, kept = Store(tmp_path / "results"), np.random.default_rng(0), 0
    (tmp_path / "go").touch()
    for _ in range(int(os.environ.get("CREDITBENCH_KILLS", "3"))):
        process = other(0.01)
        assert process.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0.0, 0.06))
        process.send_signal(signal.SIGKILL)
        process.wait()
        found = store.all()
        assert len(found) >= kept and all(record == by_id[record.trial.id] for record in found)
        kept = len(found)
    list(run_missing(store, trials_of(known), Played(known, tmp_path / "log"), each))
    assert {record.trial.id: record for record in store.all()} == by_id
