"""`creditbench table`: records as a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def table(
    results: Annotated[Path, typer.Option(help="Folder of the records.")] = Path("results/local"),
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="rich, markdown, latex: a row a rule; scores: a column a task; csv, json: a row a trial; "
            "environments: what they were made on (JSON), each once.",
        ),
    ] = "rich",
    output: Annotated[Path | None, typer.Option(help="File to write, in place of standard output.")] = None,
    json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Make a table of the records of runs.

    A record whose task or learner has changed since is marked as stale, and never averaged with others.

    \b
    Examples:
      creditbench table
      creditbench table --results results/local --format latex --output table.tex
      creditbench table --json
    """
    import sys

    from creditbench.errors import UsageError, unknown
    from creditbench.store import Store
    from creditbench.table import FORMATS, print_rich, render

    form = "json" if json else form
    if form not in FORMATS:
        raise unknown("format", form, FORMATS, "creditbench table --help")
    records = Store(results).all()
    if not records:
        raise UsageError(
            f"no records in '{results}': make some with creditbench run, or name another folder with --results"
        )
    if form == "rich" and output is None:
        from rich.console import Console

        print_rich(records, Console(width=None if sys.stdout.isatty() else 160))
        return
    text = render(records, form)
    if output is None:
        sys.stdout.write(text)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"output '{output}' cannot be written ({error.strerror}): name another file"
        ) from None
