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
            state, tangents, loss, slope = carry
            x, target, weight = rows(batch)
            state, unrolled = cell.unroll(ops, params, state, x, batch.weights.shape[0])
            y = cell.readout(ops, params, unrolled.out)
            pre, x_dot, ends = unrolled.presynaptic(x), None, []
            for k, layer in enumerate(cell.layers):
                own, along = cell.of_layer(params, k), cell.of_layer(V, k)
                pushed = layer.drive(ops, along, pre.inputs[k])
                if x_dot is not None:
                    pushed = pushed + layer.all_gates(ops, ops.linear(x_dot, own["W_in"]), layer.sees_input)
                if layer.recurrent:
                    pushed = ops.linear(pre.before[k], layer.recurrent_weights(ops, along), pushed)
                now = layer.derivatives(ops, own, unrolled.layers[k])
                end, x_dot = push(
                    ops, layer, own, along, tangents[k], now, pushed, x_dot, batch.weights.shape
                )
                ends.append(end)
            y_dot = ops.linear(x_dot, params["W_out"], cell.readout(ops, V, unrolled.out))
            loss = loss + weight @ cell.losses(ops, y, target)
            slope = slope + weight @ (cell.error(ops, y, target) * y_dot).sum(-1)
            carry = state, tuple(ends), loss, slope
            return carry, None if cell.decorrelate == "none" else unrolled.hidden

        B = batch.weights.shape[1]
        tangents = tuple(
            (ops.zeros((B, layer.state_size)), ops.zeros((B, layer.width))) for layer in cell.layers
        )
        start = (state["cell"], tangents, ops.zeros(()), ops.zeros(()))
        (after, _, loss, slope), hidden = fold_chunks(ops, chunk, start, batch, chunk_size(batch))
        v *= slope
        return Estimate(loss, unflatten(v, shapes), {"cell": after}, hidden=hidden)


def push(ops, layer, params, along, tangent, now, pushed, x_dot, steps):
    """The tangents of one layer: (those at the end, those of what the readout sees of it at all R rows).

    `pushed`: ȧ without the recurrence, [R, G n]. `x_dot`: the tangents of the layer's input, None for 0.
    """
    W = layer.recurrence(ops, params)
    own = None
    if layer.phi:
        v = ops.xp.concat([along[name] for name in layer.phi])
        own = through(now.own, ops.xp.broadcast_to(v, (len(pushed), len(v))))

    def step(tangent, xs):
        s, h_hat = tangent
        now, pushed, own = xs
        moved = through(now.slope, pushed if W is None else ops.linear(h_hat, W, pushed))
        if not layer.forgets:
            moved = moved + layer.carried(now, s)
        s = moved if own is None else moved + own
        h_hat = through(now.out, s)
        h_hat = h_hat if layer.decorrelate == "none" else ops.linear(h_hat, params["D"])
        return (s, h_hat), h_hat

    xs = now._replace(out_before=None, own=None), pushed, own
    xs = ops.tree_map(lambda r: r.reshape((*steps, *r.shape[1:])), xs)
    tangent, out = ops.scan(step, tangent, xs)
    out = out.reshape((-1, layer.width))
    if layer.skips:
        out = ops.xp.concat((out, ops.zeros((len(out), layer.inputs)) if x_dot is None else x_dot), axis=1)
    return tangent, out
