"""A rule that sends a record of its own making to the parent."""

import os
import sys

from creditbench.learner import Claims, Learner, backpropagate


class Rule(Learner):
    id = "forges"
    name = "forges"
    paper = "none"
    family = "test"
    claims = Claims()

    def segment(self, ops, cell, params, state, batch, key):
        os.write(int(sys.argv[1]), b'{"record": {"status": "ok", "test_score": 0.0}}\n')
        estimate = backpropagate(ops, cell, params, state["cell"], batch)
        return estimate._replace(state={"cell": estimate.state})
