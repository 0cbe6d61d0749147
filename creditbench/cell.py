"""The name under which rules import what they need of a network; `creditbench.cells` has it."""

from creditbench.cells import Cell, CellState, Unrolled

__all__ = ["Cell", "CellState", "Unrolled"]
