"""Runs that share one results folder: they share the work, and no two of them run the same trial.

The run that trains a trial holds a lock on it: on one byte of the folder's file `.lock`, named by the trial's
id. The system releases the locks of a process when it ends, however it ends, so the trials of a killed run
are free at once. Nothing is ever written into the file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import os
import time
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path

from creditbench.executors.base import Executor, Job, Progress
from creditbench.machine.files import output
from creditbench.plugins import contributed, registry
from creditbench.results.store import Store, as_text
from creditbench.trials.record import Record
from creditbench.trials.trial import Trial

_PAUSE = 0.5  # seconds between two looks at the records of other runs


class Locks:
    """The locks of one process on trials of one folder."""

    def __init__(self, store: Store, say: Callable[[str], None]) -> None:
        self.store, self.say, self.able = store, say, True
        with output("results folder", store.directory, "name another with --results"):
            self.file = os.open(store.directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def close(self) -> None:
        os.close(self.file)

    def take(self, trial: Trial) -> bool:
        """Whether this process has the lock on `trial` now."""
        try:
            fcntl.lockf(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, self._place(trial))
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            if self.able:
                self.say(
                    f"note: the file system of '{self.store.directory}' has no locks ({error.strerror}): "
                    "another run on this folder would run the same trials again"
                )
            self.able = False
        return True

    def release(self, trial: Trial) -> None:
        """Let others have the lock on `trial`."""
        if self.able:
            fcntl.lockf(self.file, fcntl.LOCK_UN, 1, self._place(trial))

    @staticmethod
    def _place(trial: Trial) -> int:
        return int(trial.id[:15], 16)  # a byte of a file that could have 2^63


def run_missing(
    store: Store,
    trials: Sequence[Trial],
    executor: Executor,
    make: Callable[[Sequence[Trial]], Sequence[Job]],
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda line: None,
    describe: Callable[[Record], Record] = lambda record: record,
) -> Generator[tuple[Record, bool], None, None]:
    """Run those of `trials` that no other run has taken, and wait for the rest: (record, whether it is new).

    Each record is completed by `describe` and kept in `store` before it is yielded. `make` turns trials into
    jobs. A trial at which the machine failed gives no record and is not tried again. Raises `UsageError` if a
    record cannot be kept.
    """
    if not trials:
        return
    there = store.names()
    before = {trial.id: store.written(trial) if trial.id in there else None for trial in trials}
    left = {trial.id: trial for trial in trials}
    tried: set[str] = set()
    kept: list[tuple[Trial, bytes]] = []  #: records as compressed text, a tenth of their size
    store.require_writable()
    locks = Locks(store, say)

    def mine(jobs: Iterable[Job]) -> Iterator[Job]:
        """The trials of each job that still have to run, locked."""
        for job in jobs:
            own = []
            for trial in job.trials:
                if not locks.take(trial):
                    continue
                if store.written(trial) != before[trial.id]:  # another run came first
                    locks.release(trial)
                    continue
                own.append(trial)
            if own:
                tried.update(trial.id for trial in own)
                yield dataclasses.replace(job, trials=tuple(own))

    def restore() -> None:
        """Write the records again if the folder was deleted during the run."""
        nonlocal locks
        if store.is_there():
            return
        say(
            f"results folder '{store.directory}' was deleted under the run: the {len(kept)} records that the "
            "run has are written again, and others that were in it are lost"
        )
        store.require_writable()
        locks.close()
        locks = Locks(store, say)
        for name in tried & left.keys():
            locks.take(left[name])
        for trial, text in kept:
            store.put_text(trial, zlib.decompress(text))

    try:
        while left:
            todo = [trial for trial in left.values() if trial.id not in tried]
            with contextlib.closing(executor.run(mine(make(todo)), progress)) as records:
                for record in map(describe, records):
                    restore()
                    text = as_text(record)
                    store.put_text(record.trial, text)
                    if record.status != "timeout":  # a trial that is given more time may go on
                        store.drop_checkpoint(record.trial)
                    locks.release(record.trial)
                    kept.append((record.trial, zlib.compress(text, 1)))
                    del left[record.trial.id]
                    yield record, True
            restore()
            for name, trial in list(left.items()):
                if name in tried:
                    locks.release(trial)
                    del left[name]
                elif store.written(trial) != before[name]:
                    del left[name]
                    record = store.get(trial)
                    kept.append((trial, zlib.compress(as_text(record), 1)))
                    yield record, False
            if left:
                say(f"waiting for {len(left)} trials that other runs on '{store.directory}' are at")
            while left and not any(
                store.written(t) != before[n] or _is_free(locks, t) for n, t in left.items()
            ):
                time.sleep(_PAUSE)
    finally:
        locks.close()
        if kept:
            store.sync()


def _is_free(locks: Locks, trial: Trial) -> bool:
    if taken := locks.take(trial):
        locks.release(trial)
    return taken


def with_description(record: Record) -> Record:
    """The record with its rule's description of itself: that of the class that was run, not of its file.

    A shipped rule is not described: its source does that. To be called in the process that made the trial.
    """
    trial = record.trial
    if trial.learner_path is not None:
        cls = contributed.stand_in(str(Path(trial.learner_path).resolve()), trial.learner_sha256, None)
    else:
        plugin = registry.find("learners", trial.learner)
        if plugin.source == "builtin":
            return record
        cls = plugin.cls
    described = {name: getattr(cls, name) for name in ("name", "paper", "family")}
    described["claims"] = dataclasses.asdict(cls.claims)
    return record.model_copy(update={"described": described})
