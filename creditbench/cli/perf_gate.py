"""`creditbench perf-gate`: whether this checkout is slower or bigger than another revision."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from creditbench.cli import options, printing
from creditbench.errors import UsageError


def perf_gate(
    base: Annotated[str, typer.Option(help="Revision to compare with: a branch, tag or hash.")],
    learner: Annotated[
        str,
        typer.Option(
            help="Ids of rules, or files and folders of this repository, comma-separated.  [default: "
            "the entry points in pyproject.toml; in creditbench's own checkout the shipped rules]"
        ),
    ] = "",
    backend: options.InstalledBackends = "",
    threshold: Annotated[
        float, typer.Option(help="Ratio of times above which the whole interval must lie to fail.")
    ] = 1.1,
    pairs: Annotated[int, typer.Option(help="Pairs of blocks of a rule.")] = 80,
    summary: Annotated[
        Path | None, typer.Option(help="File to which the table is added as Markdown.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Compare the rules of the repository here, uncommitted changes included, with those of another revision.

    Both are measured in turn on this machine: FLOPs, algorithm bytes, operations, compilations, and time as a
    paired ratio. Exits 1 if an exact figure grew, a rule is slower beyond doubt, a rule crashed, or nothing
    was compared. The code of both revisions runs unconfined, as your tests do: measure what you trust.

    \b
    Examples:
      creditbench perf-gate --base main
      creditbench perf-gate --base HEAD~1 --learner anp,np --backend torch
      creditbench perf-gate --base HEAD~1 --learner rules/
      creditbench perf-gate --base origin/main --summary "$GITHUB_STEP_SUMMARY"
    """
    from creditbench.check.runner import is_path
    from creditbench.machine.revision import resolve, root, worktree
    from creditbench.plugins import project, registry
    from creditbench.studies import gate

    backends = options.backends(backend, "perf-gate")
    if not threshold > 1:
        raise UsageError(f"--threshold is {threshold}: give a number above 1, as in 1.1")
    if pairs < 10:
        raise UsageError(f"--pairs is {pairs}: an interval takes 10 or more")
    items = options.names("learner", learner) if learner else []
    top = root()
    home = project.nearest(Path.cwd(), top)
    files, rules = _files(items, top, home), None if any(map(is_path, items)) else items or None
    if project.is_creditbench(home):
        known = list(registry.builtin("learners"))
    else:
        known = [str(file) for file in files] or list(project.entry_points(home))
    if not known:
        raise UsageError(
            f"{home} has {project.no_rules(home)}: name files of rules, or a folder, as in --learner rules/"
        )
    against = f"{base} ({resolve(base)[:9]})"
    end_cleanly()
    with worktree(base) as folder, printing.bars("rules", len(rules or known) * len(backends)) as advance:
        there = folder / home.relative_to(top)
        found = gate.compare(there, home, rules, backends, threshold, pairs, advance, files)
    if json:
        printing.as_json([row._asdict() for row in found.rows])
    else:
        print(gate.markdown(found, against))
    if summary is not None:
        try:
            with summary.open("a", encoding="utf-8") as file:
                file.write(gate.markdown(found, against))
        except OSError as error:
            raise UsageError(
                f"summary '{summary}' cannot be written ({error.strerror}): name another file"
            ) from None
    for row in found.failures:
        printing.say(gate.sentence(row))
    printing.say(gate.summary(found, against))
    if not found.passed:
        raise typer.Exit(1)


def _files(items: list[str], top: Path, home: Path) -> list[Path]:
    """The named files, relative to the project `home`. Raises `UsageError`."""
    from creditbench.check.runner import is_path
    from creditbench.plugins import project

    named = [Path(item).expanduser().resolve() for item in items if is_path(item)]
    if not named:
        return []
    if project.is_creditbench(home) or len(named) < len(items):
        raise UsageError(
            f"--learner is {','.join(items)}: name ids alone, or, in a repository of your own, files and "
            "folders alone"
        )
    for path in named:
        if not path.is_relative_to(top):
            raise UsageError(f"{path} is not in the repository {top}: name a file or folder of it")
    return [Path(os.path.relpath(path, home)) for path in project.expand(named)]


def end_cleanly() -> None:
    """Make SIGTERM, which ends a job in CI, remove the other revision's folder and end the processes."""

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
