"""Random feedback local online learning: a leaky trace of each synapse, credited through random feedback.

    P_t = carry_t P_{t-1} + slope_t z_tᵀ             [S n, M];  z_t = [ĥ_{t-1}, x̂_t, 1]
    ∂L/∂θ ≈ Σ_t (B_fb e_t) ∂h_t/∂s_t P_t             e_t = w_t ∂ℓ_t/∂y_t;  tanh: carry 1-α, slope α φ'(a_t)

Unlike RTRL, the trace leaves out all influence through the recurrent weights, and the feedback B_fb [n, O]
replaces Dᵀ W_outᵀ. B_fb is drawn once, from N(0, 2/(n+O)) as W_out is, and fixed. With B_fb = W_outᵀ the rule
is `eprop` with symmetric feedback.

Source: Murray 2019, eLife 8:e43299.
"""

from dataclasses import dataclass

from creditbench.learner import Claims, Learner, leaky_trace, of_layers, online, random_feedback, weighted


@dataclass(frozen=True, kw_only=True)
class RFLO(Learner):
    id = "rflo"
    name = "Random feedback local online learning"
    paper = "Murray 2019, doi:10.7554/eLife.43299"
    family = "eligibility trace"
    claims = Claims(online=True, forward_only=True, time="O(p)", memory="O(p)")

    feedback_seed: int = 0  #: draws B_fb

    def init(self, ops, cell, params, batch_size):
        P = of_layers(cell, lambda layer: ops.zeros((batch_size, layer.state_size, layer.parameters)))
        B_fb = random_feedback(ops, cell, self.feedback_seed)
        return {"cell": cell.start(ops, batch_size), "trace": P, "feedback": B_fb}

    def reset(self, ops, cell, params, state, batch_size):
        return self.init(ops, cell, params, batch_size) | {"feedback": state["feedback"]}

    def segment(self, ops, cell, params, state, batch, key):
        def make(cell, params):
            def advance(P, now, _):
                P = leaky_trace(ops, cell, P, now)
                return P, weighted(cell, now.delta, P)

            return advance

        return online(ops, cell, params, state, batch, key, make, feedback=state["feedback"])
