"""Where trials run: in this process (`inline`), or in processes of their own, several at a time (`local`)."""

from __future__ import annotations

from pathlib import Path

from creditbench.errors import UsageError, unknown
from creditbench.executors.base import Executor, Job, Progress, make_jobs
from creditbench.machine.threads import usable_cores

EXECUTORS = ("inline", "local")

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
) -> Executor:
    """The executor of that name.

    `slots`: processes at a time; None for as many as fit the usable cores, and for one if `device` is not the
    CPU, since trials that share an accelerator compete for its time and memory. `timeout`: seconds that a
    trial may take; None for an hour. `memory_limit`: bytes that it may take; None for nine tenths of the
    memory that this process may use, over the slots. `logs`: a folder for the output of failed trials. Raises
    `UsageError` for an unknown name and for impossible numbers.
    """
    cores = len(usable_cores())
    numbers = {"threads": threads, "jobs": slots, "timeout": timeout, "memory limit": memory_limit}
    for what, value in numbers.items():
        if value is not None and not value > 0:
            raise UsageError(f"{what} is {value}: give a number above 0")
    if threads > cores:
        raise UsageError(f"threads is {threads}: this process may use {cores} cores; give {cores} or fewer")
    if name == "local":
        # Only the executor that is asked for.
        from creditbench.executors.local import LocalExecutor
        from creditbench.machine.environment import usable_memory

        slots = slots or (max(1, cores // threads) if device == "cpu" else 1)
        return LocalExecutor(
            threads=threads,
            slots=slots,
            timeout=3600.0 if timeout is None else timeout,
            memory_limit=int(memory_limit or 0.9 * usable_memory() / slots),
            logs=Path(logs) if logs is not None else None,
        )
    if name == "inline":
        # Only the executor that is asked for.
        from creditbench.executors.inline import InlineExecutor

        if timeout is not None or memory_limit is not None or slots not in (None, 1):
            raise UsageError(
                "the executor 'inline' runs one trial after another to its end: leave out --timeout, "
                "--memory-limit and --jobs"
            )
        return InlineExecutor(threads=threads)
    raise unknown("executor", name, EXECUTORS, "creditbench run --help")
