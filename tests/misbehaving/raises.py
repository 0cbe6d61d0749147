"""A rule that raises."""

from creditbench.learner import Claims, Learner


class Rule(Learner):
    id = "raises"
    name = "raises"
    paper = "none"
    family = "test"
    claims = Claims()

    def segment(self, ops, cell, params, state, batch, key):
        raise RuntimeError("the rule broke")
