"""`creditbench export`: tables in other formats."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from creditbench.cli import options
from creditbench.cli.printing import say


def export(
    hub_format: Annotated[
        Path, typer.Option("--hub-format", help="Folder to write, as a Hugging Face data set with its card.")
    ],
    results: options.Results = None,
) -> None:
    """Write results as a data set that `datasets.load_dataset(FOLDER, "trials")` reads.

    \b
    Examples:
      creditbench export --results results/v0.2 --hub-format hub
    """
    from creditbench.leaderboard.export import write_hub
    from creditbench.results.version import load

    folders = options.folders(results)
    write_hub(load(*folders), hub_format, folders)
    say(f"data set: {hub_format}")
