"""The forward pass of a segment, and reverse mode through it."""

from __future__ import annotations

from creditbench.cells import Cell, CellState, back
from creditbench.learner.chunks import chunk_size, fold_chunks, rows
from creditbench.learner.contract import Batch, Estimate
from creditbench.ops.base import Array, Ops, Tree


def forward(
    ops: Ops, cell: Cell, params: Tree, state: CellState, batch: Batch
) -> tuple[CellState, Array, Array | None]:
    """(state after the segment, loss, ĥ of every step or None).

    Only a decorrelated cell keeps ĥ [R, n]. Nothing else is kept over time.
    """

    def chunk(carry, batch):
        state, loss = carry
        x, target, weight = rows(batch)
        state, unrolled = cell.unroll(ops, params, state, x, batch.weights.shape[0])
        out = unrolled.out
        loss = loss + weight @ cell.losses(ops, cell.readout(ops, params, out), target)
        return (state, loss), None if cell.decorrelate == "none" else out

    (after, loss), hidden = fold_chunks(ops, chunk, (state, ops.zeros(())), batch, chunk_size(batch))
    return after, loss, hidden


def backpropagate(ops: Ops, cell: Cell, params: Tree, state: CellState, batch: Batch) -> Estimate:
    """The gradient of a segment's loss by reverse mode, with a fixed start and a free end (Werbos 1990)."""
    return pull_back(ops, cell, params, state, batch, ops.zeros((batch.weights.shape[1], cell.state_size)))[0]


def pull_back(
    ops: Ops, cell: Cell, params: Tree, state: CellState, batch: Batch, adjoint: Array
) -> tuple[Estimate, Array]:
    """A segment's part of the gradient by reverse mode, given the gradient of later losses in its end state.

        λ_t = ∂L_{>t}/∂s_t                                  λ_K: `adjoint` [B, S n]
        g_t = ∂h_t/∂s_tᵀ Dᵀ W_outᵀ e_t + λ_t                ∂L/∂s_t, with e_t = w_t ∂ℓ_t/∂y_t
        p_t = slopeᵀ g_t                                    ∂L/∂a_t
        λ_{t-1} = ∂h_{t-1}/∂s_{t-1}ᵀ Dᵀ W_recᵀ p_t + carryᵀ g_t
        ∂L/∂W_rec = Σ_t p_t ĥ_{t-1}ᵀ   ∂L/∂W_in = Σ_t p_t x̂_tᵀ   ∂L/∂W_out = Σ_t e_t ĥ_tᵀ

    The reverse pass carries one vector per row. The gradient of each weight matrix is one product over all
    steps. Returns the estimate and λ_0 [B, S n]. The estimate's state is the cell's; its loss is the
    segment's own.
    """
    steps = batch.weights.shape
    x, target, weight = rows(batch)

    end, unrolled = cell.unroll(ops, params, state, x, steps[0])
    y = cell.readout(ops, params, unrolled.out)
    loss = weight @ cell.losses(ops, y, target)
    e = weight[:, None] * cell.error(ops, y, target)

    derivatives = cell.derivatives(ops, params, unrolled)
    from_readout = back(derivatives.out, cell.feedback(params, e))
    by_step = ops.tree_map(
        lambda r: r.reshape((*steps, *r.shape[1:])), (from_readout, derivatives._replace(out=None, own=None))
    )

    def backward(adjoint, xs):
        from_readout, now = xs
        g = from_readout + adjoint
        post = back(now.slope, g)
        return cell.pull(params, now, g, post), (post, g if cell.phi else None)

    adjoint, (post, g) = ops.scan(backward, adjoint, by_step, reverse=True)
    post = post.reshape((-1, cell.units))
    grads = cell.gradient(ops, post, x, unrolled.before, e, unrolled.out)
    if cell.phi:
        grads |= cell.own_gradient(ops, derivatives.own, g.reshape((-1, cell.state_size)))
    return Estimate(loss, grads, end, hidden=unrolled.out), adjoint
