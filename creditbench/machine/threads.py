"""The cores that a process may use, and the threads that libraries start on them."""

from __future__ import annotations

import os


def usable_cores() -> list[int]:
    """The numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def thread_environment(threads: int) -> dict[str, str]:
    """Environment variables that limit the libraries' thread pools to `threads`. They are read at import."""
    xla = (
        f"--xla_cpu_multi_thread_eigen={'true' if threads > 1 else 'false'} "
        f"intra_op_parallelism_threads={threads}"
    )
    pools = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return dict.fromkeys(pools, str(threads)) | {
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {xla}".strip()
    }
