"""`creditbench new project`: a repository whose files are valid. Its own tests take minutes: not here."""

from __future__ import annotations

import ast
import json
import tomllib
from pathlib import Path

import pytest

import creditbench
from creditbench.cli import main
from creditbench.plugins import project
from creditbench.plugins.importing import id_of


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["new", "project", "own_rules"]) == 0
    return tmp_path / "own_rules"


def test_its_files_have_its_name_and_can_be_read(home):
    files = {path.relative_to(home).as_posix(): path for path in home.rglob("*") if path.is_file()}
    assert files.keys() == {
        ".github/actions/track/action.yml",
        ".github/workflows/ci.yml",
        ".gitignore",
        "README.md",
        "asv.conf.json",
        "benchmarks/__init__.py",
        "benchmarks/rules.py",
        "pyproject.toml",
        "src/own_rules/__init__.py",
        "src/own_rules/rule.py",
        "tests/test_rules.py",
    }
    for name, path in files.items():
        text = path.read_text()
        assert "my_rule" not in text.lower() or name == ".github/actions/track/action.yml"
        if name.endswith(".py"):
            ast.parse(text)
    config = tomllib.loads(files["pyproject.toml"].read_text())
    assert config["project"]["dependencies"] == [f"creditbench[jax,torch]>={creditbench.__version__}"]
    assert project.entry_points(home) == {"own_rules": "own_rules.rule:OwnRules"}
    assert id_of(files["src/own_rules/rule.py"]) == "own_rules"
    suite = json.loads(files["asv.conf.json"].read_text())
    assert suite["project"] == config["project"]["name"] and (home / suite["benchmark_dir"]).is_dir()
    assert "class OwnRules(Learner):" in files["src/own_rules/rule.py"].read_text()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Own-rules", "'Own-rules' is no id of a project"),
        ("../rules", "is no id of a project"),
        ("class", "is no id of a project"),
        ("anp", "the id 'anp' is taken by"),
        ("json", "a package 'json' is installed already"),
        ("numpy", "a package 'numpy' is installed already"),
        ("full", "full is there already, and is not empty"),
    ],
)
def test_a_bad_or_taken_name_is_refused_and_nothing_written(tmp_path, monkeypatch, capsys, name, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("kept")
    assert main(["new", "project", name]) == 2
    assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["full", "mine"]


def test_an_empty_folder_is_filled(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_rules").mkdir()
    assert main(["new", "project", "own_rules"]) == 0 and Path("own_rules/pyproject.toml").is_file()
    assert "cd own_rules\n  git init" in capsys.readouterr().err
