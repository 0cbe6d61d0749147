"""A network of linear units.

    h_t = (1-α) h_{t-1} + α a_t                 carry 1-α;  slope α

Source: Saxe, McClelland & Ganguli 2014, arXiv 1312.6120, who study learning in linear networks.
"""

from dataclasses import dataclass

from creditbench.cells.base import Cell, Derivatives


@dataclass(frozen=True)
class Linear(Cell):
    id = "linear"
    name = "Leaky linear unit"
    paper = "Saxe, McClelland & Ganguli 2014, arXiv:1312.6120"
    leaky = True

    def f(self, ops, s, a, phi):
        return (a[0] if self.alpha == 1.0 else (1.0 - self.alpha) * s[0] + self.alpha * a[0],)

    def derivatives(self, ops, params, unrolled):
        return Derivatives(self.alpha * ops.xp.ones_like(unrolled.a))
