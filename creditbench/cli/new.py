"""`creditbench new`: a file to start from, or a repository."""

from __future__ import annotations

import importlib.util
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
    "  creditbench new cell my_cell\n  creditbench new project my_rule",
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


@app.command()
def project(
    name: Annotated[str, typer.Argument(help="Of its folder, package and rule: letters, digits and _.")],
) -> None:
    """Write NAME/, a package with one learning rule, its tests, an asv suite and a workflow.

    \b
    Examples:
      creditbench new project my_rule
    """
    from creditbench import __version__
    from creditbench.machine.folders import project_template

    _require_free("project", name)
    spec = importlib.util.find_spec(name)
    if spec is not None and spec.origin is not None:  # a folder without modules has none
        raise UsageError(f"a package {name!r} is installed already: give the project another name")
    folder = Path(name)
    try:
        if folder.is_dir() and any(folder.iterdir()):
            raise UsageError(
                f"{folder} is there already, and is not empty: give another name, or move it away"
            )
        for place, file in project_template().items():
            path = folder / str(place).replace("my_rule", name)
            path.parent.mkdir(parents=True, exist_ok=True)
            text = _named(file.read_text(encoding="utf-8"), "my_rule", name)
            path.write_text(
                text.replace("creditbench[jax,torch]", f"creditbench[jax,torch]>={__version__}"),
                encoding="utf-8",
            )
    except OSError as error:
        raise UsageError(f"{folder} cannot be written ({error.strerror}): go to another folder") from None
    print(
        f"wrote {folder}; next: edit {folder}/src/{name}/rule.py, then\n  cd {folder}\n"
        "  git init --initial-branch=main && git add . && git commit -m 'A rule'\n"
        "  pip install -e '.[dev]' && pytest",
        file=sys.stderr,
    )


def _require_free(what: str, name: str) -> None:
    """Raise `UsageError` for a name that is no id, or taken; `what` is to have it."""
    from creditbench.plugins import registry
    from creditbench.plugins.importing import KINDS

    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise UsageError(
            f"{name!r} is no id of a {what}: give lower-case letters, digits and _, as in my_{what}"
        )
    for other in KINDS:
        taken = registry.load(other).get(name)
        if taken is not None:
            raise UsageError(f"the id {name!r} is taken by {taken.path}: give the {what} another")


def _named(text: str, old: str, name: str) -> str:
    """A template with another name, in all of its forms."""
    for form in (str, _class_name, _title):
        text = text.replace(form(old), form(name))
    return text


def _write(kind: Kind, name: str) -> None:
    """Write the template of that kind under that id. Raises `UsageError`; nothing is overwritten."""
    from importlib.resources import files

    what = kind[:-1]
    _require_free(what, name)
    text = (files("creditbench") / "plugins" / "templates" / f"{what}.py").read_text(encoding="utf-8")
    old = {"learners": "my_rule", "tasks": "my_task", "cells": "my_cell"}[kind]
    text = _named(text, old, name)
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
