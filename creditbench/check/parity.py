"""One rule under two backends: the same noise gives the same numbers."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from creditbench.check.base import Broken, NotApplicable
from creditbench.check.probe import difference, make_batch
from creditbench.check.subject import Subject

NAME = "backends agree"
ADVICE = (
    "write the rule in `ops` alone: what NumPy, Python's random or a framework's own defaults add differs "
    "between backends"
)
_CELLS: tuple[dict[str, Any], ...] = (
    dict(alpha=0.3),
    dict(bias=False, loss="cross_entropy"),
    dict(alpha=0.3, decorrelate="both"),
)


def numbers(subject: Subject) -> dict[str, Any]:
    """The results of two segments in each cell, with injected noise, by name, as lists."""
    found: dict[str, Any] = {}
    for i, options in enumerate(_CELLS):
        if options.get("decorrelate") and not subject.rule.decorrelates:
            continue
        cell = subject.cell(**options)
        state = None
        for part in range(2):  # twice, so that the carried state is compared by its effect
            batch = make_batch(seed=part, loss=cell.loss)
            loss, grads, state, assigned = subject.estimate(
                subject.injected, cell, batch=batch, key=part, state=state
            )
            own = {"loss": loss, **{f"grads {k}": v for k, v in grads.items()}}
            own |= {f"assigned {k}": v for k, v in assigned.items()}
            found |= {f"{i} {part} {name}": np.asarray(value).tolist() for name, value in own.items()}
    return found


def compare(found: dict[str, dict[str, Any]], declared: frozenset[str]) -> str:
    """Compare the `numbers` of the backends; raises `Broken` or `NotApplicable`."""
    if len(declared) < 2:
        raise NotApplicable(f"the rule is written for {', '.join(declared)} alone")
    require_several(found)
    first, *others = found
    worst, where, other = max((*difference(found[first], found[name]), name) for name in others)
    if worst > 1e-10:
        cell, part, name = where.partition(",")[0].split(" ", 2)
        options = ", ".join(f"{k} {v}" for k, v in _CELLS[int(cell)].items())
        raise Broken(
            f"with the same noise, {name} of {first} and of {other} differ by {worst:.2g} "
            f"(segment {int(part) + 1}; {options})"
        )
    return f"with the same noise to {worst:.1g}"


def require_several(found: Collection[str]) -> None:
    """Raise `NotApplicable` unless several backends gave numbers."""
    if len(found) < 2:
        raise NotApplicable(f"{next(iter(found), 'no backend')}{' alone' if found else ''} gave numbers")
