"""`creditbench show`: an example of a task, or what a learner or a cell is."""

from __future__ import annotations

import ast
import dataclasses
import shutil
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from creditbench.cli import options
from creditbench.errors import UsageError, unknown

if TYPE_CHECKING:
    from creditbench.plugins.importing import Plugin


class _ByName(typer.core.TyperGroup):
    """The verbs `task`, `learner` and `cell`, each of which may be left out before a known name."""

    def resolve_command(self, context: Any, words: list[str]) -> Any:
        """The verb of these words, its name, and the words that it gets. Raises `UsageError`."""
        if words and words[0] not in self.commands:
            words = [_kind(words[0]), *words]
        return super().resolve_command(context, words)


def _kind(name: str) -> str:
    """The verb for an id or a path. Raises `UsageError` for what is no task, learner or cell."""
    from creditbench.plugins import registry
    from creditbench.plugins.importing import KINDS, kind_of
    from creditbench.trials.grid import is_path

    if is_path(name):
        return kind_of(Path(name).expanduser())[:-1]
    known = {kind: registry.load(kind) for kind in KINDS}
    for kind, plugins in known.items():
        if name in plugins:
            return kind[:-1]
    everything = [name for plugins in known.values() for name in plugins]
    raise unknown("task, learner or cell", name, everything, "creditbench list --help")


app = typer.Typer(
    cls=_ByName,
    help="Draw an example of a task, or say what a learner or a cell is.\n\n"
    "\b\nExamples:\n"
    "  creditbench show adding\n"
    "  creditbench show anp\n"
    "  creditbench show gru\n"
    "  creditbench show task lorenz --output lorenz.png",
    no_args_is_help=True,
    rich_markup_mode=None,
)

STREAM_STEPS = 120  # drawn of a stream where --steps does not say how many


@app.command()
def learner(
    name: Annotated[
        str,
        typer.Argument(
            help="Id of a learner, or path of a Python file.", autocompletion=options.complete_learners
        ),
    ],
) -> None:
    """Print what a learner is: its equations and source, its claims, and its hyper-parameters.

    \b
    Examples:
      creditbench show learner anp
      creditbench show learner ./my_rule.py
    """
    from creditbench.trials.grid import resolve

    found = resolve("learners", name)
    cls = found.cls
    claims = dataclasses.asdict(cls.claims)
    special = _said(claims.pop("without_recurrence"))
    about = {
        "family": cls.family,
        "paper": cls.paper,
        "claims": _said(claims) + (f"; without recurrent weights {special}" if special else ""),
        "backends": ", ".join(sorted(cls.backends)),
        "optimizer": f"{cls.optimizer}, lr {cls.lr:g}",
        "fields": ", ".join(f"{field.name} {field.default}" for field in dataclasses.fields(cls)) or "none",
        "file": found.path,
    }
    _print_about(found, about)


@app.command()
def cell(
    name: Annotated[
        str,
        typer.Argument(help="Id of a cell, or path of a Python file.", autocompletion=options.complete_cells),
    ],
) -> None:
    """Print what a cell is: its equations and source, its state and gates, and its constants.

    \b
    Examples:
      creditbench show cell gru
      creditbench show cell ./my_cell.py
    """
    from creditbench.trials.grid import resolve
    from creditbench.trials.network import own_fields

    found = resolve("cells", name)
    cls = found.cls
    traits = {"has a leak": cls.leaky, "readout sees the input": cls.skips, "spikes": cls.spikes}
    about = {
        "paper": cls.paper,
        "state": f"{cls.S} of a unit, {cls.Q} of them seen",
        "gates": f"{cls.G}; see the input: {_gates(cls.sees_input)}; ĥ: {_gates(cls.sees_recurrence)}",
        "phi": ", ".join(cls.phi) or "none",
        "traits": ", ".join(name for name, holds in traits.items() if holds) or "none",
        "fields": ", ".join(f"{field.name} {field.default}" for field in own_fields(cls)) or "none",
        "file": found.path,
    }
    _print_about(found, about)


def _gates(span: tuple[int, int]) -> str:
    """The gates from, to, as a cell's `f` has them."""
    return ", ".join(f"a[{gate}]" for gate in range(*span)) or "none"


def _said(claims: Mapping[str, object]) -> str:
    """Claims in a line: those that are made, with what is claimed."""
    made = {name: value for name, value in claims.items() if value is not False}
    return ", ".join(name if value is True else f"{name} {value}" for name, value in made.items())


def _print_about(found: Plugin, about: Mapping[str, object]) -> None:
    """Print a plug-in's name, the equations in its file, and what is known of it."""
    equations = ast.get_docstring(ast.parse(found.path.read_bytes())) or ""
    lines = [f"{label:10} {value}" for label, value in about.items()]
    print("\n".join([f"{found.id}: {found.cls.name}", "", *filter(None, [equations]), "", *lines]))


@app.command()
def task(
    name: Annotated[
        str,
        typer.Argument(help="Id of a task, or path of a Python file.", autocompletion=options.complete_tasks),
    ],
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
      creditbench show adding
      creditbench show task copy_memory --set copy_memory.length=10 --row 3
      creditbench show task weather --data weather=WTH.csv --split test
      creditbench show task lorenz --steps 400 --output lorenz.png
    """
    from creditbench.cli import drawing as example
    from creditbench.machine import files
    from creditbench.machine.files import require_picture
    from creditbench.task import Split
    from creditbench.trials.grid import SEEDS, make_task

    splits = typing.get_args(Split)
    if split not in splits:
        raise unknown("split", split, splits, "creditbench show task --help")
    if output is not None:
        require_picture(output)
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
