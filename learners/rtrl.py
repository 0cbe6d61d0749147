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
from functools import partial

import numpy as np

from creditbench.cell import through
from creditbench.learner import Claims, Learner, immediate, leaky_trace, online, online_jointly, weighted


@dataclass(frozen=True, kw_only=True)
class RTRL(Learner):
    id = "rtrl"
    name = "Real-time recurrent learning"
    paper = "Williams & Zipser 1989, doi:10.1162/neco.1989.1.2.270"
    family = "influence"
    claims = Claims(
        unbiased=True,
        online=True,
        forward_only=True,
        time="O(n²p)",
        memory="O(n p)",
        without_recurrence={"time": "O(p)", "memory": "O(p)"},
    )

    def init(self, ops, cell, params, batch_size):
        if len(cell.layers) == 1 and not cell.recurrent:
            J = ops.zeros((batch_size, cell.state_size, cell.parameters))
        elif len(cell.layers) == 1:
            J = ops.zeros((batch_size, cell.state_size, cell.hidden * cell.parameters))
        else:
            columns = np.cumsum([layer.hidden * layer.parameters for layer in cell.layers])
            J = tuple(
                ops.zeros((batch_size, layer.state_size, int(p)))
                for layer, p in zip(cell.layers, columns, strict=True)
            )
        return {"cell": cell.start(ops, batch_size), "trace": J}

    def segment(self, ops, cell, params, state, batch, key):
        if len(cell.layers) > 1:
            return online_jointly(ops, cell, params, state, batch, partial(advance_layers, ops, cell, params))

        def make(cell, params):
            if not cell.recurrent:
                return partial(advance_own, ops, cell)
            return partial(advance, ops, cell, cell.recurrence_matrix(ops, params))

        return online(ops, cell, params, state, batch, key, make)


def advance(ops, cell, W, J, now, _):
    """J [B, S n, n M] after a step, and the gradient [n, M]."""
    n, M, size, B = cell.hidden, cell.parameters, cell.state_size, J.shape[0]
    H = cell.transition(ops, W, now)
    HJ = (H[0] @ J[0]) if B == 1 else H @ J  # a batched product of one matrix is slower
    own = immediate(ops, now).reshape((-1, n, M))
    J = ops.add_diagonal(HJ.reshape((-1, n, n, M)), own).reshape((B, size, n * M))
    G = now.delta.reshape((1, B * size)) @ J.reshape((B * size, n * M))
    return J, G.reshape((n, M))


def advance_own(ops, cell, J, now, _):
    """J [B, S n, M] of units that act on themselves alone after a step, and the gradient [n, M]."""
    J = leaky_trace(ops, cell, J, now)
    return J, weighted(cell, now.delta, J)


def advance_layers(ops, cell, params, J, nows):
    """J of each layer, [B, S n, p of it and of those below], after a step, and the gradient of each layer."""
    xp, after, seen = ops.xp, [], None  # seen: the influence on what is seen of the layer below, [B, p, seen]
    for k, (layer, now) in enumerate(zip(cell.layers, nows, strict=True)):
        own, (B, size, p) = cell.of_layer(params, k), J[k].shape
        n, M = layer.hidden, layer.parameters
        moved = layer.push(ops, own, now, xp.permute_dims(J[k], (0, 2, 1)))
        if k:  # what comes up from the layer below at this step
            seen = xp.concat((seen, ops.zeros((B, n * M, layer.inputs))), axis=1)
            a = ops.linear(seen.reshape((B * p, -1)), own["W_in"])
            a = layer.all_gates(ops, a, layer.sees_input)
            moved = moved + through(now.slope, a.reshape((B, p, -1)))
        start, moved = p - n * M, xp.permute_dims(moved, (0, 2, 1))
        last = xp.asarray(moved[:, :, start:], copy=True).reshape((-1, n, n, M))
        last = ops.add_diagonal(last, immediate(ops, now).reshape((-1, n, M))).reshape((B, size, n * M))
        after.append(xp.concat((moved[:, :, :start], last), axis=2) if k else last)
        h = through(now.to_state, xp.permute_dims(after[-1], (0, 2, 1)))
        h = h @ own["D"].T if "D" in own else h
        below = ops.zeros((B, p, layer.inputs)) if seen is None else seen
        seen = xp.concat((h, below), axis=2) if layer.skips else h
    total = xp.sum((seen @ (nows[-1].e @ params["W_out"])[:, :, None])[..., 0], axis=0)
    grads, start = [], 0
    for layer in cell.layers:
        end = start + layer.hidden * layer.parameters
        grads.append(total[start:end].reshape((layer.hidden, layer.parameters)))
        start = end
    return tuple(after), tuple(grads)
