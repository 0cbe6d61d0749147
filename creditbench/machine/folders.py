"""Paths: this package, the shipped plug-ins, and the cache."""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]  #: creditbench


def checkout() -> Path | None:
    """This package's git checkout; None if it was installed without one."""
    return PACKAGE.parent if (PACKAGE.parent / ".git").exists() else None


def shipped(kind: str) -> Path:
    """The folder of shipped `tasks` or `learners`: beside the package in a checkout, inside it in a wheel."""
    inside = PACKAGE / kind
    return inside if inside.is_dir() else PACKAGE.parent / kind


def cache_folder() -> Path:
    """The folder of cached data and compiled programs. It need not exist."""
    named = os.environ.get("CREDITBENCH_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "creditbench"
