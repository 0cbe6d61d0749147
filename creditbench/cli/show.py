"""`creditbench show`: an example of a task."""

from __future__ import annotations

import shutil
import typing
from pathlib import Path
from typing import Annotated

import typer

from creditbench.cli import options
from creditbench.errors import UsageError, unknown

app = typer.Typer(
    help="Draw an example of a task.\n\n"
    "\b\nExamples:\n  creditbench show task adding\n  creditbench show task lorenz --output lorenz.png",
    no_args_is_help=True,
    rich_markup_mode=None,
)

STREAM_STEPS = 120  # drawn of a stream where --steps does not say how many


@app.command()
def task(
    name: Annotated[str, typer.Argument(help="Id of a task, or path of a Python file.")],
    split: Annotated[str, typer.Option(help="train, validation, test.")] = "train",
    seed: Annotated[int, typer.Option(help="Seed of the data.")] = 0,
    row: Annotated[int, typer.Option(help="Sequence to draw.")] = 0,
    first: Annotated[int, typer.Option(help="First time step drawn.")] = 0,
    steps: Annotated[
        int | None, typer.Option(help="Time steps drawn.  [default: an episode, or 120 steps of a stream]")
    ] = None,
    set_: options.Settings = None,
    data: options.Data = None,
    output: Annotated[Path | None, typer.Option(help=options.PICTURE)] = None,
) -> None:
    """Draw one sequence of a task: its inputs, its targets and which steps are scored.

    \b
    Examples:
      creditbench show task adding
      creditbench show task copy_memory --set copy_memory.length=10 --row 3
      creditbench show task weather --data weather=WTH.csv --split test
      creditbench show task lorenz --steps 400 --output lorenz.png
    """
    from creditbench.cli import drawing as example
    from creditbench.machine import files
    from creditbench.task import Split
    from creditbench.trials.grid import SEEDS, make_task

    splits = typing.get_args(Split)
    if split not in splits:
        raise unknown("split", split, splits, "creditbench show task --help")
    if output is not None:
        options.require_picture(output)
    if not 0 <= seed < SEEDS:
        raise UsageError(f"seed is {seed}: give a whole number from 0 to {SEEDS - 1}")
    shown = make_task(name, options.settings(set_, "adding.length=30"), options.data(data))
    sequences = shown.generate(typing.cast(Split, split), seed, shown.batch)
    length, rows = sequences.weights.shape
    if not 0 <= row < rows:
        raise UsageError(f"row is {row}: {split} of {shown.id} has {rows}; give 0 to {rows - 1}")
    if not 0 <= first < length:
        raise UsageError(f"first is {first}: a row of {shown.id} has {length} steps; give 0 to {length - 1}")
    if steps is None:
        steps = length if shown.protocol == "episodes" else STREAM_STEPS
    if steps < 1:
        raise UsageError(f"steps is {steps}: give a whole number from 1")
    one = example.crop(sequences, row, first, steps)
    last = first + len(one.weights) - 1
    title = (
        f"{shown.id}: {split}, seed {seed}, row {row} of {rows}, steps {first} to {last} of {length}, "
        f"{int((sequences.weights[:, row] > 0).sum())} of them scored"
    )
    if output is None:
        print(
            title, example.text(one, first, shutil.get_terminal_size((100, 24)).columns), sep="\n\n", end=""
        )
        return
    with files.output("output", output), files.replacing(output) as (new,):
        example.figure(one, title, new, first)
