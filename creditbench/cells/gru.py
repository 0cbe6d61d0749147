"""Gated recurrent unit, with the reset gate after the recurrent product, as cuDNN and PyTorch have it.

    r = σ(a_r)   z = σ(a_z)   h̃ = tanh(a_x + r a_h)         a_x, a_h: the candidate's input, recurrent part
    h_t = (1-z) h̃ + z h_{t-1}

    carry  z
    slope  in a_x  u = (1-z)(1 - h̃²);   in a_r  u a_h r(1-r);   in a_z  (h_{t-1} - h̃) z(1-z);   in a_h  u r

The gates are ordered x, r, z, h, so W_in has rows for x, r, z, and W_rec for r, z, h.

Source: Cho et al. 2014, arXiv 1406.1078.
"""

from dataclasses import dataclass

from creditbench.cells.base import Cell
from creditbench.cells.functions import sigmoid


@dataclass(frozen=True)
class GRU(Cell):
    id = "gru"
    name = "Gated recurrent unit"
    paper = "Cho et al. 2014, arXiv:1406.1078"
    G = 4
    sees_input = (0, 3)
    sees_recurrence = (1, 4)

    def f(self, ops, s, a, phi):
        (h,), (a_x, a_r, a_z, a_h) = s, a
        z = sigmoid(ops, a_z)
        candidate = ops.xp.tanh(a_x + sigmoid(ops, a_r) * a_h)
        return (candidate + z * (h - candidate),)

    def slopes(self, ops, s, a, phi, after):
        (h,), (a_x, a_r, a_z, a_h) = s, a
        r, z = sigmoid(ops, a_r), sigmoid(ops, a_z)
        candidate = ops.xp.tanh(a_x + r * a_h)
        u = (1.0 - z) * (1.0 - candidate * candidate)
        return ((z,),), ((u, u * a_h * r * (1.0 - r), (h - candidate) * z * (1.0 - z), u * r),), ()
