"""It ends the process as it is imported."""

import os

from creditbench.learner import Claims, Learner, backpropagate

os._exit(4)


class Rule(Learner):
    id = "exits_at_import"
    name = "exits_at_import"
    paper = "none"
    family = "test"
    claims = Claims()

    def segment(self, ops, cell, params, state, batch, key):
        estimate = backpropagate(ops, cell, params, state["cell"], batch)
        return estimate._replace(state={"cell": estimate.state})
