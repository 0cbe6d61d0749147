"""`creditbench leaderboard`: results as a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def leaderboard(
    output: Annotated[Path, typer.Option(help="Folder to write index.html and leaderboard.md into.")],
    results: Annotated[
        list[Path] | None, typer.Option(help="Folder of results. Repeatable.  [default: results/local]")
    ] = None,
    draws: Annotated[int, typer.Option(help="Draws of each bootstrap interval.")] = 10_000,
) -> None:
    """Write one page that opens from disk with no network, and its twin in Markdown.

    \b
    Examples:
      creditbench leaderboard --results results/v0.2 --output leaderboard
      creditbench leaderboard --results results/v0.2 --results results/local --output leaderboard
    """
    import sys

    from creditbench.errors import UsageError
    from creditbench.leaderboard.board import make_board
    from creditbench.leaderboard.page import page
    from creditbench.leaderboard.text import left_out, markdown
    from creditbench.machine import files
    from creditbench.results.version import load

    if draws < 100:
        raise UsageError(f"--draws is {draws}: give a whole number from 100")
    folders = results or [Path("results/local")]
    board = make_board(load(*folders), draws)
    texts = page(board, folders), markdown(board, folders)
    with files.output("output", output, "name another folder"):
        output.mkdir(parents=True, exist_ok=True)
        with files.replacing(output / "index.html", output / "leaderboard.md") as new:
            for path, text in zip(new, texts, strict=True):
                path.write_bytes(files.as_bytes(text))
    if board.left_out:
        print(f"note: {left_out(board)}", file=sys.stderr)
    print(f"page: {output / 'index.html'}", file=sys.stderr)
