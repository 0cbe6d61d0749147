"""Forward gradient: the slope of the loss along one random direction, by one forward-mode pass.

With v ~ N(0, I) over all trained parameters, drawn once per segment, the tangents run beside the activity:

    ȧ_t = W_rec ĥ̇_{t-1} + V_rec ĥ_{t-1} + V_in x̂_t + v_b
    ḣ_t = (1-α) ḣ_{t-1} + α tanh'(a_t) ⊙ ȧ_t           ĥ̇_t = D ḣ_t
    ẏ_t = W_out ĥ̇_t + V_out ĥ_t + v_c
    L̇   = Σ_t e_t · ẏ_t                                 with e_t = w_t ∂ℓ_t/∂y_t;  L̇ = ∇L · v, exactly
    ∂L/∂θ ≈ L̇ v

E[v vᵀ] = I makes this unbiased, at any scale of v. The variance comes from seeing all directions through one:
the squared error is (p + 1) ‖∇L‖². Nothing is kept over time. The state carried on is the network's own. The
tangent starts from zero in each segment, so on a stream the estimate is for the segment's loss with a fixed
start.

Source: Baydin et al. 2022, arXiv 2202.08587; Silver et al. 2022, ICLR.
"""

from dataclasses import dataclass

from creditbench.cell import CellState
from creditbench.errors import require_positive
from creditbench.learner import Claims, Estimate, Learner, chunk_size, flat_size, fold_chunks, rows, unflatten


@dataclass(frozen=True, kw_only=True)
class ForwardGradient(Learner):
    id = "forward_gradient"
    name = "Forward gradient"
    paper = "Baydin et al. 2022, arXiv:2202.08587"
    family = "perturbation"
    claims = Claims(unbiased=True, forward_only=True, time="O(n²)", memory="O(p)")
    lr = 1e-4

    K: int = 50  #: steps between updates on a stream

    def __post_init__(self):
        require_positive(self, "K")

    @property
    def stream_segment(self):
        return self.K

    def segment(self, ops, cell, params, state, batch, key):
        xp, alpha, shapes = ops.xp, cell.alpha, cell.shapes()
        v = ops.normal(key, (flat_size(shapes),))
        V = unflatten(v, shapes)

        def chunk(carry, batch):
            state, tangent, loss, slope = carry
            (K, B), n = batch.weights.shape, cell.hidden
            x, target, weight = rows(batch)
            state, (a, before, out) = cell.unroll(ops, params, state, cell.drive(ops, params, x), K)
            gain = alpha * (1.0 - xp.tanh(a) ** 2)
            pushed = ops.linear(before, V["W_rec"], cell.drive(ops, V, x))

            def step(tangent, xs):
                gain, pushed = xs
                h = gain * ops.linear(tangent.out, params["W_rec"], pushed)
                if alpha != 1.0:
                    h = h + (1.0 - alpha) * tangent.h
                h_hat = None if cell.decorrelate == "none" else ops.linear(h, params["D"])
                tangent = CellState(h, h_hat)
                return tangent, tangent.out

            tangent, out_dot = ops.scan(step, tangent, (gain.reshape((K, B, n)), pushed.reshape((K, B, n))))
            y = cell.readout(ops, params, out)
            y_dot = ops.linear(out_dot.reshape((-1, n)), params["W_out"], cell.readout(ops, V, out))
            loss = loss + weight @ cell.losses(ops, y, target)
            slope = slope + weight @ (cell.error(ops, y, target) * y_dot).sum(-1)
            return (state, tangent, loss, slope), None if cell.decorrelate == "none" else out

        start = (state["cell"], cell.start(ops, batch.weights.shape[1]), ops.zeros(()), ops.zeros(()))
        (after, _, loss, slope), hidden = fold_chunks(ops, chunk, start, batch, chunk_size(batch))
        v *= slope
        return Estimate(loss, unflatten(v, shapes), {"cell": after}, hidden=hidden)
