"""A rule that claims to be forward only, and runs a reverse pass."""

from dataclasses import dataclass

from creditbench.learner import Claims, Learner, backpropagate


@dataclass(frozen=True, kw_only=True)
class Rule(Learner):
    id = "falsely_forward"
    name = "falsely_forward"
    paper = "none"
    family = "test"
    claims = Claims(forward_only=True, memory_in_T="O(T)", memory="O(T n B)")

    def segment(self, ops, cell, params, state, batch, key):
        estimate = backpropagate(ops, cell, params, state["cell"], batch)
        return estimate._replace(state={"cell": estimate.state})
