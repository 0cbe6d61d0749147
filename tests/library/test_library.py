"""The library: `import creditbench as cb`."""

from __future__ import annotations

import doctest
import functools
import gc
import inspect
import json
import linecache
import subprocess
import sys
import types
from pathlib import Path

import pytest

import creditbench as cb
from creditbench.leaderboard.board import make_board
from creditbench.library import messages, running
from creditbench.library.resultset import Plots
from tests.conftest import thorough

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


# -- tutorials -------------------------------------------------------------------------------------------

TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))
#: What makes the runs of a tutorial cheap; its cells are as they are.
CHEAP: dict[str, dict[str, object]] = {
    "compare_rules": dict(backend="torch", seeds=1, hidden=4, budget=400, evaluations=1, executor="inline"),
    # Its class is imported by a confined process, as everybody's.
    "write_a_rule": dict(seeds=1, hidden=4, budget=400, evaluations=1, executor="inline"),
    "write_a_task": dict(backend="torch", seeds=1, hidden=4, budget=400, evaluations=1, executor="inline"),
    "write_a_cell": dict(seeds=1, hidden=4, budget=100, evaluations=1, executor="inline"),
    "read_the_board": {},
    "own_loop": {},
}


def in_notebook_order(path, module):
    """Run the cells of a notebook in a module, whose sources `linecache` has, as those of IPython."""
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        if cell["cell_type"] == "code":
            text, name = "".join(cell["source"]), f"<{path.stem}, cell {number}>"
            linecache.cache[name] = (len(text), None, text.splitlines(True), name)
            exec(compile(text, name, "exec"), vars(module))


# The site runs all of them for every change.
@pytest.mark.parametrize(
    "path",
    thorough(
        TUTORIALS, but=[p for p in TUTORIALS if p.stem in ("compare_rules", "write_a_rule", "own_loop")]
    ),
    ids=lambda path: path.stem,
)
def test_a_tutorial_runs(path, place, monkeypatch, capsys):
    if path.stem == "own_loop":
        pytest.importorskip("torch", reason="the notebook trains under both frameworks")
    given = CHEAP[path.stem]
    monkeypatch.setattr(
        cb, "run", lambda *items, **options: running.run(*items, **{**options, **given}), raising=False
    )
    monkeypatch.setattr("creditbench.library.progress.in_notebook", lambda: False)
    # Intervals of a board take seconds otherwise.
    for module in ("library.resultset", "leaderboard.figures"):
        monkeypatch.setattr(f"creditbench.{module}.make_board", functools.partial(make_board, draws=100))
    gc.freeze()  # a trial collects all that others left
    module = types.ModuleType("notebook")
    monkeypatch.setitem(sys.modules, "notebook", module)
    in_notebook_order(path, module)
    found = getattr(module, "results", None)
    if path.stem == "own_loop":
        assert module.losses[-1] < 0.5 * module.losses[0]
    else:
        assert not len(found.failed) and not found.lost
    if path.stem == "compare_rules":
        assert (place / "curves.pdf").stat().st_size > 10_000
        assert len(found.trials) == 15 and "\\bottomrule" in capsys.readouterr().out
    if path.stem == "read_the_board":
        assert len(module.ranking) == 25 and set(module.beside["rule"]) == {"eprop", "rflo", "snap1"}


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_is_a_notebook_without_outputs(path):
    """In the form 4.5: each cell has an id of its own."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    cells = notebook["cells"]
    assert len({cell["id"] for cell in cells}) == len(cells) > 5
    assert cells[0]["source"][0].startswith("# ")
    for cell in cells:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
