"""Checks and runs the rules and tasks that a change adds or alters, beside the revision before it.

    python .github/submission.py --base REV [--summary FILE]

1. `creditbench check` on every rule and task whose file is new or differs from REV.
2. A small board of these in both backends, by this checkout and, for those that REV has too, by REV.
3. The differences between the two boards.

Exits 1 if a check failed or a trial of this checkout ended in an error. A worse score is shown and does not
fail: at this size it is a hint. The boards lie in results/submission/.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from creditbench.errors import UsageError
from creditbench.machine.revision import changed, root, worktree
from creditbench.plugins.importing import Kind
from creditbench.plugins.registry import load

BOARD = ("--backend", "jax,torch", "--preset", "smoke", "--hidden", "32", "--seeds", "3")
KINDS: tuple[Kind, ...] = ("learners", "tasks")
#: The rules beside a changed rule, and its task.
RULES, TASKS = ("bptt", "readout_rls"), ("mackey_glass", "copy_memory")
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
    """The rules or tasks of a checkout."""
    answer = creditbench(checkout, "list", kind, "--json")
    if answer.returncode:
        raise UsageError(f"the {kind} of {checkout} cannot be listed: see above")
    return [row["id"] for row in json.loads(answer.stdout)]


def board(checkout: Path, rules: list[str], tasks: list[str], results: Path) -> tuple[int, str]:
    """Run a new board: the exit status of the run, and its table."""
    shutil.rmtree(results, ignore_errors=True)
    names = ("--learner", ",".join(rules), "--task", ",".join(tasks), "--results", str(results))
    ran = creditbench(checkout, "run", *names, *BOARD)
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

    # Only files of the folders themselves: deeper ones are a task's data.
    files = [path for path in changed(options.base) if str(path.parent) in KINDS and path.suffix == ".py"]
    if files:
        say(f"{len(files)} files differ from {options.base}: {', '.join(map(str, files))}", "")
        checked = creditbench(head, "check", *map(str, files))
        say("### Check", "", "```", *checked.stdout.rstrip().splitlines()[-LINES:], "```", "")
        if checked.returncode:
            failed.append(f"creditbench check ended with exit code {checked.returncode}")
        rules, tasks = (
            [plugin.id for plugin in load(kind).values() if plugin.path in {head / path for path in files}]
            for kind in KINDS
        )
        rules, tasks = list(dict.fromkeys((*rules, *RULES))), tasks or list(TASKS)
        results = head / "results" / "submission"
        status, table = board(head, rules, tasks, results / "head")
        say("### This change", "", table, "")
        if status:
            why = (
                "a trial ended in an error"
                if status == 1
                else f"creditbench run ended with exit code {status}"
            )
            failed.append(why)
        with worktree(options.base) as base:
            known = (
                [id for id in rules if id in ids(base, "learners")],
                [id for id in tasks if id in ids(base, "tasks")],
            )
            if all(known):
                _, table = board(base, *known, results / "base")
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
        say(f"no rule and no task differs from {options.base}: nothing was checked")
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
