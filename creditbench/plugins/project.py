"""The rules of a repository of somebody else's: its entry points, or files in it.

A *project* is a folder of a git repository, with a pyproject.toml that names its rules, each by its id:

    [project.entry-points."creditbench.learners"]
    my_rule = "my_package.rule:MyRule"

The package lies in the project's `src/`, or in the project itself. `load` imports it from there, unconfined:
whoever calls it trusts the project as its own tests do.
"""

from __future__ import annotations

import importlib.metadata
import sys
import tomllib
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from creditbench.errors import UsageError
from creditbench.plugins.importing import (
    Plugin,
    import_plugin,
    inspect_plugin,
    kind_of,
    load_path,
    require_python,
)

GROUP = "creditbench.learners"


def nearest(folder: Path, top: Path | None = None) -> Path:
    """The project of a folder: the first with a pyproject.toml, from there up to `top`; else `top`, or it."""
    folder = folder.resolve()
    for path in (folder, *folder.parents):
        if (path / "pyproject.toml").is_file():
            return path
        if path == top:
            break
    return top or folder


def is_creditbench(root: Path) -> bool:
    """Whether the folder is a checkout of creditbench, whose rules are the shipped ones."""
    return (root / "creditbench" / "__init__.py").is_file()


def entry_points(root: Path) -> dict[str, str]:
    """The entry points of a project's rules: id -> "module:Class"; empty without any. Raises `UsageError`."""
    path = root / "pyproject.toml"
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))["project"]["entry-points"][GROUP]
        return {str(name): str(value) for name, value in found.items()}
    except (FileNotFoundError, KeyError):
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} cannot be read ({error}): mend it") from None


def ids(root: Path) -> list[str]:
    """The ids of a project's entry points, which are installed. Raises `UsageError` without any."""
    found = list(entry_points(root))
    installed = importlib.metadata.entry_points(group=GROUP).names
    if not found:
        raise UsageError(f"{root} has {no_rules(root)}: name a file or an id, as in my_rule.py")
    if missing := [name for name in found if name not in installed]:
        raise UsageError(f"{', '.join(missing)} of {root} is not installed: pip install -e {root}")
    return found


def no_rules(root: Path) -> str:
    """What a project without rules lacks."""
    what = "no" if (root / "pyproject.toml").is_file() else "no pyproject.toml with"
    return f"{what} entry points of {GROUP}"


def expand(paths: Iterable[Path]) -> list[Path]:
    """The files among the paths, and those in the folders among them that hold a learner.

    Raises `UsageError` for what is no Python file, and for a folder without any.
    """
    found = []
    for path in paths:
        if not path.is_dir():
            require_python("learners", path)
            found.append(path)
            continue
        own = [file for file in sorted(path.glob("*.py")) if _is_learner(file)]
        if not own:
            raise UsageError(f"no file in {path} holds a learner: name another folder, or a file")
        found += own
    return found


def _is_learner(path: Path) -> bool:
    try:
        return kind_of(path) == "learners"
    except UsageError:
        return False


def load(root: Path, files: Sequence[Path] = ()) -> tuple[dict[str, Plugin], dict[str, str]]:
    """The rules of a project, imported: by id, and for those that cannot be used, name -> the reason.

    `files`: these, relative to the project, in place of its entry points; one that is not there is left out.
    Changes `sys.path`, and so belongs in a process of its own. Raises `UsageError`.
    """
    found: dict[str, Plugin] = {}
    broken: dict[str, str] = {}
    there = [path for path in files if (root / path).is_file()]
    makers = [(path.stem, partial(load_path, "learners", root / path)) for path in there]
    if not files:
        makers = [
            (name, partial(from_point, root, name, value)) for name, value in entry_points(root).items()
        ]
    for name, make in makers:
        try:
            plugin = make()
            if plugin.id in found:
                raise UsageError(f"{plugin.path} and {found[plugin.id].path} have the id {plugin.id!r}")
            found[plugin.id] = plugin
        except UsageError as error:
            broken[name] = str(error)
    return found, broken


def from_point(root: Path, name: str, value: str) -> Plugin:
    """The rule of a project's entry point, imported from the project's own files. Raises `UsageError`.

    An installation of the package elsewhere, editable or not, must not come first: this raises if it does.
    """
    module = value.partition(":")[0].strip()
    top = module.split(".")[0]
    sources = [folder for folder in (root / "src", root) if _holds(folder, module)]
    if not sources:
        raise UsageError(
            f"{root / 'pyproject.toml'} names {value}: {module} is neither in src/ nor beside it"
        )
    if str(sources[0]) not in sys.path:
        sys.path.insert(0, str(sources[0]))
    point = importlib.metadata.EntryPoint(name, value, GROUP)
    plugin = inspect_plugin("learners", import_plugin(point.load, value), value)
    for known, loaded in list(sys.modules.items()):
        path = getattr(loaded, "__file__", None) if known.split(".")[0] == top else None
        if path is not None and not Path(path).resolve().is_relative_to(root.resolve()):
            raise UsageError(f"{known} comes from {path}, not from {root}: uninstall {top}")
    if plugin.id != name:
        raise UsageError(
            f"the entry point {name!r} names a rule with the id {plugin.id!r}: give both one name"
        )
    return plugin


def _holds(folder: Path, module: str) -> bool:
    path = folder.joinpath(*module.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()
