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
        xp, B, n = ops.xp, batch.weights.shape[1], cell.seen
        identity = ops.from_numpy(np.eye(B))

        def step(carry, xs):
            before, P, W_out, c, loss = carry
            x, target, weight = xs
            after, seen = cell.unroll(ops, params, before, x, 1)
            y = ops.linear(seen.out, W_out, c)
            scored = xp.astype(weight > 0, weight.dtype)[:, None]
            h = scored * (xp.concat((seen.out, xp.ones_like(scored)), axis=1) if cell.bias else seen.out)
            V = ops.linear(h, P)
            S = identity + V @ h.T
            if B == 1:
                V_S, e_S = V / S, (y - target) / S
            else:
                V_S, e_S = xp.linalg.solve(S, V), xp.linalg.solve(S, scored * (y - target))
            P = ops.accumulate(P, Outer(V_S, V), -1.0)
            W_out = ops.accumulate(W_out, Outer(e_S, V[:, :n]), -1.0)
            if cell.bias:
                c = c - (e_S.T @ V[:, n:])[:, 0]
            loss = loss + weight @ cell.losses(ops, y, target)
            return (after, P, W_out, c, loss), None if cell.decorrelate == "none" else seen.hidden

        # The weights belong to the caller, so the scan updates a copy.
        P, W_out = (xp.asarray(x, copy=True) for x in (state["P"], params["W_out"]))
        carry = state["cell"], P, W_out, params.get("c"), ops.zeros(())
        (end, P, W_out, c, loss), hidden = ops.scan(step, carry, tuple(batch))
        assigned = {"W_out": W_out, "c": c} if cell.bias else {"W_out": W_out}
        return Estimate(loss, {}, {"cell": end, "P": P}, assigned=assigned, hidden=hidden)
