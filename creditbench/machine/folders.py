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


def project_template() -> dict[Path, Path]:
    """The files of `creditbench new project`: place in the project -> template."""
    templates = PACKAGE / "plugins" / "templates"
    found = {Path("src", "my_rule", "rule.py"): templates / "learner.py"}
    # A wheel has the action inside the folder.
    for folder in (templates / "project", PACKAGE.parent):
        inside = folder.rglob("*") if folder != PACKAGE.parent else folder.glob(".github/actions/track/*")
        found |= {
            path.relative_to(folder): path for path in inside if path.is_file() and path.suffix != ".pyc"
        }
    return found


def cache_folder() -> Path:
    """The folder of cached data and compiled programs. It need not exist."""
    named = os.environ.get("CREDITBENCH_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "creditbench"
