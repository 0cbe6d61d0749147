"""Optimisers: pure functions over a dict of parameters, written once on `Ops`.

A gradient may be an array or an `Outer`. Terms linear in the gradient are added by its factors. Adam's
squares keep factors only for a single outer product. A parameter without a gradient stays as it is. The
caller gives up parameters and state: their memory may be reused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from creditbench.errors import require_fraction, require_positive, unknown
from creditbench.ops.base import Array, Ops, Outer, Tree


@dataclass(frozen=True, kw_only=True)
class SGD:
    """θ ← θ - lr g.

    >>> import numpy as np
    >>> import creditbench as cb
    >>> ops = cb.make_ops("torch")
    >>> params, grads = ({"b": ops.from_numpy(np.array([value]))} for value in (1.0, 2.0))
    >>> params, _ = SGD(lr=0.1).update(ops, params, (), grads)
    >>> round(float(params["b"]), 6)
    0.8
    """

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
    """v ← μ v + g; θ ← θ - lr v (Polyak 1964).

    >>> import numpy as np
    >>> import creditbench as cb
    >>> ops = cb.make_ops("torch")
    >>> params, grads = ({"b": ops.from_numpy(np.array([value]))} for value in (1.0, 2.0))
    >>> optimizer = Momentum(lr=0.1, mu=0.5)
    >>> state = optimizer.init(ops, params)
    >>> for _ in range(2):
    ...     params, state = optimizer.update(ops, params, state, grads)
    >>> round(float(params["b"]), 6), float(state["b"])
    (0.5, 3.0)
    """

    id: ClassVar[str] = "momentum"
    mu: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        require_fraction(self, "mu")

    def init(self, ops: Ops, params: Tree) -> Tree:
        return {k: ops.zeros(tuple(p.shape)) for k, p in params.items()}

    def update(self, ops: Ops, params: Tree, state: Tree, grads: Tree) -> tuple[Tree, Tree]:
        velocity = state | {k: ops.accumulate(state[k], g, 1.0, self.mu) for k, g in grads.items()}
        return params | {k: ops.accumulate(params[k], velocity[k], -self.lr) for k in grads}, velocity


@dataclass(frozen=True, kw_only=True)
class Adam(SGD):
    """m ← β1 m + (1-β1) g; v ← β2 v + (1-β2) g²; θ ← θ - lr m̂ / (√v̂ + ε).

    Source: Kingma & Ba 2015, arXiv 1412.6980.

    >>> import numpy as np
    >>> import creditbench as cb
    >>> ops = cb.make_ops("torch")
    >>> params, grads = ({"b": ops.from_numpy(np.array([value]))} for value in (1.0, 2.0))
    >>> optimizer = Adam(lr=0.1)
    >>> params, _ = optimizer.update(ops, params, optimizer.init(ops, params), grads)
    >>> round(float(params["b"]), 4)
    0.9
    """

    id: ClassVar[str] = "adam"
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        require_fraction(self, "beta1", "beta2")
        require_positive(self, "epsilon")

    def init(self, ops: Ops, params: Tree) -> Tree:
        def zeros():
            return {k: ops.zeros(tuple(p.shape)) for k, p in params.items()}

        return {"m": zeros(), "v": zeros(), "step": ops.from_numpy(np.zeros(()))}

    def update(self, ops: Ops, params: Tree, state: Tree, grads: Tree) -> tuple[Tree, Tree]:
        step = state["step"] + 1.0
        correction_v = (1.0 - self.beta2**step) ** 0.5
        rate = self.lr * correction_v / (1.0 - self.beta1**step)
        epsilon = self.epsilon * correction_v
        m, v, params = dict(state["m"]), dict(state["v"]), dict(params)
        for k, g in grads.items():
            m[k] = ops.accumulate(m[k], g, 1.0 - self.beta1, self.beta1)
            v[k] = ops.accumulate(v[k], _square(g), 1.0 - self.beta2, self.beta2)
            # Augmented assignment works in place under PyTorch, on arrays that nobody else holds.
            root = ops.xp.sqrt(v[k])
            root += epsilon
            change = m[k] / root
            change *= rate
            params[k] -= change
        return params, {"m": m, "v": v, "step": step}


def _square(grad: Array | Outer) -> Array | Outer:
    """g², elementwise. The square of one outer product is the outer product of the squares."""
    if isinstance(grad, Outer):
        if grad.post.shape[0] == 1:
            return Outer(grad.post * grad.post, grad.pre * grad.pre)
        grad = grad.dense()
    return grad * grad


OPTIMIZERS = {cls.id: cls for cls in (SGD, Momentum, Adam)}


def make_optimizer(name: str, lr: float) -> SGD:
    """The optimiser of that name. Raises `UsageError` for an unknown name or a rate that is not positive.

    >>> make_optimizer("sgd", 0.1)
    SGD(lr=0.1)
    """
    if name not in OPTIMIZERS:
        raise unknown("optimizer", name, OPTIMIZERS, "creditbench run --help")
    return OPTIMIZERS[name](lr=lr)
