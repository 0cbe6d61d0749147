"""The statistics of the leaderboard: numbers from arrays, apart from tables and plots.

A rule's scores are M *strata*, one a task. A stratum is a list of *units*: runs that share a tuning study, an array [n]
each; where a rule was not tuned in studies, every run is a unit of its own, [1]. Runs of one study have the same
hyper-parameters, so that they are no independent looks at the rule: what chance did in tuning is in all of them.

Aggregates follow Agarwal et al. 2021 (NeurIPS, *Deep reinforcement learning at the edge of the statistical
precipice*), profiles Dolan & Moré 2002 (doi:10.1007/s101070100263), ranks Demšar 2006 (JMLR 7, 1–30). The bootstrap of
clustered runs draws one unit fewer than there are (McCarthy & Snowden 1985; Rao & Wu 1988,
doi:10.1080/01621459.1988.10478591), without which few units would seem to agree better than they do; its percentiles
are widened from the normal distribution's to Student's (Hesterberg 2015, doi:10.1080/00031305.2015.1089789).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Stratum = Sequence[ArrayLike]  #: U units, arrays [n_u]
Strata = Sequence[Stratum]  #: M of them
Aggregate = Callable[[Sequence[Array]], Array]  #: M arrays [..., runs] -> [...]

DRAWS = 10_000
CONFIDENCE = 0.95


class Estimate(NamedTuple):
    """A figure and its interval."""

    value: float
    low: float
    high: float


# -- aggregates ------------------------------------------------------------------------------------------


def interquartile_mean(strata: Sequence[Array]) -> Array:
    """Mean of the middle half of all runs of all tasks: M arrays [..., S_m] -> [...].

    Of N = Σ S_m runs, ⌊N/4⌋ are left out at each end.
    """
    runs = np.concatenate(strata, axis=-1)
    cut = runs.shape[-1] // 4
    return np.sort(runs, axis=-1)[..., cut : runs.shape[-1] - cut].mean(axis=-1)


def median(strata: Sequence[Array]) -> Array:
    """Median over tasks of the mean over seeds: M arrays [..., S_m] -> [...]."""
    return np.median(np.stack([runs.mean(axis=-1) for runs in strata]), axis=0)


def mean(strata: Sequence[Array]) -> Array:
    """Mean over tasks of the mean over seeds: M arrays [..., S_m] -> [...]."""
    return np.mean(np.stack([runs.mean(axis=-1) for runs in strata]), axis=0)


def optimality_gap(strata: Sequence[Array], optimum: float = 1.0) -> Array:
    """By how much runs fall short of `optimum` on average, none counted above it: M arrays [..., S_m] -> [...]."""
    return optimum - mean([np.minimum(runs, optimum) for runs in strata])


AGGREGATES: dict[str, Aggregate] = {
    "iqm": interquartile_mean,
    "median": median,
    "mean": mean,
    "optimality_gap": optimality_gap,
}


def pooled(stratum: Stratum) -> Array:
    """All runs of a stratum, [runs]."""
    return np.concatenate([np.atleast_1d(np.asarray(unit, np.float64)) for unit in stratum])


def counts(stratum: Stratum, draws: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """How often each run of a stratum is drawn, [draws, runs].

    A draw takes U - 1 of the U units, with replacement, and each with all of its runs: the spread of the units' means
    holds the spread within them as well, so that drawing runs anew within a unit would count it twice.
    """
    sizes = [np.size(unit) for unit in stratum]
    units = len(sizes)
    drawn = rng.multinomial(max(1, units - 1), np.full(units, 1 / units), size=draws)
    return np.repeat(drawn, sizes, axis=1)


def resample(strata: Strata, draws: int = DRAWS, seed: int = 0) -> list[Array]:
    """Stratified bootstrap of the units of each task: M strata -> M arrays [draws, runs drawn].

    Units of unequal size are brought to one by repeating their runs, so that all draws are of one length.
    """
    rng = np.random.default_rng(seed)
    found = []
    for stratum in strata:
        sizes = [np.size(unit) for unit in stratum]
        length = int(np.lcm.reduce(sizes))
        table = np.stack(
            [
                np.repeat(np.asarray(u, np.float64).ravel(), length // n)
                for u, n in zip(stratum, sizes, strict=True)
            ]
        )
        units = len(table)
        drawn = rng.integers(units, size=(draws, max(1, units - 1)))
        found.append(table[drawn].reshape(draws, -1))
    return found


def degrees(strata: Strata) -> int:
    """Degrees of freedom of the spread between units: Σ (U_m − 1)."""
    return sum(len(stratum) - 1 for stratum in strata)


def aggregates(
    strata: Strata, draws: int = DRAWS, confidence: float = CONFIDENCE, seed: int = 0
) -> dict[str, Estimate]:
    """Each of `AGGREGATES` of M strata, with its interval from one stratified bootstrap.

    Raises ValueError where there is no task, or a task without a run.
    """
    if not strata or not all(len(stratum) and all(map(np.size, stratum)) for stratum in strata):
        raise ValueError("scores are one list of arrays a task, each with a run or more")
    arrays, drawn, df = [pooled(s) for s in strata], resample(strata, draws, seed), degrees(strata)
    return {
        name: Estimate(float(f(arrays)), *percentiles(f(drawn), confidence, df))
        for name, f in AGGREGATES.items()
    }


def percentiles(values: Array, confidence: float, df: int | None = None) -> tuple[float, float]:
    """The percentile interval of drawn values [draws], widened from the normal to Student's t with `df`.

    Where `df` is 0 nothing is known of the spread: the interval is infinite.
    """
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
    """1 where x_i > y_j, ½ where they are equal, else 0: [m], [n] -> [m, n]. Its sum is Mann and Whitney's U."""
    difference = np.subtract.outer(np.asarray(x, np.float64), np.asarray(y, np.float64))
    return (np.sign(difference) + 1) / 2


def probability_of_improvement(
    x: Strata, y: Strata, draws: int = DRAWS, confidence: float = CONFIDENCE, seed: int = 0
) -> Estimate:
    """P(X > Y) = mean over tasks of U / (m n), a tie counted as half; M strata of each, of the same tasks.

    The interval is that of a stratified bootstrap of both, as sums over the pairs that were drawn.
    """
    if len(x) != len(y) or not len(x):
        raise ValueError(f"{len(x)} tasks stand against {len(y)}: give the same ones, and one or more")
    rng = np.random.default_rng(seed)
    value, drawn = 0.0, np.zeros(draws)
    for one, other in zip(x, y, strict=True):
        won = wins(pooled(one), pooled(other))  # [m, n]
        a, b = counts(one, draws, rng), counts(other, draws, rng)  # [draws, m], [draws, n]
        value += float(won.mean()) / len(x)
        drawn += ((a @ won) * b).sum(-1) / (a.sum(-1) * b.sum(-1) * len(x))
    return Estimate(value, *percentiles(drawn, confidence, degrees(x) + degrees(y)))


def rank_ranges(low: ArrayLike, high: ArrayLike) -> NDArray[np.int64]:
    """The ranks that intervals allow: [k], [k] -> [k, 2], from the best to the worst possible one.

    A rule is surely behind those whose interval lies above its own as a whole, and surely before those whose interval
    lies below it.
    """
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    above = (low[None, :] > high[:, None]).sum(1)
    below = (high[None, :] < low[:, None]).sum(1)
    return np.stack([1 + above, len(low) - below], axis=1)


def permutation_test(
    x: Sequence[ArrayLike], y: Sequence[ArrayLike], draws: int = DRAWS, seed: int = 0
) -> float:
    """Two-sided p of no difference between M arrays [m] and M arrays [n], by relabelling the runs within each of M.

    What stands together in one array is to be alike but for its seed: the runs of one task and study.

    The statistic is |P(X > Y) − ½|, as in `probability_of_improvement` (van Elteren's, unweighted). With one task
    and few runs, p comes near the exact Mann–Whitney p; it is never below 1 / (draws + 1), and is 1 where both hold
    the same values.
    """
    rng = np.random.default_rng(seed)
    value, drawn = 0.0, np.zeros(draws)
    for one, other in zip(x, y, strict=True):
        runs = np.concatenate([np.asarray(one, np.float64), np.asarray(other, np.float64)])
        m, n = len(runs) - len(np.asarray(other)), len(np.asarray(other))
        ranks = _ranks(runs[None])[0]
        u = (ranks[:m].sum() - m * (m + 1) / 2) / (m * n)
        value += (u - 0.5) / len(x)
        shuffled = rng.permuted(np.broadcast_to(ranks, (draws, m + n)), axis=1)[:, :m]
        drawn += ((shuffled.sum(1) - m * (m + 1) / 2) / (m * n) - 0.5) / len(x)
    return float((1 + np.sum(np.abs(drawn) >= abs(value) - 1e-12)) / (draws + 1))


def holm(p: ArrayLike) -> Array:
    """p values [k] adjusted so that the chance of one false finding among all k stays below each (Holm 1979)."""
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
    """Friedman's test of k rules over N tasks [N, k] of scores, higher better, and Nemenyi's critical difference.

    χ² = 12 N / (k (k+1)) (Σ_j R_j² − k (k+1)² / 4), corrected for ties; CD = q_α √(k (k+1) / (6 N)), q_α the
    quantile of the studentised range of k and ∞ over √2.
    """
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

    A cost is inf where the rule does not solve the task. A task that none solves counts for none.
    """
    costs, tau = np.asarray(costs, np.float64), np.asarray(tau, np.float64)
    if costs.size and np.nanmin(costs) <= 0:
        raise ValueError("a cost is 0 or below: a ratio of costs takes costs above 0")
    best = costs.min(axis=0)
    with np.errstate(invalid="ignore"):
        ratio = np.where(np.isfinite(costs), costs / best, np.inf)  # [R, M]
    return (ratio[:, :, None] <= tau).mean(axis=1)


def pareto_front(points: ArrayLike) -> NDArray[np.bool_]:
    """Which of R points [R, D], lower better in each of D, no other beats: none as low in all and lower in one.

    A point with a value that is missing (nan) is on no front. Maximise a column by its negative.
    """
    points = np.asarray(points, np.float64)
    known = ~np.isnan(points).any(axis=1)
    as_low = (points[None] <= points[:, None]).all(-1)  # [i, j]: j is as low as i everywhere
    lower = (points[None] < points[:, None]).any(-1)
    return known & ~(as_low & lower & known[None]).any(axis=1)


def mean_interval(groups: Sequence[ArrayLike], confidence: float = CONFIDENCE) -> list[dict[str, Any]]:
    """Means of U groups of observations [N_u] that share one spread: value, low, high, p of mean 0, df.

    The spread s² is pooled within the groups, with df = Σ (N_u − 1) degrees of freedom; the interval of a mean is
    ± t s / √N_u. Where df is 0 nothing is known of the spread: the interval is infinite and p is 1.
    """
    from scipy.stats import t

    arrays = [np.asarray(group, np.float64) for group in groups]
    df = sum(len(group) - 1 for group in arrays)
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in arrays)
    spread = np.sqrt(squares / df) if df else np.inf
    found = []
    for group in arrays:
        centre, error = float(group.mean()), float(spread / np.sqrt(len(group)))
        if not df:
            found.append({"value": centre, "low": -np.inf, "high": np.inf, "p": 1.0, "df": 0})
            continue
        half = float(t.ppf((1 + confidence) / 2, df)) * error
        if error > 0:
            p = 2 * float(t.sf(abs(centre) / error, df))
        else:
            p = 1.0 if centre == 0 else 0.0
        found.append({"value": centre, "low": centre - half, "high": centre + half, "p": p, "df": df})
    return found
