"""A user's settings, from options and a tuned file, as the fields of a task, learner or cell."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import typing
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from creditbench.cells import Cell
from creditbench.errors import UsageError, unknown
from creditbench.machine import files
from creditbench.optimizers import OPTIMIZERS
from creditbench.plugins import registry
from creditbench.plugins.importing import KINDS, Plugin
from creditbench.trials.network import make_network, own_fields
from creditbench.trials.trial import CELL, split_rule

#: Keys of a table of the tuned file beside hyper-parameters: settings, and their origin.
TUNABLE = ("lr", "optimizer", "segment", "batch", "decorrelation_rate")
STUDY = ("study", "beat_trivial", "cell", "cell_parameters")
#: task or "default" -> rule -> one table per study
Tuned = Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]


def make(plugin: Plugin, settings: Mapping[str, Any]) -> Any:
    """The task or learner with those fields. Raises `UsageError` for an unknown field or a bad value."""
    values = converted(plugin, settings)
    try:
        return plugin.cls(**values)
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(
            f"{plugin.cls.__name__} in {plugin.path} cannot be made: {type(error).__name__}: {error}"
        ) from error


def converted(plugin: Plugin, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings as values of the fields of a task, learner or cell; of a cell its own.

    Raises `UsageError` for an unknown field or a bad value.
    """
    what = "hyper-parameter" if plugin.kind == "learners" else "parameter"
    own = own_fields(plugin.cls) if plugin.kind == "cells" else dataclasses.fields(plugin.cls)
    fields = [field.name for field in own]
    hints = typing.get_type_hints(plugin.cls)
    values = {}
    for name, value in settings.items():
        if name not in fields:
            if not fields:
                raise UsageError(f"unknown {what} {plugin.id}.{name}: {plugin.id} has none")
            known = [*fields, *(["lr"] if plugin.kind == "learners" else [])]
            raise unknown(f"{what} of {plugin.id}", name, known, f"creditbench list {plugin.kind} --json")
        values[name] = convert(f"{plugin.id}.{name}", value, hints[name])
    return values


def with_defaults(plugin: Plugin, settings: Mapping[str, Any]) -> Plugin:
    """The task, learner or cell whose fields have those values for defaults.

    Raises `UsageError` for an unknown field, a bad value, or values that it refuses.
    """
    if not settings:
        return plugin
    cls, hints = plugin.cls, typing.get_type_hints(plugin.cls)
    fields = [
        (name, hints[name], dataclasses.field(default=v)) for name, v in converted(plugin, settings).items()
    ]
    named = {name: getattr(cls, name) for name in ("__module__", "__qualname__", "__doc__")}
    changed = dataclasses.make_dataclass(
        cls.__name__, fields, bases=(cls,), namespace=named, frozen=cls.__dataclass_params__.frozen
    )
    found = dataclasses.replace(plugin, cls=changed)
    if plugin.kind == "cells":
        _some_cell(found, {})
    else:
        make(found, {})
    return found


def own_rate(plugin: Plugin, settings: Mapping[str, Any]) -> tuple[dict[str, Any], float | None]:
    """A learner's settings without its learning rate `lr`, and the rate; None if none is set.

    Raises `UsageError` for a rate that is no number.
    """
    rest = dict(settings)
    if "lr" not in rest or "lr" in {field.name for field in dataclasses.fields(plugin.cls)}:
        return rest, None
    return rest, convert(f"{plugin.id}.lr", rest.pop("lr"), float)


def fields_of(plugin: Plugin, instance: Any) -> dict[str, Any]:
    """The fields of a task, learner or cell as plain values; of a cell its own. Floats stay floats."""
    hints = typing.get_type_hints(plugin.cls)
    values = dataclasses.asdict(instance)
    if plugin.kind == "cells":
        values = {field.name: values[field.name] for field in own_fields(plugin.cls)}
    try:
        plain = json.loads(json.dumps(values, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"a field of {plugin.cls.__name__} in {plugin.path} has no JSON form: {error}"
        ) from None
    return {
        name: float(v) if hints.get(name) is float and isinstance(v, int) else v for name, v in plain.items()
    }


def convert(name: str, value: Any, kind: Any) -> Any:
    """`value` as `kind`; a text is parsed. Raises `UsageError` for a value of another kind."""
    candidates = [value]
    if isinstance(value, list):
        candidates.append(tuple(value))
    elif isinstance(value, str):
        literals = {"true": True, "false": False, "none": None}
        if value.lower() in literals:
            candidates.insert(0, literals[value.lower()])
        with contextlib.suppress(ValueError, OverflowError):
            number = float(value)
            candidates.insert(0, int(number) if number.is_integer() and abs(number) < 2**53 else number)
    adapter = TypeAdapter(kind, config=ConfigDict(strict=True))
    for candidate in candidates:
        try:
            converted = adapter.validate_python(candidate)
        except ValidationError:
            continue
        if isinstance(converted, float):
            require_finite(name, converted)
        return converted
    wanted = (
        getattr(kind, "__name__", str(kind)) if isinstance(kind, type) else str(kind).replace("typing.", "")
    )
    raise UsageError(f"{name} is {value!r}: give a value of the type {wanted}")


def require_finite(name: str, value: float) -> None:
    """Raise `UsageError` for a number that is not finite."""
    if not math.isfinite(value):
        raise UsageError(f"{name} is {value}: give a finite number")


def optimizer_parameters(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of an optimiser, less its rate, that are set to something else than its default.

    Raises `UsageError` for one that it does not have, or a value that is none.
    """
    cls = OPTIMIZERS[name]
    defaults = {field.name: field.default for field in dataclasses.fields(cls) if field.name != "lr"}
    hints = typing.get_type_hints(cls)
    values = {}
    for field, value in settings.items():
        if field == "lr":
            raise UsageError(
                f"{name}.lr is set: give the rate as --lr, or a learner's as --set LEARNER.lr=..."
            )
        if field not in defaults:
            if not defaults:
                raise UsageError(f"unknown parameter {name}.{field}: {name} has none but its rate, --lr")
            raise unknown(f"parameter of {name}", field, defaults, "creditbench run --help")
        values[field] = convert(f"{name}.{field}", value, hints[field])
    cls(lr=1.0, **values)  # which refuses what it cannot work with
    return {field: value for field, value in values.items() if value != defaults[field]}


def by_owner(
    given: Mapping[str, Any],
    tasks: Collection[str],
    learners: Collection[str],
    optimizers: Iterable[str] = (),
    grid: bool = True,
    cells: Collection[str] | None = None,
) -> dict[str, dict[str, Any]]:
    """`{"anp.sigma": "1e-3"}` as `{"anp": {"sigma": "1e-3"}}`.

    `grid`: whether the user can add tasks, learners and cells to those that are run. `cells`: None where
    there is no choice of them.

    Raises `UsageError` for an owner that is no task, learner, cell or optimiser of the run.
    """
    settings: dict[str, dict[str, Any]] = {}
    for name, value in given.items():
        owner, dot, field = name.partition(".")
        if not (dot and owner and field):
            raise UsageError(f"setting {name!r} names no field: write it as --set anp.sigma=1e-3")
        owners = [*tasks, *learners, *(cells or ()), *optimizers]
        if owner not in owners:
            if grid:
                require_in_grid(f"--set {name}", owner, tasks, learners, cells or ())
            kinds = _or(
                *("task", "learner"),
                *(["cell"] if cells is not None else []),
                *(["optimizer"] if optimizers else []),
            )
            raise unknown(f"{kinds} in --set", owner, owners, "creditbench run --help")
        settings.setdefault(owner, {})[field] = value
    return settings


def _or(*names: str) -> str:
    """Names as `a, b or c`."""
    return f"{', '.join(names[:-1])} or {names[-1]}"


def require_in_grid(option: str, owner: str, *grid: Iterable[str]) -> None:
    """Raise `UsageError` if `owner` is the id of a plug-in that is not run. `grid`: ids that are."""
    for kind in KINDS:
        if owner in registry.load(kind):
            # Nobody has to have named the usual cell.
            there = ", ".join(name for names in grid for name in names if name != CELL)
            raise UsageError(
                f"{option} is given, and {owner} is not in this grid ({there}): add it with "
                f"--{kind[:-1]}, or leave the setting out"
            )


def read_tuned(
    path: str | None, tasks: Mapping[str, Plugin], learners: Mapping[str, Plugin], cells: Mapping[str, Plugin]
) -> tuple[Tuned, list[str]]:
    """The tables of a tuned file, a list for each task and rule; and notes on tables with unknown names.

    A file may hold more than a run needs, so a task, rule or cell that this run does not use is not an error.
    """
    if path is None:
        return {}, []
    tuned = read_studies(path)
    notes = []
    known_tasks = {"default", *tasks, *registry.load("tasks")}
    known_learners = {*learners, *registry.load("learners")}
    known_cells = {*cells, *registry.load("cells")}
    for task, rules in tuned.items():
        if task not in known_tasks:
            notes.append(f"{path}: {unknown('task', task, known_tasks, 'creditbench list tasks')}")
        for rule, studies in rules.items():
            name, _ = split_rule(rule)
            if name not in known_learners:
                notes.append(
                    f"{path}: {unknown('learner', name, known_learners, 'creditbench list learners')}"
                )
            for study in studies:
                cell, values = cell_tuned(f"{task}.{rule} in {path}", study)
                if cell not in known_cells:
                    notes.append(f"{path}: {unknown('cell', cell, known_cells, 'creditbench list cells')}")
                elif cell in cells:
                    constants(cells[cell], values)  # which refuses what is no constant of it
            if name in learners:
                fields = (field.name for field in dataclasses.fields(learners[name].cls))
                names = [*TUNABLE, *STUDY, *fields]
                for key in (key for study in studies for key in study):
                    if key not in names:
                        raise unknown(
                            f"key in [{task}.{rule}] of {path}",
                            key,
                            names,
                            "creditbench list learners --json",
                        )
    return tuned, notes


def cell_tuned(name: str, study: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The cell that a table of a tuned file was tuned with, and its constants that were not the default.

    Raises `UsageError` for a cell that is no text, and for constants that are no table.
    """
    cell, values = study.get("cell", CELL), study.get("cell_parameters", {})
    if not isinstance(cell, str):
        raise UsageError(f'{name} has the cell {cell!r}: give its id as text, as in cell = "gru"')
    if not isinstance(values, dict):
        raise UsageError(f"{name} has the cell_parameters {values!r}: give a table, as in {{decay = 0.9}}")
    return cell, values


def constants(plugin: Plugin, settings: Mapping[str, Any]) -> dict[str, Any]:
    """All constants of a cell with those settings, as a trial has them. Raises `UsageError`."""
    return fields_of(plugin, _some_cell(plugin, converted(plugin, settings)))


def _some_cell(plugin: Plugin, values: Mapping[str, Any]) -> Cell:
    """A cell with those constants, of sizes that hardly one refuses."""
    return make_network(plugin.cls, inputs=1, hidden=64, outputs=1, **values)


def not_default(plugin: Plugin, values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a cell's constants that are not its defaults."""
    defaults = constants(plugin, {})
    return {name: value for name, value in values.items() if value != defaults[name]}


def is_tuned_with(study: Mapping[str, Any], plugin: Plugin, values: Mapping[str, Any]) -> bool:
    """Whether a table of a tuned file was tuned with that cell, with all constants at these values."""
    cell, own = cell_tuned("a table", study)
    return cell == plugin.id and constants(plugin, own) == values


def read_studies(path: str | os.PathLike[str]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """The tables of a tuned file: task or "default" -> rule -> one table per study. Raises `UsageError`."""
    tuned: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for task, rules in files.read_toml(path).items():
        if not isinstance(rules, dict):
            raise UsageError(
                f"{path}: {task!r} is no table of tables: write [{task}.RULE] and then lr = 0.01"
            )
        for rule, values in rules.items():
            studies = values if isinstance(values, list) else [values]
            if not studies or not all(isinstance(study, dict) for study in studies):
                raise UsageError(
                    f"{path}: {task}.{rule} is no table: write [{task}.{rule}], or [[{task}.{rule}]] for "
                    "each study, and then lr = 0.01"
                )
            tuned.setdefault(task, {})[rule] = studies
    return tuned
