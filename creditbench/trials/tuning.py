"""Tuning: the same number of points of a declared space for every task and rule, judged on validation alone.

A *study* is one whole tuning of a rule on a task: scrambled Sobol points and tuning seeds of its own. In one
study the points are the same for every rule in the axes that all rules have, optimiser and learning rate; a
rule's own axes come after them: `Learner.search`, and the decorrelation rate of a decorrelated cell. Studies
of one *draw* are independent of each other, so that results made with each of them show what chance does in
tuning.

The best point is that of the best raw metric. A point that diverged is worse than any that did not. The best
one is trained at further tuning seeds before it is frozen: where it diverges at one of them, the next best
takes its place.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from creditbench.errors import UsageError
from creditbench.machine import files
from creditbench.plugins import registry
from creditbench.trials.record import Record
from creditbench.trials.settings import read_studies
from creditbench.trials.trial import Trial

if TYPE_CHECKING:
    from creditbench.task import Task

#: Learning rates that are tried, by optimiser; half of the points go to each.
LEARNING_RATES = {"sgd": (1e-6, 1.0), "adam": (1e-5, 1e-1)}
DECORRELATION_RATES = (1e-5, 1e-1)
#: Tuning has seeds of its own, from this one on, which no result is made with.
FIRST_SEED = 1_000_000
_OWN_AXES = 5  # at most, of a rule


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One point of a rule's space."""

    optimizer: str
    lr: float
    decorrelation_rate: float | None  #: None: the cell is not decorrelated
    hyperparameters: Mapping[str, float]  #: the rule's own axes


def study_seeds(draw: int, study: int, count: int) -> tuple[int, ...]:
    """The tuning seeds of one study, `count` of them; no other study of any draw has one of them.

    >>> study_seeds(0, 2, 2), study_seeds(1, 0, 1)
    ((1002000, 1002001), (1100000,))
    """
    first = FIRST_SEED + 100_000 * draw + 1000 * study
    return tuple(range(first, first + count))


def draw(
    axes: Mapping[str, tuple[float, float]], count: int, seed: Sequence[int], decorrelated: bool
) -> list[Candidate]:
    """`count` scrambled Sobol points: optimiser, log-uniform learning rate, then log-uniform `axes`, to three digits.

    `seed`: those of draw and study.
    Raises `UsageError` for an axis that is not one of numbers above 0.
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
    # All axes that a rule may have are drawn, since their number changes the points in every one of them.
    # Balanced in powers of two: the first ones of the next power, so that no warning is due.
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
    trial: Trial, points: Sequence[Candidate], optimizers: Mapping[str, Mapping[str, Any]]
) -> list[Trial]:
    """The trial at each point. `optimizers`: parameters of optimisers that are not at their defaults."""
    found = []
    for point in points:
        values: dict[str, Any] = {"optimizer": point.optimizer, "lr": point.lr}
        values["optimizer_parameters"] = dict(optimizers.get(point.optimizer, {}))
        values["hyperparameters"] = trial.hyperparameters | dict(point.hyperparameters)
        if point.decorrelation_rate is not None:
            values["decorrelation_rate"] = point.decorrelation_rate
        found.append(trial.model_copy(update=values))
    return found


def space(trial: Trial) -> dict[str, tuple[float, float]]:
    """The axes that a trial's rule declares of its own: field -> (low, high)."""
    plugin = registry.find("learners", trial.learner, [trial.learner_path] if trial.learner_path else [])
    return dict(plugin.cls.search)


@dataclasses.dataclass(frozen=True)
class Tuned:
    """What one study found for one task and rule."""

    task: str
    rule: str
    study: str  #: DRAW/STUDY
    values: Mapping[str, Any]  #: of the best point, by the names of a tuned file
    metric: str
    validation: (
        float | None
    )  #: its metric on validation, mean over tuning seeds; None where every point diverged
    score: float | None  #: the same normalised: 0 is trivial, 1 is solved; None where there is no such scale
    beat_trivial: bool  #: whether it is better than the trivial predictor
    sensitivity: (
        float | None
    )  #: share of points that came half of the way from trivial to the best; None where none beat trivial
    points: int
    diverged: int  #: points of which a seed diverged
    train_seconds: float


class _Points:
    """The points of one task, rule and study that came to their end, and how good each is on validation.

    A point is judged by the mean over its seeds. One of which a seed diverged is worse than any of which none
    did, and the worse the larger their share; one of which a seed failed otherwise takes no part. Of equal
    points the first counts. `confirmed` tells whether a point diverges at further seeds, and is no part of
    its metric: every point is judged at the same seeds.

    Raises `UsageError` where no point is left.
    """

    def __init__(self, records: Sequence[Record], confirmed: Sequence[Record]):
        first = records[0].trial
        self.families = _by_family(records)
        self.further = _by_family(confirmed)
        ended = [f for f, group in self.families.items() if all(r.status in _ENDED for r in group)]
        if not ended:
            raise UsageError(
                f"no point of {first.rule} on {first.task} came to its end: see the records' status_detail"
            )
        plugin = registry.find("tasks", first.task, [first.task_path] if first.task_path else [])
        self.task = plugin.cls(**first.task_parameters)
        self.found = {family: self._judged(family) for family in ended}
        self.best = min(ended, key=self._badness)

    def _judged(self, family: str) -> tuple[float, float | None]:
        """(share of seeds that diverged, mean metric on validation of the others)."""
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
    """The metric on validation; None where the trial did not come to its end with one."""
    return record.validation_best if record.status == "ok" else None


def to_confirm(records: Sequence[Record], confirmed: Sequence[Record]) -> Trial | None:
    """A trial of the point that is the best so far, if it has to be trained at further seeds before it is frozen.

    None: it was trained at them, or it diverged, so that no stable point is left. Arguments and errors: see
    `choose`.
    """
    points = _Points(records, confirmed)
    if points.best in points.further or points.found[points.best][0] > 0:
        return None
    return points.families[points.best][0].trial


def choose(records: Sequence[Record], study: str = "0/0", confirmed: Sequence[Record] = ()) -> Tuned:
    """The best point of the records of one task, rule and study, by the raw metric on validation.

    Args:
        records: those of every point, at the same seeds.
        confirmed: those of some of the points at further seeds, which tell whether a point diverges.

    Raises `UsageError` where no point came to its end.
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
        # Points that were one program have its time, all of them.
        train_seconds=sum((r.train_seconds or 0.0) / r.trained_together for r in (*records, *confirmed)),
    )


def _scale(task: Task, seed: int, batch: int) -> tuple[float, float | None]:
    """What is trivial and what is solved on the validation split of that seed."""
    validation = task.generate("validation", seed, batch)
    return task.trivial_score(validation), task.solved_score(validation)


def frozen(found: Sequence[Tuned], command: str) -> str:
    """The tuned file: a table `[[TASK.RULE]]` for each study, which `creditbench run --tuned` reads."""
    lines = [
        "# Found on validation, with seeds of its own, with as many points for every rule. Made by:",
        "#",
        f"#   {' '.join(command.splitlines())}",
        "#",
        f"# {sum(t.points for t in found)} points, {sum(t.train_seconds for t in found):.0f} s of training in all.",
    ]
    for tuned in sorted(found, key=lambda t: (t.task, t.rule, t.study)):
        rule = tuned.rule if tuned.rule.replace("_", "").isalnum() else f'"{tuned.rule}"'
        lines += ["", f"# {described(tuned)}", f"[[{tuned.task}.{rule}]]", f'study = "{tuned.study}"']
        lines += [] if tuned.beat_trivial else ["beat_trivial = false"]
        lines += [f'{k} = "{v}"' if isinstance(v, str) else f"{k} = {v!r}" for k, v in tuned.values.items()]
    return "\n".join(lines) + "\n"


def kept_studies(path: Path) -> tuple[str, set[tuple[str, str, str]]]:
    """The text of a tuned file, and what it has: (task, rule, study). Raises `UsageError` where it cannot be read."""
    found = {
        (task, rule, str(study["study"]))
        for task, rules in read_studies(path).items()
        for rule, studies in rules.items()
        for study in studies
        if "study" in study
    }
    return files.read(path, files.MOST_TEXT).decode("utf-8-sig"), found


def described(tuned: Tuned) -> str:
    """What a study found, in a line."""
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
