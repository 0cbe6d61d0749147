"""Shared by executors: their contract, jobs, thread settings, and the record of a trial that left none."""

from __future__ import annotations

import abc
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache

import creditbench
from creditbench.machine.environment import fingerprint
from creditbench.machine.threads import thread_environment
from creditbench.ops import COMPILED
from creditbench.plugins import registry
from creditbench.plugins.importing import Kind, Plugin
from creditbench.trials.record import Record, Status
from creditbench.trials.trainer import Progress as Progress
from creditbench.trials.trial import Trial


@dataclass(frozen=True)
class Job:
    """Trials for one process. They differ only in their seed, and run one after another."""

    trials: tuple[Trial, ...]
    together: bool = False  #: trained as one program instead


class Executor(abc.ABC):
    """Runs jobs. Each trial gives one record, whatever its rule does; no trial harms another.

    A trial at which the machine failed, and not the rule, gives no record: it may run another time or
    elsewhere. Such trials are in `lost`.
    """

    slots: int = 1  #: jobs that run at a time

    def __init__(self) -> None:
        self.lost: list[tuple[Trial, str]] = []  #: trials without a record, and what failed

    @abc.abstractmethod
    def run(self, jobs: Iterable[Job], progress: Progress | None = None) -> Generator[Record, None, None]:
        """The records, in the order in which they are ready. Closing the iterator ends the running trials.

        A job is taken from `jobs` once there is room for it, so jobs may be made while others run.
        """


def make_jobs(trials: Sequence[Trial], *, together: bool = False, slots: int = 1) -> list[Job]:
    """Trials as jobs.

    The seeds of a family are one job, and share what is compiled or recorded once; a family is split if slots
    would stay empty. `together` trains as one program all trials that can be one (JAX, shipped rules).
    """
    families: dict[str, list[Trial]] = {}
    for trial in trials:
        name = trial.family
        if together and trial.backend in COMPILED and not is_contributed(trial):
            name = trial.program
        families.setdefault(name, []).append(trial)
    parts = 1 if together else -(-slots // max(1, len(families)))
    return [
        Job(tuple(family[i::split]), together and family[0].backend in COMPILED)
        for family in families.values()
        for split in [min(parts, len(family))]
        for i in range(split)
    ]


def is_contributed(trial: Trial) -> bool:
    """Whether the rule is not shipped with the harness, and so has to train in a confined process."""
    return trial.learner_path is not None or _plugin("learners", trial.learner).source != "builtin"


def imports_own(trial: Trial) -> bool:
    """Whether the task or the cell is not shipped with the harness, and so is imported by the worker."""
    own_task = trial.task_path is not None or _plugin("tasks", trial.task).source != "builtin"
    return own_task or trial.cell_sha256 is not None


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
def _plugin(kind: Kind, name: str, path: str | None = None) -> Plugin:
    return registry.find(kind, name, [path] if path else [])
