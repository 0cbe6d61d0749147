"""A rule whose gradient is not a number."""

from creditbench.learner import Claims, Learner, backpropagate


class Rule(Learner):
    id = "not_a_number"
    name = "not_a_number"
    paper = "none"
    family = "test"
    claims = Claims()

    def segment(self, ops, cell, params, state, batch, key):
        estimate = backpropagate(ops, cell, params, state["cell"], batch)
        grads = {"W_in": ops.zeros(tuple(params["W_in"].shape)) * float("nan")}
        return estimate._replace(grads=grads, state={"cell": estimate.state})
