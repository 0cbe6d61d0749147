"""JAX's persistent compilation cache: a program is compiled once on a machine, not once in every process.

It lies beside the data in the cache folder. Each kind of processor has a folder, because the cache holds
machine code. Only the harness's own processes use it. A confined process can neither read nor write it, since
code that it wrote would run elsewhere. A user's `JAX_COMPILATION_CACHE_DIR` or `JAX_ENABLE_COMPILATION_CACHE`
takes precedence.
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

#: The most bytes in the cache. If there are more, the oldest entries are removed until half is left.
MOST_BYTES = 2 << 30
_OWN = ("JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE")


def folder() -> Path:
    """The folder of programs for this kind of processor. It need not exist."""
    return cache_folder() / f"jax-{hashlib.sha256(_processor().encode()).hexdigest()[:12]}"


def keep_programs() -> None:
    """Let JAX in this process use the cache. Call it before JAX compiles.

    A cache that cannot be read or written costs only time.
    """
    if any(os.environ.get(name) for name in _OWN):
        return
    where = folder()
    try:
        where.mkdir(parents=True, exist_ok=True)
        _prune(where)
    except OSError:
        return  # the folder cannot be used
    # Where JAX runs alone.
    import jax

    jax.config.update("jax_compilation_cache_dir", str(where))
    # Keep small programs too: hundreds of them take longer to compile than to read.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    # A process that was killed while it wrote leaves half an entry, which is compiled again.
    warnings.filterwarnings("ignore", message=".*persistent compilation cache entry.*")


@contextlib.contextmanager
def taken_from_cache() -> Iterator[list[str]]:
    """A list that gains one entry per program taken from the cache; with PyTorch it stays empty."""
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
    """The processor's instruction set, on which its code may depend."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("flags", "Features")):
                return f"{platform.machine()} {line.partition(':')[2].strip()}"
    return f"{platform.machine()} {platform.processor()}"
