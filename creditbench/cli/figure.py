"""`creditbench figure`: results as a picture."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from creditbench.cli import options
from creditbench.cli.printing import say
from creditbench.errors import UsageError, unknown

if TYPE_CHECKING:
    from creditbench.leaderboard.figures import Width


def figure(
    name: Annotated[
        str,
        typer.Argument(
            help="curves: validation metric against training steps; units: score against hidden units; "
            "scaling, gradients: the measurements; "
            "pareto: score against cost; profiles: share of tasks solved."
        ),
    ],
    output: Annotated[Path, typer.Option(help=options.PICTURE)],
    results: options.Results = None,
    rule: options.ShownRules = "",
    task: options.ShownTasks = "",
    backend: options.ShownBackends = "",
    cell: options.ShownCells = "",
    width: Annotated[
        str, typer.Option(help="column: 3.35 inches, or page: 7 inches, as journals have them.")
    ] = "page",
    axis: Annotated[
        str | None, typer.Option(help="T, n or B: the size that scaling is drawn against.  [default: T]")
    ] = None,
) -> None:
    """Draw a figure for print. A note says which rules it left out, if it has not room for all.

    \b
    Examples:
      creditbench figure curves --rule bptt,anp --width column --output curves.pdf
      creditbench figure pareto --results results/v0.2 --output pareto.pdf
      creditbench figure scaling --results results/v0.2 --axis n --rule bptt,anp --output scaling.pdf
    """
    from creditbench.leaderboard.figures import FIGURES, WIDTHS, draw
    from creditbench.machine import files
    from creditbench.results.selection import select
    from creditbench.results.version import load

    if name not in FIGURES:
        raise unknown("figure", name, FIGURES, "creditbench figure --help")
    if width not in WIDTHS:
        raise UsageError(f"--width is {width}: give column or page")
    files.require_picture(output)
    if axis is not None and name != "scaling":
        raise UsageError(f"--axis is {axis}: only the figure scaling has it; leave it out")
    found = select(
        load(*options.folders(results)), *(options.split(names) for names in (rule, task, backend, cell))
    )
    figure = draw(name, found, axis or "T", typing.cast("Width", width))
    with files.output("output", output), files.replacing(output) as (new,):
        figure.savefig(new)
    for note in figure.notes:
        say(f"note: {note}")
