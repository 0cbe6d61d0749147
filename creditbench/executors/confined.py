"""Training of a rule that is not shipped: it trains in a confined process, and everything else happens here.

Here are the task, the targets of validation and test, the clock and the record; the confined process has the rule and,
block by block, the segments that it trains on. The order of a block is answered with the weights, which are looked at
before anything is done with them, and scored with the harness's own forward pass. The clock runs from the order to the
answer; while it does not run, the process stands still. A seed has a process and a folder of its own, so that nothing
comes to it from another.

What stays the rule's own word: the training losses on its curve and, where they are taken, the figures of `measure`.
"""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from creditbench import isolation
from creditbench.cells import Cell
from creditbench.errors import ConfinedError, MachineError, one_line
from creditbench.isolation import Confined, Limits, Send
from creditbench.learner import Batch
from creditbench.machine.memory import settle
from creditbench.measure.memory import DevicePeak, ProcessPeak
from creditbench.ops import make_ops
from creditbench.optimizers import make_optimizer
from creditbench.plugins import contributed, registry
from creditbench.trials.trainer import Program, Progress, segments_between, warm_up, with_decorrelation
from creditbench.trials.trial import Trial

_WEIGHTS, _SEGMENTS = "weights.npz", ("inputs.npy", "targets.npy", "weights.npy")
_COSTS = ("ratio_forward", "ratio_bptt", "flops_per_step", "algorithm_bytes")
_LARGEST = 1e18  #: that a figure of these can be: no machine has as many bytes


class ConfinedProgram(Program):
    """A program whose blocks run in a confined process, another one for each seed."""

    trains_together = False
    holds_data = False  # the confined process is handed each block's segments, and no others

    def __init__(self, trial: Trial, limits: Limits) -> None:
        self.limits = limits
        self.child: Confined | None = None
        self._told, self._block_seconds = 0, 0.0
        super().__init__(trial)

    def make_learner(self) -> tuple[Any, str]:
        """No rule is made here."""
        self.entry: str | None = None
        if self.trial.learner_path is not None:
            self.path = self.trial.learner_path
            return None, self.path
        plugin = registry.find("learners", self.trial.learner)
        self.path, self.entry = str(plugin.path), plugin.entry
        return None, plugin.source

    def environment(self, here: dict[str, Any]) -> dict[str, Any]:
        """With what the rule was held by, beside what changes from trial to trial."""
        return here | {"host": here["host"] | {"confinement": isolation.confinement()}}

    def prepare(self) -> None:
        """Have the confined process import its framework, before anything of a trial is due."""
        try:
            self._do("settle")
        except (ConfinedError, OSError) as error:
            self.close()
            raise MachineError(f"no confined process came as far as the rule: {one_line(error)}") from error

    def peaks(self) -> tuple[ProcessPeak, DevicePeak]:
        """Memory of the confined process."""
        self._do("settle")
        return ProcessPeak(self._confined().process.pid), DevicePeak(self.ops)

    def train(self, trials: Sequence[Trial], progress: Progress) -> list[dict[str, Any]]:
        """What each of `trials` yielded. What the rule prints goes to standard error."""
        self.compile_seconds -= self._block_seconds  # of the seed before
        self._block_seconds = 0.0
        self.prepare()
        child = self._confined()
        try:
            order = contributed.place(child, self.path, self.trial.learner_sha256, self.entry)
            self._do("import", cell=[self.cell.inputs, self.cell.outputs, self.cell.loss], **order)
            return super().train(trials, progress)
        except (ConfinedError, OSError) as error:
            if why := child.fault():
                raise MachineError(f"{why}: {one_line(error)}") from error
            raise
        finally:
            self.close()

    def close(self) -> None:
        """End the confined process."""
        self._tell()
        child, self.child = self.child, None
        self._compiled.pop("block", None)
        if child is not None:
            child.__exit__()

    # -- what the confined process does ------------------------------------------------------------

    def start(self, trial: Trial) -> Any:
        """(parameters, nothing, nothing): the other two are in the confined process."""
        self._do("start", seed=trial.seed)
        return self.ops.from_numpy(self._weights()), None, None

    def restart(self, carry: Any, numbers: Mapping[str, Any] | None = None) -> Any:
        """The order to put the network to rest."""
        self._do("restart")
        return carry

    def compiled(self, name: str, f: Callable, *args: Any, donate: tuple[int, ...] = ()) -> Callable:
        """`f`; of a block, the order to train on the segments of `args`, which are handed over here."""
        if name != "block":
            return super().compiled(name, f, *args, donate=donate)
        child, arrays = self._confined(), self.ops.to_numpy(tuple(args[1][0]))
        files = [child.directory / file for file in _SEGMENTS]
        child.given = sum(array.nbytes for array in arrays)
        for file, array in zip(files, arrays, strict=True):
            _save(file, array)
        clock = time.perf_counter()
        self._do("load")
        for file in files:
            file.unlink(missing_ok=True)
        child.given = 0
        if name not in self._compiled:
            self._block_seconds = time.perf_counter() - clock
            self.compile_seconds += self._block_seconds
            self._compiled[name] = self._block
        return self._block

    def _block(self, _: Any, xs: Any, __: None) -> Any:
        segments = len(xs[0].weights)
        self._do("train")
        found = self._weights(losses=(segments,))
        losses = found.pop("losses")
        return (self.ops.from_numpy(found), None, None), self.ops.from_numpy(losses)

    def cost(self, rate: float | None) -> dict[str, Any]:
        """The figures that the confined process has taken; as honest as the rule. None where it fails."""
        try:
            answer = self._do("cost", rate=rate)
            return {name: _number(answer, name) for name in _COSTS if name in answer}
        except MachineError:
            raise
        except ConfinedError as error:
            print(f"its cost was not measured: {error.detail}", file=sys.stderr)
            return {}

    def _weights(self, **others: tuple[int, ...]) -> dict[str, Any]:
        shapes = {name: value.shape for name, value in self.cell.init(0).items()}
        path = self._confined().directory / _WEIGHTS
        return isolation.read_arrays(path, shapes | others, self.trial.dtype)

    def _confined(self) -> Confined:
        """The confined process; a new one knows nothing of the rule."""
        if self.child is not None:
            return self.child
        self.child = Confined(
            "creditbench.executors.confined:serve",
            {"trial": self.trial.model_dump(mode="json")},
            readable=contributed.readable(self.path, self.entry),
            limits=self.limits,
            threads=self.trial.threads,
            device=self.trial.device,
        ).__enter__()
        self._told = 0
        return self.child

    def _do(self, what: str, **order: Any) -> dict[str, Any]:
        """Give an order and wait for its answer; the process stands still before and after.

        The answer repeats what only this order holds, so that none can have been given before.
        """
        child, own = self._confined(), secrets.token_hex(16)
        child.go()
        child.send(do=what, own=own, **order)
        answer = child.receive()
        child.stop()
        if answer.pop("own", None) != own or answer.get("done") != what:
            raise ConfinedError(
                "invalid", f"it sent something that is no answer to {what!r}: {answer!s:.100}"
            )
        return answer

    def _tell(self) -> None:
        if self.child is not None:
            printed = self.child.printed(self._told)
            self._told += len(printed)
            sys.stderr.write(printed.decode(errors="replace"))
            sys.stderr.flush()


def _number(answer: Mapping[str, Any], name: str) -> Any:
    value = answer[name]
    kinds = (int,) if name == "algorithm_bytes" else (int, float)
    if type(value) not in kinds or not 0 <= value <= _LARGEST:
        raise ConfinedError(
            "invalid", f"it sent {name} as {value!r:.50}, which is no number from 0 to {_LARGEST:g}"
        )
    return value


def _save(path: Path, array: Any) -> None:
    """Write an array into a file that is new: what lay there may be anything, a link to elsewhere among it."""
    path.unlink(missing_ok=True)
    with path.open("xb") as file:
        np.save(file, array, allow_pickle=False)


# -- in the confined process -------------------------------------------------------------------------------


def serve(order: Mapping[str, Any], send: Send) -> None:
    """Do what is ordered: `settle`; `import` the rule; `start`; `restart` at a seam, `load`, `train`; `cost`."""
    inner = _Inner(Trial.model_validate(order["trial"]))
    while (asked := send.receive()) is not None:
        answer = getattr(inner, f"do_{asked['do']}")(asked)
        send(done=asked["do"], own=asked["own"], **(answer or {}))


class _Inner(Program):
    """The part of a program that knows the rule. It knows no task."""

    def __init__(self, trial: Trial) -> None:
        self.trial, self.compile_seconds, self.compile_cached = trial, 0.0, False
        self.ops = make_ops(trial.backend, trial.device, trial.dtype)
        self.optimizer = make_optimizer(trial.optimizer, trial.lr)
        self._compiled, self._cost = {}, None
        warm_up(trial.backend, trial.device)

    def do_import(self, asked: Mapping[str, Any]) -> None:
        trial, (inputs, outputs, loss) = self.trial, asked["cell"]
        self.cell = Cell(inputs, trial.hidden, outputs, trial.alpha, trial.bias, trial.decorrelate, loss)
        cls = contributed.import_learner(asked).cls
        self.learner = with_decorrelation(cls(**self.trial.hyperparameters), self.trial)

    def do_settle(self, _: Mapping[str, Any]) -> None:
        settle()

    def do_start(self, asked: Mapping[str, Any]) -> None:
        self.key = self.ops.key(asked["seed"])
        self.keys_left: Iterator[Any] | None = None
        self.carry = self.start(self.trial.model_copy(update={"seed": asked["seed"]}))
        self._snapshot()

    def do_load(self, _: Mapping[str, Any]) -> None:
        batch = Batch(*(np.load(file, allow_pickle=False) for file in _SEGMENTS))
        if self.keys_left is None:  # how long blocks are is seen at the first
            segments = self.trial.evaluations * segments_between(self.trial)
            self.keys_left = iter(self.ops.key_blocks(self.key, segments, len(batch.weights)))
        self.xs = self.ops.from_numpy(batch), next(self.keys_left)
        self.run = self.compiled("block", self.block, self.carry, self.xs, donate=(0,))
        self.ops.synchronize((self.carry, self.xs))

    def do_restart(self, _: Mapping[str, Any]) -> None:
        self.carry = self.restart(self.carry)

    def do_train(self, _: Mapping[str, Any]) -> None:
        self.carry, losses = self.run(self.carry, self.xs)
        self._snapshot(losses=losses)

    def do_cost(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        return self.cost(asked["rate"])

    def _snapshot(self, **others: Any) -> None:
        np.savez(_WEIGHTS, **self.ops.to_numpy(self.carry[0] | others))
