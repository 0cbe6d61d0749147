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
    draws: Annotated[int, typer.Option(help="Draws of each bootstrap interval.")] = 10_000,
) -> None:
    """Write one page that opens from disk with no network, and its twin in Markdown.

    \b
    Examples:
      creditbench leaderboard --results results/v0.2 --output leaderboard
      creditbench leaderboard --results results/v0.2 --results results/local --highlight my_rule --output page
      creditbench leaderboard --results v0.2=results/v0.2 --results v0.1=results/v0.1 --output leaderboard
    """
    from creditbench.leaderboard.board import make_board
    from creditbench.leaderboard.page import page
    from creditbench.leaderboard.text import left_out, markdown
    from creditbench.machine import files
    from creditbench.results.version import load

    options.require_whole("draws", draws, 100)
    releases = _releases(options.folders(results))
    first = next(iter(releases))
    for name, folders in releases.items():
        board = make_board(load(*folders), draws)
        home = output if name == first else output / name
        up = "" if name == first else "../"
        links = {other: f"{up}{'' if other == first else f'{other}/'}index.html" for other in releases}
        rules = {row.rule for row in board.rows}
        # An older release need not have a rule that is new.
        own = [rule for rule in highlight or () if name == first or rule in rules]
        texts = page(board, folders, own, links, name), markdown(board, folders)
        with files.output("output", home, "name another folder"):
            home.mkdir(parents=True, exist_ok=True)
            with files.replacing(home / "index.html", home / "leaderboard.md") as new:
                for path, text in zip(new, texts, strict=True):
                    path.write_bytes(files.as_bytes(text))
        if board.left_out:
            say(f"note: {left_out(board)}")
        say(f"page: {home / 'index.html'}")


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
