"""`creditbench figure`: records as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def figure(
    name: Annotated[str, typer.Argument(help="curves: validation metric against training steps.")],
    output: Annotated[Path, typer.Option(help="File to write; its suffix (png, pdf, svg) is the format.")],
    results: Annotated[Path, typer.Option(help="Folder of the records.")] = Path("results/local"),
) -> None:
    """Draw a figure from the records of runs.

    \b
    Examples:
      creditbench figure curves --results results/local --output curves.pdf
    """
    from creditbench.errors import UsageError, unknown
    from creditbench.figures import FIGURES
    from creditbench.store import Store

    if name not in FIGURES:
        raise unknown("figure", name, FIGURES, "creditbench figure --help")
    if output.suffix not in (".png", ".pdf", ".svg"):
        raise UsageError(f"output '{output}' has no known suffix: end it in .png, .pdf or .svg")
    records = Store(results).all()
    if not records:
        raise UsageError(
            f"no records in '{results}': make some with creditbench run, or name another folder with --results"
        )
    try:
        FIGURES[name](records, output)
    except OSError as error:
        raise UsageError(
            f"output '{output}' cannot be written ({error.strerror}): name another file"
        ) from None
