"""A cell with one wrong term fails the tests of cells: each term of carry, slope, masks and surrogate."""

import importlib.util

import pytest

from creditbench.cells import base, cell_class
from creditbench.machine.folders import PACKAGE
from creditbench.ops import make_ops
from tests.cells.test_cells import params_of
from tests.conftest import _compiled, autodiff, estimate, learner, make_batch, make_cell, relative_error

#: Cell, a piece of its source, the piece in its place.
MUTANTS = [
    ("tanh", "1.0 - phi * phi", "1.0 - phi"),
    ("linear", "self.alpha * ops.xp.ones_like", "ops.xp.ones_like"),
    ("gru", "return ((z,),)", "return ((1.0 - z,),)"),
    ("gru", "(u, u * a_h * r * (1.0 - r)", "(u, u * r * (1.0 - r)"),
    ("gru", "(h - candidate) * z * (1.0 - z)", "h * z * (1.0 - z)"),
    ("gru", "u * r),), ()", "u),), ()"),
    ("gru", "sees_input = (0, 3)", "sees_input = (1, 4)"),
    ("gru", "sees_recurrence = (1, 4)", "sees_recurrence = (0, 3)"),
    ("lstm", "return ((f, 0.0), (to_h * f, 0.0))", "return ((f, 0.0), (0.0, 0.0))"),
    ("lstm", "s[0] * f * (1.0 - f)", "after[0] * f * (1.0 - f)"),
    ("lstm", "squashed * o * (1.0 - o)", "o * (1.0 - o)"),
    ("lstm", "return ((0.0, 1.0),)", "return ((1.0, 0.0),)"),
    ("lru", "((l_re, -l_im), (l_im, l_re))", "((l_re, l_im), (l_im, l_re))"),
    ("lru", "((gamma, 0.0), (0.0, gamma))", "((1.0, 0.0), (0.0, 1.0))"),
    ("lru", "grown * a_re - by_nu * turned_re", "-by_nu * turned_re"),
    ("lru", "-by_theta * turned_im", "by_theta * turned_im"),
    ("lif", "((self.decay,),)", "((1.0,),)"),
    ("lif", "self.dampening) / self.threshold", "2.0 * self.dampening) / self.threshold"),
    ("lif", "ops.stop_gradient(fired)", "fired"),
    ("alif", "(psi, self.adaptation_decay - self.adaptation * psi)", "(psi, self.adaptation_decay)"),
    ("alif", "(psi, -self.adaptation * psi)", "(psi, 0.0)"),
    ("alif", "(self.decay, 0.0), (psi,", "(self.decay, 0.0), (0.0,"),
]


def mutant(folder, id, old, new):
    """The cell with one piece of its source replaced."""
    source = (PACKAGE / "cells" / f"{id}.py").read_text(encoding="utf-8")
    assert source.count(old) == 1, f"{id} does not hold {old!r} once"
    path = folder / f"{id}_{'same' if old == new else 'mutant'}.py"
    path.write_text(source.replace(old, new), encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return next(v for v in vars(module).values() if isinstance(v, type) and v.__module__ == path.stem)


def is_true(kind):
    """Whether the cell computes what the shipped one does, and `bptt` on it is its reverse mode."""
    ops = make_ops("torch", dtype="float64")
    cell, true = (make_cell(kind=k, alpha=0.4 if k.leaky else 1.0) for k in (kind, cell_class(kind.id)))
    params, batch = params_of(true), make_batch()
    loss, expected = autodiff(ops, cell, params, batch)
    found = estimate(ops, learner("bptt"), cell, params, batch)
    same = abs(autodiff(ops, true, params, batch)[0] - loss) < 1e-12
    return same and abs(found[0] - loss) < 1e-12 and relative_error(found[1], expected) < 1e-10


@pytest.mark.parametrize(("id", "old", "new"), MUTANTS)
def test_one_wrong_term_fails(tmp_path, id, old, new):
    assert is_true(mutant(tmp_path, id, old, old))
    assert not is_true(mutant(tmp_path, id, old, new))


def test_a_derivative_at_the_wrong_step_fails(monkeypatch):
    """∂h/∂s of the step itself where that of the step before belongs."""
    true = base.Cell.derivatives

    def late(self, *args):
        found = true(self, *args)
        return found._replace(out_before=found.out)

    monkeypatch.setattr(base.Cell, "derivatives", late)
    _compiled.clear()
    assert not is_true(cell_class("lif")) and not is_true(cell_class("alif"))
    assert is_true(cell_class("gru"))
    _compiled.clear()


def test_zeros_for_the_wrong_gates_fail(monkeypatch):
    """Weights of the gates that see the input given to those that see the recurrence, and the reverse."""
    assert is_true(cell_class("gru"))
    true = base.Cell.of_gates

    def swapped(self, values, gates):
        return true(self, values, (self.G - gates[1], self.G - gates[0]))

    monkeypatch.setattr(base.Cell, "of_gates", swapped)
    _compiled.clear()
    assert not is_true(cell_class("gru"))
    _compiled.clear()
