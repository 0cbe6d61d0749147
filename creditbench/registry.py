"""Finds tasks and learners: in the shipped folders, in files that a user names, in installed packages.

All three come in through `load`. A plug-in is a Python file or module that holds one subclass of `Task` or
`Learner`; it is found by its `id`. What is shipped or installed and cannot be imported is left out with a note, and
costs nobody else; what a user names must be sound.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from creditbench.errors import UsageError, one_line, unknown

Kind = Literal["tasks", "learners"]
KINDS: tuple[Kind, ...] = ("learners", "tasks")


@dataclass(frozen=True)
class Plugin:
    """One task or learner that was found."""

    kind: Kind
    id: str
    cls: Any  #: a subclass of `Task` or `Learner`
    source: str  #: "builtin", the path of a user's file, or "entry point PACKAGE"
    path: Path
    sha256: str  #: of the source file


@dataclass(frozen=True)
class _Found:
    """What is shipped and installed: plug-ins by id, and what was left out, with its reason, by name."""

    plugins: dict[str, Plugin]
    broken: dict[str, str]


def shipped(kind: Kind) -> Path:
    """The folder of built-in tasks or learners: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).parent
    inside = package / kind
    return inside if inside.is_dir() else package.parent / kind


def load(kind: Kind, paths: Sequence[str | Path] = ()) -> dict[str, Plugin]:
    """Every task or learner by its id: the shipped ones, those of installed packages and those of `paths`.

    Raises `UsageError` for a path that is missing or cannot be imported, and for an id that is taken.
    """
    found = dict(_known(kind).plugins)
    for path in paths:
        plugin = _from_path(kind, Path(path))
        if plugin.id in found:
            raise UsageError(_clash(plugin, found[plugin.id]))
        found[plugin.id] = plugin
    return dict(sorted(found.items()))


def find(kind: Kind, name: str, paths: Sequence[str | Path] = ()) -> Plugin:
    """The task or learner of that id.

    Raises `UsageError` when there is none: with the reason where it was left out, else with the nearest id.
    """
    plugins = load(kind, paths)
    if name not in plugins:
        if name in (broken := _known(kind).broken):
            raise UsageError(broken[name])
        raise unknown(kind[:-1], name, plugins, f"creditbench list {kind}")
    return plugins[name]


def read(path: Path) -> Plugin:
    """The task or the learner in a file, whichever it holds, whatever its id. Raises `UsageError`."""
    module = _module(path.resolve(), "plugins")
    for kind in KINDS:
        if _classes(kind, module):
            return _inspect(kind, module, str(path))
    raise UsageError(f"{path} must hold one subclass of Learner or of Task, but holds none")


@cache
def _known(kind: Kind) -> _Found:
    """What is shipped and installed. What cannot be used is told on standard error, once."""
    found = _Found({}, {})
    for path in sorted(shipped(kind).glob("*.py")):
        _add(found, path.stem, partial(_from_path, kind, path, "builtin"))
    for point in importlib.metadata.entry_points(group=f"creditbench.{kind}"):
        source = f"entry point {point.dist.name if point.dist else point.name}"
        _add(found, point.name, partial(_from_point, kind, point, source))
    return found


def _add(found: _Found, name: str, make: Callable[[], Plugin]) -> None:
    """Put the plug-in into `found`, or the reason why it cannot be."""
    try:
        plugin = make()
        if plugin.id in found.plugins:
            raise UsageError(_clash(plugin, found.plugins[plugin.id]))
        found.plugins[plugin.id] = plugin
    except UsageError as error:
        found.broken[name] = str(error)
        print(f"note: left out: {error}", file=sys.stderr)


def _clash(plugin: Plugin, other: Plugin) -> str:
    return f"the id {plugin.id!r} of {_place(plugin)} is taken by {_place(other)}: give it an id of its own"


def _place(plugin: Plugin) -> str:
    named = plugin.source.startswith("entry point")
    return f"{plugin.path} ({plugin.source})" if named else str(plugin.path)


def _from_path(kind: Kind, path: Path, source: str | None = None) -> Plugin:
    return _inspect(kind, _module(path.resolve(), kind), source or str(path.resolve()))


def _from_point(kind: Kind, point: importlib.metadata.EntryPoint, source: str) -> Plugin:
    try:
        found = point.load()
    except (Exception, SystemExit) as error:
        raise UsageError(_unimportable(f"{source} ({point.value})", error, None)) from error
    return _inspect(kind, found, source)


def _module(path: Path, group: str) -> ModuleType:
    """The file as a module. Raises `UsageError`."""
    if not path.is_file():
        raise UsageError(f"no file {path}: name a Python file that holds a learner or a task")
    name = f"creditbench_{group}.{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} is not a Python file: name a file that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise UsageError(_unimportable(str(path), error, path)) from error
    return module


def _unimportable(what: str, error: BaseException, path: Path | None) -> str:
    """Why an import failed: the package that is missing, or the error and the line of the file where it arose."""
    package = (getattr(error, "name", None) or "").partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and package and importlib.util.find_spec(package) is None:
        return f"{what} needs the package {package!r}, which is not installed: pip install {package}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    line = error.lineno if isinstance(error, SyntaxError) else frames[-1].lineno if frames else None
    where = f", line {line}" if line else ""
    said = f"it calls exit({error.code!r})" if isinstance(error, SystemExit) else one_line(error)
    return f"{what} cannot be imported{where}: {said}"


def _classes(kind: Kind, found: Any) -> list[Any]:
    """The task or learner classes of a module's own, or the class itself where an entry point names one."""
    module = found.__module__ if isinstance(found, type) else found.__name__
    values: Iterable[Any] = [found] if isinstance(found, type) else vars(found).values()
    return [
        value
        for value in values
        if isinstance(value, type) and issubclass(value, _base(kind)) and value.__module__ == module
    ]


def _inspect(kind: Kind, found: Any, source: str) -> Plugin:
    """The plug-in in a module, or the class itself where an entry point names one."""
    base, path = _base(kind), Path(inspect.getfile(found))
    classes = _classes(kind, found)
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
