"""The forward pass of a segment, and reverse mode through it."""

from __future__ import annotations

from creditbench.cells import Cell, CellState, Derivatives, back
from creditbench.learner.chunks import chunk_size, fold_chunks, rows
from creditbench.learner.contract import Batch, Estimate
from creditbench.ops.base import Array, Ops, Tree


def forward(
    ops: Ops, cell: Cell, params: Tree, state: CellState, batch: Batch
) -> tuple[CellState, Array, Array | None]:
    """(state after the segment, loss, ĥ of every step or None).

    Only a decorrelated cell keeps ĥ [R, n]. Nothing else is kept over time.

    >>> end, loss, hidden = forward(ops, cell, params, cell.start(ops, 5), batch)
    >>> tuple(end.out.shape), float(loss) > 0, hidden
    ((5, 3), True, None)
    """

    def chunk(carry, batch):
        state, loss = carry
        x, target, weight = rows(batch)
        state, unrolled = cell.unroll(ops, params, state, x, batch.weights.shape[0])
        loss = loss + weight @ cell.losses(ops, cell.readout(ops, params, unrolled.out), target)
        return (state, loss), None if cell.decorrelate == "none" else unrolled.hidden

    (after, loss), hidden = fold_chunks(ops, chunk, (state, ops.zeros(())), batch, chunk_size(batch))
    return after, loss, hidden


def backpropagate(ops: Ops, cell: Cell, params: Tree, state: CellState, batch: Batch) -> Estimate:
    """The gradient of a segment's loss by reverse mode, with a fixed start and a free end (Werbos 1990).

    >>> found = backpropagate(ops, cell, params, cell.start(ops, 5), batch)
    >>> {name: tuple(ops.dense(grad).shape) for name, grad in sorted(found.grads.items())}
    {'W_in': (3, 2), 'W_out': (1, 3), 'W_rec': (3, 3)}
    """
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
    steps. Layers are taken from the last to the first: W_inᵀ p_t of a layer is what comes back to the layer
    below in place of W_outᵀ e_t. Returns the estimate and λ_0 [B, S n]. The estimate's state is the cell's;
    its loss is the segment's own.

    >>> later = ops.zeros((5, 3))                                # nothing comes after the segment
    >>> found, earlier = pull_back(ops, cell, params, cell.start(ops, 5), batch, later)
    >>> tuple(earlier.shape)
    (5, 3)
    """
    steps = batch.weights.shape
    x, target, weight = rows(batch)

    end, unrolled = cell.unroll(ops, params, state, x, steps[0])
    y = cell.readout(ops, params, unrolled.out)
    loss = weight @ cell.losses(ops, y, target)
    e = weight[:, None] * cell.error(ops, y, target)

    posts: list[Array] = []
    adjoints: list[Array] = []
    own_grads: Tree = {}
    to_seen = e @ params["W_out"]
    for k in reversed(range(len(cell.layers))):
        layer, own = cell.layers[k], cell.of_layer(params, k)
        derivatives = layer.derivatives(ops, own, unrolled.layers[k])
        from_above = back(derivatives.out, layer.back_to_h(own, to_seen))
        last = cell.by_layer(adjoint, layer.state_size)[k]
        post, g, first = _through_time(ops, layer, own, derivatives, from_above, last, steps)
        posts.insert(0, post)
        adjoints.insert(0, first)
        if layer.phi:
            own_grads |= cell.of_all(layer.own_gradient(ops, derivatives.own, g), k)
        if k:
            to_seen = layer.back_to_input(own, post, to_seen)
    grads = cell.gradient(ops, joined(ops, posts), unrolled.presynaptic(x), e) | own_grads
    return Estimate(loss, grads, end, hidden=unrolled.hidden), joined(ops, adjoints)


def joined(ops: Ops, parts: list[Array]) -> Array:
    """The vectors of all layers as one.

    >>> tuple(joined(ops, [ops.zeros((5, 3)), ops.zeros((5, 4))]).shape)
    (5, 7)
    """
    return parts[0] if len(parts) == 1 else ops.xp.concat(parts, axis=-1)


def _through_time(
    ops: Ops,
    cell: Cell,
    params: Tree,
    derivatives: Derivatives,
    from_above: Array,
    adjoint: Array,
    steps: tuple[int, ...],
) -> tuple[Array, Array | None, Array]:
    """Reverse mode through one layer, given the gradient in its s of the same step: (p, g, λ_0)."""
    by_step = ops.tree_map(
        lambda r: r.reshape((*steps, *r.shape[1:])), (from_above, derivatives._replace(out=None, own=None))
    )

    def backward(adjoint, xs):
        from_above, now = xs
        g = from_above + adjoint
        post = back(now.slope, g)
        return cell.pull(params, now, g, post), (post, g if cell.phi else None)

    adjoint, (post, g) = ops.scan(backward, adjoint, by_step, reverse=True)
    return post.reshape((-1, cell.units)), g.reshape((-1, cell.state_size)) if cell.phi else None, adjoint
