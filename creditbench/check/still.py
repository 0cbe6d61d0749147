"""A call with the clocks stopped and the global generators of random numbers seeded."""

from __future__ import annotations

import contextlib
import random
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

_CLOCKS = ("time", "perf_counter", "monotonic", "process_time")


@contextlib.contextmanager
def stopped_clock(module: str, now: float) -> Iterator[None]:
    """The clocks of `time`, and those that the module has imported from it, stand at `now` seconds."""
    owner, moved = sys.modules[module], []
    for name in (*_CLOCKS, *(f"{name}_ns" for name in _CLOCKS)):
        real, value = getattr(time, name), int(now * 1e9) if name.endswith("_ns") else now
        for place, own in [(time, name), *((owner, k) for k, held in vars(owner).items() if held is real)]:
            setattr(place, own, lambda value=value: value)
            moved.append((place, own, real))
    try:
        yield
    finally:
        for place, own, real in moved:
            setattr(place, own, real)


@contextlib.contextmanager
def other_seed(seed: int) -> Iterator[None]:
    """Seed the global generators of Python, NumPy and PyTorch; restore them afterwards."""
    before = global_states()
    try:
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - the check is about the global state
        if "torch" in sys.modules:
            # This module serves both frameworks.
            import torch

            torch.manual_seed(seed)
        yield
    finally:
        random.setstate(before["Python"])
        np.random.set_state(before["NumPy"])  # noqa: NPY002
        if "PyTorch" in before:
            # This module serves both frameworks.
            import torch

            torch.set_rng_state(before["PyTorch"])


def global_states() -> dict[str, Any]:
    """The states of the global generators of Python, NumPy and, if it is loaded, PyTorch."""
    found = {"Python": random.getstate(), "NumPy": np.random.get_state()}  # noqa: NPY002
    if "torch" in sys.modules:
        # This module serves both frameworks.
        import torch

        found["PyTorch"] = torch.get_rng_state()
    return found
