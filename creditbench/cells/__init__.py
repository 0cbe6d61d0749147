"""The networks to train. `base`: a leaky tanh network with a linear readout, and its derivatives."""

from creditbench.cells.base import DECORRELATE, Cell, CellState, Decorrelate, Unrolled

__all__ = ["DECORRELATE", "Cell", "CellState", "Decorrelate", "Unrolled"]
