"""It writes a record of its own making into whatever is open."""

import contextlib
import os

from creditbench.learner import Claims, Learner, backpropagate


class Rule(Learner):
    id = "forges"
    name = "forges"
    paper = "none"
    family = "test"
    claims = Claims()

    def segment(self, ops, cell, params, state, batch, key):
        for descriptor in range(3, 32):
            with contextlib.suppress(OSError):
                os.write(descriptor, b'{"record": {"status": "ok", "test_score": 0.0}}\n')
        estimate = backpropagate(ops, cell, params, state["cell"], batch)
        return estimate._replace(state={"cell": estimate.state})
