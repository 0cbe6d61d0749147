"""Does a rule match a reference: final score, convergence and cost, task by task.

- *Score*: the difference of the mean normalised test scores, rule − reference; a run that diverged is at the
  floor of the scale (`board.LOW`). The independent *units* are tuning studies with their runs, or, without
  studies, runs. The means are those of the units' means, and the 95 % interval is Welch's over them (Welch
  1947): with S studies a side it has about 2 (S − 1) degrees of freedom, however many seeds each has. `p` is
  of the same t: it is below 0.05 where the interval excludes 0. `p_corrected` is Holm's; the family is the
  rows that were asked for.
- *Verdict*: `matches`: the interval lies within ± `margin`. `better`, `worse`: the corrected p is below 0.05.
  `better (raw)`, `worse (raw)`: the interval excludes 0, but only the uncorrected p is below 0.05.
  `undecided`: the interval contains 0. `undecided (one study)`, `(one run)`: there is no interval. A task
  without a scale is judged by its metric, signed so that higher is better, and never `matches`, since the
  margin is in normalised scores.
- *Convergence*: the level is `LEVEL` of the way from the validation score of untrained weights to the best
  one, both as means over the reference's runs. Steps and training seconds are counted until a run's
  validation score first reaches it. Medians over runs are shown, infinite if half of the runs or more never
  do. They are undefined if the reference does not improve. Seconds are compared on one machine alone.
- *Cost*: `step_time_ratio` is the time of a training step over the reference's, from `ratio_forward`; bytes
  are an update's.
"""

from __future__ import annotations

import dataclasses
import math
import statistics as plain
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from creditbench.errors import UsageError, unknown
from creditbench.leaderboard import statistics
from creditbench.leaderboard.board import LOW, Entry, make_cells
from creditbench.leaderboard.statistics import Array
from creditbench.results.version import Results
from creditbench.trials.record import Record

#: Part of the way from untrained weights to the reference's best at which a rule counts as converged.
LEVEL = 0.95
#: Difference of normalised scores that counts as none.
MARGIN = 0.05
ALPHA = 0.05
_SAME = 1e-9  # standard error of runs that differ by rounding alone


@dataclasses.dataclass(frozen=True)
class Versus:
    """A rule beside the reference on one task, backend and device."""

    task: str  #: the board's column: the task, and conditions in which its runs differ
    cell: str
    backend: str
    device: str
    rule: str
    seeds: int  #: runs
    studies: int  #: tuning studies of these runs; 0 if none are named
    metric: str
    score: float | None  #: mean of the test metric over runs that ended
    normalised: float | None  #: mean over units
    difference: float | None  #: rule − reference
    interval: tuple[float, float] | None  #: 95 %, uncorrected
    scale: str  #: scale of the difference: `normalised`, or the metric, signed so that higher is better
    p: float | None
    p_corrected: float | None  #: Holm's, over the rows of the answer
    #: reference, better, worse, better (raw), worse (raw), matches, undecided, or how its runs failed
    verdict: str
    reached: str | None  #: runs that reached the reference's level, of all
    steps: float | None  #: until then, median; infinite if it is never reached
    seconds: float | None
    steps_ratio: float | None  #: over the reference's
    seconds_ratio: float | None  #: None too if the reference was timed on another machine
    step_time_ratio: float | None  #: time of a training step over the reference's
    bytes_ratio: float | None  #: of algorithm bytes
    stale: str  #: why its numbers or the reference's may no longer hold; empty if they do


def versus(
    results: Results,
    reference: str = "bptt",
    level: float = LEVEL,
    margin: float = MARGIN,
    rules: Collection[str] = (),
    tasks: Collection[str] = (),
) -> list[Versus]:
    """Rules beside `reference`, under the same backend and device and the same conditions.

    `rules` and `tasks` (columns, or tasks with all their columns) select the rows; without names, all. p
    values are corrected for the selected rows. Raises `UsageError` if a name is not among the results, or
    `reference` was not run there.
    """
    cells = {
        (backend, device, task, rule): cell
        for (rule, backend, device), own in make_cells(results).items()
        for task, cell in own.items()
    }
    known = {place[3] for place in cells}
    for rule in (reference, *rules):
        if rule not in known:
            raise unknown("rule in these results", rule, sorted(known), "creditbench table")
    columns = {name for place, cell in cells.items() for name in (place[2], cell.records[0].trial.task)}
    for task in tasks:
        if task not in columns:
            raise unknown("task in these results", task, sorted(columns), "creditbench table")
    if not 0 < level <= 1:
        raise UsageError(
            f"level is {level}: give a part of the way to the reference's best, above 0 and up to 1"
        )
    if not margin > 0:
        raise UsageError(f"margin is {margin}: give a difference of normalised scores above 0")
    rows = []
    for place, cell in sorted(cells.items(), key=lambda item: (item[0][2], item[0][:2], item[0][3])):
        other = cells.get((*place[:3], reference))
        asked = not rules or place[3] in (reference, *rules)
        asked &= not tasks or bool({place[2], cell.records[0].trial.task} & set(tasks))
        if other is not None and asked:
            rows.append(_row(place, cell, other, reference, level))
    if not rows:
        raise UsageError(
            f"{reference} was not run beside {', '.join(rules) or 'any rule'} on {', '.join(tasks)}: "
            "name other tasks, or another --reference"
        )
    tested = [(i, row.p) for i, row in enumerate(rows) if row.p is not None]
    corrected = statistics.holm([p for _, p in tested])
    for (i, _), p in zip(tested, corrected, strict=True):
        rows[i] = dataclasses.replace(rows[i], p_corrected=float(p))
    return [dataclasses.replace(row, verdict=row.verdict or _verdict(row, margin)) for row in rows]


def _row(place: tuple[str, str, str, str], cell: Entry, other: Entry, reference: str, level: float) -> Versus:
    backend, device, task, rule = place
    first = cell.records[0]
    tests = cell.values("test_score")
    scaled = cell.normalises and other.normalises
    x, y = ([float(unit.mean()) for unit in (c.units if scaled else metrics(c))] for c in (cell, other))
    verdict, difference, interval, p = "", None, None, None
    if rule == reference:
        verdict = "reference"
    elif not x or not y:
        verdict = cell.status if not x else f"{reference}: {other.status}"
    elif not np.isfinite([*x, *y]).all() or (scaled and max(*x, *y) <= LOW):
        # Means without a scale are over runs that ended; if all runs of both diverged, there is no verdict.
        verdict = "; ".join(
            f"{whose}{c.status}"
            for whose, c in (("", cell), (f"{reference}: ", other))
            if any(r.status != "ok" for r in c.records)
        )
    else:
        difference, interval, p = welch(x, y)
        if interval is None:
            fewest = cell if len(x) < 2 else other
            verdict = f"undecided (one {'study' if fewest.studies else 'run'})"
    reached = steps = seconds = None
    ratios: tuple[float | None, float | None] = (None, None)
    goal = _level(other.records, level)
    if goal is not None:
        times = [_reach(record, goal) for record in cell.records]
        reached = f"{sum(math.isfinite(step) for step, _ in times)}/{len(times)}"
        steps, seconds = (plain.median_high(values) for values in zip(*times, strict=True))
        base = [plain.median_high(v) for v in zip(*(_reach(r, goal) for r in other.records), strict=True)]
        alike = cell.machine == other.machine
        ratios = _over(steps, base[0]), _over(seconds, base[1]) if alike else None
    return Versus(
        task,
        first.trial.cell,
        backend,
        device,
        rule,
        len(cell.records),
        cell.studies,
        first.metric,
        plain.fmean(tests) if tests else None,
        plain.fmean(x) if x and scaled else None,
        difference,
        interval,
        "normalised" if scaled else signed(cell),
        p,
        None,
        verdict,
        reached,
        steps,
        seconds,
        *ratios,
        _over(cell.median("ratio_forward"), other.median("ratio_forward")),
        _over(cell.median("algorithm_bytes"), other.median("algorithm_bytes")),
        cell.stale or other.stale,
    )


def signed(cell: Entry) -> str:
    """The name of its metric, with a minus where lower is better."""
    first = cell.records[0]
    return f"−{first.metric}" if first.metric_direction == "min" else first.metric


def metrics(cell: Entry) -> list[Array]:
    """Its test metrics by unit (`Entry.units`), signed so that higher is better; -inf for a diverged run."""
    units: dict[str, list[float]] = {}
    for record in cell.records:
        trial, sign = record.trial, -1.0 if record.metric_direction == "min" else 1.0
        ended = record.status == "ok" and record.test_score is not None
        if ended or record.status == "diverged":
            value = sign * float(record.test_score or 0.0) if ended else -math.inf
            units.setdefault(trial.study or f"seed {trial.seed}", []).append(value)
    return [np.array(units[name]) for name in sorted(units)]


class Contrast(NamedTuple):
    """A sum of signed means over units, with its standard error and Satterthwaite's degrees of freedom.

    Both are None if a group has a single unit: then there is no interval. Units without any spread differ
    with certainty or not at all.
    """

    mean: float
    error: float | None
    df: float | None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval (Welch 1947)."""
        # SciPy is slow to import.
        from scipy.stats import t

        if self.error is None or self.df is None:
            return None
        half = float(t.ppf((1 + statistics.CONFIDENCE) / 2, self.df)) * self.error if self.error else 0.0
        return self.mean - half, self.mean + half

    def p(self, below: bool = False) -> float | None:
        """The two-sided p of a sum of 0; with `below` the one-sided p of a sum that is not below 0."""
        # SciPy is slow to import.
        from scipy.stats import t

        if self.error is None or self.df is None:
            return None
        if self.error == 0.0:
            return float(self.mean > -_SAME if below else abs(self.mean) < _SAME)
        if below:
            return float(t.cdf(self.mean / self.error, self.df))
        return 2 * float(t.sf(abs(self.mean) / self.error, self.df))


def contrast(*parts: tuple[int, ArrayLike]) -> Contrast:
    """The sum of the means of groups of units, each with its sign."""
    groups = [(sign, np.asarray(group, np.float64)) for sign, group in parts]
    mean = sum(sign * float(np.mean(group)) for sign, group in groups)
    if min(len(group) for _, group in groups) < 2:
        return Contrast(mean, None, None)
    variances = [float(np.var(group, ddof=1)) / len(group) for _, group in groups]
    error = math.sqrt(sum(variances))
    if error < _SAME:
        return Contrast(mean, 0.0, 1.0)
    weights = (part**2 / (len(group) - 1) for part, (_, group) in zip(variances, groups, strict=True))
    return Contrast(mean, error, error**4 / sum(weights))


def welch(x: ArrayLike, y: ArrayLike) -> tuple[float, tuple[float, float] | None, float | None]:
    """Mean of x [m] − mean of y [n], its 95 % interval, and the two-sided p of no difference (Welch 1947)."""
    found = contrast((1, x), (-1, y))
    return found.mean, found.interval, found.p()


def _verdict(row: Versus, margin: float) -> str:
    if row.interval is None or row.p is None or row.p_corrected is None or row.difference is None:
        return "undecided"
    if row.scale == "normalised" and -margin <= row.interval[0] and row.interval[1] <= margin:
        return "matches"
    if row.p >= ALPHA:
        return "undecided"
    way = "better" if row.difference > 0 else "worse"
    return way if row.p_corrected < ALPHA else f"{way} (raw)"


def described(rows: Sequence[Versus]) -> list[str]:
    """Notes on the rows: how many the p values are corrected for, and the meaning of the verdicts."""
    tested = sum(row.p is not None for row in rows)
    found = [
        f"intervals are 95 % each, p is of one row, p corrected of all {tested} that are compared here "
        "(Holm); (raw): p below 0.05, corrected not"
    ]
    units = sorted({row.task for row in rows if row.scale != "normalised"})
    if units:
        found.append(
            f"differences on {', '.join(units)} are of the metric, signed so that higher is better: "
            "there is no scale"
        )
    if any(row.studies for row in rows):
        found.append("where a rule was tuned in studies, the interval is over their means")
    return found


def _level(records: Sequence[Record], part: float) -> float | None:
    """The level in units of the metric; None if training does not improve the validation score."""
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
    """(steps, training seconds) until the validation score first reaches the level; infinite if never."""
    for point in record.curve:
        if point.validation is not None:
            below = point.validation <= level
            if below if record.metric_direction == "min" else point.validation >= level:
                return float(point.step), point.seconds
    return math.inf, math.inf


def _over(value: Sequence[float] | float | None, base: float | None) -> float | None:
    """value / base; None if either is missing, or if `base` is 0 or infinite."""
    if value is None or base is None or not base or math.isinf(base):
        return None
    return float(value) / base  # type: ignore[arg-type]
