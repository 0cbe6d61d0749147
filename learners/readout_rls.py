"""Recursive least squares on the readout, recurrent weights fixed: the baseline for recurrent rules.

    K_t   = P ĥᵀ (I + ĥ P ĥᵀ)⁻¹               ĥ: the scored rows of a step, [B, n], a 1 appended for the bias
    P     ← P - K_t ĥ P                       P_0 = I/λ
    W_out ← W_out - (K_t (y_t - y*_t))ᵀ

For one row this is P ← P - P h hᵀ P/(1 + hᵀPh), W_out ← W_out - e (P h)ᵀ. After any number of steps W_out is
the exact solution of the ridge problem, shrunk towards the initial W_out with strength λ. If the task's loss
is the cross-entropy, the readout is still fitted to the one-hot targets by least squares.

P is kept after a sequence: new episodes start from zero activity and the old P.

Source: Sussillo & Abbott 2009, Neuron 63:544; Jaeger 2001, GMD report 148.
"""

from dataclasses import dataclass

import numpy as np

from creditbench.errors import require_positive
from creditbench.learner import Claims, Estimate, Learner
from creditbench.ops import Outer


@dataclass(frozen=True, kw_only=True)
class ReadoutRLS(Learner):
    id = "readout_rls"
    name = "Recursive least squares on the readout"
    paper = "Sussillo & Abbott 2009, doi:10.1016/j.neuron.2009.07.018"
    family = "readout only"
    claims = Claims(online=True, forward_only=True, time="O(n²)", memory="O(n²)")
    search = {"ridge": (1e-4, 1e2)}

    ridge: float = 1.0  #: λ

    def __post_init__(self):
        require_positive(self, "ridge")

    def init(self, ops, cell, params, batch_size):
        P = np.eye(cell.seen + cell.bias) / self.ridge
        return {"cell": cell.start(ops, batch_size), "P": ops.from_numpy(P)}

    def reset(self, ops, cell, params, state, batch_size):
        return {"cell": cell.start(ops, batch_size), "P": state["P"]}

    def segment(self, ops, cell, params, state, batch, key):
        xp, B = ops.xp, batch.weights.shape[1]
        identity = ops.from_numpy(np.eye(B))
        W = cell.recurrent_weights(ops, params) if cell.recurrent else None

        def step(carry, xs):
            before, P, W_out, c, loss = carry
            x, target, weight = xs
            _, after = cell.step(ops, params, before, cell.drive(ops, params, x), W)
            out = cell.see(ops, after.out, x)
            y = ops.linear(out, W_out, c)
            scored = xp.astype(weight > 0, weight.dtype)[:, None]
            h = scored * (xp.concat((out, xp.ones_like(scored)), axis=1) if cell.bias else out)
            V = ops.linear(h, P)
            S = identity + V @ h.T
            if B == 1:
                V_S, e_S = V / S, (y - target) / S
            else:
                V_S, e_S = xp.linalg.solve(S, V), xp.linalg.solve(S, scored * (y - target))
            P = ops.accumulate(P, Outer(V_S, V), -1.0)
            W_out = ops.accumulate(W_out, Outer(e_S, V[:, : cell.seen]), -1.0)
            if cell.bias:
                c = c - (e_S.T @ V[:, cell.seen :])[:, 0]
            loss = loss + weight @ cell.losses(ops, y, target)
            return (after, P, W_out, c, loss), out if cell.decorrelate != "none" else None

        # The weights belong to the caller, so the scan updates a copy.
        carry = (
            state["cell"],
            xp.asarray(state["P"], copy=True),
            xp.asarray(params["W_out"], copy=True),
            params.get("c"),
            ops.zeros(()),
        )
        (end, P, W_out, c, loss), hidden = ops.scan(step, carry, tuple(batch))
        assigned = {"W_out": W_out, "c": c} if cell.bias else {"W_out": W_out}
        return Estimate(loss, {}, {"cell": end, "P": P}, assigned=assigned, hidden=hidden)
