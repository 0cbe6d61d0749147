"""Hashes of the code that decides numbers: a source without comments and docstrings, and its vocabulary.

A typo fixed in a docstring does not change a trial's id. A change of the mathematics that rules share, in
`learner`, `cells`, `ops` or `optimizers`, changes the id of the trials of all rules that run through it; a
change of one cell, that of the trials with this cell.
"""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from typing import Any

from creditbench.machine.folders import PACKAGE

#: The subpackages whose code rules run through.
ROOMS = ("learner", "cells", "ops", "optimizers")
#: Modules that every rule runs through, beside those that it imports.
_OF_ALL = ("learner.training", "cells.base", "optimizers")


def digest(content: bytes, imports: bool = True) -> str:
    """The sha256 of a Python source's syntax tree; of its bytes if it is not Python or nested too deeply.

    Comments never count. Docstrings count only if the source names `__doc__`. The hash is the same under
    every version of Python that can read the source. `imports`: whether imports at the top count.
    """
    try:
        tree = ast.parse(content)
        if not imports:
            tree.body = [node for node in tree.body if not isinstance(node, ast.Import | ast.ImportFrom)]
        keeps = b"__doc__" in content
        parts = "\0".join(_words(tree, keeps, []))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha256(parts.encode(errors="surrogatepass")).hexdigest()


def _words(node: ast.AST, keeps: bool, found: list[str]) -> list[str]:
    """Adds the names of a tree's nodes and fields, and its constants, without empty fields; returns all.

    Not a generator: one inside another for every level of the tree takes three times as long.
    """
    found.append(type(node).__name__)
    for name in node._fields:
        value: Any = getattr(node, name, None)
        if name == "body" and not keeps and _has_docstring(node):
            value = value[1:]
        # Versions of Python differ in empty fields, and in those that say how a constant was written.
        if value is None or value == [] or name in ("kind", "type_comment", "ctx"):
            continue
        found.append(f".{name}")
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, ast.AST):
                _words(item, keeps, found)
            else:
                found.append(f"{type(item).__name__} {item!r}")
    found.append(")")
    return found


def _has_docstring(node: ast.AST) -> bool:
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return isinstance(node, owners) and ast.get_docstring(node, clean=False) is not None


def vocabulary(
    content: bytes, backend: str, decorrelates: bool = False, cell: str | bytes = "tanh", layers: int = 1
) -> str:
    """The sha256 of all code that a rule runs through under `backend`, without its own file.

    `content`: the rule's source. `decorrelates`: whether its cell is decorrelated. `cell`: the id of a
    shipped cell, or the source of another one, which does not count itself. If imports cannot be read, all
    code counts.
    """
    wanted = {*_OF_ALL, f"ops.{backend}", *_imported(content)}
    wanted |= {f"cells.{cell}"} if isinstance(cell, str) else _imported(cell)
    if decorrelates:
        wanted.add("learner.decorrelation")
    if layers > 1:
        wanted.add("cells.stack")
    reached: set[str] = set()
    while wanted:
        module = wanted.pop()
        reached.add(module)
        wanted |= _known(module)[1] - reached
    # The names of modules do not count, so that code can be moved.
    return hashlib.sha256("\n".join(sorted(_known(module)[0] for module in reached)).encode()).hexdigest()


@cache
def _known(module: str) -> tuple[str, frozenset[str]]:
    """(digest of a module of `ROOMS`, the modules of `ROOMS` that it imports)."""
    content = (PACKAGE / f"{module.replace('.', '/')}.py").read_bytes()
    return digest(content, imports=False), frozenset(_imported(content))


def _imported(content: bytes) -> set[str]:
    """The modules of `ROOMS` that a source imports."""
    try:
        nodes = list(ast.walk(ast.parse(content)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {module for room in ROOMS for module in _modules(room)}
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                found |= _reached(alias.name, None)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                found |= _reached(node.module, alias.name)
    return found


def _reached(module: str, name: str | None) -> set[str]:
    """The modules of `ROOMS` that `import module`, or `from module import name`, reaches."""
    package, _, inner = module.partition(".")
    if package != "creditbench":
        return set()
    if not inner:
        inner, name = name or "", None
    room = inner.partition(".")[0]
    if room not in ROOMS:
        return set() if room else {module for room in ROOMS for module in _modules(room)}
    if inner in _modules(room):
        return {inner}
    home = _homes(room).get(name or "")
    # A whole subpackage, or a name that its `__init__` defines itself.
    return {home} if home else set() if name and room == "ops" else set(_modules(room))


@cache
def _modules(room: str) -> tuple[str, ...]:
    folder = PACKAGE / room
    if not folder.is_dir():
        return (room,)
    return tuple(f"{room}.{path.stem}" for path in sorted(folder.glob("*.py")) if path.stem != "__init__")


@cache
def _homes(room: str) -> dict[str, str]:
    """name -> module, for the names that a subpackage's `__init__` imports from its own modules."""
    if not (PACKAGE / room).is_dir():
        return {}
    tree = ast.parse((PACKAGE / room / "__init__.py").read_bytes())
    return {
        alias.asname or alias.name: node.module.removeprefix("creditbench.")
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(f"creditbench.{room}.")
        for alias in node.names
    }
