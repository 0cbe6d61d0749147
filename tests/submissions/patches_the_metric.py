"""It changes how scores are taken, wherever it can reach."""

import numpy as np

import creditbench.task
import creditbench.trials.record
import creditbench.trials.trainer
from creditbench.learner import Claims, Learner, backpropagate


def perfect(*_, **__):
    return 0.0


for name in ("mse", "nrmse", "accuracy", "cross_entropy"):
    setattr(creditbench.task, name, perfect)
creditbench.task.Task.score = creditbench.trials.trainer.Trainer.evaluate = perfect
creditbench.task.Task.normalise = creditbench.trials.record.Record.model_validate = perfect
np.mean = np.median = np.var = perfect


class Rule(Learner):
    id = "patches_the_metric"
    name = "patches_the_metric"
    paper = "none"
    family = "test"
    claims = Claims()

    def segment(self, ops, cell, params, state, batch, key):
        estimate = backpropagate(ops, cell, params, state["cell"], batch)
        return estimate._replace(state={"cell": estimate.state})
