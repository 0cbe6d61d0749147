"""What the harness asks of a framework beside the vocabulary: threads, caches, counts, peaks.

`Ops.host` is one, over the same framework, device and float format. Nothing here is part of what a rule
computes.
"""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

from creditbench.errors import UsageError

Tree = Any  #: as `creditbench.ops.base` has it, which imports this module


class Work(NamedTuple):
    """What a program does."""

    flops: int = 0
    product_flops: int = 0  #: of matrix products alone
    bytes: int = 0
    product_bytes: int = 0  #: of matrix products alone
    #: JAX: equations of the traced program, a loop's body once; PyTorch: operations that run
    operations: int = 0

    def __add__(self, other: Work) -> Work:  # type: ignore[override]
        return Work(*(a + b for a, b in zip(self, other, strict=True)))

    def repeated(self, times: int) -> Work:
        """The same `times` over, traced once."""
        return Work(*(times * value for value in self))._replace(operations=self.operations)


class UncountableError(UsageError):
    """The program has an operation whose work is not in it."""


class Host(abc.ABC):
    """One framework as the harness uses it."""

    #: Whether operations are counted from a trace: nothing runs then, and the count has no other part in a
    #: comparison.
    traces: ClassVar[bool]
    #: Whether `vmap` follows draws of noise, so that many may be made at once.
    draws_together: ClassVar[bool]

    def __init__(self, ops: Any) -> None:
        self.ops = ops

    @abc.abstractmethod
    def set_threads(self, count: int) -> None:
        """Let the framework use so many threads, where it has not been told before its import."""

    @abc.abstractmethod
    def forget(self) -> None:
        """Give up all that was compiled."""

    @abc.abstractmethod
    def devices(self) -> list[str]:
        """The devices that it finds, each as `--device` takes it, with its kind."""

    # -- figures ---------------------------------------------------------------------------------

    @abc.abstractmethod
    def count(self, f: Callable[..., Tree], *arguments: Tree) -> Work:
        """The work of `f(*arguments)`, as `creditbench.measure.work` has it. Raises `UncountableError`."""

    @abc.abstractmethod
    def algorithm_bytes(self, f: Callable[..., Tree], *arguments: Tree) -> int:
        """The bytes that `f(*arguments)` needs at its peak, as `creditbench.measure.memory` has them."""

    @abc.abstractmethod
    def device_peak(self) -> Callable[[], int | None]:
        """A function that says how many bytes an accelerator held at once since now; None where it cannot be known."""

    @abc.abstractmethod
    def programs(self) -> contextlib.AbstractContextManager[list[str]]:
        """A list that grows with each program that is compiled meanwhile, where programs are compiled."""

    @abc.abstractmethod
    def kernels(self, f: Callable[..., Tree], *arguments: Tree) -> int | None:
        """Operations that `f(*arguments)` runs, views not among them; None where the framework fuses them."""

    def seconds(self, launch: Callable[[], None], like: Tree) -> float | None:
        """The seconds of what `launch` starts, by the clock of the device of `like`; None where there is none."""
        return None

    # -- for checks ------------------------------------------------------------------------------

    @abc.abstractmethod
    def step_by_step(self) -> contextlib.AbstractContextManager[Any]:
        """A context in which every step of a loop is run, and none compiled; no tape is kept."""

    @abc.abstractmethod
    def without_tape(self) -> contextlib.AbstractContextManager[Any]:
        """A context in which no tape for reverse mode is kept."""

    @abc.abstractmethod
    def single_precision(self) -> contextlib.AbstractContextManager[Any]:
        """A context in which the framework has no float64, where it can be without."""

    @abc.abstractmethod
    def reverse_modes(self) -> list[tuple[Any, str, str]]:
        """Where its own reverse modes are found: (owner, attribute, what it is called)."""
