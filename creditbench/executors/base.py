"""What executors share: the contract, jobs, thread settings, and the record of a trial that left none."""

from __future__ import annotations

import abc
import math
import os
import re
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache

import creditbench
from creditbench import registry
from creditbench.environment import fingerprint
from creditbench.errors import UsageError
from creditbench.record import Record, Status
from creditbench.trial import Trial

Progress = Callable[[Trial, float], None]  #: trial, part of its budget that is done


@dataclass(frozen=True)
class Job:
    """Trials for one process; they differ in nothing but their seed, and run one after another."""

    trials: tuple[Trial, ...]
    together: bool = False  #: trained as one program instead


class Executor(abc.ABC):
    """Runs jobs. One record a trial comes out, whatever its rule does; no trial harms another.

    None comes out where the machine failed and not the rule: another time, or elsewhere, the trial may do. Such trials
    are in `lost`.
    """

    slots: int = 1  #: jobs that run at a time

    def __init__(self) -> None:
        self.lost: list[tuple[Trial, str]] = []  #: trials without a record, and what failed

    @abc.abstractmethod
    def run(self, jobs: Iterable[Job], progress: Progress | None = None) -> Generator[Record, None, None]:
        """The records, in the order in which they are ready. Closing the iterator ends what is running.

        A job is taken from `jobs` once there is room for it, so that they may be made while others run.
        """


def make_jobs(trials: Sequence[Trial], *, together: bool = False, slots: int = 1) -> list[Job]:
    """Trials as jobs.

    Under JAX the seeds of a family are one job and share one compilation; where that would leave slots empty, a
    family is split. PyTorch compiles nothing, so each trial is a job of its own. `together` trains all
    that can be one program as one (JAX, shipped rules).
    """
    families: dict[str, list[Trial]] = {}
    for trial in trials:
        name = trial.id if trial.backend != "jax" else trial.family
        if together and trial.backend == "jax" and not is_contributed(trial):
            name = trial.program
        families.setdefault(name, []).append(trial)
    parts = 1 if together else -(-slots // max(1, len(families)))
    return [
        Job(tuple(family[i::split]), together and family[0].backend == "jax")
        for family in families.values()
        for split in [min(parts, len(family))]
        for i in range(split)
    ]


def usable_cores() -> list[int]:
    """The numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def thread_environment(threads: int) -> dict[str, str]:
    """Environment variables that hold the libraries' thread pools to `threads`; they are read at import."""
    xla = f"--xla_cpu_multi_thread_eigen={'true' if threads > 1 else 'false'} intra_op_parallelism_threads={threads}"
    pools = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return dict.fromkeys(pools, str(threads)) | {
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {xla}".strip()
    }


def is_contributed(trial: Trial) -> bool:
    """Whether the rule is not shipped with the harness, so that it is to train in a confined process."""
    return trial.learner_path is not None or _plugin("learners", trial.learner).source != "builtin"


def is_own_task(trial: Trial) -> bool:
    """Whether the task is not shipped with the harness."""
    return trial.task_path is not None or _plugin("tasks", trial.task).source != "builtin"


def read_bytes(text: str) -> int:
    """`4GB`, `512 MiB` or a plain number as bytes. Raises `UsageError` for anything else.

    >>> read_bytes("4GB"), read_bytes("1.5 KiB")
    (4000000000, 1536)
    """
    parts = re.fullmatch(r"([0-9]+\.?[0-9]*)\s*(?:([kmgt])(i?)b?|b)?", text.strip().lower())
    if parts is None or len(parts[1]) > 20:
        raise UsageError(f"memory limit is {text[:40]!r}: give bytes with a unit, as in 4GB or 512MiB")
    number, letter, binary = parts.groups()
    base = 1024 if binary else 1000
    return int(float(number) * base ** (" kmgt".index(letter) if letter else 0))


def show_bytes(count: float) -> str:
    """Bytes for a reader.

    >>> show_bytes(4.2e9), show_bytes(999_999)
    ('4.2 GB', '1 MB')
    """
    count = float(f"{count:.3g}")
    power = min(4, max(0, int(math.log10(count) // 3))) if count >= 1 else 0
    return f"{count / 1000**power:.3g} {('bytes', 'kB', 'MB', 'GB', 'TB')[power]}"


def failure(trial: Trial, status: Status, detail: str, started: datetime, seconds: float) -> Record:
    """The record of a trial that left none itself."""
    task = _plugin("tasks", trial.task, trial.task_path)
    source = trial.learner_path or _plugin("learners", trial.learner).source
    return Record(
        suite_version=creditbench.__version__,
        trial=trial,
        learner_source=source,
        status=status,
        status_detail=detail,
        metric=task.cls.metric,
        metric_direction=task.cls.metric_direction,
        environment=fingerprint(trial.backend, trial.device) | {"threads": thread_environment(trial.threads)},
        started_at=started.isoformat(timespec="seconds"),
        duration_seconds=seconds,
    )


@cache
def _plugin(kind: registry.Kind, name: str, path: str | None = None) -> registry.Plugin:
    return registry.find(kind, name, [path] if path else [])
