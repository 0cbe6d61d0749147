"""The statistics of the leaderboard: numbers from arrays, separate from tables and plots.

A rule's scores are M *strata*, one a task. A stratum is a list of *units*: runs that share a tuning study, an
array [n] each. If a rule was not tuned in studies, every run is a unit of its own, [1]. Runs of one study
have the same hyper-parameters, so they are not independent: all of them share the chance of its tuning.

Aggregates follow Agarwal et al. 2021 (NeurIPS, *Deep reinforcement learning at the edge of the statistical
precipice*), profiles Dolan & Moré 2002 (doi:10.1007/s101070100263), ranks Demšar 2006 (JMLR 7, 1–30). The
bootstrap of clustered runs draws one unit fewer than there are (McCarthy & Snowden 1985; Rao & Wu 1988,
doi:10.1080/01621459.1988.10478591); otherwise few units would seem to agree better than they do. Its
percentiles are widened from the normal distribution's to Student's (Hesterberg 2015,
doi:10.1080/00031305.2015.1089789).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Stratum = Sequence[ArrayLike]  #: U units, arrays [n_u]
Strata = Sequence[Stratum]  #: M of them
Drawn = NDArray[np.unsignedinteger[Any]]
Aggregate = Callable[..., Array]  #: M arrays [runs] -> []; with M weights [draws, runs] -> [draws]

DRAWS = 10_000
CONFIDENCE = 0.95
_AT_ONCE = 1 << 20  # weights


class Interval(NamedTuple):
    """A figure and its interval."""

    value: float
    low: float
    high: float


# -- aggregates ------------------------------------------------------------------------------------------


def interquartile_mean(strata: Sequence[Array], weights: Sequence[Array] | None = None) -> Array:
    """Mean of the middle half of all runs of all tasks: M arrays [S_m] -> [].

    ⌊N/4⌋ of N = Σ S_m runs are left out at each end. With weights, M arrays [draws, S_m] -> [draws]: the same
    part of the total weight is left out at each end.
    """
    runs = np.concatenate(strata)
    order = np.argsort(runs, kind="stable")
    part = len(runs) // 4 / len(runs)
    weight = np.ones(len(runs)) if weights is None else np.concatenate(weights, axis=-1)
    upto = np.cumsum(weight[..., order], axis=-1)
    total = upto[..., -1:]
    inside = np.clip(upto, part * total, (1 - part) * total)
    kept = np.diff(inside, axis=-1, prepend=part * total)
    return np.asarray((kept @ runs[order]) / kept.sum(-1), np.float64)


def _means(strata: Sequence[Array], weights: Sequence[Array] | None) -> Array:
    """The mean of each task, [M] or [M, draws]."""
    if weights is None:
        return np.array([runs.mean() for runs in strata])
    return np.stack([(w @ runs) / w.sum(-1) for runs, w in zip(strata, weights, strict=True)])


def median(strata: Sequence[Array], weights: Sequence[Array] | None = None) -> Array:
    """Median over tasks of the mean over runs: M arrays [S_m] -> []; with weights [draws, S_m] -> [draws]."""
    return np.asarray(np.median(_means(strata, weights), axis=0), np.float64)


def mean(strata: Sequence[Array], weights: Sequence[Array] | None = None) -> Array:
    """Mean over tasks of the mean over runs: M arrays [S_m] -> []; with weights [draws, S_m] -> [draws]."""
    return np.asarray(np.mean(_means(strata, weights), axis=0), np.float64)


def optimality_gap(
    strata: Sequence[Array], weights: Sequence[Array] | None = None, optimum: float = 1.0
) -> Array:
    """The mean shortfall of runs from `optimum`, 0 for a run above it; shapes as in `mean`."""
    return np.asarray(optimum - mean([np.minimum(runs, optimum) for runs in strata], weights), np.float64)


AGGREGATES: dict[str, Aggregate] = {
    "iqm": interquartile_mean,
    "median": median,
    "mean": mean,
    "optimality_gap": optimality_gap,
}


def pooled(stratum: Stratum) -> Array:
    """All runs of a stratum, [runs]."""
    return np.concatenate([np.atleast_1d(np.asarray(unit, np.float64)) for unit in stratum])


def resample(stratum: Stratum, draws: int, rng: np.random.Generator) -> Array:
    """Bootstrap of the units of a stratum: the weight of each run in each draw, [draws, runs].

    A draw takes U - 1 of the U units, with replacement, and each with all of its runs. The spread of the
    units' means includes the spread within them, so drawing runs anew within a unit would count it twice.
    Weights are scaled by U / (U - 1), so that a task has the same weight in a draw as in the value.
    """
    return _weights(stratum, _drawn(len(stratum), draws, rng))


def _drawn(units: int, draws: int, rng: np.random.Generator) -> Drawn:
    """How often each of U units is in each draw, [draws, U]."""
    chances = np.full(units, 1 / units)
    parts = []
    for part in _parts(draws, units):  # one after another they are the same draws as all at once
        drawn = rng.multinomial(max(1, units - 1), chances, size=part.stop - part.start)
        parts.append(drawn.astype(np.min_scalar_type(drawn.max())))  # mostly a byte in place of eight
    return np.concatenate(parts)


class Draws:
    """Draws of the units of strata, one stratum after another.

    They depend on the numbers of units alone. Those of the last strata are kept for the next rule, which
    mostly has as many units: drawing takes most of the time of a bootstrap of many runs.
    """

    def __init__(self, draws: int = DRAWS, seed: int = 0) -> None:
        self.draws = draws
        self._rng = np.random.default_rng(seed)
        self._start = self._rng.bit_generator.state
        self._kept: list[tuple[int, Drawn, Any]] = []  #: units, their draws, the generator's state after them

    def of(self, strata: Strata) -> list[Drawn]:
        """How often each unit is in each draw: M strata -> M arrays [draws, U]."""
        counts = list(map(len, strata))
        kept = [units for units, _, _ in self._kept]
        same = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(counts, kept, strict=False))))
        if same < len(counts):
            del self._kept[same:]
            self._rng.bit_generator.state = self._kept[-1][2] if self._kept else self._start
            for units in counts[same:]:
                drawn = _drawn(units, self.draws, self._rng)
                self._kept.append((units, drawn, self._rng.bit_generator.state))
        return [drawn for _, drawn, _ in self._kept[: len(counts)]]


def _weights(stratum: Stratum, drawn: Drawn) -> Array:
    """The weight of each run in draws of units: [draws, U] -> [draws, runs]."""
    sizes, units = [np.size(unit) for unit in stratum], len(stratum)
    return np.repeat(drawn, sizes, axis=1).astype(np.float64) * (units / max(1, units - 1))


def _parts(draws: int, runs: int) -> Iterator[slice]:
    """Draws in parts of some megabytes of weights each, for any number of runs."""
    step = max(1, _AT_ONCE // max(1, runs))
    yield from (slice(first, min(draws, first + step)) for first in range(0, draws, step))


def degrees(strata: Strata) -> float:
    """Degrees of freedom of the spread between units; 0 if a stratum has a single unit.

    Those of the mean over strata, after Satterthwaite 1946 (doi:10.2307/3002019): (Σ v)² / Σ v² / (U - 1), v
    = s² / U of the means of a stratum's units. Σ (U - 1) if no stratum has a spread.
    """
    free = np.array([len(stratum) - 1 for stratum in strata])
    if not free.all():
        return 0.0
    means = [np.array([np.asarray(unit, np.float64).mean() for unit in stratum]) for stratum in strata]
    v = np.array([np.var(own, ddof=1) / len(own) for own in means])
    squares = float((v**2 / free).sum())
    return float(v.sum()) ** 2 / squares if squares > 0 else float(free.sum())


def aggregates(
    strata: Strata, draws: int | Draws = DRAWS, confidence: float = CONFIDENCE, seed: int = 0
) -> dict[str, Interval]:
    """Each of `AGGREGATES` of M strata, with its interval from one stratified bootstrap.

    The interval is infinite if a stratum has a single unit: its spread is unknown. `draws`: the number, or
    draws of another rule, which has its own seed. Raises ValueError if there is no task, or a task without a
    run.
    """
    if not strata or not all(len(stratum) and all(map(np.size, stratum)) for stratum in strata):
        raise ValueError("scores are one list of arrays a task, each with a run or more")
    kept = draws if isinstance(draws, Draws) else Draws(draws, seed)
    arrays = [pooled(s) for s in strata]
    drawn = kept.of(strata)
    values: dict[str, list[Array]] = {name: [] for name in AGGREGATES}
    for part in _parts(kept.draws, sum(map(len, arrays))):
        weights = [_weights(s, own[part]) for s, own in zip(strata, drawn, strict=True)]
        for name, f in AGGREGATES.items():
            values[name].append(f(arrays, weights))
    # Scores beyond the quartiles move the interquartile mean as the quartiles themselves would.
    low, high = np.quantile(np.concatenate(arrays), [0.25, 0.75])
    bounds = {"iqm": (low, high), "optimality_gap": (-np.inf, 1.0)}
    found = {}
    for name, f in AGGREGATES.items():
        own = bounds.get(name, (-np.inf, np.inf))
        df = degrees([[np.clip(unit, *own) for unit in stratum] for stratum in strata])
        if name == "iqm":  # the half that is left out adds no degrees (Tukey & McLaughlin 1963)
            df = min(df, sum(len(stratum) - 1 for stratum in strata) / 2)
        found[name] = Interval(float(f(arrays)), *percentiles(np.concatenate(values[name]), confidence, df))
    return found


def percentiles(values: Array, confidence: float, df: float | None = None) -> tuple[float, float]:
    """The percentile interval of drawn values [draws], widened from the normal to Student's t with `df`.

    With `df` 0 the spread is unknown: the interval is infinite.
    """
    # SciPy is slow to import.
    from scipy.stats import norm, t

    if df == 0:
        return -np.inf, np.inf
    tail = (1 - confidence) / 2
    if df is not None:
        tail = float(norm.cdf(t.ppf(tail, df)))
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


# -- comparisons -----------------------------------------------------------------------------------------


def wins(x: ArrayLike, y: ArrayLike) -> Array:
    """1 for x_i > y_j, ½ for x_i = y_j, else 0: [m], [n] -> [m, n]. The sum is Mann and Whitney's U."""
    difference = np.subtract.outer(np.asarray(x, np.float64), np.asarray(y, np.float64))
    return (np.sign(difference) + 1) / 2


def probability_of_improvement(
    x: Strata, y: Strata, draws: int | Draws = DRAWS, confidence: float = CONFIDENCE, seed: int = 0
) -> Interval:
    """P(X > Y) = mean over tasks of U / (m n), a tie counted as half; M strata of each, of the same tasks.

    The interval is from a stratified bootstrap of both, as sums over the drawn pairs; `draws` as in
    `aggregates`.
    """
    if len(x) != len(y) or not len(x):
        raise ValueError(f"{len(x)} tasks stand against {len(y)}: give the same ones, and one or more")
    kept = draws if isinstance(draws, Draws) else Draws(draws, seed)
    sides = iter(kept.of([stratum for pair in zip(x, y, strict=True) for stratum in pair]))
    value, drawn = 0.0, np.zeros(kept.draws)
    shares: list[list[Array]] = []  # share of the other side's runs that each run beats, by stratum and unit
    for one, other in zip(x, y, strict=True):
        runs, others = pooled(one), pooled(other)  # [m], [n]
        order = np.argsort(others, kind="stable")
        # Numbers of the others, in their order, that lie below a run, and below or at it.
        below, upto = (np.searchsorted(others[order], runs, side) for side in ("left", "right"))
        value += float((below + upto).sum()) / 2 / (len(runs) * len(others)) / len(x)
        mine, theirs = next(sides), next(sides)
        for part in _parts(kept.draws, len(runs) + len(others)):
            a, b = _weights(one, mine[part]), _weights(other, theirs[part])[:, order]
            weight = np.concatenate([np.zeros((len(b), 1)), np.cumsum(b, axis=1)], axis=1)  # [draws, 1 + n]
            won = (a * (weight[:, below] + weight[:, upto])).sum(-1) / 2
            drawn[part] += won / (a.sum(-1) * b.sum(-1) * len(x))
        beaten = np.sort(runs)
        lost = np.searchsorted(beaten, others, "right") + np.searchsorted(beaten, others, "left")
        for stratum, share in (
            (one, (below + upto) / (2 * len(others))),
            (other, 1 - lost / (2 * len(runs))),
        ):
            shares.append(np.split(share, np.cumsum([np.size(unit) for unit in stratum])[:-1]))
    return Interval(value, *percentiles(drawn, confidence, degrees(shares)))


def rank_ranges(low: ArrayLike, high: ArrayLike) -> NDArray[np.int64]:
    """The ranks that intervals allow: [k], [k] -> [k, 2], from the best to the worst possible one.

    A rule is surely behind the rules whose whole interval lies above its own, and surely before those whose
    whole interval lies below it.
    """
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    above = (low[None, :] > high[:, None]).sum(1)
    below = (high[None, :] < low[:, None]).sum(1)
    return np.stack([1 + above, len(low) - below], axis=1)


class Tested(NamedTuple):
    """A figure, its interval, and the two-sided p of its being 0. The interval excludes 0 where p < level."""

    value: float
    low: float
    high: float
    p: float


def permutation_interval(
    x: Sequence[ArrayLike],
    y: Sequence[ArrayLike],
    level: float = 1 - CONFIDENCE,
    draws: int = DRAWS,
    seed: int = 0,
) -> Tested:
    """Mean over M strata of mean(y) − mean(x), with a permutation test: M arrays [m], M arrays [n].

    The hypothesis is no difference. Runs are relabelled within each stratum, whose runs must be exchangeable.
    p is (1 + C) / (draws + 1), with C the number of relabelled differences that are as large. The interval
    contains each shift of y at which the same test, with the same relabellings, would not have p < `level`
    (an inverted test: Garthwaite 1996, doi:10.2307/2532852). It is infinite if no p can be so small.
    """
    rng = np.random.default_rng(seed)
    value, drawn, kept, size = 0.0, np.zeros(draws), np.zeros(draws), 0.0
    for one, other in zip(x, y, strict=True):
        m, n = np.size(one), np.size(other)
        runs = np.concatenate([np.asarray(one, np.float64), np.asarray(other, np.float64)])
        value += (runs[m:].mean() - runs[:m].mean()) / len(x)
        for part in _parts(draws, m + n):
            rows = part.stop - part.start
            mine = rng.permuted(np.broadcast_to(np.arange(m + n), (rows, m + n)), axis=1)[:, :m]  # to x
            first = runs[mine].sum(1)
            drawn[part] += ((runs.sum() - first) / n - first / m) / len(x)
            moved = (mine >= m).sum(1)  # of y, to x
            kept[part] += ((n - moved) / n - moved / m) / len(x)
        size = max(size, float(np.abs(runs).max()))
    # A relabelling is as large at a shift δ if |drawn − δ kept| >= |value − δ|: between two δ, around
    # `value`.
    with np.errstate(divide="ignore", invalid="ignore"):
        ends = np.stack([(value - drawn) / (1 - kept), (value + drawn) / (1 + kept)])
    same = np.abs(kept) > 1 - 1e-12  # nothing or everything was exchanged: as large at every shift
    low = np.where(same, -np.inf, ends.min(0))
    high = np.where(same, np.inf, ends.max(0))
    as_large = same | (np.abs(drawn) >= abs(value) - 1e-12 * size)
    low, high = np.where(as_large, np.minimum(low, 0), low), np.where(as_large, np.maximum(high, 0), high)
    p = (1 + np.arange(draws + 1)) / (draws + 1)
    few = int((p < level).sum())  # so many are too few
    if few:
        ends = np.array([np.sort(low)[few - 1], np.sort(high)[-few]])
    else:
        ends = np.array([-np.inf, np.inf])
    return Tested(float(value), float(ends[0]), float(ends[1]), float(p[int(as_large.sum())]))


def holm(p: ArrayLike) -> Array:
    """p values [k] adjusted for the chance of one false finding among all k (Holm 1979)."""
    p = np.asarray(p, np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    found = np.empty_like(adjusted)
    found[order] = np.minimum(adjusted, 1.0)
    return found


# -- ranks -----------------------------------------------------------------------------------------------


class Ranks(NamedTuple):
    """Ranks of k rules over N tasks."""

    mean_ranks: Array  #: [k]; 1 is best, ties share their mean
    statistic: float  #: Friedman's χ²
    p: float
    critical_difference: float  #: mean ranks that lie further apart differ (Nemenyi)


def friedman_nemenyi(scores: ArrayLike, alpha: float = 0.05) -> Ranks:
    """Friedman's test of scores [N, k] of k rules over N tasks, and Nemenyi's critical difference.

    Higher scores are better. χ² = 12 N / (k (k+1)) (Σ_j R_j² − k (k+1)² / 4), corrected for ties; CD = q_α
    √(k (k+1) / (6 N)), q_α the quantile of the studentised range of k and ∞ over √2.
    """
    # SciPy is slow to import.
    from scipy.stats import chi2, studentized_range

    scores = np.asarray(scores, np.float64)
    if scores.ndim != 2 or scores.shape[0] < 2 or scores.shape[1] < 2:
        raise ValueError(f"scores have the shape {scores.shape}: ranks take two tasks and two rules or more")
    N, k = scores.shape
    ranks = _ranks(-scores)
    mean_ranks = ranks.mean(0)
    ties = sum(
        float((counts**3 - counts).sum())
        for row in scores
        for _, counts in [np.unique(row, return_counts=True)]
    )
    correction = 1 - ties / (N * k * (k**2 - 1))
    spread = 12 * N / (k * (k + 1)) * float((mean_ranks**2).sum() - k * (k + 1) ** 2 / 4)
    statistic = spread / correction if correction > 0 else 0.0
    q = float(studentized_range.ppf(1 - alpha, k, np.inf)) / np.sqrt(2)
    return Ranks(
        mean_ranks, statistic, float(chi2.sf(statistic, k - 1)), float(q * np.sqrt(k * (k + 1) / (6 * N)))
    )


def _ranks(values: Array) -> Array:
    """Ranks within each row from 1 on, ties sharing their mean: [N, k] -> [N, k]."""
    below = (values[:, None, :] < values[:, :, None]).sum(-1)
    equal = (values[:, None, :] == values[:, :, None]).sum(-1)
    return below + (equal + 1) / 2


# -- costs -----------------------------------------------------------------------------------------------


def performance_profile(costs: ArrayLike, tau: ArrayLike) -> Array:
    """ρ(τ): share of tasks that a rule solves within τ × the cheapest rule's cost. [R, M], [K] -> [R, K].

    A cost is inf if the rule does not solve the task. A task that no rule solves counts for none.
    """
    costs, tau = np.asarray(costs, np.float64), np.asarray(tau, np.float64)
    if costs.size and np.nanmin(costs) <= 0:
        raise ValueError("a cost is 0 or below: a ratio of costs takes costs above 0")
    best = costs.min(axis=0)
    with np.errstate(invalid="ignore"):
        ratio = np.where(np.isfinite(costs), costs / best, np.inf)  # [R, M]
    return (ratio[:, :, None] <= tau).mean(axis=1)


def pareto_front(points: ArrayLike) -> NDArray[np.bool_]:
    """Which of R points [R, D] are on the Pareto front; lower is better in each of D.

    No other point is as low in all columns and lower in one. A point with a missing value (nan) is on no
    front. Negate a column to maximise it.
    """
    points = np.asarray(points, np.float64)
    known = ~np.isnan(points).any(axis=1)
    as_low = (points[None] <= points[:, None]).all(-1)  # [i, j]: j is as low as i everywhere
    lower = (points[None] < points[:, None]).any(-1)
    return known & ~(as_low & lower & known[None]).any(axis=1)


#: Degrees of freedom of the common spread of all groups, beside a group's own.
PRIOR = 2.0
#: Spreads from its group's median beyond which an observation is drawn in to there.
FAR = 3.0


def moderated_intervals(groups: Sequence[ArrayLike], level: float = 1 - CONFIDENCE) -> list[Tested]:
    """Centres of k groups of observations [N], robust to outliers, each with a t test of its being 0.

    Observations further than `FAR` spreads from their group's median are drawn in to there. The spread is the
    larger of the group's own median absolute deviation and that of all groups together, both scaled for the
    normal distribution. The centre is the mean of the results. Its variance s² / N has s² = (d₀ s₀² + (N − 1)
    s_g²) / (d₀ + N − 1), the group's own s_g² moderated by the common s₀² (Smyth 2004,
    doi:10.2202/1544-6115.1027, with d₀ = `PRIOR`, or as many as the other groups have); t has d₀ + N − 1
    degrees of freedom. s₀² is the median of the groups' own, each over the median of its distribution, so
    that a group with outliers counts no more than any other. s² is never below s_g²: a group that is noisier
    than the others gains nothing from them. If no group has two observations, the spread is unknown:
    intervals are infinite and p is 1.
    """
    # SciPy is slow to import.
    from scipy.stats import chi2, t

    arrays = [np.asarray(group, np.float64) for group in groups]
    free = np.array([len(group) - 1 for group in arrays])
    if not free.sum():
        return [Tested(float(group[0]), -np.inf, np.inf, 1.0) for group in arrays]
    apart = [
        np.abs(group - np.median(group)) * np.sqrt(len(group) / max(1, len(group) - 1)) for group in arrays
    ]
    common = 1.4826 * float(np.median(np.concatenate([a for a in apart if len(a) > 1])))
    clipped = []
    for group, own in zip(arrays, apart, strict=True):
        # Three or fewer observations show no outlier.
        reach = FAR * max(common, 1.4826 * float(np.median(own))) if len(group) > 3 else np.inf
        clipped.append(np.clip(group, np.median(group) - reach, np.median(group) + reach))
    squares = np.array([float(np.var(group, ddof=1)) if len(group) > 1 else 0.0 for group in clipped])
    known = free > 0
    prior = float(np.median(squares[known] * free[known] / chi2.ppf(0.5, free[known])))
    found = []
    for group, square, df in zip(clipped, squares, free, strict=True):
        beside = min(PRIOR, float(free.sum() - df))
        total = beside + df
        error = math.sqrt(max(square, (beside * prior + df * square) / total) / len(group))
        value, half = float(group.mean()), float(t.ppf(1 - level / 2, total)) * error
        if error > 0:
            p = 2 * float(t.sf(abs(value) / error, total))
        else:
            p = 1.0 if value == 0 else 0.0
        found.append(Tested(value, value - half, value + half, p))
    return found
