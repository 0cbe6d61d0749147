"""`Ops`: one vocabulary over JAX and PyTorch. Only the framework in use is imported."""

from __future__ import annotations

import importlib.util
import os

from creditbench.errors import UsageError, unknown
from creditbench.machine.frameworks import FRAMEWORKS
from creditbench.ops.base import Array, DType, Key, Ops, Outer, Tree

# JAX takes memory on the device only when it needs it, so that others can use the device and the peak can be
# read.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

BACKENDS = tuple(FRAMEWORKS)
#: Backends that compile a program for its shapes. Seeds share it, and it can be kept for other processes.
COMPILED = frozenset(name for name, framework in FRAMEWORKS.items() if framework.compiles)

__all__ = ["BACKENDS", "COMPILED", "Array", "DType", "Key", "Ops", "Outer", "Tree", "make_ops"]


def make_ops(backend: str, device: str = "cpu", dtype: DType = "float32") -> Ops:
    """The vocabulary over one framework, on one device.

    `device`: `cpu`, or another device of the framework: `cuda`, `cuda:1`, `gpu`, `tpu`.
    Raises `UsageError` if the backend or the device is not there. Nothing falls back to the CPU.

    >>> import creditbench as cb
    >>> cb.make_ops("torch", dtype="float64").zeros((2,)).dtype
    torch.float64
    """
    if backend not in BACKENDS:
        raise unknown("backend", backend, BACKENDS, "creditbench list backends")
    if importlib.util.find_spec(backend) is None:
        raise UsageError(f"backend {backend!r} is not installed: pip install {backend}")
    if backend == "jax":
        # Only the framework that is asked for.
        from creditbench.ops.jax import JaxOps

        return JaxOps(device, dtype)
    # Only the framework that is asked for.
    from creditbench.ops.torch import TorchOps

    return TorchOps(device, dtype)
