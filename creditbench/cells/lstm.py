"""Long short-term memory, with a forget gate.

    i = σ(a_i)   f = σ(a_f)   g = tanh(a_g)   o = σ(a_o)
    c_t = f c_{t-1} + i g      h_t = o tanh(c_t)

    carry  of c by c: f;   of h by c: o(1 - tanh² c_t) f
    slope  of c: in a_i  g i(1-i);  in a_f  c_{t-1} f(1-f);  in a_g  i(1-g²)
           of h: the same times o(1 - tanh² c_t), and in a_o  tanh(c_t) o(1-o)

The gates are ordered i, f, g, o. With biases, that of the forget gate starts at `forget_bias`.

Source: Hochreiter & Schmidhuber 1997, Neural Computation 9(8):1735; Gers, Schmidhuber & Cummins 2000, Neural
Computation 12(10):2451.
"""

from dataclasses import dataclass

import numpy as np

from creditbench.cells.base import Cell
from creditbench.cells.functions import sigmoid


@dataclass(frozen=True)
class LSTM(Cell):
    id = "lstm"
    name = "Long short-term memory"
    paper = "Hochreiter & Schmidhuber 1997, doi:10.1162/neco.1997.9.8.1735"
    S = 2  # c, h
    G = 4
    sees_input = (0, 4)
    sees_recurrence = (0, 4)

    forget_bias: float = 1.0  #: b of the forget gate at the start

    def first_bias(self):
        return np.repeat([0.0, self.forget_bias, 0.0, 0.0], self.hidden)

    def f(self, ops, s, a, phi):
        i, f, o = (sigmoid(ops, a[k]) for k in (0, 1, 3))
        c = f * s[0] + i * ops.xp.tanh(a[2])
        return c, o * ops.xp.tanh(c)

    def o(self, ops, s):
        return s[1:]

    def slopes(self, ops, s, a, phi, after):
        i, f, o = (sigmoid(ops, a[k]) for k in (0, 1, 3))
        g, squashed = ops.xp.tanh(a[2]), ops.xp.tanh(after[0])
        to_h = o * (1.0 - squashed * squashed)
        of_c = g * i * (1.0 - i), s[0] * f * (1.0 - f), i * (1.0 - g * g)
        of_h = *(to_h * x for x in of_c), squashed * o * (1.0 - o)
        return ((f, 0.0), (to_h * f, 0.0)), ((*of_c, 0.0), of_h), ()

    def out_slopes(self, ops, s):
        return ((0.0, 1.0),)
