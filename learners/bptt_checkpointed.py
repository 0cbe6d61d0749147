"""Backpropagation through time with recomputation: the gradient of BPTT in memory O(√T).

The segment is cut into chunks of about √T steps. A forward pass keeps only the state at each chunk's start.
Then the chunks are taken from last to first. A chunk's activity is computed again, reverse mode runs through
it from the adjoint λ of the later chunk, and the activity is dropped:

    chunk c:  λ_c, ∂L/∂θ += pull_back(h at the start of c, λ_{c+1})

The result equals that of BPTT up to rounding, at the cost of one more forward pass. On a stream the segment
is cut off from its past, as for `bptt`.

Source: Chen et al. 2016, arXiv 1604.06174. The recursion is `creditbench.learner.pull_back`.
"""

from dataclasses import dataclass
from math import isqrt

from creditbench.errors import require_positive
from creditbench.learner import Batch, Claims, Estimate, Learner, pull_back, rows, zero_gradients


@dataclass(frozen=True, kw_only=True)
class CheckpointedBPTT(Learner):
    id = "bptt_checkpointed"
    name = "Backpropagation through time, checkpointed"
    paper = "Chen et al. 2016, arXiv:1604.06174"
    family = "reverse mode"
    claims = Claims(unbiased=True, memory_in_T="O(√T)", time="O(n²)", memory="O(√T n B)")
    optimizer = "adam"
    lr = 1e-3

    K: int = 50  #: steps between updates on a stream

    def __post_init__(self):
        require_positive(self, "K")

    @property
    def stream_segment(self):
        return self.K

    def segment(self, ops, cell, params, state, batch, key):
        T, keeps_hidden = batch.weights.shape[0], cell.decorrelate != "none"
        size = sqrt_divisor(T)
        whole = T // size * size
        chunks = tuple(array[:whole].reshape((-1, size, *array.shape[1:])) for array in batch)

        def forward(state, chunk):
            return cell.unroll(ops, params, state, rows(Batch(*chunk)).inputs, len(chunk[0]))[0], state

        def backward(carry, xs):
            adjoint, loss, grads = carry
            state, chunk = xs
            found, adjoint = pull_back(ops, cell, params, state, Batch(*chunk), adjoint)
            grads = {name: ops.accumulate(grads[name], found.grads[name]) for name in grads}
            return (adjoint, loss + found.loss, grads), found.hidden if keeps_hidden else None

        end, starts = ops.scan(forward, state["cell"], chunks)
        adjoint = ops.zeros((batch.weights.shape[1], cell.state_size))
        carry, rest = (adjoint, ops.zeros(()), zero_gradients(ops, cell)), None
        if whole < T:
            last = tuple(array[whole:] for array in batch)
            carry, rest = backward(carry, (end, last))
            end, _ = forward(end, last)
        (_, loss, grads), hidden = ops.scan(backward, carry, (starts, chunks), reverse=True)
        if keeps_hidden:
            hidden = hidden.reshape((-1, hidden.shape[-1]))
            hidden = hidden if rest is None else ops.xp.concat((hidden, rest))
        return Estimate(loss, grads, {"cell": end}, hidden=hidden)


def sqrt_divisor(T):
    """Steps in a chunk: the largest divisor of T from about √T / 2 to √T, or √T rounded up if there is none.

    A divisor is better: a shorter last chunk would be compiled separately.
    """
    size = isqrt(T - 1) + 1 if T > 1 else 1
    return next((d for d in range(size, size // 2, -1) if T % d == 0), size)
