"""A rule that keeps every step and claims to keep none."""

from dataclasses import dataclass

from creditbench.learner import Claims, Learner, backpropagate


@dataclass(frozen=True, kw_only=True)
class Rule(Learner):
    id = "falsely_constant"
    name = "falsely_constant"
    paper = "none"
    family = "test"
    claims = Claims(memory_in_T="O(1)", memory="O(p)")

    def segment(self, ops, cell, params, state, batch, key):
        estimate = backpropagate(ops, cell, params, state["cell"], batch)
        return estimate._replace(state={"cell": estimate.state})
