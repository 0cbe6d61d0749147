"""Run or tune a grid into a folder of results. Records that the folder has are kept."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from creditbench import executors
from creditbench.check.doctor import require_device
from creditbench.errors import UsageError
from creditbench.executors.base import is_contributed
from creditbench.isolation import missing
from creditbench.machine import files
from creditbench.results.live import Logs
from creditbench.results.shared import run_missing, with_description
from creditbench.results.store import Store, without_curve
from creditbench.results.version import load
from creditbench.trials import tuning
from creditbench.trials.grid import Options, make_grid
from creditbench.trials.record import Point, Record
from creditbench.trials.shard import Shard
from creditbench.trials.trial import Trial, with_cell
from creditbench.trials.tuning import Tuned

#: Outcomes that are failures; `diverged` is a result.
FAILURES = ("crashed", "invalid", "oom", "timeout")

Say = Callable[[str], None]
#: (unit that is counted, number of them) -> a function to call as each is done.
Bars = Callable[[str, int], contextlib.AbstractContextManager[Callable[[str], None]]]
#: One study of tuning: (task, rule, cell, DRAW/STUDY).
Place = tuple[str, str, str, str]


class Interrupted(KeyboardInterrupt):
    """Ctrl-C interrupted a run: the message says how much is done, and how to resume."""


class Reporter(Protocol):
    """Is told the progress of a run."""

    def __enter__(self) -> Reporter: ...

    def __exit__(self, *_: object) -> None: ...

    def progress(self, trial: Trial, part: float) -> None:
        """Part of the budget of `trial` is done."""

    def say(self, line: str) -> None:
        """There is a message for the user."""

    def finished(self, record: Record) -> None:
        """A trial has its record."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Where:
    """How trials run, and the folder of their records."""

    results: Path
    executor: str = "local"
    jobs: int | None = None  #: processes at a time; None: as many as fit
    memory_limit: float | None = None  #: bytes that a trial may take; None: its share of all
    scheduler: str | None = None  #: of a dask cluster that is there
    checkpoint: float | None = None  #: seconds between two checkpoints of a trial; None: a minute

    def make(self, options: Options) -> executors.Executor:
        """The executor. Raises `UsageError`."""
        return executors.make_executor(
            self.executor,
            threads=options.threads,
            slots=self.jobs,
            device=options.device,
            timeout=options.timeout,
            memory_limit=self.memory_limit,
            logs=self.logs,
            scheduler=self.scheduler,
            checkpoints=Store(self.results).checkpoints,
            checkpoint_seconds=self.checkpoint,
        )

    @property
    def logs(self) -> Path:
        return self.results / "logs"


@dataclasses.dataclass(frozen=True)
class GridOutcome:
    """The outcome of a grid."""

    records: tuple[Record, ...]
    lost: tuple[
        tuple[Trial, str], ...
    ]  #: trials without a record, since the machine failed, each with the reason if it is known

    @property
    def failed(self) -> list[Record]:
        return [record for record in self.records if record.status in FAILURES]


def run_grid(
    options: Options,
    where: Where,
    report: Callable[[Sequence[Trial]], Reporter],
    say: Say,
    *,
    together: bool = False,
    force: bool = False,
    retry: bool = False,
    reuse: Sequence[Path] = (),
    shard: Shard | None = None,
    curves: bool = True,
    logs: Sequence[str] = (),
) -> GridOutcome:
    """Run the trials of a grid that have no record in the folder.

    Records that are there are read last, so that a trial that is missing starts at once.

    Args:
        together: train seeds as one program (JAX).
        force: run trials again that have a record; `retry`: those of them that failed.
        reuse: folders of results whose records are taken over first.
        shard: run its families alone; None: all.
        logs: names of `live.LOGS`, which are told the points of curves while trials run.
        curves: whether the records of the outcome have their curves, which are most of what they take.

    Raises `UsageError` for what cannot be run or read, and `Interrupted`.
    """
    if reuse and force:
        names = ", ".join(map(str, reuse))
        raise UsageError(f"--reuse is {names} and --force is given, which runs all again: give one of them")
    store = Store(where.results)
    executor = where.make(options)
    for name in options.backends:
        # The device of a cluster is its workers': one that lacks it has no worker for the trial.
        require_device(name, options.device if where.scheduler is None else "cpu")
    grid = make_grid(options)
    for name in set(grid.optimizers) - {trial.optimizer for trial in grid.trials}:
        raise UsageError(f"a parameter of {name} is set, and no rule runs with it: give --optimizer {name}")
    trials = grid.trials if shard is None else shard.share(grid.trials, lambda trial: trial.family)
    for note in (*grid.notes, *_what_is_not_confined(trials, where.executor)):
        say(f"note: {note}")
    if shard is not None:
        say(f"shard {shard}: {len(trials)} of the grid's {len(grid.trials)} trials")
    if reuse:
        taken = store.take(trials, load(*reuse).records)
        say(f"{taken} of {len(trials)} trials taken from {', '.join(map(str, reuse))}")
    there = frozenset() if force else store.names()
    done = [trial for trial in trials if trial.id in there]
    if retry:
        done = [trial for trial in done if store.get(trial, curves).status not in FAILURES]
    there = frozenset(trial.id for trial in done)
    waiting = [trial for trial in trials if trial.id not in there]
    # A run with nothing to do reads first: a broken record is all that it has to tell.
    known = {} if waiting else _read(store, done, curves)
    if done:
        say(f"{len(done)} of {len(trials)} trials already done: --force runs them again")
    for trial in waiting if force else ():
        store.drop_checkpoint(trial)
    found: dict[str, Record] = {}
    make = partial(executors.make_jobs, together=together, slots=executor.slots)
    try:
        with Logs(logs, where.results) as live, report(waiting) as told:

            def progress(trial: Trial, part: float, points: Sequence[Point]) -> None:
                told.progress(trial, part)
                live.points(trial, points)

            new = run_missing(store, waiting, executor, make, progress, told.say, describe=with_description)
            with contextlib.closing(new):
                for record, _ in new:
                    live.finished(record)
                    found[record.trial.id] = record if curves else without_curve(record)
                    told.finished(record)
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted: {len(done) + len(found)} of {len(trials)} trials are done, with records in "
            f"'{store.records}'; the same command without --force runs the rest"
        ) from None
    why = {trial.id: detail for trial, detail in executor.lost}
    found |= known or _read(store, done, curves)
    for trial in done:
        if trial.id not in found:
            why[trial.id] = "its record was deleted during the run"
    return GridOutcome(
        tuple(found[trial.id] for trial in trials if trial.id in found),
        tuple((trial, why.get(trial.id, "")) for trial in trials if trial.id not in found),
    )


def _read(store: Store, trials: Sequence[Trial], curves: bool) -> dict[str, Record]:
    """The records of those trials that have one. Raises `UsageError` for a broken one."""
    found = {}
    for trial in trials:
        with contextlib.suppress(KeyError):  # it was deleted since
            found[trial.id] = store.get(trial, curves)
    return found


def _what_is_not_confined(trials: Sequence[Trial], executor: str) -> Iterator[str]:
    """Warnings about learners that are not shipped: what this machine does not keep them from."""
    if any(is_contributed(trial) for trial in trials):
        if executor == "inline":
            yield "the executor 'inline' runs learners that are not shipped with all your rights"
        elif lacks := missing():
            yield f"{lacks}; see: creditbench doctor"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """The budget of tuning, the same for every task and rule."""

    points: int
    studies: int
    seeds: int  #: of every point
    confirm: int  #: further seeds at which the choice of a study must not diverge
    draw: int  #: another draw has other studies

    @property
    def study_of(self) -> dict[int, int]:
        """The study of each tuning seed."""
        return {
            seed: study
            for study in range(self.studies)
            for seed in tuning.study_seeds(self.draw, study, self.seeds)
        }

    def further_seeds(self, study: int) -> tuple[int, ...]:
        """The seeds at which a choice of that study is confirmed."""
        return tuning.study_seeds(self.draw, study, self.seeds + self.confirm)[self.seeds :]


def tune_grid(
    options: Options,
    plan: Plan,
    where: Where,
    output: Path,
    command: str,
    bars: Bars,
    say: Say,
    *,
    keep: bool = False,
    reuse: Sequence[Path] = (),
    shard: Shard | None = None,
) -> tuple[list[Tuned], bool]:
    """Tune every task and rule of a grid, and write the choices of the studies into `output`.

    Args:
        options: the grid; its seeds are those of the plan.
        command: the command that makes the file again; the file names it.
        keep: leave the studies that `output` has as they are.
        reuse: folders of results whose records are taken over first.
        shard: tune its tasks and rules alone; None: all.

    Returns:
        The choices of the studies, and whether every study has one.

    Raises `UsageError` for what cannot be run, read or written.
    """
    for name in options.backends:
        require_device(name, options.device if where.scheduler is None else "cpu")
    study_of = plan.study_of
    grid = make_grid(dataclasses.replace(options, seeds=tuple(study_of)))
    files.require_writable("output", output)
    kept = tuning.kept_studies(output) if keep and output.exists() else tuning.Kept()
    groups: dict[Place, list[Trial]] = {}
    trials = grid.trials
    if shard is not None:
        # Under JAX the points of all studies of a rule are one program.
        trials = shard.share(trials, _rule_on_task)
        own, whole = ({*map(_rule_on_task, some)} for some in (trials, grid.trials))
        say(f"shard {shard}: {len(own)} of {len(whole)} rules on tasks")
    for trial in trials:
        study = study_of[trial.seed]
        place = trial.task, trial.rule, trial.cell, f"{plan.draw}/{study}"
        if not kept.has(trial, place[-1]):
            decorrelated = trial.decorrelate != "none"
            drawn = tuning.draw(tuning.space(trial), plan.points, (plan.draw, study), decorrelated)
            fixed = grid.fixed.get(trial.learner, {})
            groups.setdefault(place, []).extend(tuning.trials_of(trial, drawn, grid.optimizers, fixed))
    for note in grid.notes:
        say(f"note: {note}")
    store = Store(where.results)
    known_records = load(*reuse).records if reuse else ()
    executor = where.make(options)

    def train(unit: str, wanted: Sequence[Trial]) -> None:
        store.take(wanted, known_records)
        waiting = [trial for trial in wanted if not store.has(trial)]
        make = partial(executors.make_jobs, together=True, slots=executor.slots)
        new = run_missing(store, waiting, executor, make, say=say, describe=with_description)
        with bars(unit, len(waiting)) as advance, contextlib.closing(new):
            for record, _ in new:
                trial = record.trial
                rule = with_cell(trial.rule, trial.cell)
                advance(f"{trial.task} {rule} lr={trial.lr:g}: {record.status}")

    train("points", [trial for group in groups.values() for trial in group])
    further: dict[Place, list[Trial]] = {place: [] for place in groups}
    while new_trials := list(_unconfirmed(store, groups, further, plan)):
        train("choices", new_trials)
    found = list(_choices(store, groups, further, executor.lost, say))
    text = tuning.frozen(found, command) if found or not kept.text else ""
    with files.output("output", output):
        files.write(output, files.as_bytes("\n".join(filter(None, (kept.text, text)))))
    return found, len(found) == len(groups)


def _rule_on_task(trial: Trial) -> tuple[str, str, str]:
    return trial.task, trial.rule, trial.cell


def _unconfirmed(
    store: Store, groups: dict[Place, list[Trial]], further: dict[Place, list[Trial]], plan: Plan
) -> Iterator[Trial]:
    """The trials that confirm the points that are best so far; they are added to `further`."""
    for place, group in groups.items():
        records, confirmed = store.found(group), store.found(further[place])
        whole = len(records) == len(group) and len(confirmed) == len(further[place])
        if not plan.confirm or not whole or all(record.status in FAILURES for record in records):
            continue
        if best := tuning.to_confirm(records, confirmed):
            seeds = plan.further_seeds(plan.study_of[best.seed])
            again = [best.model_copy(update={"seed": seed}) for seed in seeds]
            further[place] += again
            yield from again


def _choices(
    store: Store,
    groups: dict[Place, list[Trial]],
    further: dict[Place, list[Trial]],
    lost: Sequence[tuple[Trial, str]],
    say: Say,
) -> Iterator[Tuned]:
    """The choice of each study that has one; `say` is told why another has none."""
    for place, group in groups.items():
        task, rule, cell, study = place
        rule = with_cell(rule, cell)
        wanted = [*group, *further[place]]
        records, confirmed = store.found(group), store.found(further[place])
        if lacking := len(wanted) - len(records) - len(confirmed):
            why = next((f" ({why})" for trial, why in lost if trial in wanted), "")
            say(
                f"{task} {rule} {study}: not tuned: {lacking} points have no record: the "
                f"machine failed, and not the rule{why}; the same command runs them"
            )
        elif all(record.status in FAILURES for record in records):
            first = records[0]
            say(f"{task} {rule} {study}: not tuned: {first.status}: {first.status_detail}")
        else:
            tuned = tuning.choose(records, study, confirmed)
            if not tuned.beat_trivial:
                say(f"note: {task} {rule} {study}: {tuning.described(tuned)}")
            yield tuned
