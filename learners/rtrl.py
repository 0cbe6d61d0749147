"""Real-time recurrent learning: the exact influence of every parameter on every unit, carried forward.

    J_t = H_t J_{t-1} + Ī_t                              J: ∂s_t/∂θ, [S n, p]
    H_t = carry_t + slope_t W_rec D ∂h_{t-1}/∂s_{t-1}    ∂s_t/∂s_{t-1};  tanh: (1-α) + α φ'(a_t) W_rec D
    Ī_t: slope_t z_t of a unit's own weights, else 0;    z_t = [ĥ_{t-1}, x̂_t, 1]
    ∂L/∂θ = Σ_t δ_t J_t                                  δ_t = ∂L_t/∂s_t

H J is one product over [S n, n M], with M parameters a unit. Ī is added on the diagonal of J [S, n, n, M].
Where no unit sees another (no W_rec), J is 0 but for a unit's own parameters: it is kept as [S n, M], and the
rule is exact in time and memory O(p).

At fixed weights the sum over a segment is the gradient of the segment's loss. It includes the effects of
weights at steps before the segment, which the influence carries. With an update at every step the influence
is partly that of older weights.

Source: Williams & Zipser 1989, Neural Computation 1(2):270; without W_rec: Zucchet et al. 2023, arXiv
2305.15947.
"""

from dataclasses import dataclass

from creditbench.learner import Claims, Learner, immediate, leaky_trace, online, weighted


@dataclass(frozen=True, kw_only=True)
class RTRL(Learner):
    id = "rtrl"
    name = "Real-time recurrent learning"
    paper = "Williams & Zipser 1989, doi:10.1162/neco.1989.1.2.270"
    family = "influence"
    claims = Claims(unbiased=True, online=True, forward_only=True, time="O(n²p)", memory="O(n p)")

    def init(self, ops, cell, params, batch_size):
        columns = cell.parameters * (cell.hidden if cell.recurrent else 1)
        J = ops.zeros((batch_size, cell.state_size, columns))
        return {"cell": cell.start(ops, batch_size), "trace": J}

    def segment(self, ops, cell, params, state, batch, key):
        n, M, size = cell.hidden, cell.parameters, cell.state_size

        def own_alone(J, now, _):
            J = leaky_trace(ops, cell, J, now)
            return J, weighted(cell, now.delta, J)

        def advance(J, now, _):
            B = J.shape[0]
            H = cell.transition(ops, W, now)
            HJ = (H[0] @ J[0]) if B == 1 else H @ J  # a batched product of one matrix is slower
            own = immediate(ops, now).reshape((-1, n, M))
            J = ops.add_diagonal(HJ.reshape((-1, n, n, M)), own).reshape((B, size, n * M))
            G = now.delta.reshape((1, B * size)) @ J.reshape((B * size, n * M))
            return J, G.reshape((n, M))

        if not cell.recurrent:
            return online(ops, cell, params, state, batch, key, own_alone)
        W = cell.recurrence_matrix(ops, params)
        return online(ops, cell, params, state, batch, key, advance)
