"""Rules that carry a trace forward in time and compute a gradient from it at every step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from creditbench.cells import Cell
from creditbench.learner.chunks import chunk_size, rows, sum_over_chunks
from creditbench.learner.contract import Batch, Estimate
from creditbench.ops.base import Array, Key, Ops, Outer, Tree


class Step(NamedTuple):
    """The values of one step of B rows, from which an online rule learns."""

    a: Array  #: pre-activation, [B, n]
    slope: Array  #: α φ'(a_t) = ∂h_t/∂a_t, [B, n]
    z: Array  #: presynaptic [ĥ_{t-1}, x̂_t, 1], with the 1 only if the cell has a bias, [B, m]
    out: Array  #: ĥ_t, [B, n]
    target: Array  #: y*_t, [B, O]
    weight: Array  #: w_t, [B, 1]
    e: Array  #: w_t ∂ℓ_t/∂y_t, [B, O]
    delta: Array  #: δ_t = Dᵀ W_outᵀ e_t = ∂L_t/∂h_t, or its stand-in by `feedback`, [B, n]


def online(
    ops: Ops,
    cell: Cell,
    params: Tree,
    state: Tree,
    batch: Batch,
    key: Key,
    advance: Callable[[Tree, Step, Any], tuple[Tree, Array | Outer]],
    draw: Callable[[Any, int], Array] | None = None,
    factors: bool = False,
    feedback: Array | None = None,
) -> Estimate:
    """The estimate of a rule that carries a trace over time and computes a gradient from it at every step.

    `advance(trace, step, noise) -> (trace, G)`: G is that step's gradient of θ = [W_rec W_in b], [n, m],
    summed over the batch; with `factors`, an `Outer` of B rows. The readout gets its exact gradient,
    Σ_t e_t ĥ_tᵀ. The noise of a step is an entry of `draw(keys, B)`, one array per key. `feedback` [n, O],
    if given, replaces Dᵀ W_outᵀ. The state has the entries `cell` and `trace`; others stay as they are.
    """
    xp, shape = ops.xp, (cell.hidden, cell.presynaptic)

    def chunk(state, batch, keys):
        K, B = batch.weights.shape
        x, target, weight = rows(batch)
        end, unrolled = cell.unroll(ops, params, state["cell"], cell.drive(ops, params, x), K)
        a, before, out = unrolled
        y = cell.readout(ops, params, out)
        e = weight[:, None] * cell.error(ops, y, target)
        z = xp.concat((before, x, xp.ones_like(x[:, :1])) if cell.bias else (before, x), axis=1)
        delta = cell.feedback(params, e) if feedback is None else ops.linear(e, feedback)
        seen = Step(a, cell.slope(ops, unrolled), z, out, target, weight[:, None], e, delta)
        noise = None if draw is None else draw(keys, B)
        if K == 1:
            noise = None if noise is None else noise.reshape((B, *noise.shape[-1:]))
            trace, G = advance(state["trace"], seen, noise)
        else:
            seen = Step(*(r.reshape((K, B, -1)) for r in seen))
            trace, G = _fold(ops, advance, state["trace"], (seen, noise), None if factors else shape)
        grads = cell.by_parameter(ops, G) | {"W_out": Outer(e, out)}
        if cell.bias:
            grads["c"] = xp.sum(e, axis=0)
        hidden = None if cell.decorrelate == "none" else out
        state = state | {"cell": end, "trace": trace}
        return Estimate(weight @ cell.losses(ops, y, target), grads, state, hidden=hidden)

    return sum_over_chunks(ops, cell, chunk, state, batch, None if draw is None else key, chunk_size(batch))


def _fold(ops, advance, trace, xs, shape):
    """`advance` over K > 1 steps: (trace, sum of the gradients [*shape]); if `shape` is None, all factors."""
    if shape is None:
        trace, (post, pre) = ops.scan(lambda trace, x: advance(trace, *x), trace, xs)
        return trace, Outer(*(r.reshape((-1, r.shape[-1])) for r in (post, pre)))

    def step(carry, x):
        trace, total = carry
        trace, G = advance(trace, *x)
        return (trace, ops.accumulate(total, G)), None

    return ops.scan(step, (trace, ops.zeros(shape)), xs)[0]


def leaky_trace(ops: Ops, cell: Cell, P: Array, now: Step) -> Array:
    """(1-α) P + α φ'(a_t) z_tᵀ: the effect of each weight on its own unit, without recurrence, [B, n, m]."""
    z, slope = now.z[:, None, :], now.slope[:, :, None]
    return slope * z if cell.alpha == 1.0 else ops.accumulate((1.0 - cell.alpha) * P, z, slope)


def random_feedback(ops: Ops, cell: Cell, seed: int) -> Array:
    """Random feedback weights that replace W_outᵀ, [n, O]: N(0, 2/(n+O)), the distribution of W_out."""
    n, outputs = cell.hidden, cell.outputs
    scale = np.sqrt(2.0 / (n + outputs))
    return ops.from_numpy(np.random.default_rng([seed, 0xFEED]).normal(0.0, scale, (n, outputs)))


def weighted(xp: Any, post: Array, trace: Array) -> Array:
    """Σ_b post_b ⊙ trace_b, where each unit weights its row of the trace: [B, n] and [B, n, m] to [n, m]."""
    if post.shape[0] == 1:
        return post[0][:, None] * trace[0]
    return xp.sum(post[:, :, None] * trace, axis=0)
