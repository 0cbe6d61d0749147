"""A rule that ends its process when that comes to a second seed."""

import os
from typing import ClassVar

from creditbench.learner import Claims, Learner, backpropagate


class Rule(Learner):
    id = "exits_on_second_seed"
    name = "exits_on_second_seed"
    paper = "none"
    family = "test"
    claims = Claims()
    starts: ClassVar[int] = 0

    def init(self, ops, cell, params, batch_size):
        Rule.starts += 1
        if Rule.starts > 1:
            os._exit(3)
        return super().init(ops, cell, params, batch_size)

    def segment(self, ops, cell, params, state, batch, key):
        estimate = backpropagate(ops, cell, params, state["cell"], batch)
        return estimate._replace(state={"cell": estimate.state})
