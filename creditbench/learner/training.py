"""One training step, which the trainer runs, the cost measurements measure and the checks test."""

from __future__ import annotations

from typing import Any

from creditbench.cells import Cell
from creditbench.errors import InvalidEstimateError
from creditbench.learner.contract import Batch, Estimate
from creditbench.ops.base import Array, Key, Ops, Outer, Tree


def training_step(
    ops: Ops,
    cell: Cell,
    learner: Any,
    optimizer: Any,
    carry: tuple[Tree, Tree, Tree],
    batch: Batch,
    key: Key,
    *,
    episodes: bool,
    checks: bool = False,
) -> tuple[tuple[Tree, Tree, Tree], Array]:
    """Train on one segment: (carry, loss). Pure.

    `carry`: (parameters, optimiser's state, learner's state). `learner`: a `Learner`, or a `Decorrelated`
    one. `optimizer`: one of `creditbench.optimizers`. `episodes`: the segment begins new sequences, so the
    learner's state is reset first. A value that the learner assigns overrides the optimiser's. `checks`:
    raise `InvalidEstimateError` for an estimate that breaks the contract.
    """
    params, optimizer_state, state = carry
    if episodes:
        state = learner.reset(ops, cell, params, state, batch.weights.shape[1])
    estimate = learner.segment(ops, cell, params, state, batch, key)
    if checks:
        check_estimate(estimate, params)
    params, optimizer_state = optimizer.update(ops, params, optimizer_state, estimate.grads)
    return (params | estimate.assigned, optimizer_state, estimate.state), estimate.loss


def check_estimate(estimate: Any, params: Any) -> None:
    """Raise `InvalidEstimateError` unless the estimate fits the contract of `Learner.segment`."""
    if not isinstance(estimate, Estimate):
        raise InvalidEstimateError(f"segment returned {type(estimate).__name__}, not Estimate")
    if tuple(estimate.loss.shape) != ():
        raise InvalidEstimateError(f"loss has shape {tuple(estimate.loss.shape)}, not ()")
    for kind, values in (("grads", estimate.grads), ("assigned", estimate.assigned)):
        for name, value in values.items():
            if name not in params:
                raise InvalidEstimateError(
                    f"{kind} names {name!r}, which is no parameter: they are {', '.join(params)}"
                )
            shape = (
                (value.post.shape[1], value.pre.shape[1]) if isinstance(value, Outer) else tuple(value.shape)
            )
            if tuple(shape) != tuple(params[name].shape):
                raise InvalidEstimateError(
                    f"{kind}[{name!r}] has shape {tuple(shape)}, not {tuple(params[name].shape)}"
                )
