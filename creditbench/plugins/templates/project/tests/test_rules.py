"""Every rule of this package holds its contract and its claims, in both backends."""

from importlib.metadata import distribution

import pytest

from creditbench.check.runner import run

RULES = [
    point.name for point in distribution("my_rule").entry_points if point.group == "creditbench.learners"
]


@pytest.mark.parametrize("rule", RULES)
def test_the_rule_holds_what_it_claims(rule):
    report = run(rule, ["jax", "torch"])
    assert [f"{check.name}: {check.detail}" for check in report.failures] == []
