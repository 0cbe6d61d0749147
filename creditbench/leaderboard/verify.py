"""A submitted rule, run again by whoever keeps the board: on seeds and tasks that its author cannot know.

For each task, cell, backend and set of conditions that the author's records have, the rule trains again with
the same settings: on the public task with other seeds, and on a hidden version of the task
(`creditbench.check.hidden`). Both are compared with the author's records, in normalised scores; a run that
diverged is at the floor of the scale (`board.LOW`).

    again     mean of the new runs − mean of the submitted ones
    hidden    the same on the hidden task, − the same difference of a reference rule, where its records are
              there: so a change of difficulty is taken out

Intervals are Welch's (Welch 1947), 95 %, over tuning studies with their runs, or without studies over runs. A
row *differs* if a mean lies more than `MARGIN` below 0 and its one-sided p is below 0.05 after Holm's
correction over all rows. *verified* says that no such difference was seen: the intervals say how much could
have been missed.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from creditbench import executors
from creditbench.check import hidden
from creditbench.errors import UsageError
from creditbench.leaderboard.board import HIGH, LOW
from creditbench.leaderboard.statistics import holm
from creditbench.leaderboard.versus import ALPHA, MARGIN, Contrast, contrast
from creditbench.machine import files
from creditbench.plugins import registry
from creditbench.plugins.importing import Plugin, embedded
from creditbench.results.measured import Verified, write_verified
from creditbench.results.runs import FAILURES, Bars, Where
from creditbench.results.shared import run_missing, with_description
from creditbench.results.store import Store, vocabulary_of
from creditbench.results.version import load
from creditbench.trials.grid import Options, resolve, user_path
from creditbench.trials.record import Record
from creditbench.trials.trial import CELL, Trial, with_cell

_SEEDS_FROM, _SEEDS_TO = 1 << 20, 1 << 31  # far from those that people give


@dataclass(frozen=True)
class _Place:
    """A task under the conditions of some submitted records."""

    submitted: tuple[Record, ...]
    reference: tuple[Record, ...]  #: records of the reference rule under the same conditions

    @property
    def trial(self) -> Trial:
        return self.submitted[0].trial


def verify(
    item: str,
    folders: Sequence[Path],
    secret: str,
    where: Where,
    output: Path,
    bars: Bars,
    say: Callable[[str], None],
    *,
    seeds: int,
    reference: str,
    tasks: Sequence[str] = (),
    timeout: float | None = None,
) -> list[Verified]:
    """Run a rule again, and compare: a row for each task, cell, backend and set of conditions.

    Args:
        item: path or id of the rule.
        folders: results with the author's records, and with the reference's.
        secret: from it come seeds, hidden parameters and channels.
        where: how the trials run, and the folder of their records and of the hidden tasks.
        output: folder of the rows, verified.csv, where `load` finds them.
        seeds: the most runs of each study, or of a rule without studies.
        reference: the rule whose change of score is taken out.
        tasks: those that are verified; all that have records if it is empty.
        timeout: seconds that a trial may take.

    Raises `UsageError`.
    """
    if not secret:
        raise UsageError("the secret is empty: give one with --secret, or as CREDITBENCH_SECRET")
    plugin = resolve("learners", item)
    places = _places(plugin, load(*folders, curves=False).records, reference, tasks, folders)
    store = Store(where.results)
    asked: list[tuple[_Place, list[Trial], list[Trial], list[Trial]]] = []
    moves: dict[str, Callable[[Trial], Trial]] = {}  #: by task and its parameters: to draw one may take long
    for place in places:
        kept = place.trial
        task = json.dumps([kept.task, kept.task_path, kept.task_parameters, kept.segment], sort_keys=True)
        own, others = (_repeated(records, seeds, secret) for records in (place.submitted, place.reference))
        again = [_now(trial, plugin) for trial in own]
        if task not in moves:
            moves[task] = _hidden(kept, secret, where.results, say)
        secretly = moves[task]
        asked.append((place, again, [secretly(trial) for trial in again], [secretly(t) for t in others]))
    trials = {trial.id: trial for _, *groups in asked for group in groups for trial in group}
    waiting = [trial for trial in trials.values() if not store.has(trial)]
    named = tuple({place.trial.task for place in places})
    executor = where.make(Options(tasks=named, learners=(item,), timeout=timeout))
    make = partial(executors.make_jobs, slots=executor.slots)
    with bars("trials", len(waiting)) as advance:
        new = run_missing(store, waiting, executor, make, say=say, describe=with_description)
        with contextlib.closing(new):
            for record, _ in new:
                trial = record.trial
                advance(f"{trial.task} {with_cell(trial.rule, trial.cell)} {trial.backend}: {record.status}")
    why = {trial.id: detail for trial, detail in executor.lost}
    for trial in trials.values():
        if not store.has(trial):
            raise UsageError(
                f"{trial.rule} on {trial.task} has no record: the machine failed, and not the rule "
                f"({why.get(trial.id) or 'see above'}); the same command runs it"
            )
    found = [
        _compare(plugin, place, reference, *(store.found(group) for group in groups))
        for place, *groups in asked
    ]
    rows = _judge(found)
    write_verified(output, rows)
    return rows


def _places(
    plugin: Plugin, records: Sequence[Record], reference: str, tasks: Sequence[str], folders: Sequence[Path]
) -> list[_Place]:
    """The records of the rule by the conditions under which they were made. Raises `UsageError`."""
    shown = ", ".join(map(str, folders))
    own = [record for record in records if record.trial.learner == plugin.id]
    if not own:
        raise UsageError(f"{shown} has no record of {plugin.id}: name the folder of the author's records")
    same = [record for record in own if record.trial.learner_sha256 == plugin.sha256]
    if not same:
        raise UsageError(
            f"the records of {plugin.id} in {shown} are of another source than {plugin.path} "
            f"({own[0].trial.learner_sha256[:10]}, and not {plugin.sha256[:10]}): name the file that they "
            "were made with"
        )
    if missing := sorted(set(tasks) - {record.trial.task for record in same}):
        raise UsageError(f"{shown} has no record of {plugin.id} on {missing[0]}: leave it out of --task")
    groups: dict[str, list[Record]] = {}
    for record in same:
        if record.status in ("ok", "diverged") and (not tasks or record.trial.task in tasks):
            groups.setdefault(_conditions(record.trial, record.trial.rule), []).append(record)
    if not groups:
        raise UsageError(f"no record of {plugin.id} in {shown} has a score: there is nothing to verify")
    beside: dict[str, list[Record]] = {}
    for record in records:
        if record.trial.rule == reference != plugin.id and record.status in ("ok", "diverged"):
            beside.setdefault(_conditions(record.trial, ""), []).append(record)
    return [
        _Place(tuple(group), tuple(beside.get(_conditions(group[0].trial, ""), ())))
        for _, group in sorted(groups.items())
    ]


def _conditions(trial: Trial, rule: str) -> str:
    return json.dumps([trial.task, trial.cell, trial.backend, rule, trial.conditions], sort_keys=True)


def _repeated(records: Iterable[Record], seeds: int, secret: str) -> list[Trial]:
    """As many trials of each family as it has records, at most `seeds`, with seeds of the secret."""
    families: dict[str, list[Trial]] = {}
    for record in records:
        families.setdefault(record.trial.family, []).append(record.trial)
    found = []
    for name, family in families.items():
        numbers = hidden.generator(secret, "seeds", name).integers(_SEEDS_FROM, _SEEDS_TO, len(family))
        found += [family[0].model_copy(update={"seed": int(n), "measure": False}) for n in numbers[:seeds]]
    return found


def _now(trial: Trial, plugin: Plugin) -> Trial:
    """The trial of the rule where it lies here, run through the code that is here."""
    here = trial.model_copy(update={"learner_path": user_path(plugin)})
    return here.model_copy(update={"vocabulary_sha256": vocabulary_of(here)})


def _hidden(trial: Trial, secret: str, folder: Path, say: Callable[[str], None]) -> Callable[[Trial], Trial]:
    """What moves a trial from the public task to its hidden version, a file that is written into `folder`."""
    plugin = registry.find("tasks", trial.task, [trial.task_path] if trial.task_path else [])
    task = plugin.cls(**trial.task_parameters)
    generated = not task.reads_data and embedded(plugin.path) is None
    drawn = hidden.draw(task, secret, generated)
    text = hidden.as_file(plugin, task, drawn)
    # Tasks of one id with other parameters are other hidden tasks.
    mark = f"{hidden.generator(secret, 'file', text).integers(1 << 62):016x}"
    path = folder.resolve() / "hidden" / f"{trial.task}_{mark}.py"
    with files.output("results folder", folder, "name another with --output"):
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write(path, text.encode())
    made = registry.find("tasks", f"{trial.task}_hidden", [str(path)])
    if generated and not drawn.changed:
        say(f"note: {trial.task} has no other parameters as difficult: its channels alone are hidden")
    steps = made.cls().sizes()[0] if trial.protocol == "episodes" else trial.segment

    def move(one: Trial) -> Trial:
        updates = -(-one.budget_steps // one.segment)
        segment = steps if one.protocol == "episodes" else one.segment
        values: dict[str, Any] = {
            "task": made.id,
            "task_path": str(path),
            "task_sha256": made.sha256,
            "task_parameters": {},
            "segment": segment,
            # As many updates: the steps of an episode may be others.
            "budget_steps": one.budget_steps if segment == one.segment else updates * segment,
        }
        return one.model_copy(update=values)

    return move


# -- comparison ------------------------------------------------------------------------------------------


def _compare(
    plugin: Plugin,
    place: _Place,
    reference: str,
    again: Sequence[Record],
    secretly: Sequence[Record],
    reference_secretly: Sequence[Record],
) -> tuple[Verified, dict[str, Contrast]]:
    """The row of a place, and what its verdict depends on, unless something failed."""
    trial = place.trial
    verdict: Literal["verified", "failed", "no scale"] = "verified"
    detail, tests = None, {}
    failed = next((record for record in (*again, *secretly) if record.status in FAILURES), None)
    groups = [_units(records) for records in (place.submitted, again, secretly)]
    submitted, repeated, hid = groups
    if failed is not None:
        verdict = "failed"
        where = "" if failed.trial.task == trial.task else "on the hidden task "
        detail = f"{where}{failed.status}: {failed.status_detail}"
    elif submitted is None or repeated is None or hid is None:
        verdict, detail = "no scale", "the task has no normalised score here"
    else:
        parts = [(1, hid), (-1, submitted)]
        before, after = _units(place.reference), _units(reference_secretly)
        if before is not None and after is not None and before.size and after.size:
            parts += [(1, before), (-1, after)]
        tests = {"again": contrast((1, repeated), (-1, submitted)), "hidden": contrast(*parts)}
    means = {
        name: None if group is None or not group.size else float(group.mean())
        for name, group in zip(("submitted", "again", "hidden"), groups, strict=True)
    }
    none = (None, None)
    ends = {
        f"{name}_{end}": value
        for name in ("again", "hidden")
        for end, value in zip(
            ("low", "high"), (tests[name].interval if name in tests else None) or none, strict=True
        )
    }
    row = Verified(
        learner=trial.rule,
        learner_sha256=plugin.sha256,
        cell=trial.cell or CELL,
        task=trial.task,
        backend=trial.backend,
        runs=len(place.submitted),
        runs_again=len(again),
        runs_hidden=len(secretly),
        reference=reference if reference_secretly else None,
        verdict=verdict,
        detail=detail,
        **means,
        **ends,
    )
    return row, tests


_NAMES = {"again": "new seeds", "hidden": "the hidden task"}


def _judge(found: Sequence[tuple[Verified, dict[str, Contrast]]]) -> list[Verified]:
    """The rows with their verdicts, after Holm's correction over the tests of all."""
    known = {
        (i, name): p
        for i, (_, tests) in enumerate(found)
        for name, one in tests.items()
        if (p := one.p(below=True)) is not None
    }
    corrected = dict(zip(known, holm(list(known.values())) if known else (), strict=True))
    rows = []
    for i, (row, tests) in enumerate(found):
        told = [
            f"{_NAMES[name]} {one.mean:+.3f} [{one.interval[0]:+.3f}, {one.interval[1]:+.3f}]"
            for name, one in tests.items()
            if one.interval and one.mean < -MARGIN and corrected[i, name] < ALPHA
        ]
        update = {"verdict": "differs", "detail": "; ".join(told)} if told else {}
        rows.append(row.model_copy(update=update))
    return rows


def _units(records: Sequence[Record]) -> np.ndarray | None:
    """Bounded scores: the mean of each study, or without studies each run's. None if a run has none."""
    groups: dict[str, list[float]] = {}
    for number, record in enumerate(records):
        score = LOW if record.status == "diverged" else record.normalised_score
        if record.status not in ("ok", "diverged") or score is None:
            return None
        groups.setdefault(record.trial.study or str(number), []).append(min(HIGH, max(LOW, score)))
    return np.array([np.mean(own) for own in groups.values()])
