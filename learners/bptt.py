"""Backpropagation through time: reverse mode through the whole segment.

    g_t = ∂h_t/∂s_tᵀ Dᵀ (W_outᵀ e_t + W_recᵀ p_{t+1}) + carryᵀ g_{t+1}     with e_t = w_t ∂ℓ_t/∂y_t
    p_t = slopeᵀ g_t                                                       tanh: α tanh'(a_t) ⊙ g_t
    ∂L/∂W_rec = Σ_t p_t ĥ_{t-1}ᵀ

On episodes this is the gradient of the loss. On a stream the segment is cut off from its past: BPTT on
segments of K steps is truncated BPTT(K), with one update every K steps.

Source: Werbos 1990, Proc. IEEE 78(10):1550. The recursion itself is `creditbench.learner.backpropagate`,
because every other rule is measured against it.
"""

from dataclasses import dataclass

from creditbench.errors import require_positive
from creditbench.learner import Claims, Learner, backpropagate


@dataclass(frozen=True, kw_only=True)
class BPTT(Learner):
    id = "bptt"
    name = "Backpropagation through time"
    paper = "Werbos 1990, doi:10.1109/5.58337"
    family = "reverse mode"
    claims = Claims(unbiased=True, memory_in_T="O(T)", time="O(n²)", memory="O(T n B)")
    optimizer = "adam"
    lr = 1e-3

    K: int = 50  #: steps between updates on a stream

    def __post_init__(self):
        require_positive(self, "K")

    @property
    def stream_segment(self):
        return self.K

    def segment(self, ops, cell, params, state, batch, key):
        estimate = backpropagate(ops, cell, params, state["cell"], batch)
        return estimate._replace(state={"cell": estimate.state})
