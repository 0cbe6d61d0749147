"""A user's task runs beside the shipped ones, from a file outside the tree or an installed package."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from creditbench.cli import main
from creditbench.plugins import registry
from tests.conftest import thorough

ROOT = Path(__file__).parents[2]
ECHO = ROOT / "tests" / "misbehaving" / "echo_task.py"
SMALL = (
    *("--learner", "bptt", "--preset", "smoke", "--hidden", "4", "--seeds", "1", "--evaluations", "1"),
    *("--no-measure", "--json"),
)


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A site folder with a package in it that has a task, as pip would leave it."""
    site = tmp_path / "site"
    shutil.copytree(ECHO.parent, site / "echo_package", ignore=lambda _, names: set(names) - {ECHO.name})
    (site / "echo_package" / "__init__.py").touch()
    info = site / "echo_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: echo-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[creditbench.tasks]\necho = echo_package.echo_task:Echo\n")
    return site


def test_a_task_in_a_file_outside_the_tree_runs(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "elsewhere" / "my task.py"
    path.parent.mkdir()
    shutil.copy(ECHO, path)
    arguments = ("--results", str(tmp_path / "results"), "--executor", "inline", *SMALL)
    assert main(["run", "--task", f"adding,{path}", *arguments]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert sorted((row["task"], row["status"]) for row in rows) == [("adding", "ok"), ("echo", "ok")]


@pytest.mark.parametrize("executor", thorough(["inline", "local"], but=["local"]))
def test_a_task_of_an_installed_package_runs(installed: Path, tmp_path: Path, executor: str) -> None:
    """In processes that find the package, among them, with the local executor, workers."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(installed), str(ROOT)])}

    def command(*arguments: str) -> str:
        whole = [sys.executable, "-m", "creditbench", *arguments]
        done = subprocess.run(whole, capture_output=True, text=True, env=environment, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    if executor == "inline":
        listed = {row["id"]: row["source"] for row in json.loads(command("list", "tasks", "--json"))}
        assert listed["echo"] == "entry point echo-package" and listed["adding"] == "builtin"
        assert "echo: train" in command("show", "task", "echo")
        table = command("list", "tasks", "--format", "markdown")
        assert "\n| `echo` | Echo | episodes | 10 | 64 | 1 | 1 | 8 |" in table
    ran = command("run", "--task", "adding,echo", "--executor", executor, "--results", "results", *SMALL)
    rows = json.loads(ran)
    assert sorted((row["task"], row["status"]) for row in rows) == [("adding", "ok"), ("echo", "ok")]


def test_a_task_that_takes_a_known_id_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "t.py"
    path.write_text(ECHO.read_text().replace('id = "echo"', 'id = "adding"'))
    assert main(["run", "--task", str(path), *SMALL]) == 2
    assert "the id 'adding' of" in capsys.readouterr().err
    assert "echo" not in registry.load("tasks")
