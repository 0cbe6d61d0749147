"""Isolated processes on this machine, several at a time, each on cores of its own.

Every job gets a fresh Python (`creditbench.executors.worker`) in a session of its own. A rule that crashes, hangs or
ends its process costs one trial: its record says what happened, and the seeds that were waiting behind it in the
same process run again, each alone.

The parent is one thread around one selector: a worker is killed by the kernel when the thread that started it ends,
so that thread must be the one that outlives it.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from creditbench.executors.base import Executor, Job, Progress, failure, thread_environment, usable_cores
from creditbench.record import Record, Status
from creditbench.trial import Trial

_TICK = 0.5  # seconds between two looks at processes that say nothing
_LONGEST_LINE = 64 << 20
_FAILED = ("crashed", "invalid", "oom", "timeout")


class LocalExecutor(Executor):
    """`slots` processes at a time, each with `threads` threads; `timeout` seconds for a trial.

    What a failed trial printed is kept in `logs`, one file a trial, if a folder is named.
    """

    def __init__(self, *, threads: int, slots: int, timeout: float, logs: Path | None = None) -> None:
        self.threads, self.slots, self.timeout, self.logs = threads, slots, timeout, logs

    def run(self, jobs: Sequence[Job], progress: Progress | None = None) -> Generator[Record, None, None]:
        """The records as they come in. However the iterator ends, no process is left behind."""
        waiting, free = deque(jobs), set(range(self.slots))
        running: set[_Worker] = set()
        with selectors.DefaultSelector() as selector:
            try:
                while waiting or running:
                    while waiting and free:
                        worker = _Worker(waiting.popleft(), min(free), self)
                        free.remove(worker.slot)
                        running.add(worker)
                        selector.register(worker.pipe, selectors.EVENT_READ, worker)
                    pause = min([_TICK, *(worker.deadline - time.monotonic() for worker in running)])
                    ready = {key.data for key, _ in selector.select(max(0.0, pause))}
                    for worker in list(running):
                        # A grandchild may hold the pipe open, so that the process's end must be looked for too.
                        ended = worker.process.poll() is not None
                        if worker in ready or ended:
                            yield from worker.read(progress)
                        if ended or worker.over or time.monotonic() > worker.deadline:
                            selector.unregister(worker.pipe)
                            failures = worker.finish()
                            running.remove(worker)
                            free.add(worker.slot)
                            waiting.extendleft(Job((trial,)) for trial in reversed(worker.left))
                            yield from failures
            finally:
                for worker in running:
                    worker.kill()


class _Worker:
    """One process and its job."""

    def __init__(self, job: Job, slot: int, executor: LocalExecutor) -> None:
        self.job, self.slot, self.executor = job, slot, executor
        self.left = list(job.trials)  #: without a record yet; the first one is under way
        self.over = False  #: nothing more is to be expected
        self.broken = ""  #: what was wrong with a message
        self.log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `kill`
        self.pipe, write = os.pipe()
        os.set_blocking(self.pipe, False)
        self.buffer = b""
        command = [sys.executable, "-m", "creditbench.executors.worker", str(write)]
        environment = os.environ | thread_environment(executor.threads)
        if job.trials[0].device == "cpu":
            # JAX would else start every platform that it finds, and take memory on it.
            environment.setdefault("JAX_PLATFORMS", "cpu")
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=self.log,
            stderr=self.log,
            env=environment,
            pass_fds=(write,),
            start_new_session=True,
        )
        os.close(write)
        self._restart_clock()
        order = {
            "trials": [trial.model_dump(mode="json") for trial in job.trials],
            "together": job.together,
            "cores": _cores(slot, executor.threads),
            "parent": os.getpid(),
        }
        with contextlib.suppress(BrokenPipeError):  # it has ended already, which will be seen
            assert self.process.stdin is not None
            self.process.stdin.write(json.dumps(order).encode())
            self.process.stdin.close()

    def _restart_clock(self) -> None:
        self.started, self.clock = datetime.now(UTC), time.monotonic()
        self.deadline = self.clock + self.executor.timeout * (len(self.left) if self.job.together else 1)

    def read(self, progress: Progress | None) -> Iterator[Record]:
        """Take in what the process has sent: reports go to `progress`, records come out."""
        while not self.over:
            try:
                chunk = os.read(self.pipe, 1 << 16)
            except BlockingIOError:
                return
            self.buffer += chunk
            *lines, self.buffer = self.buffer.split(b"\n")
            self.over = not chunk or len(self.buffer) > _LONGEST_LINE
            for line in lines:
                try:
                    message = json.loads(line)
                    if "record" not in message:
                        trial = next(trial for trial in self.left if trial.id == message["trial"])
                        if progress:
                            progress(trial, float(message["progress"]))
                        continue
                    record = Record.model_validate(message["record"])
                    if not self.left or record.trial != self.left[0]:
                        raise ValueError("its record is of another trial")
                except (ValueError, KeyError, TypeError, StopIteration, ValidationError) as error:
                    self.broken = " ".join(str(error).split())[:200] or type(error).__name__
                    self.over = True
                    break
                self.left.pop(0)
                if record.status in _FAILED:
                    self._keep_log(record.trial)
                yield record
                self._restart_clock()
                self.over = self.over or not self.left

    def finish(self) -> list[Record]:
        """End the process; the records of what it was at, if it left none. `left` is what has to run again."""
        if self.left and self.over and not self.broken:
            # The pipe is closed: the exit status follows.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5.0)
        records = []
        if self.left:
            status, detail = self._verdict(self.process.poll(), self._last_line())
            under_way, self.left = (self.left, []) if self.job.together else (self.left[:1], self.left[1:])
            for trial in under_way:
                self._keep_log(trial)
                records.append(failure(trial, status, detail, self.started, time.monotonic() - self.clock))
        self.kill()
        return records

    def _verdict(self, code: int | None, log: str) -> tuple[Status, str]:
        if self.broken:
            return "invalid", f"the process sent something that is not a record of its trial: {self.broken}"
        if code is None and not self.over:
            return "timeout", f"no result within {self.executor.timeout:g} s"
        if code is None:
            detail = "closed its pipe without a record"
        elif code < 0:
            names = {number.value: number.name for number in signal.Signals}
            detail = f"killed by {names.get(-code, f'signal {-code}')}"
            if -code == signal.SIGKILL:
                detail += " (as the system does when memory runs out)"
        elif code:
            detail = f"exit code {code}"
        else:
            detail = "ended without a record"
        return "crashed", f"{detail}: {log}" if log else detail

    def kill(self) -> None:
        """End the process and everything that it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        with contextlib.suppress(OSError):
            os.close(self.pipe)
        self.log.close()

    def _last_line(self) -> str:
        size = self.log.seek(0, os.SEEK_END)
        self.log.seek(max(0, size - 8192))
        lines = [line.strip() for line in self.log.read().decode(errors="replace").splitlines()]
        last = next((line for line in reversed(lines) if line), "")
        return "".join(c for c in last if c.isprintable())[:300]

    def _keep_log(self, trial: Trial) -> None:
        if self.executor.logs is None:
            return
        self.executor.logs.mkdir(parents=True, exist_ok=True)
        self.log.seek(0)
        (self.executor.logs / f"{trial.id}.log").write_bytes(self.log.read())


def _cores(slot: int, threads: int) -> list[int]:
    """The cores of a slot; slots share cores only where there are too few. Empty where cores cannot be chosen."""
    if not hasattr(os, "sched_setaffinity"):
        return []
    cores = usable_cores()
    return sorted({cores[(slot * threads + i) % len(cores)] for i in range(threads)})
