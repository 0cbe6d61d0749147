"""Errors that the user can fix, and the status that an error gives a trial."""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable
from typing import Any, Literal

FailureStatus = Literal["timeout", "oom", "crashed", "invalid"]  #: the status of a trial that failed

#: Messages of libraries when memory is refused, in lower case. Not all of them raise MemoryError.
_NO_MEMORY = (
    "memoryerror",
    "out of memory",
    "resource_exhausted",
    "can't allocate memory",
    "cannot allocate memory",
    "bad_alloc",
)
#: The most letters of a usage error's message; and a word in it that is too long to be a path or a name.
_LONGEST, _LONG_WORD = 1400, re.compile(r"\S{400,}")
_OF_MACHINE = {
    getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "ENOMEM", "EIO", "EROFS", "ENFILE", "ESTALE")
}


class UsageError(Exception):
    """Bad input. Its message is one sentence that names the thing, the value and the cure.

    The command line prints the message and exits with status 2. The message keeps only the beginning and the
    end of a value of hundreds of letters.

    >>> import creditbench as cb
    >>> try:
    ...     cb.make_cell("tanhh", inputs=1, outputs=1)
    ... except UsageError as error:
    ...     print(error)
    unknown cell 'tanhh': did you mean 'tanh'? see: creditbench.list_cells()
    """

    def __init__(self, message: object) -> None:
        text = _LONG_WORD.sub(lambda word: f"{word[0][:120]}…{word[0][-60:]}", str(message))
        super().__init__(text if len(text) <= _LONGEST else f"{text[: _LONGEST - 300]} … {text[-300:]}")


class InvalidEstimateError(Exception):
    """A learner broke the contract of `Learner.segment`.

    >>> status_of(InvalidEstimateError("grads of 'W' have another shape"))
    'invalid'
    """


class ConfinedError(Exception):
    """A confined process failed. It has a status of `Record`, and one sentence.

    `usage`: the sentence comes from a `UsageError` in the process.

    >>> ConfinedError("timeout", "took more than 5 s").status
    'timeout'
    """

    def __init__(self, status: FailureStatus, detail: str, usage: bool = False) -> None:
        super().__init__(detail)
        self.status, self.detail, self.usage = status, detail, usage


class MachineError(ConfinedError):
    """The machine failed, not the rule. Nothing of the trial is kept. The sentence says how it failed.

    >>> is_of_machine(MachineError("the worker was killed"))
    True
    """

    def __init__(self, detail: str) -> None:
        super().__init__("crashed", detail)


def is_of_machine(error: BaseException) -> bool:
    """Whether the machine failed, not the program on it: full disk, no system memory, broken disk.

    >>> is_of_machine(OSError(errno.ENOSPC, "disk full")), is_of_machine(ValueError("odd"))
    (True, False)
    """
    return isinstance(error, MachineError) or (isinstance(error, OSError) and error.errno in _OF_MACHINE)


def status_of(error: BaseException) -> FailureStatus:
    """The status of a trial that `error` ended.

    >>> status_of(MemoryError()), status_of(ZeroDivisionError())
    ('oom', 'crashed')
    """
    if isinstance(error, ConfinedError):
        return error.status
    if isinstance(error, InvalidEstimateError) or _refused(error):
        return "invalid"
    return "oom" if isinstance(error, MemoryError) or tells_of_no_memory(str(error)) else "crashed"


def tells_of_no_memory(text: str) -> bool:
    """Whether a library's message says that memory was refused.

    >>> tells_of_no_memory("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")
    True
    """
    return any(words in text.lower() for words in _NO_MEMORY)


def _refused(error: BaseException) -> list[dict[str, Any]]:
    """The values that a pydantic model refused, one by one; empty if the error is not pydantic's."""
    return error.errors() if type(error).__name__ == "ValidationError" and hasattr(error, "errors") else []


def reason(error: BaseException) -> str:
    """The reason why a file cannot be read or written, or a value is refused, in one line.

    >>> reason(FileNotFoundError(2, "No such file or directory", "x.csv"))
    'No such file or directory'
    """
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    if refused := _refused(error):
        place = ".".join(map(str, refused[0]["loc"]))
        said = f"{place or 'it'}: {refused[0]['msg']}"
        said += f"; and {len(refused) - 1} more" if len(refused) > 1 else ""
    said = " ".join(said.split())
    return said[:160] or type(error).__name__


def one_line(error: BaseException) -> str:
    """The error's class and the first line of its message, for `Record.status_detail`.

    >>> one_line(ValueError("a\\nb"))
    'ValueError: a'
    """
    if isinstance(error, ConfinedError):
        return error.detail
    if _refused(error):
        return f"a figure of the trial is refused: {reason(error)}"
    message = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {message}".removesuffix(": ")[:300]


#: Package that not everybody needs, by the name under which it is imported -> the extra that brings it.
EXTRAS = {
    **dict.fromkeys(("altair", "matplotlib", "vl_convert"), "board"),
    **dict.fromkeys(("datasets", "sklearn", "scikit-learn"), "data"),
    **dict.fromkeys(("jax", "jaxlib"), "jax"),
    "torch": "torch",
    "distributed": "cluster",
    "tensorboard": "tensorboard",
    "wandb": "wandb",
}


def not_installed(what: str, package: str) -> UsageError:
    """The error for a package that is not there: `what` needs it, and the extra that brings it.

    >>> print(not_installed("the page", "altair"))
    the page needs altair, which is not installed: pip install 'creditbench[board]'
    """
    return UsageError(f"{what} needs {package}, which is not installed: pip install {bringing(package)}")


def bringing(package: str) -> str:
    """What brings a package: an extra, or its own name.

    >>> bringing("sklearn"), bringing("numba")
    ("'creditbench[data]'", 'numba')
    """
    return f"'creditbench[{EXTRAS[package]}]'" if package in EXTRAS else package


def unknown(kind: str, value: str, known: Iterable[str], see: str) -> UsageError:
    """The error for an unknown name. It suggests the nearest known name.

    >>> print(unknown("learner", "anpp", ["anp", "bptt"], "creditbench list learners"))
    unknown learner 'anpp': did you mean 'anp'? see: creditbench list learners
    """
    return UsageError(f"unknown {kind} {value!r}: {suggestion(value, known)}see: {see}")


def suggestion(value: str, known: Iterable[str]) -> str:
    """A question for the known name that is nearest to `value`, whatever its case; empty if none is near.

    >>> suggestion("k", ["sigma", "K"])
    "did you mean 'K'? "
    """
    folded: dict[str, str] = {}
    for name in known:
        folded.setdefault(name.casefold(), name)
    close = difflib.get_close_matches(value.casefold(), list(folded), n=1, cutoff=0.5)
    return f"did you mean {folded[close[0]]!r}? " if close else ""


def require_positive(owner: object, *names: str) -> None:
    """Raise `UsageError` unless each named number of `owner` is above 0.

    >>> import types
    >>> require_positive(types.SimpleNamespace(sigma=0.5), "sigma")
    """
    for name in names:
        value = getattr(owner, name)
        if not value > 0:
            raise UsageError(f"{name} is {value!r}: {type(owner).__name__} needs a number above 0")


def require_fraction(owner: object, *names: str) -> None:
    """Raise `UsageError` unless each named number of `owner` is in [0, 1).

    >>> import types
    >>> try:
    ...     require_fraction(types.SimpleNamespace(mu=1.0), "mu")
    ... except UsageError as error:
    ...     print(error)
    mu is 1.0: SimpleNamespace needs a number in [0, 1)
    """
    for name in names:
        value = getattr(owner, name)
        if not 0 <= value < 1:
            raise UsageError(f"{name} is {value!r}: {type(owner).__name__} needs a number in [0, 1)")


def require_one_of(owner: object, name: str, allowed: tuple[str, ...]) -> None:
    """Raise `UsageError` unless the named value of `owner` is among those allowed.

    >>> import types
    >>> try:
    ...     require_one_of(types.SimpleNamespace(kind="odd"), "kind", ("node", "weight"))
    ... except UsageError as error:
    ...     print(error)
    kind is 'odd': SimpleNamespace needs one of node, weight
    """
    value = getattr(owner, name)
    if value not in allowed:
        raise UsageError(f"{name} is {value!r}: {type(owner).__name__} needs one of {', '.join(allowed)}")
