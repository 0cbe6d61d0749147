"""Functions of which cells are made, in both frameworks."""

from __future__ import annotations

from creditbench.ops.base import Array, Ops


def sigmoid(ops: Ops, x: Array) -> Array:
    """σ(x) = 1/(1 + exp(-x)), elementwise; it does not overflow."""
    return 0.5 + 0.5 * ops.xp.tanh(0.5 * x)


def spike(ops: Ops, over: Array, dampening: float) -> Array:
    """1.0 where `over` is above 0, else 0.0, elementwise, with `spike_slope` for its derivative."""
    xp = ops.xp
    near = xp.clip(over, -1.0, 1.0)
    soft = dampening * (near - 0.5 * near * xp.abs(near))  # its derivative is the surrogate
    return xp.astype(over > 0, over.dtype) + (soft - ops.stop_gradient(soft))


def spike_slope(ops: Ops, over: Array, dampening: float) -> Array:
    """γ max(0, 1 - |u|): the triangular surrogate of the derivative of a spike (Bellec et al. 2020)."""
    return dampening * ops.xp.clip(1.0 - ops.xp.abs(over), min=0.0)
