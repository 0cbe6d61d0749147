"""Feedback alignment through time: reverse mode whose errors come back through random weights.

    g_t = ∂h_t/∂s_tᵀ (B_out e_t + B_rec p_{t+1}) + carryᵀ g_{t+1}          with e_t = w_t ∂ℓ_t/∂y_t
    p_t = slopeᵀ g_t                                                       tanh: α tanh'(a_t) ⊙ g_t
    ∂L/∂W_rec ≈ Σ_t p_t ĥ_{t-1}ᵀ   ∂L/∂W_in ≈ Σ_t p_t x̂_tᵀ   ∂L/∂W_out = Σ_t e_t ĥ_tᵀ

This is `bptt` on the network unrolled in time, with B_out [n, O] in place of Dᵀ W_outᵀ and B_rec [n, G n] in
place of Dᵀ W_recᵀ. They are drawn once, from N(0, 2/(n+O)) and N(0, 1/n) as W_out and W_rec are, and fixed.
Each of several layers has a B_out of its own: no error comes down from layer to layer. The forward weights
may align with them or not. With B_rec = 0 errors go back in time only through the leak.

Source: Lillicrap et al. 2016, Nature Communications 7:13276.
"""

from dataclasses import dataclass

import numpy as np

from creditbench.cell import back
from creditbench.errors import require_positive
from creditbench.learner import Claims, Estimate, Learner, joined, of_layers, random_feedback, rows


@dataclass(frozen=True, kw_only=True)
class FeedbackAlignment(Learner):
    id = "feedback_alignment"
    name = "Feedback alignment through time"
    paper = "Lillicrap et al. 2016, doi:10.1038/ncomms13276"
    family = "reverse mode"
    claims = Claims(memory_in_T="O(T)", time="O(n²)", memory="O(T n B)")
    optimizer = "adam"
    lr = 1e-3

    K: int = 50  #: steps between updates on a stream
    feedback_seed: int = 0  #: draws B_out and B_rec

    def __post_init__(self):
        require_positive(self, "K")

    @property
    def stream_segment(self):
        return self.K

    def init(self, ops, cell, params, batch_size):
        rng = np.random.default_rng([self.feedback_seed, 0xFA])

        def recurrent(layer):
            shape = (layer.width, layer.units) if layer.recurrent else (0, 0)
            return ops.from_numpy(rng.normal(0.0, layer.width**-0.5, shape))

        return {
            "cell": cell.start(ops, batch_size),
            "B_out": random_feedback(ops, cell, self.feedback_seed),
            "B_rec": of_layers(cell, recurrent),
        }

    def reset(self, ops, cell, params, state, batch_size):
        return state | {"cell": cell.start(ops, batch_size)}

    def segment(self, ops, cell, params, state, batch, key):
        x, target, weight = rows(batch)
        end, unrolled = cell.unroll(ops, params, state["cell"], x, batch.weights.shape[0])
        y = cell.readout(ops, params, unrolled.out)
        e = weight[:, None] * cell.error(ops, y, target)
        posts, own_grads = [], {}
        for k, layer in enumerate(cell.layers):
            B_out, B_rec = (state[n] if len(cell.layers) == 1 else state[n][k] for n in ("B_out", "B_rec"))
            now = layer.derivatives(ops, cell.of_layer(params, k), unrolled.layers[k])
            post, g = back_through_time(ops, layer, now, ops.linear(e, B_out), B_rec, batch.weights.shape)
            posts.append(post)
            if layer.phi:
                own_grads |= cell.of_all(layer.own_gradient(ops, now.own, g), k)
        grads = cell.gradient(ops, joined(ops, posts), unrolled.presynaptic(x), e) | own_grads
        loss = weight @ cell.losses(ops, y, target)
        return Estimate(loss, grads, state | {"cell": end}, hidden=unrolled.hidden)


def back_through_time(ops, cell, now, to_h, B_rec, steps):
    """(p, g) of one layer at all rows, given the gradient in h of the same step and B_rec."""
    from_readout = back(now.out, to_h)

    def backward(from_next, xs):
        from_readout, now = xs
        g = from_readout + from_next
        post = back(now.slope, g)
        kept = post, g if cell.phi else None
        if not cell.recurrent:
            return cell.carried_back(now, g), kept
        from_this = back(now.out_before, ops.linear(post, B_rec))
        return from_this if cell.forgets else from_this + cell.carried_back(now, g), kept

    xs = from_readout, now._replace(out=None, own=None)
    xs = ops.tree_map(lambda r: r.reshape((*steps, *r.shape[1:])), xs)
    _, (post, g) = ops.scan(backward, ops.zeros((steps[1], cell.state_size)), xs, reverse=True)
    return post.reshape((-1, cell.units)), g.reshape((-1, cell.state_size)) if cell.phi else None
