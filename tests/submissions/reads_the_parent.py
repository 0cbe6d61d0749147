"""It looks for the targets in its parent's memory."""

import os

from creditbench.learner import Claims, Learner, backpropagate

os.open(f"/proc/{os.getppid()}/mem", os.O_RDONLY)


class Rule(Learner):
    id = "reads_the_parent"
    name = "reads_the_parent"
    paper = "none"
    family = "test"
    claims = Claims()

    def segment(self, ops, cell, params, state, batch, key):
        estimate = backpropagate(ops, cell, params, state["cell"], batch)
        return estimate._replace(state={"cell": estimate.state})
