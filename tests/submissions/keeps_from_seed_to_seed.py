"""It starts from the result of the seed before, by way of its folder, its modules or its process."""

import os
import sys

import numpy as np

from creditbench.learner import Claims, Learner, backpropagate


class Rule(Learner):
    id = "keeps_from_seed_to_seed"
    name = "keeps_from_seed_to_seed"
    paper = "none"
    family = "test"
    claims = Claims()

    def weights(self, cell, params):
        kept = getattr(sys, "kept", None)
        for path in ("kept.npz", "weights.npz", os.path.join(os.environ["TMPDIR"], "kept.npz")):
            if kept is None and os.path.exists(path):
                with np.load(path) as found:
                    kept = {name: found[name] for name in params}
        np.savez("kept.npz", **params)
        sys.kept = params
        return {name: 0.5 * value for name, value in params.items()} if kept is not None else params

    def segment(self, ops, cell, params, state, batch, key):
        estimate = backpropagate(ops, cell, params, state["cell"], batch)
        return estimate._replace(state={"cell": estimate.state})
