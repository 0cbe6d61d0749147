"""`creditbench perf-gate`: whether this checkout is slower or bigger than another revision."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from creditbench.cli import options, printing
from creditbench.errors import UsageError


def perf_gate(
    base: Annotated[str, typer.Option(help="Revision to compare with: a branch, tag or hash.")],
    learner: Annotated[str, typer.Option(help="Ids of rules, comma-separated.  [default: all]")] = "",
    backend: options.Backends = "jax,torch",
    threshold: Annotated[
        float, typer.Option(help="Ratio of times above which the whole interval must lie to fail.")
    ] = 1.1,
    pairs: Annotated[int, typer.Option(help="Pairs of blocks of a rule.")] = 80,
    summary: Annotated[
        Path | None, typer.Option(help="File to which the table is added as Markdown.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Compare the rules of this checkout, uncommitted changes included, with those of another revision.

    Both are measured in turn on this machine: FLOPs, algorithm bytes, operations, compilations, and time as a
    paired ratio. Exits 1 if an exact figure grew, a rule is slower beyond doubt, a rule crashed, or nothing
    was compared.

    \b
    Examples:
      creditbench perf-gate --base main
      creditbench perf-gate --base HEAD~1 --learner anp,np --backend torch
      creditbench perf-gate --base origin/main --summary "$GITHUB_STEP_SUMMARY"
    """
    from creditbench.machine.revision import resolve, root, worktree
    from creditbench.ops import BACKENDS
    from creditbench.plugins.registry import load
    from creditbench.studies import gate

    backends = options.known_names("backend", backend, BACKENDS, "perf-gate")
    if not threshold > 1:
        raise UsageError(f"--threshold is {threshold}: give a number above 1, as in 1.1")
    if pairs < 10:
        raise UsageError(f"--pairs is {pairs}: an interval takes 10 or more")
    rules = options.names("learner", learner) if learner else None
    against = f"{base} ({resolve(base)[:9]})"
    end_cleanly()
    total = len(rules or load("learners")) * len(backends)
    with worktree(base) as folder, printing.bars("rules", total) as advance:
        found = gate.compare(folder, root(), rules, backends, threshold, pairs, advance)
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


def end_cleanly() -> None:
    """Make SIGTERM, which ends a job in CI, remove the other revision's folder and end the processes."""

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
