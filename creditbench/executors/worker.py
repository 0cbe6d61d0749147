"""The process that runs one job: `python -m creditbench.executors.worker FD`.

The job comes on standard input as JSON; messages leave by the file descriptor FD, a line of JSON each:
`{"trial": id, "progress": part}` or `{"record": ...}`. What a learner prints goes elsewhere and cannot be taken for
either.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import IO

_PROGRESS_SECONDS = 0.2  # between two reports


def main() -> None:
    """Run the job that comes on standard input."""
    job = json.load(sys.stdin)
    _end_with(job["parent"])
    if job["cores"]:
        # Before any library counts the cores that it may use.
        os.sched_setaffinity(0, job["cores"])
    descriptor = int(sys.argv[1])
    os.set_inheritable(descriptor, False)
    with os.fdopen(descriptor, "w", encoding="utf-8") as pipe:
        _run(job, pipe)


def _run(job: dict, pipe: IO[str]) -> None:
    from creditbench.trainer import run_trials
    from creditbench.trial import Trial

    reported = 0.0

    def progress(trial: Trial, part: float) -> None:
        nonlocal reported
        if time.monotonic() - reported > _PROGRESS_SECONDS:
            reported = time.monotonic()
            _send(pipe, json.dumps({"trial": trial.id, "progress": part}))

    trials = [Trial.model_validate(values) for values in job["trials"]]
    for record in run_trials(trials, progress, job["together"]):
        _send(pipe, f'{{"record": {record.model_dump_json()}}}')


def _send(pipe: IO[str], line: str) -> None:
    pipe.write(line + "\n")
    pipe.flush()


def _end_with(parent: int) -> None:
    """Have this process killed when its parent ends, however it ends (Linux)."""
    if sys.platform == "linux":
        import ctypes

        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before that was set
        os._exit(1)


if __name__ == "__main__":
    main()
