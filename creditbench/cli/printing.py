"""Printing for the verbs: tables and JSON on standard output. Their progress is that of the library."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from creditbench.library.progress import bars as bars
from creditbench.library.progress import say as say


def console() -> Any:
    """The terminal, or a stand-in if standard output is a file."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 160)


def as_json(rows: Sequence[Mapping[str, Any]]) -> None:
    """The rows as one JSON array on standard output."""
    import json

    print(json.dumps(rows, indent=1))


def as_table(rows: Sequence[Mapping[str, Any]], spare: Sequence[str] = ()) -> None:
    """The rows as a table on standard output.

    `spare`: columns that are left out, in this order, until a narrow terminal has room for the others; a line
    on standard error says which.
    """
    from rich.table import Table

    from creditbench.results.table import fit, too_narrow

    screen = console()
    texts = {name: [_text(row[name]) for row in rows] for name in (rows[0] if rows else ())}
    labels = {name: name.replace("_", " ") for name in texts}
    heads = {labels[name]: cells for name, cells in texts.items()}
    widths = fit(heads, [labels.get(name, name) for name in spare], screen.width)
    table = Table()
    for head, width in widths.items():
        table.add_column(head, overflow="fold", width=width)
    for cells in zip(*(heads[head] for head in widths), strict=True):
        table.add_row(*cells)
    screen.print(table, markup=False)
    if left_out := [head for head in heads if head not in widths]:
        say(f"note: {too_narrow(left_out, screen.width, '--json has them')}")


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, list | tuple):
        return " … ".join(map(_text, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(x)}" for name, x in value.items()) or "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
