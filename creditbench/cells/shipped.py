"""The shipped cells by id. Each is the module of its name."""

from __future__ import annotations

import importlib

from creditbench.cells.base import Cell

#: In the order of tables.
CELLS = ("tanh", "linear", "gru", "lstm", "lru", "lif", "alif")


def cell_class(id: str) -> type[Cell]:
    """The shipped cell of that id. Raises `KeyError`.

    >>> cell_class("gru").name
    'Gated recurrent unit'
    """
    if id not in CELLS:
        raise KeyError(id)
    module = importlib.import_module(f"creditbench.cells.{id}")
    return next(
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Cell) and value.__module__ == module.__name__
    )
