"""A rule that asks its framework for more memory than there is."""

import numpy as np

from creditbench.learner import Claims, Learner


class Rule(Learner):
    id = "asks"
    name = "asks"
    paper = "none"
    family = "test"
    claims = Claims()

    def segment(self, ops, cell, params, state, batch, key):
        ops.synchronize(ops.from_numpy(np.broadcast_to(np.float32(1), (1 << 40,))))
