"""A rule without noise that claims to be unbiased, and drops a factor."""

from dataclasses import dataclass

from creditbench.learner import Claims, Learner, backpropagate


@dataclass(frozen=True, kw_only=True)
class Rule(Learner):
    id = "falsely_unbiased"
    name = "falsely_unbiased"
    paper = "none"
    family = "test"
    claims = Claims(unbiased=True, memory_in_T="O(T)", memory="O(T n B)")

    def segment(self, ops, cell, params, state, batch, key):
        estimate = backpropagate(ops, cell, params, state["cell"], batch)
        grads = estimate.grads | {"W_in": 0.97 * ops.dense(estimate.grads["W_in"])}
        return estimate._replace(grads=grads, state={"cell": estimate.state})
