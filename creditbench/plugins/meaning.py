"""What of a source decides numbers: its syntax without comments and docstrings, and the vocabulary it runs through.

A typo that is mended in a docstring leaves a trial's id as it is. A change of the mathematics that rules
share, in `learner`, `cells`, `ops` or `optimizers`, gives another id to the trials of those rules that run
through what changed.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from typing import Any

from creditbench.machine.folders import PACKAGE

#: The rooms whose code is part of what a rule computes.
ROOMS = ("learner", "cells", "ops", "optimizers")
#: What every rule runs through, beside what it imports.
_OF_ALL = ("learner.training", "cells.base", "optimizers")


def digest(content: bytes, imports: bool = True) -> str:
    """The sha256 of a Python source's meaning; of the bytes where it is no Python, or is nested too deeply.

    Docstrings count where the source names `__doc__`. The same under every version of Python that can read
    the source.
    `imports`: whether it counts from where things are imported.
    """
    try:
        tree = ast.parse(content)
        if not imports:
            tree.body = [node for node in tree.body if not isinstance(node, ast.Import | ast.ImportFrom)]
        keeps = b"__doc__" in content
        parts = "\0".join(_words(tree, keeps))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha256(parts.encode(errors="surrogatepass")).hexdigest()


def _words(node: ast.AST, keeps: bool) -> Iterator[str]:
    """The names of a tree's nodes and fields, and its constants. Fields that are empty say nothing."""
    yield type(node).__name__
    for name in node._fields:
        value: Any = getattr(node, name, None)
        if name == "body" and not keeps and _has_docstring(node):
            value = value[1:]
        # Versions of Python differ in fields that are empty, or say how a constant was written.
        if value is None or value == [] or name in ("kind", "type_comment", "ctx"):
            continue
        yield f".{name}"
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, ast.AST):
                yield from _words(item, keeps)
            else:
                yield f"{type(item).__name__} {item!r}"
    yield ")"


def _has_docstring(node: ast.AST) -> bool:
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return isinstance(node, owners) and ast.get_docstring(node, clean=False) is not None


def vocabulary(content: bytes, backend: str, decorrelates: bool = False) -> str:
    """The sha256 of all that a rule of this source runs through under `backend`, its own file left out.

    `decorrelates`: whether its cell is decorrelated. What is imported in ways that cannot be read counts as
    all.
    """
    wanted = {*_OF_ALL, f"ops.{backend}", *_imported(content)}
    if decorrelates:
        wanted.add("learner.decorrelation")
    reached: set[str] = set()
    while wanted:
        module = wanted.pop()
        reached.add(module)
        wanted |= _known(module)[1] - reached
    # Neither its name nor its place counts, so that code may be moved.
    return hashlib.sha256("\n".join(sorted(_known(module)[0] for module in reached)).encode()).hexdigest()


@cache
def _known(module: str) -> tuple[str, frozenset[str]]:
    """(the digest of a module of the rooms, the modules of them that it imports)."""
    content = (PACKAGE / f"{module.replace('.', '/')}.py").read_bytes()
    return digest(content, imports=False), frozenset(_imported(content))


def _imported(content: bytes) -> set[str]:
    """The modules of the rooms that a source imports."""
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
    """The modules of the rooms that `import module`, or `from module import name`, reaches."""
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
    # A room as a whole, or a name that its `__init__` makes itself.
    return {home} if home else set() if name and room == "ops" else set(_modules(room))


@cache
def _modules(room: str) -> tuple[str, ...]:
    folder = PACKAGE / room
    if not folder.is_dir():
        return (room,)
    return tuple(f"{room}.{path.stem}" for path in sorted(folder.glob("*.py")) if path.stem != "__init__")


@cache
def _homes(room: str) -> dict[str, str]:
    """The modules in which the names lie that a room's `__init__` imports from its own."""
    if not (PACKAGE / room).is_dir():
        return {}
    tree = ast.parse((PACKAGE / room / "__init__.py").read_bytes())
    return {
        alias.asname or alias.name: node.module.removeprefix("creditbench.")
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(f"creditbench.{room}.")
        for alias in node.names
    }
