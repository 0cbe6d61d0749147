"""Where trials run: in this process (`inline`), or in processes of their own, on this machine (`local`) or on
many (`dask`).
"""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

from creditbench.errors import UsageError, not_installed, unknown
from creditbench.executors.base import Executor, Job, Progress, make_jobs
from creditbench.machine.threads import usable_cores

EXECUTORS = ("inline", "local", "dask")

__all__ = ["EXECUTORS", "Executor", "Job", "Progress", "make_executor", "make_jobs"]


def make_executor(
    name: str,
    *,
    threads: int = 1,
    slots: int | None = None,
    device: str = "cpu",
    timeout: float | None = None,
    memory_limit: float | None = None,
    logs: str | Path | None = None,
    scheduler: str | None = None,
    checkpoints: Path | None = None,
    checkpoint_seconds: float | None = None,
) -> Executor:
    """The executor of that name.

    `slots`: processes at a time; None for as many as fit the usable cores, and for one if `device` is not the
    CPU, since trials that share an accelerator compete for its time and memory. `timeout`: seconds that a
    trial may take; None for an hour. `memory_limit`: bytes that it may take; None for nine tenths of the
    memory that this process may use, over the slots. `logs`: a folder for the output of failed trials.
    `scheduler`: of a dask cluster that is there; its workers are the slots. `checkpoints`: a folder for them;
    None for none. `checkpoint_seconds`: between two of a trial; None for a minute. Raises `UsageError` for an
    unknown name, for impossible numbers, and if the scheduler does not answer.
    """
    cores = len(usable_cores())
    numbers = {"threads": threads, "jobs": slots, "timeout": timeout, "memory limit": memory_limit}
    for what, value in numbers.items():
        if value is not None and not value > 0:
            raise UsageError(f"{what} is {value}: give a number above 0")
    if scheduler is not None and (name != "dask" or slots is not None):
        other = f"the executor is {name!r}" if name != "dask" else f"--jobs is {slots}"
        cure = "give --executor dask" if name != "dask" else "its workers decide; leave out --jobs"
        raise UsageError(f"--scheduler is {scheduler} and {other}: {cure}")
    if threads > cores and scheduler is None:
        raise UsageError(f"threads is {threads}: this process may use {cores} cores; give {cores} or fewer")
    if checkpoint_seconds is not None and not 0 <= checkpoint_seconds < math.inf:
        raise UsageError(f"checkpoint is {checkpoint_seconds}: give seconds, 0 or more")
    folder = Path(logs) if logs is not None else None
    kept = None
    if checkpoints is not None:
        # It is not needed to list the executors.
        from creditbench.trials.checkpoint import SECONDS, Checkpoints

        kept = Checkpoints(
            checkpoints.absolute(), SECONDS if checkpoint_seconds is None else checkpoint_seconds
        )
    seconds = 3600.0 if timeout is None else timeout
    own = slots or (max(1, cores // threads) if device == "cpu" else 1)
    if name in ("local", "dask"):
        # It is not needed to list the executors.
        from creditbench.machine.environment import usable_memory

        share = int(memory_limit or 0.9 * usable_memory() / own)
    if name == "local":
        # Only the executor that is asked for.
        from creditbench.executors.local import LocalExecutor

        return LocalExecutor(
            threads=threads, slots=own, timeout=seconds, memory_limit=share, logs=folder, checkpoints=kept
        )
    if name == "dask":
        if importlib.util.find_spec("distributed") is None:
            raise not_installed("the executor 'dask'", "distributed")
        # Only the executor that is asked for.
        from creditbench.executors.dask import DaskExecutor

        return DaskExecutor(
            scheduler=scheduler,
            slots=own,
            threads=threads,
            timeout=seconds,
            memory_limit=share if scheduler is None or memory_limit else None,
            logs=folder,
            checkpoints=kept,
        )
    if name == "inline":
        # Only the executor that is asked for.
        from creditbench.executors.inline import InlineExecutor

        if timeout is not None or memory_limit is not None or slots not in (None, 1):
            raise UsageError(
                "the executor 'inline' runs one trial after another to its end: leave out --timeout, "
                "--memory-limit and --jobs"
            )
        return InlineExecutor(threads=threads, checkpoints=kept)
    raise unknown("executor", name, EXECUTORS, "creditbench run --help")
