"""My rule: the gradient through the current step alone, as in a simple recurrent network.

    e_t = w_t ∂ℓ_t/∂y_t                              error of a step
    δ_t = ∂h_t/∂s_tᵀ Dᵀ W_outᵀ e_t                   its gradient in the state of each unit
    ∂L/∂θ ≈ Σ_t (g slope_tᵀ δ_t) z_tᵀ                θ = [W_rec W_in b];  z_t = [ĥ_{t-1}, x̂_t, 1]

slope_t is ∂s_t/∂a_t: α φ'(a_t) for a tanh cell. ĥ_{t-1} counts as constant: no credit goes to an earlier
step. The readout gets its exact gradient.

Source: Elman 1990, Cognitive Science 14(2):179.
"""

from dataclasses import dataclass

from creditbench.cell import back
from creditbench.errors import require_positive
from creditbench.learner import Claims, Learner, of_layers, online
from creditbench.ops import Outer


@dataclass(frozen=True, kw_only=True)
class MyRule(Learner):
    id = "my_rule"
    name = "My rule"
    paper = "Elman 1990, doi:10.1207/s15516709cog1402_1"
    family = "one step"
    # `creditbench check` tests these claims.
    claims = Claims(online=True, forward_only=True, memory_in_T="O(1)", time="O(n²)", memory="O(n B)")
    lr = 1e-2
    search = {"gain": (0.1, 10.0)}  # noqa: RUF012 - what `creditbench tune` tries beside the learning rate

    gain: float = 1.0  #: g, a hyper-parameter: `--set my_rule.gain=0.5`

    def __post_init__(self):
        require_positive(self, "gain")

    def init(self, ops, cell, params, batch_size):
        # The state before the first segment. Each layer carries a `trace` from step to step: here nothing.
        return {"cell": cell.start(ops, batch_size), "trace": of_layers(cell, lambda layer: None)}

    def segment(self, ops, cell, params, state, batch, key):
        # `online` runs the cell, asks `make` once for each layer, and calls what it returns at each step of B
        # rows; `now` has the step's a, slope, carry, z, e, delta.
        def make(cell, params):
            def advance(trace, now, noise):
                return trace, Outer(self.gain * back(now.slope, now.delta), now.z)

            return advance

        return online(ops, cell, params, state, batch, key, make, factors=True)
