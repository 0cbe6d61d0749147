"""A rule that ends its process where it is to start from the weights of the second seed, 1."""

import os

from creditbench.learner import Claims, Learner, backpropagate


class Rule(Learner):
    id = "exits_on_second_seed"
    name = "exits_on_second_seed"
    paper = "none"
    family = "test"
    claims = Claims()

    def weights(self, cell, params):
        if all((params[name] == value).all() for name, value in cell.init(1).items()):
            os._exit(3)
        return params

    def segment(self, ops, cell, params, state, batch, key):
        estimate = backpropagate(ops, cell, params, state["cell"], batch)
        return estimate._replace(state={"cell": estimate.state})
