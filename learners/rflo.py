"""Random feedback local online learning: a leaky trace of each synapse, credited through random feedback.

    P_t = (1-α) P_{t-1} + α φ'(a_t) z_tᵀ             [n, m];  z_t = [ĥ_{t-1}, x̂_t, 1]
    ∂L/∂θ ≈ Σ_t (B_fb e_t) ⊙ P_t                     e_t = w_t ∂ℓ_t/∂y_t

Beside what RTRL has, the trace leaves out all influence through the recurrent weights, and the feedback B_fb [n, O]
stands for Dᵀ W_outᵀ. It is drawn once, N(0, 2/(n+O)) as W_out is, and fixed. With B_fb = W_outᵀ the rule is `eprop`
with symmetric feedback.

Source: Murray 2019, eLife 8:e43299.
"""

from dataclasses import dataclass

import numpy as np

from creditbench.learner import Claims, Learner, online, weighted


@dataclass(frozen=True, kw_only=True)
class RFLO(Learner):
    id = "rflo"
    name = "Random feedback local online learning"
    paper = "Murray 2019, doi:10.7554/eLife.43299"
    family = "eligibility trace"
    claims = Claims(online=True, forward_only=True, time="O(p)", memory="O(p)")

    feedback_seed: int = 0  #: draws B_fb

    def init(self, ops, cell, params, batch_size):
        n, O = cell.hidden, cell.outputs  # noqa: E741
        B_fb = np.random.default_rng(self.feedback_seed).normal(0.0, np.sqrt(2.0 / (n + O)), (n, O))
        P = ops.zeros((batch_size, n, cell.presynaptic))
        return {"cell": cell.start(ops, batch_size), "trace": P, "feedback": ops.from_numpy(B_fb)}

    def reset(self, ops, cell, params, state, batch_size):
        return self.init(ops, cell, params, batch_size) | {"feedback": state["feedback"]}

    def segment(self, ops, cell, params, state, batch, key):
        B_fb, alpha = state["feedback"], cell.alpha

        def advance(P, now, _):
            z, slope = now.z[:, None, :], now.slope[:, :, None]
            P = slope * z if alpha == 1.0 else ops.accumulate((1.0 - alpha) * P, z, slope)
            return P, weighted(ops.xp, ops.linear(now.e, B_fb), P)

        estimate = online(ops, cell, params, state, batch, key, advance)
        return estimate._replace(state=estimate.state | {"feedback": B_fb})
