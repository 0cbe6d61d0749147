"""Tuning: equally many points of a declared space for every task and rule, judged on validation alone.

A *study* is one complete tuning of a rule on a task, with its own scrambled Sobol points and tuning seeds. In
one study all rules have the same points in the axes that they share, optimiser and learning rate. A rule's
own axes follow: `Learner.search`, and the decorrelation rate of a decorrelated cell. The studies of one
*draw* are independent of each other. So the spread of their results shows the effect of chance in tuning.

The best point has the best raw metric. A point that diverged is worse than any that did not. The best point
is trained at further tuning seeds before it is frozen. If it diverges at one of them, the next best takes its
place.
"""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from creditbench.errors import UsageError
from creditbench.machine import files
from creditbench.plugins import registry
from creditbench.plugins.importing import Plugin
from creditbench.trials.record import Record
from creditbench.trials.settings import cell_tuned, is_tuned_with, not_default, read_studies
from creditbench.trials.trial import CELL, Trial, with_cell

if TYPE_CHECKING:
    from creditbench.task import Task

#: Range of learning rates, by optimiser. Each optimiser has half of the points.
LEARNING_RATES = {"sgd": (1e-6, 1.0), "adam": (1e-5, 1e-1)}
DECORRELATION_RATES = (1e-5, 1e-1)
#: The first seed of tuning. No result uses seeds from here on.
FIRST_SEED = 1_000_000
_OWN_AXES = 5  # the most axes of a rule's own


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One point of a rule's space."""

    optimizer: str
    lr: float
    decorrelation_rate: float | None  #: None if the cell is not decorrelated
    hyperparameters: Mapping[str, float]  #: the rule's own axes


def study_seeds(draw: int, study: int, count: int) -> tuple[int, ...]:
    """The `count` tuning seeds of one study. No other study of any draw shares one.

    >>> study_seeds(0, 2, 2), study_seeds(1, 0, 1)
    ((1002000, 1002001), (1100000,))
    """
    first = FIRST_SEED + 100_000 * draw + 1000 * study
    return tuple(range(first, first + count))


def draw(
    axes: Mapping[str, tuple[float, float]], count: int, seed: Sequence[int], decorrelated: bool
) -> list[Candidate]:
    """`count` scrambled Sobol points: optimiser, learning rate, then `axes`.

    Rates and axes are log-uniform, rounded to three digits. `seed`: the numbers of draw and study. Raises
    `UsageError` for an axis with numbers that are not above 0.
    """
    # SciPy is slow to import.
    from scipy.stats import qmc

    for name, (low, high) in axes.items():
        if not 0 < low < high:
            raise UsageError(
                f"the search axis {name} goes from {low} to {high}: give two rising numbers above 0"
            )
    if len(axes) > _OWN_AXES:
        raise UsageError(f"the search axes are {', '.join(axes)}: a rule may have {_OWN_AXES}")
    # Draw all axes that a rule may have: the number of axes changes the points in each of them.
    # Sobol points are balanced in powers of two. The first `count` of the next power give no warning.
    sobol = qmc.Sobol(3 + _OWN_AXES, scramble=True, rng=np.random.default_rng(list(seed)))
    unit = sobol.random_base2(max(0, math.ceil(math.log2(count))))[:count]

    def within(u: float, bounds: tuple[float, float]) -> float:
        low, high = bounds
        return float(f"{low * (high / low) ** u:.3g}")

    points = []
    for row in unit:
        optimizer = list(LEARNING_RATES)[min(int(row[0] * len(LEARNING_RATES)), len(LEARNING_RATES) - 1)]
        own = {name: within(u, bounds) for u, (name, bounds) in zip(row[3:], axes.items(), strict=False)}
        rate = within(row[2], DECORRELATION_RATES) if decorrelated else None
        points.append(Candidate(optimizer, within(row[1], LEARNING_RATES[optimizer]), rate, own))
    return points


def trials_of(
    trial: Trial,
    points: Sequence[Candidate],
    optimizers: Mapping[str, Mapping[str, Any]],
    fixed: Collection[str] = (),
) -> list[Trial]:
    """The trial at each point; points that differ in nothing are one.

    Args:
        optimizers: parameters of optimisers that are not at their defaults.
        fixed: fields of the rule, or `lr`, that keep the trial's values.
    """
    found: dict[str, Trial] = {}
    for point in points:
        values: dict[str, Any] = {"optimizer": point.optimizer, "lr": point.lr}
        if "lr" in fixed:
            del values["lr"]
        values["optimizer_parameters"] = dict(optimizers.get(point.optimizer, {}))
        own = {name: value for name, value in point.hyperparameters.items() if name not in fixed}
        values["hyperparameters"] = trial.hyperparameters | own
        if point.decorrelation_rate is not None:
            values["decorrelation_rate"] = point.decorrelation_rate
        one = trial.model_copy(update=values)
        found.setdefault(one.id, one)
    return list(found.values())


def space(trial: Trial) -> dict[str, tuple[float, float]]:
    """The axes that a trial's rule declares: field -> (low, high)."""
    plugin = registry.find("learners", trial.learner, [trial.learner_path] if trial.learner_path else [])
    return dict(plugin.cls.search)


@dataclasses.dataclass(frozen=True)
class Tuned:
    """The result of one study for one task and rule."""

    task: str
    rule: str
    cell: str
    cell_parameters: Mapping[str, Any]  #: the constants of the cell that are not its defaults
    study: str  #: DRAW/STUDY
    values: Mapping[str, Any]  #: the best point, by the names of a tuned file
    metric: str
    #: the best point's metric on validation, mean over tuning seeds; None if every point diverged
    validation: float | None
    score: float | None  #: `validation` normalised: 0 is trivial, 1 is solved; None without such a scale
    beat_trivial: bool  #: whether the best point is better than the trivial predictor
    #: share of points at least halfway from trivial to the best; None if none beat trivial
    sensitivity: float | None
    points: int
    diverged: int  #: number of points that diverged at a seed
    train_seconds: float


class _Points:
    """The completed points of one task, rule and study, and their quality on validation.

    A point is judged by the mean over its seeds. A point that diverged at a seed is worse than any that did
    not. The larger the share of diverged seeds, the worse the point. A point that failed otherwise at a seed
    is left out. Among equal points the first counts. `confirmed` shows whether a point diverges at further
    seeds. It does not enter the metric: every point is judged at the same seeds.

    Raises `UsageError` if no point is left.
    """

    def __init__(self, records: Sequence[Record], confirmed: Sequence[Record]):
        first = records[0].trial
        self.families = _by_family(records)
        self.further = _by_family(confirmed)
        ended = [f for f, group in self.families.items() if all(r.status in _ENDED for r in group)]
        if not ended:
            raise UsageError(
                f"no point of {with_cell(first.rule, first.cell)} on {first.task} came to its end: see the "
                "records' status_detail"
            )
        plugin = registry.find("tasks", first.task, [first.task_path] if first.task_path else [])
        self.task = plugin.cls(**first.task_parameters)
        self.found = {family: self._judged(family) for family in ended}
        self.best = min(ended, key=self._badness)

    def _judged(self, family: str) -> tuple[float, float | None]:
        """(share of diverged seeds, mean metric on validation of the others)."""
        own = [_metric(record) for record in self.families[family]]
        known = [metric for metric in own if metric is not None]
        everywhere = own + [_metric(record) for record in self.further.get(family, ())]
        lost = sum(metric is None for metric in everywhere) / len(everywhere)
        return lost, statistics.fmean(known) if known else None

    def _badness(self, family: str) -> tuple[float, float]:
        lost, metric = self.found[family]
        sign = 1.0 if self.task.metric_direction == "min" else -1.0
        return lost, math.inf if metric is None else sign * metric


_ENDED = ("ok", "diverged")


def _by_family(records: Sequence[Record]) -> dict[str, list[Record]]:
    families: dict[str, list[Record]] = {}
    for record in records:
        families.setdefault(record.trial.family, []).append(record)
    return families


def _metric(record: Record) -> float | None:
    """The metric on validation; None if the trial did not end with one."""
    return record.validation_best if record.status == "ok" else None


def to_confirm(records: Sequence[Record], confirmed: Sequence[Record]) -> Trial | None:
    """A trial of the best point so far, if the point still has to be trained at further seeds.

    None if it was trained at them, or if it diverged: then no stable point is left. Arguments and errors: see
    `choose`.
    """
    points = _Points(records, confirmed)
    if points.best in points.further or points.found[points.best][0] > 0:
        return None
    return points.families[points.best][0].trial


def choose(records: Sequence[Record], study: str = "0/0", confirmed: Sequence[Record] = ()) -> Tuned:
    """The best point of the records of one task, rule and study, by the raw metric on validation.

    Args:
        records: the records of every point, at the same seeds.
        confirmed: records of some points at further seeds. They show whether a point diverges.

    Raises `UsageError` if no point was completed.
    """
    seen = _Points(records, confirmed)
    task, families = seen.task, seen.families
    lost, metric = seen.found[seen.best]
    chosen = families[seen.best]
    scales = [_scale(task, r.trial.seed, r.trial.batch) for r in chosen]
    trivial = statistics.fmean(t for t, _ in scales)
    solved = [s for _, s in scales if s is not None]
    beat = not lost and metric is not None and task.better(metric, trivial)
    half = None
    if beat and metric is not None:
        goal = (trivial + metric) / 2
        came = [
            m for lost, m in seen.found.values() if not lost and m is not None and not task.better(goal, m)
        ]
        half = len(came) / len(families)
    trial = chosen[0].trial
    values: dict[str, Any] = {"optimizer": trial.optimizer, "lr": trial.lr}
    if trial.decorrelate != "none":
        values["decorrelation_rate"] = trial.decorrelation_rate
    values |= {name: trial.hyperparameters[name] for name in space(trial)}
    return Tuned(
        task=trial.task,
        rule=trial.rule,
        cell=trial.cell,
        cell_parameters=not_default(_cell(trial), trial.cell_parameters),
        study=study,
        values=values,
        metric=task.metric,
        validation=metric,
        score=None
        if metric is None or len(solved) < len(scales)
        else task.normalise(metric, trivial, statistics.fmean(solved)),
        beat_trivial=beat,
        sensitivity=half,
        points=len(families),
        diverged=sum(lost > 0 for lost, _ in seen.found.values()),
        # Points trained in one program all have that program's time.
        train_seconds=sum((r.train_seconds or 0.0) / r.trained_together for r in (*records, *confirmed)),
    )


def _scale(task: Task, seed: int, batch: int) -> tuple[float, float | None]:
    """(trivial, solved) scores on the validation split of that seed."""
    validation = task.generate("validation", seed, batch)
    return task.trivial_score(validation), task.solved_score(validation)


def frozen(found: Sequence[Tuned], command: str) -> str:
    """The tuned file: a table `[[TASK.RULE]]` for each study, which `creditbench run --tuned` reads.

    It names the cell of each, unless this is the usual one, and its constants that are not the default.
    """
    lines = [
        "# Found on validation, with seeds of its own, with as many points for every rule. Made by:",
        "#",
        f"#   {' '.join(command.splitlines())}",
        "#",
        f"# {sum(t.points for t in found)} points, {sum(t.train_seconds for t in found):.0f} s of training "
        "in all.",
    ]

    def place(t: Tuned) -> tuple[Any, ...]:
        return t.task, t.rule, t.cell != CELL, t.cell, _table(t.cell_parameters), t.study

    for tuned in sorted(found, key=place):
        rule = tuned.rule if tuned.rule.replace("_", "").isalnum() else f'"{tuned.rule}"'
        lines += ["", f"# {described(tuned)}", f"[[{tuned.task}.{rule}]]", f'study = "{tuned.study}"']
        lines += [] if tuned.cell == CELL else [f'cell = "{tuned.cell}"']
        lines += [f"cell_parameters = {_table(tuned.cell_parameters)}"] if tuned.cell_parameters else []
        lines += [] if tuned.beat_trivial else ["beat_trivial = false"]
        lines += [f'{k} = "{v}"' if isinstance(v, str) else f"{k} = {v!r}" for k, v in tuned.values.items()]
    return "\n".join(lines) + "\n"


def _table(values: Mapping[str, Any]) -> str:
    """Values as an inline table of TOML, which has no null: `none` is its text."""
    inner = (f"{k} = {json.dumps('none' if v is None else v)}" for k, v in sorted(values.items()))
    return f"{{{', '.join(inner)}}}"


def _cell(trial: Trial) -> Plugin:
    return registry.find("cells", trial.cell, [trial.cell_path] if trial.cell_path else [])


@dataclasses.dataclass(frozen=True)
class Kept:
    """A tuned file that is added to."""

    text: str = ""
    studies: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]] = dataclasses.field(default_factory=dict)

    def has(self, trial: Trial, study: str) -> bool:
        """Whether it has that study of a trial's task, rule and cell, with the same constants of the cell."""
        return any(
            str(one.get("study")) == study and is_tuned_with(one, _cell(trial), trial.cell_parameters)
            for one in self.studies.get(trial.task, {}).get(trial.rule, ())
        )


def kept_studies(path: Path) -> Kept:
    """A tuned file. Raises `UsageError` if it cannot be read."""
    studies = read_studies(path)
    for task, rules in studies.items():
        for rule, tables in rules.items():
            for table in tables:
                cell_tuned(f"{task}.{rule} in {path}", table)
    return Kept(files.read(path, files.MOST_TEXT).decode("utf-8-sig"), studies)


def described(tuned: Tuned) -> str:
    """The result of a study, in one line."""
    if tuned.validation is None:
        return f"all {tuned.points} points diverged"
    parts = [f"{tuned.metric} {tuned.validation:.4g} on validation"]
    parts += [] if tuned.score is None else [f"score {tuned.score:.3f}"]
    if tuned.beat_trivial:
        parts.append(f"{tuned.sensitivity:.0%} of points come half as far")
    else:
        parts.append("no point beat trivial")
    parts += [f"{tuned.diverged} of {tuned.points} points diverged"] if tuned.diverged else []
    return "; ".join(parts)
