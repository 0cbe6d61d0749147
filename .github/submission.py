"""Checks and runs the rules, tasks and cells that a change adds or alters, beside the revision before it.

    python .github/submission.py --base REV [--summary FILE]

1. `creditbench check` on every rule, task and cell whose file is new or differs from REV.
2. A small board of these in both backends, by this checkout and, for those that REV has too, by REV.
3. The differences between the two boards.

Exits 1 if a check failed, a trial of this checkout ended in an error, or a cell is not in `CELLS`. A worse
score is shown and does not fail: at this size it is a hint. The boards lie in results/submission/.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from creditbench.errors import UsageError
from creditbench.machine.revision import changed, root, worktree
from creditbench.plugins.importing import Kind
from creditbench.plugins.registry import load
from creditbench.trials.trial import CELL

BOARD = ("--backend", "jax,torch", "--preset", "smoke", "--hidden", "32", "--seeds", "3")
FOLDERS: dict[Kind, str] = {"learners": "learners", "tasks": "tasks", "cells": "creditbench/cells"}
#: The files beside the cells that hold none.
OF_ALL_CELLS = ("__init__", "base", "functions", "shipped", "stack")
#: The rules and tasks beside what has changed, and the rule beside a changed cell, which carries a trace.
RULES, TASKS, ON_A_CELL = ("bptt", "readout_rls"), ("mackey_glass", "copy_memory"), "snap1"
#: The options of a board by kind.
OPTIONS: dict[Kind, str] = {"learners": "--learner", "tasks": "--task", "cells": "--cell"}
#: The summary keeps this many last lines of a command's output.
LINES = 200


def creditbench(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line of a checkout, with this process's standard error."""
    path = os.pathsep.join(filter(None, (str(checkout), os.environ.get("PYTHONPATH"))))
    return subprocess.run(
        [sys.executable, "-P", "-m", "creditbench", *arguments],
        cwd=checkout,
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )


def ids(checkout: Path, kind: str) -> list[str]:
    """The rules, tasks or cells of a checkout."""
    answer = creditbench(checkout, "list", kind, "--json")
    if answer.returncode:
        raise UsageError(f"the {kind} of {checkout} cannot be listed: see above")
    return [row["id"] for row in json.loads(answer.stdout)]


def files_of(paths: Iterable[Path]) -> dict[Path, Kind]:
    """The files that hold a rule, a task or a cell, each with its kind.

    Only files of the folders themselves: deeper ones are a task's data.
    """
    kinds = {folder: kind for kind, folder in FOLDERS.items()}
    return {
        path: kinds[folder]
        for path in paths
        if (folder := path.parent.as_posix()) in kinds
        and path.suffix == ".py"
        and not (kinds[folder] == "cells" and path.stem in OF_ALL_CELLS)
    }


def shipped(files: Mapping[Path, Kind]) -> dict[Path, str]:
    """The ids of those files that this checkout ships: a cell must be in `CELLS`, too."""
    known = {plugin.path: plugin.id for kind in FOLDERS for plugin in load(kind).values()}
    return {file: known[root() / file] for file in files if root() / file in known}


def on_the_board(files: Mapping[Path, Kind]) -> dict[Kind, list[str]]:
    """The ids of a board of these files and of what is run beside them, by kind."""
    found = shipped(files)
    rules, tasks, cells = (
        [id for file, id in found.items() if files[file] == kind] for kind in ("learners", "tasks", "cells")
    )
    # The usual cell is left out where cells alone have changed.
    usual = [CELL] if rules or tasks or not cells else []
    rules += [*RULES, *([ON_A_CELL] if cells else [])]
    return {
        "learners": list(dict.fromkeys(rules)),
        "tasks": tasks or list(TASKS),
        "cells": list(dict.fromkeys([*usual, *cells])),
    }


def board(checkout: Path, ids: Mapping[Kind, Sequence[str]], results: Path) -> tuple[int, str]:
    """Run a new board: the exit status of the run, and its table."""
    shutil.rmtree(results, ignore_errors=True)
    # A base that is older than cells has no such option.
    asked = {kind: names for kind, names in ids.items() if kind != "cells" or list(names) != [CELL]}
    names = [word for kind, own in asked.items() for word in (OPTIONS[kind], ",".join(own))]
    ran = creditbench(checkout, "run", *names, "--results", str(results), *BOARD)
    table = creditbench(checkout, "table", "--results", str(results), "--format", "markdown")
    return ran.returncode, table.stdout


def main() -> int:
    """Check, run, compare, report; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--base", required=True, help="revision that the change starts from")
    parser.add_argument("--summary", type=Path, help="file to which the report is added as Markdown")
    options = parser.parse_args()
    head, report, failed = root(), ["## Submission", ""], []

    def say(*lines: str) -> None:
        print(*lines, sep="\n", flush=True)
        report.extend(lines)

    files = files_of(changed(options.base))
    if files:
        say(f"{len(files)} files differ from {options.base}: {', '.join(map(str, files))}", "")
        checked = creditbench(head, "check", *map(str, files))
        say("### Check", "", "```", *checked.stdout.rstrip().splitlines()[-LINES:], "```", "")
        if checked.returncode:
            failed.append(f"creditbench check ended with exit code {checked.returncode}")
        wanted, found = on_the_board(files), shipped(files)
        failed += [
            f"{file} holds a cell that is not shipped: add its id to CELLS in creditbench/cells/shipped.py"
            for file, kind in files.items()
            if kind == "cells" and file not in found
        ]
        results = head / "results" / "submission"
        status, table = board(head, wanted, results / "head")
        say("### This change", "", table, "")
        if status:
            why = (
                "a trial ended in an error"
                if status == 1
                else f"creditbench run ended with exit code {status}"
            )
            failed.append(why)
        with worktree(options.base) as base:
            known: dict[Kind, list[str]] = {}
            for kind, own in wanted.items():
                there = own if own == [CELL] else ids(base, kind)
                known[kind] = [id for id in own if id in there]
            if all(known.values()):
                _, table = board(base, known, results / "base")
                say(f"### {options.base}", "", table, "")
                compared = creditbench(head, "compare", str(results / "base"), str(results / "head"))
                say(
                    "### What changed",
                    "",
                    "```",
                    *(compared.stdout.rstrip().splitlines() or ["nothing"]),
                    "```",
                    "",
                )
    else:
        say(f"no rule, task or cell differs from {options.base}: nothing was checked")
    say(f"FAILED: {'; '.join(failed)}" if failed else "passed" if files else "")
    if options.summary is not None:
        with options.summary.open("a", encoding="utf-8") as file:
            file.write("\n".join(report) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
