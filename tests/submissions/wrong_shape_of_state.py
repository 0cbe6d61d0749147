"""A rule whose state has another shape after a segment."""

from dataclasses import dataclass

from creditbench.learner import Claims, Learner, backpropagate


@dataclass(frozen=True, kw_only=True)
class Rule(Learner):
    id = "wrong_shape_of_state"
    name = "wrong_shape_of_state"
    paper = "none"
    family = "test"
    claims = Claims(memory_in_T="O(T)", memory="O(T n B)")

    def segment(self, ops, cell, params, state, batch, key):
        estimate = backpropagate(ops, cell, params, state["cell"], batch)
        h = ops.zeros((1, cell.hidden))
        return estimate._replace(state={"cell": estimate.state._replace(s=(h,))})
