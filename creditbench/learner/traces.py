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
    """The values of one step of B rows, from which an online rule learns.

    >>> def make(layer, own):
    ...     def advance(trace, step, noise):
    ...         print(tuple(step.z.shape), tuple(step.delta.shape))
    ...         return trace, weighted(layer, step.delta, immediate(ops, step))
    ...     return advance
    >>> state = {"cell": cell.start(ops, 5), "trace": ()}
    >>> first = batch._replace(inputs=batch.inputs[:1], targets=batch.targets[:1], weights=batch.weights[:1])
    >>> _ = online(ops, cell, params, state, first, ops.key(0), make)
    (5, 5) (5, 3)
    """

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
    make: Callable[[Cell, Tree], Callable[[Tree, Step, Any], tuple[Tree, Array | Outer]]],
    draw: Callable[[Any, int], Array] | None = None,
    factors: bool = False,
    feedback: Array | tuple[Array, ...] | None = None,
) -> Estimate:
    """The estimate of a rule that carries a trace over time and computes a gradient from it at every step.

    `make(cell, params)` returns the rule's `advance(trace, step, noise) -> (trace, G)` for a layer. G is the
    step's gradient of the M parameters of each unit, θ_i = [W_rec W_in b of each gate, φ], [n, M], summed
    over the batch; with `factors`, an `Outer` of B rows, [B, G n] and [B, m]. The readout gets its exact
    gradient, Σ_t e_t ĥ_tᵀ. The noise of a step is an entry of `draw(keys, B)`, one array per key, with equal
    parts for all layers. `feedback` [Q n, O], if given, replaces Dᵀ W_outᵀ. The state has the entries `cell`
    and `trace`; others stay as they are.

    Of several layers each has a trace of its own; `trace` and `feedback` are then tuples over them. δ_t of a
    layer comes down through the layers above at the same step, W_inᵀ slopeᵀ δ_t, and not through time.

    >>> def make(layer, own):
    ...     def advance(trace, step, noise):                     # e-prop without feedback of its own
    ...         trace = leaky_trace(ops, layer, trace, step)
    ...         return trace, weighted(layer, step.delta, trace)
    ...     return advance
    >>> state = {"cell": cell.start(ops, 5), "trace": ops.zeros((5, 3, cell.parameters))}
    >>> found = online(ops, cell, params, state, batch, ops.key(0), make)
    >>> sorted(found.grads)
    ['W_in', 'W_out', 'W_rec']
    """

    def chunk(state, batch, keys):
        K, B = batch.weights.shape
        end, unrolled, steps, e, loss = _steps(ops, cell, params, state["cell"], batch, feedback)
        noise: list[Any] = [None] * len(steps)
        if draw is not None:
            drawn = draw(keys, B)
            noise = cell.by_layer(drawn, drawn.shape[-1] // len(steps))
        traces: list[Tree] = []
        grads: Tree = {}
        for k, seen in enumerate(steps):
            layer, own = cell.layers[k], cell.of_layer(params, k)
            before = state["trace"] if len(steps) == 1 else state["trace"][k]
            advance, shape = make(layer, own), None if factors else (layer.hidden, layer.parameters)
            if K == 1:
                now = None if noise[k] is None else noise[k].reshape((B, *noise[k].shape[-1:]))
                trace, G = advance(before, seen, now)
            else:
                seen = ops.tree_map(lambda r: r.reshape((K, B, *r.shape[1:])), seen)
                trace, G = _fold(ops, advance, before, (seen, noise[k]), shape)
            traces.append(trace)
            grads |= cell.of_all(layer.by_parameter(ops, G), k)
        state = state | {"cell": end, "trace": traces[0] if len(steps) == 1 else tuple(traces)}
        return _with_readout(ops, cell, grads, e, loss, unrolled, state)

    return sum_over_chunks(ops, cell, chunk, state, batch, None if draw is None else key, chunk_size(batch))


def online_jointly(
    ops: Ops,
    cell: Cell,
    params: Tree,
    state: Tree,
    batch: Batch,
    advance: Callable[[Tree, tuple[Step, ...]], tuple[Tree, tuple[Array, ...]]],
) -> Estimate:
    """`online` for a rule without noise that follows all layers at once.

    `advance(trace, steps) -> (trace, gradients)`: of each layer the `Step`, and the gradient [n, M].

    >>> def advance(trace, steps):
    ...     trace = tuple(leaky_trace(ops, cell, P, step) for P, step in zip(trace, steps))
    ...     return trace, tuple(weighted(cell, step.delta, P) for P, step in zip(trace, steps))
    >>> state = {"cell": cell.start(ops, 5), "trace": (ops.zeros((5, 3, cell.parameters)),)}
    >>> sorted(online_jointly(ops, cell, params, state, batch, advance).grads)
    ['W_in', 'W_out', 'W_rec']
    """

    def chunk(state, batch, keys):
        KB = batch.weights.shape
        end, unrolled, steps, e, loss = _steps(ops, cell, params, state["cell"], batch, None)
        by_step = ops.tree_map(lambda r: r.reshape((*KB, *r.shape[1:])), tuple(steps))

        def step(carry, nows):
            trace, total = carry
            trace, grads = advance(trace, nows)
            added = (ops.accumulate(t, G) for t, G in zip(total, grads, strict=True))
            return (trace, tuple(added)), None

        zeros = tuple(ops.zeros((layer.hidden, layer.parameters)) for layer in cell.layers)
        trace, total = ops.scan(step, (state["trace"], zeros), by_step)[0]
        grads: Tree = {}
        for k, (layer, G) in enumerate(zip(cell.layers, total, strict=True)):
            grads |= cell.of_all(layer.by_parameter(ops, G), k)
        return _with_readout(ops, cell, grads, e, loss, unrolled, state | {"cell": end, "trace": trace})

    return sum_over_chunks(ops, cell, chunk, state, batch, None, chunk_size(batch))


def _with_readout(ops, cell, grads, e, loss, unrolled, state):
    """The estimate, with the exact gradient of the readout."""
    grads = grads | {"W_out": Outer(e, unrolled.out)}
    if cell.bias:
        grads["c"] = ops.xp.sum(e, axis=0)
    return Estimate(loss, grads, state, hidden=None if cell.decorrelate == "none" else unrolled.hidden)


def _steps(ops, cell, params, state, batch, feedback):
    """(end, unrolled, the `Step` of each layer for all R rows, e, loss) of a chunk."""
    xp, K = ops.xp, batch.weights.shape[0]
    x, target, weight = rows(batch)
    end, unrolled = cell.unroll(ops, params, state, x, K)
    y = cell.readout(ops, params, unrolled.out)
    e = weight[:, None] * cell.error(ops, y, target)
    steps: list[Step] = []
    pre, to_seen = unrolled.presynaptic(x), None if feedback is not None else e @ params["W_out"]
    for k in reversed(range(len(cell.layers))):
        layer, own = cell.layers[k], cell.of_layer(params, k)
        before, inputs = pre.before[k], pre.inputs[k]
        parts = [*([before] if layer.recurrent else []), inputs]
        z = xp.concat([*parts, xp.ones_like(inputs[:, :1])] if layer.bias else parts, axis=1)
        slope, carry, to_state, out_before, phi = layer.derivatives(ops, own, unrolled.layers[k])
        if feedback is None:
            delta = back(to_state, layer.back_to_h(own, to_seen))
            to_seen = layer.back_to_input(own, back(slope, delta), to_seen) if k else None
        else:
            weights = feedback[k] if isinstance(feedback, tuple) else feedback
            delta = back(to_state, ops.linear(e, weights))
        out = unrolled.layers[k].out
        row = Step(
            unrolled.layers[k].a,
            slope,
            carry,
            out_before,
            phi,
            z,
            out,
            target,
            weight[:, None],
            e,
            delta,
            to_state,
        )
        steps.insert(0, row)
    return end, unrolled, steps, e, weight @ cell.losses(ops, y, target)


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


def of_layers(cell: Cell, make: Callable[..., Any], *values: Any) -> Any:
    """`make(layer, *values)` of the only layer, or a tuple of it for each of several.

    Of several layers each of `values` is a tuple over them, or None.

    >>> deep = cb.make_cell("tanh", inputs=2, hidden=3, outputs=1, layers=2)
    >>> of_layers(cell, lambda layer: layer.fan_in), of_layers(deep, lambda layer: layer.fan_in)
    (5, (5, 6))
    """
    if len(cell.layers) == 1:
        return make(cell, *values)
    return tuple(
        make(layer, *(None if value is None else value[k] for value in values))
        for k, layer in enumerate(cell.layers)
    )


def immediate(ops: Ops, now: Step) -> Array:
    """Ī_t: the effect of a unit's M parameters on it in this step, [B, S n, M].

    >>> ones = ops.from_numpy(np.ones((5, 3)))
    >>> step = Step(ones, 0.5 * ones, None, None, None, ops.from_numpy(np.ones((5, 5))), *[None] * 6)
    >>> found = immediate(ops, step)                             # slope times what the weights multiply
    >>> tuple(found.shape), float(found.max())
    ((5, 3, 5), 0.5)
    """
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
    """P + Ī_t, [B, S n, M]. The caller gives up P.

    >>> ones = ops.from_numpy(np.ones((5, 3)))
    >>> step = Step(ones, 0.5 * ones, None, None, None, ops.from_numpy(np.ones((5, 5))), *[None] * 6)
    >>> float(add_immediate(ops, ops.zeros((5, 3, 5)), step).min())
    0.5
    """
    if now.slope.ndim == 2 and now.own is None:
        return ops.accumulate(P, now.z[:, None, :], now.slope[:, :, None])
    return ops.accumulate(P, immediate(ops, now))


def add_by_unit(ops: Ops, total: Array, v: Array, now: Step) -> Array:
    """`total` + vᵀ Ī_t: [B, n, M], given v [B, S n]. The caller gives up `total`.

    >>> ones = ops.from_numpy(np.ones((5, 3)))
    >>> step = Step(ones, 0.5 * ones, None, None, None, ops.from_numpy(np.ones((5, 5))), *[None] * 6)
    >>> float(add_by_unit(ops, ops.zeros((5, 3, 5)), 2.0 * ones, step).min())
    1.0
    """
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
    """H J of each unit by itself: H [B, S, S, n] or, for S = 1, [B, n]; J [B, S n, M].

    >>> H, J = ops.from_numpy(np.full((5, 3), 2.0)), ops.from_numpy(np.ones((5, 3, 4)))
    >>> float(by_unit(H, J).max())
    2.0
    """
    if H.ndim == 2:
        return H[:, :, None] * J
    B, S, _, n = H.shape
    return (H[..., None] * J.reshape((B, 1, S, n, -1))).sum(2).reshape(J.shape)


def leaky_trace(ops: Ops, cell: Cell, P: Array, now: Step) -> Array:
    """carry P + Ī_t: the effect of each weight on its own unit, without recurrence, [B, S n, M].

    >>> ones = ops.from_numpy(np.ones((5, 3)))
    >>> step = Step(ones, 0.5 * ones, None, None, None, ops.from_numpy(np.ones((5, 5))), *[None] * 6)
    >>> leaky = cb.make_cell("tanh", inputs=2, hidden=3, outputs=1, alpha=0.5)
    >>> float(leaky_trace(ops, leaky, ops.from_numpy(np.ones((5, 3, 5))), step).max())
    1.0
    """
    if cell.forgets:
        return immediate(ops, now)
    carried = (1.0 - cell.alpha) * P if now.carry is None else by_unit(now.carry, P)
    return add_immediate(ops, carried, now)


def random_feedback(ops: Ops, cell: Cell, seed: int) -> Any:
    """Random feedback weights that replace W_outᵀ, [Q n, O]: N(0, 2/(n+O)), the distribution of W_out.

    Of several layers each has weights of its own: a tuple.

    >>> tuple(random_feedback(ops, cell, seed=0).shape)
    (3, 1)
    """
    rng, outputs = np.random.default_rng([seed, 0xFEED]), cell.outputs
    scale = np.sqrt(2.0 / (cell.seen + outputs))
    return of_layers(cell, lambda layer: ops.from_numpy(rng.normal(0.0, scale, (layer.width, outputs))))


def weighted(cell: Cell, post: Array, trace: Array) -> Array:
    """Σ_b Σ_s post_b ⊙ trace_b, where each unit weights its rows of the trace.

    `post` [B, S n], `trace` [B, S n, M]; returns [n, M].

    >>> post, trace = ops.from_numpy(np.ones((5, 3))), ops.from_numpy(np.ones((5, 3, 4)))
    >>> tuple(weighted(cell, post, trace).shape), float(weighted(cell, post, trace).max())
    ((3, 4), 5.0)
    """
    if post.shape[0] == 1:
        found = post[0][:, None] * trace[0]
    else:
        found = (post[:, :, None] * trace).sum(0)
    return found if cell.S == 1 else found.reshape((cell.S, cell.hidden, -1)).sum(0)
