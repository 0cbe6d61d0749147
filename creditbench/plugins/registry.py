"""Finds tasks and learners: in the shipped folders, in files that a user names, in installed packages.

`load` loads all three. A plug-in is a Python file or module that holds one subclass of `Task` or `Learner`,
and is known by its `id`. A shipped or installed plug-in that cannot be used is left out with a note, and does
not affect the others. A file that a user names must be sound.

Shipped files are imported. So are a user's tasks, which make the targets and are trusted. A learner from
elsewhere is not imported: its class is a stand-in, made from a confined process's description
(`contributed`). With `imports=True` the file itself is imported. Use it only in a process that trusts the
file.
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

from creditbench.errors import UsageError, unknown
from creditbench.machine.folders import shipped
from creditbench.plugins import contributed
from creditbench.plugins.importing import (
    Kind,
    Plugin,
    classes,
    import_plugin,
    inspect_plugin,
    load_file,
    load_path,
    require_python,
)


@dataclass(frozen=True)
class _Found:
    """Shipped or installed plug-ins: usable ones by id; for others, name -> the reason."""

    plugins: dict[str, Plugin]
    broken: dict[str, str]

    def add(self, name: str, make: Callable[[], Plugin]) -> None:
        """Add the plug-in of `make`, or note on standard error why it cannot be used."""
        try:
            plugin = make()
            if plugin.id in self.plugins:
                raise UsageError(_clash(plugin, self.plugins[plugin.id]))
            self.plugins[plugin.id] = plugin
        except UsageError as error:
            self.broken[name] = str(error)
            print(f"note: left out: {error}", file=sys.stderr)


def load(kind: Kind, paths: Sequence[str | Path] = (), *, imports: bool = False) -> dict[str, Plugin]:
    """Every task or learner by id: the shipped ones, those of `paths` and those of installed packages.

    `imports`: import learners that are not shipped, in place of a stand-in for each. Raises `UsageError` for
    a path that is missing or cannot be imported, and for an id that is taken.
    """
    found = dict(_known(kind, imports).plugins)
    for path in paths:
        confined = kind == "learners" and not imports
        plugin = contributed.from_path(Path(path)) if confined else load_path(kind, Path(path))
        if plugin.id in found:
            raise UsageError(_clash(plugin, found[plugin.id]))
        found[plugin.id] = plugin
    return dict(sorted(found.items()))


def find(kind: Kind, name: str, paths: Sequence[str | Path] = (), *, imports: bool = False) -> Plugin:
    """The task or learner of that id.

    Raises `UsageError` if there is none: with the reason if it was left out, else with the nearest id.
    """
    if not paths and name in (known := builtin(kind)):
        return known[name]
    plugins = load(kind, paths, imports=imports)
    if name not in plugins:
        if name in (broken := _known(kind, imports).broken):
            raise UsageError(broken[name])
        raise unknown(kind[:-1], name, plugins, f"creditbench list {kind}")
    return plugins[name]


def builtin(kind: Kind) -> dict[str, Plugin]:
    """The shipped plug-ins, by id."""
    return _builtin(kind).plugins


def read(path: Path) -> Plugin:
    """The task or learner in a file, imported into this process. Raises `UsageError`."""
    path = path.resolve()
    require_python("learners", path)
    module = import_plugin(lambda: load_file("learners", path), str(path))
    kind: Kind = "tasks" if classes("tasks", module) else "learners"
    return inspect_plugin(kind, module, str(path))


@cache
def _builtin(kind: Kind) -> _Found:
    found = _Found({}, {})
    for path in sorted(shipped(kind).glob("*.py")):
        found.add(path.stem, partial(load_path, kind, path, "builtin"))
    return found


@cache
def _known(kind: Kind, imports: bool) -> _Found:
    """The shipped plug-ins and those of installed packages."""
    found = _Found(dict(builtin(kind)), dict(_builtin(kind).broken))
    for point in importlib.metadata.entry_points(group=f"creditbench.{kind}"):
        source = f"entry point {point.dist.name if point.dist else point.name}"
        confined = kind == "learners" and not imports
        read_point = partial(contributed.from_package, point.value, source)
        found.add(point.name, read_point if confined else partial(_from_point, kind, point, source))
    return found


def _from_point(kind: Kind, point: importlib.metadata.EntryPoint, source: str) -> Plugin:
    plugin = inspect_plugin(kind, import_plugin(point.load, source), source)
    return replace(plugin, sha256=contributed.package_sha256(point.value, plugin.path))


def _clash(plugin: Plugin, other: Plugin) -> str:
    def place(one: Plugin) -> str:
        return f"{one.path} ({one.source})" if one.source.startswith("entry point") else str(one.path)

    return clash(plugin.id, place(plugin), place(other))


def clash(name: str, place: object, taken: object) -> str:
    """The message for an id that two files have."""
    return f"the id {name!r} of {place} is taken by {taken}: give it an id of its own"
