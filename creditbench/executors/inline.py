"""Trials one after another in this process: for debugging."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Generator, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from creditbench.errors import is_of_machine, one_line, status_of
from creditbench.executors.base import Executor, Job, Progress, failure
from creditbench.machine.frameworks import FRAMEWORKS
from creditbench.machine.threads import thread_environment
from creditbench.trials.record import Record

if TYPE_CHECKING:
    # Not at run time: it brings NumPy along.
    from creditbench.trials.checkpoint import Checkpoints


class InlineExecutor(Executor):
    """No isolation, no limits: a rule is imported here, and one that ends the process ends the run."""

    def __init__(self, *, threads: int = 1, checkpoints: Checkpoints | None = None) -> None:
        super().__init__()
        self.threads, self.checkpoints = threads, checkpoints

    def run(self, jobs: Iterable[Job], progress: Progress | None = None) -> Generator[Record, None, None]:
        if not FRAMEWORKS.keys() & sys.modules.keys():
            os.environ.update(thread_environment(self.threads))
        # The trainer brings its framework along.
        from creditbench.trials.trainer import run_trials

        for job in jobs:
            started, clock = datetime.now(UTC), time.perf_counter()
            waiting = list(job.trials)
            try:
                for record in run_trials(job.trials, progress, job.together, checkpoints=self.checkpoints):
                    waiting.pop(0)
                    yield record
            except Exception as error:
                # An error before the first step concerns every seed alike.
                traceback.print_exc(file=sys.stderr)
                if is_of_machine(error):
                    self.lost += [(trial, one_line(error)) for trial in waiting]
                    continue
                seconds = time.perf_counter() - clock
                for trial in waiting:
                    yield failure(trial, status_of(error), one_line(error), started, seconds)
