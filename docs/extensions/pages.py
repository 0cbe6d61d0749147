"""Parts of pages that are made from the package, and links of files that pages include.

It needs no Sphinx: `tests/test_docs.py` reads the pages as a build does.

    ```{generated} verbs            the text that the function `verbs` returns
    ```{generated} docstring creditbench.measure.memory
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib
import inspect
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[1]
ROOT = DOCS.parent

#: A fence that is replaced: its function, and that function's arguments.
_GENERATED = re.compile(r"^```\{generated\} (\w+) ?(.*)\n```$", re.MULTILINE)
#: An include, and whether it has options, so that a part alone is included.
_INCLUDE = re.compile(r"^```\{include\} (\S+)\n(:?)", re.MULTILINE)
#: The target of a link or picture, without its title: `](target)`.
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s]+)\)")


def expanded(text: str) -> str:
    """A page with the parts that are generated."""
    return _GENERATED.sub(lambda found: PARTS[found[1]](*found[2].split()), text)


# -- links -----------------------------------------------------------------------------------------------


@functools.cache
def homes() -> dict[Path, Path]:
    """File of the repository -> the page that includes it, whole if there is one."""
    whole: dict[Path, Path] = {}
    parts: dict[Path, Path] = {}
    for page in sorted(DOCS.rglob("*.md")):
        for name, option in _INCLUDE.findall(page.read_text(encoding="utf-8")):
            (parts if option else whole).setdefault((page.parent / name).resolve(), page)
    return parts | whole


def relinked(text: str, source: Path, page: Path) -> str:
    """The text of `source` with links that hold on `page`, in its place or where it is included.

    A file that a page includes is linked by that page. Other files outside docs/ are linked in the repository
    where GitHub builds the site, else as downloads; a folder is then a name without a link.
    """

    def replaced(found: re.Match[str]) -> str:
        picture, words, target = found.groups()
        name, mark, anchor = target.partition("#")
        path = (source.parent / name).resolve()
        if re.match(r"[a-z]+:", target) or not name or not path.exists():
            return found[0]
        home = _index(path) if path.is_relative_to(DOCS) else homes().get(_readme(path))
        if picture or home is not None:
            return f"{picture}[{words}]({os.path.relpath(home or path, page.parent)}{mark}{anchor})"
        if repository := os.environ.get("GITHUB_REPOSITORY"):
            place = path.relative_to(ROOT).as_posix()
            return f"[{words}](https://github.com/{repository}/tree/{os.environ['GITHUB_SHA']}/{place})"
        return words if path.is_dir() else f"[{words}](path:{os.path.relpath(path, page.parent)})"

    return LINK.sub(replaced, text)


def _index(path: Path) -> Path:
    return path / "index.md" if path.is_dir() else path


def _readme(path: Path) -> Path:
    return path / "README.md" if (path / "README.md").is_file() else path


# -- Markdown of docstrings ------------------------------------------------------------------------------

_SECTION = re.compile(r"(Args|Returns|Raises):$")


def markdown(docstring: str) -> str:
    """A docstring as Markdown: indented formulas stay as they are, sections become lists."""
    lines: list[str] = []
    within = example = False
    for line in docstring.expandtabs().splitlines():
        if example != (starts := line.startswith((">>> ", "... ")) or (example and bool(line.strip()))):
            lines += ["", "```python"] if starts else ["```", ""]
            example = starts
        if example:
            lines.append(line)
        elif section := _SECTION.match(line):
            lines += ["", f"**{section[1]}**", ""]
            within = True
        elif within and re.match(r"    \S", line):
            lines.append(re.sub(r"^    (\w+):", r"- `\1`:", line) if section_item(line) else line[4:])
        elif within and line.startswith("        "):
            lines.append("  " + line.strip())
        else:
            within = within and not line.strip()
            lines.append(line)
    return "\n".join([*lines, *(["```"] if example else [])])


def section_item(line: str) -> bool:
    """Whether a line of a section begins with the name of an argument."""
    return re.match(r"    \w+:", line) is not None


def docstring(module: str, skip: str = "") -> str:
    """The text of a module. `skip`: the number of its first paragraphs that are left out."""
    text = ast.get_docstring(ast.parse(_file(module).read_bytes())) or ""
    return markdown("\n\n".join(text.split("\n\n")[int(skip or 0) :]))


def described(thing: Any) -> str:
    """What a class or function says of itself; of a cell or a rule, what its file says."""
    own = inspect.getdoc(thing) or ""
    # A dataclass or tuple without one is given its signature.
    if not own.startswith(f"{thing.__name__}("):
        return own
    plugin = {"id", "name", "paper"} <= set(dir(thing))
    return inspect.getdoc(inspect.getmodule(thing)) or "" if plugin else ""


def _file(module: str) -> Path:
    found = importlib.util.find_spec(module)
    assert found is not None and found.origin is not None, module
    return Path(found.origin)


def escaped(text: str) -> str:
    """Text whose signs are none of Markdown's, outside of `code`."""
    parts = text.split("`")
    return "`".join(
        re.sub(r"([*<\[\]|])", r"\\\1", part) if i % 2 == 0 else part for i, part in enumerate(parts)
    )


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table of Markdown, each cell one line."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


# -- verbs -----------------------------------------------------------------------------------------------


def verbs() -> str:
    """Every verb of the command line: usage, arguments, options, examples."""
    # The command line of this package.
    import typer

    from creditbench.cli import app

    root: Any = typer.main.get_command(app)
    context = root.make_context("creditbench", [], resilient_parsing=True)
    parts = []
    for name, command in root.commands.items():
        own = command.context_class(command, info_name=name, parent=context)
        parts.append(_verb(command, own, "##"))
        for sub, subcommand in getattr(command, "commands", {}).items():
            parts.append(
                _verb(subcommand, subcommand.context_class(subcommand, info_name=sub, parent=own), "###")
            )
    return "\n\n".join(parts)


def _verb(command: Any, context: Any, level: str) -> str:
    about, _, examples = (command.help or "").partition("\b\nExamples:\n")
    usage = command.get_usage(context).removeprefix("Usage: ")
    shown = "\n".join(line.strip() for line in examples.splitlines())
    records = [record for p in command.get_params(context) if (record := p.get_help_record(context))]
    return "\n\n".join(
        [
            f"{level} {context.command_path}",
            escaped(about.strip()),
            f"```text\n{usage}\n```",
            f"```sh\n{shown}\n```",
            *(f"`{name}`\n: {escaped(' '.join(help.split())) or '–'}" for name, help in records),
        ]
    )


# -- columns ---------------------------------------------------------------------------------------------

_BETTER = {"min": "lower", "max": "higher", None: ""}


def columns() -> str:
    """The columns of each table that is shown, by their heads."""
    from creditbench.results import columns as all_columns

    views = {
        "A task's table": ("SUMMARY", "`creditbench table`: a row a rule."),
        "A rule's table": ("BY_TASK", "On the page: a row a task."),
        "Ranking": (
            "RANKING",
            "`creditbench table --format ranking`, and the page: a row a rule, backend and device.",
        ),
        "Beside a reference": ("VERSUS", "`creditbench versus`: a row a task, backend and rule."),
        "Sweeps": ("EXPONENTS", "`creditbench scale`: a row a rule, backend, size and cost."),
        "Gradients": ("QUALITY", "`creditbench gradients`: a row a rule, backend, task and point."),
    }
    parts = []
    for title, (name, said) in views.items():
        rows = [
            (f"`{c.label}`", escaped(c.help or c.axis), _BETTER[c.better], c.unit, f"`{c.field}`")
            for c in getattr(all_columns, name)
        ]
        parts.append(
            f"### {title}\n\n{said}\n\n{table(('head', 'what it is', 'better', 'unit', 'field'), rows)}"
        )
    return "\n\n".join(parts)


def frames() -> str:
    """The columns of each data frame and file, by their names."""
    from creditbench.library.meanings import meanings

    parts = []
    for name, known in meanings().items():
        rows = [(f"`{column}`", escaped(meaning)) for column, meaning in known.items()]
        parts.append(f"### `{name}`\n\n{table(('column', 'what it is'), rows)}")
    return "\n\n".join(parts)


# -- what there is ---------------------------------------------------------------------------------------


def rules() -> str:
    """Each shipped rule: its equations, its claims, its hyper-parameters."""
    return _catalogue("learners", _of_rule)


def _of_rule(cls: Any) -> list[tuple[str, str]]:
    claims = dataclasses.asdict(cls.claims)
    special = _said(claims.pop("without_recurrence"))
    return [
        ("Family", cls.family),
        ("Source", cls.paper),
        ("Claims", _said(claims) + (f"; without recurrent weights {special}" if special else "")),
        ("Optimiser", f"{cls.optimizer}, learning rate {cls.lr:g}"),
        ("Hyper-parameters", _fields(dataclasses.fields(cls))),
        ("Searched by `tune`", ", ".join(f"`{k}` from {a:g} to {b:g}" for k, (a, b) in cls.search.items())),
    ]


def tasks() -> str:
    """Each shipped task: what is shown and asked, its source, its parameters."""
    return _catalogue(
        "tasks",
        lambda cls: [
            ("Protocol", cls.protocol),
            ("Source", cls.citation),
            ("Metric", f"{cls.metric}, {_BETTER[cls.metric_direction]} is better"),
            ("Parameters", _fields(dataclasses.fields(cls))),
        ],
    )


def cells() -> str:
    """Each shipped cell: its equations, its source, its constants."""
    from creditbench.trials.network import own_fields

    return _catalogue(
        "cells",
        lambda cls: [
            ("Source", cls.paper),
            ("State", f"{cls.S} numbers a unit, {cls.Q} of them seen, {cls.G} gates"),
            ("Recurrent weights", "yes" if cls.sees_recurrence[0] < cls.sees_recurrence[1] else "none"),
            ("A unit's own parameters", ", ".join(f"`{name}`" for name in cls.phi)),
            ("Constants", _fields(own_fields(cls))),
        ],
    )


def _catalogue(kind: Any, about: Callable[[Any], list[tuple[str, str]]]) -> str:
    from creditbench.plugins import registry

    parts = []
    for plugin in registry.builtin(kind).values():
        text = markdown(ast.get_docstring(ast.parse(plugin.path.read_bytes())) or "")
        facts = "\n".join(f"- {label}: {escaped(value)}" for label, value in about(plugin.cls) if value)
        parts.append(f"## {plugin.id}\n\n**{plugin.cls.name}**\n\n{text}\n\n{facts}")
    return "\n\n".join(parts)


def _fields(found: Iterable[Any]) -> str:
    return ", ".join(f"`{field.name}` {field.default}" for field in found)


def _said(claims: dict[str, Any]) -> str:
    made = {name: value for name, value in claims.items() if value is not False}
    return ", ".join(
        name.replace("_", " ") if v is True else f"{name.replace('_', ' ')} {v}" for name, v in made.items()
    )


# -- API -------------------------------------------------------------------------------------------------


def api(module: str) -> str:
    """The public names of a module."""
    return f"```{{eval-rst}}\n.. automodule:: {module}\n```"


def history() -> str:
    """A link to asv's page, where it was made before this site."""
    if not (ROOT / ".asv" / "html" / "index.html").is_file():
        return ""
    return '<a href="../asv/index.html">The history of every rule\'s cost and score</a>, by commit (asv).'


PARTS: dict[str, Callable[..., str]] = {
    part.__name__: part for part in (api, cells, columns, docstring, frames, history, rules, tasks, verbs)
}
