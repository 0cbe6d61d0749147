"""The statements of learners/README.md about the rules."""

import tomllib
from pathlib import Path

import pytest

from creditbench.cli import main
from creditbench.plugins import registry

ROOT = Path(__file__).parents[2]
README = ROOT / "learners" / "README.md"
RULES = [plugin for plugin in registry.load("learners").values() if plugin.source == "builtin"]


@pytest.fixture
def printed(capsys):
    assert main(["list", "learners", "--format", "markdown"]) == 0
    return capsys.readouterr().out


def test_the_readme_has_the_table_that_the_command_prints(printed):
    assert printed in README.read_text(encoding="utf-8"), (
        "learners/README.md should hold what `creditbench list learners --format markdown` prints"
    )


def test_the_table_says_what_the_rules_claim(printed):
    header, rule, *rows = (line.strip("| ").split(" | ") for line in printed.splitlines())
    assert set(rule) == {"---"} and len(header) == len(rule)
    assert [row[0].split("`")[1] for row in rows] == [plugin.id for plugin in RULES]
    for row, plugin in zip(rows, RULES, strict=True):
        said, claims = dict(zip(header, (cell.strip() for cell in row), strict=True)), plugin.cls.claims
        assert (plugin.path.parent / said["id"].partition("](")[2].rstrip(")")) == plugin.path
        assert (said["name"], said["family"], said["source"]) == (
            *(plugin.cls.name, plugin.cls.family, plugin.cls.paper),
        )
        for claim in ("unbiased", "online", "forward_only"):
            assert (said[claim.replace("_", " ")] == "yes") is getattr(claims, claim)
        assert (said["memory in T"], said["time of a step"], said["memory"]) == (
            *(claims.memory_in_T, claims.time, claims.memory),
        )


def test_an_unknown_format_is_refused_in_one_line(capsys):
    assert main(["list", "learners", "--format", "mardown"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("error: ") and said.err.count("\n") == 1
    assert "'markdown'" in said.err


@pytest.mark.slow
def test_the_readme_has_the_table_of_rules_and_cells(capsys):
    """Each rule is run with each cell."""
    assert main(["list", "learners", "--format", "cells"]) == 0
    assert capsys.readouterr().out in README.read_text(encoding="utf-8"), (
        "learners/README.md should hold what `creditbench list learners --format cells` prints"
    )


# -- each rule learns --------------------------------------------------------------------------------------


CONFIGS = [
    tomllib.loads((ROOT / "grids" / f"{name}.toml").read_text(encoding="utf-8"))
    for name in ("learns", "learns_episodes")
]


def scores():
    """(task, rule) -> mean test score in the table under "Each rule learns"; task -> which way is better."""
    section = README.read_text(encoding="utf-8").partition("## Each rule learns")[2]
    header, _, *rows = (line.strip("| ").split(" | ") for line in section.splitlines() if line[:2] == "| ")
    better = {head.partition("<br>")[0]: -1 if head.endswith("↓") else 1 for head in header[2:]}
    found = {}
    for rule, _, *cells in rows:
        for task, cell in zip(better, cells, strict=True):
            if cell[0].isdigit():
                found[task, rule.strip("*")] = float(cell.partition(" ± ")[0])
    return found, better


def test_every_rule_is_in_the_runs_that_show_that_it_learns():
    ids, run = {plugin.id for plugin in RULES}, set()
    for config in CONFIGS:
        tuned = tomllib.loads((ROOT / config["tuned"]).read_text(encoding="utf-8"))
        (task,) = config["task"]
        # The rules that fit the readout alone have no learning rate.
        assert set(tuned[task]) == set(config["learner"]) - {"readout_rls", "readout_ridge"}
        run |= {(task, rule) for rule in [*config["learner"], "trivial"]}
    assert {rule for _, rule in run} == ids | {"trivial"}
    assert set(scores()[0]) == run


def test_a_rule_that_learns_less_than_the_readout_alone_is_told_with_the_reason():
    found, better = scores()
    ahead = {
        rule
        for (task, rule), score in found.items()
        if better[task] * (score - found[task, "readout_rls"]) > 0
    }
    below = README.read_text(encoding="utf-8").rpartition("These rules do no better than `readout_rls`:")[2]
    told = {line.split("`")[1] for line in below.splitlines() if line.startswith("- `")}
    assert {plugin.id for plugin in RULES} - ahead - {"readout_rls"} == told - (ahead & {"readout_ridge"})
