"""Ridge regression of the readout, recurrent weights fixed: an echo state network, solved in closed form.

Sums over all scored rows ĥ so far, with a 1 appended for the bias, are kept and solved at each segment's end:

    A ← A + ĥᵀ ĥ           A_0 = λ I
    C ← C + ĥᵀ y*          C_0 = λ W_0ᵀ
    W_outᵀ = A⁻¹ C         the minimum of Σ ‖W ĥ - y*‖² + λ ‖W - W_0‖²

with W_0 the initial readout. `readout_rls` solves the same problem step by step, with the same solution. With
W_0 = 0 it is Jaeger's. If the task's loss is the cross-entropy, the readout is still fitted to the one-hot
targets by least squares.

A and C are kept after a sequence. A segment of K steps costs a solve, O(n³), so on a stream the readout is
set every K steps. The loss of a segment is that of the readout at its start.

Source: Jaeger 2001, GMD report 148.
"""

from dataclasses import dataclass

import numpy as np

from creditbench.errors import require_positive
from creditbench.learner import Claims, Estimate, Learner, chunk_size, fold_chunks, rows
from creditbench.ops import Outer


@dataclass(frozen=True, kw_only=True)
class ReadoutRidge(Learner):
    id = "readout_ridge"
    name = "Ridge regression of the readout"
    paper = "Jaeger 2001, GMD report 148"
    family = "readout only"
    claims = Claims(online=True, forward_only=True, time="O(n² + n³/K)", memory="O(n²)")
    search = {"ridge": (1e-4, 1e2)}

    ridge: float = 1.0  #: λ
    K: int = 100  #: steps between updates on a stream

    def __post_init__(self):
        require_positive(self, "ridge", "K")

    @property
    def stream_segment(self):
        return self.K

    def init(self, ops, cell, params, batch_size):
        A = ops.from_numpy(self.ridge * np.eye(cell.seen + cell.bias))
        W = ops.xp.concat((params["W_out"], params["c"][:, None]), axis=1) if cell.bias else params["W_out"]
        return {"cell": cell.start(ops, batch_size), "A": A, "C": self.ridge * W.mT}

    def reset(self, ops, cell, params, state, batch_size):
        return {"cell": cell.start(ops, batch_size), "A": state["A"], "C": state["C"]}

    def segment(self, ops, cell, params, state, batch, key):
        xp, n = ops.xp, cell.seen

        def chunk(carry, batch):
            state, A, C, loss = carry
            x, target, weight = rows(batch)
            state, unrolled = cell.unroll(ops, params, state, x, batch.weights.shape[0])
            out = unrolled.out
            loss = loss + weight @ cell.losses(ops, cell.readout(ops, params, out), target)
            scored = xp.astype(weight > 0, weight.dtype)[:, None]
            h = scored * (xp.concat((out, xp.ones_like(scored)), axis=1) if cell.bias else out)
            A, C = ops.accumulate(A, Outer(h, h)), ops.accumulate(C, Outer(h, target))
            return (state, A, C, loss), None if cell.decorrelate == "none" else unrolled.hidden

        # The sums belong to the caller, so the fold adds to copies.
        A, C = (xp.asarray(state[k], copy=True) for k in "AC")
        start = state["cell"], A, C, ops.zeros(())
        (after, A, C, loss), hidden = fold_chunks(ops, chunk, start, batch, chunk_size(batch))
        W = xp.linalg.solve(A, C).mT
        assigned = {"W_out": W[:, :n], "c": W[:, n]} if cell.bias else {"W_out": W}
        return Estimate(loss, {}, {"cell": after, "A": A, "C": C}, assigned=assigned, hidden=hidden)
