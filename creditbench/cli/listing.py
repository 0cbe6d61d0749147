"""`creditbench list`: what there is."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from creditbench.cli import options, printing

if TYPE_CHECKING:
    from creditbench.plugins.importing import Plugin

app = typer.Typer(
    help="List tasks, learners, cells or backends, with what is known of them.\n\n"
    "\b\nExamples:\n  creditbench list tasks\n  creditbench list learners --json",
    no_args_is_help=True,
    rich_markup_mode=None,
)


_FORMATS = ("rich", "markdown")


@app.command()
def tasks(
    json: options.Json = False,
    form: Annotated[
        str,
        typer.Option(
            "--format", help="rich; markdown: the table of tasks/README.md, for which every task is made."
        ),
    ] = "rich",
) -> None:
    """List the tasks.

    \b
    Examples:
      creditbench list tasks
      creditbench list tasks --json
      creditbench list tasks --format markdown
    """
    from creditbench.plugins import registry

    if options.one_format(form, json, _FORMATS, "list tasks") == "markdown":
        _print_markdown(_TASK_HEADER, map(_task_row, registry.load("tasks").values()))
        return
    rows = []
    for plugin in registry.load("tasks").values():
        cls = plugin.cls
        rows.append(
            {
                "id": plugin.id,
                "name": cls.name,
                "protocol": cls.protocol,
                "metric": cls.metric,
                "metric_direction": cls.metric_direction,
                "trivial": cls.trivial,
                "solved": cls.solved,
                "loss": cls.loss,
                "batch": cls.batch,
                "alpha": cls.alpha,
                "budgets": cls.budgets,
                "parameters": {field.name: field.default for field in dataclasses.fields(cls)},
                "reads_data": cls.reads_data,
                "version": cls.version,
                "citation": cls.citation,
                "source": plugin.source,
            }
        )
    _show(rows, json, ("id", "name", "protocol", "metric", "trivial", "solved", "budgets"))


@app.command()
def learners(
    json: options.Json = False,
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="rich; markdown: the table of learners/README.md; cells: its table of rules and cells, for "
            "which each rule is run.",
        ),
    ] = "rich",
) -> None:
    """List the learners.

    \b
    Examples:
      creditbench list learners
      creditbench list learners --json
      creditbench list learners --format markdown
      creditbench list learners --format cells
    """
    from creditbench.plugins import registry

    form = options.one_format(form, json, (*_FORMATS, "cells"), "list learners")
    if form == "markdown":
        _print_markdown(_LEARNER_HEADER, map(_learner_row, registry.load("learners").values()))
        return
    if form == "cells":
        # Rules that are not shipped do not run in this process.
        networks = registry.builtin("cells")
        pairs = (_pair_row(plugin, networks.values()) for plugin in registry.builtin("learners").values())
        _print_markdown(("rule", *networks), pairs)
        return
    rows = []
    for plugin in registry.load("learners").values():
        cls = plugin.cls
        rows.append(
            {
                "id": plugin.id,
                "name": cls.name,
                "family": cls.family,
                "claims": dataclasses.asdict(cls.claims),
                "backends": sorted(cls.backends),
                "decorrelates": cls.decorrelates,
                "optimizer": cls.optimizer,
                "lr": cls.lr,
                "hyperparameters": {field.name: field.default for field in dataclasses.fields(cls)},
                "paper": cls.paper,
                "source": plugin.source,
            }
        )
    _show(rows, json, ("id", "name", "family", "optimizer", "lr", "hyperparameters", "claims"))


@app.command()
def cells(json: options.Json = False) -> None:
    """List the cells: the kinds of network.

    \b
    Examples:
      creditbench list cells
      creditbench list cells --json
    """
    from creditbench.plugins import registry
    from creditbench.trials.network import own_fields

    rows = []
    for plugin in registry.load("cells").values():
        cls = plugin.cls
        rows.append(
            {
                "id": plugin.id,
                "name": cls.name,
                "state": cls.S,
                "gates": cls.G,
                "outputs": cls.Q,
                "recurrent": cls.sees_recurrence[0] < cls.sees_recurrence[1],
                "leaky": cls.leaky,
                "skips": cls.skips,
                "spikes": cls.spikes,
                "phi": list(cls.phi),
                "parameters": {field.name: field.default for field in own_fields(cls)},
                "paper": cls.paper,
                "source": plugin.source,
            }
        )
    _show(rows, json, ("id", "name", "state", "gates", "outputs", "phi", "parameters", "paper"))


@app.command()
def backends(json: options.Json = False) -> None:
    """List the frameworks. `creditbench doctor` says which of them work on this machine.

    \b
    Examples:
      creditbench list backends
      creditbench list backends --json
    """
    import importlib.metadata
    import importlib.util

    from creditbench.machine.frameworks import FRAMEWORKS

    rows = []
    for backend, framework in FRAMEWORKS.items():
        installed = importlib.util.find_spec(backend) is not None
        rows.append(
            {
                "id": backend,
                "name": framework.name,
                "installed": installed,
                "version": importlib.metadata.version(backend) if installed else None,
            }
        )
    _show(rows, json, ("id", "name", "installed", "version"))


def _show(rows: list[dict[str, Any]], as_json: bool, columns: tuple[str, ...]) -> None:
    """The rows as JSON, or the named columns as a table."""
    if as_json:
        printing.as_json(rows)
        return
    from rich.table import Table

    table = Table()
    for column in columns:
        table.add_column(column, no_wrap=column == "id", overflow="fold")
    for row in rows:
        table.add_row(*(_text(row[column]) for column in columns))
    printing.console().print(table, markup=False)


_TASK_HEADER = (
    *("id", "task", "protocol", "T", "N", "I", "O", "batch", "α", "loss", "metric", "trivial", "solved"),
    *("steps: smoke", "quick", "full", "data", "source"),
)
_LEARNER_HEADER = (
    *("id", "name", "family", "source", "unbiased", "online", "forward only", "memory in T"),
    *("time of a step", "memory"),
)


def _task_row(plugin: Plugin) -> tuple[object, ...]:
    """A task's properties and its source."""
    cls = plugin.cls
    arrow = "↓" if cls.metric_direction == "min" else "↑"
    return (
        *(_link(plugin), cls.name, cls.protocol, *cls().sizes(), cls.batch, f"{cls.alpha:g}", cls.loss),
        *(f"{cls.metric} {arrow}", f"{cls.trivial:.4g}", f"{cls.solved:.4g}"),
        *(f"{cls.budgets[preset]:,}" for preset in ("smoke", "quick", "full")),
        *("or one's own" if cls.reads_data else "", cls.citation),
    )


def _learner_row(plugin: Plugin) -> tuple[object, ...]:
    """A rule's source and its claims."""
    cls, claims = plugin.cls, plugin.cls.claims
    promises = ("yes" if made else "" for made in (claims.unbiased, claims.online, claims.forward_only))
    return (
        *(_link(plugin), cls.name, cls.family, cls.paper, *promises),
        *(claims.memory_in_T, claims.time, claims.memory),
    )


def _pair_row(plugin: Plugin, networks: Iterable[Plugin]) -> tuple[object, ...]:
    """Whether a rule goes with each cell."""
    from creditbench.check.pairs import goes_with

    return (_link(plugin), *(goes_with(plugin, network.cls) for network in networks))


def _link(plugin: Plugin) -> str:
    """The id; if the plugin is shipped, with a link to its file from its folder's README."""
    from creditbench.results.table import Markup

    return Markup(f"[`{plugin.id}`]({plugin.path.name})" if plugin.source == "builtin" else f"`{plugin.id}`")


def _print_markdown(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    from creditbench.results.table import markdown_table

    print(markdown_table(header, rows, header), end="")


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        # Claims that are not made are left out.
        shown = {name: v for name, v in value.items() if v is not False}
        return ", ".join(name if v is True else f"{name} {v}" for name, v in shown.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)
