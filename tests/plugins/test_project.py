"""The rules of somebody else's repository: where they are, and that they come from there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from creditbench.errors import UsageError
from creditbench.machine import folders
from creditbench.plugins import project

RULE = (folders.shipped("learners") / "rflo.py").read_text(encoding="utf-8")


def rule(id):
    return RULE.replace('id = "rflo"', f'id = "{id}"')


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A project; what is imported from it is forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("pack_"):
            del sys.modules[name]


def write(folder, text, name="rule", package="pack_a"):
    path = folder / package / f"{name}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    (path.parent / "__init__.py").touch()
    path.write_text(text)
    return path


def names(home, **points):
    lines = [f'{name} = "{value}"\n' for name, value in points.items()]
    (home / "pyproject.toml").write_text('[project.entry-points."creditbench.learners"]\n' + "".join(lines))


@pytest.mark.parametrize("layout", ["src", "."])
def test_a_rule_is_imported_from_src_or_from_beside_it(home, layout):
    path = write(home / layout, rule("mine"))
    names(home, mine="pack_a.rule:RFLO")
    assert project.entry_points(home) == {"mine": "pack_a.rule:RFLO"}
    found, broken = project.load(home)
    assert broken == {} and found["mine"].path == path.resolve() and found["mine"].cls.__name__ == "RFLO"


def test_a_copy_elsewhere_that_comes_first_is_refused(home, tmp_path_factory, monkeypatch):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    write(elsewhere, rule("mine"))
    write(home / "src", rule("mine"))
    names(home, mine="pack_a.rule:RFLO")
    monkeypatch.syspath_prepend(elsewhere)
    __import__("pack_a.rule")
    _, broken = project.load(home)
    assert f"not from {home}: uninstall pack_a" in broken["mine"] and str(elsewhere) in broken["mine"]


@pytest.mark.parametrize(
    ("point", "value", "said"),
    [
        ("mine", "pack_b.rule:RFLO", "names pack_b.rule:RFLO: pack_b.rule is neither in src/ nor beside it"),
        ("mine", "pack_a.none:RFLO", "pack_a.none is neither in src/ nor beside it"),
        ("mine", "pack_a.rule:None_", "cannot be imported"),
        ("other", "pack_a.rule:RFLO", "names a rule with the id 'mine': give both one name"),
    ],
)
def test_an_entry_point_that_cannot_be_used_has_a_reason_and_leaves_the_others(home, point, value, said):
    write(home / "src", rule("mine"))
    write(home / "src", rule("good"), name="good")
    names(home, good="pack_a.good:RFLO", **{point: value})
    found, broken = project.load(home)
    assert list(found) == ["good"] and said in broken[point]


def test_files_stand_in_for_entry_points_and_one_that_is_gone_is_left_out(home):
    names(home, mine="pack_b.rule:RFLO")
    write(home, rule("mine"), package="rules")
    write(home, "1 / 0", "broken", package="rules")
    files = [Path("rules", name) for name in ("rule.py", "broken.py", "gone.py")]
    found, broken = project.load(home, files)
    assert list(found) == ["mine"] and list(broken) == ["broken"]


def test_a_folder_stands_for_its_learners(home):
    path = write(home, rule("mine"), package="rules")
    write(home, "import os\n", "helper", package="rules")
    assert project.expand([home / "rules"]) == [path] == project.expand([path])
    with pytest.raises(UsageError, match=r"no file .*none\.py"):
        project.expand([home / "none.py"])


def test_the_nearest_project_counts_and_no_further_than_the_top(home):
    (home / "pyproject.toml").touch()
    inner = home / "a" / "b"
    inner.mkdir(parents=True)
    assert project.nearest(inner, home / "a") == home / "a" and project.nearest(inner) == home
    (inner / "pyproject.toml").touch()
    assert project.nearest(inner, home) == inner


@pytest.mark.parametrize(
    "text", ["no toml", "project = 1", '[project.entry-points]\n"creditbench.learners" = 1']
)
def test_a_bad_configuration_is_one_sentence(home, text):
    (home / "pyproject.toml").write_text(text)
    with pytest.raises(UsageError, match=r"pyproject\.toml cannot be read .*: mend it"):
        project.entry_points(home)


def test_ids_are_of_rules_that_are_installed(home, monkeypatch):
    with pytest.raises(UsageError, match=r"has no pyproject\.toml with entry points"):
        project.ids(home)
    names(home, mine="pack_a.rule:RFLO")
    with pytest.raises(UsageError, match=r"mine of .* is not installed: pip install -e"):
        project.ids(home)
    about = home / "site" / "pack_a-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: pack-a\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[creditbench.learners]\nmine = pack_a.rule:RFLO\n")
    monkeypatch.syspath_prepend(home / "site")
    assert project.ids(home) == ["mine"]
