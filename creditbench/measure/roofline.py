"""The peak speed of a machine with a library, and the share of it that a rule reaches (Williams et al. 2009).

    least time of an update = max(FLOPs / peak, bytes / bandwidth)         share = least time / time

Peak: float32 products of 1024 x 1024, on an accelerator of 8192 x 8192. Bandwidth: a + s b (McCalpin 1995)
over arrays of four times the last cache, so that they cannot come from it; on an accelerator over arrays of
half a gigabyte. Bytes are the least that must come from memory. If the weights fit into the last cache, these
are weights, data and gradient, once per update. If they do not, or the cache is not known, as on an
accelerator, these are the operands and results of all matrix products.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from creditbench.measure import clock
from creditbench.measure.update import Update
from creditbench.ops.base import Ops

_GEMM_SIZE, _GEMM_SIZE_ACCELERATOR = 1024, 8192
#: The least and the most bytes of an array of the triad.
_TRIAD_BYTES = 1 << 24, 1 << 29
_REPEATS = 7


class Peaks(NamedTuple):
    """The best of several calls, on this device with these threads."""

    gemm_gflops: float
    triad_gbytes: float  #: GB/s, with three arrays per call


def peaks(ops: Ops) -> Peaks:
    """The peaks of the device of `ops`, in about a second on one thread."""
    rng = np.random.default_rng(0)
    size = _GEMM_SIZE if ops.device == "cpu" else _GEMM_SIZE_ACCELERATOR
    square = ops.from_numpy(rng.standard_normal((size, size), np.float32) / size)
    itemsize = np.dtype(ops.dtype).itemsize
    entries = (triad_bytes(last_cache_bytes()) if ops.device == "cpu" else _TRIAD_BYTES[1]) // itemsize
    a, b = ops.from_numpy(tuple(np.ones((2, entries), ops.dtype)))
    product = ops.compile(lambda x: x @ x, square)
    if ops.host.traces:
        add = ops.compile(lambda a, b: ops.accumulate(a, b, 1e-3), a, b, donate=(0,))
    else:

        def add(a, b):  # one operation, in place
            return ops.accumulate(a, b, 1e-3)

    total = [a]

    def gemm() -> None:
        ops.synchronize(product(square))

    def triad() -> None:
        total[0] = add(total[0], b)
        ops.synchronize(total[0])

    best = []
    for run in (gemm, triad):
        run()
        best.append(min(clock.seconds(run) for _ in range(_REPEATS)))
    return Peaks(2 * size**3 / best[0] / 1e9, 3 * entries * itemsize / best[1] / 1e9)


def triad_bytes(cache: int | None) -> int:
    """The bytes of an array of the triad, given the size of the last cache."""
    least, most = _TRIAD_BYTES
    return min(max(least, 4 * (cache or 0)), most)


def last_cache_bytes() -> int | None:
    """The size of the first core's last cache (Linux); None if the system does not report it."""
    sizes = []
    for file in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = file.read_text().strip()
        sizes.append(int(text.rstrip("KMG")) * {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(text[-1], 1))
    return max(sizes, default=None)


def least_bytes(update: Update, product_bytes: int, cache: int | None, itemsize: int = 4) -> int:
    """The bytes that must come from memory in one update, with a last cache of `cache` bytes."""
    cell = update.cell
    weights = itemsize * sum(math.prod(shape) for shape in cell.shapes().values())
    if cache is None or weights > cache:
        return product_bytes
    data = itemsize * update.steps * update.batch * (cell.inputs + cell.outputs + 1)
    return 2 * weights + data


def share(peaks: Peaks, flops: float, bytes: float, seconds: float) -> float:
    """The share of the roofline that `flops` and `bytes` in `seconds` reach."""
    least = max(flops / (peaks.gemm_gflops * 1e9), bytes / (peaks.triad_gbytes * 1e9))
    return least / seconds
