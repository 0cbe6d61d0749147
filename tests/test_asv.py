"""The asv suite: it has the rules of its repository, and each kind of its benchmarks gives a figure."""

from __future__ import annotations

import importlib.util
import json
import math
import os
from pathlib import Path

import pytest

from creditbench.errors import UsageError
from creditbench.measure.work import UncountableError
from creditbench.plugins import registry
from creditbench.studies import asv

ROOT = Path(__file__).parents[1]
CONFIG = json.loads((ROOT / "asv.conf.json").read_text())


@pytest.fixture
def suite(monkeypatch):
    """The suite's module, with the environment as it was afterwards, of one rule and small sizes."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    spec = importlib.util.spec_from_file_location("asv_rules", ROOT / CONFIG["benchmark_dir"] / "rules.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.Rules.params[0] == module.Score.params[0] == list(registry.builtin("learners"))
    small(monkeypatch, (module.Rules, module.Exact, module.Score), "rflo")
    return module


def small(monkeypatch, classes, *learners):
    for cls in classes:
        monkeypatch.setattr(cls, "params", ([*learners], *cls.params[1:2], [8], [6, 12])[: len(cls.params)])
    monkeypatch.setattr(asv, "STEPS", 40)
    monkeypatch.setattr(asv, "HIDDEN", 8)


def test_an_update_runs(suite):
    subject = suite.Rules()
    subject.setup("rflo", "torch", 8, 6)
    subject.time_update("rflo", "torch", 8, 6)
    subject.peakmem_update("rflo", "torch", 8, 6)


@pytest.mark.needs("jax", "torch")
def test_what_needs_no_clock_is_found_for_all(suite):
    subject = suite.Exact()
    found = subject.setup_cache()
    assert set(found) == {("rflo", backend, 8, steps) for backend in ("jax", "torch") for steps in (6, 12)}
    flops = [subject.track_flops(found, "rflo", "torch", 8, steps) for steps in (6, 12)]
    assert 1.5 * flops[0] < flops[1] < 2.5 * flops[0]
    assert subject.track_algorithm_bytes(found, "rflo", "jax", 8, 6) > 0


@pytest.mark.needs("jax", "torch")
def test_a_score_is_the_same_in_every_run(suite):
    subject = suite.Score()
    one, two = subject.setup_cache(), subject.setup_cache()
    assert one == two and set(one) == {("rflo", "jax"), ("rflo", "torch")}
    assert -1 <= subject.track_score(one, "rflo", "jax") <= 1.1


@pytest.mark.needs("jax", "torch")
def test_a_rule_without_a_backend_is_left_out(suite, monkeypatch):
    monkeypatch.setattr(registry.builtin("learners")["rflo"].cls, "backends", frozenset({"jax"}))
    with pytest.raises(NotImplementedError, match="rflo has no torch"):
        suite.Rules().setup("rflo", "torch", 8, 6)
    assert {backend for _, backend, *_ in suite.Exact().setup_cache()} == {"jax"}


@pytest.mark.needs("jax", "torch")
def test_what_fails_or_cannot_be_counted_is_of_one_rule_alone(suite, monkeypatch):
    def count(ops, *_):
        raise UncountableError("a loop") if ops.name == "jax" else ZeroDivisionError("none")

    monkeypatch.setattr(asv, "count", count)
    subject = suite.Exact()
    found = subject.setup_cache()
    assert math.isnan(subject.track_flops(found, "rflo", "jax", 8, 6))
    assert subject.track_algorithm_bytes(found, "rflo", "jax", 8, 6) > 0
    with pytest.raises(RuntimeError, match="ZeroDivisionError: none"):
        subject.setup(found, "rflo", "torch", 8, 6)


# -- somebody else's repository ------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A project with a rule in a folder; its other rule's package is not installed."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    for name in (".git", "benchmarks", "rules"):
        (tmp_path / name).mkdir()
    (tmp_path / "pyproject.toml").write_text(
        '[project.entry-points."creditbench.learners"]\nabsent = "absent.rule:Absent"\n'
    )
    text = (ROOT / "learners" / "rflo.py").read_text()
    (tmp_path / "rules" / "mine.py").write_text(text.replace('id = "rflo"', 'id = "mine"'))
    return tmp_path


def test_a_rule_that_a_commit_lacks_has_no_figure_there(home):
    rules, exact, _ = asv.suite(str(home / "benchmarks" / "rules.py"))
    assert rules.params[0] == ["absent"]
    with pytest.raises(NotImplementedError, match="absent is not there"):
        rules().setup("absent", "torch", 8, 6)
    assert exact().setup_cache() == {}


def test_a_folder_of_rules_is_read_from_the_commit_that_is_measured(home, monkeypatch):
    at_commit = home / "env" / "project" / "rules" / "mine.py"
    at_commit.parent.mkdir(parents=True)
    at_commit.write_text((home / "rules" / "mine.py").read_text())
    (home / "rules" / "mine.py").write_text(at_commit.read_text() + "\n\n1 / 0\n")
    os.environ["ASV_ENV_DIR"] = str(home / "env")
    classes = asv.suite(str(home / "benchmarks" / "rules.py"), "rules")
    small(monkeypatch, classes, "mine")
    subject = classes[2]()
    monkeypatch.setattr(classes[2], "params", (["mine"], ["torch"]))
    assert set(subject.setup_cache()) == {("mine", "torch")}
    at_commit.unlink()
    with pytest.raises(NotImplementedError, match="mine is not there"):
        subject.setup({}, "mine", "torch")


def test_a_project_without_rules_is_refused(home):
    (home / "pyproject.toml").unlink()
    (home / "benchmarks" / "pyproject.toml").touch()
    with pytest.raises(UsageError, match=r"has no entry points of creditbench\.learners: add one"):
        asv.suite(str(home / "benchmarks" / "rules.py"))
