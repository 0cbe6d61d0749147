"""The trainer's interface to a rule (`Blocks`), and a rule in this process (`OwnBlocks`).

The trainer has the task, the clock and the record. The interface is the same for a rule in another process. A
rule that is not shipped runs in a confined process (`creditbench.executors.confined`).
"""

from __future__ import annotations

import abc
import contextlib
import copy
import dataclasses
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from creditbench.cells import Cell, Tanh
from creditbench.learner import Batch, Decorrelated, backpropagate
from creditbench.learner.training import training_step
from creditbench.machine.compilation import taken_from_cache
from creditbench.measure.cost import figures
from creditbench.measure.memory import DevicePeak, ProcessPeak
from creditbench.measure.update import Update
from creditbench.ops import Ops, make_ops
from creditbench.optimizers import SGD, make_optimizer
from creditbench.plugins import registry
from creditbench.task import Sequences
from creditbench.trials.record import Cost
from creditbench.trials.trial import Trial

#: Seconds of timed blocks for a trial's ratios.
MEASURE_SECONDS = 1.0


class Blocks(abc.ABC):
    """A rule that trains on one block of segments after another.

    The carry from block to block is (parameters, optimiser's state, learner's state). The trainer reads only
    the parameters; the other two may lie in another process, and are None here. `xs`: (segments, keys) of a
    block. If `data` is given, the segments are the numbers [S, B] of sequences in it.
    """

    trains_together: ClassVar[bool]  #: whether one program can train several trials
    holds_data: ClassVar[bool]  #: whether blocks gather their episodes from the training split on the device
    source: str = ""  #: the origin of the rule

    @abc.abstractmethod
    def training(self, cell: Cell) -> contextlib.AbstractContextManager[None]:
        """A context for training trials with the same `cell`. The methods below are called inside it."""

    @abc.abstractmethod
    def start(self, trials: Sequence[Trial]) -> Any:
        """The carry before training. The carries of several trials are stacked: one program trains them."""

    @abc.abstractmethod
    def restart(self, carry: Any) -> Any:
        """The carry after a seam of a stream: the network is at rest, the rule keeps its learned state."""

    @abc.abstractmethod
    def load(self, carry: Any, xs: Any, data: Any) -> None:
        """Prepare to train on a block: compile, for example. Its time does not count as training."""

    @abc.abstractmethod
    def train(self, carry: Any, xs: Any, data: Any) -> tuple[Any, Any]:
        """Train on the loaded block: (carry, losses [S])."""

    @abc.abstractmethod
    def save(self, carry: Any) -> list[np.ndarray]:
        """The carry as arrays, for `restore`."""

    @abc.abstractmethod
    def restore(self, carry: Any, arrays: Sequence[np.ndarray], blocks: int) -> Any:
        """The carry that `save` was given after `blocks` blocks. `carry`: that of `start`.

        Raises ValueError if the arrays are not those of such a carry; then training can begin anew.
        """

    @abc.abstractmethod
    def cost(self, rate: float | None) -> Cost:
        """The cost of an update. `rate`: the steps per second of the training.

        An error here does not change the training's outcome. It is printed, and the figures are None.
        """

    @abc.abstractmethod
    def peaks(self) -> tuple[ProcessPeak, DevicePeak]:
        """The peaks of memory from now on, of the training process and of the device."""

    @abc.abstractmethod
    def compiling(self) -> tuple[float, bool]:
        """Seconds of compiling the program that trains, tracing included, and whether the cache had it."""

    def environment(self, here: dict[str, Any]) -> dict[str, Any]:
        """The environment of the training, given that of this process."""
        return here

    def close(self) -> None:  # noqa: B027 - there may be nothing
        """Release all that outlives a trial."""


class OwnBlocks(Blocks):
    """A rule in this process: the rule of `trial`, or the class `rule`."""

    trains_together = True
    holds_data = True

    cell: Cell  #: the cell of the trials in training

    def __init__(self, trial: Trial, ops: Ops, rule: type | None = None) -> None:
        if rule is None:
            paths = [trial.learner_path] if trial.learner_path else []
            plugin = registry.find("learners", trial.learner, paths, imports=True)
            rule, self.source = plugin.cls, plugin.source
        made = rule(**trial.hyperparameters)
        decorrelates = trial.decorrelate != "none"
        self.trial, self.ops = trial, ops
        self.learner = Decorrelated(learner=made, rate=trial.decorrelation_rate) if decorrelates else made
        self.optimizer = optimizer_of(trial)
        self._programs = Programs(ops)
        # `pack` and `unpack` are its own, and not in `Host`, which is a part of the hash of every rule.
        self._host: Any = ops.host

    @contextlib.contextmanager
    def training(self, cell: Cell) -> Iterator[None]:
        self.cell = cell
        yield

    def start(self, trials: Sequence[Trial]) -> Any:
        ops, many = self.ops, len(trials) > 1
        same = None if trained_alike(trials) else 0
        self._block = ops.vmap(self.block, in_axes=(0, same, same, 0)) if many else self.block
        self._rest = ops.vmap(self.rest, in_axes=(0, 0)) if many else self.rest
        self._numbers = (ops.from_numpy(varied(trials)),) if many else ()
        return stacked(ops, [self._start(trial) for trial in trials])

    def _start(self, trial: Trial) -> Any:
        learner, _ = with_numbers(self.learner, self.optimizer, trial.numbers)
        return first_carry(self.ops, self.cell, learner, self.optimizer, trial.batch, trial.seed)

    def restart(self, carry: Any) -> Any:
        return self._rest(carry, *self._numbers)

    def load(self, carry: Any, xs: Any, data: Any) -> None:
        given = (carry, xs, data, *self._numbers)
        self._train = self._programs.compiled("block", self._block, *given, donate=(0,))

    def train(self, carry: Any, xs: Any, data: Any) -> tuple[Any, Any]:
        return self._train(carry, xs, data, *self._numbers)

    def save(self, carry: Any) -> list[np.ndarray]:
        arrays: list[np.ndarray] = []
        self.ops.tree_map(lambda leaf: arrays.append(self._host.pack(leaf)), carry)
        return arrays

    def restore(self, carry: Any, arrays: Sequence[np.ndarray], blocks: int = 0) -> Any:
        here, there = ([(array.shape, array.dtype) for array in own] for own in (self.save(carry), arrays))
        if here != there:
            raise ValueError("its arrays are not those of the rule's state")
        saved = iter(arrays)
        return self.ops.tree_map(lambda leaf: self._host.unpack(next(saved), leaf), carry)

    def cost(self, rate: float | None) -> Cost:
        trial = self.trial
        update = Update(
            learner=self.learner.learner if isinstance(self.learner, Decorrelated) else self.learner,
            cell=self.cell,
            steps=trial.segment,
            batch=trial.batch,
            optimizer=dataclasses.replace(self.optimizer, lr=1e-9),
            episodes=trial.protocol == "episodes",
        )
        try:
            exact, ratios = figures(self.ops, update, rate or trial.segment, MEASURE_SECONDS)
        except Exception:
            traceback.print_exc(file=sys.stderr)
            return Cost()
        return Cost(
            ratio_forward=ratios.forward.median,
            ratio_bptt=ratios.bptt.median,
            flops_per_step=exact.flops / trial.segment,
            algorithm_bytes=exact.algorithm_bytes,
        )

    def peaks(self) -> tuple[ProcessPeak, DevicePeak]:
        return ProcessPeak(), DevicePeak(self.ops)

    def compiling(self) -> tuple[float, bool]:
        return self._programs.seconds.get("block", 0.0), "block" in self._programs.cached

    # -- the programs ----------------------------------------------------------------------------

    def block(self, carry: Any, xs: Any, data: Any = None, numbers: Mapping[str, Any] | None = None) -> Any:
        """Train on segments `xs` one after another: (carry, losses [S]).

        `numbers`: arrays in place of the trial's numbers.
        """
        ops, cell = self.ops, self.cell
        learner, optimizer = with_numbers(self.learner, self.optimizer, numbers or {})
        episodes = self.trial.protocol == "episodes"
        checked = False
        if data is not None:
            chosen, keys = xs
            xs = (chosen, scaled_weights(ops, data, chosen)), keys

        def segment(carry, xs):
            nonlocal checked
            batch, key = xs
            if data is not None:
                chosen, weights = batch
                inputs, targets = ops.gather((data.inputs, data.targets), chosen)
                batch = Batch(inputs, targets, weights)
            found = training_step(
                ops, cell, learner, optimizer, carry, batch, key, episodes=episodes, checks=not checked
            )
            checked = True
            return found

        return ops.scan(segment, carry, xs)

    def rest(self, carry: Any, numbers: Mapping[str, Any] | None = None) -> Any:
        """`restart` of one trial. `numbers`: arrays in place of the trial's numbers."""
        params, optimizer_state, state = carry
        learner, _ = with_numbers(self.learner, self.optimizer, numbers or {})
        state = learner.reset(self.ops, self.cell, params, state, self.trial.batch)
        return params, optimizer_state, state


def first_carry(ops: Ops, cell: Cell, learner: Any, optimizer: SGD, batch_size: int, seed: int) -> Any:
    """(parameters, optimiser's state, learner's state) before training. `seed`: of the weights."""
    params = ops.from_numpy(learner.weights(cell, cell.init(seed)))
    return params, optimizer.init(ops, cell.trainable(params)), learner.init(ops, cell, params, batch_size)


class Programs:
    """Functions by name, each compiled once."""

    def __init__(self, ops: Ops) -> None:
        self.ops = ops
        self.seconds: dict[str, float] = {}  #: name -> seconds of tracing and compiling it
        self.cached: set[str] = set()  #: names of those that came from the cache
        self._known: dict[str, Callable] = {}

    def compiled(self, name: str, f: Callable, *args: Any, donate: tuple[int, ...] = ()) -> Callable:
        """`f` compiled for arguments like `args`, once per name."""
        if name not in self._known:
            clock = time.perf_counter()
            with taken_from_cache() as found:
                self._known[name] = self.ops.compile(f, *args, donate=donate)
            self.seconds[name] = time.perf_counter() - clock
            if found:
                self.cached.add(name)
        return self._known[name]


def trained_alike(trials: Sequence[Trial]) -> bool:
    """Whether the trials train on the same data with the same draws: they differ only in numbers."""
    return len({trial.seed for trial in trials}) == 1


def stacked(ops: Ops, trees: Sequence[Any]) -> Any:
    """Trees as one tree whose arrays have a first axis over the trees. A single tree stays as it is."""
    return ops.tree_map(lambda *leaves: ops.xp.stack(leaves), *trees) if len(trees) > 1 else trees[0]


def scaled_weights(ops: Ops, data: Sequences, chosen: Any) -> Any:
    """The weights [S, T, B] of the sequences `chosen` [S, B]. They sum to 1 in each segment, or to 0."""
    weights = ops.gather(data.weights, chosen.reshape((-1,))).reshape((-1, *chosen.shape))
    weights = ops.xp.permute_dims(weights, (1, 0, 2))
    total = ops.xp.sum(weights, axis=(1, 2), keepdims=True)
    return weights / ops.xp.where(total > 0, total, 1.0)


def optimizer_of(trial: Trial) -> SGD:
    """The trial's optimiser with its rate and parameters."""
    return dataclasses.replace(make_optimizer(trial.optimizer, trial.lr), **trial.optimizer_parameters)


def varied(trials: Sequence[Trial]) -> dict[str, np.ndarray]:
    """The `numbers` in which the trials differ: name -> [S]."""
    values = {name: np.array([trial.numbers[name] for trial in trials]) for name in trials[0].numbers}
    return {name: array for name, array in values.items() if np.ptp(array) > 0}


def with_numbers(learner: Any, optimizer: SGD, numbers: Mapping[str, Any]) -> tuple[Any, SGD]:
    """Copies of learner and optimiser with those numbers. They may be arrays, so they are not checked."""

    def changed(instance: Any, **values: Any) -> Any:
        found = copy.copy(instance)
        for name, value in values.items():
            object.__setattr__(found, name, value)
        return found

    own = {name: value for name, value in numbers.items() if name not in ("lr", "decorrelation_rate")}
    if isinstance(learner, Decorrelated):
        inner = changed(learner.learner, **own)
        learner = changed(learner, learner=inner, rate=numbers.get("decorrelation_rate", learner.rate))
    else:
        learner = changed(learner, **own)
    return learner, changed(optimizer, lr=numbers.get("lr", optimizer.lr))


def warm_up(backend: str, device: str = "cpu") -> None:
    """Let the framework load all that it loads at first use, so that no trial's figures include it."""
    ops, cell = make_ops(backend, device), Tanh(2, 16, 2)
    params, ones = ops.from_numpy(cell.init(0)), np.ones((3, 4, 2))
    batch = Batch(*ops.from_numpy((ones, ones, ones[..., 0])))

    def gradients(params, batch):
        estimate = backpropagate(ops, cell, params, cell.start(ops, 4), batch)
        loss = ops.value_and_grad(lambda params: ops.xp.sum(cell.run(ops, params, batch.inputs) ** 2))
        return estimate.loss, loss(params)

    ops.synchronize(ops.compile(gradients, params, batch)(params, batch))
