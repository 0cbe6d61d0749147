"""A rule that looks at Python's global random state and leaves it as it was."""

import random
from dataclasses import dataclass

from creditbench.learner import Claims, Learner, backpropagate


@dataclass(frozen=True, kw_only=True)
class Rule(Learner):
    id = "reads_a_global_seed"
    name = "reads_a_global_seed"
    paper = "none"
    family = "test"
    claims = Claims(memory_in_T="O(T)", memory="O(T n B)")

    def segment(self, ops, cell, params, state, batch, key):
        estimate = backpropagate(ops, cell, params, state["cell"], batch)
        grads = estimate.grads | {
            "W_in": (1.0 + random.getstate()[1][1] % 7) * ops.dense(estimate.grads["W_in"])
        }
        return estimate._replace(grads=grads, state={"cell": estimate.state})
