"""It reports that an update takes more bytes than a float can hold."""

from creditbench.executors import confined
from creditbench.learner import Claims, Learner, backpropagate

FIGURES = {"ratio_forward": 1.0, "ratio_bptt": 1.0, "flops_per_step": 1.0, "algorithm_bytes": 10**400}
confined._ORDERS["cost"] = lambda rule, asked: FIGURES


class Rule(Learner):
    id = "says_what_no_machine_has"
    name = "says_what_no_machine_has"
    paper = "none"
    family = "test"
    claims = Claims()

    def segment(self, ops, cell, params, state, batch, key):
        estimate = backpropagate(ops, cell, params, state["cell"], batch)
        return estimate._replace(state={"cell": estimate.state})
