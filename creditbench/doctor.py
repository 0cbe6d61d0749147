"""What works on this machine. Each backend is looked at in a process of its own, so that a broken one harms nothing.

`python -m creditbench.doctor BACKEND` prints what that process finds, as JSON.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import creditbench
from creditbench.errors import UsageError

_DEADLINE = 120.0  # seconds for one process
_GEMM_SIZE = 1024
_TRIAD_SIZE = 1 << 22
_REPEATS = 5
_CHECK = """
import sys
from creditbench.errors import UsageError
from creditbench.ops import make_ops
try:
    make_ops(*sys.argv[1:])
except UsageError as error:
    print("usage:", error)
"""


def machine() -> dict[str, Any]:
    """Processor, cores, memory, system and versions."""
    from creditbench.environment import fingerprint
    from creditbench.executors.base import usable_cores

    known = fingerprint("jax") if importlib.util.find_spec("jax") else {}
    return {
        "system": platform.platform(),
        "cpu": known.get("cpu", platform.processor() or platform.machine()),
        "cores": os.cpu_count(),
        "cores_usable": len(usable_cores()),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "python": platform.python_version(),
        "creditbench": creditbench.__version__,
        "commit": known.get("commit"),
    }


def examine(backend: str) -> dict[str, Any]:
    """Whether a backend works, its version and devices, and how fast the CPU is with it. Never raises.

    `gemm_gflops`: a float32 matrix product of 1024 x 1024; `triad_gbytes`: GB/s of a + s b over 16 MB arrays; the
    best of five, with all threads that the library takes.
    """
    installed = importlib.util.find_spec(backend) is not None
    found = {"backend": backend, "works": False, "version": None, "devices": [], "import_seconds": None}
    found |= {"gemm_gflops": None, "triad_gbytes": None, "error": ""}
    if not installed:
        return found | {"error": f"not installed: pip install {backend}"}
    found["version"] = importlib.metadata.version(backend)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "creditbench.doctor", backend],
            capture_output=True,
            text=True,
            timeout=_DEADLINE,
        )
    except subprocess.TimeoutExpired:
        return found | {"error": f"did not answer within {_DEADLINE:g} s"}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["nothing was printed"])[-1]
        return found | {"error": f"exit code {done.returncode}: {last}"}
    return found | json.loads(done.stdout.strip().splitlines()[-1]) | {"works": True}


def require_device(backend: str, device: str) -> None:
    """Raise `UsageError` unless that backend works with that device.

    The CPU is taken for granted where the backend is installed; another device is looked for in a process of its
    own, so that this one needs no framework.
    """
    if importlib.util.find_spec(backend) is None:
        raise UsageError(f"backend {backend!r} is not installed: pip install {backend}")
    if device == "cpu":
        return
    try:
        done = subprocess.run(
            [sys.executable, "-c", _CHECK, backend, device], capture_output=True, text=True, timeout=_DEADLINE
        )
    except subprocess.TimeoutExpired:
        raise UsageError(
            f"{backend} did not find {device} within {_DEADLINE:g} s; see: creditbench doctor"
        ) from None
    said = next((line for line in done.stdout.splitlines() if line.startswith("usage: ")), None)
    if said:
        raise UsageError(said.removeprefix("usage: "))
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
        raise UsageError(f"{backend} cannot be used on {device} ({last}); see: creditbench doctor")


def _probe(backend: str) -> dict[str, Any]:
    """What this process finds of a backend."""
    import numpy as np

    clock = time.perf_counter()
    rng = np.random.default_rng(0)
    square = rng.standard_normal((_GEMM_SIZE, _GEMM_SIZE), np.float32)
    a, b = rng.standard_normal((2, _TRIAD_SIZE), np.float32)
    if backend == "jax":
        import jax

        imported = time.perf_counter() - clock
        platforms = ("cpu", "gpu", "tpu")
        devices = [str(device) for name in platforms for device in _quietly(lambda: jax.devices(name))]  # noqa: B023
        cpu = jax.devices("cpu")[0]
        x, u, v = (jax.device_put(value, cpu) for value in (square, a, b))
        gemm_compiled, triad_compiled = jax.jit(lambda x: x @ x), jax.jit(lambda u, v: u + 3.0 * v)

        def gemm():
            gemm_compiled(x).block_until_ready()

        def triad():
            triad_compiled(u, v).block_until_ready()
    else:
        import torch

        imported = time.perf_counter() - clock
        devices = ["cpu"]
        for i in range(torch.cuda.device_count()):
            devices.append(f"cuda:{i} ({torch.cuda.get_device_name(i)})")
        x, u, v = (torch.from_numpy(value) for value in (square, a, b))
        product, total = torch.empty_like(x), torch.empty_like(u)

        def gemm():
            torch.mm(x, x, out=product)

        def triad():
            torch.add(u, v, alpha=3.0, out=total)

    return {
        "devices": devices,
        "import_seconds": round(imported, 2),
        "gemm_gflops": round(2 * _GEMM_SIZE**3 / _best(gemm) / 1e9, 1),
        "triad_gbytes": round(3 * a.nbytes / _best(triad) / 1e9, 1),
    }


def _quietly(devices: Callable[[], list]) -> list:
    try:
        return devices()
    except RuntimeError:  # jax knows no such platform
        return []


def _best(f: Callable[[], Any]) -> float:
    """The least seconds of several calls, after one to warm up."""
    f()
    times = []
    for _ in range(_REPEATS):
        clock = time.perf_counter()
        f()
        times.append(time.perf_counter() - clock)
    return min(times)


if __name__ == "__main__":
    print(json.dumps(_probe(sys.argv[1])))
