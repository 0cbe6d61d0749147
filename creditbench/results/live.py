"""Curves of trials while they run, for whoever watches: lines of JSON, TensorBoard, Weights & Biases.

A log hears each point of a trial's curve soon after its evaluation, and all of them by the time of the
trial's record. It holds no result: records do.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from creditbench.errors import not_installed, unknown
from creditbench.machine.files import output
from creditbench.trials.record import Point, Record
from creditbench.trials.trial import Trial, with_cell

#: Name of a log -> the package that it needs, which is also the name of an extra.
LOGS = {"jsonl": None, "tensorboard": "tensorboard", "wandb": "wandb"}


class Log(Protocol):
    """One way to watch."""

    def points(self, trial: Trial, points: Sequence[Point]) -> None:
        """There are new points of a trial's curve."""

    def finished(self, record: Record) -> None:
        """The trial has its record, and no point will come."""

    def close(self) -> None:
        """The run is over."""


class Logs:
    """The logs of a run. Each point is told once, whether it came while its trial ran or with its record."""

    def __init__(self, names: Sequence[str], folder: Path) -> None:
        """Raises `UsageError` for an unknown log, and for one whose package is not installed."""
        for name in names:
            if name not in LOGS:
                raise unknown("log", name, LOGS, "creditbench run --help")
            package = LOGS[name]
            if package and importlib.util.find_spec(package) is None:
                raise not_installed(f"the log {name!r}", package)
        self._told: dict[str, int] = {}  #: id -> step of the last point that was told
        self._logs: list[Log] = []
        makers: dict[str, Callable[[Path], Log]] = {
            "jsonl": JsonLines,
            "tensorboard": TensorBoard,
            "wandb": WeightsAndBiases,
        }
        if names:
            with output("results folder", folder, "name another with --results"):
                folder.mkdir(parents=True, exist_ok=True)
                self._logs = [makers[name](folder) for name in names]

    def __enter__(self) -> Logs:
        return self

    def __exit__(self, *_: object) -> None:
        for log in self._logs:
            log.close()

    def points(self, trial: Trial, points: Sequence[Point]) -> None:
        """There are new points of a trial's curve. A trial that is run again tells its points again."""
        if points and self._logs:
            self._told[trial.id] = points[-1].step
            for log in self._logs:
                log.points(trial, points)

    def finished(self, record: Record) -> None:
        """Tell the points of a record that were not told before, and its end."""
        if self._logs:
            last = self._told.get(record.trial.id, -1)
            self.points(record.trial, [point for point in record.curve if point.step > last])
            self._told.pop(record.trial.id, None)
            for log in self._logs:
                log.finished(record)


def _name(trial: Trial) -> str:
    return f"{with_cell(trial.rule, trial.cell)} {trial.backend} lr={trial.lr:g} seed={trial.seed}"


def _values(point: Point) -> dict[str, float]:
    """The figures of a point that are finite."""
    own = {"loss": point.loss, "validation": point.validation, "seconds": point.seconds}
    return {name: value for name, value in own.items() if value is not None}


class JsonLines:
    """`live.jsonl`: a line a point, and one for the end of each trial."""

    def __init__(self, folder: Path) -> None:
        self._file: IO[str] = (folder / "live.jsonl").open("a", encoding="utf-8", buffering=1)

    def points(self, trial: Trial, points: Sequence[Point]) -> None:
        for point in points:
            self._write(trial, point._asdict())

    def finished(self, record: Record) -> None:
        self._write(record.trial, {"status": record.status, "test_score": record.test_score})

    def _write(self, trial: Trial, values: dict[str, Any]) -> None:
        names = ("task", "rule", "cell", "backend", "lr", "seed")
        own = {"trial": trial.id} | {name: getattr(trial, name) for name in names}
        self._file.write(json.dumps(own | values) + "\n")

    def close(self) -> None:
        self._file.close()


class TensorBoard:
    """A run of TensorBoard for each trial, below `tensorboard/TASK/`."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._writers = folder / "tensorboard", dict[str, Any]()

    def _writer(self, trial: Trial) -> Any:
        if trial.id not in self._writers:
            # An extra, and slow to import.
            from tensorboard.summary import Writer

            place = self._folder / trial.task / f"{_name(trial)} {trial.id[:6]}".replace(" ", "_")
            self._writers[trial.id] = Writer(str(place))
        return self._writers[trial.id]

    def points(self, trial: Trial, points: Sequence[Point]) -> None:
        writer = self._writer(trial)
        for point in points:
            for name, value in _values(point).items():
                writer.add_scalar(name, value, point.step)
        writer.flush()

    def finished(self, record: Record) -> None:
        writer = self._writer(record.trial)
        if record.test_score is not None:
            writer.add_scalar("test", record.test_score, record.curve[-1].step if record.curve else 0)
        writer.close()
        del self._writers[record.trial.id]

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()


class WeightsAndBiases:
    """A run of Weights & Biases for each trial, in the project `creditbench`, grouped by task.

    Its own settings hold, as WANDB_MODE=offline and WANDB_PROJECT. Its files lie below `wandb/`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._runs = folder, dict[str, Any]()

    def _run(self, trial: Trial) -> Any:
        if trial.id not in self._runs:
            # An extra, and slow to import.
            import os

            import wandb

            self._runs[trial.id] = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "creditbench"),
                group=trial.task,
                name=_name(trial),
                id=trial.id,
                dir=str(self._folder),
                config=trial.model_dump(mode="json"),
                reinit="create_new",
                settings=wandb.Settings(silent=True, console="off"),
            )
        return self._runs[trial.id]

    def points(self, trial: Trial, points: Sequence[Point]) -> None:
        run = self._run(trial)
        for point in points:
            run.log(_values(point), step=point.step)

    def finished(self, record: Record) -> None:
        run = self._run(record.trial)
        run.summary.update({"status": record.status, "test": record.test_score})
        run.finish(exit_code=int(record.status not in ("ok", "diverged")))
        del self._runs[record.trial.id]

    def close(self) -> None:
        for run in self._runs.values():
            run.finish(exit_code=1)
