"""Decorrelation: any rule, on a cell whose activity is decorrelated during learning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from creditbench.cells import Cell
from creditbench.learner.backward import forward
from creditbench.learner.contract import Batch, Estimate, Learner
from creditbench.ops.base import Array, Key, NumpyTree, Ops, Outer, Tree


@dataclass(frozen=True, kw_only=True)
class Decorrelated:
    """Any rule, with its cell's activity decorrelated during learning.

        ΔD = -η offdiag(⟨ĥ ĥᵀ⟩) D        ⟨⟩ over batch and steps of the segment

    D_in changes in the same way by x̂, if the input is decorrelated too. No product of n×n matrices is formed:
    with the R = K·B rows Ĥ [R, n], offdiag(⟨ĥ ĥᵀ⟩) D = Ĥᵀ (Ĥ D) / R - diag(⟨ĥ²⟩) D, which is O(R n²).

    D moves after the segment, by the activity in the rule's own pass. If the rule's `decorrelation` is
    "before", D moves by the activity in a clean pass, and the rule then gets the segment with the new D.

    Sources: Ahmad et al. 2023; Dalm et al. 2023.

    >>> whitened = cb.make_cell("tanh", inputs=2, hidden=3, outputs=1, decorrelate="hidden")
    >>> own = ops.from_numpy(whitened.init(seed=0))
    >>> rule = Decorrelated(learner=cb.make_learner("bptt"), rate=1e-3)
    >>> found = rule.segment(ops, whitened, own, rule.init(ops, whitened, own, 5), batch, ops.key(0))
    >>> tuple(found.assigned["D"].shape)
    (3, 3)
    """

    learner: Learner
    rate: float  #: η

    def weights(self, cell: Cell, params: NumpyTree) -> NumpyTree:
        return self.learner.weights(cell, params)

    def init(self, ops: Ops, cell: Cell, params: Tree, batch_size: int) -> Tree:
        return self.learner.init(ops, cell, params, batch_size)

    def reset(self, ops: Ops, cell: Cell, params: Tree, state: Tree, batch_size: int) -> Tree:
        return self.learner.reset(ops, cell, params, state, batch_size)

    def segment(self, ops: Ops, cell: Cell, params: Tree, state: Tree, batch: Batch, key: Key) -> Estimate:
        raw, batch = batch, batch._replace(inputs=cell.encode(params, batch.inputs))
        if self.learner.decorrelation == "before":
            hidden = forward(ops, cell, params, state["clean"], batch)[2]
            moved = self.moved(ops, cell, params, hidden, batch.inputs)
            batch = raw._replace(inputs=cell.encode(params | moved, raw.inputs))
            estimate = self.learner.segment(ops, cell, params | moved, state, batch, key)
            return estimate._replace(assigned=estimate.assigned | moved)
        estimate = self.learner.segment(ops, cell, params, state, batch, key)
        if estimate.hidden is None:
            raise TypeError(
                f"{type(self.learner).__name__}.segment returned no hidden activity for a decorrelated cell"
            )
        moved = self.moved(ops, cell, params, estimate.hidden, batch.inputs)
        return estimate._replace(assigned=estimate.assigned | moved)

    def moved(self, ops: Ops, cell: Cell, params: Tree, hidden: Any, inputs: Array) -> Tree:
        """D, and D_in if there is one, after a step against the correlation of ĥ and of x̂."""
        moved: Tree = {}
        start = 0
        for k, layer in enumerate(cell.layers):
            activity = hidden[..., start : start + layer.width]  # behind the last, the readout's other inputs
            D = decorrelated(ops, cell.of_layer(params, k)["D"], activity, self.rate)
            moved |= cell.of_all({"D": D}, k)
            start += layer.width
        if "D_in" in params:
            moved["D_in"] = decorrelated(ops, params["D_in"], inputs, self.rate)
        return moved


def decorrelated(ops: Ops, D: Array, activity: Array, rate: float) -> Array:
    """D after one step against the correlation of decorrelated activity [..., n].

    >>> activity = ops.from_numpy(np.array([[1.0, 1.0], [1.0, 1.0]]))
    >>> ops.to_numpy(decorrelated(ops, ops.from_numpy(np.eye(2)), activity, rate=0.1)).round(3).tolist()
    [[1.0, -0.1], [-0.1, 1.0]]
    """
    activity = activity.reshape((-1, activity.shape[-1]))
    scale = rate / activity.shape[0]
    power = (activity * activity).sum(0)
    return ops.accumulate(D * (1.0 + scale * power)[:, None], Outer(activity, activity @ D), -scale)
