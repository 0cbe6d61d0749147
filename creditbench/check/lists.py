"""All checks, in the order in which they run and are shown."""

from __future__ import annotations

from creditbench.check import cell, claims, contract, determinism, learning, parity, task, training
from creditbench.check.base import Check

IMPORT = Check(
    "import",
    "the file must hold one subclass of Learner, Task or Cell, be importable, and have an id of its own",
    run=lambda subject: "",
    needed=True,
)
#: Checks of a learner, under one backend.
LEARNER: tuple[Check, ...] = (
    *contract.CHECKS,
    *determinism.CHECKS,
    *learning.CHECKS,
    *claims.CHECKS,
    *training.CHECKS,
)
#: Between the backends, from the numbers that each gives.
PARITY = Check(parity.NAME, parity.ADVICE, run=lambda subject: "")
TASK: tuple[Check, ...] = tuple(task.CHECKS)
#: Checks of a cell, under one backend.
CELL: tuple[Check, ...] = tuple(cell.CHECKS)


#: By kind of plugin, in the order of the table.
_SHOWN = {
    "learners": (
        *(IMPORT, *contract.CHECKS, *determinism.CHECKS, PARITY),
        *(*learning.CHECKS, *claims.CHECKS, *training.CHECKS),
    ),
    "tasks": (IMPORT, *TASK),
    "cells": (IMPORT, *CELL, PARITY),
}


def names(kind: str | None) -> list[str]:
    """The names of the checks of a learner, task or cell; for an unknown kind, that of the import."""
    return [one.name for one in _SHOWN.get(kind or "", (IMPORT,))]


def order() -> dict[str, str]:
    """The advice of every check by name, in the order of the table; a learner's for a shared name."""
    return {one.name: one.advice for kind in ("tasks", "cells", "learners") for one in _SHOWN[kind]}


def advice(kind: str, name: str) -> str:
    """What to do if that check of a learner, task or cell does not hold."""
    if (kind, name) == ("cells", PARITY.name):
        return "write `f` and `o` with `ops.xp` and creditbench.cells.functions alone"
    return {one.name: one.advice for one in _SHOWN[kind]}.get(name, "")
