"""Truncated backpropagation through time: BPTT in chunks of K steps, the state carried across, its gradient not.

On a stream there is one update a chunk. On episodes the gradients of a sequence's chunks are added up at fixed
weights, so that K ≥ T is BPTT.

Source: Williams & Peng 1990, Neural Computation 2(4):490.
"""

from dataclasses import dataclass

from creditbench.errors import require_positive
from creditbench.learner import Batch, Claims, Estimate, Learner, backpropagate, zero_gradients


@dataclass(frozen=True, kw_only=True)
class TruncatedBPTT(Learner):
    id = "tbptt"
    name = "Truncated backpropagation through time"
    paper = "Williams & Peng 1990, doi:10.1162/neco.1990.2.4.490"
    family = "reverse mode"
    claims = Claims(online=True, time="O(n²)", memory="O(K n B)")
    optimizer = "adam"
    lr = 1e-3

    K: int = 10  #: steps in a chunk

    def __post_init__(self):
        require_positive(self, "K")

    @property
    def stream_segment(self):
        return self.K

    def segment(self, ops, cell, params, state, batch, key):
        steps, B = batch.weights.shape
        keep = cell.decorrelate != "none"
        if steps <= self.K:
            estimate = backpropagate(ops, cell, params, state["cell"], batch)
            return estimate._replace(state={"cell": estimate.state})

        def chunk(carry, batch):
            state, loss, grads = carry
            estimate = backpropagate(ops, cell, params, state, Batch(*batch))
            grads = {k: ops.accumulate(grads[k], estimate.grads[k]) for k in grads}
            return (estimate.state, loss + estimate.loss, grads), estimate.hidden

        carry = (state["cell"], ops.zeros(()), zero_gradients(ops, cell))
        (end, loss, grads), hidden = ops.scan_chunks(chunk, carry, batch, self.K)
        return Estimate(loss, grads, {"cell": end}, hidden=hidden if keep else None)
