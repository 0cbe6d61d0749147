"""Simultaneous perturbation: the loss at two points on either side of the weights, on the same data.

    ∂L/∂θ ≈ (L(θ + σv) - L(θ - σv)) / 2σ  v         v: a random sign for every parameter

As σ → 0 this is (∇L · v) v, whose expectation is the gradient; at finite σ its error is O(σ²). Spall divides
by v and this rule multiplies: for signs it is the same.

As in MeZO, v is drawn again from its key for each point and for the update, and not kept in between. So
beside the weights there is one array of their size at a time. A third pass, at θ, gives the loss and the
state that is carried on. Both points start from the carried state, so on a stream the estimate is for the
segment's loss with a fixed start.

Source: Spall 1992, IEEE Trans. Autom. Control 37(3):332; Malladi et al. 2023 (MeZO), arXiv 2305.17333.
"""

from dataclasses import dataclass

from creditbench.errors import require_positive
from creditbench.learner import Claims, Estimate, Learner, flat_size, forward, unflatten


@dataclass(frozen=True, kw_only=True)
class SPSA(Learner):
    id = "spsa"
    name = "Simultaneous perturbation stochastic approximation"
    paper = "Spall 1992, doi:10.1109/9.119632"
    family = "perturbation"
    claims = Claims(unbiased=True, forward_only=True, time="O(n²)", memory="O(p)")
    lr = 1e-4
    search = {"sigma": (1e-3, 1e-1)}

    sigma: float = 1e-2  #: size of the perturbation
    K: int = 50  #: steps between updates on a stream

    def __post_init__(self):
        require_positive(self, "sigma", "K")

    @property
    def stream_segment(self):
        return self.K

    def segment(self, ops, cell, params, state, batch, key):
        shapes = cell.shapes()

        def v():
            return ops.rademacher(key, (flat_size(shapes),))

        def loss_at(distance):
            moved = v()
            moved *= distance
            theta = unflatten(moved, shapes)
            theta = {name: ops.accumulate(theta[name], params[name]) for name in theta}
            return forward(ops, cell, params | theta, state["cell"], batch)[1]

        after, loss, hidden = forward(ops, cell, params, state["cell"], batch)
        slope = (loss_at(self.sigma) - loss_at(-self.sigma)) / (2.0 * self.sigma)
        grads = v()
        grads *= slope
        return Estimate(loss, unflatten(grads, shapes), {"cell": after}, hidden=hidden)
