"""What works on this machine. Each backend is looked at in a process of its own, so that a broken one harms nothing.

`python -P -m creditbench.check.doctor BACKEND THREADS DEVICE` prints what that process finds, as JSON.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import time
from typing import Any

import creditbench
from creditbench.errors import UsageError

_DEADLINE = 120.0  # seconds for one process
_PEAKS = ("gemm_gflops", "triad_gbytes")
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
    from creditbench.machine.environment import fingerprint

    known = fingerprint("jax")  # of which nothing that follows is a backend's
    names = ("system", "cpu", "cores", "cores_usable", "memory_bytes", "python", "commit")
    return {name: known[name] for name in names} | {"creditbench": creditbench.__version__}


def confinement() -> dict[str, Any]:
    """What confined code is refused here, tried out: `landlock`, `seccomp`, `refused`, `error`. Never raises."""
    from creditbench import isolation
    from creditbench.errors import ConfinedError

    found: dict[str, Any] = isolation.confinement() | {"refused": {}, "error": isolation.missing()}
    try:
        found["refused"] = isolation.probe()
    except ConfinedError as error:
        return found | {"error": f"a confined process did not start: {error.detail}"}
    return found


def examine(backend: str) -> dict[str, Any]:
    """Whether a backend works, its version and devices, and how fast they are with it. Never raises.

    `gemm_gflops`, `triad_gbytes`: the peaks of `creditbench.measure.roofline` on all usable cores; `peaks` has them on
    one thread and on all, and on each accelerator, each taken in a process of its own, since JAX fixes its threads when
    it starts. An accelerator that does not work has its `error` there.
    """
    from creditbench.machine.threads import usable_cores

    installed = importlib.util.find_spec(backend) is not None
    found: dict[str, Any] = {
        "backend": backend,
        "works": False,
        "version": None,
        "devices": [],
        "import_seconds": None,
    }
    found |= {"gemm_gflops": None, "triad_gbytes": None, "peaks": [], "error": ""}
    if not installed:
        return found | {"error": f"not installed: pip install {backend}"}
    found["version"] = importlib.metadata.version(backend)
    peaks = []
    for threads in sorted({1, len(usable_cores())}):
        answer = _ask(backend, threads)
        if "error" in answer:
            return found | answer
        found |= answer
        peaks.append({"device": "cpu", "threads": threads} | {name: answer[name] for name in _PEAKS})
    for device in [shown.split()[0] for shown in found["devices"] if not shown.startswith("cpu")]:
        answer = _ask(backend, 1, device)
        peaks.append(
            {"device": device, "threads": 1} | {name: answer.get(name) for name in (*_PEAKS, "error")}
        )
    return found | {"peaks": peaks, "works": True}


def _ask(backend: str, threads: int, device: str = "cpu") -> dict[str, Any]:
    """What `_probe` finds in a process of its own, or `error`."""
    from creditbench.machine.threads import thread_environment

    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "creditbench.check.doctor", backend, str(threads), device],
            capture_output=True,
            text=True,
            timeout=_DEADLINE,
            env=os.environ | thread_environment(threads),
        )
    except subprocess.TimeoutExpired:
        return {"error": f"did not answer within {_DEADLINE:g} s"}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["nothing was printed"])[-1]
        return {"error": f"exit code {done.returncode}: {last}"}
    return json.loads(done.stdout.strip().splitlines()[-1])


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
            [sys.executable, "-P", "-c", _CHECK, backend, device],
            capture_output=True,
            text=True,
            timeout=_DEADLINE,
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


def _probe(backend: str, threads: int, device: str) -> dict[str, Any]:
    """What this process finds of a backend, and how fast a device is with it on so many threads."""
    from creditbench.ops import make_ops

    clock = time.perf_counter()
    importlib.import_module(backend)
    imported = time.perf_counter() - clock
    ops = make_ops(backend, device)
    ops.host.set_threads(threads)
    from creditbench.measure.roofline import peaks

    best = peaks(ops)
    return {
        "devices": ops.host.devices(),
        "import_seconds": round(imported, 2),
        "gemm_gflops": round(best.gemm_gflops, 1),
        "triad_gbytes": round(best.triad_gbytes, 1),
    }


if __name__ == "__main__":
    print(json.dumps(_probe(sys.argv[1], int(sys.argv[2]), sys.argv[3])))
