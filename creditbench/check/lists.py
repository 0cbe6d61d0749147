"""All checks, in the order in which they are run and shown."""

from __future__ import annotations

from creditbench.check import claims, contract, determinism, parity, task, training
from creditbench.check.base import Check

IMPORT = Check(
    "import",
    "the file must hold one subclass of Learner or Task, be importable, and have an id of its own",
    run=lambda subject: "",
    needed=True,
)
#: Of a learner, under one backend.
LEARNER: tuple[Check, ...] = (
    *contract.CHECKS,
    *determinism.CHECKS,
    *claims.CHECKS,
    *training.CHECKS,
)
#: Between the backends, from the numbers that each gives.
PARITY = Check(parity.NAME, parity.ADVICE, run=lambda subject: "")
TASK: tuple[Check, ...] = tuple(task.CHECKS)


def order() -> dict[str, str]:
    """The advice of every check by its name, in the order of the table."""
    learner = {one.name: one.advice for one in LEARNER}
    names = list(learner)
    names.insert(len(contract.CHECKS) + len(determinism.CHECKS), PARITY.name)
    found = {IMPORT.name: IMPORT.advice}
    found |= {name: learner.get(name, PARITY.advice) for name in names}
    return found | {one.name: one.advice for one in TASK if one.name not in found}


def advice(kind: str, name: str) -> str:
    """What to do where that check of a learner or task does not hold."""
    if kind == "tasks":
        for one in TASK:
            if one.name == name:
                return one.advice
    return order().get(name, "")
