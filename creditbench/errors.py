"""Errors that are the user's to mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UsageError(Exception):
    """Bad input. Its message is one sentence that names the thing, the value and the cure.

    The command line prints the message and exits with status 2.
    """


def unknown(kind: str, value: str, known: Iterable[str], see: str) -> UsageError:
    """The error for a name that is not among those known, with the nearest one as a suggestion.

    >>> print(unknown("learner", "anpp", ["anp", "bptt"], "creditbench list learners"))
    unknown learner 'anpp': did you mean 'anp'? see: creditbench list learners
    """
    close = difflib.get_close_matches(value, list(known), n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return UsageError(f"unknown {kind} {value!r}: {hint}see: {see}")


def require_positive(owner: object, *names: str) -> None:
    """Raise `UsageError` unless each named number of `owner` is above 0."""
    for name in names:
        value = getattr(owner, name)
        if not value > 0:
            raise UsageError(f"{name} is {value!r}: {type(owner).__name__} needs a number above 0")


def require_one_of(owner: object, name: str, allowed: tuple[str, ...]) -> None:
    """Raise `UsageError` unless the named value of `owner` is among those allowed."""
    value = getattr(owner, name)
    if value not in allowed:
        raise UsageError(f"{name} is {value!r}: {type(owner).__name__} needs one of {', '.join(allowed)}")
