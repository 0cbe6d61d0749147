"""A rule that returns a gradient of another shape."""

from dataclasses import dataclass

from creditbench.learner import Claims, Learner, backpropagate


@dataclass(frozen=True, kw_only=True)
class Rule(Learner):
    id = "wrong_shape_of_gradient"
    name = "wrong_shape_of_gradient"
    paper = "none"
    family = "test"
    claims = Claims(memory_in_T="O(T)", memory="O(T n B)")

    def segment(self, ops, cell, params, state, batch, key):
        estimate = backpropagate(ops, cell, params, state["cell"], batch)
        grads = estimate.grads | {"W_in": ops.zeros((1, 1))}
        return estimate._replace(grads=grads, state={"cell": estimate.state})
