"""The records of a run on disk, one JSON file a trial, and whether their sources have changed since."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pydantic_core

from creditbench.cells import CELLS
from creditbench.errors import UsageError, reason
from creditbench.machine import files
from creditbench.plugins import meaning, registry
from creditbench.plugins.importing import Kind, source_sha256
from creditbench.trials.record import SCHEMA_VERSION, Record
from creditbench.trials.trial import FAMILIES, NUMERICS_VERSION, Trial

_NAMES_SECONDS = 1.0  # that the name of a new record may take to be on the disk


class Store:
    """The records in one folder, each in `records/<trial's id>.json`.

    A record is written whole or not at all, so a run that is killed keeps every record that it had finished.
    A record in a file that is named after another trial is refused.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory)
        self.records = self.directory / "records"
        self._folder: tuple[int, int] | None = None  #: the one that a run began with
        self._synced = 0.0  #: when the names of records were last written through to the disk

    def path(self, trial: Trial) -> Path:
        """The path of the record of `trial`, whether it exists or not."""
        return self.records / f"{trial.id}.json"

    def has(self, trial: Trial) -> bool:
        """Whether there is a record of `trial`; it is not read. Raises UsageError if this cannot be told."""
        return self.written(trial) is not None

    def written(self, trial: Trial) -> tuple[int, int] | None:
        """An identity of a trial's record as written last; None without a record. Raises UsageError."""
        try:
            found = self.path(trial).stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unreadable(error) from None
        return found.st_ino, found.st_mtime_ns

    def _unreadable(self, error: OSError) -> UsageError:
        return UsageError(
            f"results folder '{self.directory}' cannot be read ({reason(error)}): name another with --results"
        )

    def names(self) -> frozenset[str]:
        """The ids of the trials that have a record, from one look at the folder. Raises UsageError."""
        try:
            with os.scandir(self.records) as entries:
                names = [entry.name for entry in entries]
        except (FileNotFoundError, NotADirectoryError):
            return frozenset()
        except OSError as error:
            raise self._unreadable(error) from None
        return frozenset(name[:-5] for name in names if name.endswith(".json") and name[0] != ".")

    def get(self, trial: Trial, curve: bool = True) -> Record:
        """The record of `trial`; without its curve unless `curve`.

        Raises KeyError if there is none, and UsageError if it is broken, another's, or of a newer
        schema.
        """
        if not self.has(trial):
            raise KeyError(trial.id)
        record = read_record(self.path(trial))
        return record if curve else without_curve(record)

    def found(self, trials: Iterable[Trial]) -> list[Record]:
        """The records that there are of `trials`, in their order. Raises UsageError as `get` does."""
        return [self.get(trial) for trial in trials if self.has(trial)]

    def put(self, record: Record) -> None:
        """Write `record`; it replaces an older one of its trial. Raises UsageError if that fails.

        The file is on the disk then, and its name within a second or after `sync`: if the machine fails in
        between, there is no record, or the older one.
        """
        self.put_text(record.trial, as_text(record))

    def put_text(self, trial: Trial, text: bytes) -> None:
        """As `put`, for a record as `as_text` gives it."""
        with self._writing():
            self.records.mkdir(parents=True, exist_ok=True)
            files.write(self.path(trial), text, names=False)
        if time.monotonic() - self._synced > _NAMES_SECONDS:
            self.sync()

    def sync(self) -> None:
        """Write the names of new records through to the disk. Raises UsageError."""
        with self._writing(), contextlib.suppress(FileNotFoundError):
            files.sync(self.records)
        self._synced = time.monotonic()

    @property
    def checkpoints(self) -> Path:
        """The folder of what trials have left that were cut short (`creditbench.trials.checkpoint`)."""
        return self.directory / "checkpoints"

    def drop_checkpoint(self, trial: Trial) -> None:
        """Delete what a trial would go on from, if there is anything."""
        with contextlib.suppress(OSError):
            os.unlink(self.checkpoints / f"{trial.id}.npz")
            self.checkpoints.rmdir()  # fails unless it was the last one

    def require_writable(self) -> None:
        """Raise UsageError if no record can be written, before any trial runs."""
        with self._writing():
            self.records.mkdir(parents=True, exist_ok=True)
        cure = "name another with --results, or make room"
        files.require_writable("results folder", self.records / "new.json", cure)
        self._folder = self._now()

    def is_there(self) -> bool:
        """Whether the folder of records is still the one that `require_writable` found."""
        return self._now() == self._folder

    def _now(self) -> tuple[int, int] | None:
        try:
            found = self.records.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _writing(self) -> contextlib.AbstractContextManager[None]:
        return files.output("results folder", self.directory, "name another with --results, or make room")

    def take(self, trials: Iterable[Trial], records: Iterable[Record]) -> int:
        """Write those of `records` that `trials` lack here; returns their number. Raises UsageError."""
        shared = {record.trial.id: record for record in records}
        there = self.names()
        taken = [shared[trial.id] for trial in trials if trial.id in shared and trial.id not in there]
        for record in taken:
            self.put(record)
        if taken:
            self.sync()
        return len(taken)

    def all(self) -> list[Record]:
        """All records, sorted by task, rule, backend and seed. Raises UsageError if one cannot be read."""
        return sorted(map(read_record, self._paths()), key=order)

    def readable(self, curves: bool = True) -> tuple[list[Record], list[str]]:
        """As `all`, for the readable records, and why each of the others is not. Raises UsageError."""
        records, left_out = [], []
        for path in self._paths():
            try:
                record = read_record(path)
                records.append(record if curves else without_curve(record))
            except UsageError as error:
                left_out.append(str(error))
        return sorted(records, key=order), left_out

    def _paths(self) -> list[Path]:
        return [self.records / f"{name}.json" for name in sorted(self.names())]


def order(record: Record) -> tuple[Any, ...]:
    """The sort key of records."""
    trial = record.trial
    return trial.task, trial.rule, trial.backend, trial.family, trial.seed


def without_curve(record: Record) -> Record:
    """The record in half of its memory."""
    return record.model_copy(update={"curve": ()}).shared()


def as_text(record: Record) -> bytes:
    """The content of a record's file."""
    return record.model_dump_json(indent=1).encode() + b"\n"


def read_record(path: Path) -> Record:
    """The record in a file. Raises UsageError if it is broken, misnamed or of a newer schema."""
    try:
        values = _parsed(files.read(path))
        if not isinstance(values, dict) or "schema_version" not in values:
            raise ValueError("it has no schema version")
        version = values["schema_version"]
        if type(version) is int and version > SCHEMA_VERSION:
            raise UsageError(
                f"record '{path}' has the schema version {version}, and this creditbench reads up to "
                f"{SCHEMA_VERSION}: update creditbench"
            )
        if isinstance(trial := values.get("trial"), dict):
            values["trial"] = FAMILIES.known(trial)
        # Strict: a text may stand for a number in a table, but not here.
        record = Record.model_validate(values, strict=True)
        if record.trial.id != path.stem:
            raise ValueError(f"it is of the trial {record.trial.id}, and not of the one that its name says")
        FAMILIES.keep(trial, record.trial)
        return record.shared()
    except (ValueError, OSError) as error:
        raise UsageError(
            f"record '{path}' is not a whole record ({reason(error)}): delete it and run again"
        ) from None


def _parsed(content: bytes) -> Any:
    """As `files.parse_json`, in a fifth of the time for what `as_text` has written."""
    with contextlib.suppress(ValueError):
        values = pydantic_core.from_json(content, allow_inf_nan=False, cache_strings="all")
        if pydantic_core.to_json(values, indent=1) + b"\n" == content:
            return values
    return files.parse_json(content)


def stale(record: Record) -> str:
    """Why a run might yield other numbers now than `record` has; empty if nothing has changed.

    No user's rule is run. Sources are compared by the sha256 of their meaning: of the task with its embedded
    data, of the learner, of a cell that is not shipped, and of the package's code that the rule and a shipped
    cell run through. A user's task or rule that was since moved unchanged into the shipped folder counts as
    unchanged.
    """
    trial = record.trial
    sources: list[tuple[Kind, str, str | None, str]] = [
        ("tasks", trial.task, trial.task_path, trial.task_sha256),
        ("learners", trial.learner, trial.learner_path, trial.learner_sha256),
    ]
    if trial.cell_sha256 is not None:
        sources.append(("cells", trial.cell, trial.cell_path, trial.cell_sha256))
    elif trial.cell not in CELLS:
        return f"cell {trial.cell} is gone"
    for kind, name, path, sha256 in sources:
        now = _source_sha256(kind, name, path)
        if now != sha256 and (path is None or _source_sha256(kind, name, None) != sha256):
            return f"{kind[:-1]} {name} {'is gone' if now is None else 'has changed'}"
    if trial.vocabulary_sha256 != vocabulary_of(trial):
        return f"what {trial.learner} runs through has changed"
    if trial.numerics_version != NUMERICS_VERSION:
        return f"the harness has changed from numerics version {trial.numerics_version} to {NUMERICS_VERSION}"
    return ""


def forget() -> None:
    """Look at sources anew: while a process lives, as that of a notebook, they change."""
    _source_sha256.cache_clear()
    _vocabulary.cache_clear()


@cache
def _source_sha256(kind: Kind, name: str, path: str | None) -> str | None:
    """The sha256 of a task's, learner's or cell's source as it is now; None if it is gone."""
    if path is None:
        plugin = registry.load(kind).get(name)
        return plugin.sha256 if plugin else None
    try:
        return source_sha256(Path(path))
    except OSError:
        return None


def vocabulary_of(trial: Trial) -> str | None:
    """The sha256 of the code that a trial runs through, as it is now; None if its learner or cell is gone."""
    rule, cell = (trial.learner, trial.learner_path), (trial.cell, trial.cell_path)
    return _vocabulary(rule, cell, trial.backend, trial.decorrelate != "none", trial.layers)


@cache
def _vocabulary(
    rule: tuple[str, str | None], cell: tuple[str, str | None], backend: str, decorrelates: bool, layers: int
) -> str | None:
    """The sha256 of the code that a learner with a cell runs through, as it is now; None if one is gone.

    `rule`, `cell`: the id, and the path of a user's file.
    """
    source = _source("learners", *rule)
    network = cell[0] if cell[0] in CELLS else _source("cells", *cell)
    if source is None or network is None:
        return None
    return meaning.vocabulary(source, backend, decorrelates, network, layers)


def _source(kind: Kind, name: str, path: str | None) -> bytes | None:
    """The source of a plug-in as it is now; None if it is gone."""
    if path is not None and Path(path).is_file():
        return Path(path).read_bytes()
    plugin = registry.load(kind).get(name)
    return plugin.path.read_bytes() if plugin else None
