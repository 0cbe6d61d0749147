"""The networks to train: affine maps, then dynamics that each unit has for itself.

- `base`: the contract, the forward pass, the derivatives that rules use
- `tanh`, `linear`, `gru`, `lstm`, `lru`, `lif`, `alif`: a cell each; `functions`: what they are made of
- `shipped`: the cells by id
- `stack`: several layers of a cell

The examples of these names go on from this one:

>>> import numpy as np
>>> import creditbench as cb
>>> ops = cb.make_ops("torch")
>>> cell = cb.make_cell("tanh", inputs=2, hidden=3, outputs=1)
>>> params = ops.from_numpy(cell.init(seed=0))
>>> x = ops.from_numpy(np.ones((20, 2)))                         # 4 steps of 5 sequences, as rows
>>> end, unrolled = cell.unroll(ops, params, cell.start(ops, 5), x, 4)
"""

from creditbench.cells.base import (
    DECORRELATE,
    Cell,
    CellState,
    Decorrelate,
    Derivatives,
    Presynaptic,
    Unrolled,
    back,
    through,
)
from creditbench.cells.shipped import CELLS, cell_class
from creditbench.cells.stack import Stack
from creditbench.cells.tanh import Tanh

__all__ = [
    "CELLS",
    "DECORRELATE",
    "Cell",
    "CellState",
    "Decorrelate",
    "Derivatives",
    "Presynaptic",
    "Stack",
    "Tanh",
    "Unrolled",
    "back",
    "cell_class",
    "through",
]
