"""Optimisers: pure functions over a dict of parameters, written once on `Ops`.

A gradient may be an array or an `Outer`. What is linear in it is added by its factors; only Adam, which squares
it, forms it. A parameter without a gradient is left alone. Parameters and state are given up by the caller.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from creditbench.errors import require_positive, unknown
from creditbench.ops.base import Ops, Tree


@dataclass(frozen=True, kw_only=True)
class SGD:
    """θ ← θ - lr g."""

    id: ClassVar[str] = "sgd"
    lr: float

    def __post_init__(self) -> None:
        require_positive(self, "lr")

    def init(self, ops: Ops, params: Tree) -> Tree:
        return ()

    def update(self, ops: Ops, params: Tree, state: Tree, grads: Tree) -> tuple[Tree, Tree]:
        """New (parameters, state)."""
        return params | {k: ops.accumulate(params[k], g, -self.lr) for k, g in grads.items()}, state


@dataclass(frozen=True, kw_only=True)
class Momentum(SGD):
    """v ← μ v + g; θ ← θ - lr v (Polyak 1964)."""

    id: ClassVar[str] = "momentum"
    mu: float = 0.9

    def init(self, ops: Ops, params: Tree) -> Tree:
        return {k: ops.zeros(tuple(p.shape)) for k, p in params.items()}

    def update(self, ops: Ops, params: Tree, state: Tree, grads: Tree) -> tuple[Tree, Tree]:
        velocity = state | {k: ops.accumulate(state[k], g, 1.0, self.mu) for k, g in grads.items()}
        return params | {k: ops.accumulate(params[k], velocity[k], -self.lr) for k in grads}, velocity


@dataclass(frozen=True, kw_only=True)
class Adam(SGD):
    """m ← β1 m + (1-β1) g; v ← β2 v + (1-β2) g²; θ ← θ - lr m̂ / (√v̂ + ε) (Kingma & Ba 2015, arXiv 1412.6980)."""

    id: ClassVar[str] = "adam"
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def init(self, ops: Ops, params: Tree) -> Tree:
        def zeros():
            return {k: ops.zeros(tuple(p.shape)) for k, p in params.items()}

        return {"m": zeros(), "v": zeros(), "step": ops.from_numpy(np.zeros(()))}

    def update(self, ops: Ops, params: Tree, state: Tree, grads: Tree) -> tuple[Tree, Tree]:
        step = state["step"] + 1.0
        correction_m, correction_v = 1.0 - self.beta1**step, (1.0 - self.beta2**step) ** 0.5
        m, v, params = dict(state["m"]), dict(state["v"]), dict(params)
        for k, g in grads.items():
            g = ops.dense(g)
            m[k] = ops.accumulate(m[k], g, 1.0 - self.beta1, self.beta1)
            v[k] = ops.accumulate(v[k], g * g, 1.0 - self.beta2, self.beta2)
            root = ops.xp.sqrt(v[k]) / correction_v + self.epsilon
            params[k] = ops.accumulate(params[k], m[k] / root, -self.lr / correction_m)
        return params, {"m": m, "v": v, "step": step}


OPTIMIZERS = {cls.id: cls for cls in (SGD, Momentum, Adam)}


def make_optimizer(name: str, lr: float) -> SGD:
    """The optimiser of that name. Raises `UsageError` for a name that is not known or a rate that is not positive."""
    if name not in OPTIMIZERS:
        raise unknown("optimizer", name, OPTIMIZERS, "creditbench run --help")
    return OPTIMIZERS[name](lr=lr)
