"""Resident memory and its peak, of this process or, on Linux, of another process of the same user.

Linux keeps the peak as VmHWM. It can be reset to the present size, so that a process that runs many trials
can measure each of them. Elsewhere there is `ru_maxrss`, which only grows.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import math
import re
import sys
from pathlib import Path

from creditbench.errors import UsageError

with contextlib.suppress(ImportError):  # Windows has none, and no trial runs there
    import resource

_STATUS = Path("/proc/self/status")
_RESET_PEAK = "5"  # proc(5)


def settle() -> tuple[int, bool]:
    """Give free memory back to the system and reset the peak, if possible.

    Returns the bytes from which `peak_bytes` counts, and whether the peak was reset.
    """
    gc.collect()
    with contextlib.suppress(AttributeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)
    return (resident_bytes(), True) if reset_peak() else (peak_bytes(), False)


def reset_peak(process: int | None = None) -> bool:
    """Reset the peak to the present size. Returns whether that is possible here."""
    try:
        _proc(process, "clear_refs").write_text(_RESET_PEAK)
    except OSError:
        return False
    return True


def peak_bytes(process: int | None = None) -> int:
    """Peak of resident memory since the last reset, or since the start of the process."""
    if _STATUS.exists():
        return _field("VmHWM", process)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def resident_bytes(process: int | None = None) -> int:
    """Bytes that are resident now."""
    if _STATUS.exists():
        return _field("VmRSS", process)
    # psutil is needed for this figure alone.
    import psutil

    return psutil.Process(process).memory_info().rss


def _field(name: str, process: int | None) -> int:
    """A figure of a process's status; 0 if the process has ended."""
    try:
        lines = _proc(process, "status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:")), 0)


def _proc(process: int | None, name: str) -> Path:
    return Path("/proc", "self" if process is None else str(process), name)


def read_bytes(text: str) -> int:
    """`4GB`, `512 MiB` or a plain number as bytes. Raises `UsageError` for other texts.

    >>> read_bytes("4GB"), read_bytes("1.5 KiB")
    (4000000000, 1536)
    """
    parts = re.fullmatch(r"([0-9]+\.?[0-9]*)\s*(?:([kmgt])(i?)b?|b)?", text.strip().lower())
    if parts is None or len(parts[1]) > 20:
        raise UsageError(f"memory limit is {text[:40]!r}: give bytes with a unit, as in 4GB or 512MiB")
    number, letter, binary = parts.groups()
    base = 1024 if binary else 1000
    return int(float(number) * base ** (" kmgt".index(letter) if letter else 0))


def show_bytes(count: float) -> str:
    """Bytes for a reader.

    >>> show_bytes(4.2e9), show_bytes(999_999)
    ('4.2 GB', '1 MB')
    """
    count = float(f"{count:.3g}")
    power = min(4, max(0, int(math.log10(count) // 3))) if count >= 1 else 0
    return f"{count / 1000**power:.3g} {('bytes', 'kB', 'MB', 'GB', 'TB')[power]}"
