"""Worker processes on this machine, several at a time, each on its own cores and for many jobs.

A worker (`creditbench.executors.worker`) serves one backend, so that it imports one framework, once. A trial
cannot affect another one: a user's rule trains in a confined process below the worker
(`creditbench.executors.confined`), a user's task or cell has a worker of its own for each job, and a worker
ends when one of its trials has failed, when it has grown, and when it is old.

A rule that crashes, hangs, exhausts memory or ends its process costs one trial: the record says what
happened, and the seeds that were waiting behind it run again, each alone. Two failures are not the rule's. If
a worker fails before its trial has started, another worker gets the job, once. If a worker is killed by
SIGKILL while memory is left, the kill came from outside: only the watch here and a system out of memory kill
for a reason that lies in the rule. Failures that are not the rule's leave no record.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import sys
import tempfile
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil
from pydantic import ValidationError

from creditbench.errors import one_line, tells_of_no_memory
from creditbench.executors.base import Executor, Job, Progress, failure, imports_own
from creditbench.isolation import remove_folder
from creditbench.isolation.watch import out_of_memory
from creditbench.machine.child import Child, child_environment, ending
from creditbench.machine.environment import host
from creditbench.machine.memory import show_bytes
from creditbench.machine.threads import usable_cores
from creditbench.trials.record import Point, Record, Status, checked
from creditbench.trials.trial import Trial

if TYPE_CHECKING:
    # Not at run time: it brings NumPy along.
    from creditbench.trials.checkpoint import Checkpoints

_WORKER = Path(__file__).with_name("worker.py")
_TICK = 0.1  # seconds between two looks at silent processes
_TREE_SECONDS = 1.0  # between two looks for processes that a worker has started
_START_SECONDS = 300.0  # that a worker may take to import its framework
_END_SECONDS = 15.0  # that a worker may take to end
_JOBS = 100  # of one worker; then a new one takes its place
_GROWTH = 256 << 20  # bytes that a worker may have gained over its jobs
_IDLE = 2  # warm workers that a slot keeps, for as many kinds
_LONGEST_LINE = 64 << 20
_FAILED = ("crashed", "invalid", "oom", "timeout")


class LocalExecutor(Executor):
    """`slots` processes of `threads` threads; a trial has `timeout` seconds and `memory_limit` bytes.

    The bytes are resident in the worker and in all that it has started; the framework counts. The output of a
    failed trial is kept in the folder `logs`, one file a trial, if it is given. The slots have cores of their
    own, in the order of `first`, `first` + 1, ...; none if it is None.
    """

    keeps_warm = False  #: whether warm workers stay for the next run, until `close`

    def __init__(
        self,
        *,
        threads: int,
        slots: int,
        timeout: float,
        memory_limit: int,
        logs: Path | None = None,
        first: int | None = 0,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        super().__init__()
        self.checkpoints = checkpoints
        self.threads, self.slots = threads, slots
        self.timeout, self.memory_limit, self.logs = timeout, memory_limit, logs
        self._slots = [_Slot(number, first, self) for number in range(slots)]

    def is_wanted(self) -> bool:
        """Whether a run goes on. It is asked some times a second, and ends if not, with its processes."""
        return True

    def close(self) -> None:
        """End the warm workers that were kept."""
        _end([worker for slot in self._slots for worker in slot.workers()])
        for slot in self._slots:
            slot.worker, slot.warm = None, {}

    def run(self, jobs: Iterable[Job], progress: Progress | None = None) -> Generator[Record, None, None]:
        """The records as they arrive. However the iterator ends, no process is left behind."""
        coming = (_Turn(job) for job in jobs)
        waiting: deque[_Turn] = deque()
        slots, whole = self._slots, False
        with selectors.DefaultSelector() as selector:
            try:
                while self.is_wanted():
                    free = sum(slot.worker is None for slot in slots)
                    waiting.extend(islice(coming, max(0, free - len(waiting))))
                    if not waiting and free == len(slots):
                        whole = True
                        return
                    for worker in self._hand_out(waiting, slots):
                        selector.register(worker.child, selectors.EVENT_READ)
                    busy = [slot.worker for slot in slots if slot.worker]
                    pause = min([_TICK, *(worker.deadline - time.monotonic() for worker in busy)])
                    selector.select(max(0.0, pause))
                    for slot in slots:
                        if slot.worker is None:
                            continue
                        yield from slot.worker.read(progress)
                        slot.worker.look()
                        if slot.worker.over:
                            selector.unregister(slot.worker.child)
                            failures, again = slot.release()
                            waiting.extendleft(reversed(again))
                            yield from failures
            finally:
                if not (whole and self.keeps_warm):
                    self.close()

    def _hand_out(self, waiting: deque[_Turn], slots: Sequence[_Slot]) -> Iterator[_Worker]:
        """Give the jobs, in their order, to free slots, preferably to one with a warm worker."""
        while waiting and (free := [slot for slot in slots if slot.worker is None]):
            turn = waiting.popleft()
            kind = _Kind.of(turn.job)
            slot = min(free, key=lambda slot: (kind not in slot.warm, slot.number))
            try:
                yield slot.take(turn)
            except OSError as error:
                self.lost += [(trial, f"no worker starts: {one_line(error)}") for trial in turn.job.trials]


@dataclass(frozen=True)
class _Turn:
    """A waiting job."""

    job: Job
    repeated: bool = False  #: the first worker failed before its trial had started


class _Kind(NamedTuple):
    """The kind of jobs that a worker is set up for."""

    backend: str
    device: str
    dtype: str  #: JAX has one setting of float64 for a whole process
    shipped: bool  #: task and cell are shipped; else the worker serves one job. Only shipped rules run in it

    @classmethod
    def of(cls, job: Job) -> _Kind:
        trial = job.trials[0]
        return cls(trial.backend, trial.device, trial.dtype, not imports_own(trial))


class _Slot:
    """A share of the cores: its busy worker, and its warm ones."""

    def __init__(self, number: int, first: int | None, executor: LocalExecutor) -> None:
        self.number, self.executor = number, executor
        #: the cores of its workers; empty for all
        self.cores = [] if first is None else _cores(first + number, executor.threads)
        self.worker: _Worker | None = None
        self.warm: dict[_Kind, _Worker] = {}  #: the one that was busy last comes last

    def workers(self) -> list[_Worker]:
        return [*self.warm.values(), *([self.worker] if self.worker else [])]

    def take(self, turn: _Turn) -> _Worker:
        """Give the job to a worker, a warm one if there is one."""
        kind = _Kind.of(turn.job)
        worker = self.warm.pop(kind, None)
        if worker and worker.child.code() is not None:
            _end([worker])
            worker = None
        self.worker = worker or _Worker(kind, self.cores, self.executor)
        self.worker.give(turn)
        return self.worker

    def release(self) -> tuple[list[Record], list[_Turn]]:
        """Free the slot; returns the records of trials that left none, and the jobs to run again."""
        assert self.worker is not None
        worker, self.worker = self.worker, None
        failures, again = worker.conclude()
        if worker.fit:
            self.warm[worker.kind] = worker
            spare = [self.warm.pop(kind) for kind in list(self.warm)[:-_IDLE]]
        else:
            spare = [worker]
        _end(spare)
        return failures, again


class _Worker:
    """One process and its current job."""

    def __init__(self, kind: _Kind, cores: list[int], executor: LocalExecutor) -> None:
        self.kind, self.executor = kind, executor
        self.jobs, self.grown, self.resets, self.number = 0, 0, False, 0
        self.environment: dict[str, Any] | None = None  #: as the process itself sees it, once it is ready
        self.folder = tempfile.mkdtemp(prefix="creditbench-")
        life, self.life = os.pipe()  # closed when this process ends, however it ends
        try:
            self.child = Child(
                str(_WORKER),
                arguments=(str(life), self.folder),
                environment=child_environment(executor.threads, kind.device) | {"TMPDIR": self.folder},
                passed=(life,),
                longest=_LONGEST_LINE,
            )
        except OSError:
            os.close(self.life)
            remove_folder(self.folder)
            raise
        finally:
            os.close(life)
        settings = {
            "backend": kind.backend,
            "device": kind.device,
            "cores": cores,
            "memory_limit": executor.memory_limit,
        }
        self.child.send(**settings)
        self.family = _Family(self.child.process.pid)

    def give(self, turn: _Turn) -> None:
        """Start a job."""
        self.turn, self.job, self.left = turn, turn.job, list(turn.job.trials)
        self.begun = self.done = self.failed = False  #: failed: one of its trials has
        self.verdict: tuple[Status | None, str] | None = None  #: on the trials left; None: the machine failed
        self.over = False  #: nothing more is to be expected
        self.child.forget()
        trials = [trial.model_dump(mode="json") for trial in self.left]
        kept = self.executor.checkpoints
        place = None if kept is None else [str(kept.folder), kept.seconds]
        self.child.send(trials=trials, together=self.job.together, checkpoints=place)
        self._restart_clock(_START_SECONDS)

    def _restart_clock(self, seconds: float) -> None:
        self.started, self.clock, self.host = datetime.now(UTC), time.monotonic(), host()
        self.killed = out_of_memory()
        self.deadline = self.clock + seconds
        self.log_start = self.child.size()

    def _restart_trial(self) -> None:
        self._restart_clock(self.executor.timeout * (len(self.left) if self.job.together else 1))

    # -- its messages ----------------------------------------------------------------------------

    def read(self, progress: Progress | None) -> Iterator[Record]:
        """Read the messages of the process: reports go to `progress`, records are yielded."""
        self.child.push()
        gone = self.child.code() is not None  # asked first, so that no earlier message is lost
        whole = self.child.read()
        while self.child.lines and not self.over:
            try:
                record = self._take(json.loads(self.child.lines.popleft()), progress)
            except (ValueError, KeyError, TypeError, AttributeError, ValidationError) as error:
                said = " ".join(str(error).split())[:200] or type(error).__name__
                self._fail("invalid", f"the process sent something that is not a record of its trial: {said}")
                return
            if record is not None:
                yield record
        if self.over:
            return
        if self.child.ended or (gone and whole):
            self.over = True
        elif self.child.endless:
            self._fail("invalid", "the process sent a line without end")

    def _take(self, message: dict[str, Any], progress: Progress | None) -> Record | None:
        """Take in one message; returns the record, if it is one. Raises if the message cannot come now."""
        if "ready" in message:
            self.number, self.resets = int(message["ready"]), bool(message["resets"])
            self.environment = dict(message["environment"])
        elif "done" in message:
            if self.left:
                raise ValueError("it is said to be done and is not")
            self.grown, self.done, self.over = int(message["grown"]), True, True
        elif "note" in message:
            if self.executor.checkpoints:
                self.executor.checkpoints.say(str(message["note"]))
        elif not self.left:
            raise ValueError("all its trials have a record")
        elif "started" in message:
            self._require(message["started"] == self.left[0].id)
            self.begun = True
            self._restart_trial()
        elif "progress" in message:
            trial = next((trial for trial in self.left if trial.id == message["trial"]), None)
            self._require(trial is not None)
            if progress and trial:
                points = [checked(Point(*point)) for point in message["points"]]
                progress(trial, float(message["progress"]), points)
        elif "machine" in message:
            self._fail(None, str(message["machine"]))
        elif "failed" in message:
            self._require(message["failed"] in _FAILED)
            self._fail(message["failed"], str(message["detail"]))
            self.done = True  # the trials behind it would fail alike
        else:
            record = Record.model_validate(message["record"])
            self._require(record.trial == self.left[0])
            self.left.pop(0)
            if record.status in _FAILED:
                self._keep_log(record.trial)
                # It may have left anything behind: the next seeds go to another worker.
                self.failed, self.over = True, not self.job.together or not self.left
            self._restart_trial()
            return record
        return None

    @staticmethod
    def _require(right: bool) -> None:
        if not right:
            raise ValueError("it is of another trial")

    # -- its silence -----------------------------------------------------------------------------

    def look(self) -> None:
        """Notice when its time is over, and when it has more memory than it may have."""
        if self.over:
            return
        if time.monotonic() > self.deadline:
            seconds = self.executor.timeout if self.begun else _START_SECONDS
            self._fail("timeout", f"no result within {seconds:g} s")
        elif self.begun and (taken := self.family.resident(self.executor.memory_limit)):
            limit = show_bytes(self.executor.memory_limit)
            self._fail("oom", f"{show_bytes(taken)} of memory taken, over the limit of {limit}")

    def _fail(self, status: Status | None, detail: str) -> None:
        self.verdict, self.over = (status, detail), True

    def _ended(self) -> tuple[Status | None, str]:
        """The verdict on a process that has closed its pipe."""
        code, said = self.child.code(_END_SECONDS), self.child.last_lines(self.log_start)
        if code is None:
            detail = "closed its pipe without a record"
        elif code == 0:
            detail = "ended without a record"
        else:
            detail = ending(code)
            if -code == signal.SIGKILL:
                if out_of_memory() == self.killed:
                    return None, f"its process was {detail} from outside"
                return "oom", f"{detail} as the system ran out of memory"
        status: Status = "oom" if code and tells_of_no_memory(said) else "crashed"
        return status, f"{detail}: {said}" if said else detail

    # -- the end ---------------------------------------------------------------------------------

    @property
    def fit(self) -> bool:
        """Whether it may take another job."""
        return (
            self.kind.shipped
            and self.done  # false if a trial failed
            and self.verdict is None
            and not (self.child.lines or self.child.rest)
            and self.resets  # else the memory figure of a trial would be that of all before it
            and self.jobs < _JOBS
            and self.grown < _GROWTH
        )

    def conclude(self) -> tuple[list[Record], list[_Turn]]:
        """End the job: returns the record of its trial, if that left none, and the jobs to run again."""
        self.jobs += 1
        if not self.left:
            return [], []
        if self.failed and self.verdict is None:
            return [], [_Turn(Job((trial,))) for trial in self.left]
        status, detail = self.verdict or self._ended()
        if not self.begun:
            if not self.turn.repeated:
                return [], [replace(self.turn, repeated=True)]
            status, detail = None, f"no worker came as far as the trial, twice: {detail}"
        alike = self.job.together or self.done or not self.begun
        under_way, behind = (self.left, []) if alike else (self.left[:1], self.left[1:])
        seconds, records = time.monotonic() - self.clock, []
        for trial in under_way:
            self._keep_log(trial)
            if status is None:
                self.executor.lost.append((trial, detail))
                continue
            record = failure(trial, status, detail, self.started, seconds)
            here = (self.environment or record.environment) | {"host": self.host}
            records.append(record.model_copy(update={"environment": here}))
        return records, [_Turn(Job((trial,))) for trial in behind]

    def _keep_log(self, trial: Trial) -> None:
        if self.executor.logs is None:
            return
        path = self.executor.logs / f"{trial.id}.log"
        try:
            self.executor.logs.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.child.printed(self.log_start))
        except OSError as error:
            print(f"note: the log '{path}' cannot be written ({error.strerror})", file=sys.stderr, flush=True)


class _Family:
    """A process and all that it has started."""

    def __init__(self, number: int) -> None:
        self.root = psutil.Process(number)
        self.members: list[psutil.Process] = []
        self.looked = -_TREE_SECONDS

    def resident(self, limit: int) -> int:
        """Bytes resident in all of them, 0 up to `limit`. Pages that they share count once."""
        if time.monotonic() - self.looked >= _TREE_SECONDS:
            self.looked = time.monotonic()
            with contextlib.suppress(psutil.Error):
                self.members = [self.root, *self.root.children(recursive=True)]
        taken = self._sum(lambda process: process.memory_info().rss)
        if taken > limit and len(self.members) > 1 and hasattr(psutil, "LINUX") and psutil.LINUX:
            taken = self._sum(lambda process: process.memory_full_info().pss)
        return taken if taken > limit else 0

    def _sum(self, figure: Any) -> int:
        total = 0
        for process in self.members:
            with contextlib.suppress(psutil.Error):  # it has ended
                try:
                    total += figure(process)
                except psutil.AccessDenied:  # nobody may look into it while a rule trains below it
                    total += process.memory_info().rss
        return total


def _end(workers: Sequence[_Worker]) -> None:
    """End the processes and everything that they started. Their guards do it, all at the same time."""
    for worker in workers:
        os.close(worker.life)
    for worker in workers:
        worker.child.code(_END_SECONDS)
        worker.child.__exit__()
        if worker.number:
            # For the case that the guard was killed before its worker.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(worker.number, signal.SIGKILL)
        if os.path.lexists(worker.folder):  # a guard that was killed leaves it
            remove_folder(worker.folder)


def _cores(slot: int, threads: int) -> list[int]:
    """The cores of a slot; slots share cores only if these are too few. Empty if cores cannot be chosen."""
    if not hasattr(os, "sched_setaffinity"):
        return []
    cores = usable_cores()
    return sorted({cores[(slot * threads + i) % len(cores)] for i in range(threads)})
