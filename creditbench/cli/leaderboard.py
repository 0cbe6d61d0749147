"""`creditbench leaderboard`: results as a page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from creditbench.cli import options
from creditbench.cli.printing import say
from creditbench.errors import UsageError


def leaderboard(
    output: Annotated[Path, typer.Option(help="Folder to write index.html and leaderboard.md into.")],
    results: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of records, or of a version's tables, or a name in results/, as v0.2. Repeatable: "
            "for the same trial the later counts. NAME=FOLDER: a release of that name, which the page lets "
            "its reader choose; the first is shown.  [default: the newest folder of runs in results/]",
            show_default=False,
        ),
    ] = None,
    highlight: Annotated[
        list[str] | None,
        typer.Option(
            help="Rule that stands out, as a new one does: in the summary, the chart and the tables. "
            "Repeatable.",
            show_default=False,
        ),
    ] = None,
    cell: Annotated[
        str,
        typer.Option(
            help="Cells, comma-separated: each has a page, and the first is shown.  [default: all, that with "
            "most runs first]",
            show_default=False,
            autocompletion=options.complete_cells,
        ),
    ] = "",
    draws: Annotated[int, typer.Option(help="Draws of each bootstrap interval.")] = 10_000,
) -> None:
    """Write one page that opens from disk with no network, and its twin in Markdown.

    Rows of different cells are never ranked together: each cell has a page of its own, which the reader
    chooses at the top.

    \b
    Examples:
      creditbench leaderboard --results results/v0.2 --output leaderboard
      creditbench leaderboard --results results/v0.2 --results results/local --highlight my_rule --output page
      creditbench leaderboard --results results/local --cell gru,tanh --output leaderboard
      creditbench leaderboard --results v0.2=results/v0.2 --results v0.1=results/v0.1 --output leaderboard
    """
    from creditbench.leaderboard.pages import write_pages
    from creditbench.results.version import load

    write_pages(
        *(_releases(options.folders(results)), lambda folders: load(*folders), output, say),
        highlight=highlight or (),
        cells=options.split(cell),
        draws=draws,
    )


def _releases(folders: Sequence[Path]) -> dict[str, list[Path]]:
    """The folders of each release by its name; one without a name if none is named.

    Raises `UsageError` if some are named and others not, or a name cannot name a folder.
    """
    found: dict[str, list[Path]] = {}
    for folder in folders:
        name, named, place = str(folder).partition("=")
        if folder.exists() or not named:
            name, place = "", str(folder)
        elif not re.fullmatch(r"\w[\w.-]*", name):
            raise UsageError(f"--results names a release {name!r}: take letters, digits, '.', '-' and '_'")
        path = Path(place)
        found.setdefault(name, []).append(options.place(path) or path)
    if "" in found and len(found) > 1:
        raise UsageError(
            f"--results {found[''][0]} has no name, and others have: give NAME=FOLDER for each release"
        )
    return found
