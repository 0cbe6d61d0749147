"""The library: `import creditbench as cb`."""

from __future__ import annotations

import doctest
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import creditbench as cb
from creditbench.library import messages
from creditbench.library.resultset import Plots

ROOT = Path(__file__).resolve().parents[2]
#: Public names that other modules document.
ELSEWHERE = {"UsageError", "__version__", "Sequences", "Task", "make_ops"}
#: What one meets beside the public names.
OWN = {"Plots": Plots, "python_words": messages.python_words}


@pytest.fixture(scope="session")
def found():
    """Committed results, with measurements and checks beside them."""
    return cb.load(ROOT / "results" / "cells")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder of its own, in which the committed results have the path that examples give them."""
    (tmp_path / "results").symlink_to(ROOT / "results")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def public():
    """name -> what has a docstring: every public name, and every public name of the results."""
    names = {name: getattr(cb, name) for name in cb.__all__ if name not in ELSEWHERE}
    members = {f"ResultSet.{name}": value for name, value in vars(cb.ResultSet).items() if name[0] != "_"}
    return names | members | OWN


@pytest.mark.parametrize("name", public())
def test_the_example_of_a_public_name_runs(name, found, place):
    """Each has one; `found` stands for the results that the example of `ResultSet` loads."""
    text = inspect.getdoc(public()[name])
    case = doctest.DocTestParser().get_doctest(text, {"cb": cb, "found": found} | OWN, name, name, 0)
    assert case.examples or name.rpartition(".")[2] in ("records", "plot"), text
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    assert runner.run(case, out=said.append).failed == 0, "".join(said)


def test_every_column_of_every_frame_has_a_meaning(found):
    frames = {name: getattr(found, name) for name in ("trials", "curves", "scaling", "gradients", "checks")}
    assert all(len(frame) for frame in frames.values())
    meanings = found.columns["meaning"]
    for name, frame in frames.items():
        assert list(meanings[name].index) == list(frame.columns)
    assert meanings.str.len().min() > 3


def test_the_import_is_quick():
    """Neither a framework nor NumPy comes along, and the public names are there."""
    code = (
        "import creditbench as cb, sys; "
        "heavy = {'torch', 'jax', 'numpy', 'pandas', 'pydantic', 'matplotlib'} & sys.modules.keys(); "
        "print(sorted(heavy), set(cb.__all__) <= set(dir(cb)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.split() == ["[]", "True"], done.stderr
