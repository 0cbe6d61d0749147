"""The leaderboard in a folder: a page a release and cell, which link to each other."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from creditbench.errors import UsageError, unknown
from creditbench.leaderboard.board import make_board
from creditbench.leaderboard.page import page
from creditbench.leaderboard.text import left_out, markdown
from creditbench.machine import files
from creditbench.results.selection import cells_of
from creditbench.results.version import Results
from creditbench.trials.trial import CELL

#: The fewest draws of a bootstrap.
LEAST_DRAWS = 100


def write_pages(
    releases: Mapping[str, Sequence[Path]],
    read: Callable[[Sequence[Path]], Results],
    output: Path,
    say: Callable[[str], None],
    *,
    highlight: Collection[str] = (),
    cells: Sequence[str] = (),
    draws: int = 10_000,
) -> Path:
    """Write index.html and leaderboard.md for each release and cell; returns the first page.

    Args:
        releases: name -> its folders, which the page names; the first is shown.
        read: the results in folders.
        highlight: rules that stand out.
        cells: those that have a page, the first of which is shown; none: all, that with most runs first.
        draws: of each bootstrap interval.

    Raises `UsageError`.
    """
    if draws < LEAST_DRAWS:
        raise UsageError(f"--draws is {draws}: give a whole number from {LEAST_DRAWS}")
    first = next(iter(releases))
    for name, folders in releases.items():
        results = read(folders)
        there = cells_of(results)
        for one in cells if name == first else ():
            if one not in there:
                raise unknown("cell in these results", one, sorted(there), "creditbench table")
        # An older release need not have a cell that is new.
        own_cells = [one for one in cells if one in there] or there or [CELL]
        for network in own_cells:
            board = make_board(results, draws, network)
            release = output if name == first else output / name
            home = release if network == own_cells[0] else release / "cells" / network
            links = {other: _link(home, output / ("" if other == first else other)) for other in releases}
            networks = {
                other: _link(home, release / ("" if other == own_cells[0] else f"cells/{other}"))
                for other in own_cells
            }
            rules = {row.rule for row in board.rows}
            # Nor a rule that is new; and not every rule was run with every cell.
            usual = name == first and network == own_cells[0]
            shown = [rule for rule in highlight if usual or rule in rules]
            texts = page(board, folders, shown, links, name, networks), markdown(board, folders)
            with files.output("output", home, "name another folder"):
                home.mkdir(parents=True, exist_ok=True)
                with files.replacing(home / "index.html", home / "leaderboard.md") as new:
                    for path, text in zip(new, texts, strict=True):
                        path.write_bytes(files.as_bytes(text))
            if board.left_out:
                say(f"note: {left_out(board)}")
            say(f"page: {home / 'index.html'}")
    return output / "index.html"


def _link(home: Path, other: Path) -> str:
    """The address of the page in a folder, as a page in `home` names it."""
    return Path(os.path.relpath(other, home), "index.html").as_posix()
