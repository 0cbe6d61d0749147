"""It ends the process in the midst of training."""

import os

from creditbench.learner import Claims, Learner


class Rule(Learner):
    id = "exits_in_segment"
    name = "exits_in_segment"
    paper = "none"
    family = "test"
    claims = Claims()

    def segment(self, ops, cell, params, state, batch, key):
        print("so long", flush=True)
        os._exit(5)
