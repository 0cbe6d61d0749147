"""`creditbench leaderboard`: results as a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from creditbench.cli import options
from creditbench.cli.printing import say


def leaderboard(
    output: Annotated[Path, typer.Option(help="Folder to write index.html and leaderboard.md into.")],
    results: options.Results = None,
    draws: Annotated[int, typer.Option(help="Draws of each bootstrap interval.")] = 10_000,
) -> None:
    """Write one page that opens from disk with no network, and its twin in Markdown.

    \b
    Examples:
      creditbench leaderboard --results results/v0.2 --output leaderboard
      creditbench leaderboard --results results/v0.2 --results results/local --output leaderboard
    """
    from creditbench.leaderboard.board import make_board
    from creditbench.leaderboard.page import page
    from creditbench.leaderboard.text import left_out, markdown
    from creditbench.machine import files
    from creditbench.results.version import load

    options.require_whole("draws", draws, 100)
    folders = options.folders(results)
    board = make_board(load(*folders), draws)
    texts = page(board, folders), markdown(board, folders)
    with files.output("output", output, "name another folder"):
        output.mkdir(parents=True, exist_ok=True)
        with files.replacing(output / "index.html", output / "leaderboard.md") as new:
            for path, text in zip(new, texts, strict=True):
                path.write_bytes(files.as_bytes(text))
    if board.left_out:
        say(f"note: {left_out(board)}")
    say(f"page: {output / 'index.html'}")
