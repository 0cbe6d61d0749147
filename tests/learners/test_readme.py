"""What learners/README.md says of the rules."""

from pathlib import Path

import pytest

from creditbench import registry
from creditbench.cli import main

ROOT = Path(__file__).parents[2]
RULES = [plugin for plugin in registry.load("learners").values() if plugin.source == "builtin"]


@pytest.fixture
def printed(capsys):
    assert main(["list", "learners", "--format", "markdown"]) == 0
    return capsys.readouterr().out


def test_the_readme_has_the_table_that_the_command_prints(printed):
    readme = (ROOT / "learners" / "README.md").read_text(encoding="utf-8")
    assert printed in readme, (
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
