"""Leaky integrate-and-fire unit.

    v_t = κ v_{t-1} + a_t - ϑ z_{t-1}               the reset is not differentiated
    z_t = 1 if v_t > ϑ, else 0                      h_t = z_t
    ψ_t = γ/ϑ max(0, 1 - |v_t - ϑ|/ϑ)               stands for ∂z_t/∂v_t

    carry  κ;   slope  1;   ∂h_t/∂s_t = ψ_t

Backpropagation through time is defined by ψ, too. W_in and W_rec start as N(0, 1/I) and N(0, 1/n): units that
get less input are silent, and a silent unit has no gradient.

Source: Bellec et al. 2020, Nat. Commun. 11:3625.
"""

from dataclasses import dataclass

import numpy as np

from creditbench.cells.base import Cell
from creditbench.cells.functions import spike, spike_slope
from creditbench.errors import UsageError


@dataclass(frozen=True)
class LIF(Cell):
    id = "lif"
    name = "Leaky integrate-and-fire unit"
    paper = "Bellec et al. 2020, doi:10.1038/s41467-020-17236-y"
    spikes = True

    decay: float = 0.95  #: κ, of the voltage in a step
    threshold: float = 1.0  #: ϑ
    dampening: float = 0.3  #: γ, the height of the surrogate derivative

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.decay < 1:
            raise UsageError(f"decay is {self.decay}: the cell {self.id} needs one in [0, 1)")
        for name in ("threshold", "dampening"):
            if getattr(self, name) <= 0:
                raise UsageError(f"{name} is {getattr(self, name)}: the cell {self.id} needs one above 0")

    def init(self, seed):
        rng = np.random.default_rng([seed, 0x5B])
        shapes = {name: shape for name, shape in self.shapes().items() if name in ("W_in", "W_rec")}
        by_fan_in = {name: rng.normal(0.0, shape[1] ** -0.5, shape) for name, shape in shapes.items()}
        return super().init(seed) | by_fan_in

    def over(self, s):
        """The voltage over the threshold, in units of ϑ."""
        return s[0] / self.threshold - 1.0

    def surrogate(self, ops, s):
        """ψ."""
        return spike_slope(ops, self.over(s), self.dampening) / self.threshold

    def f(self, ops, s, a, phi):
        (fired,) = self.o(ops, s)
        return (self.decay * s[0] + a[0] - self.threshold * ops.stop_gradient(fired),)

    def o(self, ops, s):
        return (spike(ops, self.over(s), self.dampening),)

    def slopes(self, ops, s, a, phi, after):
        return ((self.decay,),), ((1.0,),), ()

    def out_slopes(self, ops, s):
        return ((self.surrogate(ops, s),),)
