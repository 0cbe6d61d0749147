"""Training of a rule that is not shipped: it trains in a confined process, and everything else happens here.

This process has the task, the targets of validation and test, the clock and the record. The confined process
has the rule and, block by block, the segments that it trains on. It answers the order of a block with the
weights, which are checked before use and scored with the harness's own forward pass. The clock runs from the
order to the answer; the confined process is stopped while the clock does not run. Each seed has its own
process and folder, so that seeds cannot share anything.

Two things remain the rule's own word: the training losses on its curve and, if they are measured, the figures
of `measure`.
"""

from __future__ import annotations

import contextlib
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from creditbench import isolation
from creditbench.cells import Cell
from creditbench.errors import ConfinedError, MachineError, one_line
from creditbench.isolation import Confined, Limits, Send
from creditbench.learner import Batch
from creditbench.machine.memory import settle
from creditbench.measure.memory import DevicePeak, ProcessPeak
from creditbench.ops import make_ops
from creditbench.plugins import contributed, registry
from creditbench.plugins.importing import Plugin
from creditbench.trials.blocks import Blocks, OwnBlocks, warm_up
from creditbench.trials.network import cell_of
from creditbench.trials.record import Cost
from creditbench.trials.trainer import Trainer, segments_between
from creditbench.trials.trial import Trial

_WEIGHTS, _STATE = "weights.npz", "state.npz"
_SEGMENTS = ("inputs.npy", "targets.npy", "weights.npy")
_LARGEST = 1e18  #: greatest figure of `Cost` that is accepted: no machine has so many bytes
#: Orders to the confined process; `_ORDERS` has the function that answers each.
Order = Literal["settle", "import", "start", "restart", "load", "train", "save", "restore", "cost"]


class ConfinedBlocks(Blocks):
    """A rule in a confined process, a new one for each seed. `limits`: of each such process."""

    trains_together = False
    holds_data = False  # the confined process gets the segments of each block, and no others

    def __init__(self, trial: Trial, limits: Limits) -> None:
        self.trial, self.limits = trial, limits
        self.ops = make_ops(trial.backend, trial.device, trial.dtype)
        self.most_state = limits.file_bytes // 2  #: bytes of a checkpoint: its folder has other files too
        self.child: Confined | None = None
        self._told = 0
        #: Seconds that loading the seed's first block took, compilation included; None before.
        self._loading: float | None = None
        self.entry: str | None = None
        if trial.learner_path is not None:
            self.path = self.source = trial.learner_path
        else:
            plugin = registry.find("learners", trial.learner)
            self.path, self.source, self.entry = str(plugin.path), plugin.source, plugin.entry
        #: The cell; None if it is shipped.
        self.network: Plugin | None = None
        if trial.cell_sha256 is not None:
            paths = [trial.cell_path] if trial.cell_path else []
            self.network = replace(registry.find("cells", trial.cell, paths), sha256=trial.cell_sha256)

    def environment(self, here: dict[str, Any]) -> dict[str, Any]:
        """Adds how the rule was confined, and the values that change from trial to trial."""
        return here | {"host": here["host"] | {"confinement": isolation.confinement()}}

    def prepare(self) -> None:
        """Make the confined process import its framework before the trial starts."""
        try:
            self._do("settle")
        except (ConfinedError, OSError) as error:
            self.close()
            raise MachineError(f"no confined process came as far as the rule: {one_line(error)}") from error

    def peaks(self) -> tuple[ProcessPeak, DevicePeak]:
        """Memory of the confined process."""
        self._do("settle")
        return ProcessPeak(self._confined().process.pid), DevicePeak(self.ops)

    def compiling(self) -> tuple[float, bool]:
        """Seconds that the confined process took to load its first block; its programs are not kept."""
        return self._loading or 0.0, False

    @contextlib.contextmanager
    def training(self, cell: Cell) -> Iterator[None]:
        """The life of one confined process, which imports the rule. Its output goes to standard error."""
        self.cell, self._loading = cell, None
        self.prepare()
        child = self._confined()
        try:
            order = contributed.place(child, self.path, self.trial.learner_sha256, self.entry)
            network = None
            if self.network is not None:
                path, entry = str(self.network.path), self.network.entry
                network = contributed.place(child, path, self.network.sha256, entry, "cell")
            shape = [cell.inputs, cell.outputs, cell.loss]
            self._do("import", cell=shape, network=network, **order)
            yield
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
        if child is not None:
            child.__exit__()

    # -- what the confined process does ------------------------------------------------------------

    def start(self, trials: Sequence[Trial]) -> Any:
        """(parameters, None, None): the other two are in the confined process."""
        (trial,) = trials
        self._do("start", seed=trial.seed)
        return self.ops.from_numpy(self._weights()), None, None

    def restart(self, carry: Any) -> Any:
        """Order a reset of the network's activity."""
        self._do("restart")
        return carry

    def load(self, carry: Any, xs: Any, data: Any) -> None:
        """Hand over the segments of `xs`; the keys are drawn there."""
        child, arrays = self._confined(), self.ops.to_numpy(tuple(xs[0]))
        files = [child.directory / file for file in _SEGMENTS]
        child.given = sum(array.nbytes for array in arrays)
        for file, array in zip(files, arrays, strict=True):
            _save(file, array)
        clock = time.perf_counter()
        self._do("load")
        for file in files:
            file.unlink(missing_ok=True)
        child.given = 0
        if self._loading is None:
            self._loading = time.perf_counter() - clock

    def train(self, carry: Any, xs: Any, data: Any) -> tuple[Any, Any]:
        """Order to train on the loaded segments. The weights are checked before use."""
        self._do("train")
        found = self._weights(losses=(len(xs[0].weights),))
        losses = found.pop("losses")
        return (self.ops.from_numpy(found), None, None), self.ops.from_numpy(losses)

    def save(self, carry: Any) -> list[np.ndarray]:
        """The state of the confined process as the bytes of its file: they are not looked into."""
        path, most = self._confined().directory / _STATE, self.most_state
        if self._do("save", most=most).get("large"):
            raise ValueError(f"the rule's state has more than {most:,} bytes")
        content = isolation.read_bytes(path, most)
        path.unlink(missing_ok=True)
        return [np.frombuffer(content, np.uint8)]

    def restore(self, carry: Any, arrays: Sequence[np.ndarray], blocks: int) -> Any:
        """Hand the bytes back to a confined process of the same trial."""
        child, content = self._confined(), b"".join(array.tobytes() for array in arrays)
        child.given, path = len(content), child.directory / _STATE
        path.unlink(missing_ok=True)
        with path.open("xb") as file:
            file.write(content)
        if self._do("restore", blocks=blocks).get("unfit"):
            raise ValueError("its arrays are not those of the rule's state")
        path.unlink(missing_ok=True)
        child.given = 0
        return self.ops.from_numpy(self._weights()), None, None

    def cost(self, rate: float | None) -> Cost:
        """The figures that the confined process measured, as honest as the rule; None each if that fails."""
        try:
            answer = self._do("cost", rate=rate)
            return Cost(**{name: _number(answer, name) for name in Cost._fields if name in answer})
        except MachineError:
            raise
        except ConfinedError as error:
            print(f"its cost was not measured: {error.detail}", file=sys.stderr)
            return Cost()

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
            readable=[
                *contributed.readable(self.path, self.entry),
                *(contributed.readable(str(cell.path), cell.entry) if (cell := self.network) else ()),
            ],
            limits=self.limits,
            threads=self.trial.threads,
            device=self.trial.device,
        ).__enter__()
        self._told = 0
        return self.child

    def _do(self, what: Order, **order: Any) -> dict[str, Any]:
        """Give an order and wait for its answer; the process is stopped before and after.

        The answer repeats a token of this order, so that it cannot have been sent before.
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


def confined_trainer(trial: Trial, limits: Limits) -> Trainer:
    """The trainer of a rule that is not shipped. Raises `UsageError` for an unknown task or rule."""
    return Trainer(trial, blocks=ConfinedBlocks(trial, limits))


def _number(answer: Mapping[str, Any], name: str) -> Any:
    value = answer[name]
    kinds = (int,) if name == "algorithm_bytes" else (int, float)
    if type(value) not in kinds or not 0 <= value <= _LARGEST:
        raise ConfinedError(
            "invalid", f"it sent {name} as {value!r:.50}, which is no number from 0 to {_LARGEST:g}"
        )
    return value


def _save(path: Path, array: Any) -> None:
    """Write an array into a new file: an existing one may be anything, even a link to elsewhere."""
    path.unlink(missing_ok=True)
    with path.open("xb") as file:
        np.save(file, array, allow_pickle=False)


# -- in the confined process -------------------------------------------------------------------------------


def serve(order: Mapping[str, Any], send: Send) -> None:
    """Do one order after another, and answer each."""
    rule = _Rule(Trial.model_validate(order["trial"]))
    while (asked := send.receive()) is not None:
        answer = _ORDERS[asked["do"]](rule, asked)
        send(done=asked["do"], own=asked["own"], **(answer or {}))


class _Rule:
    """The rule and its state from block to block. It knows no task."""

    def __init__(self, trial: Trial) -> None:
        self.trial, self.ops = trial, make_ops(trial.backend, trial.device, trial.dtype)
        warm_up(trial.backend, trial.device)

    def settle(self, _: Mapping[str, Any]) -> None:
        """Give free memory back, and measure the peak from now on."""
        settle()

    def open(self, asked: Mapping[str, Any]) -> None:
        """Import the rule, and make the network."""
        trial, (inputs, outputs, loss) = self.trial, asked["cell"]
        self.blocks = OwnBlocks(trial, self.ops, contributed.import_placed("learners", asked).cls)
        network = asked["network"]  # None for a shipped cell
        kind = None if network is None else contributed.import_placed("cells", network).cls
        self.blocks.cell = cell_of(trial, inputs, outputs, loss, kind)

    def start(self, asked: Mapping[str, Any]) -> None:
        """Draw the weights."""
        self.key = self.ops.key(asked["seed"])
        self.keys_left: Iterator[Any] | None = None
        self.blocks_done = 0
        self.carry = self.blocks.start([self.trial.model_copy(update={"seed": asked["seed"]})])
        self._snapshot()

    def restart(self, _: Mapping[str, Any]) -> None:
        """Reset the network's activity, at a seam."""
        self.carry = self.blocks.restart(self.carry)

    def load(self, _: Mapping[str, Any]) -> None:
        """Read the segments of a block, and compile the program that trains on them."""
        batch = Batch(*(np.load(file, allow_pickle=False) for file in _SEGMENTS))
        if self.keys_left is None:  # the length of blocks is known from the first
            segments = self.trial.evaluations * segments_between(self.trial)
            keys = self.ops.key_blocks(self.key, segments, len(batch.weights))
            self.keys_left = iter(keys[self.blocks_done :])
        self.xs = self.ops.from_numpy(batch), next(self.keys_left)
        self.blocks.load(self.carry, self.xs, None)
        self.ops.synchronize((self.carry, self.xs))

    def train(self, _: Mapping[str, Any]) -> None:
        """Train on the block."""
        self.carry, losses = self.blocks.train(self.carry, self.xs, None)
        self._snapshot(losses=losses)

    def save(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Write the carry, for another process of the same trial."""
        arrays = self.blocks.save(self.carry)
        if sum(array.nbytes + 512 for array in arrays) + 1024 > asked["most"]:
            return {"large": True}
        np.savez(_STATE, *arrays, allow_pickle=False)
        return {}

    def restore(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Take over the carry of an earlier process."""
        with np.load(_STATE, allow_pickle=False) as found:
            arrays = [found[f"arr_{i}"] for i in range(len(found.files))]
        try:
            self.carry = self.blocks.restore(self.carry, arrays, asked["blocks"])
        except ValueError:
            return {"unfit": True}
        self.blocks_done = asked["blocks"]
        self._snapshot()
        return {}

    def cost(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Measure the cost of an update."""
        found = self.blocks.cost(asked["rate"])._asdict()
        return {name: value for name, value in found.items() if value is not None}

    def _snapshot(self, **others: Any) -> None:
        np.savez(_WEIGHTS, **self.ops.to_numpy(self.carry[0] | others))


_ORDERS: dict[Order, Callable[[_Rule, Mapping[str, Any]], dict[str, Any] | None]] = {
    "settle": _Rule.settle,
    "import": _Rule.open,
    "start": _Rule.start,
    "restart": _Rule.restart,
    "load": _Rule.load,
    "train": _Rule.train,
    "save": _Rule.save,
    "restore": _Rule.restore,
    "cost": _Rule.cost,
}
