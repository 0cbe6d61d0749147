"""`Ops`: one vocabulary over JAX and PyTorch. Only the framework in use is imported."""

from __future__ import annotations

import importlib.util
import os

from creditbench.errors import UsageError, unknown
from creditbench.machine.frameworks import FRAMEWORKS
from creditbench.ops.base import Array, DType, Key, Ops, Outer, Tree

# A benchmark shares its device: JAX takes memory there as it is needed, so that its peak can be read.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

BACKENDS = tuple(FRAMEWORKS)
#: Those that compile a program for its shapes, which seeds then share, and which may be kept for other
#: processes.
COMPILED = frozenset(name for name, framework in FRAMEWORKS.items() if framework.compiles)

__all__ = ["BACKENDS", "COMPILED", "Array", "DType", "Key", "Ops", "Outer", "Tree", "make_ops"]


def make_ops(backend: str, device: str = "cpu", dtype: DType = "float32") -> Ops:
    """The vocabulary over one framework, on one device.

    `device`: `cpu`, or what the framework has beside it: `cuda`, `cuda:1`, `gpu`, `tpu`.
    Raises `UsageError` when the backend or the device is not there; nothing falls back to the CPU.
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
