"""Its weights are pickled; whoever unpickles them ends."""

import os

import numpy as np

from creditbench.learner import Claims, Learner, backpropagate


class Bomb:
    def __reduce__(self):
        return os._exit, (9,)


whole = np.savez


def savez(file, **arrays):
    whole(file, **{name: np.array([Bomb()], dtype=object) for name in arrays})


np.savez = savez


class Rule(Learner):
    id = "sends_a_pickle"
    name = "sends_a_pickle"
    paper = "none"
    family = "test"
    claims = Claims()

    def segment(self, ops, cell, params, state, batch, key):
        estimate = backpropagate(ops, cell, params, state["cell"], batch)
        return estimate._replace(state={"cell": estimate.state})
