"""The measured programs: updates as in training, on random data.

A *block* is S segments of K steps of B sequences, one update after each, compiled as one program. The
reference blocks are the same cell's plain forward pass over as many steps, and reverse mode (`bptt`) under
the same optimiser.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from creditbench.cells import Cell
from creditbench.learner import Batch, Claims, Decorrelated, Estimate, Learner, backpropagate, forward
from creditbench.learner.training import training_step
from creditbench.ops.base import Array, Ops, Tree
from creditbench.optimizers import SGD

#: Steps between updates of the reference `bptt` on a stream.
STREAM_STEPS = 50
#: The claims of the plain forward pass. It keeps its state and, for the loss, at most a chunk of its outputs.
FORWARD_CLAIMS = Claims(forward_only=True, memory_in_T="O(1)", time="O(n²)", memory="O(n B)")


@dataclass(frozen=True, kw_only=True)
class ReverseMode(Learner):
    """The reference: backpropagation through time, by `creditbench.learner.backpropagate`."""

    id = "bptt"
    name = "Backpropagation through time"
    paper = "Werbos 1990, doi:10.1109/5.58337"
    family = "reverse mode"
    claims = Claims(unbiased=True, memory_in_T="O(T)", time="O(n²)", memory="O(T n B)")

    def segment(self, ops, cell, params, state, batch, key):
        estimate = backpropagate(ops, cell, params, state["cell"], batch)
        return estimate._replace(state={"cell": estimate.state})


@dataclass(frozen=True, kw_only=True)
class Update:
    """One update of a rule on a segment. If `learner` is None: a forward pass over the segment."""

    learner: Learner | None
    cell: Cell
    steps: int  #: K
    batch: int = 1  #: B
    #: the rate is so low that the weights do not change
    optimizer: SGD = field(default_factory=lambda: SGD(lr=1e-9))
    episodes: bool = True  #: whether the state is reset before each segment
    decorrelation_rate: float = 1e-6

    @property
    def rule(self) -> Any:
        """The learner, decorrelated if the cell is."""
        if self.learner is None or self.cell.decorrelate == "none":
            return self.learner
        return Decorrelated(learner=self.learner, rate=self.decorrelation_rate)

    @property
    def forward(self) -> Update:
        """The plain forward pass of the same cell over the same segment."""
        return replace(self, learner=None)

    @property
    def bptt(self) -> Update:
        """Reverse mode on the same segment; on a stream, on segments of `STREAM_STEPS`."""
        steps = self.steps if self.episodes else STREAM_STEPS
        return replace(self, learner=ReverseMode(), steps=steps)

    # -- programs and their arguments ------------------------------------------------------------

    def data(self, ops: Ops, segments: int, seed: int = 0) -> tuple[Batch, Any]:
        """Random segments: (batch [S, K, B, ·], keys [S]). Targets for the cross-entropy are one-hot."""
        rng = np.random.default_rng([seed, 0xDA7A])
        shape = (segments, self.steps, self.batch)
        targets = rng.standard_normal((*shape, self.cell.outputs))
        if self.cell.loss == "cross_entropy":
            targets = np.eye(self.cell.outputs)[rng.integers(self.cell.outputs, size=shape)]
        arrays = (
            rng.standard_normal((*shape, self.cell.inputs)),
            targets,
            np.full(shape, 1 / (self.steps * self.batch)),
        )
        return Batch(*ops.from_numpy(arrays)), ops.split(ops.key(seed), segments)

    def start(self, ops: Ops) -> Tree:
        """(parameters, optimiser's state, learner's state); for a forward pass the parameters alone."""
        params = ops.from_numpy(self.cell.init(0))
        if self.learner is None:
            return params
        state = self.rule.init(ops, self.cell, params, self.batch)
        return params, self.optimizer.init(ops, self.cell.trainable(params)), state

    def block(self, ops: Ops) -> Callable[[Tree, Tree], tuple[Tree, Tree]]:
        """The program `(carry, (batch, keys)) -> (carry, losses [S])`.

        A forward pass returns its outputs in place of losses.
        """
        cell, rule, optimizer = self.cell, self.rule, self.optimizer

        def forward(params, xs):
            inputs = xs[0].inputs
            return params, cell.run(ops, params, inputs.reshape((-1, *inputs.shape[2:])))

        def update(carry, xs):
            return training_step(ops, cell, rule, optimizer, carry, *xs, episodes=self.episodes)

        return forward if rule is None else lambda carry, xs: ops.scan(update, carry, xs)

    def estimate(self, ops: Ops) -> tuple[Callable[..., Tree], tuple[Any, ...]]:
        """The estimate of one segment alone, and arguments for it: (f, (params, state, batch, key)).

        `f` returns all that an update uses: loss, gradients in the rule's own form, state, assigned values. A
        forward pass returns only the loss. Its outputs [T, B, O] would count as memory, and no rule returns
        its outputs.
        """
        cell, rule = self.cell, self.rule
        batch, keys = self.data(ops, 1)
        batch, key = Batch(*ops.tree_map(lambda x: x[0], tuple(batch))), keys[0]
        params = ops.from_numpy(cell.init(0))
        if rule is None:
            return lambda params, _, batch, key: self._loss(ops, params, batch), (params, (), batch, key)

        def f(params, state, batch, key):
            found: Estimate = rule.segment(ops, cell, params, state, batch, key)
            return found.loss, found.grads, found.state, found.assigned

        return f, (params, rule.init(ops, cell, params, self.batch), batch, key)

    def _loss(self, ops: Ops, params: Tree, batch: Batch) -> Array:
        """The loss of a forward pass that keeps at most a chunk of steps."""
        cell = self.cell
        if len(getattr(cell, "layers", ())) > 1:
            return forward(ops, cell, params, cell.start(ops, self.batch), batch)[1]

        def step(state, drive):
            _, state = cell.step(ops, params, state, drive)
            return state, state.out

        def chunk(carry, part):
            state, total = carry
            inputs, targets, weights = part
            x = inputs.reshape((-1, cell.inputs))
            drive = cell.drive(ops, params, x)
            state, out = ops.scan(step, state, drive.reshape((-1, self.batch, drive.shape[-1])))
            seen = out.reshape((-1, out.shape[-1]))
            seen = ops.xp.concat((seen, x), axis=1) if getattr(cell, "skips", False) else seen
            y = cell.readout(ops, params, seen).reshape(targets.shape)
            return (state, total + ops.xp.sum(weights * cell.losses(ops, y, targets))), None

        carry = cell.start(ops, self.batch), ops.zeros(())
        return ops.scan_chunks(chunk, carry, tuple(batch), 64)[0][1]


class Prepared:
    """A block, compiled and warm. A call runs it and waits for its end."""

    def __init__(self, ops: Ops, update: Update, segments: int) -> None:
        self.update, self.ops = update, ops
        self.segments = segments
        self.steps = segments * update.steps  #: time steps of one call
        self._xs, self._carry = update.data(ops, segments), update.start(ops)
        donate = () if update.learner is None else (0,)
        clock = time.perf_counter()
        self._run = ops.compile(update.block(ops), self._carry, self._xs, donate=donate)
        self()  # the first call may compile or record, which is not the steady state
        self.compile_seconds = time.perf_counter() - clock
        self()

    def launch(self) -> None:
        """Start the block without waiting for its end."""
        self._carry, self._losses = self._run(self._carry, self._xs)

    def device_seconds(self) -> float | None:
        """The seconds of one call by the device's clock. None, without a run, if it has no clock."""
        return self.ops.host.seconds(self.launch, self._xs[0].weights)

    def __call__(self) -> None:
        self.launch()
        self.ops.synchronize((self._carry, self._losses))


def prepare(ops: Ops, update: Update, steps: int) -> Prepared:
    """A block of about `steps` time steps: a power of four of segments, so that few lengths are compiled."""
    return Prepared(ops, update, power_of_four(steps / update.steps))


def power_of_four(count: float) -> int:
    """The power of four that is nearest to `count` in its logarithm, at least 1.

    >>> [power_of_four(count) for count in (0.2, 1, 3, 9, 500)]
    [1, 1, 4, 16, 256]
    """
    return 4 ** max(0, round(math.log(count, 4)))
