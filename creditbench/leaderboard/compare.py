"""Two results of the same rules, A before and B after: what got better, worse, faster, slower, bigger, broken.

- *Score*: a permutation test over seeds within tasks and backends (`statistics.permutation_test`), a rule at a time,
  Holm-corrected over rules. For a rule that differs, its tasks are named with p values of their own, uncorrected.
- *Time*: log(B / A) of `ratio_forward`, which is itself taken from paired blocks, seed by seed; seeds that share one
  measurement count once. Where either side lacks it, `steps_per_second`, on the same processor only. The mean of a rule
  and backend has a t interval, its spread pooled over all of them, Holm-corrected. A change counts from `TOLERANCE`.
  On one processor `steps_per_second`, taken at another time, must have gone the same way by half of that at least.
- *Bytes and FLOPs* are counted, not sampled: any change beyond `EXACT` is told, in the median over tasks.
"""

from __future__ import annotations

import dataclasses
import math
import statistics as plain
from collections.abc import Mapping, Sequence
from typing import Any

from creditbench.errors import UsageError
from creditbench.leaderboard import statistics
from creditbench.leaderboard.board import Cell, make_cells
from creditbench.store import Results

ALPHA = 0.05
#: Least relative change of time that is told.
TOLERANCE = 0.1
#: Least relative change of what is counted.
EXACT = 1e-3
#: What a change for the worse is called.
REGRESSIONS = ("worse", "slower", "bigger", "more work", "broken", "gone")

Key = tuple[str, str, str]  #: rule, backend, device


@dataclasses.dataclass(frozen=True)
class Change:
    """One thing that differs between A and B."""

    kind: str  #: better, worse, faster, slower, smaller, bigger, less work, more work, mended, broken, new, gone
    rule: str
    backend: str  #: of a score, all that were compared, with commas between
    task: str | None  #: None: over all tasks
    quantity: str
    before: float | str | None
    after: float | str | None
    change: float | None  #: of a score, B − A in normalised units; else B / A − 1, None from 0
    low: float | None = None  #: 95 % interval of `change`
    high: float | None = None
    p: float | None = None  #: Holm-corrected; of a single task of a rule that differs, uncorrected


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What was compared, and what differs."""

    changes: tuple[Change, ...]
    compared: Mapping[str, int]  #: quantity -> figures of a rule that were held against each other
    notes: tuple[str, ...]

    @property
    def regressions(self) -> tuple[Change, ...]:
        return tuple(change for change in self.changes if change.kind in REGRESSIONS)


def compare(a: Results, b: Results, *, alpha: float = ALPHA, tolerance: float = TOLERANCE) -> Comparison:
    """What differs between `a` and `b`, where both ran the same rule on the same task, backend and device.

    Raises `UsageError` where they have nothing in common: a comparison of nothing finds nothing.
    """
    before, after = _cells(a), _cells(b)
    common = sorted(before.keys() & after.keys())
    if not common:
        raise UsageError(
            "the two results share no rule, backend, device and task: name two that ran the same grid"
        )
    changes, notes = [], []
    for place in sorted(after.keys() - before.keys()):
        changes.append(_presence("new", place, after[place]))
    for place in sorted(before.keys() - after.keys()):
        changes.append(_presence("gone", place, before[place]))
    settings = []
    for place in common:
        if changed := _settings(before[place], after[place]):
            settings.append(f"{' '.join(place[:2])} on {place[3]}: {', '.join(changed)}")
    if settings:
        shown = "; ".join(settings[:3]) + (f"; and {len(settings) - 3} more" if len(settings) > 3 else "")
        notes.append(f"settings differ: {shown}")
    changes += _failures(before, after, common)
    scored, scores = _scores(before, after, common, alpha)
    timed, times, time_notes = _times(before, after, common, alpha, tolerance)
    counted, counts = _counts(before, after, common)
    compared = {"score": scores, **times, **counts}
    return Comparison((*changes, *scored, *timed, *counted), compared, (*notes, *time_notes))


def _cells(results: Results) -> dict[tuple[str, str, str, str], Cell]:
    """The cell of each rule, backend, device and task. That sources have changed since is what is asked about."""
    return {(*key, task): cell for key, own in make_cells(results).items() for task, cell in own.items()}


def _presence(kind: str, place: tuple[str, str, str, str], cell: Cell) -> Change:
    before, after = (None, cell.status) if kind == "new" else (cell.status, None)
    return Change(kind, place[0], place[1], place[3], "trials", before, after, None)


def _settings(a: Cell, b: Cell) -> list[str]:
    """In what settings two cells differ, sources and seeds left out."""
    one, other = a.records[0].trial, b.records[0].trial
    left_out = {"seed", "task_sha256", "learner_sha256", "task_path", "learner_path", "measure"}
    x, y = (trial.model_dump(exclude=left_out) for trial in (one, other))
    return [f"{name} {x[name]} → {y[name]}" for name in x if x[name] != y[name]]


def _failures(before: Mapping[Any, Cell], after: Mapping[Any, Cell], common: Sequence[Any]) -> list[Change]:
    """Cells in which a larger or smaller share of seeds failed: crashed, timed out, were invalid or out of memory."""
    found = []
    for place in common:
        a, b = before[place], after[place]
        shares = [sum(r.status not in ("ok", "diverged") for r in c.records) / len(c.records) for c in (a, b)]
        if shares[0] != shares[1]:
            kind = "broken" if shares[1] > shares[0] else "mended"
            found.append(Change(kind, place[0], place[1], place[3], "trials", a.status, b.status, None))
    return found


def _scores(
    before: Mapping[Any, Cell], after: Mapping[Any, Cell], common: Sequence[Any], alpha: float
) -> tuple[list[Change], int]:
    rules: dict[str, list[Any]] = {}
    for place in common:
        if len(before[place].scores) and len(after[place].scores):
            rules.setdefault(place[0], []).append(place)
    strata = {
        rule: ([before[p].scores for p in places], [after[p].scores for p in places])
        for rule, places in rules.items()
    }
    adjusted = statistics.holm([statistics.permutation_test(y, x) for x, y in strata.values()])
    found = []
    for (rule, places), p in zip(rules.items(), adjusted, strict=True):
        if p > alpha:
            continue
        x, y = strata[rule]
        drawn = statistics.mean(statistics.resample(y, seed=1)) - statistics.mean(
            statistics.resample(x, seed=2)
        )
        low, high = statistics.percentiles(drawn, statistics.CONFIDENCE)
        means = float(statistics.mean(x)), float(statistics.mean(y))
        better = statistics.probability_of_improvement(y, x, draws=1).value > 0.5
        kind = "better" if better else "worse"
        backends = ",".join(sorted({place[1] for place in places}))
        found.append(
            Change(
                kind,
                rule,
                backends,
                None,
                "normalised_score",
                *means,
                means[1] - means[0],
                low,
                high,
                float(p),
            )
        )
        for place, one, other in zip(places, x, y, strict=True):
            alone = statistics.permutation_test([other], [one])
            won = statistics.wins(other, one).mean()
            if alone <= alpha and won != 0.5:
                kind = "better" if won > 0.5 else "worse"
                pair = float(one.mean()), float(other.mean())
                found.append(
                    Change(
                        kind, rule, place[1], place[3], "normalised_score", *pair, pair[1] - pair[0], p=alone
                    )
                )
    return found, len(rules)


def _times(
    before: Mapping[Any, Cell],
    after: Mapping[Any, Cell],
    common: Sequence[Any],
    alpha: float,
    tolerance: float,
) -> tuple[list[Change], dict[str, int], list[str]]:
    groups: dict[str, dict[Key, list[float]]] = {"ratio_forward": {}, "steps_per_second": {}}
    for place in common:
        for quantity, units in groups.items():
            pairs = _pairs(before[place], after[place], quantity)
            if pairs:
                # More steps a second are less time.
                sign = -1 if quantity == "steps_per_second" else 1
                logs = [sign * math.log(y / x) for x, y in sorted(pairs)]
                units.setdefault(place[:3], []).extend(logs)
                break
    trained: dict[Key, list[float]] = {}
    for place in common:
        pairs = _pairs(before[place], after[place], "steps_per_second")
        trained.setdefault(place[:3], []).extend(-math.log(y / x) for x, y in sorted(pairs))
    speeds = {key: plain.fmean(logs) for key, logs in trained.items() if logs}
    drift = plain.median(speeds.values()) if speeds else 0.0
    changes: list[Change] = []
    compared: dict[str, int] = {}
    notes = []
    for quantity, units in groups.items():
        if not units:
            continue
        compared[quantity] = len(units)
        fits = statistics.mean_interval(list(units.values()))
        adjusted = statistics.holm([fit["p"] for fit in fits])
        if not fits[0]["df"]:
            notes.append(
                f"{quantity}: one measurement a rule says nothing of its spread, so no time was tested: "
                "run more tasks or seeds"
            )
        for key, fit, p in zip(units, fits, adjusted, strict=True):
            change = math.expm1(fit["value"])
            if p > alpha or abs(fit["value"]) < math.log1p(tolerance):
                continue
            if quantity == "ratio_forward" and key in speeds:
                # Training itself is a second measurement, at another time: as it is, or less what all rules share.
                way = math.copysign(1.0, change)
                if max(way * speeds[key], way * (speeds[key] - drift)) < math.log1p(tolerance) / 2:
                    notes.append(
                        f"ratio_forward of {key[0]} {key[1]} changed by {change:+.0%}, and its steps a second did not "
                        "go along: measure again on a quieter machine"
                    )
                    continue
            values = []
            for cells in (before, after):
                own = [v for place in common if place[:3] == key for v in cells[place].values(quantity)]
                values.append(plain.median(own))
            changes.append(
                Change(
                    "slower" if change > 0 else "faster",
                    key[0],
                    key[1],
                    None,
                    quantity,
                    values[0],
                    values[1],
                    change,
                    math.expm1(fit["low"]),
                    math.expm1(fit["high"]),
                    float(p),
                )
            )
    if not compared:
        notes.append("no time was compared: ratio_forward is missing, and the processors differ")
    return changes, compared, notes


def _pairs(a: Cell, b: Cell, quantity: str) -> set[tuple[float, float]]:
    """Values of the same seeds, those that share one measurement once; empty where they cannot be compared."""
    one, other = ({r.trial.seed: r for r in cell.records} for cell in (a, b))
    pairs = set()
    for seed in one.keys() & other.keys():
        x, y = getattr(one[seed], quantity), getattr(other[seed], quantity)
        same = one[seed].environment.get("cpu") == other[seed].environment.get("cpu")
        if x and y and (quantity == "ratio_forward" or same):
            pairs.add((x, y))
    return pairs


def _counts(
    before: Mapping[Any, Cell], after: Mapping[Any, Cell], common: Sequence[Any]
) -> tuple[list[Change], dict[str, int]]:
    kinds = {"algorithm_bytes": ("smaller", "bigger"), "flops_per_step": ("less work", "more work")}
    changes, compared = [], {}
    for quantity, (down, up) in kinds.items():
        units: dict[Key, list[tuple[float, float]]] = {}
        for place in common:
            x, y = before[place].median(quantity), after[place].median(quantity)
            if x is not None and y is not None:
                units.setdefault(place[:3], []).append((x, y))
        if units:
            compared[quantity] = len(units)
        for key, pairs in units.items():
            ratio = plain.median(y / x if x else math.inf if y else 1.0 for x, y in pairs)
            if abs(ratio - 1) > EXACT:
                kind = up if ratio > 1 else down
                old, new = (plain.median(values) for values in zip(*pairs, strict=True))
                change = ratio - 1 if math.isfinite(ratio) else None
                changes.append(Change(kind, key[0], key[1], None, quantity, old, new, change))
    return changes, compared
