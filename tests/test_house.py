"""The house: imports at the top of a module, or their reason beside them; no name for two things."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "creditbench"


def without_a_reason(source: str) -> list[int]:
    """Lines of imports in functions that have no comment beside or above them, nor above their group."""
    lines = source.splitlines()
    imports = {
        node.lineno: node.end_lineno or node.lineno
        for function in ast.walk(ast.parse(source))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    ends, given, lacking = set(imports.values()), set(), []
    for line in sorted(imports):
        above = line - 1
        while above and not lines[above - 1].strip():
            above -= 1
        if "#" in lines[line - 1] or lines[above - 1].strip().startswith("#") or (above in ends & given):
            given.add(imports[line])
        else:
            lacking.append(line)
    return lacking


def test_every_import_in_a_function_has_its_reason():
    """Those of the verbs have one for all, in `creditbench/cli/__init__.py`."""
    modules = [path for path in sorted(PACKAGE.rglob("*.py")) if path.parent.name != "cli"]
    lacking = {
        path.name: lines for path in modules if (lines := without_a_reason(path.read_text(encoding="utf-8")))
    }
    assert len(modules) > 100 and not lacking


def test_an_import_without_a_reason_is_seen():
    plain = "def f():\n    import json\n\n    return json\n"
    assert without_a_reason(plain) == [2]
    assert (
        without_a_reason(plain.replace("    import", "    # It is slow.\n    import csv\n\n    import")) == []
    )
    assert without_a_reason("import json\n") == []


def test_no_two_classes_have_one_name():
    """A reader of `Cell` has not to ask which."""
    places: dict[str, list[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(path.name)
    assert len(places) > 100 and not {name: found for name, found in places.items() if len(found) > 1}
