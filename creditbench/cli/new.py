"""`creditbench new`: a file to start from."""

from __future__ import annotations

import keyword
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from creditbench.errors import UsageError

if TYPE_CHECKING:
    from creditbench.plugins.importing import Kind

app = typer.Typer(
    help="Write a template that passes `creditbench check` at once.\n\n"
    "\b\nExamples:\n  creditbench new learner my_rule\n  creditbench new task my_task\n"
    "  creditbench new cell my_cell",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
def learner(name: Annotated[str, typer.Argument(help="Its id: letters, digits and _.")]) -> None:
    """Write NAME.py, a complete learning rule, into the current folder.

    \b
    Examples:
      creditbench new learner my_rule
    """
    _write("learners", name)


@app.command()
def task(name: Annotated[str, typer.Argument(help="Its id: letters, digits and _.")]) -> None:
    """Write NAME.py, a complete task, into the current folder.

    \b
    Examples:
      creditbench new task my_task
    """
    _write("tasks", name)


@app.command()
def cell(name: Annotated[str, typer.Argument(help="Its id: letters, digits and _.")]) -> None:
    """Write NAME.py, a complete cell, into the current folder.

    \b
    Examples:
      creditbench new cell my_cell
    """
    _write("cells", name)


def _write(kind: Kind, name: str) -> None:
    """Write the template of that kind under that id. Raises `UsageError`; nothing is overwritten."""
    from importlib.resources import files

    from creditbench.plugins import registry
    from creditbench.plugins.importing import KINDS

    what = kind[:-1]
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise UsageError(
            f"{name!r} is no id of a {what}: give lower-case letters, digits and _, as in my_{what}"
        )
    for other in KINDS:
        taken = registry.load(other).get(name)
        if taken is not None:
            raise UsageError(f"the id {name!r} is taken by {taken.path}: give the {what} another")
    text = (files("creditbench") / "plugins" / "templates" / f"{what}.py").read_text(encoding="utf-8")
    old = {"learners": "my_rule", "tasks": "my_task", "cells": "my_cell"}[kind]
    for form in (str, _class_name, _title):
        text = text.replace(form(old), form(name))
    path = Path(f"{name}.py")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{path} is there already: give another name, or move it away") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror}): go to another folder") from None
    option = f"--{what} {path}"
    rest = {
        "learners": "--task mackey_glass",
        "tasks": "--learner bptt",
        "cells": "--learner bptt --task mackey_glass",
    }[kind]
    print(
        f"wrote {path}; next: edit it, then\n  creditbench check {path}\n"
        f"  creditbench run {option} {rest} --preset smoke",
        file=sys.stderr,
    )


def _class_name(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()
