"""A rule with a factor that depends on the backend."""

from dataclasses import dataclass

from creditbench.learner import Claims, Learner, backpropagate


@dataclass(frozen=True, kw_only=True)
class Rule(Learner):
    id = "another_under_torch"
    name = "another_under_torch"
    paper = "none"
    family = "test"
    claims = Claims(memory_in_T="O(T)", memory="O(T n B)")

    def segment(self, ops, cell, params, state, batch, key):
        estimate = backpropagate(ops, cell, params, state["cell"], batch)
        grads = estimate.grads | {
            "W_in": (1.001 if ops.name == "torch" else 1.0) * ops.dense(estimate.grads["W_in"])
        }
        return estimate._replace(grads=grads, state={"cell": estimate.state})
