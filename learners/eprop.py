"""e-prop: a leaky eligibility trace of each synapse, credited with a learning signal of its unit.

    P_t = carry_t P_{t-1} + slope_t z_tᵀ             [S n, M];  z_t = [ĥ_{t-1}, x̂_t, 1]
    ∂L/∂θ ≈ Σ_t l_t ∂h_t/∂s_t P_t                    e_t = w_t ∂ℓ_t/∂y_t

    feedback = symmetric     l_t = Dᵀ W_outᵀ e_t
    feedback = random        l_t = B e_t, with a fixed B [n, O], drawn once from N(0, 2/(n+O)) as W_out is
    feedback = adaptive      the same, but B follows the readout: B ← (1-λ) B - η Σ_b ĥ_t e_tᵀ

The trace is the part of RTRL's influence that does not go through recurrent weights: the eligibility vector
of an adaptive spiking unit; in a tanh unit a leaky average, with carry 1-α and slope α φ'(a_t). It is the
trace of `rflo`. The readout has no leak, so no leak filters the trace. An adaptive B is kept after a
sequence. It learns at its own rate η, independent of the optimiser of W_out. W_out itself does not decay.
Without recurrent weights, symmetric feedback makes this RTRL.

Source: Bellec et al. 2020, Nat. Commun. 11:3625.
"""

from dataclasses import dataclass
from typing import Literal

from creditbench.cell import back
from creditbench.errors import UsageError, require_one_of, require_positive
from creditbench.learner import Claims, Learner, leaky_trace, of_layers, online, random_feedback, weighted
from creditbench.ops import Outer


@dataclass(frozen=True, kw_only=True)
class EProp(Learner):
    id = "eprop"
    name = "e-prop"
    paper = "Bellec et al. 2020, doi:10.1038/s41467-020-17236-y"
    family = "eligibility trace"
    claims = Claims(
        online=True, forward_only=True, time="O(p)", memory="O(p)", without_recurrence={"unbiased": True}
    )

    feedback: Literal["symmetric", "random", "adaptive"] = "symmetric"
    feedback_seed: int = 0  #: draws B
    feedback_rate: float = 1e-2  #: η
    feedback_decay: float = 1e-4  #: λ, at each step

    def __post_init__(self):
        require_one_of(self, "feedback", ("symmetric", "random", "adaptive"))
        require_positive(self, "feedback_rate")
        if not 0 <= self.feedback_decay < 1:
            raise UsageError(f"feedback_decay is {self.feedback_decay!r}: EProp needs a number in [0, 1)")

    def init(self, ops, cell, params, batch_size):
        B = None if self.feedback == "symmetric" else random_feedback(ops, cell, self.feedback_seed)

        def start(layer, B):
            return ops.zeros((batch_size, layer.state_size, layer.parameters)), B

        return {"cell": cell.start(ops, batch_size), "trace": of_layers(cell, start, B)}

    def reset(self, ops, cell, params, state, batch_size):
        fresh = self.init(ops, cell, params, batch_size)
        trace = of_layers(cell, lambda _, fresh, old: (fresh[0], old[1]), fresh["trace"], state["trace"])
        return fresh | {"trace": trace}

    def segment(self, ops, cell, params, state, batch, key):
        adaptive = self.feedback == "adaptive"

        def make(cell, params):
            def advance(trace, now, _):
                P, B = trace
                P = leaky_trace(ops, cell, P, now)
                G = weighted(cell, back(now.to_state, ops.linear(now.e, B)) if adaptive else now.delta, P)
                if adaptive:
                    decayed = (1.0 - self.feedback_decay) * B
                    B = ops.accumulate(decayed, Outer(now.out[:, : cell.width], now.e), -self.feedback_rate)
                return (P, B), G

            return advance

        fixed = None
        if self.feedback == "random":
            fixed = of_layers(cell, lambda _, trace: trace[1], state["trace"])
        return online(ops, cell, params, state, batch, key, make, feedback=fixed)
