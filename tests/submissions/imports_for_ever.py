"""Its import never ends, and catches all exceptions."""

import time

from creditbench.learner import Claims, Learner, backpropagate

while True:
    try:
        time.sleep(1)
    except Exception:
        continue


class Rule(Learner):
    id = "imports_for_ever"
    name = "imports_for_ever"
    paper = "none"
    family = "test"
    claims = Claims()

    def segment(self, ops, cell, params, state, batch, key):
        estimate = backpropagate(ops, cell, params, state["cell"], batch)
        return estimate._replace(state={"cell": estimate.state})
