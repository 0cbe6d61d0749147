"""The READMEs under results/ show the output of their commands on the tables beside them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from creditbench.cli import main
from creditbench.results.store import Store
from tests.synthetic import make

ROOT = Path(__file__).parents[1]
#: Verbs that print a table of what is there; all others measure, or write.
PRINT = ("table", "versus", "compare")


def blocks(text: str) -> list[list[str]]:
    """The tables of a Markdown text, each its lines."""
    found: list[list[str]] = [[]]
    for line in text.splitlines():
        if line.startswith("|"):
            found[-1].append(line)
        elif found[-1]:
            found.append([])
    return [block for block in found if block]


def shown() -> Iterator[tuple[Path, str, list[str]]]:
    """Every README, command and table. The command is the last one before the table that prints tables."""
    for path in sorted((ROOT / "results").rglob("README.md")):
        command, table = "", []
        for line in [*path.read_text(encoding="utf-8").splitlines(), ""]:
            if line.startswith("|"):
                table.append(line)
                continue
            if table and command:
                yield path, command, table
            if table or line.startswith("#"):
                command, table = "", []
            if named := re.findall(r"`creditbench (.+?)`", line):
                verb, _, rest = named[-1].partition(" ")
                command = named[-1] if verb in PRINT and "--format" in rest else ""


@pytest.mark.parametrize(
    ("path", "command", "table"),
    [pytest.param(*found, id=f"{found[0].parent.name}: {found[1]}") for found in shown()],
)
def test_a_table_of_a_readme_is_what_its_command_prints(path, command, table, capsys, monkeypatch):
    """As of the sources that its trials were run with: what has changed since is another matter."""
    for module in ("leaderboard.board", "results.table"):
        monkeypatch.setattr(f"creditbench.{module}.stale", lambda record: "")
    monkeypatch.chdir(ROOT)
    assert main(shlex.split(command)) == 0
    printed = blocks(capsys.readouterr().out)
    assert table in printed, f"{path.relative_to(ROOT)}: put in what `creditbench {command}` prints"


def test_every_version_shows_its_ranking_and_its_tasks():
    """So that the test above has something to hold."""
    found = {(path.parent, command.rpartition(" ")[2]) for path, command, _ in shown()}
    versions = [path.parent for path in (ROOT / "results").glob("v*/**/trials.csv")]
    assert versions and {(v, form) for v in versions for form in ("ranking", "tasks")} <= found


def test_the_readme_of_a_version_is_of_its_tables(tmp_path, capsys, monkeypatch):
    """Not of the records that they were made from: what differs there beyond their digits is a tie."""
    source = tmp_path / "source.py"
    source.write_text("# stands for every rule and task\n")
    made = make(source, rules=2, tasks=2, backends=("jax",), measured=False)
    known = {(r.trial.task, r.trial.seed): r for r in made.records if r.trial.learner == "bptt"}
    for record in made.records:
        ahead = known[record.trial.task, record.trial.seed].normalised_score + 1e-13
        changed = {} if record.trial.learner == "bptt" else {"normalised_score": ahead}
        Store(tmp_path / "run").put(record.model_copy(update=changed))
    version = tmp_path / "v"
    assert main(["table", "--results", str(tmp_path / "run"), "--compact", str(version)]) == 0
    capsys.readouterr()
    assert main(["table", "--results", str(version), "--format", "ranking"]) == 0
    (printed,) = blocks(capsys.readouterr().out)
    assert printed in blocks((version / "README.md").read_text(encoding="utf-8"))
