"""How a network is trained: the contract of a learning rule, and what rules share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

from creditbench.cell import Cell, CellState
from creditbench.ops.base import Array, Key, Ops, Outer, Tree

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
    search: ClassVar[
        dict[str, tuple[float, float]]
    ] = {}  #: field -> (low, high) that `tune` tries, log-uniform
    backends: ClassVar[frozenset[str]] = frozenset({"jax", "torch"})
    decorrelates: ClassVar[bool] = True  #: whether `Decorrelated` may go with it

    @property
    def stream_segment(self) -> int:
        """Steps between updates on a stream, unless the trial says otherwise."""
        return 1

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
