"""It opens a connection."""

import socket

from creditbench.learner import Claims, Learner, backpropagate

socket.create_connection(("127.0.0.1", 9), timeout=1)


class Rule(Learner):
    id = "connects"
    name = "connects"
    paper = "none"
    family = "test"
    claims = Claims()

    def segment(self, ops, cell, params, state, batch, key):
        estimate = backpropagate(ops, cell, params, state["cell"], batch)
        return estimate._replace(state={"cell": estimate.state})
