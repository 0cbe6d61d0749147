"""Errors in words of Python: messages name options of the command line, and a caller has arguments."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from creditbench.errors import UsageError

P = ParamSpec("P")
R = TypeVar("R")

#: Options whose arguments have another name.
_ARGUMENTS = {
    "task": "tasks",
    "learner": "learners",
    "cell": "cells",
    "rule": "rules",
    "seed": "seeds",
    "set": "settings",
}
_OPTION = re.compile(r"(?<![\w-])--([a-z]+(?:-[a-z]+)*)")
_ASSIGNED = re.compile(rf"{_OPTION.pattern} ([\w.]+)=([^\s,;:]+)")
_GIVEN = re.compile(rf"\b(as in|give) {_OPTION.pattern} ([\w./@-]+(?:,[\w./-]+)*)")


def python_words(message: str) -> str:
    """A message with arguments in place of options.

    >>> python_words("no task is named: add one, as in --task adding; see: creditbench list tasks")
    'no task is named: add one, as in tasks="adding"; see: creditbench.list_tasks()'
    >>> python_words("anp.sig is set: write it as --set anp.sigma=1e-3, or leave out --seeds")
    'anp.sig is set: write it as settings={"anp.sigma": 1e-3}, or leave out seeds'
    """
    message = re.sub(r"creditbench list (tasks|learners|cells)( --json)?", r"creditbench.list_\1()", message)
    message = message.replace("creditbench run --help", "help(creditbench.run)")
    message = message.replace("see: creditbench table", "see: the frame `trials`")
    message = _ASSIGNED.sub(lambda m: f'{_argument(m[1])}={{"{m[2]}": {_value(m[3])}}}', message)
    message = _GIVEN.sub(lambda m: f"{m[1]} {_argument(m[2])}={_value(m[3])}", message)
    return _OPTION.sub(lambda m: _argument(m[1]), message)


def _argument(option: str) -> str:
    return _ARGUMENTS.get(option, option.replace("-", "_"))


def _value(text: str) -> str:
    try:
        float(text)
    except ValueError:
        return text if text == "..." else f'"{text}"'
    return text


def says_arguments(call: Callable[P, R]) -> Callable[P, R]:
    """A function whose usage errors name its arguments."""

    @functools.wraps(call)
    def called(*arguments: P.args, **given: P.kwargs) -> R:
        try:
            return call(*arguments, **given)
        except UsageError as error:
            raise UsageError(python_words(str(error))) from None

    return called
