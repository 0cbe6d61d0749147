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
import hashlib
import json
import os
import queue
import secrets
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import Any

import dask
from distributed import Client, KilledWorker, LocalCluster, Worker, get_worker
from distributed.core import Status as WorkerStatus

import creditbench
from creditbench.errors import UsageError, is_of_machine, one_line, reason
from creditbench.executors.base import Executor, Job, Progress
from creditbench.executors.local import LocalExecutor
from creditbench.machine import files
from creditbench.machine.environment import fingerprint, usable_memory
from creditbench.machine.folders import PACKAGE, shipped
from creditbench.plugins import registry
from creditbench.plugins.importing import Kind, source_sha256
from creditbench.trials.checkpoint import Checkpoints
from creditbench.trials.record import Point, Record
from creditbench.trials.trial import Trial

_TOPIC = "creditbench"  # one for all runs, since a scheduler keeps the last 1,000 events of each topic
_REACH_SECONDS = 10.0  # that a scheduler may take to answer
_TICK = 1.0  # seconds between two looks at a silent cluster
_PROGRESS_SECONDS = 1.0  # between two reports of a job
_IDLE_SECONDS = 60.0  # that a dask worker keeps warm processes without a job
_AHEAD = 4  # jobs beyond two a thread, so that a cluster that adapts sees work
_AGAIN = 3  # times that a job is given out again
_LONGEST_LOG = 64 << 10
#: The files of a trial that may be a user's own: kind, path, sha256.
_PLUGINS: tuple[tuple[Kind, str, str, str], ...] = (
    ("tasks", "task", "task_path", "task_sha256"),
    ("learners", "learner", "learner_path", "learner_sha256"),
    ("cells", "cell", "cell_path", "cell_sha256"),
)


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
        self.client.subscribe_topic(_TOPIC, self._hear)
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


@cache
def harness() -> dict[str, str]:
    """What has to be the same here and there: the version, and the sha256 of all that is shipped."""
    digest = hashlib.sha256()
    for root, pattern in ((PACKAGE, "**/*.py"), (shipped("tasks"), "**/*"), (shipped("learners"), "**/*.py")):
        for path in sorted(root.glob(pattern)):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(repr(path.relative_to(root).as_posix()).encode() + files.read(path))
    commit = fingerprint("jax").get("commit") or ""
    return {
        "version": creditbench.__version__,
        "commit": f"commit {commit[:10] or 'unknown'}",
        "sha256": f"sources {digest.hexdigest()[:16]}",
    }


def another(wanted: dict[str, str]) -> str:
    """How the harness here differs from the `wanted` one; empty if it does not."""
    if wanted["sha256"] == (own := harness())["sha256"]:
        return ""
    there, here = (", ".join(one.values()) for one in (own, wanted))
    return f"has another creditbench ({there}) than this machine ({here}): install one on both"


def _files(trial: Trial) -> dict[str, list[str]]:
    """The names and texts of a user's own files of a trial, by the field that has their path."""
    found = {}
    for _, _, path, _ in _PLUGINS:
        if place := getattr(trial, path):
            with contextlib.suppress(OSError):  # the worker says that it has not what it needs
                found[path] = [Path(place).name, Path(place).read_bytes().decode("utf-8", "surrogateescape")]
    return found


# -- in a dask worker ------------------------------------------------------------------------------------


def run_job(text: str) -> None:
    """Run a job in a thread of a dask worker, and tell its run what comes of it."""
    order, worker = json.loads(text), get_worker()

    def tell(**message: Any) -> None:
        worker.log_event(
            _TOPIC, {"run": order["run"], "job": order["job"], "worker": worker.address} | message
        )

    if why := another(order["harness"]):
        tell(refused=why)
        return
    # In dask's own folder, which it clears of what killed workers have left.
    with tempfile.TemporaryDirectory(dir=worker.local_directory) as folder:
        try:
            trials = [
                _placed(Trial.model_validate(values), order["files"], folder) for values in order["trials"]
            ]
            _require_data(trials[0])
        except UsageError as error:
            tell(refused=str(error))
            return
        _run(Job(tuple(trials), order["together"]), order, worker, Path(folder) / "logs", tell)


def _run(job: Job, order: dict[str, Any], worker: Worker, logs: Path, tell: Callable[..., None]) -> None:
    reported = 0.0
    waiting: dict[str, list[Point]] = {}  #: points that were not told yet; the record has all of them

    def progress(trial: Trial, part: float, points: Sequence[Point]) -> None:
        nonlocal reported
        waiting.setdefault(trial.id, []).extend(points)
        if time.monotonic() - reported > _PROGRESS_SECONDS:
            reported = time.monotonic()
            tell(progress=[trial.id, part, [list(point) for point in waiting.pop(trial.id)]])

    with _warm.of(order["settings"], worker) as executor:
        executor.logs, executor.lost = logs, []
        executor.is_wanted = partial(_is_wanted, worker, order["key"])  # type: ignore[method-assign]
        with contextlib.closing(executor.run([job], progress)) as records:
            for record in records:
                for log in logs.glob("*.log"):
                    _tell_log(log, tell)
                tell(record=record.model_dump_json())
        for log in logs.glob("*.log"):
            _tell_log(log, tell)
        tell(lost=[[trial.id, f"{why} (on {worker.address})"] for trial, why in executor.lost])


def _tell_log(log: Path, tell: Callable[..., None]) -> None:
    tell(log=[log.stem, log.read_bytes()[-_LONGEST_LOG:].decode(errors="replace")])
    log.unlink()


def _is_wanted(worker: Worker, key: str) -> bool:
    """Whether the run still waits for a job, and its worker is not about to end."""
    task = worker.state.tasks.get(key)
    if task is None or task.state not in ("executing", "long-running"):
        return False
    return worker.status in (WorkerStatus.running, WorkerStatus.paused, WorkerStatus.closing_gracefully)


def _placed(trial: Trial, sources: dict[str, list[str]], folder: str) -> Trial:
    """The trial with a user's own files as they are here: in their place, or else as copies.

    Raises `UsageError` if the trial needs something that is not here.
    """
    here = {}
    for kind, name, path, sha256 in _PLUGINS:
        place, wanted = getattr(trial, path), getattr(trial, sha256)
        if wanted is None:  # a shipped cell
            continue
        if place is None:
            if registry.find(kind, getattr(trial, name)).sha256 != wanted:
                raise UsageError(
                    f"has another {kind[:-1]} {getattr(trial, name)}: install the same package there"
                )
            continue
        if _sha256(place) == wanted:
            continue
        if path in sources:
            file, text = sources[path]
            copy = Path(folder, kind, file)
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(text.encode("utf-8", "surrogateescape"))
            here[path] = str(copy)
        if _sha256(here.get(path)) != wanted:
            raise UsageError(
                f"lacks {place} as it was when the run began, or a file that it embeds: put them there, or "
                "run again"
            )
    return trial.model_copy(update=here) if here else trial


def _sha256(path: str | None) -> str | None:
    try:
        return None if path is None else source_sha256(Path(path))
    except OSError:
        return None


def _require_data(trial: Trial) -> None:
    """Raise `UsageError` if a user's data file is not here, or another one is."""
    place = trial.task_parameters.get("data")
    if trial.data_sha256 is None or not isinstance(place, str) or place.startswith("hf:"):
        return
    try:
        same = hashlib.sha256(files.read(Path(place))).hexdigest() == trial.data_sha256
    except (OSError, files.NotAFileError) as error:
        raise UsageError(f"cannot read the data file '{place}' ({reason(error)}): put it there") from None
    if not same:
        raise UsageError(f"has another data file '{place}' than this machine: put the same there")


def _shared(place: list[Any] | None) -> Checkpoints | None:
    """The run's checkpoints, if this machine has its results folder. Another worker may go on from them."""
    if place is None or not Path(place[0]).parent.is_dir():
        return None
    return Checkpoints(Path(place[0]), place[1])


class _Warm:
    """The local executors of this dask worker that have no job, each with its warm processes."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.idle: dict[LocalExecutor, tuple[str, threading.Timer]] = {}

    @contextlib.contextmanager
    def of(self, settings: dict[str, Any], worker: Worker) -> Iterator[LocalExecutor]:
        """An executor of one slot with these settings, for one job."""
        name = json.dumps(settings)
        with self.lock:
            executor = next((one for one, (known, _) in self.idle.items() if known == name), None)
            if executor is not None:
                self.idle.pop(executor)[1].cancel()
        executor = executor or _make(settings, worker)
        try:
            yield executor
        finally:
            timer = threading.Timer(_IDLE_SECONDS, self._end, [executor])
            timer.daemon = True
            with self.lock:
                self.idle[executor] = name, timer
            timer.start()

    def _end(self, executor: LocalExecutor) -> None:
        with self.lock:
            known = self.idle.pop(executor, None)
        if known:
            executor.close()


def _make(settings: dict[str, Any], worker: Worker) -> LocalExecutor:
    # Meant for dask's own memory, it would slow trials down. Only processes that start later see it go.
    os.environ.pop("MALLOC_TRIM_THRESHOLD_", None)
    limit = settings["memory_limit"]
    if limit is None:
        own = worker.memory_manager.memory_limit or usable_memory()
        limit = int(0.9 * own / worker.state.nthreads)
    executor = LocalExecutor(
        threads=settings["threads"],
        slots=1,
        timeout=settings["timeout"],
        memory_limit=limit,
        # Workers of `own_cluster` are numbered. Others do not know which cores their neighbours have.
        first=worker.name if isinstance(worker.name, int) else None,
        checkpoints=_shared(settings["checkpoints"]),
    )
    executor.keeps_warm = True
    return executor


_warm = _Warm()
