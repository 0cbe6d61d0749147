"""The vanilla network: a leaky unit with the hyperbolic tangent.

    h_t = (1-α) h_{t-1} + α tanh(a_t)           carry 1-α;  slope α (1 - tanh² a_t)

Source: Elman 1990, Cognitive Science 14(2):179.

>>> import creditbench as cb
>>> cb.make_cell("tanh", inputs=2, hidden=3, outputs=1, alpha=0.5).parameters    # weights of a unit
5
"""

from dataclasses import dataclass

from creditbench.cells.base import Cell, Derivatives


@dataclass(frozen=True)
class Tanh(Cell):
    id = "tanh"
    name = "Leaky tanh unit"
    paper = "Elman 1990, doi:10.1207/s15516709cog1402_1"
    leaky = True

    def f(self, ops, s, a, phi):
        h = ops.xp.tanh(a[0])
        return (h if self.alpha == 1.0 else (1.0 - self.alpha) * s[0] + self.alpha * h,)

    def derivatives(self, ops, params, unrolled):
        # Without a leak and decorrelation, the output is tanh(a) itself.
        known = self.alpha == 1.0 and self.decorrelate == "none"
        phi = unrolled.out if known else ops.xp.tanh(unrolled.a)
        slope = 1.0 - phi * phi
        return Derivatives(slope if self.alpha == 1.0 else self.alpha * slope)
