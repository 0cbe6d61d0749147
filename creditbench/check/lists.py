"""All checks, in the order in which they run and are shown."""

from __future__ import annotations

from creditbench.check import claims, contract, determinism, learning, parity, task, training
from creditbench.check.base import Check

IMPORT = Check(
    "import",
    "the file must hold one subclass of Learner or Task, be importable, and have an id of its own",
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


#: By kind of plugin, in the order of the table.
_SHOWN = {
    "learners": (
        *(IMPORT, *contract.CHECKS, *determinism.CHECKS, PARITY),
        *(*learning.CHECKS, *claims.CHECKS, *training.CHECKS),
    ),
    "tasks": (IMPORT, *TASK),
}


def names(kind: str | None) -> list[str]:
    """The names of the checks of a learner or task; for an unknown kind, that of the import."""
    return [one.name for one in _SHOWN.get(kind or "", (IMPORT,))]


def order() -> dict[str, str]:
    """The advice of every check by name, in the order of the table; a learner's for a name that both have."""
    return {one.name: one.advice for kind in ("tasks", "learners") for one in _SHOWN[kind]}


def advice(kind: str, name: str) -> str:
    """What to do if that check of a learner or task does not hold."""
    return {one.name: one.advice for one in _SHOWN[kind]}.get(name, "")
