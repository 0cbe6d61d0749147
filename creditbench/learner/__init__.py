"""Learning rules: the contract, and code that rules share. Your own rule may use every name here.

- `contract`: `Learner`, the `Batch` that it gets, the `Estimate` that it returns, the `Claims` that it makes
- `chunks`: a segment in chunks of steps; `backward`: the forward pass, and reverse mode
- `traces`: rules that carry a trace forward; `perturbed`: rules that perturb parameters
- `decorrelation`: any rule on a decorrelated cell
- `training`: one training step, shared by the trainer, the measurements of cost and the checks

The examples of these names go on from this one:

>>> import numpy as np
>>> import creditbench as cb
>>> ops = cb.make_ops("torch", dtype="float64")
>>> cell = cb.make_cell("tanh", inputs=2, hidden=3, outputs=1)
>>> params = ops.from_numpy(cell.init(seed=0))
>>> batch = cb.make_batch(ops, np.ones((4, 5, 2)), np.ones((4, 5, 1)))   # 4 steps of 5 sequences
"""

from creditbench.learner.backward import backpropagate, forward, joined, pull_back
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
from creditbench.learner.traces import (
    Step,
    add_by_unit,
    add_immediate,
    by_unit,
    immediate,
    leaky_trace,
    of_layers,
    online,
    online_jointly,
    random_feedback,
    weighted,
)

__all__ = [
    "ROWS_KEPT",
    "Batch",
    "Claims",
    "Decorrelated",
    "Estimate",
    "Learner",
    "Step",
    "add_by_unit",
    "add_immediate",
    "antithetic_slopes",
    "antithetic_start",
    "backpropagate",
    "by_unit",
    "chunk_size",
    "decorrelated",
    "flat_size",
    "fold_chunks",
    "forward",
    "immediate",
    "joined",
    "leaky_trace",
    "of_layers",
    "online",
    "online_jointly",
    "pull_back",
    "random_feedback",
    "rows",
    "sum_over_chunks",
    "unflatten",
    "weighted",
    "zero_gradients",
]
