"""The network of a trial: the one place where a cell's id or path becomes a cell."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

from creditbench.cells import Cell, Stack
from creditbench.errors import UsageError
from creditbench.ops.base import Array, Ops, Tree
from creditbench.plugins import registry
from creditbench.trials.trial import Trial


def cell_of(
    trial: Trial, inputs: int, outputs: int, loss: str, kind: type[Cell] | None = None, **others: Any
) -> Cell:
    """The cell of a trial, for a task of `inputs` and `outputs`. Raises `UsageError`.

    `kind`: the class, where it is known; else it is found by the trial's id or path. `others`: fields of the
    cell that are not as in the trial.
    """
    if kind is None:
        kind = registry.find("cells", trial.cell, [trial.cell_path] if trial.cell_path else []).cls
    fields = {
        "hidden": trial.hidden,
        "layers": trial.layers,
        "alpha": trial.alpha,
        "bias": trial.bias,
        "decorrelate": trial.decorrelate,
        **trial.cell_parameters,
    }
    return make_network(kind, inputs=inputs, outputs=outputs, loss=loss, **(fields | others))


def make_network(kind: type[Cell], /, layers: int = 1, **fields: Any) -> Cell:
    """A cell with those fields, or layers of it. Raises `UsageError` for values that it refuses."""
    try:
        cell = kind(**fields)
        # Whoever has a cell in hand sees layers of it as one.
        return cell if layers == 1 else cast(Cell, Stack(cell, layers))
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f"the cell {kind.id} cannot be made: {type(error).__name__}: {error}") from error


def firing_rate(ops: Ops, cell: Cell, params: Tree, inputs: Array) -> Array:
    """The mean of h over the steps, sequences, units and layers of inputs [T, B, I], from rest."""
    B = inputs.shape[1]

    def chunk(state, x):
        steps = x.shape[0]
        rows = cell.encode(params, x.reshape((-1, x.shape[-1])))
        state, unrolled = cell.unroll(ops, params, state, rows, steps)
        rates = []
        for layer, values in zip(cell.layers, unrolled.layers, strict=True):
            assert values.s is not None
            h = layer.o(ops, tuple(s[B:] for s in values.s))
            rates.append(sum(ops.xp.mean(x.reshape((steps, -1)), axis=1) for x in h) / layer.Q)
        return state, sum(rates) / len(rates)

    size = max(1, min(64, 4096 // B))
    return ops.xp.mean(ops.scan_chunks(chunk, cell.start(ops, B), inputs, size)[1])


def own_fields(kind: type[Cell]) -> list[dataclasses.Field[Any]]:
    """The fields of a cell's own, which a user may set: the constants of its unit."""
    shared = {field.name for field in dataclasses.fields(Cell)}
    return [field for field in dataclasses.fields(kind) if field.name not in shared]


def parameters_of(cell: Cell) -> Mapping[str, Any]:
    """The values of a cell's own fields, by name."""
    return {field.name: getattr(cell, field.name) for field in own_fields(type(cell))}
