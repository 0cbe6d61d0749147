"""`creditbench check`: is a learner, a task or a cell fit for submission?"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from creditbench.cli import options, printing
from creditbench.cli.printing import console


def check(
    path: Annotated[
        list[str] | None,
        typer.Argument(
            help="Python files that hold a learner, a task or a cell, or known ids, or folders of learners.  "
            "[default: the entry points in pyproject.toml here]"
        ),
    ] = None,
    cell: Annotated[
        str,
        typer.Option(
            help="Cells with which a learner is checked: ids or paths, comma-separated.",
            autocompletion=options.complete_cells,
        ),
    ] = "tanh",
    backend: options.InstalledBackends = "",
    only: Annotated[
        str, typer.Option(help="Names of the checks to run, comma-separated.  [default: all that apply]")
    ] = "",
    set_: options.Settings = None,
    timeout: Annotated[float, typer.Option(help="Seconds that a backend's process may take.")] = 300.0,
    executor: options.Executor = "local",
    scheduler: options.Scheduler = None,
    jobs: options.Jobs = None,
    results: Annotated[
        Path | None,
        typer.Option(
            callback=options.place,
            help="Folder of results for a leaderboard: the outcomes are written there too.",
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Hold a learner to its contract, its claims and both backends, or a task or a cell to its contract.

    The code runs in a confined process, one for each backend. If a check fails, the table says why, a line
    below it says what to do, and the exit status is 1.

    \b
    Examples:
      creditbench check my_rule.py
      creditbench check anp bptt --jobs 2 --json
      creditbench check my_rule.py --only unbiased,online --backend torch
      creditbench check my_rule.py --cell gru,lif --set lif.decay=0.9
      creditbench check my_cell.py
      creditbench check rules/
      creditbench check my_rule.py --results results/local
    """
    from creditbench.executors.spread import Spread
    from creditbench.library.checking import advice_of, check_reports
    from creditbench.plugins import project

    items = [one for item in path for one in _files(item)] if path else project.ids(project.nearest(Path()))
    reports = check_reports(
        items,
        options.names("cell", cell),
        options.settings(set_),
        backends=options.backends(backend, "check"),
        only=options.names("only", only) if only else None,
        seconds=timeout,
        where=Spread(executor, jobs, scheduler),
        results=results,
        bars=printing.bars,
    )
    several = len(reports) > 1
    if json:
        rows = [
            ({"subject": report.subject} if several else {}) | asdict(result)
            for report in reports
            for result in report.results
        ]
        printing.as_json(rows)
    else:
        for report in reports:
            _show(report, several)
    failed = [(report, result) for report in reports for result in report.failures]
    for report, result in failed:
        said = f"{report.subject}: " if several else ""
        print(
            f"{said}{result.name}: {result.detail}\n  what to do: {advice_of(report, result.name)}",
            file=sys.stderr,
        )
    if failed:
        raise typer.Exit(1)


def _files(item: str) -> list[str]:
    """The word itself, or the files of the folder that it names."""
    from creditbench.plugins import project

    if "/" not in item or not Path(item).is_dir():
        return [item]
    return [str(file) for file in project.expand([Path(item)])]


def _show(report: object, titled: bool) -> None:
    """A table on standard output."""
    from rich.table import Table
    from rich.text import Text

    from creditbench.check.runner import CheckReport

    assert isinstance(report, CheckReport)
    table = Table(title=Text(report.subject) if titled else None, title_justify="left")
    table.add_column("check", no_wrap=True)
    table.add_column("held", no_wrap=True)
    table.add_column("what was found", overflow="fold")
    for result in report.results:
        sign = {True: "yes", False: "NO", None: "–"}[result.held]
        table.add_row(
            Text(result.name),
            Text(sign, style="bold red" if result.held is False else ""),
            Text(result.detail),
        )
    console().print(table)
