"""Functions of a framework that the harness needs and no rule does: threads, caches, counts, peaks.

`Ops.host` is a `Host` over the same framework, device and float format. No rule computes with it.
"""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

from creditbench.errors import UsageError

Tree = Any  #: as in `creditbench.ops.base`, which imports this module


class Work(NamedTuple):
    """The work of a program."""

    flops: int = 0
    product_flops: int = 0  #: of matrix products alone
    bytes: int = 0
    product_bytes: int = 0  #: of matrix products alone
    #: JAX: equations of the traced program, with a loop's body once; PyTorch: operations that run
    operations: int = 0

    def __add__(self, other: Work) -> Work:  # type: ignore[override]
        return Work(*(a + b for a, b in zip(self, other, strict=True)))

    def repeated(self, times: int) -> Work:
        """This work `times` times, traced once."""
        return Work(*(times * value for value in self))._replace(operations=self.operations)


class UncountableError(UsageError):
    """The program has an operation whose work is not known."""


class Host(abc.ABC):
    """One framework as the harness uses it."""

    #: Whether operations are counted from a trace, without a run. Such a count is compared with no other.
    traces: ClassVar[bool]
    #: Whether `vmap` supports draws of noise, so that many can be made at once.
    draws_together: ClassVar[bool]

    def __init__(self, ops: Any) -> None:
        self.ops = ops

    @abc.abstractmethod
    def set_threads(self, count: int) -> None:
        """Let the framework use `count` threads, unless it had to be told before its import."""

    @abc.abstractmethod
    def forget(self) -> None:
        """Drop all compiled programs."""

    @abc.abstractmethod
    def devices(self) -> list[str]:
        """The devices of this machine, each as `--device` takes it, with its kind."""

    # -- figures ---------------------------------------------------------------------------------

    @abc.abstractmethod
    def count(self, f: Callable[..., Tree], *arguments: Tree) -> Work:
        """The work of `f(*arguments)`; see `creditbench.measure.work`. Raises `UncountableError`."""

    @abc.abstractmethod
    def algorithm_bytes(self, f: Callable[..., Tree], *arguments: Tree) -> int:
        """The bytes that `f(*arguments)` needs at its peak; see `creditbench.measure.memory`."""

    @abc.abstractmethod
    def device_peak(self) -> Callable[[], int | None]:
        """A function that gives the accelerator's peak of bytes since now, or None where it is not known."""

    @abc.abstractmethod
    def programs(self) -> contextlib.AbstractContextManager[list[str]]:
        """A list that gains one entry per program compiled in the context; empty if none are compiled."""

    @abc.abstractmethod
    def kernels(self, f: Callable[..., Tree], *arguments: Tree) -> int | None:
        """The operations that `f(*arguments)` runs, without views; None if the framework fuses them."""

    def seconds(self, launch: Callable[[], None], like: Tree) -> float | None:
        """The seconds of the work that `launch` starts, by the clock of the device of `like`.

        None where the device has no clock.
        """
        return None

    # -- for checks ------------------------------------------------------------------------------

    @abc.abstractmethod
    def step_by_step(self) -> contextlib.AbstractContextManager[Any]:
        """A context in which every step of a loop runs uncompiled, and no tape is kept."""

    @abc.abstractmethod
    def without_tape(self) -> contextlib.AbstractContextManager[Any]:
        """A context in which no tape for reverse mode is kept."""

    @abc.abstractmethod
    def single_precision(self) -> contextlib.AbstractContextManager[Any]:
        """A context without float64, if the framework can do without it."""

    @abc.abstractmethod
    def reverse_modes(self) -> list[tuple[Any, str, str]]:
        """The framework's own reverse modes: (owner, attribute, name to show)."""
