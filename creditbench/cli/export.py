"""`creditbench export`: tables in other formats."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    hub_format: Annotated[
        Path, typer.Option("--hub-format", help="Folder to write, as a Hugging Face data set with its card.")
    ],
    results: Annotated[
        list[Path] | None, typer.Option(help="Folder of results. Repeatable.  [default: results/local]")
    ] = None,
) -> None:
    """Write results as a data set that `datasets.load_dataset(FOLDER, "trials")` reads.

    \b
    Examples:
      creditbench export --results results/v0.2 --hub-format hub
    """
    import sys

    from creditbench.leaderboard.export import write_hub
    from creditbench.results.version import load

    folders = results or [Path("results/local")]
    write_hub(load(*folders), hub_format, folders)
    print(f"data set: {hub_format}", file=sys.stderr)
