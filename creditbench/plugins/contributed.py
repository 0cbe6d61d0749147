"""Learners that are not shipped. A confined process describes them, so no trusted process imports them.

`from_path` and `from_package` give a plug-in whose class is a *stand-in*: a dataclass with the fields and the
metadata that the confined process reported. Making an instance starts such a process again, in which the rule
itself checks the values; so does asking whether it fits a cell, where the rule has a say in that. A stand-in
cannot train: the process that trains a trial imports its rule.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.abc
import importlib.machinery
import importlib.metadata
import importlib.util
import inspect
import json
import math
import re
import sys
import types
import typing
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from creditbench import isolation
from creditbench.cells import CELLS, Cell, cell_class
from creditbench.errors import ConfinedError, UsageError
from creditbench.learner import Claims, Learner
from creditbench.machine.frameworks import FRAMEWORKS
from creditbench.plugins import importing, meaning
from creditbench.plugins.importing import Kind, Plugin

_LONGEST_FILE = 1 << 20
_PLAIN = {kind.__name__: kind for kind in (bool, int, float, str, type(None))}


def from_path(path: Path) -> Plugin:
    """The learner in a file. Raises `UsageError` for a file without one, or one that cannot be imported."""
    path = path.resolve()
    importing.require_python("learners", path)
    content = read_source(path)
    sha256 = meaning.digest(content)
    cls = stand_in(str(path), sha256, None)
    importing.require_id(cls.id, path)
    return Plugin("learners", cls.id, cls, str(path), path, sha256)


def from_package(value: str, source: str) -> Plugin:
    """The learner that an entry point names ("package.module:Class"). Raises `UsageError`."""
    path = package_file(value, source)
    read_source(path)
    sha256 = package_sha256(value, path)
    cls = stand_in(str(path), sha256, value)
    importing.require_id(cls.id, path)
    return Plugin("learners", cls.id, cls, source + _unknown(value, path), path, sha256, value)


def read_source(path: Path) -> bytes:
    """The bytes of a plug-in's file. Raises `UsageError`."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}): name another file") from None
    if len(content) > _LONGEST_FILE:
        raise UsageError(f"{path} has {len(content)} bytes: a plug-in is a file of at most {_LONGEST_FILE}")
    return content


def package_file(value: str, source: str) -> Path:
    """The file of the module that an entry point names. Imports nothing. Raises `UsageError`."""
    module = value.partition(":")[0].strip()
    top, *below = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    folders = list(spec.submodule_search_locations or ()) if spec else []
    candidates = [Path(folder, *below) for folder in folders]
    files = [path / "__init__.py" for path in candidates] + [path.with_suffix(".py") for path in candidates]
    if spec and spec.origin and not below:
        files.insert(0, Path(spec.origin))
    for path in files:
        if path.is_file():
            return path.resolve()
    raise UsageError(f"{source} names {module}, which cannot be found: install the package again")


def package_folder(value: str, path: Path) -> Path:
    """The folder or file that holds an entry point's whole package, given its module's file."""
    depth = len(value.partition(":")[0].strip().split("."))
    if path.name == "__init__.py":
        return path.parents[depth - 1]
    return path.parents[depth - 2] if depth > 1 else path


def package_sha256(value: str, path: Path) -> str:
    """The sha256 of an installed package, given the value of an entry point and its module's file.

    It covers the names and bytes of every file in the package's top folder, and of the other Python modules
    of its distribution, without compiled copies. It does not depend on their place. Raises `UsageError`.
    """
    top = package_folder(value, path)
    files = {
        file.relative_to(top.parent).as_posix(): file for file in [top, *top.rglob("*")] if file.is_file()
    }
    files |= {name: file for name, file in (_listed(value) or {}).items() if name not in files}
    digest = hashlib.sha256()
    for name, file in sorted(files.items()):
        if name.endswith(".pyc"):
            continue
        try:
            with file.open("rb") as opened:
                digest.update(repr(name).encode() + hashlib.file_digest(opened, "sha256").digest())
        except OSError as error:
            raise UsageError(f"{file} cannot be read ({error.strerror}): install its package again") from None
    return digest.hexdigest()


def _listed(value: str) -> dict[str, Path] | None:
    """The modules installed by an entry point's distribution, by name; None if it does not list them."""
    for kind in importing.KINDS:
        for point in importlib.metadata.entry_points(group=f"creditbench.{kind}", value=value):
            known = point.dist
            # An editable installation does not list its modules, which lie elsewhere.
            if (
                known is None
                or not known.files
                or '"editable": true' in (known.read_text("direct_url.json") or "")
            ):
                return None
            endings = tuple(importlib.machinery.all_suffixes())
            found = {file.as_posix(): Path(str(known.locate_file(file))) for file in known.files}
            return {n: p for n, p in found.items() if n.endswith(endings) and ".." not in n and p.is_file()}
    return None


def _unknown(value: str, path: Path) -> str:
    """A remark on a package whose sha256 may not cover all of its files; else empty."""
    if _listed(value) is not None:
        return ""
    return f", whose sha256 is of {package_folder(value, path).name} alone"


def place(
    child: isolation.Confined, path: str, sha256: str, package: str | None, folder: str = "submission"
) -> dict[str, Any]:
    """The order to import a learner or cell, with a copy of its file in a folder of the child's own.

    A package stays where it is. Raises `UsageError` if the file does not have the sha256 any more.
    """
    content = read_source(Path(path))
    now = meaning.digest(content) if package is None else package_sha256(package, Path(path))
    if now != sha256:
        raise UsageError(f"{path} has changed since the run began: run again")
    if package is not None:
        return order_of_package(package, path)
    copy = child.directory / folder / Path(path).name
    copy.parent.mkdir(mode=0o700)
    copy.write_bytes(content)
    return {"file": str(copy), "shown": path}


def _sha256_of(path: str, package: str | None) -> str:
    """The sha256 of a plug-in's file, or of its whole package. Raises `UsageError`."""
    return meaning.digest(read_source(Path(path))) if package is None else package_sha256(package, Path(path))


def order_of_package(package: str, path: str) -> dict[str, Any]:
    """The order to import the learner or cell of an entry point, given its module's file."""
    return {"package": package, "shown": path, "place": str(package_folder(package, Path(path)))}


def readable(path: str, package: str | None) -> list[Path]:
    """The paths that a child must be able to read for the import, beside the copy."""
    return [] if package is None else [package_folder(package, Path(path))]


# -- in the confined process -----------------------------------------------------------------------------


class _Finder(importlib.abc.MetaPathFinder):
    """Finds one package or module in a folder that cannot be listed, where nothing else can be read."""

    def __init__(self, name: str, place: Path) -> None:
        self.name, self.place = name, place

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if fullname != self.name:
            return None
        if self.place.is_file():
            return importlib.util.spec_from_file_location(fullname, self.place)
        first, folders = self.place / "__init__.py", [str(self.place)]
        if first.is_file():
            return importlib.util.spec_from_file_location(fullname, first, submodule_search_locations=folders)
        spec = importlib.machinery.ModuleSpec(fullname, None, is_package=True)
        spec.submodule_search_locations = folders
        return spec


def import_placed(kind: Kind, order: Mapping[str, Any]) -> Plugin:
    """The plug-in of an order of `place`, imported into this process. Raises `UsageError`."""
    shown = order["shown"]
    if "file" in order:
        found = importing.import_plugin(lambda: importing.load_file(kind, Path(order["file"])), shown)
    else:
        top = re.split("[.:]", order["package"])[0].strip()
        sys.meta_path.append(_Finder(top, Path(order["place"])))
        point = importlib.metadata.EntryPoint(kind[:-1], order["package"], f"creditbench.{kind}")
        found = importing.import_plugin(point.load, shown)
    try:
        return importing.inspect_plugin(kind, found, shown)
    except UsageError as error:
        raise UsageError(str(error).replace(order.get("file") or shown, shown)) from None


def describe(_: Mapping[str, Any], send: isolation.Send) -> None:
    """Send a description of the class in a file, and the fields of a requested instance.

    If the order names a cell, the answer says why the instance does not fit it.
    """
    order = send.receive()
    assert order is not None
    cls = import_placed("learners", order).cls
    hints = typing.get_type_hints(cls)
    fields, plain = [], True
    for field in dataclasses.fields(cls):
        default = field.default
        if default is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        fields.append(
            {
                "name": field.name,
                "type": _type(hints.get(field.name)),
                "default": None if default is dataclasses.MISSING else default,
                "required": default is dataclasses.MISSING,
            }
        )
        plain = plain and default is not dataclasses.MISSING
    claims = cls.claims
    if plain:
        made = make(cls, order["shown"], order["values"] or {})
        claims = made.claims
    elif order["values"] is not None:
        made = make(cls, order["shown"], order["values"])
    values = {"class": cls.__name__, "fields": fields, "claims": dataclasses.asdict(claims)}
    for name in ("id", "name", "paper", "family", "optimizer", "lr", "decorrelates"):
        values[name] = getattr(cls, name)
    values["search"] = {name: list(bounds) for name, bounds in cls.search.items()}
    values["backends"] = sorted(cls.backends)
    if plain or order["values"] is not None:
        values["made"] = {"values": dataclasses.asdict(made), "stream_segment": made.stream_segment}
    values["chooses"] = cls.fits is not Learner.fits
    if order["cell"] is not None:
        values["unfit"] = made.fits(_cell_placed(order["cell"]))
    try:
        json.dumps(values, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UsageError(f"a field of {cls.__name__} in {order['shown']} has no JSON form: {error}") from None
    send(**values)


def _cell_placed(order: Mapping[str, Any]) -> Cell:
    """The cell of an order: a shipped one, or one that was placed here. Raises `UsageError`."""
    kind = cell_class(order["id"]) if order["placed"] is None else import_placed("cells", order["placed"]).cls
    return kind(**order["values"])


def make(cls: Any, shown: object, values: Mapping[str, Any] | None = None) -> Any:
    """A learner with those fields set. Raises `UsageError`."""
    try:
        return cls(**(values or {}))
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(
            f"{cls.__name__} in {shown} cannot be made: {type(error).__name__}: {error}"
        ) from error


def _type(hint: Any) -> Any:
    """A type as JSON: its name, or [constructor, parts]; None for a type without such a form."""
    if isinstance(hint, type) and hint.__name__ in _PLAIN and hint is _PLAIN[hint.__name__]:
        return hint.__name__
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return ["literal", list(parts)]
    if origin in (typing.Union, types.UnionType):
        return ["union", [_type(part) for part in parts]]
    return None


# -- in the trusted process ------------------------------------------------------------------------------


def _hint(known: Any) -> Any:
    """The type for a value of `_type`; `Any` for None."""
    match known:
        case str(name) if name in _PLAIN:
            return _PLAIN[name]
        case ["literal", [*values]] if values and all(type(value) in _PLAIN.values() for value in values):
            return Literal[tuple(values)]
        case ["union", [*parts]] if parts:
            return typing.Union[tuple(map(_hint, parts))]  # noqa: UP007
    return Any


@cache
def _ask(
    path: str, sha256: str, package: str | None, values: str | None, cell: Cell | None = None
) -> dict[str, Any]:
    """A confined process's description of a learner, with an instance of `values` (JSON).

    `cell`: one that the instance is asked about. Raises `UsageError`.
    """
    limits, open_to = isolation.Limits(seconds=importing.IMPORT_SECONDS), readable(path, package)
    source = None if cell is None else _source_of(type(cell))
    if source is not None:
        open_to += readable(*source)
    try:
        with isolation.Confined(
            "creditbench.plugins.contributed:describe", {}, readable=open_to, limits=limits
        ) as child:
            order = place(child, path, sha256, package)
            network = None
            if cell is not None:
                placed = None
                if source is not None:
                    placed = place(child, source[0], _sha256_of(*source), source[1], "cell")
                network = {"id": cell.id, "values": dataclasses.asdict(cell), "placed": placed}
            child.send(**order, values=None if values is None else json.loads(values), cell=network)
            return child.receive()
    except ConfinedError as error:
        if error.status == "timeout":
            raise UsageError(importing.never_imported(path, importing.IMPORT_SECONDS)) from None
        if error.usage:
            raise UsageError(error.detail) from None
        raise UsageError(f"{path} cannot be imported: {error.detail}") from None


def _source_of(kind: type[Cell]) -> tuple[str, str | None] | None:
    """The file of a cell's class, and its name in a package ("module:Class"); None if it is shipped."""
    if kind.id in CELLS:
        return None
    # A file that a user names is a module of a room of its own.
    package = (
        None if kind.__module__.startswith("creditbench_cells.") else f"{kind.__module__}:{kind.__name__}"
    )
    return str(Path(inspect.getfile(kind))), package


@cache
def stand_in(path: str, sha256: str, package: str | None) -> Any:
    """A class with the fields and metadata of a learner. Raises `UsageError`."""
    found = _ask(path, sha256, package, None)
    try:
        _check(found)
        own = {
            name: found[name] for name in ("id", "name", "paper", "family", "optimizer", "lr", "decorrelates")
        }
        own |= {
            "claims": Claims(**found["claims"]),
            "search": {str(name): (float(low), float(high)) for name, (low, high) in found["search"].items()},
            "backends": frozenset(found["backends"]),
        }
        fields = [
            (
                field["name"],
                _hint(field["type"]),
                dataclasses.field()
                if field["required"]
                else dataclasses.field(default=_frozen(field["default"])),
            )
            for field in found["fields"]
        ]
        unset = found.get("made")

        def made(self: Any) -> None:
            values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
            answer = unset
            if answer is None or _plain(values) != _plain(answer["values"]):
                answer = _ask(path, sha256, package, json.dumps(values, allow_nan=False))["made"]
            for name, value in answer["values"].items():
                if name in values:
                    object.__setattr__(self, name, _frozen(value))
            segment = answer["stream_segment"]
            if type(segment) is not int or segment < 1:
                raise UsageError(
                    f"stream_segment of {found['class']} in {path} is {segment!r}: it must be a whole number "
                    "from 1"
                )
            object.__setattr__(self, "_stream_segment", segment)

        def fits(self: Any, cell: Cell) -> str:
            if not found["chooses"]:
                return ""
            values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
            why = _ask(path, sha256, package, json.dumps(values, allow_nan=False), cell)["unfit"]
            if not isinstance(why, str):
                raise UsageError(
                    f"{found['class']} in {path} says {why!r:.50} of the cell {cell.id}: `fits` must return "
                    "text"
                )
            return " ".join(why.split())[:300]

        own |= {
            "__post_init__": made,
            "stream_segment": property(lambda self: self._stream_segment),
            "fits": fits,
        }
        return dataclasses.make_dataclass(
            found["class"], fields, bases=(Learner,), namespace=own, frozen=True, kw_only=True
        )
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    except Exception as error:
        raise UsageError(
            f"{path} does not describe itself as a learner does ({type(error).__name__}: {error}): mend it"
        ) from None


def _check(found: Mapping[str, Any]) -> None:
    """Raise `UsageError` for metadata of another type than `Learner`'s."""
    for name in ("id", "name", "paper", "family", "optimizer"):
        value = found[name]
        if not (isinstance(value, str) and value.strip() and value.isprintable()):
            raise UsageError(f"{name} is {value!r}: set it to a text of one line")
    lr = found["lr"]
    if isinstance(lr, bool) or not isinstance(lr, int | float) or not math.isfinite(lr):
        raise UsageError(f"lr is {lr!r}: set it to a finite number")
    if type(found["decorrelates"]) is not bool:
        raise UsageError(f"decorrelates is {found['decorrelates']!r}: set it to True or False")
    if type(found["chooses"]) is not bool:
        raise UsageError(f"it says {found['chooses']!r} of the cells that it fits: mend `fits`")
    claims = found["claims"]
    if not isinstance(claims.get("without_recurrence"), dict):
        raise UsageError(f"claims are {claims!r}: set without_recurrence to a dict")
    if not found["backends"] or not set(found["backends"]) <= FRAMEWORKS.keys():
        raise UsageError(f"backends is {found['backends']!r}: set it to some of {', '.join(FRAMEWORKS)}")


def _plain(values: Any) -> Any:
    return json.loads(json.dumps(values))


def _frozen(value: Any) -> Any:
    """A list of JSON as a tuple, the form of a field of a frozen class."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
