"""My cell: a unit with one gate, and a pace of its own.

    z_t = σ(a_z + τ)                             how much goes in; τ_i: the unit's own parameter
    s_t = (1 - z_t) s_{t-1} + z_t a_x
    h_t = tanh(s_t)                              what the recurrence and the readout see

a_x and a_z are affine in the input and in h_{t-1} of all units, with biases where a run has --bias. The cell
says below which of them sees what, and the rest is the harness's.

Rules need the carry ∂s_t/∂s_{t-1}, the slope ∂s_t/∂a_t, ∂s_t/∂τ and ∂h_t/∂s_t of a unit. They come from the
framework's forward mode of `f` and `o`. A cell that spells them out as `slopes` and `out_slopes` is faster.

Source: Zhou et al. 2016, arXiv 1603.09420, without the gate of the candidate.
"""

from dataclasses import dataclass

from creditbench.cells import Cell
from creditbench.cells.functions import sigmoid
from creditbench.errors import UsageError


@dataclass(frozen=True)
class MyCell(Cell):
    id = "my_cell"
    name = "My cell"
    paper = "Zhou et al. 2016, arXiv:1603.09420"
    S = 1  # numbers of a unit's state
    G = 2  # gates: a[0] is a_x, a[1] is a_z
    sees_input = (0, 2)  # a[0:2] have weights of the input
    sees_recurrence = (0, 2)  # a[0:2] have recurrent weights; (0, 0): a unit acts on itself alone
    phi = ("tau",)  # a unit's own parameters, which are trained too; leave both out if there are none

    pace: float = 1.0  #: the mean of τ at the start, a constant of the cell: `--set my_cell.pace=0`

    def __post_init__(self):
        super().__post_init__()
        if not -10 <= self.pace <= 10:
            raise UsageError(f"pace is {self.pace}: the cell my_cell needs one from -10 to 10")

    def own_parameters(self, rng):
        return {"tau": rng.normal(self.pace, 0.5, self.hidden)}

    def f(self, ops, s, a, phi):
        # One step of each unit by itself. s and a are tuples of S and G arrays [..., n], and so is s_t, the
        # result. ops.xp is jax.numpy, or PyTorch under the same names.
        z = sigmoid(ops, a[1] + phi["tau"])
        return ((1.0 - z) * s[0] + z * a[0],)

    def o(self, ops, s):
        # h of s: it must be 0 at s = 0. A cell whose h is the first number of s leaves this out.
        return (ops.xp.tanh(s[0]),)
