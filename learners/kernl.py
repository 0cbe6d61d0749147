"""Kernel RNN learning: influence as a learned sensitivity times a learned kernel that decays in time.

    ∂s_t/∂s_{t-τ} ≈ β diag(e^{-γτ})                  β: [n, n], γ: [n]
    P_t = e^{-γ} ⊙ P_{t-1} + slope_t z_tᵀ            [n, M];  z_t = [ĥ_{t-1}, x̂_t, 1];  tanh: slope α φ'(a_t)
    ∂L/∂θ ≈ Σ_t (βᵀ δ_t) ⊙ P_t

β and γ learn to predict the effect of noise. A second network runs whose activity gets noise σ ξ_t,
ξ_t ~ N(0, 1), at every step. ψ_t is the difference of the two networks, in units of σ. Where a unit is more
than a leaky function of its pre-activation, the limit σ → 0 is taken: ψ_t = H_t ψ_{t-1} + ξ_t.

    Ω_t = e^{-γ} ⊙ Ω_{t-1} + ξ_t                     Γ_t = ∂Ω_t/∂γ = e^{-γ} ⊙ (Γ_{t-1} - Ω_{t-1})
    ε_t = β Ω_t - ψ_t
    β ← β - η_β ε_t Ω_tᵀ / (1 + ‖Ω_t‖²)              γ ← max(0, γ - η_γ (βᵀε_t) ⊙ Γ_t / (1 + ‖Γ_t‖²))

averaged over the batch. The steps are normalised, unlike the paper's, so that one rate suits every n. β
starts as I, so that the rule starts as a leaky trace. β and γ are kept after a sequence. A step's gradient
uses the β and γ of the step before. The influence is a reduced-rank approximation, so the rule is biased.

Source: Roth, Kanitscheider & Fiete 2019, Kernel RNN learning (KeRNL), ICLR, openreview ryGfnoC5KQ.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from creditbench.errors import UsageError, require_positive
from creditbench.learner import Claims, Learner, add_immediate, of_layers, online, weighted
from creditbench.ops.base import Array, Outer


class Kernel(NamedTuple):
    P: Array  #: [B, S n, M]
    psi: Array  #: [B, S n]
    Omega: Array  #: [B, S n]
    Gamma: Array  #: [B, S n]
    beta: Array  #: transposed: row k holds the effect of number k of the state on each other, [S n, S n]
    gamma: Array  #: [S n]


@dataclass(frozen=True, kw_only=True)
class KeRNL(Learner):
    id = "kernl"
    name = "Kernel RNN learning"
    paper = "Roth, Kanitscheider & Fiete 2019, openreview:ryGfnoC5KQ"
    family = "eligibility trace"
    claims = Claims(online=True, forward_only=True, time="O(n²)", memory="O(p)")
    search = {"beta_rate": (1e-4, 1e-1), "gamma_rate": (1e-4, 1e-1)}

    sigma: float = 1e-3  #: σ
    gamma: float = 0.5  #: γ at the start, for every unit
    beta_rate: float = 1e-2  #: η_β
    gamma_rate: float = 1e-2  #: η_γ; 0 keeps the time scales as they are

    def __post_init__(self):
        require_positive(self, "sigma", "gamma", "beta_rate")
        if self.gamma_rate < 0:
            raise UsageError(f"gamma_rate is {self.gamma_rate!r}: KeRNL needs a number of at least 0")

    def init(self, ops, cell, params, batch_size):
        def start(layer):
            B, n = batch_size, layer.state_size
            beta, gamma = ops.from_numpy((np.eye(n), np.full(n, self.gamma)))
            P = ops.zeros((B, n, layer.parameters))
            psi, Omega, Gamma = (ops.zeros((B, n)) for _ in range(3))
            return Kernel(P, psi, Omega, Gamma, beta, gamma)

        return {"cell": cell.start(ops, batch_size), "trace": of_layers(cell, start)}

    def reset(self, ops, cell, params, state, batch_size):
        def learned(_, fresh, old):
            return fresh._replace(beta=old.beta, gamma=old.gamma)

        fresh = self.init(ops, cell, params, batch_size)
        return fresh | {"trace": of_layers(cell, learned, fresh["trace"], state["trace"])}

    def segment(self, ops, cell, params, state, batch, key):
        xp, alpha, sigma = ops.xp, cell.alpha, self.sigma
        differs = cell.scalar and cell.leaky and not cell.keeps_out

        def activity(a):
            return cell.f(ops, (0.0,), (a,), {})[0]

        def make(cell, params):
            def advance(trace, now, xi):
                P, psi, Omega, Gamma, beta, gamma = trace
                B, decay = xi.shape[0], xp.exp(-gamma)
                P = add_immediate(ops, decay[:, None] * P, now)
                if differs:
                    a_noisy = now.a + sigma * cell.through_recurrence(ops, params, psi)
                    moved = (1.0 / sigma) * (activity(a_noisy) - activity(now.a))
                    psi = (moved if alpha == 1.0 else moved + (1.0 - alpha) * psi) + xi
                else:
                    psi = cell.push(ops, params, now, psi) + xi
                Gamma = decay * (Gamma - Omega)
                Omega = decay * Omega + xi
                error = Omega @ beta - psi
                G = weighted(cell, ops.linear(now.delta, beta), P)

                step = self.gamma_rate * ops.linear(error, beta) * Gamma
                step = step / (1.0 + xp.sum(Gamma * Gamma, axis=1, keepdims=True))
                gamma = xp.clip(gamma - xp.sum(step, axis=0) / B, min=0.0)
                post = Omega / (1.0 + xp.sum(Omega * Omega, axis=1, keepdims=True))
                beta = ops.accumulate(beta + 0.0, Outer(post, error), -self.beta_rate / B)
                return Kernel(P, psi, Omega, Gamma, beta, gamma), G

            return advance

        def draw(keys, B):
            return ops.normal(keys, (B, cell.state_size))

        return online(ops, cell, params, state, batch, key, make, draw)
