"""Tuning: the same number of points of a declared space for every task and rule, scored on validation alone.

Points are scrambled Sobol points, the same for every rule in the axes that all rules have: optimiser and learning rate.
A rule's own axes come after them: `Learner.search`, and the decorrelation rate of a decorrelated cell.
Tuning runs on one backend: the equations are the same on the other.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from creditbench import registry
from creditbench.errors import UsageError
from creditbench.record import Record
from creditbench.trial import Trial

#: Learning rates that are tried, by optimiser; half of the points go to each.
LEARNING_RATES = {"sgd": (1e-6, 1.0), "adam": (1e-5, 1e-1)}
DECORRELATION_RATES = (1e-5, 1e-1)
#: Tuning has seeds of its own, from this one on, which no result is made with.
FIRST_SEED = 1000
_OWN_AXES = 5  # at most, of a rule


@dataclasses.dataclass(frozen=True)
class Point:
    """One point of a rule's space."""

    optimizer: str
    lr: float
    decorrelation_rate: float | None  #: None: the cell is not decorrelated
    hyperparameters: Mapping[str, float]  #: the rule's own axes


def draw(axes: Mapping[str, tuple[float, float]], count: int, seed: int, decorrelated: bool) -> list[Point]:
    """`count` scrambled Sobol points: optimiser, log-uniform learning rate, then log-uniform `axes`, to three digits.

    Raises `UsageError` for an axis that is not one of numbers above 0.
    """
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
    sobol = qmc.Sobol(3 + _OWN_AXES, scramble=True, rng=seed)
    unit = sobol.random_base2(max(0, math.ceil(math.log2(count))))[:count]

    def within(u: float, bounds: tuple[float, float]) -> float:
        low, high = bounds
        return float(f"{low * (high / low) ** u:.3g}")

    points = []
    for row in unit:
        optimizer = list(LEARNING_RATES)[min(int(row[0] * len(LEARNING_RATES)), len(LEARNING_RATES) - 1)]
        own = {name: within(u, bounds) for u, (name, bounds) in zip(row[3:], axes.items(), strict=False)}
        rate = within(row[2], DECORRELATION_RATES) if decorrelated else None
        points.append(Point(optimizer, within(row[1], LEARNING_RATES[optimizer]), rate, own))
    return points


def trials_of(trial: Trial, points: Sequence[Point]) -> list[Trial]:
    """The trial at each point."""
    found = []
    for point in points:
        values: dict[str, Any] = {"optimizer": point.optimizer, "lr": point.lr}
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
    """What tuning found for one task and rule."""

    task: str
    rule: str
    values: Mapping[str, Any]  #: of the best point, by the names of a tuned file
    score: float  #: its normalised score on validation, mean over tuning seeds; 0 is trivial, 1 is solved
    sensitivity: (
        float | None
    )  #: share of points that reached half of the best score; None where none beat trivial
    points: int
    train_seconds: float


def choose(records: Sequence[Record]) -> Tuned:
    """The best point of the records of one task and rule, by their scores on validation.

    A seed that diverged counts as trivial, 0; a point of which a seed failed otherwise takes no part. Of equal points
    the first counts. Raises `UsageError` where no point is left.
    """
    first = records[0].trial
    task = registry.find("tasks", first.task, [first.task_path] if first.task_path else []).cls(
        **first.task_parameters
    )
    families: dict[str, list[Record]] = {}
    for record in records:
        families.setdefault(record.trial.family, []).append(record)
    scores: dict[str, float] = {}
    for family, group in families.items():
        if all(r.status in ("ok", "diverged") for r in group):
            scores[family] = statistics.fmean(
                0.0
                if r.status == "diverged" or r.validation_best is None
                else task.normalise(r.validation_best, task.trivial)
                for r in group
            )
    if not scores:
        raise UsageError(
            f"no point of {first.rule} on {first.task} came to its end: see the records' status_detail"
        )
    best = max(scores, key=scores.__getitem__)
    trial = families[best][0].trial
    values: dict[str, Any] = {"optimizer": trial.optimizer, "lr": trial.lr}
    if trial.decorrelate != "none":
        values["decorrelation_rate"] = trial.decorrelation_rate
    values |= {name: trial.hyperparameters[name] for name in space(trial)}
    half = sum(score >= scores[best] / 2 for score in scores.values()) / len(families)
    return Tuned(
        trial.task,
        trial.rule,
        values,
        scores[best],
        half if scores[best] > 0 else None,
        len(families),
        # Points that were one program have its time, all of them.
        sum((r.train_seconds or 0.0) / r.trained_together for r in records),
    )


def frozen(found: Sequence[Tuned], command: str) -> str:
    """The tuned file: a table `[TASK.RULE]` each, which `creditbench run --tuned` reads."""
    lines = [
        "# Found on validation, with seeds of its own, with as many points for every rule. Made by:",
        "#",
        f"#   {command}",
        "#",
        f"# {sum(t.points for t in found)} points, {sum(t.train_seconds for t in found):.0f} s of training in all.",
    ]
    for tuned in sorted(found, key=lambda t: (t.task, t.rule)):
        share = (
            "no point beat trivial"
            if tuned.sensitivity is None
            else f"{tuned.sensitivity:.0%} of points reach half of it"
        )
        rule = tuned.rule if tuned.rule.replace("_", "").isalnum() else f'"{tuned.rule}"'
        lines += ["", f"# score {tuned.score:.3f} on validation; {share}", f"[{tuned.task}.{rule}]"]
        lines += [f'{k} = "{v}"' if isinstance(v, str) else f"{k} = {v!r}" for k, v in tuned.values.items()]
    return "\n".join(lines) + "\n"
