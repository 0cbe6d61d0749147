"""A rule whose gradient is not a number."""

from dataclasses import dataclass

from creditbench.learner import Claims, Learner, backpropagate


@dataclass(frozen=True, kw_only=True)
class Rule(Learner):
    id = "anp"
    name = "anp"
    paper = "none"
    family = "test"
    claims = Claims(memory_in_T="O(T)", memory="O(T n B)")

    def segment(self, ops, cell, params, state, batch, key):
        estimate = backpropagate(ops, cell, params, state["cell"], batch)
        grads = estimate.grads | {"W_in": float("nan") * ops.dense(estimate.grads["W_in"])}
        return estimate._replace(grads=grads, state={"cell": estimate.state})
