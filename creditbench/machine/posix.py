"""Whether the system can run trials: they take processes, locks and limits that Linux and macOS have."""

from __future__ import annotations

import importlib.util

from creditbench.errors import UsageError


def require_posix(what: str) -> None:
    """Raise `UsageError` unless this is Linux, macOS or a like system. `what`: what would be run."""
    if importlib.util.find_spec("fcntl") is None:
        raise UsageError(
            f"{what} needs Linux or macOS, for its processes and their limits, and this system is neither: "
            "run it under WSL or in a container, and read its results here"
        )
