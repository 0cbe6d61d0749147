"""Runs trials: segments, optimiser, evaluation, clock."""

from __future__ import annotations

import contextlib
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import numpy as np

import creditbench
from creditbench.cells import Cell
from creditbench.errors import ConfinedError, UsageError, is_of_machine, one_line, reason, status_of
from creditbench.learner import Batch
from creditbench.machine.environment import fingerprint
from creditbench.ops import COMPILED, Ops, make_ops
from creditbench.plugins import registry
from creditbench.task import Sequences, Task
from creditbench.trials.blocks import Blocks, OwnBlocks, Programs, stacked, trained_alike
from creditbench.trials.checkpoint import Checkpoint, Checkpoints, RunSoFar, SoFar, find, same, unused
from creditbench.trials.network import cell_of, firing_rate
from creditbench.trials.record import Cost, Outcome, Point, Record, checked
from creditbench.trials.trial import Trial

#: A trial reaches its target at this part of the way from trivial to solved.
TARGET = 0.9
#: The most blocks between two evaluations of a stream.
_BLOCKS = 64

#: (trial, the part of its budget that is done, the points of its curve since the last time)
Progress = Callable[[Trial, float, Sequence[Point]], None]


def run_trials(
    trials: Sequence[Trial],
    progress: Progress | None = None,
    together: bool = False,
    trainer: Trainer | None = None,
    checkpoints: Checkpoints | None = None,
) -> Iterator[Record]:
    """Train trials that differ only in their seed. Yield a record for each, even if it fails.

    The seeds share one compiled program and run one after another. `together` trains them as one under `vmap`
    (JAX). Then more steps run per second, but no seed has its own time; and the trials may also differ in
    their `numbers`. `trainer`: trains a rule that is not in this process; it is closed at the end.
    `checkpoints`: where trials that were cut short go on, and leave what they need to go on; they are deleted
    by whoever keeps the records. Raises `UsageError`, and `MachineError` or `OSError` if the machine fails.
    """
    together = (
        together
        and trials[0].backend in COMPILED
        and (trainer.blocks if trainer else OwnBlocks).trains_together
    )
    if len({trial.program if together else trial.family for trial in trials}) != 1:
        raise ValueError(
            "trials that run together may differ in nothing but their seed, under vmap in numbers"
        )
    with contextlib.closing(trainer or Trainer(trials[0])) as trainer:
        trainer.checkpoints = checkpoints
        yield from _run(trainer, trials, progress or (lambda *_: None), together)


def _run(trainer: Trainer, trials: Sequence[Trial], progress: Progress, together: bool) -> Iterator[Record]:
    for group in [list(trials)] if together else [[trial] for trial in trials]:
        started, clock = datetime.now(UTC), time.perf_counter()
        environment = fingerprint(trials[0].backend, trials[0].device)
        try:
            outcomes = trainer.train(group, progress)
        except UsageError:
            raise
        except Exception as error:
            if is_of_machine(error):
                raise
            if not isinstance(error, ConfinedError):  # its traceback shows only the harness
                traceback.print_exc(file=sys.stderr)
            outcomes = [Outcome(status_of(error), one_line(error))] * len(group)
        duration = time.perf_counter() - clock + trainer.duration_before
        for trial, outcome in zip(group, outcomes, strict=True):
            yield trainer.record(
                trial,
                outcome,
                environment=trainer.blocks.environment(environment),
                started=started,
                duration=duration,
                together=len(group),
            )


class Trainer:
    """The parts that trials of one run share: task, cell, forward pass, and the rule in `blocks`.

    `blocks`: None for a rule in this process. Raises `UsageError` for a task or rule that cannot be made.
    """

    def __init__(self, trial: Trial, ops: Ops | None = None, blocks: Blocks | None = None) -> None:
        self.trial = trial
        plugin = registry.find("tasks", trial.task, [trial.task_path] if trial.task_path else [])
        self.task: Task = plugin.cls(**trial.task_parameters)
        self.ops = ops or make_ops(trial.backend, trial.device, trial.dtype)
        self.blocks = blocks or OwnBlocks(trial, self.ops)
        self._programs = Programs(self.ops)
        self._cost: Cost | None = None
        self.checkpoints: Checkpoints | None = None
        #: Seconds that the processes took that trained a part of the trials before; 0 if none did.
        self.duration_before = 0.0

    def close(self) -> None:
        """Release all that outlives a trial."""
        self.blocks.close()

    @cached_property
    def cell(self) -> Cell:
        sample, trial = self.task.generate("validation", self.trial.seed, self.trial.batch), self.trial
        inputs, outputs = sample.inputs.shape[-1], sample.targets.shape[-1]
        return cell_of(trial, inputs, outputs, self.task.loss)

    def keys(self, seed: int, segments: int, unit: int) -> list[Any]:
        """The keys of a run of `segments` segments, in blocks of `unit`."""
        blocks = self.ops.key_blocks(self.ops.key(seed), segments, unit)
        self.ops.synchronize(blocks)  # so that no time of training includes them
        return blocks

    def evaluate(self, params: Any, sequences: Sequences, inputs: Any) -> float | None:
        """The task's metric of the harness's own forward pass; None if the outputs are not finite."""

        def run(params, inputs):
            return self.cell.run(self.ops, params, inputs)

        outputs = self.ops.to_numpy(
            self._programs.compiled(f"run {tuple(inputs.shape)}", run, params, inputs)(params, inputs)
        ).astype(np.float32, copy=False)
        return self.task.score(outputs, sequences) if np.isfinite(outputs).all() else None

    def firing_rate(self, params: Any, inputs: Any) -> float | None:
        """The mean firing rate of a spiking cell; None for another."""
        if not self.cell.spikes:
            return None

        def rate(params, inputs):
            return firing_rate(self.ops, self.cell, params, inputs)

        run = self._programs.compiled(f"rate {tuple(inputs.shape)}", rate, params, inputs)
        return float(self.ops.to_numpy(run(params, inputs)))

    # -- training --------------------------------------------------------------------------------

    def train(self, trials: Sequence[Trial], progress: Progress) -> list[Outcome]:
        """The outcome of each trial. Several trials are trained as one program, under `vmap`."""
        self.duration_before, self._began = 0.0, time.monotonic()
        with self.blocks.training(self.cell):
            return self._train(trials, progress)

    def _train(self, trials: Sequence[Trial], progress: Progress) -> list[Outcome]:
        ops, trial, blocks, many = self.ops, self.trial, self.blocks, len(trials) > 1
        alike = trained_alike(trials)

        def one(tree, i):  # the i-th trial's part of a stacked tree
            return ops.tree_map(lambda leaf: leaf[i], tree) if many else tree

        runs = [_Run(self, t) for t in trials]
        # Trials that are alike have the same data and draws, so those of the first serve all.
        differ = runs[: 1 if alike else None]
        data = runs[0].data() if alike else stacked(ops, [run.data() for run in runs])
        segments, unit, seconds = runs[0].segments, runs[0].unit, 0.0
        keys = [self.keys(t.seed, trial.evaluations * segments, unit) for t in trials[: len(differ)]]
        carry, checkpoint = self._resume(trials, blocks.start(trials), -(-segments // unit))
        if checkpoint is None:
            done, resumed = 0, 0
            for i, run in enumerate(runs):
                run.evaluate(one(carry[0], i), 0, 0.0, None)
        else:
            done, seconds = checkpoint.so_far.done, checkpoint.so_far.seconds
            resumed = checkpoint.so_far.resumed + 1
            for run, own, weights in zip(runs, checkpoint.so_far.runs, checkpoint.best, strict=True):
                run.resume(own, weights)
        saved = time.monotonic()
        for number in range(done, trial.evaluations):
            first, last = number * segments, (number + 1) * segments
            elapsed, parts_of_losses = 0.0, []
            for start in range(first, last, unit):
                if runs[0].at_seam(start):
                    carry = blocks.restart(carry)
                parts = [
                    (ops.from_numpy(run.segments_from(start), copy=False), key[start // unit])
                    for run, key in zip(differ, keys, strict=True)
                ]
                xs = parts[0] if alike else stacked(ops, parts)
                blocks.load(carry, xs, data)
                # Frameworks compute asynchronously: wait before and after, to time this block alone.
                ops.synchronize((carry, xs))
                clock = time.perf_counter()
                carry, losses = blocks.train(carry, xs, data)
                ops.synchronize((carry, losses))
                elapsed += time.perf_counter() - clock
                parts_of_losses.append(ops.to_numpy(losses).reshape(len(trials), unit))
            seconds += elapsed
            losses = np.concatenate(parts_of_losses, axis=1)
            for i, run in enumerate(runs):
                if run.check(losses[i], one(carry[0], i), first):
                    run.rates.append(segments * trial.segment / elapsed)
                    run.evaluate(one(carry[0], i), last * trial.segment, seconds, float(losses[i].mean()))
                    progress(trials[i], (number + 1) / trial.evaluations, run.new_points())
            if all(run.diverged_at is not None for run in runs):
                break
            if (
                self.checkpoints
                and number + 1 < trial.evaluations
                and time.monotonic() - saved >= self.checkpoints.seconds
            ):
                saved = time.monotonic()
                so_far = SoFar(
                    trials=tuple(t.id for t in trials),
                    environment=same(self.environment),
                    done=number + 1,
                    seconds=seconds,
                    duration=self.duration_before + saved - self._began,
                    resumed=resumed,
                    runs=tuple(run.so_far for run in runs),
                )
                best = [run.best[1] if run.best else {} for run in runs]
                self._save(trials, carry, so_far, best)
        outcomes = [replace(run.outcome(seconds), resumed=resumed) for run in runs]
        if trial.measure:
            # Last, so that it does not raise the peaks of the training.
            rate = max((rate for run in runs for rate in run.rates), default=None)
            if self._cost is None:
                self._cost = blocks.cost(rate)  # a property of the program, so all seeds share it
            outcomes = [replace(outcome, cost=self._cost) for outcome in outcomes]
        return outcomes

    @property
    def environment(self) -> dict[str, Any]:
        """The environment of this process."""
        return fingerprint(self.trial.backend, self.trial.device)

    def _resume(self, trials: Sequence[Trial], carry: Any, blocks: int) -> tuple[Any, Checkpoint | None]:
        """The carry to go on with and its checkpoint, or `carry` itself if there is none.

        `blocks`: between two evaluations.
        """
        if self.checkpoints is None:
            return carry, None
        found = find(self.checkpoints, trials, self.environment)
        if found is None:
            return carry, None
        try:
            carry = self.blocks.restore(carry, found.carry, found.so_far.done * blocks)
        except ValueError as error:
            unused(self.checkpoints, self.checkpoints.path(trials), error)
            return carry, None
        self.duration_before = found.so_far.duration
        return carry, found

    def _save(self, trials: Sequence[Trial], carry: Any, so_far: SoFar, best: Sequence[Any]) -> None:
        """Write a checkpoint. Training goes on if that fails."""
        assert self.checkpoints is not None
        try:
            Checkpoint(so_far, self.blocks.save(carry), best).write(self.checkpoints.path(trials))
        except (OSError, ValueError) as error:
            self.checkpoints.say(
                f"checkpoint '{self.checkpoints.path(trials)}' cannot be written ({reason(error)}): if the "
                "run is cut short, the trial begins anew"
            )

    def record(
        self,
        trial: Trial,
        outcome: Outcome,
        *,
        environment: dict[str, Any],
        started: datetime,
        duration: float,
        together: int,
    ) -> Record:
        """The record of one trial. `together`: the number of trials trained as one; `duration`: seconds."""
        seconds, cached = self.blocks.compiling()
        return Record(
            suite_version=creditbench.__version__,
            trial=trial,
            learner_source=self.blocks.source,
            metric=self.task.metric,
            metric_direction=self.task.metric_direction,
            trained_together=together,
            compile_seconds=seconds,
            compile_cached=cached,
            environment=environment,
            started_at=started.isoformat(timespec="seconds"),
            duration_seconds=duration,
            **outcome.fields(),
        )


class _Run:
    """One seed's data, schedule and curve."""

    def __init__(self, trainer: Trainer, trial: Trial) -> None:
        self.trainer, self.trial, self.task = trainer, trial, trainer.task
        self.train, self.validation, self.test = (
            self.task.generate(split, trial.seed, trial.batch) for split in ("train", "validation", "test")
        )
        self.validation_inputs = trainer.ops.from_numpy(self.validation.inputs)
        #: segments between two evaluations, and segments of a block, which is trained in one call
        self.segments = self.unit = segments_between(trial)
        if trial.protocol == "stream":
            self._lay_out()
        else:
            rng = np.random.default_rng([trial.seed, 0x0DE5])
            rows, needed = self.train.inputs.shape[1], self.segments * trial.evaluations * trial.batch
            epochs = [rng.permutation(rows) for _ in range(-(-needed // rows))]
            self.order = np.concatenate(epochs)[:needed].astype(np.int32).reshape(-1, trial.batch)
        self.gathers = trial.protocol == "episodes" and trainer.blocks.holds_data
        self.curve: list[Point] = []
        self.told = 0  #: points of it that were reported
        self.rates: list[float] = []
        self.best: tuple[float, dict[str, np.ndarray]] | None = None
        self.diverged_at: int | None = None
        self.peak, self.device_peak = trainer.blocks.peaks()

    def _lay_out(self) -> None:
        """Cut a stream's stretches into blocks. Each block lies within one stretch.

        All blocks have one length, so that one program trains them. The rest of a stretch after its last
        whole block is not trained on. The length is the longest whose rest is at most a twentieth of a
        stretch. If there is none, it is the length with the smallest rest.
        """
        K, stretches = self.trial.segment, self.task.stretches(self.trial.batch)
        self.stretch = len(self.train.inputs) // stretches  #: time steps
        self.stretch_count = stretches
        whole = self.stretch // K
        if whole == 0:
            raise UsageError(
                f"segment is {K}: a stream of {self.task.id} has {self.stretch} steps from rest to rest, and "
                "holds no such segment"
            )
        fewest = -(-self.segments // _BLOCKS)
        fits = [u for u in range(min(self.segments, whole), 0, -1) if self.segments % u == 0]
        fits = [u for u in fits if u >= fewest] or fits[:1]
        self.unit = min(fits, key=lambda u: (max(0.05, whole % u / whole), -u))
        self.blocks = whole // self.unit  #: of a stretch

    def at_seam(self, first: int) -> bool:
        """Whether a new stretch begins at segment `first`, after another one has ended."""
        return self.trial.protocol == "stream" and first > 0 and first // self.unit % self.blocks == 0

    def data(self) -> Any:
        """The training split on the device, if blocks gather their segments from it."""
        return self.trainer.ops.from_numpy(self.train, copy=False) if self.gathers else None

    def segments_from(self, first: int) -> Any:
        """A block's segments from `first` on: the segments themselves, or the numbers of their sequences."""
        return self.order[first : first + self.unit] if self.gathers else self.batches(first)

    def batches(self, first: int, count: int | None = None) -> Batch:
        """`self.unit` or `count` segments from `first` on, [S, K, B, ·]. Weights sum to 1 in each."""
        take = np.arange(first, first + (self.unit if count is None else count))
        if self.trial.protocol == "stream":
            K, used = self.trial.segment, self.unit * self.blocks
            # Stretch after stretch; after the last one the first comes again.
            starts = take // used % self.stretch_count * self.stretch + take % used * K
            steps = starts[:, None] + np.arange(K)
            arrays = [x[steps] for x in self.train]
        else:
            order = self.order[take % len(self.order)]
            arrays = []
            for x in self.train:
                arrays.append(np.empty((len(order), len(x), *order.shape[1:], *x.shape[2:]), x.dtype))
                for segment, rows in zip(arrays[-1], order, strict=True):
                    np.take(x, rows, axis=1, out=segment, mode="clip")  # the default mode copies first
        return _normalised(*arrays)

    def windows(self, evaluation: int, steps: int, count: int) -> Batch:
        """The data after that evaluation: `count` sequences of `steps` steps of a stream, or segments."""
        segments = evaluation * self.segments
        if self.trial.protocol == "episodes":
            return self.batches(segments, count)
        length = self.stretch
        if not 0 < steps <= length:
            raise UsageError(
                f"steps is {steps}: give 1 to {length}, which a stream of {self.task.id} has from rest to "
                "rest"
            )
        starts = (segments * self.trial.segment + steps * np.arange(count)) % (length - steps + 1)
        return _normalised(*(np.stack([x[t : t + steps] for t in starts]) for x in self.train))

    def evaluate(self, params: Any, step: int, seconds: float, loss: float | None) -> None:
        """Add a point to the curve, and keep the weights if they are the best so far."""
        metric = self.trainer.evaluate(params, self.validation, self.validation_inputs)
        if metric is not None and not np.isfinite(metric):
            metric = None
        self.curve.append(checked(Point(step, seconds, loss, metric)))
        if metric is not None and (self.best is None or self.task.better(metric, self.best[0])):
            self.best = metric, self.trainer.ops.to_numpy(params)

    @property
    def so_far(self) -> RunSoFar:
        """What a checkpoint keeps of it beside its weights."""
        best = self.best[0] if self.best else None
        return RunSoFar(
            curve=tuple(self.curve), rates=tuple(self.rates), best=best, diverged_at=self.diverged_at
        )

    def resume(self, run: RunSoFar, weights: Mapping[str, np.ndarray]) -> None:
        """Take over what a checkpoint kept."""
        self.curve, self.rates, self.diverged_at = list(run.curve), list(run.rates), run.diverged_at
        self.best = None if run.best is None else (run.best, dict(weights))

    def new_points(self) -> list[Point]:
        """The points of the curve since the last call."""
        before, self.told = self.told, len(self.curve)
        return self.curve[before:]

    def check(self, losses: np.ndarray, params: Any, first: int) -> bool:
        """Whether training is still finite. Keeps the step at which it diverged."""
        if self.diverged_at is None:
            bad = np.flatnonzero(~np.isfinite(losses))
            if bad.size:
                self.diverged_at = (first + int(bad[0]) + 1) * self.trial.segment
            elif not all(np.isfinite(value).all() for value in self.trainer.ops.to_numpy(params).values()):
                self.diverged_at = (first + len(losses)) * self.trial.segment
        return self.diverged_at is None

    def outcome(self, seconds: float) -> Outcome:
        """The fields of the record that training decides. The test split is used here, once."""
        task, trainer = self.task, self.trainer
        trivial, solved = (
            known if known is not None and np.isfinite(known) else None
            for known in (task.trivial_score(self.test), task.solved_score(self.test))
        )
        found = Outcome(
            "diverged",
            trivial=trivial,
            solved=solved,
            train_seconds=seconds,
            steps_per_second=float(np.median(self.rates)) if self.rates else None,
            process_peak_bytes=self.peak.bytes(),
            process_peak_source=self.peak.source,
            device_peak_bytes=self.device_peak.bytes(),
            curve=tuple(self.curve),
        )
        if self.diverged_at is not None:
            return replace(found, status_detail=f"step {self.diverged_at}")
        if self.best is None:
            return replace(found, status_detail="no finite validation score")
        validation, params = self.best
        weights, inputs = trainer.ops.from_numpy(params), trainer.ops.from_numpy(self.test.inputs)
        test = trainer.evaluate(weights, self.test, inputs)
        found = replace(found, validation_best=validation)
        if test is None:
            return replace(found, status_detail="outputs on the test split are not finite")
        if not np.isfinite(test):
            detail = (
                f"the metric of {task.id} on the test split is {test}, with weights that scored "
                f"{validation:.4g} on validation"
            )
            return replace(found, status="invalid", status_detail=detail)
        reached = self._reached()
        return replace(
            found,
            status="ok",
            test_score=test,
            firing_rate=trainer.firing_rate(weights, inputs),
            normalised_score=None if trivial is None else task.normalise(test, trivial, solved),
            steps_to_target=reached.step if reached else None,
            seconds_to_target=reached.seconds if reached else None,
        )

    def _reached(self) -> Point | None:
        """The first point of the curve at the target, on the validation split's own scale."""
        task = self.task
        trivial, solved = task.trivial_score(self.validation), task.solved_score(self.validation)
        if solved is None or not task.better(solved, trivial):
            return None
        target = trivial + TARGET * (solved - trivial)
        known = ((p, p.validation) for p in self.curve if p.validation is not None)
        return next((point for point, metric in known if not task.better(target, metric)), None)


def train_to(
    trainer: Trainer, points: Sequence[float], steps: int, count: int = 1
) -> Iterator[tuple[float, Any, Batch]]:
    """Train, and stop at each of `points`: (point, parameters, the `count` segments that follow).

    Points are parts of the budget. A point is moved to the nearest evaluation of the trial. `steps`: the
    length of those segments [count, K, B, ·] on a stream. The parameters are valid until the next point is
    requested.
    """
    ops, trial, blocks = trainer.ops, trainer.trial, trainer.blocks
    run = _Run(trainer, trial)
    keys = trainer.keys(trial.seed, trial.evaluations * run.segments, run.unit)
    with blocks.training(trainer.cell):
        data, carry = run.data(), blocks.start([trial])
        done = 0
        for point in sorted({round(point * trial.evaluations) for point in points}):
            for first in range(done * run.segments, point * run.segments, run.unit):
                if run.at_seam(first):
                    carry = blocks.restart(carry)
                xs = ops.from_numpy(run.segments_from(first), copy=False), keys[first // run.unit]
                blocks.load(carry, xs, data)
                carry, losses = blocks.train(carry, xs, data)
                if not np.isfinite(ops.to_numpy(losses)).all():
                    raise UsageError(
                        f"training diverged before {point / trial.evaluations:g} of its budget: lower --lr"
                    )
            done = point
            segments = Batch(*ops.from_numpy(tuple(run.windows(done, steps, count))))
            yield point / trial.evaluations, carry[0], segments


def _normalised(inputs: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> Batch:
    """Segments [S, K, B, ·] with weights that sum to 1 in each. Weights of unscored segments stay 0."""
    total = weights.sum(axis=(1, 2), keepdims=True)
    return Batch(inputs, targets, np.divide(weights, total, out=np.zeros_like(weights), where=total > 0))


def segments_between(trial: Trial) -> int:
    """Segments between two evaluations."""
    return -(-trial.budget_steps // (trial.segment * trial.evaluations))
