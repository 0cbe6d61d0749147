"""Which rules are the best on a task: the first, and those that no test tells from it."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import NamedTuple, TypeVar

import numpy as np

from creditbench.leaderboard import statistics
from creditbench.leaderboard.board import Entry
from creditbench.leaderboard.versus import metrics, welch

K = TypeVar("K", bound=Hashable)


class Mean(NamedTuple):
    """The mean of a rule's scores on a task over its units, and half of its 95 % interval."""

    value: float
    half: float | None  #: None for a single unit


def unit_means(cell: Entry, scaled: bool) -> list[float]:
    """The means of the units of a cell [units], as `versus` compares them: higher is better.

    `scaled`: of normalised scores, else of the metric, signed; the units are tuning studies with their runs,
    or runs.
    """
    return [float(unit.mean()) for unit in (cell.units if scaled else metrics(cell))]


def mean(values: list[float]) -> Mean | None:
    """The mean of units [U] and half of its interval, Student's over the units; None if it is not finite."""
    # SciPy is slow to import.
    from scipy.stats import t

    if not values or not np.isfinite(values).all():
        return None
    if len(values) < 2:
        return Mean(values[0], None)
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    half = float(t.ppf((1 + statistics.CONFIDENCE) / 2, len(values) - 1)) * error
    return Mean(float(np.mean(values)), half)


def best_and_equals(cells: Mapping[K, Entry], scaled: bool) -> set[K]:
    """The keys of the best mean and of those that the test of `versus` does not tell from it.

    A cell is told from the best if Welch's 95 % interval of their difference excludes 0. A single unit on
    either side is no test: nothing is then told from the best. A cell that is stale or has no finite mean
    takes no part, and one in which a run diverged is no equal. Nothing is best among fewer than two, or where
    all runs diverged.
    """
    values = {
        key: found
        for key, cell in cells.items()
        if not cell.stale and (found := unit_means(cell, scaled)) and np.isfinite(found).all()
    }
    if len(values) < 2:
        return set()
    first = max(values, key=lambda key: float(np.mean(values[key])))
    if all(r.status == "diverged" for r in cells[first].records):
        return set()
    equals = {first}
    for key in values.keys() - equals:
        interval = welch(values[key], values[first])[1]
        ended = all(r.status != "diverged" for r in cells[key].records)
        if ended and (interval is None or interval[0] <= 0 <= interval[1]):
            equals.add(key)
    return equals
