"""In a dask worker: a job, run as the executor `local` runs it, and what its run is told.

The other side is `creditbench.executors.dask`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from distributed import Worker, get_worker
from distributed.core import Status as WorkerStatus

import creditbench
from creditbench.errors import UsageError, reason
from creditbench.executors.base import Job
from creditbench.executors.local import LocalExecutor
from creditbench.machine import files
from creditbench.machine.environment import fingerprint, usable_memory
from creditbench.machine.folders import PACKAGE, shipped
from creditbench.plugins import registry
from creditbench.plugins.importing import Kind, source_sha256
from creditbench.trials.checkpoint import Checkpoints
from creditbench.trials.record import Point
from creditbench.trials.trial import Trial

TOPIC = "creditbench"  # one for all runs, since a scheduler keeps the last 1,000 events of each topic
_PROGRESS_SECONDS = 1.0  # between two reports of a job
_IDLE_SECONDS = 60.0  # that a dask worker keeps warm processes without a job
_LONGEST_LOG = 64 << 10
#: The files of a trial that may be a user's own: kind, path, sha256.
PLUGINS: tuple[tuple[Kind, str, str, str], ...] = (
    ("tasks", "task", "task_path", "task_sha256"),
    ("learners", "learner", "learner_path", "learner_sha256"),
    ("cells", "cell", "cell_path", "cell_sha256"),
)


@cache
def harness() -> dict[str, str]:
    """What has to be the same here and there: the version, and the sha256 of all that is shipped."""
    digest = hashlib.sha256()
    for root, pattern in ((PACKAGE, "**/*.py"), (shipped("tasks"), "**/*"), (shipped("learners"), "**/*.py")):
        for path in sorted(root.glob(pattern)):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(repr(path.relative_to(root).as_posix()).encode() + files.read(path))
    commit = fingerprint("jax").get("commit") or ""
    return {
        "version": creditbench.__version__,
        "commit": f"commit {commit[:10] or 'unknown'}",
        "sha256": f"sources {digest.hexdigest()[:16]}",
    }


def another(wanted: dict[str, str]) -> str:
    """How the harness here differs from the `wanted` one; empty if it does not."""
    if wanted["sha256"] == (own := harness())["sha256"]:
        return ""
    there, here = (", ".join(one.values()) for one in (own, wanted))
    return f"has another creditbench ({there}) than this machine ({here}): install one on both"


def run_job(text: str) -> None:
    """Run a job in a thread of a dask worker, and tell its run what comes of it."""
    order, worker = json.loads(text), get_worker()

    def tell(**message: Any) -> None:
        worker.log_event(
            TOPIC, {"run": order["run"], "job": order["job"], "worker": worker.address} | message
        )

    if why := another(order["harness"]):
        tell(refused=why)
        return
    # In dask's own folder, which it clears of what killed workers have left.
    with tempfile.TemporaryDirectory(dir=worker.local_directory) as folder:
        try:
            trials = [
                _placed(Trial.model_validate(values), order["files"], folder) for values in order["trials"]
            ]
            _require_data(trials[0])
        except UsageError as error:
            tell(refused=str(error))
            return
        _run(Job(tuple(trials), order["together"]), order, worker, Path(folder) / "logs", tell)


def _run(job: Job, order: dict[str, Any], worker: Worker, logs: Path, tell: Callable[..., None]) -> None:
    reported = 0.0
    waiting: dict[str, list[Point]] = {}  #: points that were not told yet; the record has all of them

    def progress(trial: Trial, part: float, points: Sequence[Point]) -> None:
        nonlocal reported
        waiting.setdefault(trial.id, []).extend(points)
        if time.monotonic() - reported > _PROGRESS_SECONDS:
            reported = time.monotonic()
            tell(progress=[trial.id, part, [list(point) for point in waiting.pop(trial.id)]])

    with _warm.of(order["settings"], worker) as executor:
        executor.logs, executor.lost = logs, []
        executor.is_wanted = partial(_is_wanted, worker, order["key"])  # type: ignore[method-assign]
        with contextlib.closing(executor.run([job], progress)) as records:
            for record in records:
                for log in logs.glob("*.log"):
                    _tell_log(log, tell)
                tell(record=record.model_dump_json())
        for log in logs.glob("*.log"):
            _tell_log(log, tell)
        tell(lost=[[trial.id, f"{why} (on {worker.address})"] for trial, why in executor.lost])


def _tell_log(log: Path, tell: Callable[..., None]) -> None:
    tell(log=[log.stem, log.read_bytes()[-_LONGEST_LOG:].decode(errors="replace")])
    log.unlink()


def _is_wanted(worker: Worker, key: str) -> bool:
    """Whether the run still waits for a job, and its worker is not about to end."""
    task = worker.state.tasks.get(key)
    if task is None or task.state not in ("executing", "long-running"):
        return False
    return worker.status in (WorkerStatus.running, WorkerStatus.paused, WorkerStatus.closing_gracefully)


def _placed(trial: Trial, sources: dict[str, list[str]], folder: str) -> Trial:
    """The trial with a user's own files as they are here: in their place, or else as copies.

    Raises `UsageError` if the trial needs something that is not here.
    """
    here = {}
    for kind, name, path, sha256 in PLUGINS:
        place, wanted = getattr(trial, path), getattr(trial, sha256)
        if wanted is None:  # a shipped cell
            continue
        if place is None:
            if registry.find(kind, getattr(trial, name)).sha256 != wanted:
                raise UsageError(
                    f"has another {kind[:-1]} {getattr(trial, name)}: install the same package there"
                )
            continue
        if _sha256(place) == wanted:
            continue
        if path in sources:
            file, text = sources[path]
            copy = Path(folder, kind, file)
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(text.encode("utf-8", "surrogateescape"))
            here[path] = str(copy)
        if _sha256(here.get(path)) != wanted:
            raise UsageError(
                f"lacks {place} as it was when the run began, or a file that it embeds: put them there, or "
                "run again"
            )
    return trial.model_copy(update=here) if here else trial


def _sha256(path: str | None) -> str | None:
    try:
        return None if path is None else source_sha256(Path(path))
    except OSError:
        return None


def _require_data(trial: Trial) -> None:
    """Raise `UsageError` if a user's data file is not here, or another one is."""
    place = trial.task_parameters.get("data")
    if trial.data_sha256 is None or not isinstance(place, str) or place.startswith("hf:"):
        return
    try:
        same = hashlib.sha256(files.read(Path(place))).hexdigest() == trial.data_sha256
    except (OSError, files.NotAFileError) as error:
        raise UsageError(f"cannot read the data file '{place}' ({reason(error)}): put it there") from None
    if not same:
        raise UsageError(f"has another data file '{place}' than this machine: put the same there")


def _shared(place: list[Any] | None) -> Checkpoints | None:
    """The run's checkpoints, if this machine has its results folder. Another worker may go on from them."""
    if place is None or not Path(place[0]).parent.is_dir():
        return None
    return Checkpoints(Path(place[0]), place[1])


class _Warm:
    """The local executors of this dask worker that have no job, each with its warm processes."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.idle: dict[LocalExecutor, tuple[str, threading.Timer]] = {}

    @contextlib.contextmanager
    def of(self, settings: dict[str, Any], worker: Worker) -> Iterator[LocalExecutor]:
        """An executor of one slot with these settings, for one job."""
        name = json.dumps(settings)
        with self.lock:
            executor = next((one for one, (known, _) in self.idle.items() if known == name), None)
            if executor is not None:
                self.idle.pop(executor)[1].cancel()
        executor = executor or _make(settings, worker)
        try:
            yield executor
        finally:
            timer = threading.Timer(_IDLE_SECONDS, self._end, [executor])
            timer.daemon = True
            with self.lock:
                self.idle[executor] = name, timer
            timer.start()

    def _end(self, executor: LocalExecutor) -> None:
        with self.lock:
            known = self.idle.pop(executor, None)
        if known:
            executor.close()


def _make(settings: dict[str, Any], worker: Worker) -> LocalExecutor:
    # Meant for dask's own memory, it would slow trials down. Only processes that start later see it go.
    os.environ.pop("MALLOC_TRIM_THRESHOLD_", None)
    limit = settings["memory_limit"]
    if limit is None:
        own = worker.memory_manager.memory_limit or usable_memory()
        limit = int(0.9 * own / worker.state.nthreads)
    executor = LocalExecutor(
        threads=settings["threads"],
        slots=1,
        timeout=settings["timeout"],
        memory_limit=limit,
        # Workers of `own_cluster` are numbered. Others do not know which cores their neighbours have.
        first=worker.name if isinstance(worker.name, int) else None,
        checkpoints=_shared(settings["checkpoints"]),
    )
    executor.keeps_warm = True
    return executor


_warm = _Warm()
