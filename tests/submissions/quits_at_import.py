"""It asks Python to end as it is imported."""

import sys

from creditbench.learner import Claims, Learner, backpropagate

sys.exit("bye")


class Rule(Learner):
    id = "quits_at_import"
    name = "quits_at_import"
    paper = "none"
    family = "test"
    claims = Claims()

    def segment(self, ops, cell, params, state, batch, key):
        estimate = backpropagate(ops, cell, params, state["cell"], batch)
        return estimate._replace(state={"cell": estimate.state})
