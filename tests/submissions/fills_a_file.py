"""It writes one file without end."""

from creditbench.learner import Claims, Learner, backpropagate

with open("block", "wb") as file:
    while True:
        file.write(bytes(1 << 20))


class Rule(Learner):
    id = "fills_a_file"
    name = "fills_a_file"
    paper = "none"
    family = "test"
    claims = Claims()

    def segment(self, ops, cell, params, state, batch, key):
        estimate = backpropagate(ops, cell, params, state["cell"], batch)
        return estimate._replace(state={"cell": estimate.state})
