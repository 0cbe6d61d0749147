"""A segment in chunks of steps, so that what is kept over time does not grow with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from creditbench.cells import Cell
from creditbench.learner.contract import Batch, Estimate
from creditbench.ops.base import Key, Ops, Tree

#: How many rows of rank-one gradients are kept before they are added up in one product: enough for the
#: product to run at full speed, and no function of the length of the segment.
ROWS_KEPT = 64


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

    What a chunk keeps over time is given up with it, except the hidden activity when the cell is
    decorrelated. The keys of its steps, one each, are split from `key` as it comes: all of them at once would
    grow with the segment. A rule without noise has no `key`.
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
