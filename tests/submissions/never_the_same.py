"""A rule that counts its calls in a global."""

import itertools
from dataclasses import dataclass

from creditbench.learner import Claims, Learner, backpropagate

CALLS = itertools.count(1)


@dataclass(frozen=True, kw_only=True)
class Rule(Learner):
    id = "never_the_same"
    name = "never_the_same"
    paper = "none"
    family = "test"
    claims = Claims(memory_in_T="O(T)", memory="O(T n B)")

    def segment(self, ops, cell, params, state, batch, key):
        estimate = backpropagate(ops, cell, params, state["cell"], batch)
        grads = estimate.grads | {"W_in": float(next(CALLS)) * ops.dense(estimate.grads["W_in"])}
        return estimate._replace(grads=grads, state={"cell": estimate.state})
