"""What works on this machine. Each backend is examined in a process of its own, so a broken one is harmless.

`python -P -m creditbench.check.doctor ORDERS REPORTS` (`creditbench.machine.child`) takes one order, and
sends the results of that process.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import creditbench
from creditbench import isolation
from creditbench.errors import ConfinedError, UsageError, bringing
from creditbench.machine.child import Child, Send
from creditbench.machine.environment import fingerprint
from creditbench.machine.frameworks import installed
from creditbench.machine.threads import thread_environment, usable_cores
from creditbench.measure.roofline import peaks
from creditbench.ops import make_ops

_DEADLINE = 120.0  # seconds for one process
_PEAKS = ("gemm_gflops", "triad_gbytes")


def machine() -> dict[str, Any]:
    """Processor, cores, memory, system and versions."""
    known = fingerprint("jax")  # the values used below do not depend on the backend
    names = ("system", "cpu", "cores", "cores_usable", "memory_bytes", "python", "commit")
    return {name: known[name] for name in names} | {"creditbench": creditbench.__version__}


def confinement() -> dict[str, Any]:
    """Tries what confined code is refused, and what holds its memory. Never raises.

    `landlock`, `seccomp`, `memory` ("control group v2" or "counted"), `refused`, `error`.
    """
    found: dict[str, Any] = isolation.confinement()
    found |= {"memory": "", "refused": {}, "error": isolation.missing()}
    try:
        found["refused"] = isolation.probe()
        found["memory"] = isolation.memory()
    except ConfinedError as error:
        return found | {"error": f"a confined process did not start: {error.detail}"}
    return found


def examine(backend: str) -> dict[str, Any]:
    """Whether a backend works, its version, its devices and their speed. Never raises.

    `gemm_gflops`, `triad_gbytes`: the peaks of `creditbench.measure.roofline` on all usable cores; `peaks`
    has them on one thread, on all threads and on each accelerator, each measured in a process of its own,
    since JAX fixes its threads when it starts. An accelerator that does not work has its `error` there.
    """
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
        return found | {"error": f"not installed: pip install {bringing(backend)}"}
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
    """The result of `_probe` in a separate process, or `error`."""
    environment = os.environ | thread_environment(threads)
    try:
        found, code, last = _child(environment, do="probe", backend=backend, threads=threads, device=device)
    except TimeoutError:
        return {"error": f"did not answer within {_DEADLINE:g} s"}
    if code or not found:
        return {"error": f"exit code {code}: {last or 'nothing was printed'}"}
    return found


def _child(environment: Mapping[str, str] | None, **order: Any) -> tuple[dict[str, Any], int, str]:
    """The answer of a separate process to an order, its exit code, and the last line that it printed.

    Raises `TimeoutError` if it does not end within the deadline.
    """
    with Child("-m", "creditbench.check.doctor", environment=environment, session=False) as child:
        clock = time.monotonic()
        child.send(**order)
        found = child.receive(_DEADLINE) or {}
        code = child.code(max(0.0, clock + _DEADLINE - time.monotonic()))
        if code is None:
            raise TimeoutError
        return found, code, child.last_line()


def require_device(backend: str, device: str) -> None:
    """Raise `UsageError` unless that backend works with that device.

    The CPU is taken for granted if the backend is installed. Another device is tried in a separate process,
    so that this one needs no framework.
    """
    if importlib.util.find_spec(backend) is None:
        others = ", ".join(installed())
        cure = f", or name another backend: {others}" if others else ""
        raise UsageError(f"backend {backend!r} is not installed: pip install {bringing(backend)}{cure}")
    if device == "cpu":
        return
    try:
        found, code, last = _child(None, do="device", backend=backend, device=device)
    except TimeoutError:
        raise UsageError(
            f"{backend} did not find {device} within {_DEADLINE:g} s; see: creditbench doctor"
        ) from None
    if "usage_error" in found:
        raise UsageError(found["usage_error"])
    if code:
        why = last or "it ended without a word"
        raise UsageError(f"{backend} cannot be used on {device} ({why}); see: creditbench doctor")


def _device(backend: str, device: str) -> dict[str, Any]:
    """Why a backend does not work with a device, as `usage_error`; empty if it does."""
    try:
        make_ops(backend, device)
    except UsageError as error:
        return {"usage_error": str(error)}
    return {}


def _probe(backend: str, threads: int, device: str) -> dict[str, Any]:
    """What this process knows of a backend, and the speed of a device with it on so many threads."""
    clock = time.perf_counter()
    importlib.import_module(backend)
    imported = time.perf_counter() - clock
    ops = make_ops(backend, device)
    ops.host.set_threads(threads)
    best = peaks(ops)
    return {
        "devices": ops.host.devices(),
        "import_seconds": round(imported, 2),
        "gemm_gflops": round(best.gemm_gflops, 1),
        "triad_gbytes": round(best.triad_gbytes, 1),
    }


#: Orders to a separate process.
_ORDERS: dict[str, Callable[..., dict[str, Any]]] = {"probe": _probe, "device": _device}


def main() -> None:
    """Do one order."""
    send = Send(*map(int, sys.argv[1:3]))
    order = send.receive()
    if order is not None:
        send(**_ORDERS[order.pop("do")](**order))


if __name__ == "__main__":
    main()
