"""It starts a process."""

import os

from creditbench.learner import Claims, Learner, backpropagate

os.fork()


class Rule(Learner):
    id = "forks"
    name = "forks"
    paper = "none"
    family = "test"
    claims = Claims()

    def segment(self, ops, cell, params, state, batch, key):
        estimate = backpropagate(ops, cell, params, state["cell"], batch)
        return estimate._replace(state={"cell": estimate.state})
