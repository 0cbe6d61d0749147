"""A rule that learns from the targets of steps that are not scored."""

from dataclasses import dataclass

from creditbench.learner import Claims, Learner, backpropagate


@dataclass(frozen=True, kw_only=True)
class Rule(Learner):
    id = "cheats_on_unscored"
    name = "cheats_on_unscored"
    paper = "none"
    family = "test"
    claims = Claims(memory_in_T="O(T)", memory="O(T n B)")

    def segment(self, ops, cell, params, state, batch, key):
        estimate = backpropagate(ops, cell, params, state["cell"], batch)
        e = ops.xp.sum(batch.targets, axis=(0, 1))
        grads = estimate.grads | {"W_out": e[:, None] + 0.0 * params["W_out"]}
        return estimate._replace(grads=grads, state={"cell": estimate.state})
