"""It takes memory without end."""

import os
import time

from creditbench.learner import Claims, Learner


class Rule(Learner):
    id = "allocates"
    name = "allocates"
    paper = "none"
    family = "test"
    claims = Claims()

    def segment(self, ops, cell, params, state, batch, key):
        hoard = []
        while True:
            hoard.append(bytearray(os.urandom(1) * (16 << 20)))
            time.sleep(0.001)
