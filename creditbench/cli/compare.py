"""`creditbench compare`: what changed between two results."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from creditbench.cli import options, printing
from creditbench.errors import UsageError


def compare(
    a: Annotated[
        str, typer.Argument(metavar="A", help="Before: a folder of results, or a version as in v0.2.")
    ],
    b: Annotated[str, typer.Argument(metavar="B", help="After: likewise.")],
    cell: Annotated[
        str,
        typer.Option(
            help="The cell whose runs are compared.  [default: that with most runs]",
            show_default=False,
            autocompletion=options.complete_cells,
        ),
    ] = "",
    alpha: Annotated[
        float, typer.Option(help="Chance of a false finding among all rules, for score and for time.")
    ] = 0.05,
    tolerance: Annotated[float, typer.Option(help="Least relative change of time that is reported.")] = 0.1,
    json: options.Json = False,
) -> None:
    """Report what got better, worse, faster, slower, bigger or broken from A to B, and how much was compared.

    Scores: the difference B - A, by a permutation test of runs within tasks and tuning studies. Times: the
    ratio B / A, robust to outliers. Intervals are at the level alpha / k for k rules that are tested
    together: they exclude 0 (scores) or 1 (times) where p_corrected is below alpha. Algorithm bytes and FLOPs
    are exact: any change is reported. Runs under different conditions are not compared. Exits 1 if something
    got worse.

    \b
    Examples:
      creditbench compare v0.2 results/local
      creditbench compare results/base results/head --tolerance 0.2 --json
    """
    from creditbench.leaderboard.compare import compare as hold
    from creditbench.results.version import load

    if not 0 < alpha < 1:
        raise UsageError(f"--alpha is {alpha}: give a number between 0 and 1")
    if not tolerance >= 0:
        raise UsageError(f"--tolerance is {tolerance}: give a number from 0")
    read = [load(folder(name), curves=False) for name in (a, b)]
    found = hold(read[0], read[1], alpha=alpha, tolerance=tolerance, cell=cell or None)
    rows = [dataclasses.asdict(change) for change in found.changes]
    if json:
        printing.as_json(rows)
    elif rows:
        printing.as_table(
            [
                {k: v for k, v in row.items() if k not in ("low", "high")}
                | {"interval": None if row["low"] is None else [row["low"], row["high"]]}
                for row in rows
            ],
            ("p", "interval", "p_corrected", "difference", "ratio", "backend"),
        )
    for note in found.notes:
        printing.say(f"note: {note}")
    if order := found.agreement:
        printing.say(
            f"order: Kendall's τ {order.tau:.3f} between {order.rules} rows on {order.columns} columns; of "
            f"{order.settled} pairs that a board settles, {order.turned} are reversed in the other"
        )
    counted = ", ".join(f"{name} of {count} rules" for name, count in found.compared.items())
    printing.say(f"compared: {counted}; {len(rows) or 'no'} changes")
    if found.regressions:
        raise typer.Exit(1)


def folder(name: str) -> Path:
    """The folder at that path, or the version of that name in `results/`. Raises `UsageError` without one."""
    found = options.place(Path(name))
    if found is None or not found.is_dir():
        raise UsageError(
            f"no folder '{name}', and none in results/: name one that creditbench run or table has written"
        )
    return found
