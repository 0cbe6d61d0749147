"""A learner under one backend, as the checks take it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from creditbench.cell import Cell
from creditbench.check.probe import injected, make_params, quick_ops
from creditbench.ops import Ops, make_ops
from creditbench.registry import Plugin

#: What a rule's field `sigma` is set to where a claim is of the limit of small noise.
SMALL = 1e-4


@dataclasses.dataclass(frozen=True)
class Subject:
    """A learner and a backend. What takes time to make is made once."""

    plugin: Plugin
    backend: str

    @cached_property
    def rule(self) -> Any:
        """The learner at its default hyper-parameters."""
        return self.plugin.cls()

    @cached_property
    def precise(self) -> Any:
        """The learner with a field `sigma`, where it has one, so small that what is of higher order vanishes."""
        if any(field.name == "sigma" for field in dataclasses.fields(self.rule)):
            return dataclasses.replace(self.rule, sigma=min(self.rule.sigma, SMALL))
        return self.rule

    @cached_property
    def ops(self) -> Ops:
        """The backend in float64, for oracles."""
        return quick_ops(self.backend)

    @contextlib.contextmanager
    def single_precision(self) -> Iterator[Ops]:
        """The backend as it trains: float32, fully optimised, and JAX without float64."""
        if self.backend != "jax":
            yield make_ops(self.backend)
            return
        import jax

        double = jax.config.jax_enable_x64
        jax.config.update("jax_enable_x64", False)
        try:
            yield make_ops(self.backend)
        finally:
            jax.config.update("jax_enable_x64", double)

    @cached_property
    def injected(self) -> Any:
        """The backend with noise that is the same in both."""
        return injected(self.backend)

    @cached_property
    def repeated(self) -> Any:
        """The backend with the same noise whatever the key."""
        return injected(self.backend, repeated=True)

    def params(self, cell: Cell) -> Any:
        """Weights of a cell, as the rule would have them."""
        return self.rule.weights(cell, make_params(cell))

    @cached_property
    def noisy(self) -> bool:
        """Whether two keys give two results."""
        from creditbench.check.determinism import depends_on_key

        return depends_on_key(self)
