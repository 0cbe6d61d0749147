"""It needs a package that nobody has."""

import no_such_package_at_all

from creditbench.learner import Claims, Learner, backpropagate

no_such_package_at_all.start()


class Rule(Learner):
    id = "needs_a_package"
    name = "needs_a_package"
    paper = "none"
    family = "test"
    claims = Claims()

    def segment(self, ops, cell, params, state, batch, key):
        estimate = backpropagate(ops, cell, params, state["cell"], batch)
        return estimate._replace(state={"cell": estimate.state})
