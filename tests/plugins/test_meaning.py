"""A source's hash depends on its syntax and the code that it runs through, not on words or place."""

import ast
import shutil

import pytest

from creditbench.cells import CELLS
from creditbench.machine.folders import PACKAGE, shipped
from creditbench.plugins import meaning

SOURCE = b'''"""A rule."""

from dataclasses import dataclass

@dataclass
class Rule:
    """Long: what it is."""

    rate: float = 0.1  #: of learning

    def step(self, x, *, k=2):
        """One step."""
        return [self.rate * x**k for _ in range(3)]
'''


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"A rule.", b"A better rule."),
        (b"Long: what it is.", b"Short."),
        (b'        """One step."""\n', b""),
        (b"  #: of learning", b""),
        (b"self.rate * x**k", b"(self.rate) * (x ** k)"),
        (b"0.1", b"1e-1"),
    ],
)
def test_words_and_layout_do_not_count(old, new):
    assert old in SOURCE and meaning.digest(SOURCE.replace(old, new)) == meaning.digest(SOURCE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"0.1", b"0.2"),
        (b"0.1", b"1"),
        (b"self.rate * x", b"self.rate / x"),
        (b"self.rate * x**k", b"(self.rate * x)**k"),
        (b"range(3)", b"range(4)"),
        (b"k=2", b"k=True"),
        (b"*, k", b"k"),
        (b"@dataclass\n", b""),
        (b"Rule", b"Other"),
        (b"import dataclass", b"import field as dataclass"),
        (b'"""One step."""', b'f"""One step."""'),
        (b'"""One step."""', b'x = """One step."""'),
    ],
)
def test_what_is_computed_counts(old, new):
    assert old in SOURCE and meaning.digest(SOURCE.replace(old, new)) != meaning.digest(SOURCE)


def test_docstrings_count_where_they_are_read():
    source = SOURCE + b"print(Rule.__doc__)\n"
    assert meaning.digest(source) != meaning.digest(source.replace(b"Long", b"Short"))


def test_fields_that_a_later_python_adds_do_not_count(monkeypatch):
    before = meaning.digest(SOURCE)
    monkeypatch.setattr(ast.FunctionDef, "_fields", (*ast.FunctionDef._fields, "novelty"))
    monkeypatch.setattr(ast.FunctionDef, "novelty", [], raising=False)
    assert meaning.digest(SOURCE) == before


@pytest.mark.parametrize("source", [b"\xff\xfe", b"def (", b"x = " + b"(" * 600, b"\0"])
def test_what_is_no_python_counts_by_its_bytes(source):
    assert meaning.digest(source) != meaning.digest(source + b" ")
    assert meaning.vocabulary(source, "jax") == meaning.vocabulary(b"import creditbench", "jax")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of this package, for changes."""
    copy = tmp_path / "creditbench"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(meaning, "PACKAGE", copy)
    forget()
    yield copy
    forget()


def forget():
    for cached in (meaning._known, meaning._modules, meaning._homes):
        cached.cache_clear()


def vocabularies(*rules):
    forget()
    return {
        (rule, backend, D): meaning.vocabulary((shipped("learners") / f"{rule}.py").read_bytes(), backend, D)
        for rule in rules
        for backend in ("jax", "torch")
        for D in (False, True)
    }


@pytest.mark.parametrize(
    ("file", "old", "new", "concerns"),
    [
        ("learner/traces.py", "(1.0 - cell.alpha) * P", "cell.alpha * P", lambda rule, *_: rule == "eprop"),
        ("learner/perturbed.py", "2.0 * sigma", "sigma", lambda rule, *_: rule == "spsa"),
        ("learner/decorrelation.py", "1.0 + scale", "1.0 - scale", lambda rule, backend, D: D),
        ("cells/base.py", "2.0 / self.outputs", "1.0 / self.outputs", lambda *_: True),
        ("cells/tanh.py", "xp.tanh", "xp.sin", lambda *_: True),
        ("cells/gru.py", "xp.tanh", "xp.sin", lambda *_: False),
        ("learner/training.py", "| estimate.assigned", "", lambda *_: True),
        ("ops/jax.py", "import", "import math\nimport", lambda *_: False),
        ("ops/jax.py", "def scan(", "def scan_(", lambda rule, backend, D: backend == "jax"),
        ("ops/replay.py", "class Program", "class Programme", lambda rule, backend, D: backend == "torch"),
        ("trials/trainer.py", "class Trainer", "class Coach", lambda *_: False),
        ("learner/traces.py", "Rules that carry", "All rules that carry", lambda *_: False),
    ],
)
def test_a_change_of_what_is_shared_concerns_whoever_runs_through_it(package, file, old, new, concerns):
    rules = "bptt", "eprop", "spsa"
    before = vocabularies(*rules)
    path = package / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    after = vocabularies(*rules)
    assert {key for key in before if before[key] != after[key]} == {key for key in before if concerns(*key)}


@pytest.mark.parametrize(
    ("file", "old", "new", "concerns"),
    [
        ("cells/gru.py", "xp.tanh", "xp.sin", {"gru", "own"}),
        ("cells/functions.py", "0.5 *", "0.6 *", {"gru", "lstm", "lif", "alif", "own"}),
        ("cells/tanh.py", "xp.tanh", "xp.sin", {"tanh"}),
        ("cells/lif.py", "self.threshold *", "2.0 *", {"lif", "alif"}),
        ("cells/base.py", "2.0 / self.outputs", "1.0 / self.outputs", {*CELLS, "own", "free"}),
        ("cells/shipped.py", "raise KeyError", "raise ValueError", set()),
    ],
)
def test_a_change_of_a_cell_concerns_trials_with_that_cell(package, file, old, new, concerns):
    networks = {id: id for id in CELLS} | {
        "own": b"from creditbench.cells import Cell\nfrom creditbench.cells.gru import GRU\n",
        "free": b"from creditbench.cells import Cell\n",
    }

    def found():
        forget()
        return {name: meaning.vocabulary(SOURCE, "jax", cell=cell) for name, cell in networks.items()}

    before, path = found(), package / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    assert {name for name, sha256 in found().items() if before[name] != sha256} == concerns


def test_code_may_be_moved(package):
    before = vocabularies("eprop")
    (package / "learner" / "traces.py").rename(package / "learner" / "forward.py")
    for path in package.rglob("*.py"):
        path.write_text(path.read_text().replace("learner.traces", "learner.forward"))
    assert vocabularies("eprop") == before


@pytest.mark.parametrize(
    "source",
    [
        "import creditbench.learner",
        "from creditbench import learner",
        "import creditbench.learner as l",
        "from creditbench.learner import *",
    ],
)
def test_a_room_imported_as_a_whole_counts_as_a_whole(source):
    whole = meaning._imported(source.encode())
    assert {"learner.traces", "learner.perturbed", "learner.backward", "learner.chunks"} <= whole
