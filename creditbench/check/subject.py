"""A learner under one backend, the subject of the checks."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, TypeVar

from creditbench.cells import Cell, Tanh
from creditbench.check.probe import (
    arguments,
    difference,
    injected,
    lively,
    make_batch,
    make_cell,
    quick_ops,
    segment_of,
    wrapped,
)
from creditbench.check.still import other_seed, stopped_clock
from creditbench.learner import Batch, Claims
from creditbench.ops import Ops, make_ops
from creditbench.plugins.importing import Plugin

T = TypeVar("T")

#: The value of a rule's field `sigma` for a claim about the limit of small noise.
SMALL = 1e-4


@dataclasses.dataclass(frozen=True)
class Subject:
    """A learner, a backend and a kind of cell. Values that take time to make are made once."""

    plugin: Plugin
    backend: str
    kind: type[Cell] = Tanh
    _made: dict[Callable[[Any], Any], Any] = dataclasses.field(
        default_factory=dict, compare=False, repr=False
    )

    @cached_property
    def rule(self) -> Any:
        """The learner at its default hyper-parameters."""
        return self.plugin.cls()

    @cached_property
    def precise(self) -> Any:
        """The learner with its field `sigma`, if it has one, so small that higher orders vanish."""
        if any(field.name == "sigma" for field in dataclasses.fields(self.rule)):
            return dataclasses.replace(self.rule, sigma=min(self.rule.sigma, SMALL))
        return self.rule

    @cached_property
    def claims(self) -> Claims:
        """The claims of the learner in this kind of cell."""
        found: Claims = self.rule.claims.on(self.plain)
        return found

    @cached_property
    def ops(self) -> Ops:
        """The backend in float64, for oracles."""
        return quick_ops(self.backend)

    @contextlib.contextmanager
    def single_precision(self) -> Iterator[Ops]:
        """The backend as it trains: float32, fully optimised, and JAX without float64."""
        with self.ops.host.single_precision():
            yield make_ops(self.backend)

    @cached_property
    def injected(self) -> Any:
        """The backend with noise that is the same in both."""
        return injected(self.backend)

    @cached_property
    def repeated(self) -> Any:
        """The backend with the same noise whatever the key."""
        return injected(self.backend, repeated=True)

    @cached_property
    def level(self) -> Any:
        """The backend with noise that is the same for all sequences and units of a draw."""
        return injected(self.backend, level=True)

    @cached_property
    def plain(self) -> Cell:
        """The cell of most checks."""
        return self.cell(0.3)

    def cell(self, alpha: float = 1.0, **options: Any) -> Cell:
        """A small cell, by the options of `make_cell`; `alpha` counts where it has a leak."""
        return make_cell(alpha if self.kind.leaky else 1.0, kind=self.kind, **options)

    def params(self, cell: Cell, seed: int = 0) -> Any:
        """Weights of a cell, in the form that the rule uses."""
        return self.rule.weights(cell, lively(cell, seed))

    def first_state(self, rows: int) -> Any:
        """The state of so many sequences before the first segment."""
        params = self.ops.from_numpy(self.params(self.plain))
        return self.rule.init(self.ops, self.plain, params, rows)

    def arguments(
        self,
        ops: Any = None,
        cell: Cell | None = None,
        batch: Batch | None = None,
        key: int = 1,
        state: Any = None,
    ) -> tuple[Any, ...]:
        """The arguments of a segment: (params, state, batch, key), of the rule decorrelated if the cell is.

        `ops`: the backend, the subject's own if None. `cell`: None for the plain one. `batch`: NumPy arrays;
        None for one that fits the cell.
        """
        cell = cell or self.plain
        rule, batch = wrapped(self.rule, cell), make_batch(loss=cell.loss) if batch is None else batch
        return arguments(ops or self.ops, rule, cell, self.params(cell), batch, key, state)

    def estimate(self, ops: Any = None, cell: Cell | None = None, **given: Any) -> tuple[Any, ...]:
        """One segment, traced anew: (loss, dense gradients, state, assigned) in NumPy. `given`: arguments."""
        ops, cell = ops or self.ops, cell or self.plain
        args = self.arguments(ops, cell, **given)
        return ops.to_numpy(ops.compile(segment_of(ops, wrapped(self.rule, cell), cell), *args)(*args))

    @cached_property
    def program(self) -> Any:
        """A segment, compiled once, for many batches and weights with the shapes of `arguments()`."""
        return self.ops.compile(segment_of(self.ops, self.rule, self.plain), *self.arguments())

    def stopped_estimate(self, *, key: int = 1, now: float = 1e9, seed: int = 0) -> Any:
        """One estimate, traced anew, with the clock stopped at `now` and the global generators seeded."""
        with stopped_clock(self.plugin.cls.__module__, now), other_seed(seed):
            return self.estimate(key=key)

    @cached_property
    def first(self) -> Any:
        """An estimate with stopped clock and seeded global generators, to compare others with."""
        return self.stopped_estimate()

    @cached_property
    def noisy(self) -> bool:
        """Whether two keys give two results."""
        return difference(self.first, self.stopped_estimate(key=2))[0] > 0

    def once(self, f: Callable[[Subject], T]) -> T:
        """`f` of this subject, computed once."""
        if f not in self._made:
            self._made[f] = f(self)
        return self._made[f]
