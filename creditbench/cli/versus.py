"""`creditbench versus`: does a rule match a reference?"""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated

import typer

from creditbench.cli import options, printing

#: Columns that a narrow terminal does without, in this order.
_SPARE = (
    *("seconds", "steps", "seconds_ratio", "metric", "studies", "seeds", "score", "normalised"),
    *("p", "bytes_ratio", "step_time_ratio", "reached", "steps_ratio", "interval", "p_corrected"),
)


def versus(
    results: options.Results = None,
    rule: options.ShownRules = "",
    task: options.ShownTasks = "",
    cell: options.ShownCells = "",
    reference: Annotated[str, typer.Option(help="Rule that the others are compared with.")] = "bptt",
    level: Annotated[
        float,
        typer.Option(help="Part of the way from untrained to the reference's best that counts as converged."),
    ] = 0.95,
    margin: Annotated[
        float, typer.Option(help="Difference of normalised scores that counts as none.")
    ] = 0.05,
    form: Annotated[str, typer.Option("--format", help="rich, markdown, csv or json.")] = "rich",
    json: options.Json = False,
) -> None:
    """Compare rules with a reference: final score, steps and seconds to the reference's level, cost.

    p is for one row, p_corrected for all rows that are asked for (Holm): ask only for those you need.
    Intervals are 95 % for one row. better, worse: corrected p below 0.05; with (raw), p alone is; undecided:
    the interval contains 0.

    \b
    Examples:
      creditbench versus --rule anp,np --task mackey_glass
      creditbench versus --results results/paper/v0.1
      creditbench versus --results results/v0.2 --reference readout_rls --format markdown
    """
    from creditbench.leaderboard.text import versus_markdown
    from creditbench.leaderboard.versus import described
    from creditbench.leaderboard.versus import versus as hold
    from creditbench.results.selection import select
    from creditbench.results.version import load

    form = options.one_format(form, json, ("rich", "markdown", "csv", "json"), "versus")
    rules, tasks = (
        options.names(option, text) if text else [] for option, text in (("rule", rule), ("task", task))
    )
    read = load(*options.folders(results))
    if cell:
        read = select(read, cells=options.names("cell", cell))
    found = hold(read, reference, level, margin, rules, tasks)

    def plain(value: object) -> object:
        return None if isinstance(value, float) and not math.isfinite(value) else value

    if form == "json":
        printing.as_json([{k: plain(v) for k, v in dataclasses.asdict(row).items()} for row in found])
    elif form == "csv":
        import pandas as pd

        print(pd.DataFrame(map(dataclasses.asdict, found)).to_csv(index=False), end="")
    elif form == "markdown":
        print(versus_markdown(found))
    else:
        left_out = {
            name
            for name, usual in (
                ("cell", "tanh"),
                ("device", "cpu"),
                ("stale", ""),
                ("studies", 0),
                ("scale", "normalised"),
            )
            if {getattr(r, name) for r in found} <= {usual}
        }
        printing.as_table(
            [{k: v for k, v in dataclasses.asdict(row).items() if k not in left_out} for row in found], _SPARE
        )
        for note in described(found):
            printing.say(f"note: {note}")
