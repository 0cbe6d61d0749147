"""The wheel, and the documents' statements about it."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from creditbench.cells import Tanh
from creditbench.learner import Batch, backpropagate
from creditbench.machine import folders
from creditbench.machine.folders import project_template
from creditbench.ops import BACKENDS, make_ops
from creditbench.plugins import registry
from creditbench.plugins.importing import Plugin
from creditbench.trials.trainer import run_trials
from creditbench.trials.trial import Trial

ROOT = Path(__file__).parents[1]


# -- the wheel ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this checkout."""
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed: pip install 'creditbench[dev]'")
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--wheel-dir", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(ROOT)], check=True, timeout=60)
    (built,) = folder.glob("*.whl")
    return built


def test_a_wheel_holds_every_source_file_inside_the_package(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    shipped = {name for name in names if ".dist-info/" not in name}
    package = {path.relative_to(ROOT).as_posix() for path in (ROOT / "creditbench").rglob("*.py")}
    folders = {
        f"creditbench/{path.relative_to(ROOT).as_posix()}"
        for kind in ("tasks", "learners")
        for path in (ROOT / kind).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert "creditbench/tasks/data/weather_nyc.csv" in folders
    assert package | folders <= shipped
    assert {name.split("/")[0] for name in shipped} == {"creditbench"}
    project = {f"creditbench/plugins/templates/project/{place}" for place in project_template()}
    assert project - shipped == {
        "creditbench/plugins/templates/project/src/my_rule/rule.py"
    }  # it is learner.py


def test_a_wheel_finds_its_tasks_and_learners_inside_the_package(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    program = (
        "from creditbench.machine import folders; from creditbench.plugins import registry; "
        "print(folders.shipped('tasks'), *registry.load('tasks'), *registry.load('learners'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    expected = [site / "creditbench" / "tasks", *registry.load("tasks"), *registry.load("learners")]
    assert done.stdout.split() == [str(value) for value in expected]


def test_a_checkout_reads_tasks_and_learners_from_its_root() -> None:
    assert folders.shipped("tasks") == ROOT / "tasks"
    assert folders.shipped("learners") == ROOT / "learners"


# -- the documents -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def documented_rule(tmp_path_factory: pytest.TempPathFactory) -> Plugin:
    """The rule that CONTRIBUTING.md walks through."""
    document = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (source,) = re.findall(r"^```python\n(.*?)^```", document, re.DOTALL | re.MULTILINE)
    path = tmp_path_factory.mktemp("rule") / "delta_readout.py"
    path.write_text(source, encoding="utf-8")
    return registry.find("learners", "delta_readout", [path], imports=True)


@pytest.mark.parametrize("decorrelate", ["none", "both"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_documented_rule_learns(documented_rule: Plugin, backend: str, decorrelate: str) -> None:
    task = registry.find("tasks", "copy_memory")
    trial = Trial(
        task=task.id,
        task_version=task.cls.version,
        task_sha256=task.sha256,
        task_parameters={"length": 3, "delay": 1, "train_sequences": 32, "evaluation_sequences": 8},
        learner=documented_rule.id,
        learner_sha256=documented_rule.sha256,
        learner_path=str(documented_rule.path),
        hyperparameters={},
        decorrelate=decorrelate,
        decorrelation_rate=1e-3,
        backend=backend,
        device="cpu",
        hidden=16,
        batch=8,
        segment=7,
        alpha=1.0,
        bias=True,
        protocol="episodes",
        optimizer=documented_rule.cls.optimizer,
        lr=0.1,
        seed=0,
        preset="smoke",
        budget_steps=7 * 40,
        evaluations=2,
    )
    (record,) = run_trials([trial])
    assert record.status == "ok", record.status_detail
    _, first, last = record.curve
    assert last.loss < 0.95 * first.loss


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_documented_rule_is_exact_for_the_readout(documented_rule: Plugin, backend: str) -> None:
    ops, cell = make_ops(backend), Tanh(inputs=3, hidden=8, outputs=2, alpha=0.5, bias=True)
    rng = np.random.default_rng(0)
    batch = Batch(rng.normal(size=(5, 4, 3)), rng.normal(size=(5, 4, 2)), rng.uniform(size=(5, 4)) / 20)
    params, batch = ops.from_numpy(cell.init(0)), ops.from_numpy(batch)
    learner = documented_rule.cls()
    state = learner.init(ops, cell, params, 4)
    estimate = learner.segment(ops, cell, params, state, batch, ops.key(0))
    exact = backpropagate(ops, cell, params, state["cell"], batch)
    np.testing.assert_allclose(float(estimate.loss), float(exact.loss), rtol=1e-5)
    actual, desired = (ops.to_numpy(ops.dense(e.grads["W_out"])) for e in (estimate, exact))
    np.testing.assert_allclose(actual, desired, rtol=1e-4, atol=1e-6)
