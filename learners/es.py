"""Evolution strategy: the mean over antithetic pairs of perturbed networks, all run as one batch.

    ∂L/∂θ ≈ 1/P Σ_i (L(θ + σv_i) - L(θ - σv_i)) / 2σ  v_i         v_i ~ N(0, I), P pairs

At any σ this is an unbiased estimate of the gradient of E L(θ + σv), the loss smoothed by the perturbation,
and as σ → 0 of the gradient itself. There is no shaping of fitness and no weight decay.

All members start a segment from the network's own state and see the same data. A further pass at θ gives the
loss and the state that is carried on. So on a stream the estimate is for the segment's loss with a fixed
start; `pes` removes this limit.

Source: Salimans et al. 2017, arXiv 1703.03864.
"""

from dataclasses import dataclass

from creditbench.errors import require_positive
from creditbench.learner import (
    Claims,
    Estimate,
    Learner,
    antithetic_slopes,
    antithetic_start,
    flat_size,
    forward,
    unflatten,
)


@dataclass(frozen=True, kw_only=True)
class EvolutionStrategy(Learner):
    id = "es"
    name = "Evolution strategy"
    paper = "Salimans et al. 2017, arXiv:1703.03864"
    family = "perturbation"
    claims = Claims(unbiased=True, forward_only=True, time="O(population n²)", memory="O(population p)")
    lr = 1e-3
    search = {"sigma": (1e-3, 1e-1)}

    population: int = 16  #: antithetic pairs, P
    sigma: float = 1e-2  #: standard deviation of the perturbation
    K: int = 50  #: steps between updates on a stream

    def __post_init__(self):
        require_positive(self, "population", "sigma", "K")

    @property
    def stream_segment(self):
        return self.K

    def segment(self, ops, cell, params, state, batch, key):
        P, shapes = self.population, cell.shapes()
        v = ops.normal(key, (P, flat_size(shapes)))
        V = unflatten(v, shapes)
        change = {k: V[k] if V[k].ndim == 2 else lambda x, V=V[k]: ops.linear(x, V) for k in V}

        after, loss, hidden = forward(ops, cell, params, state["cell"], batch)
        _, slopes = antithetic_slopes(
            ops, cell, params, change, self.sigma, antithetic_start(ops, state["cell"], P), batch
        )
        return Estimate(loss, unflatten(slopes @ v / P, shapes), {"cell": after}, hidden=hidden)
