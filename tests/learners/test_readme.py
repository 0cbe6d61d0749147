"""What learners/README.md says of the rules."""

import tomllib
from pathlib import Path

import pytest

from creditbench import registry
from creditbench.cli import main

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


# -- each rule learns --------------------------------------------------------------------------------------


def scores():
    """Rule -> mean test score, of the table under "Each rule learns", and what is written below that table."""
    section = README.read_text(encoding="utf-8").partition("## Each rule learns")[2]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    assert "↓" in rows[0][-1]
    found = {row[0].strip("*"): float(row[-1].split(" ± ")[0]) for row in rows[2:]}
    return found, section.rpartition("|\n")[2]


def test_every_rule_is_in_the_run_that_shows_that_it_learns():
    config = tomllib.loads((ROOT / "benchmarks" / "learns.toml").read_text(encoding="utf-8"))
    tuned = tomllib.loads((ROOT / config["tuned"]).read_text(encoding="utf-8"))
    ids = {plugin.id for plugin in RULES}
    assert set(config["learner"]) == ids == set(scores()[0]) - {"trivial"}
    (task,) = config["task"]
    # The rules that fit the readout alone have no learning rate.
    assert set(tuned[task]) == ids - {p.id for p in RULES if p.cls.family == "readout only"}


def test_a_rule_that_learns_less_than_the_readout_alone_is_told_with_the_reason():
    found, below = scores()
    floor = found["readout_rls"]
    assert floor < found["trivial"]
    behind = {rule for rule, score in found.items() if score >= floor} - {"readout_rls", "trivial"}
    told = {line.split("`")[1] for line in below.splitlines() if line.startswith("- `")}
    # Ridge regression has the solution of `readout_rls`.
    assert behind | {"readout_ridge"} == told
