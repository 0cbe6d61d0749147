"""`creditbench figure`: results as a picture."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from creditbench.cli import options
from creditbench.errors import UsageError, unknown


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
    axis: Annotated[
        str | None, typer.Option(help="T, n or B: the size that scaling is drawn against.  [default: T]")
    ] = None,
) -> None:
    """Draw a figure for print.

    \b
    Examples:
      creditbench figure curves --results results/local --output curves.pdf
      creditbench figure pareto --results results/v0.2 --output pareto.pdf
      creditbench figure scaling --results results/v0.2 --axis n --rule bptt,anp --output scaling.pdf
    """
    from creditbench.leaderboard.figures import FIGURES, draw
    from creditbench.machine import files
    from creditbench.results.version import load

    if name not in FIGURES:
        raise unknown("figure", name, FIGURES, "creditbench figure --help")
    options.require_picture(output)
    if axis is not None and name != "scaling":
        raise UsageError(f"--axis is {axis}: only the figure scaling has it; leave it out")
    found = load(*options.folders(results))
    if rule:
        wanted = options.names("rule", rule)
        known = {record.trial.rule for record in found.records}
        for item in wanted:
            if item not in known:
                raise unknown("rule", item, sorted(known), "creditbench table")
        found = dataclasses.replace(
            found,
            records=tuple(r for r in found.records if r.trial.rule in wanted),
            scaling=tuple(p for p in found.scaling if p.learner in wanted),
            gradients=tuple(g for g in found.gradients if g.learner in wanted),
        )
    with files.output("output", output), files.replacing(output) as (new,):
        draw(name, found, new, axis or "T")
