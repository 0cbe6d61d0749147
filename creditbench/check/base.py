"""A check, its result, and the run of a list of checks."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from creditbench.errors import UsageError, one_line


class Broken(Exception):  # noqa: N818 - a finding is no error of the check
    """The check does not hold; the message says why."""


class NotApplicable(Exception):  # noqa: N818
    """There is nothing to check; the message says why."""


@dataclass(frozen=True)
class Check:
    """One requirement of a submission."""

    name: str
    advice: str  #: what to do if it does not hold
    run: Callable[[Any], str]  #: subject -> detail; raises `Broken` or `NotApplicable`
    needed: bool = False  #: whether the checks after it mean nothing if it does not hold or apply


@dataclass(frozen=True)
class Result:
    """The result of one check: a row of the table."""

    name: str
    held: bool | None  #: None: not applicable
    detail: str


def check(into: list[Check], name: str, advice: str, needed: bool = False) -> Callable[[Any], Any]:
    """Add the function to the list `into` as a check."""

    def add(function: Callable[[Any], str]) -> Callable[[Any], str]:
        into.append(Check(name, advice, function, needed))
        return function

    return add


def outcomes(
    checks: Sequence[Check], subject: Any, path: Path, started: Callable[[str], None] = lambda name: None
) -> Iterator[Result]:
    """The result of each check in turn. After a needed one that does not hold or apply, none is run."""
    reason = ""
    for one in checks:
        if reason:
            yield Result(one.name, None, reason)
            continue
        started(one.name)
        try:
            found = Result(one.name, True, one.run(subject))
        except NotApplicable as error:
            found = Result(one.name, None, str(error))
        except Broken as error:
            found = Result(one.name, False, str(error))
        except Exception as error:
            # An error of the contributed code is a finding, not a failure of the check.
            found = Result(one.name, False, located(error, path))
        if found.held is False and one.needed:
            reason = f"not run: needs '{one.name}'"
        elif found.held is None and one.needed:
            reason = found.detail
        yield found


def located(error: BaseException, path: Path) -> str:
    """The error in one line, with the last line of the file `path` that it passed through."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path]
    said = " ".join(str(error).split())[:300] if isinstance(error, UsageError) else one_line(error)
    return f"{path.name}, line {frames[-1].lineno}: {said}" if frames else said
