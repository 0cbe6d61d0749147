"""Feedback alignment through time: reverse mode whose errors come back through random weights.

    g_t = B_out e_t + B_rec s_{t+1} + (1-α) g_{t+1}          with e_t = w_t ∂ℓ_t/∂y_t
    s_t = α tanh'(a_t) ⊙ g_t
    ∂L/∂W_rec ≈ Σ_t s_t ĥ_{t-1}ᵀ   ∂L/∂W_in ≈ Σ_t s_t x̂_tᵀ   ∂L/∂W_out = Σ_t e_t ĥ_tᵀ

This is `bptt` on the network unrolled in time, with B_out [n, O] in place of Dᵀ W_outᵀ and B_rec [n, n] in
place of Dᵀ W_recᵀ. They are drawn once, from N(0, 2/(n+O)) and N(0, 1/n) as W_out and W_rec are, and fixed.
The forward weights may align with them or not. With B_rec = 0 errors go back in time only through the leak.

Source: Lillicrap et al. 2016, Nature Communications 7:13276.
"""

from dataclasses import dataclass

import numpy as np

from creditbench.errors import require_positive
from creditbench.learner import Claims, Estimate, Learner, random_feedback, rows


@dataclass(frozen=True, kw_only=True)
class FeedbackAlignment(Learner):
    id = "feedback_alignment"
    name = "Feedback alignment through time"
    paper = "Lillicrap et al. 2016, doi:10.1038/ncomms13276"
    family = "reverse mode"
    claims = Claims(memory_in_T="O(T)", time="O(n²)", memory="O(T n B)")
    optimizer = "adam"
    lr = 1e-3

    K: int = 50  #: steps between updates on a stream
    feedback_seed: int = 0  #: draws B_out and B_rec

    def __post_init__(self):
        require_positive(self, "K")

    @property
    def stream_segment(self):
        return self.K

    def init(self, ops, cell, params, batch_size):
        n, rng = cell.hidden, np.random.default_rng([self.feedback_seed, 0xFA])
        B_rec = ops.from_numpy(rng.normal(0.0, n**-0.5, (n, n)))
        return {
            "cell": cell.start(ops, batch_size),
            "B_out": random_feedback(ops, cell, self.feedback_seed),
            "B_rec": B_rec,
        }

    def reset(self, ops, cell, params, state, batch_size):
        return state | {"cell": cell.start(ops, batch_size)}

    def segment(self, ops, cell, params, state, batch, key):
        steps, n = (*batch.weights.shape, cell.hidden), cell.hidden
        x, target, weight = rows(batch)
        end, unrolled = cell.unroll(ops, params, state["cell"], cell.drive(ops, params, x), steps[0])
        y = cell.readout(ops, params, unrolled.out)
        e = weight[:, None] * cell.error(ops, y, target)

        def backward(carry, now):
            from_next, g_next = carry
            from_readout, slope = now
            g = from_readout + from_next
            if cell.alpha != 1.0:
                g = g + (1.0 - cell.alpha) * g_next
            s = slope * g
            return (ops.linear(s, state["B_rec"]), g), s

        xs = ops.linear(e, state["B_out"]).reshape(steps), cell.slope(ops, unrolled).reshape(steps)
        nothing = ops.zeros(steps[1:])
        _, s = ops.scan(backward, (nothing, nothing), xs, reverse=True)
        grads = cell.gradient(ops, s.reshape((-1, n)), x, unrolled.before, e, unrolled.out)
        loss = weight @ cell.losses(ops, y, target)
        return Estimate(loss, grads, state | {"cell": end}, hidden=unrolled.out)
