"""Classes of notebooks, scripts and modules as files."""

from __future__ import annotations

import importlib.util
import linecache
import re
import subprocess
import sys
import types

import pytest

import creditbench as cb
from creditbench.errors import UsageError
from creditbench.library.sources import file_of, source_of
from creditbench.plugins import meaning

HEAD = """
import math as m
from dataclasses import dataclass
from typing import Literal

import numpy as np

from creditbench.cell import back
from creditbench.learner import Claims, Learner, of_layers, online
from creditbench.ops import Outer
"""
RULE = """
@dataclass(frozen=True, kw_only=True)
class Mine(Learner):
    id = "mine"
    name = "Mine"
    paper = "none"
    family = "one step"
    claims = Claims(online=True)

    gain: float = 1.0

    def init(self, ops, cell, params, batch_size):
        return {"cell": cell.start(ops, batch_size), "trace": of_layers(cell, lambda layer: None)}

    def segment(self, ops, cell, params, state, batch, key):
        def make(cell, params):
            def advance(trace, now, noise):
                return trace, Outer(self.gain * back(now.slope, now.delta), now.z)

            return advance

        return online(ops, cell, params, state, batch, key, make, factors=True)
"""


@pytest.fixture
def notebook(monkeypatch):
    """A function that runs a cell in the module of a notebook: its names."""
    module = types.ModuleType("a_notebook")
    monkeypatch.setitem(sys.modules, "a_notebook", module)
    count = 0

    def run(text):
        nonlocal count
        count += 1
        name = f"<cell {count} of a notebook>"
        linecache.cache[name] = (len(text), None, text.splitlines(True), name)
        exec(compile(text, name, "exec"), vars(module))
        return module

    return run


def imported(path):
    spec = importlib.util.spec_from_file_location("written", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_class_is_written_with_all_that_it_names(notebook, tmp_path):
    """Helpers, constants and imports of other cells, an alias, an annotation, a table beside the class."""
    notebook(HEAD + "SCALE = 2.0\n\ndef twice(x):\n    return SCALE * m.sqrt(x) * np.float32(2.0)\n")
    notebook("UNUSED = object()\n")
    text = RULE.replace("gain: float = 1.0", 'gain: float = ROWS[0]\n    kind: Literal["a", "b"] = "a"')
    text = text.replace("self.gain *", "again(self.gain) *").replace("noise):", "noise):  # a remark")
    module = notebook(f"ROWS = [4.0, 2.0]\nagain = twice\n{text}")
    path = file_of(module.Mine, "learners", tmp_path)
    assert path.parent == tmp_path and path.name == "mine.py"
    written = imported(path)
    assert written.Mine().gain == 4.0 and written.again(4.0) == 8.0
    said = path.read_text()
    assert "UNUSED" not in said and "import math as m" in said and "import numpy as np" in said
    # Docstrings, comments and what else is in the notebook do not count.
    notebook(f"ROWS = [4.0, 2.0]\nagain = twice\nOTHER = 1\n{text.replace('  # a remark', '')}")
    other = source_of(sys.modules["a_notebook"].Mine, "learners")
    assert meaning.digest(other.encode()) == meaning.digest(said.encode())


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        (
            RULE.replace('    id = "mine"\n', ""),
            'Mine has no id: write one in its class, as in id = "my_learner"',
        ),
        (
            RULE.replace("self.gain", "weights"),
            "Mine needs 'weights', and it is not defined at the top level",
        ),
        (
            RULE.replace("self.gain", "handle") + "Mine.handle = None\n",
            "Mine needs 'handle', and it is a TextIOWrapper, whose source is not beside the class",
        ),
        (
            RULE + RULE.replace("class Mine(Learner)", "class Other(Mine)").replace('"mine"', '"other"'),
            "Other derives from Mine, which is a learner of the notebook too",
        ),
    ],
    ids=["no id", "unknown name", "lost name", "two rules"],
)
def test_a_class_that_no_file_can_hold_is_told(notebook, tmp_path, cell, says):
    notebook(HEAD)
    with (tmp_path / "x").open("w") as file:
        sys.modules["a_notebook"].handle = file
        module = notebook(cell)
        with pytest.raises(UsageError, match=re.escape(says)):
            source_of(getattr(module, "Other", module.Mine), "learners")


def test_a_class_without_source_is_told(notebook):
    module = notebook(HEAD)
    exec(RULE, vars(module))
    with pytest.raises(
        UsageError, match="the source of Mine cannot be read: save the class to a file, and pass its path"
    ):
        source_of(module.Mine, "learners")


def test_a_module_that_holds_one_rule_is_its_file(tmp_path, monkeypatch):
    (tmp_path / "rules_of_mine.py").write_text(HEAD + RULE)
    (tmp_path / "two_rules.py").write_text(
        HEAD + RULE + RULE.replace("Mine", "Twin").replace('"mine"', '"twin"')
    )
    monkeypatch.syspath_prepend(tmp_path)
    one, two = (importlib.import_module(name) for name in ("rules_of_mine", "two_rules"))
    assert file_of(one.Mine, "learners", tmp_path / "sources") == tmp_path / "rules_of_mine.py"
    written = file_of(two.Twin, "learners", tmp_path / "sources")
    assert written == tmp_path / "sources" / "twin.py" and "class Mine" not in written.read_text()


def test_a_class_of_ipython_is_read(tmp_path):
    """In a real shell, whose module is `__main__`, in a cell with a magic."""
    pytest.importorskip("IPython")
    script = tmp_path / "shell.py"
    script.write_text(
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "from creditbench.library.sources import source_of\n"
        "shell = InteractiveShell.instance()\n"
        f"shell.run_cell({HEAD!r}).raise_error()\n"
        f"shell.run_cell({'%precision 3' + RULE!r}).raise_error()\n"
        "print(source_of(shell.user_ns['Mine'], 'learners'))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert "class Mine(Learner):" in done.stdout and "%" not in done.stdout, done.stderr


# -- in runs ---------------------------------------------------------------------------------------------


def run(**options):
    usual = dict(
        tasks="adding", backend="torch", seeds=1, budget=200, hidden=4, measure=False, executor="inline"
    )
    return cb.run(**{**usual, "show_progress": False, **options})


def test_a_class_of_a_notebook_is_run_and_kept(notebook, tmp_path, capsys):
    """Once it is written anew, the old trial is stale; saved from a temporary folder, nothing is."""
    notebook(HEAD)
    mine = notebook(RULE).Mine
    found = run(learners=[mine(gain=0.5), "bptt"], results=tmp_path / "runs")
    assert found.trials.set_index("rule").status.to_dict() == {"bptt": "ok", "mine": "ok"}
    trial = found.select(rules="mine").records[0].trial
    assert trial.hyperparameters == {"gain": 0.5}
    assert trial.learner_path == str((tmp_path / "runs" / "sources" / "mine.py").resolve())
    changed = notebook(RULE.replace("self.gain *", "2 * self.gain *")).Mine
    again = run(learners=changed(gain=0.5), results=tmp_path / "runs")
    assert again.records[0].trial.id != trial.id and not again.trials.stale.any()
    known = cb.load(tmp_path / "runs").trials.set_index("trial").stale
    assert known[trial.id] == "learner mine has changed" and not known[again.records[0].trial.id]
    kept = run(learners=[changed, "bptt"])  # in a temporary folder
    (temporary,) = kept.folders
    kept.save(tmp_path / "saved")
    del kept, found, again
    read = cb.load(tmp_path / "saved")
    assert not temporary.exists() and not read.trials.stale.any() and len(read) == 2
    capsys.readouterr()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"learners": [], "tasks": "adding"},
            'add one, as in learners="bptt,anp"; see: creditbench.list_learners()',
        ),
        ({"learners": [3]}, "learners has 3: give an id, the path of a file, a subclass of Learner"),
        ({"learners": "bptt", "seeds": 0}, "seeds is 0: give a whole number from 1"),
        ({"learners": "anp", "settings": {"anp.sig": 1}}, "did you mean 'sigma'?"),
        (
            {"learners": "anp", "settings": {"wp.sigma": 1}},
            "settings wp.sigma is given, and wp is not in this grid (adding, anp): add it with learners",
        ),
    ],
)
def test_an_error_names_the_argument(options, says):
    with pytest.raises(UsageError, match=re.escape(says)) as told:
        run(**options)
    assert "--" not in str(told.value)


def test_two_settings_of_a_rule_are_told():
    small, large = (cb.make_learner("anp", sigma=sigma) for sigma in (1e-3, 1e-2))
    with pytest.raises(UsageError, match="anp is given twice with other fields"):
        run(learners=[small, large])
    with pytest.raises(UsageError, match=r"anp\.sigma is 0\.01 in an instance and 0\.1 in settings"):
        run(learners=large, settings={"anp.sigma": 0.1})
    with pytest.raises(UsageError, match="the cell gru has hidden 8, and hidden is 4: give hidden=8"):
        run(learners="bptt", cells=cb.make_cell("gru", inputs=1, outputs=1, hidden=8))
