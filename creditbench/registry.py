"""Finds tasks and learners: in the shipped folders, in files that a user names, in installed packages.

All three come in through `load`. A plug-in is a Python file or module that holds one subclass of `Task` or
`Learner`; it is found by its `id`.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import inspect
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from creditbench.errors import UsageError, unknown

Kind = Literal["tasks", "learners"]


@dataclass(frozen=True)
class Plugin:
    """One task or learner that was found."""

    kind: Kind
    id: str
    cls: Any  #: a subclass of `Task` or `Learner`
    source: str  #: "builtin", the path of a user's file, or "entry point PACKAGE"
    path: Path
    sha256: str  #: of the source file


def shipped(kind: Kind) -> Path:
    """The folder of built-in tasks or learners: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).parent
    inside = package / kind
    return inside if inside.is_dir() else package.parent / kind


def load(kind: Kind, paths: Sequence[str | Path] = ()) -> dict[str, Plugin]:
    """Every task or learner by its id: the shipped ones, those of `paths` and those of installed packages.

    Raises `UsageError` for a path that is missing or cannot be imported, and for an id that is taken.
    """
    found = dict(_builtin(kind))
    extra = [_from_path(kind, Path(path)) for path in paths]
    extra += [
        _inspect(kind, point.load(), f"entry point {point.dist.name if point.dist else point.name}")
        for point in importlib.metadata.entry_points(group=f"creditbench.{kind}")
    ]
    for plugin in extra:
        if plugin.id in found:
            raise UsageError(
                f"the id {plugin.id!r} of {plugin.path} is taken by {found[plugin.id].path}: give it an id of its own"
            )
        found[plugin.id] = plugin
    return dict(sorted(found.items()))


def find(kind: Kind, name: str, paths: Sequence[str | Path] = ()) -> Plugin:
    """The task or learner of that id. Raises `UsageError`, with the nearest id, when there is none."""
    plugins = load(kind, paths)
    if name not in plugins:
        raise unknown(kind[:-1], name, plugins, f"creditbench list {kind}")
    return plugins[name]


@cache
def _builtin(kind: Kind) -> dict[str, Plugin]:
    plugins = [_from_path(kind, path, "builtin") for path in sorted(shipped(kind).glob("*.py"))]
    return {plugin.id: plugin for plugin in plugins}


def _from_path(kind: Kind, path: Path, source: str | None = None) -> Plugin:
    path = path.resolve()
    if not path.is_file():
        raise UsageError(f"no file {path}: name a Python file that holds a {kind[:-1]}")
    name = f"creditbench_{kind}.{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} is not a Python file: name a file that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UsageError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    return _inspect(kind, module, source or str(path))


def _inspect(kind: Kind, found: Any, source: str) -> Plugin:
    """The plug-in in a module, or the class itself where an entry point names one."""
    base = _base(kind)
    module = found.__module__ if isinstance(found, type) else found.__name__
    path = Path(inspect.getfile(found))
    classes: list[Any] = [
        value
        for value in ([found] if isinstance(found, type) else vars(found).values())
        if isinstance(value, type) and issubclass(value, base) and value.__module__ == module
    ]
    if len(classes) != 1:
        names = ", ".join(cls.__name__ for cls in classes) or "none"
        raise UsageError(f"{path} must hold one subclass of {base.__name__}, but holds {names}")
    cls = classes[0]
    missing = [name for name in inspect.get_annotations(base) if not hasattr(cls, name)]
    if missing:
        raise UsageError(
            f"{cls.__name__} in {path} lacks {', '.join(missing)}: see {base.__name__}'s attributes"
        )
    return Plugin(kind, cls.id, cls, source, path, hashlib.sha256(path.read_bytes()).hexdigest())


def _base(kind: Kind) -> type[Any]:
    """The class that a plug-in of that kind is derived from."""
    if kind == "tasks":
        from creditbench.task import Task

        return Task
    from creditbench.learner import Learner

    return Learner
