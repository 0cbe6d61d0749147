"""Imports one file of a plug-in: checks of its content, a time limit, and messages for its errors."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import hashlib
import importlib.util
import inspect
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from creditbench.cells import CELLS, Cell, cell_class
from creditbench.errors import UsageError, one_line
from creditbench.learner import Learner
from creditbench.machine.child import ended_after
from creditbench.plugins import meaning
from creditbench.task import Task

Kind = Literal["tasks", "learners", "cells"]
KINDS: tuple[Kind, ...] = ("learners", "tasks", "cells")

#: The base class of each kind of plug-in.
BASES: dict[Kind, type[Any]] = {"learners": Learner, "tasks": Task, "cells": Cell}

#: Time limit for a plug-in's import, in seconds.
IMPORT_SECONDS = 60.0


@dataclass(frozen=True)
class Plugin:
    """One task, learner or cell."""

    kind: Kind
    id: str
    cls: Any  #: a subclass of `Task`, `Learner` or `Cell`
    source: str  #: "builtin", the path of a user's file, or "entry point PACKAGE"
    path: Path
    sha256: str  #: of its source, see `source_sha256` and `package_sha256`
    #: value of an installed package's entry point, for a stand-in and for a cell
    entry: str | None = None


def require_python(kind: Kind, path: Path) -> None:
    """Raise `UsageError` unless the path is a Python file."""
    if not path.is_file():
        raise UsageError(f"no file {path}: name a Python file that holds a {kind[:-1]}")
    if path.suffix != ".py":
        raise UsageError(f"{path} is not a Python file: name a file that ends in .py")


def load_path(kind: Kind, path: Path, source: str | None = None) -> Plugin:
    """The plug-in in a file, imported into this process. Raises `UsageError`.

    `source`: None for the path.
    """
    path = path.resolve()
    require_python(kind, path)
    module = import_plugin(lambda: load_file(kind, path), str(path), watched=source is None)
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


def import_plugin(load: Callable[[], Any], shown: str, watched: bool = False) -> Any:
    """The result of `load`. Raises `UsageError` if it fails, ends Python or takes too long.

    `watched`: an import that hangs in code in C ends this process (`deadline`).
    """
    never = never_imported(shown, IMPORT_SECONDS)
    try:
        with deadline(IMPORT_SECONDS, never if watched else None):
            return load()
    except TooLongError:
        raise UsageError(never) from None
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
    """The line at which the file's import failed, as ", line 4"; empty if it failed elsewhere."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    line = error.lineno if isinstance(error, SyntaxError) else frames[-1].lineno if frames else None
    return f", line {line}" if line else ""


def never_imported(shown: str, seconds: float) -> str:
    """The message for an import that does not end in time."""
    return f"{shown} was not imported within {seconds:g} s: have it do nothing but define its class"


class TooLongError(BaseException):
    """The time is over. Not an `Exception`, so that a file that catches all of those cannot go on."""


@contextmanager
def deadline(seconds: float, last: str | None = None) -> Iterator[None]:
    """Raise `TooLongError` after `seconds`. Only in the main thread, in which plug-ins are loaded.

    Windows has no such alarm: it reads results alone.

    Nothing can be raised in code in C that does not return to Python, such as sum(itertools.repeat(1)).
    `last` is for a user's file: `GRACE` seconds later another process prints that sentence, and kills this
    one.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGALRM"):
        yield
        return

    def ring(*_: object) -> None:
        raise TooLongError

    before = signal.signal(signal.SIGALRM, ring)
    # It rings repeatedly: Python ignores an exception inside a callback of the garbage collector.
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        with contextlib.nullcontext() if last is None else ended_after(seconds + GRACE, f"error: {last}\n"):
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


#: Seconds that Python has to raise `TooLongError` in, before a watcher ends the process.
GRACE = 2.0


def classes(kind: Kind, found: Any) -> list[Any]:
    """The task, learner or cell classes that a module defines; or the class that an entry point names."""
    module = found.__module__ if isinstance(found, type) else found.__name__
    return [
        value
        for value in ([found] if isinstance(found, type) else vars(found).values())
        if isinstance(value, type) and issubclass(value, BASES[kind]) and value.__module__ == module
    ]


def kind_of(path: Path) -> Kind:
    """The kind of a plug-in's file, by the names of its classes' bases. The file is not run.

    Raises `UsageError` for what is not a Python file, or holds no learner, task or cell.
    """
    own = {base for cls in _classes(path) for base in _bases(cls)}
    for kind, names in _base_names().items():
        if own & names:
            return kind
    raise UsageError(
        f"{path} holds no learner, task or cell: name a file with a subclass of Learner, Task or Cell"
    )


def id_of(path: Path) -> str:
    """The id of a plug-in in a file, which is not run. Raises `UsageError`, also if it is no plain text."""
    known = set[str]().union(*_base_names().values())
    for cls in _classes(path):
        for line in cls.body if known.intersection(_bases(cls)) else ():
            targets = line.targets if isinstance(line, ast.Assign) else [getattr(line, "target", None)]
            if [t.id for t in targets if isinstance(t, ast.Name)] == ["id"]:
                value = getattr(line, "value", None)
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    return value.value
    raise UsageError(f'the id of {path} is no text in its class: write it as id = "my_cell"')


def _classes(path: Path) -> list[ast.ClassDef]:
    require_python("learners", path)
    try:
        body = ast.parse(path.read_bytes()).body
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UsageError(f"{path} cannot be read ({one_line(error)}): mend it, or name another") from None
    return [node for node in body if isinstance(node, ast.ClassDef)]


def _bases(cls: ast.ClassDef) -> set[str]:
    """The names of a class's bases, without their modules."""
    return {ast.unparse(base).rpartition(".")[2] for base in cls.bases}


def _base_names() -> dict[Kind, set[str]]:
    """The names of classes that plug-ins of each kind may derive from."""
    found = {kind: {base.__name__} for kind, base in BASES.items()}
    found["cells"] |= {cell_class(id).__name__ for id in CELLS}
    return found


def inspect_plugin(kind: Kind, found: Any, source: str) -> Plugin:
    """The plug-in in a module, or of the class that an entry point names. Raises `UsageError`."""
    base, path = BASES[kind], Path(inspect.getfile(found))
    own = classes(kind, found)
    if len(own) != 1:
        names = ", ".join(cls.__name__ for cls in own) or "none"
        raise UsageError(f"{path} must hold one subclass of {base.__name__}, but holds {names}")
    cls = own[0]
    given = {field.name for field in dataclasses.fields(base)} if dataclasses.is_dataclass(base) else set()
    wanted = [name for name in inspect.get_annotations(base) if name not in given]
    missing = [name for name in wanted if not hasattr(cls, name)]
    if missing:
        raise UsageError(
            f"{cls.__name__} in {path} lacks {', '.join(missing)}: see the class {base.__name__} in "
            f"{base.__module__}"
        )
    require_id(cls.id, path)
    if kind == "tasks":
        named = getattr(sys.modules[cls.__module__], "EMBEDDED", None)
        if named is not None and named != embedded(path):
            raise UsageError(
                f'EMBEDDED of {path} is {named}: write it as EMBEDDED = Path(__file__).parent / "data" / '
                '"NAME", so that its content counts as part of the task'
            )
    try:
        sha256 = source_sha256(path)
    except OSError as error:
        raise UsageError(f"{path} names {error.filename}, which cannot be read ({error.strerror})") from None
    return Plugin(kind, cls.id, cls, source, path, sha256)


def source_sha256(path: Path) -> str:
    """The sha256 of a plug-in's file without comments and docstrings, and of a task's EMBEDDED data.

    Imports nothing. Raises OSError.
    """
    found = meaning.digest(path.read_bytes())
    if (data := embedded(path)) is None:
        return found
    return hashlib.sha256(bytes.fromhex(found) + hashlib.sha256(data.read_bytes()).digest()).hexdigest()


def embedded(path: Path) -> Path | None:
    """The path in a task's line `EMBEDDED = Path(__file__).parent / "data" / "NAME"`. The file is not run.

    None if there is no such line, or if the file is not Python or nested too deeply.
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
    """Raise `UsageError` unless an id is a plain name, which needs no quotes in tables, pages or shells."""
    if not (isinstance(found, str) and found.isascii() and found.isidentifier()):
        raise UsageError(f"the id of {path} is {found!r}: give it letters, digits and _, as in my_rule")
