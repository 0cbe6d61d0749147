"""The networks to train: affine maps, then dynamics that each unit has for itself.

- `base`: the contract, the forward pass, the derivatives that rules use
- `tanh`, `linear`, `gru`, `lstm`, `lru`, `lif`, `alif`: a cell each; `functions`: what they are made of
- `shipped`: the cells by id
- `stack`: several layers of a cell
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
