"""The module from which rules import the network; it is defined in `creditbench.cells`."""

from creditbench.cells import Cell, CellState, Unrolled, back, through

__all__ = ["Cell", "CellState", "Unrolled", "back", "through"]
