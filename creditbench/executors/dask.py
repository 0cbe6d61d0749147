"""Worker processes on many machines, through dask.distributed.

The cluster is one that this executor starts on this machine, or one that is there. A job, the seeds of a
family, is one of its tasks. A dask worker runs it as the executor `local` does, in processes below itself
(`creditbench.executors.local`), so limits, confinement and statuses are the same. A worker whose harness,
plug-ins or data are not those of this machine refuses it, and that ends the run.

Workers write nothing. Records, progress and logs come back as events, each as soon as there is one, and the
run that waits for them writes them. So a job that is broken off takes no finished trial with it.

If a worker is lost, the scheduler gives its job to another one, three times at most (`allowed-failures` of
dask). Seeds of it that were finished run again, and their second records are dropped. If a job has lost its
worker four times, or the scheduler is lost, the machine has failed and not the rule: no record is kept. A
worker breaks off a job whose run has gone, and all jobs if it is told to close; then others get them.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import secrets
import signal
import sys
import time
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import dask
from distributed import Client, KilledWorker, LocalCluster, Worker

import creditbench
from creditbench.errors import UsageError, is_of_machine, one_line, reason
from creditbench.executors.base import Executor, Job, Progress
from creditbench.executors.dask_worker import PLUGINS, TOPIC, harness, run_job
from creditbench.machine import files
from creditbench.machine.environment import fingerprint
from creditbench.trials.checkpoint import Checkpoints
from creditbench.trials.record import Point, Record
from creditbench.trials.trial import Trial

_REACH_SECONDS = 10.0  # that a scheduler may take to answer
_TICK = 1.0  # seconds between two looks at a silent cluster
_AHEAD = 4  # jobs beyond two a thread, so that a cluster that adapts sees work
_AGAIN = 3  # times that a job is given out again


class DaskExecutor(Executor):
    """Jobs on the workers of a dask cluster, one a thread.

    `scheduler`: its address, or a scheduler file; None for a cluster of `slots` workers on this machine.
    `memory_limit`: bytes that a trial may take; None for nine tenths of its worker's, over its threads.
    Raises `UsageError` if no scheduler answers there.
    """

    def __init__(
        self,
        *,
        scheduler: str | None,
        slots: int,
        threads: int,
        timeout: float,
        memory_limit: int | None,
        logs: Path | None,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        super().__init__()
        self.scheduler, self.slots, self.logs = scheduler, slots, logs
        self.settings = {
            "threads": threads,
            "timeout": timeout,
            "memory_limit": memory_limit,
            "checkpoints": None if checkpoints is None else [str(checkpoints.folder), checkpoints.seconds],
        }
        self._said: set[str] = set()
        if scheduler is not None:
            with connected(scheduler) as client:
                self.slots = sum(client.nthreads().values()) or 1

    def run(self, jobs: Iterable[Job], progress: Progress | None = None) -> Generator[Record, None, None]:
        """The records as they arrive. However the iterator ends, the cluster breaks off its jobs."""
        coming = iter(jobs)
        first = next(coming, None)
        if first is None:  # no cluster is started for nothing
            return
        with contextlib.ExitStack() as opened:
            place = self.scheduler
            if place is None:
                place = opened.enter_context(own_cluster(self.slots))
            client = opened.enter_context(connected(place))
            yield from _Exchange(self, client, chain([first], coming), progress).records()


@contextlib.contextmanager
def connected(place: str) -> Iterator[Client]:
    """A client of the scheduler at an address or in a scheduler file. Raises `UsageError`."""
    address = place
    if "://" not in place and (place.endswith(".json") or os.path.exists(place)):
        try:
            address = str(files.parse_json(files.read(Path(place)))["address"])
        except (OSError, files.NotAFileError, ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"scheduler file '{place}' cannot be read ({reason(error)}): name the file that "
                "dask scheduler --scheduler-file has written"
            ) from None
    try:
        client = Client(address, timeout=_REACH_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError, ImportError) as error:
        raise UsageError(
            f"scheduler '{place}' cannot be reached ({reason(error)}): start one with dask scheduler, and "
            "name its address, as in --scheduler tcp://HOST:8786"
        ) from None
    with client:
        yield client


@contextlib.contextmanager
def own_cluster(workers: int) -> Iterator[str]:
    """The address of a cluster of one-thread workers on this machine, which ends with the context."""
    here = {
        "distributed.scheduler.allowed-failures": _AGAIN,
        "distributed.nanny.pre-spawn-environ": {},  # trials set their own threads
    }
    before = dict(os.environ)
    os.environ["PYTHONSAFEPATH"] = "1"  # what lies in the working folder is not imported
    try:
        with (
            dask.config.set(here),
            LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                dashboard_address="127.0.0.1:0",
                memory_limit=0,  # trials have limits of their own
                silence_logs="CRITICAL",
                preload=[__name__],
            ) as cluster,
        ):
            yield cluster.scheduler_address
    finally:
        for name in os.environ.keys() - before.keys():  # dask may have set more
            del os.environ[name]
        os.environ.update(before)


def dask_setup(worker: Worker) -> None:
    """Let Ctrl-C reach the run alone, which ends its workers. Dask calls it in those of `own_cluster`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


# -- the run ---------------------------------------------------------------------------------------------


@dataclass
class _Given:
    """A job that the cluster has."""

    job: Job
    left: dict[str, Trial]
    again: int = 0  #: times that it came back without all of its records
    future: Any = None


@dataclass
class _Exchange:
    """One run of jobs on a cluster."""

    executor: DaskExecutor
    client: Client
    coming: Iterator[Job]
    progress: Progress | None
    name: str = field(default_factory=lambda: secrets.token_hex(8))
    count: int = 0
    given: dict[int, _Given] = field(default_factory=dict)
    inbox: queue.SimpleQueue[dict[str, Any]] = field(default_factory=queue.SimpleQueue)

    def records(self) -> Iterator[Record]:
        """The records as they arrive, each once."""
        self.client.subscribe_topic(TOPIC, self._hear)
        looked, threads, started = -_TICK, 0, time.monotonic()
        try:
            while True:
                if time.monotonic() - looked >= _TICK:
                    looked, threads = time.monotonic(), self._threads()
                    if not threads and self.given and looked - started > _REACH_SECONDS:
                        self._note("the cluster has no workers yet: the run waits for one")
                while len(self.given) < 2 * threads + _AHEAD and (job := next(self.coming, None)):
                    self.count += 1
                    self._give(self.count, _Given(job, {trial.id: trial for trial in job.trials}))
                if not self.given:
                    return
                with contextlib.suppress(queue.Empty):
                    yield from self._take(self.inbox.get(timeout=_TICK))
        finally:
            with contextlib.suppress(OSError, TimeoutError, RuntimeError):  # the scheduler has gone
                self.client.cancel([given.future for given in self.given.values()], force=True)

    def _threads(self) -> int:
        """Threads of the cluster; 0 if the scheduler has gone, as `_take` will see."""
        try:
            return sum(self.client.nthreads().values())
        except (OSError, RuntimeError):
            self._lose_all()
            return 0

    def _hear(self, event: tuple[float, dict[str, Any]]) -> None:
        if event[1].get("run") == self.name:
            self.inbox.put(event[1])

    def _give(self, number: int, given: _Given) -> None:
        self.given[number] = given
        key = f"creditbench-{self.name}-{number}-{given.again}"
        trials = list(given.left.values())
        order = {
            "harness": harness(),
            "run": self.name,
            "job": number,
            "key": key,
            "trials": [trial.model_dump(mode="json") for trial in trials],
            "together": given.job.together,
            "files": _files(trials[0]),
            "settings": self.executor.settings,
        }
        future = self.client.submit(run_job, json.dumps(order), key=key, pure=False)
        given.future = future
        future.add_done_callback(lambda future: self.inbox.put({"job": number, "future": future}))

    def _take(self, message: dict[str, Any]) -> Iterator[Record]:
        """Take in what a worker says, or that a job has ended. Raises `UsageError` if a worker is unfit."""
        given = self.given.get(message["job"])
        if given is None:
            return
        if "refused" in message:
            raise UsageError(f"worker {message['worker']} {message['refused']}")
        if "progress" in message:
            name, part, points = message["progress"]
            if self.progress and name in given.left:
                self.progress(given.left[name], part, [Point(*point) for point in points])
        elif "lost" in message:
            for name, why in message["lost"]:
                if trial := given.left.pop(name, None):
                    self.executor.lost.append((trial, why))
        elif "log" in message:
            self._keep_log(*message["log"])
        elif "record" in message:
            record = Record.model_validate_json(message["record"])
            trial = given.left.pop(record.trial.id, None)
            if trial is not None:
                self._compare(record, message["worker"])
                yield _at_home(record, trial)
        elif message["future"] is given.future:
            # Not before, though all records may be here: with a job that nobody waits for, a worker ends the
            # processes that it keeps warm.
            del self.given[message["job"]]
            self._conclude(message["job"], given)
            given.future.release()

    def _conclude(self, number: int, given: _Given) -> None:
        """Deal with the trials that a job which has ended left without a record."""
        future = given.future
        if future.status == "cancelled":
            self._lose_all(given)
        elif future.status == "error":
            error = future.exception()
            if is_of_machine(error):
                self._lose(given, one_line(error))
            elif isinstance(error, KilledWorker):
                times, last = error.allowed_failures + 1, error.last_worker.address
                self._lose(given, f"its worker was lost {times} times, the last one {last}")
            else:
                raise UsageError(
                    f"the cluster cannot run a job ({one_line(error)}): its scheduler and its workers need "
                    f"creditbench {creditbench.__version__} and the versions of dask of this machine"
                )
        elif given.left and given.again == _AGAIN:
            self._lose(given, f"it was broken off {_AGAIN + 1} times")
        elif given.left:
            self._give(number, _Given(given.job, given.left, given.again + 1))

    def _lose(self, given: _Given, why: str) -> None:
        self.executor.lost += [(trial, why) for trial in given.left.values()]

    def _lose_all(self, *others: _Given) -> None:
        """The scheduler has gone, and with it all that the run has given it."""
        why = f"the scheduler '{self.executor.scheduler}' was lost"
        for given in (*others, *self.given.values()):
            self._lose(given, why)
        self.given.clear()
        self.executor.lost += [(trial, why) for job in self.coming for trial in job.trials]

    def _compare(self, record: Record, worker: str) -> None:
        """Say once if the machine of a record has other versions than this one; the record has its own."""
        trial = record.trial
        here, there = _versions(trial.backend, trial.device), record.environment.get("packages", {})
        other = [
            f"{name} {there.get(name, 'not at all')} ({here[name]})"
            for name in here
            if there.get(name) != here[name]
        ]
        if other:
            self._note(
                f"worker {worker} has other versions than this machine: {', '.join(other)}; the last digits "
                "of its numbers may differ, and its records have its versions"
            )

    def _note(self, line: str) -> None:
        # One line for all workers with the same versions.
        _, _, what = line.partition(" has ")
        if what not in self.executor._said:
            self.executor._said.add(what)
            print(f"note: {line}", file=sys.stderr, flush=True)

    def _keep_log(self, name: str, text: str) -> None:
        if self.executor.logs is None:
            return
        path = self.executor.logs / f"{name}.log"
        try:
            self.executor.logs.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            self._note(f"the log '{path}' cannot be written ({error.strerror})")


def _at_home(record: Record, trial: Trial) -> Record:
    """The record with the paths of this machine: a worker may have had a copy of a user's file."""
    source = record.learner_source if trial.learner_path is None else trial.learner_path
    return record.model_copy(update={"trial": trial, "learner_source": source})


@cache
def _versions(backend: str, device: str) -> dict[str, str]:
    return fingerprint(backend, device)["packages"]


def _files(trial: Trial) -> dict[str, list[str]]:
    """The names and texts of a user's own files of a trial, by the field that has their path."""
    found = {}
    for _, _, path, _ in PLUGINS:
        if place := getattr(trial, path):
            with contextlib.suppress(OSError):  # the worker says that it has not what it needs
                found[path] = [Path(place).name, Path(place).read_bytes().decode("utf-8", "surrogateescape")]
    return found
