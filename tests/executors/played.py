"""Stands for the executor of a dask worker: it gives records without training.

The learning rate of a trial says what happens at it.
"""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime

from creditbench.executors.base import failure
from creditbench.executors.local import LocalExecutor

WAITS, LOSES, WRITES = 1.0, 2.0, 3.0


class Played(LocalExecutor):
    """An executor for one job at a time."""

    broken_off = 0  #: jobs that were ended before their end
    not_waited_for = 0  #: jobs that nobody waited for once their records were there
    started, go_on = threading.Event(), threading.Event()

    def __init__(self) -> None:
        super().__init__(threads=1, slots=1, timeout=60.0, memory_limit=1 << 40)
        self.made = None

    def run(self, jobs, progress=None):
        (job,) = jobs
        for trial in job.trials:
            self.started.set()
            while trial.lr == WAITS and not self.go_on.is_set():
                if not self.is_wanted():
                    Played.broken_off += 1
                    return
                time.sleep(0.01)
            if trial.lr == LOSES:
                self.lost.append((trial, "the disk was full"))
                continue
            if trial.lr == WRITES:
                self.logs.mkdir(exist_ok=True)
                (self.logs / f"{trial.id}.log").write_text("what it printed")
            progress(trial, 0.5, [])
            self.made = self.made or failure(trial, "crashed", "", datetime.now(UTC), 0.0)
            yield self.made.model_copy(update={"trial": trial, "status": "ok", "test_score": trial.lr})
        time.sleep(0.05)  # as a worker tidies up before it is warm again
        Played.not_waited_for += not self.is_wanted()
