"""It runs another program."""

import subprocess

from creditbench.learner import Claims, Learner, backpropagate

subprocess.run(["true"], check=True)


class Rule(Learner):
    id = "runs_a_program"
    name = "runs_a_program"
    paper = "none"
    family = "test"
    claims = Claims()

    def segment(self, ops, cell, params, state, batch, key):
        estimate = backpropagate(ops, cell, params, state["cell"], batch)
        return estimate._replace(state={"cell": estimate.state})
