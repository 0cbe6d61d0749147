"""`creditbench versus`: does a rule match a reference."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def versus(
    results: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of records, or of a version's tables. Repeatable.  [default: results/local]",
            show_default=False,
        ),
    ] = None,
    rule: Annotated[
        str,
        typer.Option(
            help="Rules to hold against it, with commas between.  [default: all]", show_default=False
        ),
    ] = "",
    task: Annotated[
        str,
        typer.Option(help="Tasks, or columns of the table, likewise.  [default: all]", show_default=False),
    ] = "",
    reference: Annotated[str, typer.Option(help="Rule that the others are held against.")] = "bptt",
    level: Annotated[
        float,
        typer.Option(help="Part of the way from untrained to the reference's best that counts as converged."),
    ] = 0.95,
    margin: Annotated[
        float, typer.Option(help="Difference of normalised scores that counts as none.")
    ] = 0.05,
    format_: Annotated[str, typer.Option("--format", help="rich, markdown, csv or json.")] = "rich",
    json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Hold rules against a reference: final score, steps and seconds to the reference's level, cost.

    p is of one row, p_corrected of all rows that are asked for (Holm): ask for what you want to know. Intervals are
    95 % of one row. better, worse: corrected p below 0.05; with (raw), p alone is; undecided: the interval holds 0.

    \b
    Examples:
      creditbench versus --rule anp,np --task mackey_glass
      creditbench versus --results results/paper/v0.1
      creditbench versus --results results/v0.2 --reference readout_rls --format markdown
    """
    import dataclasses
    import math
    import sys
    from json import dumps

    from creditbench.cli.measuring import names, show
    from creditbench.errors import UsageError, unknown
    from creditbench.leaderboard.text import versus_markdown
    from creditbench.leaderboard.versus import described
    from creditbench.leaderboard.versus import versus as hold
    from creditbench.results.version import load

    formats = ("rich", "markdown", "csv", "json")
    if format_ not in formats:
        raise unknown("format", format_, formats, "creditbench versus --help")
    if json and format_ not in ("rich", "json"):
        raise UsageError(f"--format is {format_} and --json is given: give one of them")
    rules, tasks = (names(option, text) if text else [] for option, text in (("rule", rule), ("task", task)))
    found = hold(load(*(results or [Path("results/local")])), reference, level, margin, rules, tasks)

    def plain(value: object) -> object:
        return None if isinstance(value, float) and not math.isfinite(value) else value

    if json or format_ == "json":
        rows = [{k: plain(v) for k, v in dataclasses.asdict(row).items()} for row in found]
        print(dumps(rows, indent=1))
    elif format_ == "csv":
        import pandas as pd

        print(pd.DataFrame(map(dataclasses.asdict, found)).to_csv(index=False), end="")
    elif format_ == "markdown":
        print(versus_markdown(found))
    else:
        left_out = {
            name
            for name, usual in (("device", "cpu"), ("stale", ""), ("studies", 0), ("scale", "normalised"))
            if {getattr(r, name) for r in found} <= {usual}
        }
        show([{k: v for k, v in dataclasses.asdict(row).items() if k not in left_out} for row in found])
        for note in described(found):
            print(f"note: {note}", file=sys.stderr)
