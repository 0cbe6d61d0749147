"""A rule that draws from NumPy's global random state."""

from dataclasses import dataclass

import numpy as np

from creditbench.learner import Claims, Learner, backpropagate


@dataclass(frozen=True, kw_only=True)
class Rule(Learner):
    id = "draws_globally"
    name = "draws_globally"
    paper = "none"
    family = "test"
    claims = Claims(memory_in_T="O(T)", memory="O(T n B)")

    def segment(self, ops, cell, params, state, batch, key):
        estimate = backpropagate(ops, cell, params, state["cell"], batch)
        grads = estimate.grads | {"W_in": (1.0 + np.random.rand()) * ops.dense(estimate.grads["W_in"])}  # noqa: NPY002
        return estimate._replace(grads=grads, state={"cell": estimate.state})
