"""A rule that adds to its parameters in place."""

from dataclasses import dataclass

from creditbench.learner import Claims, Learner, backpropagate


@dataclass(frozen=True, kw_only=True)
class Rule(Learner):
    id = "changes_parameters"
    name = "changes_parameters"
    paper = "none"
    family = "test"
    claims = Claims(memory_in_T="O(T)", memory="O(T n B)")

    def segment(self, ops, cell, params, state, batch, key):
        estimate = backpropagate(ops, cell, params, state["cell"], batch)
        ops.accumulate(params["W_in"], ops.dense(estimate.grads["W_in"]), -0.1)
        return estimate._replace(state={"cell": estimate.state})
