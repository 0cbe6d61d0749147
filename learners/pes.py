"""Persistent evolution strategy: pairs of perturbed networks go on, each credited with all its noise.

P antithetic pairs of networks are carried from segment to segment, each with its own state and the sum ξ_i of
its perturbations so far. In each segment

    v_i ~ N(0, I)          fresh
    ξ_i ← ξ_i + v_i
    L_i^±                   the segment's loss of the networks θ ± σ v_i, from their own states
    ∂L/∂θ ≈ 1/P Σ_i (L_i^+ - L_i^-) / 2σ  ξ_i

The estimates of a sequence's segments add up to an estimate of the gradient of the whole sequence's loss. It
is unbiased as σ → 0 for any cut into segments, while `es` sees no further than one segment. Its variance
grows with the number of segments whose noise is summed. So on an endless stream the pairs are restarted every
`horizon` segments, from the network's own state and with ξ = 0: no credit reaches back beyond the last
restart.

A further pass at θ gives the loss and the network's own state.

Source: Vicol, Metz & Sohl-Dickstein 2021, arXiv 2112.13835.
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
class PersistentEvolutionStrategy(Learner):
    id = "pes"
    name = "Persistent evolution strategy"
    paper = "Vicol, Metz & Sohl-Dickstein 2021, arXiv:2112.13835"
    family = "perturbation"
    claims = Claims(
        unbiased=True, online=True, forward_only=True, time="O(population n²)", memory="O(population p)"
    )
    lr = 1e-3
    search = {"sigma": (1e-3, 1e-1)}

    population: int = 16  #: antithetic pairs, P
    sigma: float = 1e-2  #: standard deviation of a segment's perturbation
    K: int = 10  #: steps between updates on a stream
    horizon: int = 20  #: segments between restarts of the pairs

    def __post_init__(self):
        require_positive(self, "population", "sigma", "K", "horizon")

    @property
    def stream_segment(self):
        return self.K

    def init(self, ops, cell, params, batch_size):
        start = cell.start(ops, batch_size)
        return {
            "cell": start,
            "members": antithetic_start(ops, start, self.population),
            "xi": ops.zeros((self.population, flat_size(cell.shapes()))),
            "age": ops.zeros(()),
        }

    def segment(self, ops, cell, params, state, batch, key):
        xp, P, shapes = ops.xp, self.population, cell.shapes()
        v = ops.normal(key, (P, flat_size(shapes)))
        V = unflatten(v, shapes)
        change = {k: V[k] if V[k].ndim == 2 else lambda x, V=V[k]: ops.linear(x, V) for k in V}
        young = state["age"] == 0.0
        xi = xp.where(young, v, state["xi"] + v)
        members = ops.tree_map(
            lambda fresh, old: xp.where(young, fresh, old),
            antithetic_start(ops, state["cell"], P),
            state["members"],
        )

        after, loss, hidden = forward(ops, cell, params, state["cell"], batch)
        members, slopes = antithetic_slopes(ops, cell, params, change, self.sigma, members, batch)
        state = {"cell": after, "members": members, "xi": xi, "age": (state["age"] + 1.0) % self.horizon}
        return Estimate(loss, unflatten(slopes @ xi / P, shapes), state, hidden=hidden)
