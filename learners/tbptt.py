"""Truncated backpropagation through time: BPTT in chunks of K steps, with no gradient between chunks.

The state is carried from chunk to chunk. On a stream there is one update per chunk. On episodes the gradients
of a sequence's chunks are added up at fixed weights, so that K ≥ T is BPTT.

Source: Williams & Peng 1990, Neural Computation 2(4):490.
"""

from dataclasses import dataclass

from creditbench.errors import require_positive
from creditbench.learner import Claims, Learner, backpropagate, sum_over_chunks


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
        def chunk(state, batch, _):
            return backpropagate(ops, cell, params, state, batch)

        estimate = sum_over_chunks(ops, cell, chunk, state["cell"], batch, None, self.K)
        return estimate._replace(state={"cell": estimate.state})
