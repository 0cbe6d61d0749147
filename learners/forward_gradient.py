"""Forward gradient: the slope of the loss along one random direction, by one forward-mode pass.

With v ~ N(0, I) over all trained parameters, drawn once per segment, the tangents run beside the activity:

    ȧ_t = W_rec ĥ̇_{t-1} + V_rec ĥ_{t-1} + V_in x̂_t + v_b
    ṡ_t = carry_t ṡ_{t-1} + slope_t ȧ_t + ∂s_t/∂φ v_φ       tanh: (1-α) ḣ_{t-1} + α tanh'(a_t) ⊙ ȧ_t
    ĥ̇_t = D ∂h_t/∂s_t ṡ_t
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

from creditbench.cell import through
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
        shapes = cell.shapes()
        v = ops.normal(key, (flat_size(shapes),))
        V = unflatten(v, shapes)

        def chunk(carry, batch):
            state, tangent, loss, slope = carry
            K, B = batch.weights.shape
            x, target, weight = rows(batch)
            state, unrolled = cell.unroll(ops, params, state, x, K)
            out, now = unrolled.out, cell.derivatives(ops, params, unrolled)
            pushed = cell.drive(ops, V, x)
            W = None
            if cell.recurrent:
                pushed = ops.linear(unrolled.before, cell.recurrent_weights(ops, V), pushed)
                W = cell.recurrent_weights(ops, params)
            pushed_own = None
            if cell.phi:
                v_phi = ops.xp.concat([V[name] for name in cell.phi])
                pushed_own = through(now.own, ops.xp.broadcast_to(v_phi, (K * B, len(v_phi))))

            def step(tangent, xs):
                s, h_hat = tangent
                now, pushed, pushed_own = xs
                moved = through(now.slope, pushed if W is None else ops.linear(h_hat, W, pushed))
                if not cell.forgets:
                    moved = moved + cell.carried(now, s)
                s = moved if pushed_own is None else moved + pushed_own
                h_hat = through(now.out, s)
                h_hat = h_hat if cell.decorrelate == "none" else ops.linear(h_hat, params["D"])
                return (s, h_hat), h_hat

            xs = now._replace(out_before=None, own=None), pushed, pushed_own
            xs = ops.tree_map(lambda r: r.reshape((K, B, *r.shape[1:])), xs)
            tangent, out_dot = ops.scan(step, tangent, xs)
            y = cell.readout(ops, params, out)
            out_dot = out_dot.reshape((-1, cell.width))
            y_dot = ops.linear(out_dot, cell.readout_weights(params), cell.readout(ops, V, out))
            loss = loss + weight @ cell.losses(ops, y, target)
            slope = slope + weight @ (cell.error(ops, y, target) * y_dot).sum(-1)
            return (state, tangent, loss, slope), None if cell.decorrelate == "none" else out

        B = batch.weights.shape[1]
        tangent = ops.zeros((B, cell.state_size)), ops.zeros((B, cell.width))
        start = (state["cell"], tangent, ops.zeros(()), ops.zeros(()))
        (after, _, loss, slope), hidden = fold_chunks(ops, chunk, start, batch, chunk_size(batch))
        v *= slope
        return Estimate(loss, unflatten(v, shapes), {"cell": after}, hidden=hidden)
