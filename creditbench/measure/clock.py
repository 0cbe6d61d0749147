"""Wall-clock time: seconds of synchronised blocks, and ratios of blocks that ran in turn.

Machines drift, and others use them. The ratio of two consecutive blocks drifts far less.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

#: The least number of blocks of a figure, and the least seconds that they take together.
BLOCKS, SECONDS = 7, 0.5

Run = Callable[[], None]  #: runs one block and waits for its end


class Quartiles(NamedTuple):
    """The median of the measured values, and the first and third quartile."""

    median: float
    low: float
    high: float


def quartiles(values: Sequence[float]) -> Quartiles:
    """Median, first and third quartile."""
    low, median, high = np.quantile(values, (0.25, 0.5, 0.75))
    return Quartiles(float(median), float(low), float(high))


def seconds(run: Run) -> float:
    """Seconds of one block. A `Prepared` block is timed by its device's clock, if it has one."""
    by_device = getattr(run, "device_seconds", None)
    if by_device is not None and (found := by_device()) is not None:
        return found
    clock = time.perf_counter()
    run()
    return time.perf_counter() - clock


def blocks(run: Run, least: int = BLOCKS, budget: float = SECONDS) -> list[float]:
    """Seconds of blocks of a warm program, over at least `least` blocks and `budget` seconds."""
    return interleaved({"": run}, least, budget)[""]


def interleaved(
    runs: Mapping[str, Run], least: int = BLOCKS, budget: float = SECONDS
) -> dict[str, list[float]]:
    """Seconds of blocks of several warm programs, run in turn, equally many of each.

    There are at least `least` rounds and `budget` seconds. Every other round runs in reverse order, so that
    a machine that slows down steadily favours no program.
    """
    found: dict[str, list[float]] = {name: [] for name in runs}
    order, end = list(runs), time.perf_counter() + budget
    while len(found[order[0]]) < least or time.perf_counter() < end:
        for name in order:
            found[name].append(seconds(runs[name]))
        order.reverse()
    return found


def ratio(blocks: Sequence[float], reference: Sequence[float], scale: float = 1.0) -> Quartiles:
    """The ratio of blocks to reference blocks, taken pair by pair, times `scale`."""
    return quartiles(scale * np.asarray(blocks) / np.asarray(reference))
