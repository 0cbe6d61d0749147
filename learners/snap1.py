"""Sparse n-step approximation, n = 1: influence is kept only where a weight acts on its own unit.

    J_t = own(H_t) J_{t-1} + slope_t z_tᵀ            J: [S n, M], the rows of unit i hold ∂s_i/∂θ_i
    own(H_t) = carry_t + slope_t diag(W_rec D) ∂h_{t-1}/∂s_{t-1}      z_t = [ĥ_{t-1}, x̂_t, 1]
    ∂L/∂θ ≈ Σ_t δ_t J_t                              tanh: own(H_t) = (1-α) + α φ'(a_t) diag(W_rec D)

own(H) is what H has of each unit on itself. This is RTRL if W_rec D is diagonal, or not there. Otherwise it
is biased: influence by way of other units is left out.

Source: Menick et al. 2021, arXiv 2006.07232.
"""

from dataclasses import dataclass

from creditbench.learner import (
    Claims,
    Learner,
    add_immediate,
    by_unit,
    leaky_trace,
    of_layers,
    online,
    weighted,
)


@dataclass(frozen=True, kw_only=True)
class SnAp1(Learner):
    id = "snap1"
    name = "Sparse one-step approximation of RTRL"
    paper = "Menick et al. 2021, arXiv:2006.07232"
    family = "influence"
    claims = Claims(
        online=True, forward_only=True, time="O(p)", memory="O(p)", without_recurrence={"unbiased": True}
    )

    def init(self, ops, cell, params, batch_size):
        J = of_layers(cell, lambda layer: ops.zeros((batch_size, layer.state_size, layer.parameters)))
        return {"cell": cell.start(ops, batch_size), "trace": J}

    def segment(self, ops, cell, params, state, batch, key):
        def make(cell, params):
            own = cell.own_recurrence(ops, params) if cell.recurrent else None

            def advance(J, now, _):
                if own is None:
                    J = leaky_trace(ops, cell, J, now)
                else:
                    J = add_immediate(ops, by_unit(cell.own_transition(ops, own, now), J), now)
                return J, weighted(cell, now.delta, J)

            return advance

        return online(ops, cell, params, state, batch, key, make)
