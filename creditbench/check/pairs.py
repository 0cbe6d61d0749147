"""Which rule goes with which cell: found by running each rule, not by a list."""

from __future__ import annotations

import numpy as np

from creditbench.cells import Cell
from creditbench.check.base import Broken
from creditbench.check.probe import difference, leaves, make_batch
from creditbench.check.subject import Subject
from creditbench.learner import Batch
from creditbench.plugins.importing import Plugin

#: Segments of a run: the first estimate of some rules is zero.
_SEGMENTS = 3


def goes_with(plugin: Plugin, kind: type[Cell]) -> str:
    """Whether a rule goes with a cell, in words.

    "yes"; "leaves nu, theta as they start" for a rule whose gradient of a unit's own parameters is zero; or
    "no" with the rule's reason. Raises `Broken` for a rule that fits and does not run.
    """
    # Step by step where it can be: a program for each pair would take long to compile.
    subject = Subject(plugin, "torch" if "torch" in plugin.cls.backends else min(plugin.cls.backends), kind)
    if why := subject.rule.fits(subject.plain):
        return f"no: {why}"
    ops, cell = subject.ops, subject.plain
    first, state, _, _ = subject.arguments()
    params, moved = first, set[str]()
    with ops.host.without_tape():
        for number in range(_SEGMENTS):
            batch = Batch(*ops.from_numpy(tuple(make_batch(seed=number))))
            found = subject.rule.segment(ops, cell, params, state, batch, ops.key(number))
            grads = ops.to_numpy({name: ops.dense(grad) for name, grad in found.grads.items()})
            if not all(np.isfinite(x).all() for x in leaves(grads).values()):
                raise Broken(f"{plugin.id} with {kind.id}: its gradient is not finite")
            moved |= {name for name, grad in grads.items() if np.any(grad)}
            params, state = params | found.assigned, found.state
    moved |= {k for k in cell.phi if difference(*(ops.to_numpy({k: x[k]}) for x in (first, params)))[0] > 0}
    left = [name for name in cell.phi if name not in moved]
    return f"leaves {', '.join(left)} as they start" if left else "yes"
