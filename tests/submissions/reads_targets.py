"""It looks for the targets in the tasks' data."""

from creditbench.learner import Claims, Learner, backpropagate
from creditbench.machine.folders import shipped

(shipped("tasks") / "data" / "weather_nyc.csv").read_bytes()


class Rule(Learner):
    id = "reads_targets"
    name = "reads_targets"
    paper = "none"
    family = "test"
    claims = Claims()

    def segment(self, ops, cell, params, state, batch, key):
        estimate = backpropagate(ops, cell, params, state["cell"], batch)
        return estimate._replace(state={"cell": estimate.state})
