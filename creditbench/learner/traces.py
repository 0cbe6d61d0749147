"""Rules that carry a trace forward in time and compute a gradient from it at every step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from creditbench.cells import Cell, back
from creditbench.learner.chunks import chunk_size, rows, sum_over_chunks
from creditbench.learner.contract import Batch, Estimate
from creditbench.ops.base import Array, Key, Ops, Outer, Tree


class Step(NamedTuple):
    """The values of one step of B rows, from which an online rule learns."""

    a: Array  #: pre-activation, [B, G n]
    slope: Array  #: ∂s_t/∂a_t, with the axes of `Derivatives`, as the next three
    carry: Array | None  #: ∂s_t/∂s_{t-1}; None where it is the constant 1-α
    out_before: Array | None  #: ∂h_{t-1}/∂s_{t-1}; None where h = s
    own: Array | None  #: ∂s_t/∂φ; None without φ
    z: Array  #: presynaptic [ĥ_{t-1}, x̂_t, 1], with ĥ and the 1 only if the cell has weights of them, [B, m]
    out: Array  #: what the readout sees, ĥ_t, [B, Q n]
    target: Array  #: y*_t, [B, O]
    weight: Array  #: w_t, [B, 1]
    e: Array  #: w_t ∂ℓ_t/∂y_t, [B, O]
    delta: Array  #: δ_t = ∂L_t/∂s_t = ∂h/∂sᵀ Dᵀ W_outᵀ e_t, or its stand-in by `feedback`, [B, S n]
    to_state: Array | None  #: ∂h_t/∂s_t; None where h = s


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

    `advance(trace, step, noise) -> (trace, G)`: G is that step's gradient of the M parameters of each unit,
    θ_i = [W_rec W_in b of each gate, φ], [n, M], summed over the batch; with `factors`, an `Outer` of B rows,
    [B, G n] and [B, m]. The readout gets its exact gradient, Σ_t e_t ĥ_tᵀ. The noise of a step is an entry of
    `draw(keys, B)`, one array per key. `feedback` [Q n, O], if given, replaces Dᵀ W_outᵀ. The state has the
    entries `cell` and `trace`; others stay as they are.
    """
    xp, shape = ops.xp, (cell.hidden, cell.parameters)

    def chunk(state, batch, keys):
        K, B = batch.weights.shape
        x, target, weight = rows(batch)
        end, unrolled = cell.unroll(ops, params, state["cell"], x, K)
        a, before, out, _ = unrolled
        y = cell.readout(ops, params, out)
        e = weight[:, None] * cell.error(ops, y, target)
        parts = [*([before] if cell.recurrent else []), x]
        z = xp.concat([*parts, xp.ones_like(x[:, :1])] if cell.bias else parts, axis=1)
        slope, carry, to_state, out_before, own = cell.derivatives(ops, params, unrolled)
        delta = back(to_state, cell.feedback(params, e) if feedback is None else ops.linear(e, feedback))
        seen = Step(a, slope, carry, out_before, own, z, out, target, weight[:, None], e, delta, to_state)
        noise = None if draw is None else draw(keys, B)
        if K == 1:
            noise = None if noise is None else noise.reshape((B, *noise.shape[-1:]))
            trace, G = advance(state["trace"], seen, noise)
        else:
            seen = ops.tree_map(lambda r: r.reshape((K, B, *r.shape[1:])), seen)
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


def immediate(ops: Ops, now: Step) -> Array:
    """Ī_t: the effect of a unit's M parameters on it in this step, [B, S n, M]."""
    xp, z = ops.xp, now.z
    if now.slope.ndim == 2:
        found = now.slope[:, :, None] * z[:, None, :]
    else:
        B, S, G, n = now.slope.shape
        slope = xp.permute_dims(now.slope, (0, 1, 3, 2)).reshape((B, S * n, G, 1))
        found = (slope * z[:, None, None, :]).reshape((B, S * n, G * z.shape[1]))
    if now.own is None:
        return found
    B, _, F, _ = now.own.shape
    own = xp.permute_dims(now.own, (0, 1, 3, 2)).reshape((B, -1, F))
    return xp.concat((found, own), axis=2)


def add_immediate(ops: Ops, P: Array, now: Step) -> Array:
    """P + Ī_t, [B, S n, M]. The caller gives up P."""
    if now.slope.ndim == 2 and now.own is None:
        return ops.accumulate(P, now.z[:, None, :], now.slope[:, :, None])
    return ops.accumulate(P, immediate(ops, now))


def add_by_unit(ops: Ops, total: Array, v: Array, now: Step) -> Array:
    """`total` + vᵀ Ī_t: [B, n, M], given v [B, S n]. The caller gives up `total`."""
    z, post = now.z[:, None, :], back(now.slope, v)
    if now.slope.ndim == 2 and now.own is None:
        return ops.accumulate(total, z, post[:, :, None])
    xp, (B, n, _) = ops.xp, total.shape
    found = (xp.permute_dims(post.reshape((B, -1, n)), (0, 2, 1))[..., None] * z[:, None]).reshape((B, n, -1))
    if now.own is not None:
        own = back(now.own, v).reshape((B, -1, n))
        found = xp.concat((found, xp.permute_dims(own, (0, 2, 1))), axis=2)
    return ops.accumulate(total, found)


def by_unit(H: Array, J: Array) -> Array:
    """H J of each unit by itself: H [B, S, S, n] or, for S = 1, [B, n]; J [B, S n, M]."""
    if H.ndim == 2:
        return H[:, :, None] * J
    B, S, _, n = H.shape
    return (H[..., None] * J.reshape((B, 1, S, n, -1))).sum(2).reshape(J.shape)


def leaky_trace(ops: Ops, cell: Cell, P: Array, now: Step) -> Array:
    """carry P + Ī_t: the effect of each weight on its own unit, without recurrence, [B, S n, M]."""
    if cell.forgets:
        return immediate(ops, now)
    carried = (1.0 - cell.alpha) * P if now.carry is None else by_unit(now.carry, P)
    return add_immediate(ops, carried, now)


def random_feedback(ops: Ops, cell: Cell, seed: int) -> Array:
    """Random feedback weights that replace W_outᵀ, [Q n, O]: N(0, 2/(n+O)), the distribution of W_out."""
    outputs = cell.outputs
    scale = np.sqrt(2.0 / (cell.seen + outputs))
    return ops.from_numpy(np.random.default_rng([seed, 0xFEED]).normal(0.0, scale, (cell.width, outputs)))


def weighted(cell: Cell, post: Array, trace: Array) -> Array:
    """Σ_b Σ_s post_b ⊙ trace_b, where each unit weights its rows of the trace.

    `post` [B, S n], `trace` [B, S n, M]; returns [n, M].
    """
    if post.shape[0] == 1:
        found = post[0][:, None] * trace[0]
    else:
        found = (post[:, :, None] * trace).sum(0)
    return found if cell.S == 1 else found.reshape((cell.S, cell.hidden, -1)).sum(0)
