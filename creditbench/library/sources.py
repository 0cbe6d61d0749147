"""A class of a notebook or a script as a file: its source, and all that the source names.

Trials run in processes of their own, which import files. So a class that was defined where a user works is
written as a file first: the source of the class, of the functions, classes and constants beside it that it
names, and an import for each name that comes from a library. The file is a plug-in like any other: its hash
is that of its meaning, and the class knows nothing of what else the notebook holds.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import inspect
import linecache
import symtable
import sys
import textwrap
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from creditbench.errors import UsageError
from creditbench.machine import files
from creditbench.plugins.importing import BASES, Kind, classes

#: Types of values that are written as they print.
_PLAIN = (bool, int, float, complex, str, bytes, type(None))


def file_of(cls: type, kind: Kind, folder: Path) -> Path:
    """The file of a class: that of its module if it holds nothing else of the kind, else one in `folder`.

    Raises `UsageError` for a class whose source, or a name in it, cannot be found.
    """
    module = sys.modules.get(cls.__module__)
    place = getattr(module, "__file__", None)
    alone = module is not None and classes(kind, module) == [cls]
    # A script is its own `__main__`, and would run once more if it were imported.
    if cls.__module__ != "__main__" and alone and place and place.endswith(".py") and Path(place).is_file():
        return Path(place)
    text = source_of(cls, kind)
    path = folder / f"{vars(cls).get('id', cls.__name__)}.py"
    with files.output("folder of sources", folder, "name another folder as results"):
        folder.mkdir(parents=True, exist_ok=True)
        files.write(path, text.encode())
    return path


def require_id(cls: type, kind: Kind) -> None:
    """Raise `UsageError` unless a class has an id."""
    if not isinstance(getattr(cls, "id", None), str):
        raise UsageError(f'{cls.__name__} has no id: write one in its class, as in id = "my_{kind[:-1]}"')


def source_of(cls: type, kind: Kind) -> str:
    """The text of a file that holds a class alone. Raises `UsageError`."""
    require_id(cls, kind)
    written = _Written(cls, kind)
    written.add(cls.__name__, cls)
    return written.text


class _Written:
    """The parts of a file: imports, then statements, each after those that it needs."""

    def __init__(self, cls: type, kind: Kind) -> None:
        self.cls, self.kind = cls, kind
        self.names = vars(sys.modules[cls.__module__]) if cls.__module__ in sys.modules else {}
        self.imports: set[str] = set()
        self.names_from: dict[str, set[str]] = {}  #: module -> what is imported from it
        self.statements: list[str] = []
        self._known: set[str] = set()

    @property
    def text(self) -> str:
        head = f'"""{self.cls.__name__}, as it was defined in a notebook or a script."""'
        named = (
            f"from {module} import {', '.join(sorted(names))}"
            for module, names in sorted(self.names_from.items())
        )
        imports = "\n".join([*sorted(self.imports), *named])
        return "\n\n".join([head, imports, *self.statements]).rstrip() + "\n"

    def add(self, name: str, value: Any) -> None:
        """What binds `name` to `value`, after all that it needs. Raises `UsageError`."""
        if name in self._known:
            return
        self._known.add(name)
        if isinstance(value, types.ModuleType):
            whole = value.__name__
            self.imports.add(f"import {whole}" + f" as {name}" * (name != whole))
        elif found := self._place(value):
            module, own = found
            self.names_from.setdefault(module, set()).add(own + f" as {name}" * (name != own))
        elif isinstance(value, type | types.FunctionType) and self._is_near(value):
            if value is not self.cls and isinstance(value, type) and issubclass(value, BASES[self.kind]):
                raise UsageError(
                    f"{self.cls.__name__} derives from {name}, which is a {self.kind[:-1]} of the notebook "
                    "too: a file holds one; write what it inherits into its own class"
                )
            source = _definition(value)
            if source is None and value is self.cls:
                raise UsageError(
                    f"the source of {name} cannot be read: save the class to a file, and pass its path"
                )
            if source is None:
                raise self._lost(name, "its source cannot be read")
            self._write(source)
            if value.__name__ != name:
                self.statements.append(f"{name} = {value.__name__}")
        elif isinstance(value, _PLAIN):
            self.statements.append(f"{name} = {value!r}")
        elif (source := _binding(self.cls, name)) is not None:
            self._write(source)
        else:
            raise self._lost(name, f"it is a {type(value).__name__}, whose source is not beside the class")

    def _write(self, source: str) -> None:
        for used in _free_names(source):
            if used in self.names:
                self.add(used, self.names[used])
            elif not hasattr(builtins, used):
                raise self._lost(used, "it is not defined at the top level of the notebook or script")
        self.statements.append(source)

    def _is_near(self, value: Any) -> bool:
        return value is self.cls or value.__module__ == self.cls.__module__

    def _place(self, value: Any) -> tuple[str, str] | None:
        """The module of a library and the name in it from which a value can be imported."""
        module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
        name = name or getattr(value, "__name__", None) or getattr(value, "_name", None)
        if not (isinstance(module, str) and isinstance(name, str)) or module == self.cls.__module__:
            return None
        return (module, name) if getattr(sys.modules.get(module), name, None) is value else None

    def _lost(self, name: str, why: str) -> UsageError:
        return UsageError(
            f"{self.cls.__name__} needs {name!r}, and {why}: define it in the cell of the class, or save "
            "both to a file and pass its path"
        )


def _free_names(source: str) -> Iterator[str]:
    """The names that a source takes from its module, in order."""
    found: dict[str, None] = {}

    def walk(table: symtable.SymbolTable, top: bool) -> None:
        for symbol in table.get_symbols():
            if symbol.is_referenced() and (symbol.is_global() or (top and not symbol.is_assigned())):
                found[symbol.get_name()] = None
        for child in table.get_children():
            walk(child, False)

    table = symtable.symtable(source, "<source>", "exec")
    own = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_assigned()}
    walk(table, True)
    return (name for name in found if name not in own)


def _module_of(owner: type | types.FunctionType) -> tuple[str, ast.Module] | None:
    """The source of the module, cell or prompt in which a class or function was defined; None if it is lost.

    A notebook has no file: the code of a method says in which cell it was written, and `linecache` has it.
    """
    functions = [owner] if isinstance(owner, types.FunctionType) else list(_methods(owner))
    names = [function.__code__.co_filename for function in functions]
    # What Python says of a class of a notebook: that it is built in.
    with contextlib.suppress(TypeError, OSError):
        names.append(inspect.getsourcefile(owner) or "")
    for name in names:
        text = "".join(linecache.getlines(name)) if name else ""
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError):
            # A cell with a magic of IPython is no Python.
            tree = ast.parse(text := _without_magics(text))
        if any(_is_definition(node, owner) for node in ast.walk(tree)):
            return text, tree
    return None


def _without_magics(text: str) -> str:
    """A cell of IPython without its magics; empty if it is no Python then either."""
    kept = "\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in text.splitlines())
    try:
        ast.parse(kept)
    except (SyntaxError, ValueError):
        return ""
    return kept


def _methods(cls: type) -> Iterator[types.FunctionType]:
    """The functions that were written in a class."""
    for value in vars(cls).values():
        inner = getattr(value, "__func__", None) or getattr(value, "fget", None) or value
        inner = inspect.unwrap(inner) if callable(inner) else inner
        if isinstance(inner, types.FunctionType) and inner.__qualname__.startswith(f"{cls.__qualname__}."):
            yield inner


def _is_definition(node: ast.AST, owner: type | types.FunctionType) -> bool:
    """Whether a node is what defined a class, by its name, or a function, by its name and line."""
    if isinstance(owner, type):
        return isinstance(node, ast.ClassDef) and node.name == owner.__name__
    return (
        isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name == owner.__name__
        and _first_line(node) == owner.__code__.co_firstlineno
    )


def _definition(owner: type | types.FunctionType) -> str | None:
    """The source of a class or a function, with its decorators; None if it is lost."""
    if (found := _module_of(owner)) is None:
        return None
    text, tree = found
    # A cell may define a name twice: the last one counts.
    return _segment(text, [node for node in ast.walk(tree) if _is_definition(node, owner)][-1])


def _binding(cls: type, name: str) -> str | None:
    """The statement beside a class, an import or an assignment, that binds a name; None if there is none."""
    if (found := _module_of(cls)) is None:
        return None
    text, tree = found
    for node in reversed(tree.body):
        if isinstance(node, ast.Import | ast.ImportFrom):
            bound = [alias.asname or alias.name.partition(".")[0] for alias in node.names]
        elif isinstance(node, ast.Assign):
            bound = [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.AnnAssign):
            bound = [node.target.id] if isinstance(node.target, ast.Name) else []
        else:
            continue
        if name in bound:
            return _segment(text, node)
    return None


def _first_line(node: Any) -> int:
    return min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", ()))])


def _segment(text: str, node: Any) -> str:
    """The lines of a statement, with its decorators, at the left edge."""
    return textwrap.dedent("\n".join(text.splitlines()[_first_line(node) - 1 : node.end_lineno]))
