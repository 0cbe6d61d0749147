"""Perturbed parameters: pairs of networks run as one batch, and the slopes of their loss."""

from __future__ import annotations

from itertools import accumulate
from math import prod
from typing import Any

import numpy as np

from creditbench.cells import Cell, CellState
from creditbench.learner.chunks import chunk_size, fold_chunks, rows
from creditbench.learner.contract import Batch
from creditbench.ops.base import Array, Ops, Tree


def unflatten(flat: Array, shapes: dict[str, tuple[int, ...]]) -> Tree:
    """Vectors [..., p] as one array [..., *shape] per name, without copies.

    >>> parts = unflatten(ops.zeros((7, 15)), {"W_in": (3, 2), "W_rec": (3, 3)})
    >>> {name: tuple(part.shape) for name, part in parts.items()}
    {'W_in': (7, 3, 2), 'W_rec': (7, 3, 3)}
    """
    ends = list(accumulate(prod(shape) for shape in shapes.values()))
    return {
        name: flat[..., start:end].reshape((*flat.shape[:-1], *shape))
        for (name, shape), start, end in zip(shapes.items(), [0, *ends], ends, strict=False)
    }


def flat_size(shapes: dict[str, tuple[int, ...]]) -> int:
    """p: the length of the vector that `unflatten` splits.

    >>> flat_size(cell.shapes())
    18
    """
    return sum(prod(shape) for shape in shapes.values())


def antithetic_start(ops: Ops, state: CellState, pairs: int) -> CellState:
    """The state of B rows, repeated for both members of P pairs: the 2PB rows of `antithetic_slopes`.

    >>> tuple(antithetic_start(ops, cell.start(ops, 5), pairs=2).out.shape)
    (20, 3)
    """

    def repeat(array):
        rows, n = array.shape
        return ops.xp.broadcast_to(array, (2 * pairs, rows, n)).reshape((-1, n))

    return ops.tree_map(repeat, state)


def antithetic_slopes(
    ops: Ops, cell: Cell, params: Tree, change: dict[str, Any], sigma: float, state: Tree, batch: Batch
) -> tuple[Tree, Array]:
    """The slopes (L(θ + σ V_i) - L(θ - σ V_i)) / 2σ of a segment's loss, with all networks in one batch.

        a = θ-part + V_i (±σ ĥ_{t-1}) + V_i (±σ x̂_t) ± σ v_b

    The θ-part is one product over all 2PB rows. The V-part is one product over both members of a pair. So the
    perturbed weights are never formed. `change`: the V_i, by name of a parameter: for a matrix the function
    x -> V_i x of rows [P or 1, R, columns], for a vector the array [P, rows]. `state`: 2PB rows, by pair,
    sign (+ first) and sequence. Returns the new state and the slopes [P].

    >>> V = unflatten(ops.normal(ops.key(1), (2, flat_size(cell.shapes()))), cell.shapes())
    >>> change = {name: lambda x, V=own: ops.linear(x, V) for name, own in V.items()}
    >>> start = antithetic_start(ops, cell.start(ops, 5), pairs=2)
    >>> _, slopes = antithetic_slopes(ops, cell, params, change, 1e-4, start, batch)
    >>> grads = backpropagate(ops, cell, params, cell.start(ops, 5), batch).grads
    >>> along = sum((V[name] * ops.dense(grad)).sum((1, 2)) for name, grad in grads.items())
    >>> bool(abs(slopes - along).max() < 1e-6)
    True
    """
    xp, B, several = ops.xp, batch.weights.shape[1], len(cell.layers) > 1
    P = (state[0] if several else state).out.shape[0] // (2 * B)
    sign = sigma * ops.from_numpy(np.array([1.0, -1.0]).reshape((2, 1, 1)))
    layers = [
        _Members(ops, layer, cell.of_layer(params, k), cell.of_layer(change, k), sign, P, B)
        for k, layer in enumerate(cell.layers)
    ]

    def chunk(carry, batch):
        state, losses = carry
        K = batch.weights.shape[0]
        x, target, weight = rows(batch)
        seen, after = x, []
        for k, layer in enumerate(layers):
            end, seen = layer.unroll(state[k] if several else state, seen, K)
            after.append(end)
        by_pair = xp.permute_dims(seen.reshape((K, P, 2, B, -1)), (1, 0, 2, 3, 4))  # [P, K, 2, B, seen]
        y = change["W_out"]((sign * by_pair).reshape((P, -1, cell.seen))).reshape((P, K, 2, B, -1))
        if cell.bias:
            y = y + sign * change["c"][:, None, None, None]
        y = y + cell.readout(ops, params, by_pair.reshape((-1, cell.seen))).reshape(y.shape)
        found = cell.losses(ops, y, target.reshape((K, 1, B, -1)))
        state = tuple(after) if several else after[0]
        return (state, losses + (weight.reshape((K, 1, B)) * found).sum((1, 3))), None

    (after, losses), _ = fold_chunks(ops, chunk, (state, ops.zeros((P, 2))), batch, chunk_size(batch))
    return after, (losses[:, 0] - losses[:, 1]) / (2.0 * sigma)


class _Members:
    """One layer of all 2PB networks."""

    def __init__(
        self, ops: Ops, cell: Cell, params: Tree, change: dict[str, Any], sign: Array, P: int, B: int
    ) -> None:
        self.ops, self.cell, self.change, self.sign, self.P, self.B = ops, cell, change, sign, P, B
        self.params, self.W, own = params, cell.recurrence(ops, params), {}
        for name in cell.phi:  # a unit's own parameters, for each of the 2PB rows
            moved = params[name] + sign * change[name][:, None, None]
            own[name] = ops.xp.broadcast_to(moved, (P, 2, B, cell.hidden)).reshape((-1, cell.hidden))
        self.own = params | own

    def unroll(self, state: CellState, x: Array, K: int) -> tuple[CellState, Array]:
        """(the state after K steps, what is seen of the layer at each step [K, 2PB, seen]).

        `x`: inputs that the networks share, [K·B, I], or those of each, [K, 2PB, I].
        """
        ops, cell, P, B, sign, change = self.ops, self.cell, self.P, self.B, self.sign, self.change
        xp, units = ops.xp, cell.units
        drive = cell.drive(ops, self.params, x.reshape((-1, x.shape[-1])))
        if x.ndim == 2:
            moved = cell.all_gates(ops, change["W_in"](x[None]), cell.sees_input)
            if cell.bias:
                moved = moved + change["b"][:, None]
            moved = xp.permute_dims(moved.reshape((P, K, 1, B, units)), (1, 0, 2, 3, 4))
            drive = drive.reshape((K, 1, 1, B, units)) + sign * moved
        else:
            signed = sign * xp.permute_dims(x.reshape((K, P, 2, B, -1)), (1, 0, 2, 3, 4))
            moved = cell.all_gates(ops, change["W_in"](signed.reshape((P, K * 2 * B, -1))), cell.sees_input)
            moved = moved.reshape((P, K, 2, B, units))
            if cell.bias:
                moved = moved + sign * change["b"][:, None, None, None]
            drive = drive.reshape((K, P, 2, B, units)) + xp.permute_dims(moved, (1, 0, 2, 3, 4))

        def step(state, drive):
            if cell.recurrent:
                signed = (sign * state.out.reshape((P, 2, B, -1))).reshape((P, 2 * B, -1))
                moved = cell.all_gates(ops, change["W_rec"](signed), cell.sees_recurrence)
                drive = drive + moved.reshape((-1, units))
            _, after = cell.step(ops, self.own, state, drive, self.W)
            return after, after.out

        state, out = ops.scan(step, state, drive.reshape((K, -1, units)))
        if cell.skips:
            if x.ndim == 2:
                x = xp.broadcast_to(x.reshape((K, 1, B, -1)), (K, 2 * P, B, cell.inputs))
            out = xp.concat((out, x.reshape((K, 2 * P * B, -1))), axis=-1)
        return state, out
