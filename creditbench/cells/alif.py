"""Adaptive leaky integrate-and-fire unit: each spike raises the threshold for a while.

    v_t = κ v_{t-1} + a_t - ϑ z_{t-1}               the reset is not differentiated
    b_t = ρ b_{t-1} + z_{t-1}                       adaptation
    z_t = 1 if v_t > ϑ + β b_t, else 0              h_t = z_t
    ψ_t = γ/ϑ max(0, 1 - |v_t - ϑ - β b_t|/ϑ)       stands for ∂z_t/∂v_t

    carry  of v by v: κ;  of b by v: ψ_{t-1};  of b by b: ρ - β ψ_{t-1};   slope  1 of v, 0 of b
    ∂h_t/∂(v, b) = (ψ_t, -β ψ_t)

W_in and W_rec start as those of `lif`.

Source: Bellec et al. 2020, Nat. Commun. 11:3625.
"""

from dataclasses import dataclass

from creditbench.cells.base import Cell
from creditbench.cells.functions import spike, spike_slope
from creditbench.cells.lif import by_fan_in, require_spiking
from creditbench.errors import UsageError


@dataclass(frozen=True)
class ALIF(Cell):
    id = "alif"
    name = "Adaptive leaky integrate-and-fire unit"
    paper = "Bellec et al. 2020, doi:10.1038/s41467-020-17236-y"
    S = 2  # v, b
    spikes = True

    decay: float = 0.95  #: κ, of the voltage in a step
    adaptation_decay: float = 0.995  #: ρ, of the adaptation in a step
    adaptation: float = 0.18  #: β
    threshold: float = 1.0  #: ϑ
    dampening: float = 0.3  #: γ, the height of the surrogate derivative

    def __post_init__(self):
        super().__post_init__()
        require_spiking(self)
        if not 0 <= self.adaptation_decay < 1:
            value = self.adaptation_decay
            raise UsageError(f"adaptation_decay is {value}: the cell alif needs one in [0, 1)")

    def init(self, seed):
        return super().init(seed) | by_fan_in(self, seed)

    def over(self, s):
        """The voltage over the threshold, in units of ϑ."""
        return (s[0] - self.adaptation * s[1]) / self.threshold - 1.0

    def f(self, ops, s, a, phi):
        (fired,) = self.o(ops, s)
        v = self.decay * s[0] + a[0] - self.threshold * ops.stop_gradient(fired)
        return v, self.adaptation_decay * s[1] + fired

    def o(self, ops, s):
        return (spike(ops, self.over(s), self.dampening),)

    def slopes(self, ops, s, a, phi, after):
        psi = spike_slope(ops, self.over(s), self.dampening) / self.threshold
        carry = (self.decay, 0.0), (psi, self.adaptation_decay - self.adaptation * psi)
        return carry, ((1.0,), (0.0,)), ()

    def out_slopes(self, ops, s):
        psi = spike_slope(ops, self.over(s), self.dampening) / self.threshold
        return ((psi, -self.adaptation * psi),)
