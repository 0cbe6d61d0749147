"""Evolution strategy whose perturbations of matrices have rank r.

    V_i = A_iᵀ B_i / √r       A_i [r, rows], B_i [r, columns] ~ N(0, I);  biases: v_i ~ N(0, I)
    ∂L/∂W ≈ 1/P Σ_i (L(W + σV_i) - L(W - σV_i)) / 2σ  V_i         P antithetic pairs

E[V_ab V_cd] = 1/r Σ_kl E[A_ka A_lc] E[B_kb B_ld] = δ_ac δ_bd for every r, and different parameters are
uncorrelated: as σ → 0 the estimate is unbiased at every rank. A low rank costs variance. V is Gaussian only
as r → ∞, where the rule is `es`; at finite σ the two smooth the loss differently.

A member's pass is W x, one product for all members, plus A_iᵀ (B_i x): no n×n matrix is drawn or kept for a
member. The update is one product of P·r rows. State and segments are as in `es`.

Source: Sarkar et al. 2025 (EGGROLL), arXiv 2511.16652.
"""

from dataclasses import dataclass
from math import sqrt

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
from creditbench.ops import Outer


@dataclass(frozen=True, kw_only=True)
class LowRankEvolutionStrategy(Learner):
    id = "es_lowrank"
    name = "Low-rank evolution strategy"
    paper = "Sarkar et al. 2025, arXiv:2511.16652"
    family = "perturbation"
    claims = Claims(unbiased=True, forward_only=True, time="O(population n²)", memory="O(population r n)")
    lr = 1e-3
    search = {"sigma": (1e-3, 1e-1)}

    population: int = 16  #: antithetic pairs, P
    rank: int = 1  #: r
    sigma: float = 1e-2  #: standard deviation of the perturbation
    K: int = 50  #: steps between updates on a stream

    def __post_init__(self):
        require_positive(self, "population", "rank", "sigma", "K")

    @property
    def stream_segment(self):
        return self.K

    def segment(self, ops, cell, params, state, batch, key):
        P, r = self.population, self.rank
        factors = {}
        for name, shape in cell.shapes().items():
            if len(shape) == 1:
                factors[name] = shape
            else:
                factors |= {f"{name} A": (r, shape[0]), f"{name} B": (r, shape[1])}
        drawn = unflatten(ops.normal(key, (P, flat_size(factors))), factors)
        matrices = [name for name, shape in cell.shapes().items() if len(shape) == 2]
        change = {name: drawn[name] for name in drawn if name in cell.shapes()}
        for name in matrices:
            A, B = drawn[f"{name} A"] / sqrt(r), drawn[f"{name} B"]
            change[name] = lambda x, A=A, B=B: ops.linear(ops.linear(x, B), A.mT)

        after, loss, hidden = forward(ops, cell, params, state["cell"], batch)
        _, slopes = antithetic_slopes(
            ops, cell, params, change, self.sigma, antithetic_start(ops, state["cell"], P), batch
        )
        credit = slopes / P
        grads = {name: credit @ drawn[name] for name in drawn if name in cell.shapes()}
        for name in matrices:
            A, B = drawn[f"{name} A"], drawn[f"{name} B"]
            post = (credit[:, None, None] / sqrt(r)) * A
            grads[name] = Outer(post.reshape((P * r, -1)), B.reshape((P * r, -1)))
        return Estimate(loss, grads, {"cell": after}, hidden=hidden)
