"""Sparse n-step approximation, n = 1: influence is kept only where a weight acts on its own unit.

    J_t = diag(H_t) ⊙ J_{t-1} + α φ'(a_t) z_tᵀ       J: [n, m], row i holds ∂h_i/∂θ_i
    diag(H_t) = (1-α) + α φ'(a_t) diag(W_rec D)      z_t = [ĥ_{t-1}, x̂_t, 1]
    ∂L/∂θ ≈ Σ_t δ_t ⊙ J_t

This is RTRL if W_rec D is diagonal. Otherwise it is biased: influence by way of other units is left out.

Source: Menick et al. 2021, arXiv 2006.07232.
"""

from dataclasses import dataclass

from creditbench.learner import Claims, Learner, online, weighted


@dataclass(frozen=True, kw_only=True)
class SnAp1(Learner):
    id = "snap1"
    name = "Sparse one-step approximation of RTRL"
    paper = "Menick et al. 2021, arXiv:2006.07232"
    family = "influence"
    claims = Claims(online=True, forward_only=True, time="O(p)", memory="O(p)")

    def init(self, ops, cell, params, batch_size):
        J = ops.zeros((batch_size, cell.hidden, cell.presynaptic))
        return {"cell": cell.start(ops, batch_size), "trace": J}

    def segment(self, ops, cell, params, state, batch, key):
        W, D, alpha = params["W_rec"], params.get("D"), cell.alpha
        own = ops.xp.linalg.diagonal(W) if D is None else ops.xp.sum(W * D.T, axis=1)

        def advance(J, now, _):
            H = now.slope * own if alpha == 1.0 else (1.0 - alpha) + now.slope * own
            J = ops.accumulate(H[:, :, None] * J, now.z[:, None, :], now.slope[:, :, None])
            return J, weighted(ops.xp, now.delta, J)

        return online(ops, cell, params, state, batch, key, advance)
