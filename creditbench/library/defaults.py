"""What the command line and calls from Python share: names in a text, and seeds where none are given."""

from __future__ import annotations

from collections.abc import Iterable

from creditbench.errors import UsageError

SEEDS = 3
MOST_SEEDS = 100_000


def names(value: str | Iterable[str]) -> tuple[str, ...]:
    """The distinct names in a text with commas, or in several.

    >>> names("a, b"), names(["b", "a,b"])
    (('a', 'b'), ('b', 'a'))
    """
    texts = [value] if isinstance(value, str) else value
    return tuple(dict.fromkeys(name for text in texts for part in text.split(",") if (name := part.strip())))


def first_seeds(count: int) -> tuple[int, ...]:
    """That many seeds, from 0 on. Raises `UsageError`."""
    if not 1 <= count <= MOST_SEEDS:
        raise UsageError(f"--seeds is {count}: give a whole number from 1 to {MOST_SEEDS:,}")
    return tuple(range(count))
