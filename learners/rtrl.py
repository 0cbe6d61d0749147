"""Real-time recurrent learning: the exact influence of every weight on every unit, carried forward in time.

    J_t = H_t J_{t-1} + Ī_t                              J: ∂h_t/∂θ, [n, p]
    H_t = (1-α) I + α diag(φ'(a_t)) W_rec D              ∂h_t/∂h_{t-1}
    Ī_t: (Ī_t)_k,(ij) = α φ'(a_t)_i z_j where k = i, else 0;  z_t = [ĥ_{t-1}, x̂_t, 1]
    ∂L/∂θ = Σ_t δ_t J_t

H J is one product over [n, n m]. Ī is never formed: it is added on the diagonal k = i of J [n, n, m]. At
fixed weights the sum over a segment is the gradient of the segment's loss. It includes the effects of weights
at steps before the segment, which the influence carries. With an update at every step the influence is partly
that of older weights.

Source: Williams & Zipser 1989, Neural Computation 1(2):270.
"""

from dataclasses import dataclass

from creditbench.learner import Claims, Learner, online


@dataclass(frozen=True, kw_only=True)
class RTRL(Learner):
    id = "rtrl"
    name = "Real-time recurrent learning"
    paper = "Williams & Zipser 1989, doi:10.1162/neco.1989.1.2.270"
    family = "influence"
    claims = Claims(unbiased=True, online=True, forward_only=True, time="O(n²p)", memory="O(n p)")

    def init(self, ops, cell, params, batch_size):
        J = ops.zeros((batch_size, cell.hidden, cell.hidden * cell.presynaptic))
        return {"cell": cell.start(ops, batch_size), "trace": J}

    def segment(self, ops, cell, params, state, batch, key):
        n, m, alpha = cell.hidden, cell.presynaptic, cell.alpha
        W = params["W_rec"] @ params["D"] if "D" in params else params["W_rec"]

        def advance(J, now, _):
            B = J.shape[0]
            H = now.slope[:, :, None] * W
            if alpha != 1.0:
                H = ops.add_diagonal(H, (1.0 - alpha) * ops.xp.ones_like(now.slope))
            immediate = now.slope[:, :, None] * now.z[:, None, :]
            HJ = (H[0] @ J[0]) if B == 1 else H @ J  # a batched product of one matrix is slower
            J = ops.add_diagonal(HJ.reshape((B, n, n, m)), immediate).reshape((B, n, n * m))
            G = now.delta.reshape((1, B * n)) @ J.reshape((B * n, n * m))
            return J, G.reshape((n, m))

        return online(ops, cell, params, state, batch, key, advance)
