"""A rule whose estimate grows with every update."""

from dataclasses import dataclass

from creditbench.learner import Claims, Learner, backpropagate


@dataclass(frozen=True, kw_only=True)
class Rule(Learner):
    id = "diverges"
    name = "diverges"
    paper = "none"
    family = "test"
    claims = Claims(memory_in_T="O(T)", memory="O(T n B)")

    def init(self, ops, cell, params, batch_size):
        return super().init(ops, cell, params, batch_size) | {"size": ops.zeros(()) + 1.0}

    def segment(self, ops, cell, params, state, batch, key):
        size = 100.0 * state["size"]
        estimate = backpropagate(ops, cell, params, state["cell"], batch)
        grads = {name: size * ops.dense(grad) for name, grad in estimate.grads.items()}
        return estimate._replace(grads=grads, state={"cell": estimate.state, "size": size})
