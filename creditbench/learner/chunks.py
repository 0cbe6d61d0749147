"""A segment in chunks of steps, so that memory does not grow with its length."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from creditbench.cells import Cell
from creditbench.learner.contract import Batch, Estimate
from creditbench.ops.base import Key, Ops, Tree

#: How many rows of rank-one gradients are kept and then added up in one product. So many let the product run
#: at full speed. The number does not depend on the length of the segment.
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
    """Run `estimate(state, batch, keys)` on chunks of `size` steps, and add up losses and gradients.

    The state is carried from chunk to chunk. The values that a chunk keeps over time are dropped after it,
    except the hidden activity of a decorrelated cell. The keys of its steps, one each, are split from `key`
    when the chunk starts: all keys at once would grow with the segment. A rule without noise has no `key`.

    >>> def estimate(state, part, keys):
    ...     return backpropagate(ops, cell, params, state, part)
    >>> found = sum_over_chunks(ops, cell, estimate, cell.start(ops, 5), batch, None, size=2)
    >>> whole = estimate(cell.start(ops, 5), batch, None)
    >>> float(found.loss - whole.loss)
    0.0
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
    """Steps in a chunk of at most `ROWS_KEPT` rows.

    A divisor of K if there is one near: a shorter last chunk would be compiled separately.

    >>> chunk_size(cb.make_batch(ops, np.ones((100, 8, 2)), np.ones((100, 8, 1))))
    5
    """
    K, B = batch.weights.shape
    size = max(1, ROWS_KEPT // B)
    return next((d for d in range(size, size // 2, -1) if K % d == 0), size)


def zero_gradients(ops: Ops, cell: Cell) -> Tree:
    """A gradient of zeros, to which others are added.

    >>> {name: tuple(zeros.shape) for name, zeros in sorted(zero_gradients(ops, cell).items())}
    {'W_in': (3, 2), 'W_out': (1, 3), 'W_rec': (3, 3)}
    """
    return {name: ops.zeros(shape) for name, shape in cell.shapes().items()}


def rows(batch: Batch) -> Batch:
    """The batch with its K steps of B sequences as R = K·B rows: [R, I], [R, O], [R].

    >>> [tuple(array.shape) for array in rows(batch)]
    [(20, 2), (20, 1), (20,)]
    """
    x, target, weight = batch
    return Batch(x.reshape((-1, x.shape[-1])), target.reshape((-1, target.shape[-1])), weight.reshape((-1,)))


def fold_chunks(
    ops: Ops, f: Callable[[Tree, Batch], tuple[Tree, Tree]], carry: Tree, batch: Batch, size: int
) -> tuple[Tree, Tree]:
    """Fold `f(carry, chunk) -> (carry, hidden)` over chunks of `size` steps; `hidden` is ĥ [R, n] or None.

    >>> def add(total, chunk):
    ...     return total + chunk.weights.sum(), None
    >>> total, _ = fold_chunks(ops, add, ops.zeros(()), batch, size=3)
    >>> round(float(total), 6)
    1.0
    """
    if batch.weights.shape[0] <= size:
        return f(carry, batch)
    return ops.scan_chunks(lambda carry, part: f(carry, Batch(*part)), carry, tuple(batch), size)
