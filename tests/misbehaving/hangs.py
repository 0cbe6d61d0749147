"""BPTT that hangs if the time zone says so, which is a variable that a confined process keeps."""

import os
import time

from creditbench.learner import Claims, Learner, backpropagate


class Rule(Learner):
    id = "hangs"
    name = "hangs"
    paper = "none"
    family = "test"
    claims = Claims()

    def segment(self, ops, cell, params, state, batch, key):
        if os.environ.get("TZ") == "HANGS":
            time.sleep(600)
        estimate = backpropagate(ops, cell, params, state["cell"], batch)
        return estimate._replace(state={"cell": estimate.state})
