"""The asv suite: it has every rule of the registry, and each kind of its benchmarks gives a figure."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

import pytest

from creditbench.plugins import registry

ROOT = Path(__file__).parents[1]
CONFIG = json.loads((ROOT / "asv.conf.json").read_text())


@pytest.fixture
def suite(monkeypatch):
    """The suite's module, with the environment as it was afterwards, of one rule and small sizes."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    spec = importlib.util.spec_from_file_location("asv_rules", ROOT / CONFIG["benchmark_dir"] / "rules.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.Rules.params[0] == module.Score.params[0] == list(registry.load("learners"))
    monkeypatch.setattr(module, "LEARNERS", {"rflo": module.LEARNERS["rflo"]})
    for name, value in {"N": [8], "T": [6, 12], "STEPS": 40, "HIDDEN": 8}.items():
        monkeypatch.setattr(module, name, value)
    return module


def test_an_update_runs(suite):
    subject = suite.Rules()
    subject.setup("rflo", "torch", 8, 6)
    subject.time_update("rflo", "torch", 8, 6)
    subject.peakmem_update("rflo", "torch", 8, 6)


def test_what_needs_no_clock_is_found_for_all(suite):
    subject = suite.Exact()
    found = subject.setup_cache()
    assert set(found) == {("rflo", backend, 8, steps) for backend in ("jax", "torch") for steps in (6, 12)}
    flops = [subject.track_flops(found, "rflo", "torch", 8, steps) for steps in (6, 12)]
    assert 1.5 * flops[0] < flops[1] < 2.5 * flops[0]
    assert subject.track_algorithm_bytes(found, "rflo", "jax", 8, 6) > 0


def test_a_score_is_the_same_in_every_run(suite):
    subject = suite.Score()
    one, two = subject.setup_cache(), subject.setup_cache()
    assert one == two and set(one) == {("rflo", "jax"), ("rflo", "torch")}
    assert -1 <= subject.track_score(one, "rflo", "jax") <= 1.1


def test_a_rule_without_a_backend_is_left_out(suite, monkeypatch):
    monkeypatch.setattr(suite.LEARNERS["rflo"], "backends", frozenset({"jax"}))
    with pytest.raises(NotImplementedError, match="rflo has no torch"):
        suite.Rules().setup("rflo", "torch", 8, 6)
    assert {backend for _, backend, *_ in suite.Exact().setup_cache()} == {"jax"}
