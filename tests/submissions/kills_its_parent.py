"""It kills its parent."""

import os
import signal

from creditbench.learner import Claims, Learner, backpropagate

os.kill(os.getppid(), signal.SIGKILL)


class Rule(Learner):
    id = "kills_its_parent"
    name = "kills_its_parent"
    paper = "none"
    family = "test"
    claims = Claims()

    def segment(self, ops, cell, params, state, batch, key):
        estimate = backpropagate(ops, cell, params, state["cell"], batch)
        return estimate._replace(state={"cell": estimate.state})
