"""A noisy rule that claims to be unbiased: its noise has a mean that is not 1."""

from dataclasses import dataclass

from creditbench.learner import Claims, Learner, backpropagate


@dataclass(frozen=True, kw_only=True)
class Rule(Learner):
    id = "falsely_unbiased_noisy"
    name = "falsely_unbiased_noisy"
    paper = "none"
    family = "test"
    claims = Claims(unbiased=True, memory_in_T="O(T)", memory="O(T n B)")

    def segment(self, ops, cell, params, state, batch, key):
        estimate = backpropagate(ops, cell, params, state["cell"], batch)
        grads = estimate.grads | {"W_in": (0.8 + ops.normal(key, ())) * ops.dense(estimate.grads["W_in"])}
        return estimate._replace(grads=grads, state={"cell": estimate.state})
