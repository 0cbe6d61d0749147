"""Finds tasks, learners and cells: shipped ones, in files that a user names, in installed packages.

`load` loads all three. A plug-in is a Python file or module that holds one subclass of `Task`, `Learner` or
`Cell`, and is known by its `id`. A shipped or installed plug-in that cannot be used is left out with a note,
and does not affect the others. A file that a user names must be sound.

Shipped files are imported. So are a user's tasks, which make the targets, and a user's cells, with which the
harness scores: both are trusted. A learner from elsewhere is not imported: its class is a stand-in, made from
a confined process's description (`contributed`). With `imports=True` the file itself is imported. Use it only
in a process that trusts the file.
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

from creditbench.cells import CELLS, cell_class
from creditbench.errors import UsageError, unknown
from creditbench.machine.folders import PACKAGE, shipped
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
    source_sha256,
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
    """Every task, learner or cell by id: the shipped ones, those of `paths` and those of installed packages.

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
    return found if kind == "cells" else dict(sorted(found.items()))  # shipped cells have an order of theirs


def find(kind: Kind, name: str, paths: Sequence[str | Path] = (), *, imports: bool = False) -> Plugin:
    """The task, learner or cell of that id.

    Raises `UsageError` if there is none: with the reason if it was left out, else with the nearest id.
    """
    if not paths and name in (known := builtin(kind)):
        return known[name]
    plugins = load(kind, paths, imports=imports)
    if name not in plugins:
        if name in (broken := _known(kind, imports).broken):
            raise UsageError(broken[name])
        raise not_known(kind[:-1], name, plugins, f"creditbench list {kind}")
    return plugins[name]


def not_known(what: str, name: str, known: Iterable[str], see: str) -> UsageError:
    """The error for an id of no plug-in. It suggests a file of this name in the working folder first."""
    if name.isidentifier() and Path(f"{name}.py").is_file():
        return UsageError(f"unknown {what} {name!r}: write {name}.py for the file of this name")
    return unknown(what, name, known, see)


def builtin(kind: Kind) -> dict[str, Plugin]:
    """The shipped plug-ins, by id."""
    return _builtin(kind).plugins


def read(path: Path) -> Plugin:
    """The task, learner or cell in a file, imported into this process. Raises `UsageError`."""
    path = path.resolve()
    require_python("learners", path)
    module = import_plugin(lambda: load_file("learners", path), str(path))
    kinds: tuple[Kind, ...] = ("tasks", "cells", "learners")
    kind = next((kind for kind in kinds if classes(kind, module)), None)
    if kind is None:
        raise UsageError(f"{path} must hold one subclass of Learner, Task or Cell, but holds none")
    return inspect_plugin(kind, module, str(path))


@cache
def _builtin(kind: Kind) -> _Found:
    found = _Found({}, {})
    if kind == "cells":
        for id in CELLS:
            found.add(id, partial(_shipped_cell, id))
        return found
    for path in sorted(shipped(kind).glob("*.py")):
        found.add(path.stem, partial(_shipped, kind, path))
    return found


@cache
def _shipped(kind: Kind, path: Path) -> Plugin:
    return load_path(kind, path, "builtin")


def _shipped_cell(id: str) -> Plugin:
    path = PACKAGE / "cells" / f"{id}.py"
    return Plugin("cells", id, cell_class(id), "builtin", path, source_sha256(path))


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
    sha256 = contributed.package_sha256(point.value, plugin.path)
    return replace(plugin, sha256=sha256, entry=point.value if kind == "cells" else None)


def _clash(plugin: Plugin, other: Plugin) -> str:
    def place(one: Plugin) -> str:
        return f"{one.path} ({one.source})" if one.source.startswith("entry point") else str(one.path)

    return clash(plugin.id, place(plugin), place(other))


def clash(name: str, place: object, taken: object) -> str:
    """The message for an id that two files have."""
    return f"the id {name!r} of {place} is taken by {taken}: give it an id of its own"
