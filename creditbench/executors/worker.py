"""A process that runs jobs, one after another: `python -P worker.py ORDERS REPORTS LIFE FOLDER`.

A rule that is not shipped is never imported here: it trains in a process below this one (`confined`).

There are two processes. The *guard*, which the parent has started, forks the *worker* before any heavy
import, adopts the orphans that the worker leaves, and waits. It acts when the worker has ended, or when the
parent has (which closes LIFE, a pipe that nobody writes to). It then kills everything below it, removes
FOLDER, which has all temporary files, and ends as the worker did. The guard lives as long as the worker and
has to be small, so this file is run by its path: run by its name, it would import its package first, and
NumPy with it.

Orders (`creditbench.machine.child`): the settings, then one a job. Messages: `ready` once the framework is
imported; then for each job `started`, `progress`, `record`, `failed`, or `machine` if the machine failed, and
`done`. The output of a learner goes elsewhere and cannot be taken for a message.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import math
import os
import select
import signal
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from creditbench.isolation import Limits
    from creditbench.machine.child import Send
    from creditbench.trials.record import Point
    from creditbench.trials.trial import Trial

_PROGRESS_SECONDS = 0.2  # between two reports
_KEPT_BYTES = 128 << 20  # growth since the start from which on compiled functions are forgotten
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def main() -> None:
    """Become the guard, and in a fork the worker."""
    orders, reports, life = map(int, sys.argv[1:4])
    folder = sys.argv[4]
    wake, wakes = os.pipe()
    os.set_blocking(wakes, False)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(wakes)
    guard, worker = os.getpid(), os.fork()
    if worker:
        os.close(orders)
        os.close(reports)
        _guard(worker, life, wake, folder)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    for descriptor in (wake, wakes, life):
        os.close(descriptor)
    os.setsid()  # a learner's signals to its process group do not reach the guard
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != guard:  # the guard ended before this was set
        os._exit(1)
    from creditbench.machine.child import Send  # only now, since the guard has to be small

    _work(Send(orders, reports))


# -- the guard -------------------------------------------------------------------------------------------


def _guard(worker: int, life: int, wake: int, folder: str) -> NoReturn:
    """Wait until the worker or the parent ends, remove all processes and files, and end as the worker did."""
    status: int | None = None
    while status is None:
        ready, _, _ = select.select([life, wake], [], [])
        if life in ready or (wake in ready and signal.SIGTERM in os.read(wake, 4096)):
            break
        status = _reap(worker)
    _end_all(worker)
    _remove(folder)
    if status is None:
        os._exit(0)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        # The guard imports what it needs when it needs it: it is to stay small.
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with contextlib.suppress(OSError):  # SIGKILL's action cannot be set
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def _remove(folder: str) -> None:
    # The guard imports what it needs when it needs it: it is to stay small.
    from creditbench.isolation import remove_folder

    remove_folder(folder)


def _reap(worker: int) -> int | None:
    """Reap the children that have ended; returns the status of the worker if it is among them."""
    found = None
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == worker:
                found = ended[1]
    return found


def _end_all(worker: int) -> None:
    """Kill every process below this one, even those that left the worker's session (Linux)."""
    # The guard imports what it needs when it needs it: it is to stay small.
    import psutil

    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(worker, signal.SIGKILL)
    this, deadline = psutil.Process(), time.monotonic() + 10
    while (children := this.children(recursive=True)) and time.monotonic() < deadline:
        for child in children:
            with contextlib.suppress(psutil.Error):
                child.kill()
        _reap(worker)
        time.sleep(0.002)


# -- the worker ------------------------------------------------------------------------------------------


def _work(send: Send) -> None:
    settings = send.receive()
    if settings is None:  # the parent has gone already
        return
    if settings["cores"]:
        # Before any library counts the cores that it may use.
        os.sched_setaffinity(0, settings["cores"])
    # A system that runs out of memory should end this process and not the parent.
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("500")
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]

    # After the fork: the guard has none of these.
    from creditbench.executors import confined  # noqa: F401 - with all that trains, before the first job
    from creditbench.isolation import Limits
    from creditbench.machine.compilation import keep_programs
    from creditbench.machine.environment import fingerprint
    from creditbench.machine.memory import reset_peak, resident_bytes, settle
    from creditbench.ops import COMPILED
    from creditbench.plugins import registry
    from creditbench.trials.blocks import warm_up

    backend = settings["backend"]
    registry.load("tasks")
    registry.load("learners")
    registry.load("cells")
    if backend in COMPILED:
        keep_programs()
    warm_up(backend, settings["device"])
    settle()
    gc.freeze()  # no later collection has to look at the framework's 10⁵ objects
    base = resident_bytes()
    send(ready=os.getpid(), resets=reset_peak(), environment=fingerprint(backend, settings["device"]))
    while (job := send.receive()) is not None:
        _run(job, send, Limits(seconds=math.inf, memory=settings["memory_limit"]))
        _tidy(backend, base)
        send(done=[trial["seed"] for trial in job["trials"]], grown=resident_bytes() - base)


def _run(job: dict[str, Any], send: Send, limits: Limits) -> None:
    # After the fork: the guard has none of these.
    from pathlib import Path

    from creditbench.errors import is_of_machine, one_line, status_of
    from creditbench.executors.base import is_contributed
    from creditbench.executors.confined import ConfinedBlocks
    from creditbench.trials.checkpoint import Checkpoints
    from creditbench.trials.trainer import Trainer, run_trials
    from creditbench.trials.trial import Trial

    reported = 0.0
    waiting: dict[str, list[Point]] = {}  #: points that were not sent yet; the record has all of them

    def progress(trial: Trial, part: float, points: Sequence[Point]) -> None:
        nonlocal reported
        waiting.setdefault(trial.id, []).extend(points)
        if time.monotonic() - reported > _PROGRESS_SECONDS:
            reported = time.monotonic()
            send(trial=trial.id, progress=part, points=waiting.pop(trial.id))

    trials = [Trial.model_validate(values) for values in job["trials"]]
    trainer = checkpoints = None
    if job["checkpoints"]:
        folder, seconds = job["checkpoints"]
        checkpoints = Checkpoints(Path(folder), seconds, lambda line: send(note=line))
    try:
        if is_contributed(trials[0]):
            blocks = ConfinedBlocks(trials[0], limits)
            trainer = Trainer(trials[0], blocks=blocks)
            blocks.prepare()
        send(started=trials[0].id)
        for record in run_trials(trials, progress, job["together"], trainer, checkpoints):
            send.line(f'{{"record": {record.model_dump_json()}}}')
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        if is_of_machine(error):
            send(machine=one_line(error))
        else:
            # An error outside the training of one seed concerns all of them alike.
            send(failed=status_of(error), detail=one_line(error))


def _tidy(backend: str, base: int) -> None:
    """Free what the job has left, so that the next one starts as the first one did."""
    # After the fork: the guard has none of these.
    from creditbench.machine.memory import resident_bytes, settle
    from creditbench.ops import make_ops

    settle()
    if resident_bytes() - base > _KEPT_BYTES:
        make_ops(backend).host.forget()
        settle()


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value)


if __name__ == "__main__":
    main()
