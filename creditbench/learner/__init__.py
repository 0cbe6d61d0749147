"""Learning rules: the contract, and what rules share. Everything named here may be used by a rule of one's own.

- `contract`: `Learner`, the `Batch` that it is given, the `Estimate` that it returns, the `Claims` that it
  makes
- `chunks`: a segment taken a chunk of steps at a time; `backward`: the forward pass, and reverse mode
- `traces`: rules that carry a trace forward; `perturbed`: rules that perturb parameters
- `decorrelation`: any rule on a decorrelated cell
- `training`: one training step, which the trainer, the figures of cost and the checks share
"""

from creditbench.learner.backward import backpropagate, forward, pull_back
from creditbench.learner.chunks import (
    ROWS_KEPT,
    chunk_size,
    fold_chunks,
    rows,
    sum_over_chunks,
    zero_gradients,
)
from creditbench.learner.contract import Batch, Claims, Estimate, Learner
from creditbench.learner.decorrelation import Decorrelated, decorrelated
from creditbench.learner.perturbed import antithetic_slopes, antithetic_start, flat_size, unflatten
from creditbench.learner.traces import Step, leaky_trace, online, random_feedback, weighted

__all__ = [
    "ROWS_KEPT",
    "Batch",
    "Claims",
    "Decorrelated",
    "Estimate",
    "Learner",
    "Step",
    "antithetic_slopes",
    "antithetic_start",
    "backpropagate",
    "chunk_size",
    "decorrelated",
    "flat_size",
    "fold_chunks",
    "forward",
    "leaky_trace",
    "online",
    "pull_back",
    "random_feedback",
    "rows",
    "sum_over_chunks",
    "unflatten",
    "weighted",
    "zero_gradients",
]
