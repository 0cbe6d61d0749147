"""What a run takes where nothing is said: the same for the command line and for `creditbench.run`."""

from __future__ import annotations

from creditbench.errors import UsageError

SEEDS = 3
MOST_SEEDS = 100_000


def first_seeds(count: int) -> tuple[int, ...]:
    """That many seeds, from 0 on. Raises `UsageError`."""
    if not 1 <= count <= MOST_SEEDS:
        raise UsageError(f"--seeds is {count}: give a whole number from 1 to {MOST_SEEDS:,}")
    return tuple(range(count))
