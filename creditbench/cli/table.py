"""`creditbench table`: records as a table, and as the tables of a version."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from creditbench.cli import options, printing
from creditbench.errors import UsageError


def table(
    results: options.Results = None,
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="rich, markdown, latex: a row a rule; scores: a column a task; ranking, ranking-latex: "
            "scores over all tasks; tasks: normalised scores; csv, json: a row a trial; environments: each "
            "environment once (JSON).",
        ),
    ] = "rich",
    output: Annotated[Path | None, typer.Option(help="File to write, in place of standard output.")] = None,
    compact: Annotated[
        Path | None,
        typer.Option(
            help="Folder to write as a version: trials.csv, curves.parquet, scaling.csv, gradients.csv, "
            "README.md."
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Make a table of the records of runs.

    A record whose task or learner has changed since is marked as stale, and never averaged with others.

    \b
    Examples:
      creditbench table
      creditbench table --results results/local --format latex --output table.tex
      creditbench table --results results/v0.2 --results results/local --compact results/v0.3
      creditbench table --json
    """
    from creditbench.machine import files
    from creditbench.results.table import FORMATS, print_rich, render
    from creditbench.results.version import load, write_tables

    over_tasks = ("ranking", "ranking-latex", "tasks")
    form = options.one_format(form, json, (*FORMATS, *over_tasks), "table")
    folders = options.folders(results)
    if compact is not None:
        from creditbench.leaderboard.board import make_board
        from creditbench.leaderboard.text import readme

        for option, value in (("--output", output), ("--format", None if form == "rich" else form)):
            if value is not None:
                raise UsageError(f"{option} is {value} and --compact is {compact}: give one of them")
        # A published version leaves nothing out.
        found = load(*folders, whole=True)
        write_tables(found, compact, lambda read: readme(make_board(read), compact, folders))
        printing.say(f"tables: {compact}")
        return
    found = load(*folders, curves=False)
    if form in over_tasks:
        from creditbench.leaderboard import text as texts
        from creditbench.leaderboard.board import make_board

        write = {
            "ranking": texts.ranking_markdown,
            "ranking-latex": texts.ranking_latex,
            "tasks": texts.tasks_markdown,
        }
        text = write[form](make_board(found))
    elif form == "rich" and output is None:
        print_rich(found.records, printing.console())
        return
    else:
        text = render(found.records, form)
    if output is None:
        sys.stdout.write(text)
        return
    with files.output("output", output):
        files.write(output, files.as_bytes(text))
