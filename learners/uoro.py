"""Unbiased online recurrent optimisation: the influence as one outer product, whose expectation is RTRL's.

    h̃ ← ρ0 H_t h̃ + ρ1 ν                              [S n];  ν: fresh random signs
    θ̃ ← θ̃/ρ0 + νᵀĪ_t/ρ1                              [n, M];  νᵀĪ_t = (νᵀ slope_t) z_tᵀ, and νᵀ ∂s_t/∂φ
    ρ0 = √(‖θ̃‖/‖H_t h̃‖)    ρ1 = √(‖slope_t‖ ‖z_t‖/‖ν‖)      equal norms of the factors, for less variance
    ∂L/∂θ ≈ Σ_t (δ_t h̃_t) θ̃_t                        z_t = [ĥ_{t-1}, x̂_t, 1];  δ_t = ∂L_t/∂s_t

for each sequence of the batch, with H_t as in `rtrl`. E[h̃ θ̃ᵀ] = J for all ρ0 and ρ1 that do not depend on
this step's ν and are not 0: h̃ is multiplied and θ̃ divided by the same number. So a small ε, added to every
norm, leaves the rule unbiased. At the first step, with h̃ = θ̃ = 0, it makes ρ0 = 1.

Of several layers each has factors of its own, and δ_t comes down to it at the same step: the rule is unbiased
as far as that is, which leaves out what a layer does to the state of the layers above.

Source: Tallec & Ollivier 2018, arXiv 1702.05043.
"""

from dataclasses import dataclass
from typing import NamedTuple

from creditbench.errors import require_positive
from creditbench.learner import Claims, Learner, add_by_unit, of_layers, online
from creditbench.ops.base import Array


class Factors(NamedTuple):
    h: Array  #: h̃, [B, S n]
    theta: Array  #: θ̃, [B, n, M]


@dataclass(frozen=True, kw_only=True)
class UORO(Learner):
    id = "uoro"
    name = "Unbiased online recurrent optimisation"
    paper = "Tallec & Ollivier 2018, arXiv:1702.05043"
    family = "influence"
    claims = Claims(unbiased=True, online=True, forward_only=True, time="O(n²)", memory="O(p)")
    lr = 1e-3

    epsilon: float = 1e-7  #: ε

    def __post_init__(self):
        require_positive(self, "epsilon")

    def init(self, ops, cell, params, batch_size):
        B = batch_size

        def start(layer):
            theta = ops.zeros((B, layer.hidden, layer.parameters))
            return Factors(ops.zeros((B, layer.state_size)), theta)

        return {"cell": cell.start(ops, B), "trace": of_layers(cell, start)}

    def segment(self, ops, cell, params, state, batch, key):
        xp, epsilon = ops.xp, self.epsilon

        def norm(x):
            return xp.linalg.vector_norm(x, axis=-1, keepdims=True) + epsilon

        def make(cell, params):
            def advance(trace, now, nu):
                h, theta = trace
                B, size = h.shape
                Hh = cell.push(ops, params, now, h)
                rho_0 = xp.sqrt(norm(theta.reshape((B, -1))) / norm(Hh))
                rho_1 = xp.sqrt((norm(now.slope.reshape((B, -1))) * norm(now.z)) / size**0.5)
                h = rho_0 * Hh + rho_1 * nu
                theta = add_by_unit(ops, theta / rho_0[:, :, None], nu / rho_1, now)
                along = xp.sum(now.delta * h, axis=1)
                G = along[0] * theta[0] if B == 1 else xp.tensordot(along, theta, axes=1)
                return Factors(h, theta), G

            return advance

        def draw(keys, B):
            return ops.rademacher(keys, (B, cell.state_size))

        return online(ops, cell, params, state, batch, key, make, draw)
