"""It writes files without end, none of them large; the names are gone at once."""

import os

from creditbench.learner import Claims, Learner, backpropagate

kept = []
while True:
    kept.append(os.open("block", os.O_RDWR | os.O_CREAT | os.O_TRUNC))
    os.unlink("block")
    os.write(kept[-1], bytes(4 << 20))


class Rule(Learner):
    id = "fills_the_disk"
    name = "fills_the_disk"
    paper = "none"
    family = "test"
    claims = Claims()

    def segment(self, ops, cell, params, state, batch, key):
        estimate = backpropagate(ops, cell, params, state["cell"], batch)
        return estimate._replace(state={"cell": estimate.state})
