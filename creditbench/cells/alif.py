"""Adaptive leaky integrate-and-fire unit: each spike raises the threshold for a while.

    v_t = κ v_{t-1} + a_t - ϑ z_{t-1}               the reset is not differentiated
    b_t = ρ b_{t-1} + z_{t-1}                       adaptation
    z_t = 1 if v_t > ϑ + β b_t, else 0              h_t = z_t
    ψ_t = γ/ϑ max(0, 1 - |v_t - ϑ - β b_t|/ϑ)       stands for ∂z_t/∂v_t

    carry  of v by v: κ;  of b by v: ψ_{t-1};  of b by b: ρ - β ψ_{t-1};   slope  1 of v, 0 of b
    ∂h_t/∂(v, b) = (ψ_t, -β ψ_t)

All else is as in `lif`.

Source: Bellec et al. 2020, Nat. Commun. 11:3625.
"""

from dataclasses import dataclass

from creditbench.cells.lif import LIF
from creditbench.errors import UsageError


@dataclass(frozen=True)
class ALIF(LIF):
    id = "alif"
    name = "Adaptive leaky integrate-and-fire unit"
    S = 2  # v, b

    adaptation_decay: float = 0.995  #: ρ, of the adaptation in a step
    adaptation: float = 0.18  #: β

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.adaptation_decay < 1:
            value = self.adaptation_decay
            raise UsageError(f"adaptation_decay is {value}: the cell alif needs one in [0, 1)")

    def over(self, s):
        return (s[0] - self.adaptation * s[1]) / self.threshold - 1.0

    def f(self, ops, s, a, phi):
        (fired,) = self.o(ops, s)
        v = self.decay * s[0] + a[0] - self.threshold * ops.stop_gradient(fired)
        return v, self.adaptation_decay * s[1] + fired

    def slopes(self, ops, s, a, phi, after):
        psi = self.surrogate(ops, s)
        carry = (self.decay, 0.0), (psi, self.adaptation_decay - self.adaptation * psi)
        return carry, ((1.0,), (0.0,)), ()

    def out_slopes(self, ops, s):
        psi = self.surrogate(ops, s)
        return ((psi, -self.adaptation * psi),)
