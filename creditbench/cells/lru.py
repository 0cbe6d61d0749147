"""Linear recurrent unit: a diagonal, complex, linear recurrence.

    λ = exp(-exp(ν) + i exp(θ))     γ = √(1 - |λ|²)
    s_t = λ s_{t-1} + γ a_t                             a_t = W_in x̂_t + b, complex: gates Re and Im
    y_t = W_out [Re s_t, Im s_t, x̂_t] + c

    carry  λ as a matrix over (Re, Im);   slope  γ I
    ∂s_t/∂ν = -exp(ν) λ s_{t-1} + exp(ν) |λ|²/γ a_t     ∂s_t/∂θ = i exp(θ) λ s_{t-1}

There is no W_rec: a unit acts on itself alone, so its influence is exact in memory O(p). |λ| starts uniform
in area between `r_min` and `r_max`, the phase uniform up to `max_phase`, and W_in as N(0, 1/2I). Unlike in
the paper, γ follows ν through training.

Source: Orvieto et al. 2023, arXiv 2303.06349; online: Zucchet et al. 2023, arXiv 2305.15947.
"""

from dataclasses import dataclass
from math import pi

import numpy as np

from creditbench.cells.base import Cell
from creditbench.errors import UsageError


@dataclass(frozen=True)
class LRU(Cell):
    id = "lru"
    name = "Linear recurrent unit"
    paper = "Orvieto et al. 2023, arXiv:2303.06349"
    S = 2  # Re, Im
    G = 2
    Q = 2
    sees_input = (0, 2)
    sees_recurrence = (0, 0)
    phi = ("nu", "theta")
    skips = True

    r_min: float = 0.5  #: least |λ| at the start
    r_max: float = 0.99  #: greatest |λ| at the start
    max_phase: float = pi / 2  #: greatest phase of λ at the start

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.r_min < self.r_max < 1:
            raise UsageError(
                f"r_min is {self.r_min} and r_max {self.r_max}: the cell lru needs 0 < r_min < r_max < 1"
            )
        if not 0 < self.max_phase <= 2 * pi:
            raise UsageError(f"max_phase is {self.max_phase}: the cell lru needs one in (0, 2π]")

    def init(self, seed):
        params = super().init(seed)
        rng = np.random.default_rng([seed, 0x17])
        params["W_in"] = rng.normal(0.0, np.sqrt(0.5 / self.inputs), params["W_in"].shape)
        return params

    def own_parameters(self, rng):
        area = rng.uniform(self.r_min**2, self.r_max**2, self.hidden)
        phase = self.max_phase * (1.0 - rng.uniform(0.0, 1.0, self.hidden))  # never 0, whose logarithm is not
        return {"nu": np.log(-0.5 * np.log(area)), "theta": np.log(phase)}

    def eigenvalues(self, ops, phi):
        """(Re λ, Im λ, γ)."""
        xp = ops.xp
        size, phase = xp.exp(-xp.exp(phi["nu"])), xp.exp(phi["theta"])
        return size * xp.cos(phase), size * xp.sin(phase), xp.sqrt(1.0 - size * size)

    def f(self, ops, s, a, phi):
        (re, im), (a_re, a_im) = s, a
        l_re, l_im, gamma = self.eigenvalues(ops, phi)
        return l_re * re - l_im * im + gamma * a_re, l_re * im + l_im * re + gamma * a_im

    def slopes(self, ops, s, a, phi, after):
        (re, im), (a_re, a_im) = s, a
        l_re, l_im, gamma = self.eigenvalues(ops, phi)
        turned_re, turned_im = l_re * re - l_im * im, l_re * im + l_im * re  # λ s
        by_nu, by_theta = ops.xp.exp(phi["nu"]), ops.xp.exp(phi["theta"])
        grown = by_nu * (1.0 - gamma * gamma) / gamma
        own = (
            (grown * a_re - by_nu * turned_re, -by_theta * turned_im),
            (grown * a_im - by_nu * turned_im, by_theta * turned_re),
        )
        return ((l_re, -l_im), (l_im, l_re)), ((gamma, 0.0), (0.0, gamma)), own

    def out_slopes(self, ops, s):
        return (1.0, 0.0), (0.0, 1.0)
