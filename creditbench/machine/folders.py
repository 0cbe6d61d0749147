"""Where things lie: this package, what is shipped with it, and the cache."""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]  #: creditbench


def checkout() -> Path | None:
    """The git checkout that this package lies in; None where it was installed without one."""
    return PACKAGE.parent if (PACKAGE.parent / ".git").exists() else None


def shipped(kind: str) -> Path:
    """The folder of built-in `tasks` or `learners`: beside the package in a checkout, inside it in a wheel."""
    inside = PACKAGE / kind
    return inside if inside.is_dir() else PACKAGE.parent / kind


def cache_folder() -> Path:
    """Where what is read from data files and what is compiled are kept; it need not exist."""
    named = os.environ.get("CREDITBENCH_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "creditbench"
