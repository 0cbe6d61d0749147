"""BPTT: the twin of those that cheat."""

from creditbench.learner import Claims, Learner, backpropagate


class Rule(Learner):
    id = "honest"
    name = "honest"
    paper = "none"
    family = "test"
    claims = Claims()

    def segment(self, ops, cell, params, state, batch, key):
        estimate = backpropagate(ops, cell, params, state["cell"], batch)
        return estimate._replace(state={"cell": estimate.state})
