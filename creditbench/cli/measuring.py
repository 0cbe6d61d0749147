"""What the verbs that measure share: options, progress, tables, files."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from creditbench.errors import UsageError
from creditbench.machine import files


def names(option: str, text: str) -> list[str]:
    """Names with commas between. Raises `UsageError` where there is none."""
    found = list(dict.fromkeys(name for part in text.split(",") if (name := part.strip())))
    if not found:
        raise UsageError(f"--{option} is left out: name one or more, with commas between")
    return found


class Rule(NamedTuple):
    """A learner as a measuring process is told of it."""

    order: tuple[str, str | None, dict[str, Any]]  #: id, path of a user's file, hyper-parameters
    backends: frozenset[str]


def resolve_learners(text: str, settings: Sequence[str] | None, extra: Sequence[str] = ()) -> list[Rule]:
    """The learners that a user names, with the fields that were set; `extra` are names of none, for every backend."""
    from creditbench.cli.run import pairs
    from creditbench.ops import BACKENDS
    from creditbench.trials.grid import resolve_learners as resolve
    from creditbench.trials.grid import user_path

    items = names("learner", text)
    given = pairs("--set", settings, "anp.sigma=1e-3")
    rules = {
        item: Rule((plugin.id, user_path(plugin), fields), plugin.cls.backends)
        for item, (plugin, fields) in resolve([item for item in items if item not in extra], given).items()
    }
    return [rules.get(item, Rule((item, None, {}), frozenset(BACKENDS))) for item in items]


@contextlib.contextmanager
def bars(what: str, total: int) -> Iterator[Callable[[str], None]]:
    """A function to call as each of `total` is done: a bar on a terminal's standard error, else a line each."""
    if not sys.stderr.isatty():
        count = 0

        def line(text: str) -> None:
            nonlocal count
            count += 1
            print(f"[{count}/{total}] {text}", file=sys.stderr, flush=True)

        yield line
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda text: progress.update(task, description=text, advance=1)


def show(rows: Sequence[Mapping[str, Any]]) -> None:
    """The rows as a table on standard output."""
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for column in rows[0] if rows else ():
        table.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*map(_text, row.values()))
    Console(width=None if sys.stdout.isatty() else 160).print(table, markup=False)


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, list | tuple):
        return " … ".join(map(_text, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def write(folder: Path, tables: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Write each table into a file of that name, which ends in .json or .csv. Raises `UsageError`."""
    with files.output("output", folder, "name another folder"):
        folder.mkdir(parents=True, exist_ok=True)
        with files.replacing(*(folder / name for name in tables)) as new:
            for path, (name, rows) in zip(new, tables.items(), strict=True):
                path.write_text(_as_json(rows) if name.endswith(".json") else _as_csv(rows), encoding="utf-8")


def _as_json(rows: Sequence[Mapping[str, Any]]) -> str:
    return json.dumps(rows, indent=1) + "\n"


def _as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    import pandas as pd

    flat = [{k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows]
    return pd.DataFrame(flat).to_csv(index=False, lineterminator="\n")
