"""`creditbench leaderboard`: results as a page."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from creditbench.cli import options
from creditbench.cli.printing import say
from creditbench.errors import UsageError, unknown


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
    from creditbench.leaderboard.board import make_board
    from creditbench.leaderboard.page import page
    from creditbench.leaderboard.text import left_out, markdown
    from creditbench.machine import files
    from creditbench.results.selection import cells_of
    from creditbench.results.version import load
    from creditbench.trials.trial import CELL

    options.require_whole("draws", draws, 100)
    releases = _releases(options.folders(results))
    first = next(iter(releases))
    wanted = options.split(cell)
    for name, folders in releases.items():
        read = load(*folders)
        there = cells_of(read)
        for one in wanted if name == first else ():
            if one not in there:
                raise unknown("cell in these results", one, sorted(there), "creditbench table")
        # An older release need not have a cell that is new.
        cells = [one for one in wanted if one in there] or there or [CELL]
        for network in cells:
            board = make_board(read, draws, network)
            release = output if name == first else output / name
            home = release if network == cells[0] else release / "cells" / network
            links = {other: _link(home, output / ("" if other == first else other)) for other in releases}
            own_cells = {
                other: _link(home, release / ("" if other == cells[0] else f"cells/{other}"))
                for other in cells
            }
            rules = {row.rule for row in board.rows}
            # Nor a rule that is new; and not every rule was run with every cell.
            usual = name == first and network == cells[0]
            own = [rule for rule in highlight or () if usual or rule in rules]
            texts = page(board, folders, own, links, name, own_cells), markdown(board, folders)
            with files.output("output", home, "name another folder"):
                home.mkdir(parents=True, exist_ok=True)
                with files.replacing(home / "index.html", home / "leaderboard.md") as new:
                    for path, text in zip(new, texts, strict=True):
                        path.write_bytes(files.as_bytes(text))
            if board.left_out:
                say(f"note: {left_out(board)}")
            say(f"page: {home / 'index.html'}")


def _link(home: Path, other: Path) -> str:
    """The address of the page in a folder, as a page in `home` names it."""
    return Path(os.path.relpath(other, home), "index.html").as_posix()


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
