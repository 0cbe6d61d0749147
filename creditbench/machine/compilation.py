"""JAX's persistent compilation cache: a program is compiled once on a machine, not once in every process.

It lies beside the data in the cache folder, in a folder of this kind of processor: what is kept is machine
code. Only processes of the harness's own use it. A confined one can neither read nor write there, since what
it wrote would run elsewhere. What the user has set of JAX's own, `JAX_COMPILATION_CACHE_DIR` or
`JAX_ENABLE_COMPILATION_CACHE`, stands.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from creditbench.machine.folders import cache_folder

#: Bytes that are kept, at most; when there are more, the oldest go until half of it is left.
MOST_BYTES = 2 << 30
_OWN = ("JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE")


def folder() -> Path:
    """Where programs for this kind of processor are kept; it need not exist."""
    return cache_folder() / f"jax-{hashlib.sha256(_processor().encode()).hexdigest()[:12]}"


def keep_programs() -> None:
    """Have this process take programs from the cache, and keep there what it compiles. For JAX; before it compiles.

    A cache that cannot be read or written costs time and nothing else.
    """
    if any(os.environ.get(name) for name in _OWN):
        return
    where = folder()
    try:
        where.mkdir(parents=True, exist_ok=True)
        _prune(where)
    except OSError:
        return  # there is nowhere to keep anything
    # Where JAX runs alone.
    import jax

    jax.config.update("jax_compilation_cache_dir", str(where))
    # Hundreds of small programs take longer to compile than to read.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    # A process that was killed while it wrote leaves half an entry, which is then compiled anew.
    warnings.filterwarnings("ignore", message=".*persistent compilation cache entry.*")


@contextlib.contextmanager
def taken_from_cache() -> Iterator[list[str]]:
    """A list that grows with each program that comes from the cache meanwhile; of PyTorch it stays empty."""
    found: list[str] = []
    jax = sys.modules.get("jax")
    if jax is None:
        yield found
        return

    def listen(name: str, **_: object) -> None:
        if name == "/jax/compilation_cache/cache_hits":
            found.append(name)

    jax.monitoring.register_event_listener(listen)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_listener(listen)


def _prune(where: Path) -> None:
    """Remove the oldest entries of a cache that has grown over its limit."""
    with os.scandir(where) as entries:
        known = [(entry.stat(), entry.path) for entry in entries if entry.is_file()]
    total = sum(stat.st_size for stat, _ in known)
    if total <= MOST_BYTES:
        return
    for stat, path in sorted(known, key=lambda one: one[0].st_mtime):
        if total <= MOST_BYTES // 2:
            break
        with contextlib.suppress(FileNotFoundError):  # another process was quicker
            os.unlink(path)
        total -= stat.st_size


def _processor() -> str:
    """What code for a CPU may depend on: its instructions."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("flags", "Features")):
                return f"{platform.machine()} {line.partition(':')[2].strip()}"
    return f"{platform.machine()} {platform.processor()}"
