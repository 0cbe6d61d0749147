"""Evolution strategy: the mean over antithetic pairs of perturbed networks, all run as one batch.

    ∂L/∂θ ≈ 1/P Σ_i (L(θ + σv_i) - L(θ - σv_i)) / 2σ  v_i         v_i ~ N(0, I), P pairs

At any σ this is an unbiased estimate of the gradient of E L(θ + σv), the loss smoothed by the perturbation, and as
σ → 0 of the gradient itself. There is no shaping of fitness and no weight decay.

All members start a segment from the network's own state and see the same data; a pass at θ beside them gives the
loss and the state that is carried on. On a stream the estimate is thus that of the segment's loss, its start held
fixed; `pes` mends that.

Source: Salimans et al. 2017, arXiv 1703.03864.
"""

from dataclasses import dataclass

from creditbench.errors import require_positive
from creditbench.learner import (
    Claims,
    Estimate,
    Learner,
    antithetic_losses,
    antithetic_start,
    chunk_size,
    flat_size,
    fold_chunks,
    rows,
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
        change = {k: V[k] if V[k].ndim == 2 else lambda x, V=V[k]: x @ V.mT for k in V}

        def chunk(carry, batch):
            state, members, loss, losses = carry
            x, target, weight = rows(batch)
            state, (_, _, out) = cell.unroll(
                ops, params, state, cell.drive(ops, params, x), batch.weights.shape[0]
            )
            loss = loss + weight @ cell.losses(ops, cell.readout(ops, params, out), target)
            members, more = antithetic_losses(ops, cell, params, change, self.sigma, members, batch)
            return (state, members, loss, losses + more), None if cell.decorrelate == "none" else out

        members = antithetic_start(ops, state["cell"], P)
        start = state["cell"], members, ops.zeros(()), ops.zeros((P, 2))
        (after, _, loss, losses), hidden = fold_chunks(ops, chunk, start, batch, chunk_size(batch))
        credit = (losses[:, 0] - losses[:, 1]) / (2.0 * self.sigma * P)
        return Estimate(loss, unflatten(credit @ v, shapes), {"cell": after}, hidden=hidden)
