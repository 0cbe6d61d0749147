"""How a network is trained: the contract of a learning rule, and what rules share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from math import prod
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
    memory_in_T: Literal["O(1)", "O(√T)", "O(T)"] = "O(1)"
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
    search: ClassVar[
        dict[str, tuple[float, float]]
    ] = {}  #: field -> (low, high) that `tune` tries, log-uniform
    backends: ClassVar[frozenset[str]] = frozenset({"jax", "torch"})
    decorrelates: ClassVar[bool] = True  #: whether `Decorrelated` may go with it
    decorrelation: ClassVar[Literal["after", "before"]] = "after"  #: when D moves in a segment
    couples_rows: ClassVar[str] = (
        ""  #: why the estimate of a batch is not the sum of its rows', where it is not
    )

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
    key: Key | None,
    size: int,
) -> Estimate:
    """Run `estimate(state, batch, keys)` on chunks of `size` steps, the state carried on; losses and gradients add up.

    What a chunk keeps over time is given up with it, except the hidden activity when the cell is decorrelated. The
    keys of its steps, one each, are split from `key` as it comes: all of them at once would grow with the segment.
    A rule without noise has no `key`.
    """

    def split(key: Key, batch: Batch) -> Any:
        return None if key is None else ops.split(key, batch.weights.shape[0])

    if batch.weights.shape[0] <= size:
        return estimate(state, batch, split(key, batch))

    def chunk(carry, part):
        state, loss, grads, key = carry
        key, own = (None, None) if key is None else ops.split(key)
        part = Batch(*part)
        found = estimate(state, part, split(own, part))
        grads = {name: ops.accumulate(grads[name], found.grads[name]) for name in grads}
        return (found.state, loss + found.loss, grads, key), found.hidden if keeps_hidden else None

    keeps_hidden = cell.decorrelate != "none"
    carry = state, ops.zeros(()), zero_gradients(ops, cell), key
    (state, loss, grads, _), hidden = ops.scan_chunks(chunk, carry, tuple(batch), size)
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


def fold_chunks(
    ops: Ops, f: Callable[[Tree, Batch], tuple[Tree, Tree]], carry: Tree, batch: Batch, size: int
) -> tuple[Tree, Tree]:
    """Fold `f(carry, chunk) -> (carry, hidden)` over chunks of `size` steps; `hidden` is ĥ [R, n] or None."""
    if batch.weights.shape[0] <= size:
        return f(carry, batch)
    return ops.scan_chunks(lambda carry, part: f(carry, Batch(*part)), carry, tuple(batch), size)


def forward(
    ops: Ops, cell: Cell, params: Tree, state: CellState, batch: Batch
) -> tuple[CellState, Array, Array | None]:
    """(state after the segment, loss, ĥ of every step or None), nothing else kept over time.

    ĥ [R, n] is kept when the cell is decorrelated.
    """

    def chunk(carry, batch):
        state, loss = carry
        x, target, weight = rows(batch)
        state, (_, _, out) = cell.unroll(
            ops, params, state, cell.drive(ops, params, x), batch.weights.shape[0]
        )
        loss = loss + weight @ cell.losses(ops, cell.readout(ops, params, out), target)
        return (state, loss), None if cell.decorrelate == "none" else out

    (after, loss), hidden = fold_chunks(ops, chunk, (state, ops.zeros(())), batch, chunk_size(batch))
    return after, loss, hidden


def backpropagate(ops: Ops, cell: Cell, params: Tree, state: CellState, batch: Batch) -> Estimate:
    """The gradient of a segment's loss by reverse mode, its start held fixed and its end free (Werbos 1990)."""
    return pull_back(ops, cell, params, state, batch, ops.zeros((batch.weights.shape[1], cell.hidden)))[0]


def pull_back(
    ops: Ops, cell: Cell, params: Tree, state: CellState, batch: Batch, adjoint: Array
) -> tuple[Estimate, Array]:
    """A segment's part of the gradient by reverse mode, given what its end means to the loss of later steps.

        λ_t = ∂L_{>t}/∂h_t                                  λ_K: `adjoint` [B, n]
        g_t = Dᵀ W_outᵀ e_t + λ_t                           ∂L/∂h_t, with e_t = w_t ∂ℓ_t/∂y_t
        s_t = α tanh'(a_t) ⊙ g_t                            ∂L/∂a_t
        λ_{t-1} = Dᵀ W_recᵀ s_t + (1-α) g_t
        ∂L/∂W_rec = Σ_t s_t ĥ_{t-1}ᵀ   ∂L/∂W_in = Σ_t s_t x̂_tᵀ   ∂L/∂W_out = Σ_t e_t ĥ_tᵀ

    The reverse pass carries one vector a row; the gradients of the weights are one product over all steps. Returns
    the estimate, whose state is the cell's and whose loss is the segment's own, and λ_0 [B, n].
    """
    xp, alpha = ops.xp, cell.alpha
    steps, n = (*batch.weights.shape, cell.hidden), cell.hidden
    x, target, weight = rows(batch)

    end, (a, before, out) = cell.unroll(ops, params, state, cell.drive(ops, params, x), steps[0])
    y = cell.readout(ops, params, out)
    loss = weight @ cell.losses(ops, y, target)
    e = weight[:, None] * cell.error(ops, y, target)

    from_readout = cell.feedback(params, e).reshape(steps)
    slope = (alpha * (1.0 - xp.tanh(a) ** 2)).reshape(steps)

    def backward(adjoint, xs):
        from_readout, slope = xs
        g = from_readout + adjoint
        s = slope * g
        adjoint = cell.back_through_recurrence(params, s)
        return adjoint if alpha == 1.0 else adjoint + (1.0 - alpha) * g, s

    adjoint, s = ops.scan(backward, adjoint, (from_readout, slope), reverse=True)
    grads = cell.gradient(ops, s.reshape((-1, n)), x, before, e, out)
    return Estimate(loss, grads, end, hidden=out), adjoint


# -- perturbed parameters --------------------------------------------------------------------------------


def unflatten(flat: Array, shapes: dict[str, tuple[int, ...]]) -> Tree:
    """Vectors [..., p] as one array [..., *shape] a name; no copies."""
    ends = list(accumulate(prod(shape) for shape in shapes.values()))
    return {
        name: flat[..., start:end].reshape((*flat.shape[:-1], *shape))
        for (name, shape), start, end in zip(shapes.items(), [0, *ends], ends, strict=False)
    }


def flat_size(shapes: dict[str, tuple[int, ...]]) -> int:
    """p: the length of the vector that `unflatten` takes apart."""
    return sum(prod(shape) for shape in shapes.values())


def antithetic_start(ops: Ops, state: CellState, pairs: int) -> CellState:
    """The state of B rows, once for each member of each of P pairs: 2PB rows, as `antithetic_slopes` has them."""

    def repeat(array):
        rows, n = array.shape
        return ops.xp.broadcast_to(array, (2 * pairs, rows, n)).reshape((-1, n))

    return ops.tree_map(repeat, state)


def antithetic_slopes(
    ops: Ops,
    cell: Cell,
    params: Tree,
    change: dict[str, Any],
    sigma: float,
    state: CellState,
    batch: Batch,
) -> tuple[CellState, Array]:
    """The slopes (L(θ + σ V_i) - L(θ - σ V_i)) / 2σ of a segment's loss, its P pairs of networks run as one batch.

        a = θ-part + V_i (±σ ĥ_{t-1}) + V_i (±σ x̂_t) ± σ v_b

    The θ-part is one product over all 2PB rows and the V-part one over both members of a pair, so that the weights
    of no member are formed. `change`: the V_i, by name of a parameter; of a matrix the function x -> V_i x of rows
    [P or 1, R, columns], of a bias the array [P, rows]. `state`: 2PB rows, by pair, sign (+ first) and sequence.
    Returns the new state and the slopes [P].
    """
    xp, n, B = ops.xp, cell.hidden, batch.weights.shape[1]
    P = state.h.shape[0] // (2 * B)
    sign = sigma * ops.from_numpy(np.array([1.0, -1.0]).reshape((2, 1, 1)))

    def chunk(carry, batch):
        state, losses = carry
        K = batch.weights.shape[0]
        x, target, weight = rows(batch)
        moved = change["W_in"](x[None])
        if cell.bias:
            moved = moved + change["b"][:, None]
        moved = xp.permute_dims(moved.reshape((P, K, 1, B, n)), (1, 0, 2, 3, 4))
        drive = cell.drive(ops, params, x).reshape((K, 1, 1, B, n)) + sign * moved

        def step(state, drive):
            signed = (sign * state.out.reshape((P, 2, B, n))).reshape((P, 2 * B, n))
            _, after = cell.step(ops, params, state, drive + change["W_rec"](signed).reshape((-1, n)))
            return after, after.out

        state, out = ops.scan(step, state, drive.reshape((K, -1, n)))
        by_pair = xp.permute_dims(out.reshape((K, P, 2, B, n)), (1, 0, 2, 3, 4))  # [P, K, 2, B, n]
        y = change["W_out"]((sign * by_pair).reshape((P, -1, n))).reshape((P, K, 2, B, -1))
        if cell.bias:
            y = y + sign * change["c"][:, None, None, None]
        y = y + cell.readout(ops, params, by_pair.reshape((-1, n))).reshape(y.shape)
        found = cell.losses(ops, y, target.reshape((K, 1, B, -1)))
        return (state, losses + (weight.reshape((K, 1, B)) * found).sum((1, 3))), None

    (after, losses), _ = fold_chunks(ops, chunk, (state, ops.zeros((P, 2))), batch, chunk_size(batch))
    return after, (losses[:, 0] - losses[:, 1]) / (2.0 * sigma)


# -- online rules ----------------------------------------------------------------------------------------


class Step(NamedTuple):
    """What an online rule learns from at one step of B rows."""

    a: Array  #: pre-activation, [B, n]
    slope: Array  #: α φ'(a_t) = ∂h_t/∂a_t, [B, n]
    z: Array  #: presynaptic [ĥ_{t-1}, x̂_t, 1], the 1 where the cell has a bias, [B, m]
    out: Array  #: ĥ_t, [B, n]
    target: Array  #: y*_t, [B, O]
    weight: Array  #: w_t, [B, 1]
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

    D moves after the segment, by the activity that the rule saw; or, of a rule whose `decorrelation` is "before", by
    that of a clean pass of its own, after which the rule has the segment with the new D.
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
        raw, batch = batch, batch._replace(inputs=cell.encode(params, batch.inputs))
        if self.learner.decorrelation == "before":
            hidden = forward(ops, cell, params, state["clean"], batch)[2]
            moved = self.moved(ops, params, hidden, batch.inputs)
            batch = raw._replace(inputs=cell.encode(params | moved, raw.inputs))
            estimate = self.learner.segment(ops, cell, params | moved, state, batch, key)
            return estimate._replace(assigned=estimate.assigned | moved)
        estimate = self.learner.segment(ops, cell, params, state, batch, key)
        if estimate.hidden is None:
            raise TypeError(
                f"{type(self.learner).__name__}.segment returned no hidden activity for a decorrelated cell"
            )
        moved = self.moved(ops, params, estimate.hidden, batch.inputs)
        return estimate._replace(assigned=estimate.assigned | moved)

    def moved(self, ops: Ops, params: Tree, hidden: Any, inputs: Array) -> Tree:
        """D, and D_in where there is one, after a step against the correlation of ĥ and of x̂."""
        moved = {"D": decorrelated(ops, params["D"], hidden, self.rate)}
        if "D_in" in params:
            moved["D_in"] = decorrelated(ops, params["D_in"], inputs, self.rate)
        return moved


def decorrelated(ops: Ops, D: Array, activity: Array, rate: float) -> Array:
    """D after one step against the correlation of decorrelated activity [..., n]."""
    activity = activity.reshape((-1, activity.shape[-1]))
    scale = rate / activity.shape[0]
    power = (activity * activity).sum(0)
    return ops.accumulate(D * (1.0 + scale * power)[:, None], Outer(activity, activity @ D), -scale)
