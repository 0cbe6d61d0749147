"""The forward pass of a segment, and reverse mode through it."""

from __future__ import annotations

from creditbench.cells import Cell, CellState
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
        state, (_, _, out) = cell.unroll(
            ops, params, state, cell.drive(ops, params, x), batch.weights.shape[0]
        )
        loss = loss + weight @ cell.losses(ops, cell.readout(ops, params, out), target)
        return (state, loss), None if cell.decorrelate == "none" else out

    (after, loss), hidden = fold_chunks(ops, chunk, (state, ops.zeros(())), batch, chunk_size(batch))
    return after, loss, hidden


def backpropagate(ops: Ops, cell: Cell, params: Tree, state: CellState, batch: Batch) -> Estimate:
    """The gradient of a segment's loss by reverse mode, with a fixed start and a free end (Werbos 1990)."""
    return pull_back(ops, cell, params, state, batch, ops.zeros((batch.weights.shape[1], cell.hidden)))[0]


def pull_back(
    ops: Ops, cell: Cell, params: Tree, state: CellState, batch: Batch, adjoint: Array
) -> tuple[Estimate, Array]:
    """A segment's part of the gradient by reverse mode, given the gradient of later losses in its end state.

        λ_t = ∂L_{>t}/∂h_t                                  λ_K: `adjoint` [B, n]
        g_t = Dᵀ W_outᵀ e_t + λ_t                           ∂L/∂h_t, with e_t = w_t ∂ℓ_t/∂y_t
        s_t = α tanh'(a_t) ⊙ g_t                            ∂L/∂a_t
        λ_{t-1} = Dᵀ W_recᵀ s_t + (1-α) g_t
        ∂L/∂W_rec = Σ_t s_t ĥ_{t-1}ᵀ   ∂L/∂W_in = Σ_t s_t x̂_tᵀ   ∂L/∂W_out = Σ_t e_t ĥ_tᵀ

    The reverse pass carries one vector per row. The gradient of each weight matrix is one product over all
    steps. Returns the estimate and λ_0 [B, n]. The estimate's state is the cell's; its loss is the segment's
    own.
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
