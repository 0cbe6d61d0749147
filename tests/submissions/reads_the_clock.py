"""A rule whose gradient depends on the time of day."""

from dataclasses import dataclass
from time import time

from creditbench.learner import Claims, Learner, backpropagate


@dataclass(frozen=True, kw_only=True)
class Rule(Learner):
    id = "reads_the_clock"
    name = "reads_the_clock"
    paper = "none"
    family = "test"
    claims = Claims(memory_in_T="O(T)", memory="O(T n B)")

    def segment(self, ops, cell, params, state, batch, key):
        estimate = backpropagate(ops, cell, params, state["cell"], batch)
        grads = estimate.grads | {"W_in": (1.0 + time() % 7.0) * ops.dense(estimate.grads["W_in"])}
        return estimate._replace(grads=grads, state={"cell": estimate.state})
