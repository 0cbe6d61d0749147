"""Decoupled neural interface: a synthetic gradient predicts the gradient of later losses in the activity.

    S_t = A ã_t,  ã_t = [ĥ_t, y*_t, 1]               S_t ≈ ∂L_{>t}/∂s_t, linear in ã;  A: [S n, n+O+1]
                                                     y*_t is 0 at an unscored step
    c_t = δ_t + S_t                                  ∂L_{≥t}/∂s_t
    ∂L/∂θ ≈ Σ_t (slope_tᵀ c_t) z_tᵀ                  z_t = [ĥ_{t-1}, x̂_t, 1];  tanh: slope α φ'(a_t)

A learns by bootstrapping: a step later, S_{t-1} is compared with the gradient that came back over that step.

    ε_t = A ã_{t-1} - H_tᵀ c_t                       H_t as in `rtrl`
    A ← A - η ε_t ã_{t-1}ᵀ / (1 + ‖ã_{t-1}‖²)        averaged over the batch

The step is normalised, so that one rate η suits every n. A starts as 0, so that the rule starts as TBPTT(1).
A is kept after a sequence. The form is the online one of Marschall, Cho & Savin, with one step between
bootstraps. There A ã replaces all of c_t; here the loss of the step itself is exact. The rule is unbiased
only as far as the future is linear in ã. The rule does not know a sequence's end: S_T predicts losses that
never come.

Source: Jaderberg et al. 2017, arXiv 1608.05343; Marschall, Cho & Savin 2020, JMLR 21(135), arXiv 1907.02649.
"""

from dataclasses import dataclass

from creditbench.cell import back
from creditbench.errors import require_positive
from creditbench.learner import Claims, Learner, of_layers, online
from creditbench.ops import Outer


@dataclass(frozen=True, kw_only=True)
class DNI(Learner):
    id = "dni"
    name = "Decoupled neural interface"
    paper = "Jaderberg et al. 2017, arXiv:1608.05343"
    family = "synthetic gradient"
    claims = Claims(online=True, time="O(n²)", memory="O(n²)")
    search = {"rate": (1e-4, 1e-1)}

    rate: float = 1e-2  #: η

    def __post_init__(self):
        require_positive(self, "rate")

    def init(self, ops, cell, params, batch_size):
        def start(layer):
            width = layer.seen + layer.outputs + 1
            # Before the first step ã is 0: there is no prediction to compare, and A stays.
            return ops.zeros((layer.state_size, width)), ops.zeros((batch_size, width))

        return {"cell": cell.start(ops, batch_size), "trace": of_layers(cell, start)}

    def reset(self, ops, cell, params, state, batch_size):
        fresh = self.init(ops, cell, params, batch_size)
        trace = of_layers(cell, lambda _, fresh, old: (old[0], fresh[1]), fresh["trace"], state["trace"])
        return fresh | {"trace": trace}

    def segment(self, ops, cell, params, state, batch, key):
        xp = ops.xp

        def make(cell, params):
            def advance(trace, now, _):
                A, before = trace
                # An unscored target may be anything, even the later answer.
                target = xp.where(now.weight > 0, now.target, xp.zeros_like(now.target))
                features = xp.concat((now.out, target, xp.ones_like(target[:, :1])), axis=1)
                c = ops.linear(features, A, now.delta)
                post = back(now.slope, c)
                came_back = cell.pull(params, now, c, post)
                error = ops.linear(before, A) - came_back
                pre = before / (1.0 + xp.sum(before * before, axis=1, keepdims=True))
                A = ops.accumulate(A + 0.0, Outer(error, pre), -self.rate / before.shape[0])
                return (A, features), Outer(post, now.z)

            return advance

        return online(ops, cell, params, state, batch, key, make, factors=True)
