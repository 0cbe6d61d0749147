"""A rule that returns a gradient of another shape."""

from creditbench.learner import Claims, Learner, backpropagate


class Rule(Learner):
    id = "wrong_shape"
    name = "wrong_shape"
    paper = "none"
    family = "test"
    claims = Claims()

    def segment(self, ops, cell, params, state, batch, key):
        estimate = backpropagate(ops, cell, params, state["cell"], batch)
        grads = estimate.grads | {"W_in": ops.zeros((1, 1))}
        return estimate._replace(grads=grads, state={"cell": estimate.state})
