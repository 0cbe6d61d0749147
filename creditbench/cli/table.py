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
    rule: options.ShownRules = "",
    task: options.ShownTasks = "",
    backend: options.ShownBackends = "",
    cell: options.ShownCells = "",
    columns: Annotated[
        str,
        typer.Option(
            help='Columns by their heads, comma-separated, as in "rule,test score,× bptt".  [default: all]',
            show_default=False,
        ),
    ] = "",
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="rich, markdown: a table a task, a row a rule; scores: test scores, a column a task; tasks: "
            "normalised scores, likewise; latex: one table of rules and tasks for print; ranking, "
            "ranking-latex: scores over all tasks; csv, json: a row a trial; environments: each environment "
            "once (JSON).",
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

    A record whose task, learner or cell has changed since is marked as stale, and never averaged with others.
    In LaTeX, the best of each task is in bold, and so are those that the test of creditbench versus does not
    tell from it.

    \b
    Examples:
      creditbench table
      creditbench table --rule bptt,anp --task mackey_glass --columns "rule,test score,× bptt"
      creditbench table --results v0.2 --backend jax --format latex --output table.tex
      creditbench table --results v0.2 --results results/local --compact results/v0.3
      creditbench table --json
    """
    from creditbench.machine import files
    from creditbench.results.selection import select
    from creditbench.results.table import FORMATS, choose, parts, print_rich, refuse_columns, render
    from creditbench.results.version import load

    over_tasks = ("latex", "ranking", "ranking-latex", "tasks")
    form = options.one_format(form, json, (*FORMATS, *over_tasks), "table")
    if compact is not None:
        for option, value in (
            *(("--output", output), ("--format", "" if form == "rich" else form), ("--columns", columns)),
            *(("--rule", rule), ("--task", task), ("--backend", backend), ("--cell", cell)),
        ):
            if value:
                raise UsageError(f"{option} is {value} and --compact is {compact}: give one of them")
        _compact(options.folders(results), compact)
        return
    chosen = options.names("columns", columns) if columns else []
    found = select(
        load(*options.folders(results), curves=False),
        *(options.split(names) for names in (rule, task, backend, cell)),
    )
    if form in over_tasks:
        from creditbench.leaderboard import text as texts
        from creditbench.leaderboard.board import make_board

        board = make_board(found)
        if board.of_cell:
            printing.say(f"note: {board.of_cell}")
        if form.startswith("ranking"):
            write = texts.ranking_latex if form == "ranking-latex" else texts.ranking_markdown
            text = write(board, chosen)
        else:
            refuse_columns(chosen, form)
            text = (texts.scores_latex if form == "latex" else texts.tasks_markdown)(board)
    elif form == "rich" and output is None:
        from creditbench.results.columns import SUMMARY

        print_rich(found.records, printing.console(), choose(chosen, SUMMARY))
        return
    else:
        if output is None and form in ("csv", "json"):
            sys.stdout.writelines(parts(found.records, form, chosen))
            return
        text = render(found.records, form, chosen)
    if output is None:
        sys.stdout.write(text)
        return
    with files.output("output", output):
        files.write(output, files.as_bytes(text))


def _compact(folders: list[Path], target: Path) -> None:
    """Write the tables of a version. It leaves nothing out."""
    from creditbench.leaderboard.board import make_board
    from creditbench.leaderboard.text import readme
    from creditbench.results.version import load, write_tables

    write_tables(load(*folders, whole=True), target, lambda read: readme(make_board(read), target, folders))
    printing.say(f"tables: {target}")
