"""The frameworks that backends are written on: facts that are known without importing them.

A further backend takes an entry here, its class in `ops`, its host there, and their tests.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Framework:
    """One framework."""

    name: str  #: as people write it
    packages: tuple[str, ...]  #: of its own, whose versions a record keeps
    rounding: tuple[str, ...]  #: those of them whose version may round otherwise
    device_packages: tuple[str, ...]  #: how the names of packages with its device code begin
    compiles: bool  #: whether it compiles a program for its shapes, which seeds then share and processes keep
    precision: Callable[[Any], dict[str, Any]]  #: of the imported framework: how it computes with float32


def _of_jax(jax: Any) -> dict[str, Any]:
    return {
        "matmul": jax.config.jax_default_matmul_precision,
        "x64": jax.config.jax_enable_x64,
        "promotion": jax.config.jax_numpy_dtype_promotion,
    }


def _of_torch(torch: Any) -> dict[str, Any]:
    mkldnn = torch.backends.mkldnn
    return {
        "matmul": torch.get_float32_matmul_precision(),
        "tf32_matmul": torch.backends.cuda.matmul.allow_tf32,
        "tf32_cudnn": torch.backends.cudnn.allow_tf32,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "mkldnn": bool(mkldnn.is_available() and mkldnn.enabled),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


#: By the name of the backend, which is that of the module too.
FRAMEWORKS = {
    "jax": Framework(
        name="JAX",
        packages=("jax", "jaxlib", "ml-dtypes", "opt-einsum"),
        rounding=("jax", "jaxlib"),
        device_packages=("jax-cuda", "jax-rocm", "nvidia-", "libtpu"),
        compiles=True,
        precision=_of_jax,
    ),
    "torch": Framework(
        name="PyTorch",
        packages=("torch", "triton"),
        rounding=("torch",),
        device_packages=("nvidia-", "pytorch-triton"),
        compiles=False,
        precision=_of_torch,
    ),
}


def installed() -> list[str]:
    """The backends whose framework is installed. None is imported."""
    return [name for name in FRAMEWORKS if importlib.util.find_spec(name)]


#: The backend where none is named: the first that is installed.
DEFAULT = (installed() or list(FRAMEWORKS))[0]
