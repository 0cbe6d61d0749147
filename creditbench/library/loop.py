"""A rule in a loop of one's own, on one's own arrays: the same ten lines in JAX and in PyTorch.

ops = cb.make_ops("jax")                                        # or "torch"
cell = cb.make_cell("tanh", inputs=1, hidden=32, outputs=1)
rule = cb.make_learner("anp", sigma=1e-2)
optimizer = cb.make_optimizer("adam", lr=1e-2)
step = cb.training_step(ops, cell, rule, optimizer)
batch = cb.make_batch(ops, inputs, targets)                     # [T, B, I] and [T, B, O]
carry = step.start(batch)
for key in ops.split(ops.key(0), 200):
    carry, loss = step(carry, batch, key)
outputs = ops.to_numpy(cell.run(ops, carry.params, batch.inputs))
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from creditbench.cells import Cell, Decorrelate
from creditbench.errors import UsageError
from creditbench.learner import Batch, Decorrelated, Learner
from creditbench.learner.training import training_step as one_step
from creditbench.library.messages import says_arguments
from creditbench.ops.base import Array, Key, Ops, Tree
from creditbench.optimizers import SGD
from creditbench.optimizers import make_optimizer as make_by_name
from creditbench.plugins import registry
from creditbench.plugins.importing import Kind, Plugin
from creditbench.task import Task
from creditbench.trials.blocks import first_carry
from creditbench.trials.grid import is_path
from creditbench.trials.network import make_network
from creditbench.trials.settings import converted, make, optimizer_parameters


class Carry(NamedTuple):
    """What training hands on from step to step. A step may reuse the memory of what it is given."""

    params: Tree  #: name -> array of the framework
    moments: Tree  #: the optimiser's state
    state: Tree  #: the rule's


class TrainingStep:
    """One training step of a rule: `step(carry, batch, key)` is (carry, loss). Made by `training_step`."""

    def __init__(
        self, ops: Ops, cell: Cell, learner: Learner | Decorrelated, optimizer: SGD, episodes: bool
    ) -> None:
        self.ops, self.cell, self.learner, self.optimizer = ops, cell, learner, optimizer
        self.episodes = episodes
        self._programs: dict[tuple[int, ...], Any] = {}

    def start(self, batch: Batch | int, seed: int = 0) -> Carry:
        """The carry before training. `batch`: one, or its number of sequences; `seed`: of the weights."""
        B = batch if isinstance(batch, int) else batch.weights.shape[1]
        return Carry(*first_carry(self.ops, self.cell, self.learner, self.optimizer, B, seed))

    def __call__(self, carry: Carry, batch: Batch, key: Key) -> tuple[Carry, Array]:
        """Train on one batch. It is compiled once for each of its shapes."""
        shape = tuple(batch.inputs.shape)
        if shape not in self._programs:
            if shape[-1] != self.cell.inputs or batch.targets.shape[-1] != self.cell.outputs:
                raise UsageError(
                    f"inputs and targets have {shape[-1]} and {batch.targets.shape[-1]} channels, and the "
                    f"cell has inputs {self.cell.inputs} and outputs {self.cell.outputs}: give make_cell "
                    "these"
                )
            self._programs[shape] = self.ops.compile(self._step, tuple(carry), tuple(batch), key)
        carry, loss = self._programs[shape](tuple(carry), tuple(batch), key)
        return Carry(*carry), loss

    def _step(self, carry: Any, batch: Any, key: Key) -> Any:
        return one_step(
            *(self.ops, self.cell, self.learner, self.optimizer, carry, Batch(*batch), key),
            episodes=self.episodes,
            checks=True,
        )


@says_arguments
def training_step(
    ops: Ops, cell: Cell, learner: Learner | Decorrelated, optimizer: SGD, *, episodes: bool = True
) -> TrainingStep:
    """One training step of any rule, for a loop of one's own: that which every trial runs.

    `episodes`: whether each batch begins new sequences; if not, it goes on where the last one ended, and the
    rule's state is carried on. With a decorrelated cell, `learner` is a `creditbench.learner.Decorrelated`.

    >>> import creditbench as cb
    >>> import numpy as np
    >>> x = np.random.default_rng(0).standard_normal((20, 8, 1))
    >>> ops = cb.make_ops("torch")
    >>> cell = cb.make_cell("tanh", inputs=1, hidden=16, outputs=1)
    >>> rule, optimizer = cb.make_learner("bptt"), cb.make_optimizer("adam", lr=1e-2)
    >>> step = cb.training_step(ops, cell, rule, optimizer)
    >>> batch = cb.make_batch(ops, x, np.roll(x, 1, axis=0))
    >>> carry = step.start(batch)
    >>> losses = []
    >>> for key in ops.split(ops.key(0), 60):
    ...     carry, loss = step(carry, batch, key)
    ...     losses.append(float(loss))
    >>> losses[-1] < 0.6 * losses[0]
    True
    """
    if cell.decorrelate != "none" and not isinstance(learner, Decorrelated):
        raise UsageError(
            f"the cell has decorrelate {cell.decorrelate!r}: wrap the rule, as in "
            "creditbench.learner.Decorrelated(learner=rule, rate=1e-3)"
        )
    plain = learner.learner if isinstance(learner, Decorrelated) else learner
    if why := plain.fits(cell):
        raise UsageError(f"{plain.id} does not go with {cell.id}: {why}; name another cell or learner")
    return TrainingStep(ops, cell, learner, optimizer, episodes)


@says_arguments
def make_learner(name: str | os.PathLike[str], **fields: Any) -> Learner:
    """The rule of an id or a path, with those hyper-parameters. Its file is imported into this process.

    >>> import creditbench as cb
    >>> cb.make_learner("anp", sigma=1e-2).sigma
    0.01
    """
    return make(_find("learners", name), fields)


@says_arguments
def make_cell(
    name: str | os.PathLike[str],
    *,
    inputs: int,
    outputs: int,
    hidden: int = 128,
    layers: int = 1,
    loss: Literal["mse", "cross_entropy"] = "mse",
    alpha: float = 1.0,
    bias: bool = False,
    decorrelate: Decorrelate = "none",
    **constants: Any,
) -> Cell:
    """The network of a cell's id or path: I inputs, n hidden units a layer, O outputs, and its loss.

    `constants`: fields of the cell's own. Targets of the loss "cross_entropy" are one-hot.

    >>> import creditbench as cb
    >>> cb.make_cell("lif", inputs=2, hidden=8, outputs=1, decay=0.9).shapes()["W_rec"]
    (8, 8)
    """
    if loss not in ("mse", "cross_entropy"):
        raise UsageError(f"loss is {loss!r}: give mse or cross_entropy")
    plugin = _find("cells", name)
    return make_network(
        plugin.cls,
        layers,
        inputs=inputs,
        outputs=outputs,
        hidden=hidden,
        loss=loss,
        alpha=alpha,
        bias=bias,
        decorrelate=decorrelate,
        **converted(plugin, constants),
    )


@says_arguments
def make_task(name: str | os.PathLike[str], **fields: Any) -> Task:
    """The task of an id or a path, with those parameters.

    >>> import creditbench as cb
    >>> cb.make_task("adding", length=20).generate("train", seed=0, batch=4).inputs.shape[0]
    20
    """
    return make(_find("tasks", name), fields)


@says_arguments
def make_optimizer(name: str, lr: float, **parameters: Any) -> SGD:
    """The optimiser of that name: sgd, momentum, adam, written once for both frameworks.

    >>> import creditbench as cb
    >>> cb.make_optimizer("adam", lr=1e-2, beta1=0.8)
    Adam(lr=0.01, beta1=0.8, beta2=0.999, epsilon=1e-08)
    """
    made = make_by_name(name, lr)
    return dataclasses.replace(made, **optimizer_parameters(name, parameters))


@says_arguments
def make_batch(ops: Ops, inputs: ArrayLike, targets: ArrayLike, weights: ArrayLike | None = None) -> Batch:
    """A batch of T steps of B sequences, time first, as arrays of the framework.

    Args:
        inputs: [T, B, I]. `targets`: [T, B, O].
        weights: [T, B], 0 for a step that is not scored; None: all steps count alike. They are scaled to sum
            to 1, so that the loss is a mean.

    >>> import creditbench as cb
    >>> import numpy as np
    >>> batch = cb.make_batch(cb.make_ops("torch"), np.zeros((5, 2, 3)), np.zeros((5, 2, 1)))
    >>> round(float(batch.weights.sum()), 3)
    1.0
    """
    x, y = np.asarray(inputs, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    w = np.ones(x.shape[:2]) if weights is None else np.asarray(weights, dtype=np.float64)
    if not (x.ndim == y.ndim == 3 and x.shape[:2] == y.shape[:2] == w.shape):
        raise UsageError(
            f"inputs, targets and weights have the shapes {x.shape}, {y.shape}, {w.shape}: give [T, B, I], "
            "[T, B, O] and [T, B], steps first"
        )
    if not w.sum() > 0:
        raise UsageError(f"weights sum to {w.sum():g}: give a step at least a weight above 0")
    return Batch(*ops.from_numpy((x, y, w / w.sum())))


def _find(kind: Kind, name: str | os.PathLike[str]) -> Plugin:
    """The plug-in of an id or a path, imported into this process. Raises `UsageError`."""
    text = os.fspath(name)
    if not is_path(text):
        return registry.find(kind, text, imports=True)
    path = Path(text).expanduser().resolve()
    found = registry.load(kind, imports=True)
    known = [plugin for plugin in found.values() if plugin.path == path]
    known = known or [p for p in registry.load(kind, [path], imports=True).values() if p.path == path]
    return known[0]
