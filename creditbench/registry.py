"""Finds tasks and learners: in the shipped folders, in files that a user names, in installed packages.

All three come in through `load`. A plug-in is a Python file or module that holds one subclass of `Task` or
`Learner`; it is found by its `id`. What is shipped or installed and cannot be used is left out with a note, and costs
nobody else; what a user names must be sound.

Shipped files are imported, and so are a user's tasks, which make the targets and are trusted. A learner from elsewhere
is not: its class is a stand-in, made of what a confined process found in the file (`creditbench.contributed`). The
file itself is imported where a caller says `imports=True`, which is right in a process that trusts it with all it has.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import inspect
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

from creditbench.errors import UsageError, one_line, unknown

Kind = Literal["tasks", "learners"]
KINDS: tuple[Kind, ...] = ("learners", "tasks")

#: Seconds that a plug-in's import may take.
IMPORT_SECONDS = 60.0


@dataclass(frozen=True)
class Plugin:
    """One task or learner that was found."""

    kind: Kind
    id: str
    cls: Any  #: a subclass of `Task` or `Learner`
    source: str  #: "builtin", the path of a user's file, or "entry point PACKAGE"
    path: Path
    sha256: str  #: of its source, see `source_sha256` and `package_sha256`
    entry: str | None = None  #: what an installed package's entry point names, where its class is a stand-in


@dataclass(frozen=True)
class _Found:
    """What is shipped or installed: plug-ins by id, and by name why others were left out."""

    plugins: dict[str, Plugin]
    broken: dict[str, str]

    def add(self, name: str, make: Callable[[], Plugin]) -> None:
        """Take in what `make` gives, or note on standard error why it cannot be used."""
        try:
            plugin = make()
            if plugin.id in self.plugins:
                raise UsageError(_clash(plugin, self.plugins[plugin.id]))
            self.plugins[plugin.id] = plugin
        except UsageError as error:
            self.broken[name] = str(error)
            print(f"note: left out: {error}", file=sys.stderr)


def shipped(kind: Kind) -> Path:
    """The folder of built-in tasks or learners: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).parent
    inside = package / kind
    return inside if inside.is_dir() else package.parent / kind


def load(kind: Kind, paths: Sequence[str | Path] = (), *, imports: bool = False) -> dict[str, Plugin]:
    """Every task or learner by its id: the shipped ones, those of `paths` and those of installed packages.

    `imports`: import learners that are not shipped into this process, instead of a stand-in for each. Raises
    `UsageError` for a path that is missing or cannot be imported, and for an id that is taken.
    """
    from creditbench import contributed

    found = dict(_known(kind, imports).plugins)
    for path in paths:
        confined = kind == "learners" and not imports
        plugin = contributed.from_path(Path(path)) if confined else _from_path(kind, Path(path))
        if plugin.id in found:
            raise UsageError(_clash(plugin, found[plugin.id]))
        found[plugin.id] = plugin
    return dict(sorted(found.items()))


def find(kind: Kind, name: str, paths: Sequence[str | Path] = (), *, imports: bool = False) -> Plugin:
    """The task or learner of that id.

    Raises `UsageError` when there is none: with the reason where it was left out, else with the nearest id.
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
    """What is shipped, by id."""
    return _builtin(kind).plugins


def read(path: Path) -> Plugin:
    """The task or the learner in a file, whichever it holds, imported into this process. Raises `UsageError`."""
    path = path.resolve()
    require_python("learners", path)
    module = import_plugin(lambda: load_file("learners", path), str(path))
    kind: Kind = "tasks" if _classes("tasks", module) else "learners"
    return inspect_plugin(kind, module, str(path))


@cache
def _builtin(kind: Kind) -> _Found:
    found = _Found({}, {})
    for path in sorted(shipped(kind).glob("*.py")):
        found.add(path.stem, partial(_from_path, kind, path, "builtin"))
    return found


@cache
def _known(kind: Kind, imports: bool) -> _Found:
    """What is shipped, and what installed packages have beside it."""
    from creditbench import contributed

    found = _Found(dict(builtin(kind)), dict(_builtin(kind).broken))
    for point in importlib.metadata.entry_points(group=f"creditbench.{kind}"):
        source = f"entry point {point.dist.name if point.dist else point.name}"
        confined = kind == "learners" and not imports
        read_point = partial(contributed.from_package, point.value, source)
        found.add(point.name, read_point if confined else partial(_from_point, kind, point, source))
    return found


def _from_point(kind: Kind, point: importlib.metadata.EntryPoint, source: str) -> Plugin:
    from creditbench.contributed import package_sha256

    plugin = inspect_plugin(kind, import_plugin(point.load, source), source)
    return replace(plugin, sha256=package_sha256(point.value, plugin.path))


def _clash(plugin: Plugin, other: Plugin) -> str:
    def place(one: Plugin) -> str:
        return f"{one.path} ({one.source})" if one.source.startswith("entry point") else str(one.path)

    return clash(plugin.id, place(plugin), place(other))


def clash(name: str, place: object, taken: object) -> str:
    """What is said of an id that two files have."""
    return f"the id {name!r} of {place} is taken by {taken}: give it an id of its own"


def require_python(kind: Kind, path: Path) -> None:
    """Raise `UsageError` unless the path is that of a Python file."""
    if not path.is_file():
        raise UsageError(f"no file {path}: name a Python file that holds a {kind[:-1]}")
    if path.suffix != ".py":
        raise UsageError(f"{path} is not a Python file: name a file that ends in .py")


def _from_path(kind: Kind, path: Path, source: str | None = None) -> Plugin:
    path = path.resolve()
    require_python(kind, path)
    module = import_plugin(lambda: load_file(kind, path), str(path))
    return inspect_plugin(kind, module, source or str(path))


def load_file(kind: Kind, path: Path) -> Any:
    """The module in a file, newly imported under a name of its own."""
    name = f"creditbench_{kind}.{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def import_plugin(load: Callable[[], Any], shown: str) -> Any:
    """What `load` imports. Raises `UsageError` where that fails, ends the interpreter or takes for ever."""
    try:
        with deadline(IMPORT_SECONDS):
            return load()
    except TooLongError:
        raise UsageError(never_imported(shown, IMPORT_SECONDS)) from None
    except SystemExit as error:
        raise UsageError(
            f"{shown} ends Python as it is imported (exit status {error.code}): mend it"
        ) from None
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if not package or package == "creditbench":
            raise UsageError(f"{shown} cannot be imported: {type(error).__name__}: {error}") from error
        raise UsageError(f"{shown} needs the package {package}: pip install {package}") from error
    except Exception as error:
        raise UsageError(f"{shown} cannot be imported{_line(error, shown)}: {one_line(error)}") from error


def _line(error: Exception, path: str) -> str:
    """The line of the file at which its import failed, as ", line 4"; empty where it is not in the file."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    line = error.lineno if isinstance(error, SyntaxError) else frames[-1].lineno if frames else None
    return f", line {line}" if line else ""


def never_imported(shown: str, seconds: float) -> str:
    """What is said of an import without end."""
    return f"{shown} was not imported within {seconds:g} s: have it do nothing but define its class"


class TooLongError(BaseException):
    """No `Exception`, so that a file that catches all of those does not go on."""


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """End what takes longer; in the main thread alone, which is where plug-ins are loaded."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(*_: object) -> None:
        raise TooLongError

    before = signal.signal(signal.SIGALRM, ring)
    # Again and again: where it rings within a callback of the collector, Python passes over what is raised.
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _classes(kind: Kind, found: Any) -> list[Any]:
    """The task or learner classes that are a module's own, or the class itself where an entry point names one."""
    module = found.__module__ if isinstance(found, type) else found.__name__
    return [
        value
        for value in ([found] if isinstance(found, type) else vars(found).values())
        if isinstance(value, type) and issubclass(value, _base(kind)) and value.__module__ == module
    ]


def inspect_plugin(kind: Kind, found: Any, source: str) -> Plugin:
    """The plug-in in a module, or the class itself where an entry point names one. Raises `UsageError`."""
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
    require_id(cls.id, path)
    if kind == "tasks":
        named = getattr(sys.modules[cls.__module__], "EMBEDDED", None)
        if named is not None and named != embedded(path):
            raise UsageError(
                f'EMBEDDED of {path} is {named}: write it as EMBEDDED = Path(__file__).parent / "data" / "NAME", '
                "so that its content counts as part of the task"
            )
    try:
        sha256 = source_sha256(path)
    except OSError as error:
        raise UsageError(f"{path} names {error.filename}, which cannot be read ({error.strerror})") from None
    return Plugin(kind, cls.id, cls, source, path, sha256)


def source_sha256(path: Path) -> str:
    """The sha256 of a plug-in's file and, of a task's, of the data that it names as EMBEDDED.

    Nothing is imported. Raises OSError.
    """
    digest = hashlib.sha256(path.read_bytes())
    if (data := embedded(path)) is not None:
        digest.update(hashlib.sha256(data.read_bytes()).digest())
    return digest.hexdigest()


def embedded(path: Path) -> Path | None:
    """What a task's file names in a line like `EMBEDDED = Path(__file__).parent / "data" / "NAME"`; it is not run.

    None where it cannot be read as Python, or is nested too deeply for that.
    """
    content = path.read_bytes()
    if b"EMBEDDED" not in content:
        return None
    try:
        return _embedded(path, content)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _embedded(path: Path, content: bytes) -> Path | None:
    body = ast.parse(content).body
    if not any(ast.unparse(b).endswith("Task") for c in body if isinstance(c, ast.ClassDef) for b in c.bases):
        return None
    for line in body:
        if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "EMBEDDED":
            parts: list[str] = []
            rest = line.value
            while isinstance(rest, ast.BinOp) and isinstance(rest.right, ast.Constant):
                parts.insert(0, str(rest.right.value))
                rest = rest.left
            if ast.unparse(rest) == "Path(__file__).parent" and parts:
                return path.parent.joinpath(*parts)
    return None


def require_id(found: object, path: Path) -> None:
    """Raise `UsageError` unless an id is a plain name, which stands for itself in a table, a page and a shell."""
    if not (isinstance(found, str) and found.isascii() and found.isidentifier()):
        raise UsageError(f"the id of {path} is {found!r}: give it letters, digits and _, as in my_rule")


def _base(kind: Kind) -> type[Any]:
    """The class that a plug-in of that kind is derived from."""
    if kind == "tasks":
        from creditbench.task import Task

        return Task
    from creditbench.learner import Learner

    return Learner
