"""What the command line and calls from Python share: names in a text, numbers, defaults."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from creditbench.errors import UsageError, unknown
from creditbench.machine.frameworks import FRAMEWORKS, installed

SEEDS = 3
MOST_SEEDS = 100_000
#: T, n and B of an update, where one is measured and they are not given.
SIZES = {"T": 128, "n": 128, "B": 1}


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


def known_names(option: str, found: Sequence[str], known: Collection[str], verb: str) -> list[str]:
    """The names, of which there is one at least. Raises `UsageError` for none, and for an unknown one."""
    if not found:
        raise UsageError(f"--{option} is left out: name one or more, with commas between")
    for name in found:
        if name not in known:
            raise unknown(option, name, known, f"creditbench {verb} --help")
    return list(found)


def backends(found: Sequence[str], verb: str) -> list[str]:
    """The named backends, or those that are installed. Raises `UsageError` for an unknown one or none."""
    if found:
        return known_names("backend", found, FRAMEWORKS, verb)
    if not (there := installed()):
        raise UsageError("no backend is installed: pip install 'creditbench[jax]' or 'creditbench[torch]'")
    return there


def numbers(
    option: str,
    given: Iterable[Any],
    kind: type,
    example: str,
    low: float = -math.inf,
    high: float = math.inf,
) -> tuple[Any, ...]:
    """The distinct numbers of that `kind` (int or float) in texts or numbers. Raises `UsageError`."""
    given = list(given)
    try:
        found = tuple(dict.fromkeys(map(kind, given)))
    except ValueError:
        found = ()
    if not (found and all(low <= number <= high for number in found)):
        wanted = "whole numbers" if kind is int else "numbers"
        wanted += f" from {low:g}" * (low > -math.inf) + f" to {high:g}" * (high < math.inf)
        text = ",".join(map(str, given))
        raise UsageError(f"{option} is {text!r}: give {wanted} with commas between, as in {option} {example}")
    return found


def require_whole(option: str, value: int | None, low: int, high: int | None = None) -> None:
    """Raise `UsageError` if a number is given and lies below `low` or above `high`."""
    if value is not None and not (low <= value and (high is None or value <= high)):
        to = "" if high is None else f" to {high}"
        raise UsageError(f"--{option} is {value}: give a whole number from {low}{to}")
