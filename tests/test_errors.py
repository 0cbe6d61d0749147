"""A message for whoever gave bad input is a sentence, whatever was given."""

import tomllib
from pathlib import Path

import pytest

from creditbench.cli import main
from creditbench.errors import EXTRAS, UsageError, unknown

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("value", ["0" * 5000, "a b " * 2000, "/".join(["folder"] * 800)])
def test_of_a_value_without_end_a_message_has_the_beginning_and_the_end(value):
    said = str(unknown("learner", value, ["bptt"], "creditbench list learners"))
    assert len(said) < 1500 and said.startswith(f"unknown learner '{value[:20]}")
    assert said.endswith("see: creditbench list learners") and "…" in said


def test_a_long_path_is_named_whole():
    path = "/".join(["folder"] * 50)
    assert path in str(UsageError(f"no file {path}: name another"))


def test_a_package_that_is_missing_is_told_with_the_extra_that_brings_it(monkeypatch, capsys):
    """Each is in an extra of that name, whatever the name under which it is imported."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    brought = {"vl_convert": "vl-convert-python", "sklearn": "scikit-learn", "jaxlib": "jax"}
    for package, extra in EXTRAS.items():
        assert any(line.startswith(brought.get(package, package)) for line in extras[extra]), package
    for package in ("altair", "no_such"):
        missing = ModuleNotFoundError(f"No module named '{package}'", name=f"{package}.x")
        monkeypatch.setattr("creditbench.cli._run", lambda arguments, error=missing: raised(error))
        if package == "altair":
            assert main(["list", "tasks"]) == 2
            assert (
                "needs altair, which is not installed: pip install 'creditbench[board]'"
                in capsys.readouterr().err
            )
        else:
            with pytest.raises(ModuleNotFoundError):
                main(["list", "tasks"])


def raised(error):
    raise error
