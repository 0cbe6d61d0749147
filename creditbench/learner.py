"""How a network is trained: the contract of a learning rule, and what rules share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from creditbench.cell import Cell, CellState
from creditbench.ops.base import Array, Key, NumpyTree, Ops, Outer, Tree

#: How many rows of rank-one gradients are kept before they are added up in one product: enough for the product
#: to run at full speed, and no function of the length of the segment.
ROWS_KEPT = 64


class Batch(NamedTuple):
    """A segment of K steps of B sequences."""

    inputs: Array  #: [K, B, I]
    targets: Array  #: [K, B, O]
    weights: Array  #: [K, B]; scaled by the harness so that L = Σ w ℓ; 0: the step is not scored


class Estimate(NamedTuple):
    """What a rule makes of a segment."""

    loss: Array  #: L = Σ_t Σ_b w_tb ℓ_tb, scalar
    grads: Tree  #: name of a parameter -> array of its shape, or `Outer`; a parameter left out is not trained
    state: Tree  #: carried to the next segment
    assigned: Tree = {}  #: name of a parameter -> new value, for a rule that sets it itself  # noqa: RUF012
    hidden: Array | None = None  #: ĥ of every step, [R, n]; only a decorrelated cell needs it


@dataclass(frozen=True)
class Claims:
    """What a rule claims of itself; every claim is tested."""

    unbiased: bool = False  #: the expected estimate is the gradient of the segment's loss
    online: bool = False  #: may update at every step, without looking ahead or going back
    forward_only: bool = False  #: runs no reverse pass
    memory_in_T: Literal["O(1)", "O(T)"] = "O(1)"
    time: str = "O(n²)"  #: of one step
    memory: str = "O(p)"  #: beyond the weights


@dataclass(frozen=True, kw_only=True)
class Learner:
    """A learning rule. Its fields are its hyper-parameters; its class attributes are its metadata."""

    id: ClassVar[str]
    name: ClassVar[str]
    paper: ClassVar[str]  #: authors, year, DOI or arXiv number
    family: ClassVar[str]
    claims: ClassVar[Claims]
    optimizer: ClassVar[str] = "sgd"  #: default optimiser
    lr: ClassVar[float] = 1e-2  #: default learning rate
    backends: ClassVar[frozenset[str]] = frozenset({"jax", "torch"})
    decorrelates: ClassVar[bool] = True  #: whether `Decorrelated` may go with it

    @property
    def stream_segment(self) -> int:
        """Steps between updates on a stream, unless the trial says otherwise."""
        return 1

    def weights(self, cell: Cell, params: NumpyTree) -> NumpyTree:
        """The weights that training starts from, given those that the cell drew; a rule may prune them."""
        return params

    def init(self, ops: Ops, cell: Cell, params: Tree, batch_size: int) -> Tree:
        """The state before the first segment."""
        return {"cell": cell.start(ops, batch_size)}

    def reset(self, ops: Ops, cell: Cell, params: Tree, state: Tree, batch_size: int) -> Tree:
        """The state before the first step of new sequences; a rule keeps here what it has learned."""
        return self.init(ops, cell, params, batch_size)

    def segment(self, ops: Ops, cell: Cell, params: Tree, state: Tree, batch: Batch, key: Key) -> Estimate:
        """The gradient estimate of one segment. Pure: it changes none of its arguments.

        When the cell is decorrelated, the inputs come decorrelated.
        """
        raise NotImplementedError


# -- what rules share ------------------------------------------------------------------------------------


def sum_over_chunks(
    ops: Ops,
    cell: Cell,
    estimate: Callable[[Tree, Batch, Any], Estimate],
    state: Tree,
    batch: Batch,
    keys: Any,
    size: int,
) -> Estimate:
    """Run `estimate(state, batch, keys)` on chunks of `size` steps, the state carried on; losses and gradients add up.

    What a chunk keeps over time is given up with it, except the hidden activity when the cell is decorrelated.
    """
    if batch.weights.shape[0] <= size:
        return estimate(state, batch, keys)

    def chunk(carry, xs):
        state, loss, grads = carry
        part, keys = xs
        found = estimate(state, Batch(*part), keys)
        grads = {name: ops.accumulate(grads[name], found.grads[name]) for name in grads}
        return (found.state, loss + found.loss, grads), found.hidden

    carry = state, ops.zeros(()), zero_gradients(ops, cell)
    (state, loss, grads), hidden = ops.scan_chunks(chunk, carry, (tuple(batch), keys), size)
    return Estimate(loss, grads, state, hidden=hidden)


def chunk_size(batch: Batch) -> int:
    """Steps in a chunk of at most `ROWS_KEPT` rows; where it can be, a divisor of K: a rest is compiled apart."""
    K, B = batch.weights.shape
    size = max(1, ROWS_KEPT // B)
    return next((d for d in range(size, size // 2, -1) if K % d == 0), size)


def zero_gradients(ops: Ops, cell: Cell) -> Tree:
    """A gradient of zeros to add to."""
    return {name: ops.zeros(shape) for name, shape in cell.shapes().items()}


def rows(batch: Batch) -> Batch:
    """The batch with its K steps of B sequences as R = K·B rows: [R, I], [R, O], [R]."""
    x, target, weight = batch
    return Batch(x.reshape((-1, x.shape[-1])), target.reshape((-1, target.shape[-1])), weight.reshape((-1,)))


def backpropagate(ops: Ops, cell: Cell, params: Tree, state: CellState, batch: Batch) -> Estimate:
    """The gradient of a segment's loss by reverse mode, its start held fixed (Werbos 1990).

        g_t = Dᵀ (W_outᵀ e_t + W_recᵀ s_{t+1}) + (1-α) g_{t+1}        ∂L/∂h_t, with e_t = w_t ∂ℓ_t/∂y_t
        s_t = α tanh'(a_t) ⊙ g_t                                       ∂L/∂a_t
        ∂L/∂W_rec = Σ_t s_t ĥ_{t-1}ᵀ   ∂L/∂W_in = Σ_t s_t x̂_tᵀ   ∂L/∂W_out = Σ_t e_t ĥ_tᵀ

    The reverse pass carries vectors only; the gradients of the weights are one product over all steps. The state
    of the estimate is the cell's.
    """
    xp, alpha = ops.xp, cell.alpha
    steps, n = (*batch.weights.shape, cell.hidden), cell.hidden
    x, target, weight = rows(batch)

    end, (a, before, out) = cell.unroll(ops, params, state, cell.drive(ops, params, x), steps[0])
    y = cell.readout(ops, params, out)
    loss = weight @ cell.losses(ops, y, target)
    e = weight[:, None] * cell.error(ops, y, target)

    from_readout = (e @ params["W_out"]).reshape(steps)
    slope = (alpha * (1.0 - xp.tanh(a) ** 2)).reshape(steps)

    def backward(carry, xs):
        g, s = carry
        from_readout, slope = xs
        g_hat = from_readout + s @ params["W_rec"]
        to_h = g_hat @ params["D"] if "D" in params else g_hat
        g = to_h if alpha == 1.0 else to_h + (1.0 - alpha) * g
        s = slope * g
        return (g if alpha != 1.0 else None, s), s

    zeros = ops.zeros(steps[1:])
    _, s = ops.scan(backward, (zeros if alpha != 1.0 else None, zeros), (from_readout, slope), reverse=True)
    grads = cell.gradient(ops, s.reshape((-1, n)), x, before, e, out)
    return Estimate(loss, grads, end, hidden=out)


# -- online rules ----------------------------------------------------------------------------------------


class Step(NamedTuple):
    """What an online rule learns from at one step of B rows."""

    a: Array  #: pre-activation, [B, n]
    slope: Array  #: α φ'(a_t) = ∂h_t/∂a_t, [B, n]
    z: Array  #: presynaptic [ĥ_{t-1}, x̂_t, 1], the 1 where the cell has a bias, [B, m]
    out: Array  #: ĥ_t, [B, n]
    target: Array  #: y*_t, [B, O]
    e: Array  #: w_t ∂ℓ_t/∂y_t, [B, O]
    delta: Array  #: δ_t = Dᵀ W_outᵀ e_t = ∂L_t/∂h_t, or what stands for it, [B, n]


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
    """The estimate of a rule that carries a trace over time, and makes of it a gradient at every step.

    `advance(trace, step, noise) -> (trace, G)`: G is that step's gradient of θ = [W_rec W_in b], [n, m], summed over
    the batch; with `factors`, an `Outer` of B rows. The readout gets its exact gradient, Σ_t e_t ĥ_tᵀ. The noise of
    a step is an entry of `draw(keys, B)`, one array a key. `feedback` [n, O] stands for Dᵀ W_outᵀ where given. The
    state has the entries `cell` and `trace`; others stay as they are.
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
        seen = Step(a, cell.slope(ops, unrolled), z, out, target, e, delta)
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

    keys = None if draw is None else ops.split(key, batch.weights.shape[0])
    return sum_over_chunks(ops, cell, chunk, state, batch, keys, chunk_size(batch))


def _fold(ops, advance, trace, xs, shape):
    """`advance` over K > 1 steps: (trace, sum of the gradients [*shape]), or for `shape` None all factors."""
    if shape is None:
        trace, (post, pre) = ops.scan(lambda trace, x: advance(trace, *x), trace, xs)
        return trace, Outer(*(r.reshape((-1, r.shape[-1])) for r in (post, pre)))

    def step(carry, x):
        trace, total = carry
        trace, G = advance(trace, *x)
        return (trace, ops.accumulate(total, G)), None

    return ops.scan(step, (trace, ops.zeros(shape)), xs)[0]


def leaky_trace(ops: Ops, cell: Cell, P: Array, now: Step) -> Array:
    """(1-α) P + α φ'(a_t) z_tᵀ: what each weight has done to its own unit, recurrence left out, [B, n, m]."""
    z, slope = now.z[:, None, :], now.slope[:, :, None]
    return slope * z if cell.alpha == 1.0 else ops.accumulate((1.0 - cell.alpha) * P, z, slope)


def random_feedback(ops: Ops, cell: Cell, seed: int) -> Array:
    """What stands for W_outᵀ where feedback has weights of its own, [n, O]: N(0, 2/(n+O)), as W_out is drawn."""
    n, outputs = cell.hidden, cell.outputs
    scale = np.sqrt(2.0 / (n + outputs))
    return ops.from_numpy(np.random.default_rng([seed, 0xFEED]).normal(0.0, scale, (n, outputs)))


def weighted(xp: Any, post: Array, trace: Array) -> Array:
    """Σ_b post_b ⊙ trace_b, each row of a trace weighted with its unit's: [B, n] and [B, n, m] to [n, m]."""
    if post.shape[0] == 1:
        return post[0][:, None] * trace[0]
    return xp.sum(post[:, :, None] * trace, axis=0)


# -- decorrelation ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Decorrelated:
    """Any rule, with its cell's activity decorrelated as it learns (Ahmad et al. 2023; Dalm et al. 2023).

        ΔD = -η offdiag(⟨ĥ ĥᵀ⟩) D        ⟨⟩ over batch and steps of the segment

    and the same for D_in on x̂ where the input is decorrelated too. The product is never formed at n×n×n:
    with the R = K·B rows Ĥ [R, n], offdiag(⟨ĥ ĥᵀ⟩) D = Ĥᵀ (Ĥ D) / R - diag(⟨ĥ²⟩) D, which is O(R n²).
    """

    learner: Learner
    rate: float  #: η

    def weights(self, cell: Cell, params: NumpyTree) -> NumpyTree:
        return self.learner.weights(cell, params)

    def init(self, ops: Ops, cell: Cell, params: Tree, batch_size: int) -> Tree:
        return self.learner.init(ops, cell, params, batch_size)

    def reset(self, ops: Ops, cell: Cell, params: Tree, state: Tree, batch_size: int) -> Tree:
        return self.learner.reset(ops, cell, params, state, batch_size)

    def segment(self, ops: Ops, cell: Cell, params: Tree, state: Tree, batch: Batch, key: Key) -> Estimate:
        batch = batch._replace(inputs=cell.encode(params, batch.inputs))
        estimate = self.learner.segment(ops, cell, params, state, batch, key)
        if estimate.hidden is None:
            raise TypeError(
                f"{type(self.learner).__name__}.segment returned no hidden activity for a decorrelated cell"
            )
        assigned = estimate.assigned | {"D": decorrelated(ops, params["D"], estimate.hidden, self.rate)}
        if "D_in" in params:
            assigned["D_in"] = decorrelated(ops, params["D_in"], batch.inputs, self.rate)
        return estimate._replace(assigned=assigned)


def decorrelated(ops: Ops, D: Array, activity: Array, rate: float) -> Array:
    """D after one step against the correlation of decorrelated activity [..., n]."""
    activity = activity.reshape((-1, activity.shape[-1]))
    scale = rate / activity.shape[0]
    power = (activity * activity).sum(0)
    return ops.accumulate(D * (1.0 + scale * power)[:, None], Outer(activity, activity @ D), -scale)
