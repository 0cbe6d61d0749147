"""It ends the process in the midst of training, as if all were well."""

import os

from creditbench.learner import Claims, Learner


class Rule(Learner):
    id = "exits_quietly"
    name = "exits_quietly"
    paper = "none"
    family = "test"
    claims = Claims()

    def segment(self, ops, cell, params, state, batch, key):
        os._exit(0)
