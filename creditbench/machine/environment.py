"""The environment of a record.

`fingerprint` has two parts. All but `host` is the same for all trials that one machine ran with the same
versions and settings. `environment_id` is a hash of it, and tables keep it once. `host` is the load of the
machine when the trial started.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from creditbench.machine.folders import checkout
from creditbench.machine.frameworks import FRAMEWORKS

_VARYING = "host"  #: the key of the part that changes from trial to trial
_COMMON = (
    "array-api-compat",
    "numpy",
    "scipy",
    "pandas",
    "scikit-learn",
    "aeon",
    "datasets",
    "pydantic",
    "psutil",
)
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "XLA_FLAGS")
#: Variables that change how a framework or its libraries compute. Confined processes inherit them.
NUMERIC_VARIABLES = (
    *("JAX_ENABLE_X64", "JAX_DEFAULT_MATMUL_PRECISION", "JAX_NUMPY_DTYPE_PROMOTION", "NVIDIA_TF32_OVERRIDE"),
    *("ATEN_CPU_CAPABILITY", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"),
    *("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE", "OPENBLAS_CORETYPE"),
)
_SECONDS = 10.0  # time limit of a command


def fingerprint(backend: str, device: str = "cpu") -> dict[str, Any]:
    """Machine, versions, commit and settings of this process, and the host's load now; plain JSON values.

    `precision` has the framework's number formats if this process has imported it, and is None otherwise.
    """
    return _constant(backend, device) | {"precision": _precision(backend), _VARYING: host()}


def host() -> dict[str, Any]:
    """The machine's load now: load averages over 1, 5 and 15 minutes, bytes of available memory."""
    # psutil is needed for this figure alone.
    import psutil

    return {
        "load": [round(load, 2) for load in psutil.getloadavg()],
        "memory_available_bytes": psutil.virtual_memory().available,
    }


def environment_id(environment: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits of the sha256 of the `constant` part.

    >>> one = {"cpu": "a", "host": {"load": [0.1, 0.1, 0.1]}}
    >>> environment_id(one) == environment_id(one | {"host": {"load": [2.0, 1.0, 1.0]}})
    True
    """
    return hashlib.sha256(json.dumps(constant(environment), sort_keys=True).encode()).hexdigest()[:12]


def constant(environment: Mapping[str, Any]) -> dict[str, Any]:
    """The part that does not change from trial to trial."""
    return {name: value for name, value in environment.items() if name != _VARYING}


def usable_memory() -> int:
    """Bytes of memory that this process may use: the machine's, or its control group's if that is less."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        path = Path(file)
        if path.is_file() and (text := path.read_text().strip()).isdigit():
            limits.append(int(text))
    return min(limits)


@cache
def _constant(backend: str, device: str) -> dict[str, Any]:
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "cores_usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "memory_usable_bytes": usable_memory(),
        "accelerators": [] if device == "cpu" else _accelerators(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": _packages(backend, device),
        "threads": {name: os.environ[name] for name in _THREAD_VARIABLES if name in os.environ},
        "variables": {name: os.environ[name] for name in NUMERIC_VARIABLES if name in os.environ},
        "commit": _git("rev-parse", "HEAD"),
        "dirty": None if (status := _git("status", "--porcelain")) is None else bool(status),
    }


def _packages(backend: str, device: str) -> dict[str, str]:
    framework = FRAMEWORKS[backend]
    names = {name: name for name in (*framework.packages, *_COMMON)}
    if device != "cpu":
        installed = (str(found.metadata["Name"] or "") for found in importlib.metadata.distributions())
        names |= {name: name for name in installed if name.lower().startswith(framework.device_packages)}
    versions = {}
    for name in sorted(names):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # no running task or rule can need it
    return versions


def _precision(backend: str) -> dict[str, Any] | None:
    """How the framework computes with float32: whether it may use TF32, and which code it uses."""
    framework = sys.modules.get(backend)
    return None if framework is None else FRAMEWORKS[backend].precision(framework)


def _accelerators() -> list[dict[str, str]]:
    """Name, memory and driver of each NVIDIA GPU, from its driver, without a framework."""
    answer = _run(["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"])
    rows = [[part.strip() for part in line.split(",")] for line in (answer or "").splitlines() if line]
    return [dict(zip(("name", "memory", "driver"), row, strict=False)) for row in rows]


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _git(*args: str) -> str | None:
    """The output of git for this package's checkout; None without one."""
    root = checkout()
    return _run(["git", "-C", str(root), *args]) if root else None


def _run(command: list[str]) -> str | None:
    """The output of a command; None if it is missing or fails."""
    if shutil.which(command[0]) is None:
        return None
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
