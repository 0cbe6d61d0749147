"""`creditbench table`: records as a table, and as the tables of a version."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def table(
    results: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of records, or of a version's tables. Repeatable: of the same trial, the later counts.  "
            "[default: results/local]"
        ),
    ] = None,
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="rich, markdown, latex: a row a rule; scores: a column a task; ranking, ranking-latex: scores over "
            "all tasks; tasks: normalised scores; csv, json: a row a trial; environments: what they were made "
            "on (JSON), each once.",
        ),
    ] = "rich",
    output: Annotated[Path | None, typer.Option(help="File to write, in place of standard output.")] = None,
    compact: Annotated[
        Path | None,
        typer.Option(
            help="Folder to write as a version: trials.csv, curves.parquet, scaling.csv, gradients.csv, README.md."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
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
    import sys

    from creditbench.errors import UsageError, unknown
    from creditbench.machine import files
    from creditbench.results.table import FORMATS, print_rich, render
    from creditbench.results.version import load, write_tables

    if json and form not in ("rich", "json"):
        raise UsageError(f"--format is {form} and --json is given: give one of them")
    form = "json" if json else form
    over_tasks = ("ranking", "ranking-latex", "tasks")
    if form not in (*FORMATS, *over_tasks):
        raise unknown("format", form, (*FORMATS, *over_tasks), "creditbench table --help")
    folders = results or [Path("results/local")]
    if compact is not None:
        from creditbench.leaderboard.board import make_board
        from creditbench.leaderboard.text import readme

        for option, value in (("--output", output), ("--format", None if form == "rich" else form)):
            if value is not None:
                raise UsageError(f"{option} is {value} and --compact is {compact}: give one of them")
        # What is published leaves nothing out.
        found = load(*folders, whole=True)
        write_tables(found, compact, lambda read: readme(make_board(read), compact, folders))
        print(f"tables: {compact}", file=sys.stderr)
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
        from rich.console import Console

        print_rich(found.records, Console(width=None if sys.stdout.isatty() else 160))
        return
    else:
        text = render(found.records, form)
    if output is None:
        sys.stdout.write(text)
        return
    with files.output("output", output):
        files.write(output, files.as_bytes(text))
