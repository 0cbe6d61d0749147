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
PROJECT = ROOT / "creditbench" / "plugins" / "templates" / "project" / ".github" / "workflows" / "ci.yml"
ACTION = ROOT / ".github" / "actions" / "track" / "action.yml"
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

pytestmark = pytest.mark.skipif(not WORKFLOWS, reason="no workflows here: this is no checkout")


#: Jobs that may do more than read.
PUBLISH = [("docs", "publish"), ("release", "publish")]
#: Actions that are not GitHub's own: PyPI's, for which it trusts a workflow.
OTHERS = ["pypa/gh-action-pypi-publish@v1.13.0"]


def jobs(path):
    return yaml.safe_load(path.read_text())["jobs"]


def steps(path):
    return [step for job in jobs(path).values() for step in job["steps"]]


def faults(step):
    """What is wrong with one step, as sentences."""
    found = []
    if "uses" in step:
        if not re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"]) and step["uses"] not in OTHERS:
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
    assert [path.stem for path in WORKFLOWS] == [
        "check-submission",
        "docs",
        "performance",
        "release",
        "tests",
    ]


@pytest.mark.parametrize(
    ("schema", "files"), [("github-workflows", [*WORKFLOWS, PROJECT]), ("github-actions", [ACTION])]
)
def test_workflows_and_actions_are_valid(schema, files):
    if importlib.util.find_spec("check_jsonschema") is None:
        pytest.skip("check-jsonschema is not installed: pip install 'creditbench[dev]'")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}"]
    answer = subprocess.run([*command, *files], capture_output=True, text=True, timeout=60)
    assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.mark.parametrize("path", [*WORKFLOWS, PROJECT], ids=lambda path: path.stem)
def test_workflows_can_only_read_know_no_secret_and_end(path):
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    assert "pull_request_target" not in path.read_text() and "secrets" not in path.read_text()
    for name, job in jobs(path).items():
        assert job["timeout-minutes"] <= 60
        assert "permissions" not in job or (path.stem, name) in PUBLISH


def test_what_publishes_a_release_runs_no_code_of_the_repository():
    job = jobs(ROOT / ".github" / "workflows" / "release.yml")["publish"]
    assert job["permissions"] == {"id-token": "write"} and job["needs"] == "build"
    assert all("uses" in step for step in job["steps"])
    assert "checkout" not in str(job["steps"])


def test_what_publishes_the_site_runs_no_code_of_the_repository_and_from_main_alone():
    job = jobs(ROOT / ".github" / "workflows" / "docs.yml")["publish"]
    assert job["permissions"] == {"pages": "write", "id-token": "write"}
    assert [list(step) for step in job["steps"]] == [["uses", "id"]]
    assert "github.ref == 'refs/heads/main' && github.event_name != 'pull_request'" in job["if"]


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


# -- the action for other repositories -----------------------------------------------------------------------


def test_the_workflow_of_a_new_project_uses_the_action_in_three_lines():
    found = [step for step in steps(PROJECT) if "track" in step.get("uses", "")]
    assert [step["uses"] for step in found] == ["./.github/actions/track"]
    assert found[0]["with"].keys() <= yaml.safe_load(ACTION.read_text())["inputs"].keys()
    said = [
        fault for step in steps(PROJECT) if step not in found and "run" not in step for fault in faults(step)
    ]
    assert said == []


@pytest.mark.parametrize("status", [0, 1])
@pytest.mark.parametrize("given", [{}, {"base": "0" * 40}, {"base": "main", "learner": "a.py,rules/"}])
def test_the_action_checks_gates_and_writes_a_summary(tmp_path, given, status):
    """Its steps as a runner starts them, with a command that repeats its arguments and ends with `status`."""
    action = yaml.safe_load(ACTION.read_text())
    command = tmp_path / "creditbench"
    command.write_text(f'#!/bin/sh\necho "$@"\nexit {status}\n')
    command.chmod(0o755)
    summary = tmp_path / "summary"
    values = {name: given.get(name, each["default"]) for name, each in action["inputs"].items()}
    said = []
    for step in action["runs"]["steps"]:
        # What others write must not become a part of a script.
        assert "${{" not in step["run"] and step["shell"] == "bash"
        own = {
            key: values[re.fullmatch(r"\$\{\{ inputs\.(\w+) \}\}", text)[1]]
            for key, text in step["env"].items()
        }
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            env={"PATH": f"{tmp_path}:/usr/bin:/bin", "GITHUB_STEP_SUMMARY": str(summary)} | own,
            capture_output=True,
            text=True,
            timeout=60,
        )
        said.append(done.stdout.strip())
        gates = given.get("base", "") == "main"
        assert done.returncode == (status if step["name"] == "Check" or gates else 0), done.stderr
    rules = "a.py rules/ " if gates else ""
    assert said[0] == f"check {rules}--backend jax,torch" and said[0] in summary.read_text()
    options = "--learner a.py,rules/ --threshold 1.1 --backend jax,torch"
    assert said[1] == (f"perf-gate --base main {options} --summary {summary}" if gates else "")
    assert ("Nothing to compare with" in summary.read_text()) is not gates
    assert summary.read_text().count("```") == 2
