"""Kronecker-factored RTRL: the influence as a vector times a matrix (Kronecker), exact in expectation.

    J_k,(ij) ≈ u_j A_ki                                 u: [m], A: [S n, G n]
    u ← c1 p1 u + c2 p2 z_t                             z_t = [ĥ_{t-1}, x̂_t, 1];  c1, c2: fresh random signs
    A ← c1 H_t A / p1 + c2 slope_t / p2                 H_t and slope_t = ∂s_t/∂a_t as in `rtrl`
    p1 = √(‖H_t A‖/‖u‖)     p2 = √(‖slope_t‖/‖z_t‖)
    ∂L/∂θ ≈ Σ_t (Aᵀδ_t) uᵀ

for each sequence of the batch. E[u ⊗ A] = J for all p1 and p2 that do not depend on this step's signs and are
not 0. So a small ε, added to every norm, leaves the rule unbiased. The gradient of a step is an outer
product, and is kept as one. A unit's own parameters φ see no z: a cell that has some is refused.

Several layers are treated as in `uoro`.

Source: Mujika, Meier & Steger 2018, arXiv 1805.10842.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from creditbench.errors import require_positive
from creditbench.learner import Claims, Learner, of_layers, online
from creditbench.ops.base import Array, Outer


class Factors(NamedTuple):
    u: Array  #: [B, m]
    A: Array  #: transposed, row i holds ∂s/∂a_i: [B, G n, S n]


@dataclass(frozen=True, kw_only=True)
class KFRTRL(Learner):
    id = "kf_rtrl"
    name = "Kronecker-factored RTRL"
    paper = "Mujika, Meier & Steger 2018, arXiv:1805.10842"
    family = "influence"
    claims = Claims(unbiased=True, online=True, forward_only=True, time="O(n³)", memory="O(n²)")
    lr = 1e-3

    epsilon: float = 1e-7  #: ε

    def __post_init__(self):
        require_positive(self, "epsilon")

    def init(self, ops, cell, params, batch_size):
        B = batch_size

        def start(layer):
            A = ops.zeros((B, layer.units, layer.state_size))
            return Factors(ops.zeros((B, layer.fan_in)), A)

        return {"cell": cell.start(ops, B), "trace": of_layers(cell, start)}

    def fits(self, cell):
        return f"its influence has no place for a unit's own {', '.join(cell.phi)}" if cell.phi else ""

    def segment(self, ops, cell, params, state, batch, key):
        xp, epsilon = ops.xp, self.epsilon

        def norm(x):
            return xp.linalg.vector_norm(x, axis=-1, keepdims=True) + epsilon

        def make(cell, params):
            def advance(trace, now, signs):
                u, A = trace
                B = u.shape[0]
                c1, c2 = signs[:, :1], signs[:, 1:]
                HA = cell.push(ops, params, now, A)
                p1 = xp.sqrt(norm(HA.reshape((B, -1))) / norm(u))
                p2 = xp.sqrt(norm(now.slope.reshape((B, -1))) / norm(now.z))
                u = (c1 * p1) * u + (c2 * p2) * now.z
                A = add_slope(ops, (c1 / p1)[:, :, None] * HA, c2 / p2, now.slope)
                post = A[0] @ now.delta[0] if B == 1 else (A @ now.delta[:, :, None])
                return Factors(u, A), Outer(post.reshape((B, cell.units)), u)

            return advance

        def draw(keys, B):
            return ops.rademacher(keys, (B, 2 * len(cell.layers)))

        return online(ops, cell, params, state, batch, key, make, draw, factors=True)


def add_slope(ops, A, scale, slope):
    """A [B, G n, S n] with scale [B, 1] times slopeᵀ added, where unit meets unit."""
    if slope.ndim == 2:
        return ops.add_diagonal(A, scale * slope)
    B, S, G, n = slope.shape
    scaled = (scale * slope.reshape((B, -1))).reshape((B, S, G, n))
    blocks = ops.xp.permute_dims(scaled, (0, 2, 3, 1))  # [B, G, n, S]
    at_unit = blocks[..., None] * ops.from_numpy(np.eye(n))[:, None, :]
    return A + at_unit.reshape((B, G * n, S * n))
