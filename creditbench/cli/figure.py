"""`creditbench figure`: results as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def figure(
    name: Annotated[
        str,
        typer.Argument(
            help="curves: validation metric against training steps; units: score against hidden units; "
            "scaling, gradients: what was measured; "
            "pareto: score against cost; profiles: share of tasks solved."
        ),
    ],
    output: Annotated[Path, typer.Option(help="File to write; its suffix (png, pdf, svg) is the format.")],
    results: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of records, or of a version's tables. Repeatable.  [default: results/local]"
        ),
    ] = None,
    rule: Annotated[str, typer.Option(help="Rules to draw, with commas between.  [default: all]")] = "",
    axis: Annotated[
        str | None, typer.Option(help="T, n, B: what scaling is drawn against.  [default: T]")
    ] = None,
) -> None:
    """Draw a figure for print.

    \b
    Examples:
      creditbench figure curves --results results/local --output curves.pdf
      creditbench figure pareto --results results/v0.2 --output pareto.pdf
      creditbench figure scaling --results results/v0.2 --axis n --rule bptt,anp --output scaling.pdf
    """
    import dataclasses

    from creditbench.cli.measuring import names
    from creditbench.errors import UsageError, unknown
    from creditbench.leaderboard.figures import FIGURES, draw
    from creditbench.machine import files
    from creditbench.results.version import load

    if name not in FIGURES:
        raise unknown("figure", name, FIGURES, "creditbench figure --help")
    if output.suffix not in (".png", ".pdf", ".svg"):
        raise UsageError(f"output '{output}' has no known suffix: end it in .png, .pdf or .svg")
    if axis is not None and name != "scaling":
        raise UsageError(f"--axis is {axis}: it is of the figure scaling alone; leave it out")
    found = load(*(results or [Path("results/local")]))
    if rule:
        wanted = names("rule", rule)
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
