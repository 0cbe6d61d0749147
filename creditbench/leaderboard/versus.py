"""Does a rule match a reference: final score, convergence and cost, task by task.

- *Score*: the difference of the mean normalised test scores, rule − reference, with Welch's 95 % t interval over seeds
  (Welch 1947); p values are Holm-corrected over all rows. `matches`: the interval lies within ± `margin`. `better`,
  `worse`: the corrected p is below 0.05. Else `undecided`: the seeds cannot tell.
- *Convergence*: the level is `LEVEL` of the way from the validation score of untrained weights to the best one, both as
  means over the reference's seeds. Steps and training seconds until a seed's validation score first reaches it; medians
  over seeds, infinite where half of the seeds or more never do. Undefined where the reference does not improve.
- *Cost*: `ratio` is the time of a training step over the reference's, from `ratio_forward`; bytes are an update's.
"""

from __future__ import annotations

import dataclasses
import math
import statistics as plain
from collections.abc import Sequence

import numpy as np

from creditbench.errors import UsageError, unknown
from creditbench.leaderboard import statistics
from creditbench.leaderboard.board import Cell, make_cells
from creditbench.leaderboard.statistics import Array
from creditbench.record import Record
from creditbench.store import Results

#: Part of the way from untrained weights to the reference's best at which a rule counts as having converged to it.
LEVEL = 0.95
#: Difference of normalised scores that is as good as none.
MARGIN = 0.05
ALPHA = 0.05
_SAME = 1e-9  # standard error of runs that differ by rounding alone


@dataclasses.dataclass(frozen=True)
class Row:
    """A rule beside the reference on one task, backend and device."""

    task: str
    backend: str
    device: str
    rule: str
    seeds: int
    metric: str
    score: float | None  #: mean of the test metric over seeds that ended
    normalised: float | None
    difference: float | None  #: of normalised scores, rule − reference
    interval: tuple[float, float] | None  #: 95 %
    p: float | None  #: Holm-corrected
    verdict: str  #: reference, better, worse, matches, undecided, or how its seeds failed
    reached: str | None  #: seeds that reached the reference's level, of all
    steps: float | None  #: until then, median; infinite where it is never reached
    seconds: float | None
    steps_ratio: float | None  #: over the reference's
    seconds_ratio: float | None
    step_time_ratio: float | None  #: time of a training step over the reference's
    bytes_ratio: float | None  #: of algorithm bytes
    stale: str  #: why its numbers or the reference's may no longer hold; empty where they do


def versus(
    results: Results, reference: str = "bptt", level: float = LEVEL, margin: float = MARGIN
) -> list[Row]:
    """Every rule beside `reference`, under the same backend and device. Raises `UsageError` where it was not run."""
    cells = {
        (backend, device, task, rule): cell
        for (rule, backend, device), own in make_cells(results).items()
        for task, cell in own.items()
    }
    rules = {place[3] for place in cells}
    if reference not in rules:
        raise unknown("rule in these results", reference, sorted(rules), "creditbench table")
    if not 0 < level <= 1:
        raise UsageError(
            f"level is {level}: give a part of the way to the reference's best, above 0 and up to 1"
        )
    if not margin > 0:
        raise UsageError(f"margin is {margin}: give a difference of normalised scores above 0")
    rows = []
    for place, cell in sorted(cells.items(), key=lambda item: (item[0][2], item[0][:2], item[0][3])):
        other = cells.get((*place[:3], reference))
        if other is not None:
            rows.append(_row(place, cell, other, reference, level))
    tested = [(i, row.p) for i, row in enumerate(rows) if row.p is not None]
    if tested:
        for (i, _), p in zip(tested, statistics.holm([p for _, p in tested]), strict=True):
            rows[i] = dataclasses.replace(rows[i], p=float(p))
    return [dataclasses.replace(row, verdict=row.verdict or _verdict(row, margin)) for row in rows]


def _row(place: tuple[str, str, str, str], cell: Cell, other: Cell, reference: str, level: float) -> Row:
    backend, device, task, rule = place
    first = cell.records[0]
    tests = cell.values("test_score")
    verdict, difference, interval, p = "", None, None, None
    if rule == reference:
        verdict = "reference"
    elif not len(cell.scores) or not len(other.scores):
        verdict = cell.status if not len(cell.scores) else f"{reference}: {other.status}"
    else:
        difference, interval, p = welch(cell.scores, other.scores)
    reached = steps = seconds = None
    ratios: tuple[float | None, float | None] = (None, None)
    goal = _level(other.records, level)
    if goal is not None:
        times = [_reach(record, goal) for record in cell.records]
        reached = f"{sum(math.isfinite(step) for step, _ in times)}/{len(times)}"
        steps, seconds = (plain.median_high(values) for values in zip(*times, strict=True))
        base = [plain.median_high(v) for v in zip(*(_reach(r, goal) for r in other.records), strict=True)]
        ratios = _over(steps, base[0]), _over(seconds, base[1])
    return Row(
        task,
        backend,
        device,
        rule,
        len(cell.records),
        first.metric,
        plain.fmean(tests) if tests else None,
        float(cell.scores.mean()) if len(cell.scores) else None,
        difference,
        interval,
        p,
        verdict,
        reached,
        steps,
        seconds,
        *ratios,
        _over(cell.median("ratio_forward"), other.median("ratio_forward")),
        _over(cell.median("algorithm_bytes"), other.median("algorithm_bytes")),
        cell.stale or other.stale,
    )


def welch(x: Array, y: Array) -> tuple[float, tuple[float, float] | None, float | None]:
    """Mean of x [m] − mean of y [n], its 95 % interval, and the two-sided p of no difference (Welch 1947).

    Interval and p are None for a single run on either side. Runs without any spread differ for certain or not at all.
    """
    from scipy.stats import t

    difference = float(np.mean(x) - np.mean(y))
    if min(len(x), len(y)) < 2:
        return difference, None, None
    parts = [float(np.var(a, ddof=1)) / len(a) for a in (x, y)]
    error = math.sqrt(sum(parts))
    if error < _SAME:
        return difference, (difference, difference), float(abs(difference) < _SAME)
    df = error**4 / sum(part**2 / (len(a) - 1) for part, a in zip(parts, (x, y), strict=True))
    half = float(t.ppf((1 + statistics.CONFIDENCE) / 2, df)) * error
    return difference, (difference - half, difference + half), 2 * float(t.sf(abs(difference) / error, df))


def _verdict(row: Row, margin: float) -> str:
    if row.interval is None or row.p is None or row.difference is None:
        return "undecided"
    if -margin <= row.interval[0] and row.interval[1] <= margin:
        return "matches"
    if row.p < ALPHA:
        return "better" if row.difference > 0 else "worse"
    return "undecided"


def _level(records: Sequence[Record], part: float) -> float | None:
    """The level in units of the metric; None where training does not better the validation score."""
    ends = [
        (record.curve[0].validation, record.validation_best)
        for record in records
        if record.curve and record.validation_best is not None
    ]
    pairs = [(start, best) for start, best in ends if start is not None]
    if not pairs:
        return None
    start, best = (plain.fmean(values) for values in zip(*pairs, strict=True))
    betters = best < start if records[0].metric_direction == "min" else best > start
    return start + part * (best - start) if betters else None


def _reach(record: Record, level: float) -> tuple[float, float]:
    """(steps, training seconds) until the validation score first reaches the level; infinite where it does not."""
    for point in record.curve:
        if point.validation is not None:
            below = point.validation <= level
            if below if record.metric_direction == "min" else point.validation >= level:
                return float(point.step), point.seconds
    return math.inf, math.inf


def _over(value: Sequence[float] | float | None, base: float | None) -> float | None:
    """value / base; None where either is missing, 0 or both are infinite."""
    if value is None or base is None or not base or math.isinf(base):
        return None
    return float(value) / base  # type: ignore[arg-type]
