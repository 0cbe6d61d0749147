"""What a call from Python is given: tasks, rules, cells, settings, folders."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from creditbench.cells import Cell
from creditbench.errors import UsageError
from creditbench.learner import Decorrelated, Learner
from creditbench.library import defaults, progress, sources
from creditbench.plugins import registry
from creditbench.plugins.importing import BASES, KINDS, Kind
from creditbench.results import store
from creditbench.results.runs import Bars
from creditbench.task import Task
from creditbench.trials.network import own_fields

Path_ = str | os.PathLike[str]
#: An id, the path of a file, a class, or an instance whose fields are settings; or several of them.
Tasks = str | Task | type[Task] | Iterable[str | Task | type[Task]]
Learners = str | Learner | type[Learner] | Iterable[str | Learner | type[Learner]]
Cells = str | Cell | type[Cell] | Iterable[str | Cell | type[Cell]]


def several(value: Any) -> list[Any]:
    """One value, or several, as a list."""
    if isinstance(value, str | os.PathLike | int | float) or not isinstance(value, Iterable):
        return [value]
    return list(value)


class Asked:
    """Tasks, rules and cells as a caller gives them: their ids or paths, and the settings of instances.

    `place`: a folder of results, into whose folder `sources` the classes of a notebook are written.
    """

    def __init__(self, place: Path, settings: Mapping[str, Any]) -> None:
        self.place, self.settings = place, dict(settings)
        self._own: dict[str, dict[str, Any]] = {}

    def names(self, kind: Kind, items: Any, sized: Mapping[str, Any] | None = None) -> tuple[str, ...]:
        """Ids and paths. `sized`: what a cell that is an instance must agree with. Raises `UsageError`."""
        found: list[str] = []
        for item in several(items):
            if isinstance(item, str | os.PathLike):
                found += defaults.names(os.fspath(item))
            else:
                found.append(self._name(kind, item, sized or {}))
        return tuple(dict.fromkeys(found))

    def grid(
        self, tasks: Tasks, learners: Learners, cells: Cells, data: Mapping[str, Path_] | None, **sized: Any
    ) -> dict[str, Any]:
        """The fields of `Options` that say what is trained. `sized`: as of `names`, for the cells."""
        return {
            "tasks": self.names("tasks", tasks),
            "learners": self.names("learners", learners),
            "cells": self.names("cells", cells, sized),
            # After the names: instances have brought theirs.
            "settings": self.settings,
            "data": {name: os.fspath(path) for name, path in (data or {}).items()},
        }

    def any_names(self, items: Any) -> tuple[str, ...]:
        """As `names`, of items of any kind: that of a class is known by what it derives from."""
        found: list[str] = []
        for item in several(items):
            cls: Any = item if isinstance(item, type) else type(item)
            found += self.names(
                next((kind for kind, base in BASES.items() if issubclass(cls, base)), KINDS[0]), item
            )
        return tuple(dict.fromkeys(found))

    def _name(self, kind: Kind, item: Any, sized: Mapping[str, Any]) -> str:
        base = BASES[kind]
        if isinstance(item, Decorrelated):
            raise UsageError(
                "a rule is given as Decorrelated, which the run makes itself: give the rule, and "
                'decorrelate="hidden"'
            )
        cls: Any = item if isinstance(item, type) else type(item)
        if not issubclass(cls, base):
            raise UsageError(
                f"{kind} has {item!r:.80}: give an id, the path of a file, a subclass of {base.__name__} or "
                "an instance of one"
            )
        sources.require_id(cls, kind)
        values = {} if isinstance(item, type) else _settings(kind, item, sized)
        if self._own.setdefault(cls.id, values) != values:
            raise UsageError(
                f"{cls.id} is given twice with other fields: a run has one setting of each; call it once for "
                "each, with one folder as results"
            )
        for name, value in values.items():
            if self.settings.setdefault(name, value) != value:
                raise UsageError(
                    f"{name} is {value!r} in an instance and {self.settings[name]!r} in settings: give one"
                )
        known = registry.load(kind).get(cls.id)
        if known is not None and known.cls is cls:
            return known.id
        return str(sources.file_of(cls, kind, self.place / "sources").resolve())


def _settings(kind: Kind, instance: Any, sized: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an instance that are not at their defaults, as settings. Raises `UsageError`."""
    for name, value in sized.items():
        usual = getattr(Cell, name, None)
        if getattr(instance, name) not in (value, usual):
            raise UsageError(
                f"the cell {instance.id} has {name} {getattr(instance, name)!r}, and {name} is {value!r}: "
                f"give {name}={getattr(instance, name)!r} to run"
            )
    own = own_fields(type(instance)) if kind == "cells" else dataclasses.fields(instance)
    values = {}
    for field in own:
        value = getattr(instance, field.name)
        usual = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if value != usual:
            values[f"{instance.id}.{field.name}"] = value
    return values


@contextlib.contextmanager
def asked(settings: Mapping[str, Any] | None, folder: Path_ | None) -> Iterator[Asked]:
    """Reads what a caller gives. Sources of a notebook are written to the folder, or to a temporary one."""
    # A process may live for days, as that of a notebook: sources change meanwhile.
    store.forget()
    with contextlib.ExitStack() as opened:
        if folder is None:
            folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="creditbench-"))
        yield Asked(Path(os.fspath(folder)).expanduser(), settings or {})


@contextlib.contextmanager
def _silence(what: str, total: int) -> Iterator[Callable[[str], None]]:
    yield lambda text: None


def bars_of(shown: bool) -> Bars:
    """How progress is shown, or that it is not."""
    return progress.bars if shown else _silence


def folders(output: Path_ | None) -> list[Path]:
    """The folders that results of a measurement lie in."""
    return [] if output is None else [Path(output).expanduser()]
