"""Records on disk: one JSON file a trial."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from functools import cache
from pathlib import Path

from pydantic import ValidationError

from creditbench import registry
from creditbench.errors import UsageError
from creditbench.record import SCHEMA_VERSION, Record
from creditbench.trial import NUMERICS_VERSION, Trial


class Store:
    """The records in one folder, each in `records/<trial's id>.json`.

    A record is written whole or not at all, so that a run that is killed loses none that it had finished.
    Only one process writes a record; the folder is made when the first one is written.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory)
        self.records = self.directory / "records"

    def path(self, trial: Trial) -> Path:
        """Where the record of `trial` is or would be."""
        return self.records / f"{trial.id}.json"

    def has(self, trial: Trial) -> bool:
        """Whether there is a record of `trial`; it is not read."""
        return self.path(trial).is_file()

    def get(self, trial: Trial) -> Record:
        """The record of `trial`.

        Raises KeyError where there is none, and UsageError where it is broken or of a newer schema.
        """
        if not self.has(trial):
            raise KeyError(trial.id)
        return read_record(self.path(trial))

    def put(self, record: Record) -> None:
        """Write `record`, in place of an older one of the same trial. Raises UsageError where it cannot be written."""
        path = self.path(record.trial)
        try:
            self.records.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self.records, prefix=f".{path.stem}-", suffix=".tmp")
        except OSError as error:
            raise UsageError(
                f"results folder '{self.directory}' cannot be written ({error.strerror}): name another with --results"
            ) from None
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(record.model_dump_json(indent=1) + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        with contextlib.suppress(OSError):  # some file systems cannot sync a folder
            folder = os.open(self.records, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def all(self) -> list[Record]:
        """Every record, sorted by task, rule, backend and seed. Raises UsageError for one that cannot be read."""
        records = [read_record(path) for path in self.records.glob("*.json")]
        return sorted(
            records, key=lambda r: (r.trial.task, r.trial.rule, r.trial.backend, r.trial.family, r.trial.seed)
        )


def read_record(path: Path) -> Record:
    """The record in a file. Raises UsageError where it is broken or of a newer schema."""
    try:
        values = json.loads(path.read_bytes())
        version = values["schema_version"]
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise UsageError(
                f"record '{path}' has the schema version {version}, and this creditbench reads up to {SCHEMA_VERSION}: "
                "update creditbench"
            )
        return Record.model_validate(values)
    except (ValueError, KeyError, TypeError, ValidationError, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UsageError(
            f"record '{path}' is not a whole record ({type(error).__name__}: {reason}): delete it and run again"
        ) from None


def stale(record: Record) -> str:
    """Why the numbers of `record` may no longer be what a run would yield now; empty where nothing has changed.

    No user's code is run: a file is compared by its sha256.
    """
    trial = record.trial
    sources = (
        ("tasks", trial.task, trial.task_path, trial.task_sha256),
        ("learners", trial.learner, trial.learner_path, trial.learner_sha256),
    )
    for kind, name, path, sha256 in sources:
        now = _source_sha256(kind, name, path)
        if now != sha256:
            return f"{kind[:-1]} {name} {'is gone' if now is None else 'has changed'}"
    if trial.numerics_version != NUMERICS_VERSION:
        return f"the harness has changed from numerics version {trial.numerics_version} to {NUMERICS_VERSION}"
    return ""


@cache
def _source_sha256(kind: registry.Kind, name: str, path: str | None) -> str | None:
    """The sha256 of a task's or learner's source as it is now; None where it is gone."""
    if path is None:
        plugin = registry.load(kind).get(name)
        return plugin.sha256 if plugin else None
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:
        return None
