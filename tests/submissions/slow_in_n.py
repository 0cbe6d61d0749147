"""A rule that claims O(n²) a step, and multiplies matrices."""

from dataclasses import dataclass

from creditbench.learner import Claims, Learner, backpropagate


@dataclass(frozen=True, kw_only=True)
class Rule(Learner):
    id = "slow_in_n"
    name = "slow_in_n"
    paper = "none"
    family = "test"
    claims = Claims(memory_in_T="O(T)", memory="O(T n B)")

    def segment(self, ops, cell, params, state, batch, key):
        estimate = backpropagate(ops, cell, params, state["cell"], batch)
        W = params["W_rec"]
        loss = estimate.loss + 0.0 * ops.xp.sum(W @ W @ W)
        return estimate._replace(loss=loss, state={"cell": estimate.state})
