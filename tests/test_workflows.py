"""The workflows: valid by their schema, without rights or secrets, with steps that anyone can run."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml", reason="pyyaml is not installed: pip install 'creditbench[dev]'")

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

pytestmark = pytest.mark.skipif(not WORKFLOWS, reason="no workflows here: this is no checkout")


def jobs(path):
    return yaml.safe_load(path.read_text())["jobs"]


def steps(path):
    return [step for job in jobs(path).values() for step in job["steps"]]


def faults(step):
    """What is wrong with one step, as sentences."""
    found = []
    if "uses" in step:
        if not re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"]):
            found.append(f"{step['uses']} is not an action of GitHub's own with its version")
        if "checkout" in step["uses"] and step.get("with", {}).get("persist-credentials") is not False:
            found.append("the checkout leaves its token in the folder")
    for line in step.get("run", "").splitlines():
        command, *words = line.split()
        if command != "make" or not words or words[0] not in TARGETS:
            found.append(f"{line!r} is no target of the Makefile")
        if "${{" in line:
            found.append(f"{line!r} takes what others write as part of a command: hand it over in env")
    return found


def test_there_is_a_workflow_of_each_kind():
    assert [path.stem for path in WORKFLOWS] == ["check-submission", "performance", "tests"]


def test_workflows_are_valid():
    if importlib.util.find_spec("check_jsonschema") is None:
        pytest.skip("check-jsonschema is not installed: pip install 'creditbench[dev]'")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]
    answer = subprocess.run([*command, *WORKFLOWS], capture_output=True, text=True, timeout=60)
    assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_can_only_read_know_no_secret_and_end(path):
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    assert "pull_request_target" not in path.read_text() and "secrets" not in path.read_text()
    for job in jobs(path).values():
        assert "permissions" not in job and job["timeout-minutes"] <= 60


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_each_step_runs_at_home(path):
    assert [fault for step in steps(path) for fault in faults(step)] == []


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ({"run": "pip install creditbench"}, "no target"),
        ({"run": "make install\nmake nothing"}, "no target"),
        ({"run": "make test ARGS=${{ github.head_ref }}"}, "as part of a command"),
        ({"uses": "actions/checkout@main"}, "with its version"),
        ({"uses": "someone/checkout@v1"}, "GitHub's own"),
        ({"uses": "actions/checkout@v6"}, "leaves its token"),
    ],
)
def test_a_bad_step_is_found(step, said):
    assert any(said in fault for fault in faults(step))


def test_the_versions_of_python_and_the_systems_that_are_promised_are_tested():
    classifiers = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text())
    matrix = jobs(ROOT / ".github" / "workflows" / "tests.yml")["tests"]["strategy"]["matrix"]
    assert matrix["python"] == classifiers
    assert {name.split("-")[0] for name in matrix["os"]} == {"ubuntu", "macos"}


@pytest.mark.parametrize("target", ["perf-gate", "asv", "check-submission"])
def test_targets_pass_base_and_arguments_on(target):
    """Without running them: what make would run."""
    command = ["make", "--dry-run", "--always-make", target, "BASE=some", "ARGS=--summary here"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "--summary here" in said
    if target != "asv":
        assert '--base "some" --summary here' in said
