"""What the checks of a cell compare it with, written out: forward steps, and gradients carried both ways."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from creditbench.cells import Cell
from creditbench.check.probe import B, make_batch
from creditbench.learner import backpropagate, immediate, leaky_trace, weighted
from creditbench.ops import Ops


def all_influence(ops: Ops, cell: Cell, params: Any) -> Any:
    """A step of the influence of every parameter on every unit, [B, n M, S n]; and its gradient, [n, M]."""
    n, M, S = cell.hidden, cell.parameters, cell.S
    place = ops.from_numpy(np.eye(n))[:, None, None, :]

    def advance(J, now, _):
        own = immediate(ops, now).reshape((-1, S, n, M))
        own = ops.xp.permute_dims(own, (0, 2, 3, 1))[..., None] * place  # [B, n, M, S, n]
        J = cell.push(ops, params, now, J) + own.reshape((-1, n * M, S * n))
        return J, (J * now.delta[:, None]).sum(-1).sum(0).reshape((n, M))

    return advance


def own_influence(ops: Ops, cell: Cell, params: Any) -> Any:
    """A step of the influence of each unit's parameters on that unit, [B, S n, M]; and its gradient."""

    def advance(J, now, _):
        J = leaky_trace(ops, cell, J, now)
        return J, weighted(cell, now.delta, J)

    return advance


def backpropagated(ops: Ops, cell: Cell, drawn: Any) -> tuple[Any, dict[str, NDArray[Any]]]:
    """(loss, gradient) of the rule that is the reference."""

    def segment(params, batch):
        batch = batch._replace(inputs=cell.encode(params, batch.inputs))  # as a rule gets them
        found = backpropagate(ops, cell, params, cell.start(ops, B), batch)
        return found.loss, {name: ops.dense(grad) for name, grad in found.grads.items()}

    params, batch = ops.from_numpy(drawn), make_batch(loss=cell.loss)
    batch = type(batch)(*ops.from_numpy(tuple(batch)))
    loss, grads = ops.to_numpy(ops.compile(segment, params, batch)(params, batch))
    return loss, grads


def steps(ops: Ops, cell: Cell, params: Any, inputs: NDArray[Any]) -> tuple[Any, list, list, list]:
    """Step by step from rest: (last state, a of each step, ĥ of each, s of each with that of rest first)."""
    state = cell.start(ops, B)
    a, out, s = [], [], [state.s]
    with ops.host.without_tape():
        for x in inputs:
            drive = cell.drive(ops, params, cell.encode(params, ops.from_numpy(x)))
            pre, state = cell.step(ops, params, state, drive)
            a.append(pre)
            out.append(state.out)
            s.append(state.s)
    return state, a, out, s


def matrix(ops: Ops, rows: tuple[tuple, ...]) -> NDArray[Any]:
    """Rows and columns of arrays [R, n] as [R, rows, columns, n]."""
    return np.stack([[ops.to_numpy(x) for x in row] for row in rows]).transpose(2, 0, 1, 3)


def full(ops: Ops, M: Any) -> NDArray[Any]:
    """[R, n] as [R, 1, 1, n]; what has four axes stays."""
    found = ops.to_numpy(M)
    return found[:, None, None] if found.ndim == 2 else found
