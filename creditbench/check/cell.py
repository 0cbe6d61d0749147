"""The checks of a cell: its parameters, its forward pass, and the derivatives of a unit that rules use."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import itertools
from collections.abc import Iterable
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from creditbench.cells import Cell
from creditbench.check import cell_oracles
from creditbench.check.base import Broken, Check, NotApplicable, check, located
from creditbench.check.pairs import goes_with
from creditbench.check.parity import require_several
from creditbench.check.probe import (
    INPUTS,
    OUTPUTS,
    B,
    N,
    T,
    autodiff,
    difference,
    leaves,
    lively,
    make_batch,
    make_cell,
    quick_ops,
    relative_error,
)
from creditbench.learner import online
from creditbench.ops import Ops
from creditbench.plugins import registry
from creditbench.plugins.importing import Plugin
from creditbench.trials.network import own_fields

CHECKS: list[Check] = []
#: Each loss and decorrelation, with and without biases.
_OPTIONS: tuple[dict[str, Any], ...] = (
    {"alpha": 0.4},
    {"bias": False, "decorrelate": "hidden", "loss": "cross_entropy"},
    {"alpha": 0.4, "decorrelate": "both"},
)
#: What a cell defines. A name that is nearly one of these is taken for a slip.
_DEFINED = (
    *("id", "name", "paper", "S", "G", "Q", "sees_input", "sees_recurrence", "phi", "leaky", "skips"),
    *("spikes", "f", "o", "slopes", "out_slopes", "derivatives", "own_parameters", "first_bias", "init"),
)
_ALIKE = 0.85
#: Names of the parameters that every cell may have.
_SHARED = ("W_in", "W_rec", "W_out", "b", "c", "D", "D_in")
#: Greatest relative difference of what is equal but for rounding, in float64.
_EXACT = 1e-10
#: Steps of a sequence over which a cell stays finite, and the size of its weights beside those drawn.
_STEPS, _SMALL = 100, 0.1


@dataclasses.dataclass(frozen=True)
class CellSubject:
    """A cell and a backend, the subject of the checks."""

    plugin: Plugin
    backend: str

    @cached_property
    def ops(self) -> Ops:
        """The backend in float64."""
        return quick_ops(self.backend)

    def make(self, options: dict[str, Any]) -> Cell:
        """A small cell; `alpha` counts where it has a leak."""
        kind = self.plugin.cls
        return make_cell(**options | ({} if kind.leaky else {"alpha": 1.0}), kind=kind)

    @cached_property
    def cells(self) -> list[Cell]:
        return [self.make(options) for options in _OPTIONS]


@check(
    CHECKS,
    "metadata",
    "set the class attributes as creditbench/cells/base.py describes them, and give each own field a default",
    needed=True,
)
def metadata(subject: CellSubject) -> str:
    """Names, numbers of state, gates and outputs, and what the gates see are of the right kind."""
    cls = subject.plugin.cls
    _require_meant(cls)
    for name in ("id", "name", "paper"):
        if not isinstance(getattr(cls, name), str) or not getattr(cls, name).strip():
            raise Broken(f"{name} is {getattr(cls, name)!r}, and must be text")
    for name in ("S", "G", "Q"):
        value = getattr(cls, name)
        if type(value) is not int or value < 1:
            raise Broken(f"{name} is {value!r}, and must be a whole number from 1")
    for name in ("sees_input", "sees_recurrence"):
        gates = getattr(cls, name)
        whole = isinstance(gates, tuple) and len(gates) == 2 and all(type(g) is int for g in gates)
        if not whole or not 0 <= gates[0] <= gates[1] <= cls.G:
            raise Broken(f"{name} is {gates!r}, and must be (from, to) with 0 <= from <= to <= G = {cls.G}")
    if cls.sees_input[0] == cls.sees_input[1]:
        raise Broken(f"sees_input is {cls.sees_input}: no gate sees the input")
    for name in cls.phi:
        if not (isinstance(name, str) and name.isidentifier()) or name in _SHARED:
            raise Broken(f"phi has {name!r}: give a name that is none of {', '.join(_SHARED)}")
    for name in ("leaky", "skips", "spikes"):
        if type(getattr(cls, name)) is not bool:
            raise Broken(f"{name} is {getattr(cls, name)!r}, and must be True or False")
    for field in own_fields(cls):
        if field.default is dataclasses.MISSING:
            raise Broken(f"the field {field.name} has no default")
        if hasattr(Cell, field.name):
            raise Broken(f"the field {field.name} hides what every cell has by this name: rename it")
    hash(subject.cells[0])
    phi = f", φ {', '.join(cls.phi)}" if cls.phi else ""
    input, recurrence = (_gates(gates) for gates in (cls.sees_input, cls.sees_recurrence))
    return f"S = {cls.S}, G = {cls.G}, Q = {cls.Q}{phi}; x̂ goes to {input}; ĥ goes to {recurrence}"


def _gates(gates: tuple[int, int]) -> str:
    """The gates from, to by their places in `a`."""
    return ", ".join(f"a[{k}]" for k in range(*gates)) or "no gate"


def _require_meant(cls: type[Cell]) -> None:
    """Raise `Broken` for a constant that is no field, and for a name that is nearly one of a cell's."""
    fields = {field.name for field in dataclasses.fields(cls)}
    for base in cls.__mro__[: cls.__mro__.index(Cell)]:
        for name, kind in inspect.get_annotations(base).items():
            if name not in (*fields, *inspect.get_annotations(Cell)) and "ClassVar" not in str(kind):
                raise Broken(
                    f"{name} is annotated and is no field, so that --set cannot reach it: put "
                    f"@dataclass(frozen=True) above the class {base.__name__}"
                )
        for name in vars(base).keys() - fields - set(dir(Cell)) - set(_DEFINED):
            if not name.startswith("_") and (near := difflib.get_close_matches(name, _DEFINED, 1, _ALIKE)):
                raise Broken(f"{name} means nothing to a cell: did you mean {near[0]!r}? else rename it")


@check(
    CHECKS,
    "parameters",
    "draw weights and φ in `init`, `first_bias` and `own_parameters` from the seed alone, in the shapes of "
    "`shapes()`, finite",
    needed=True,
)
def parameters(subject: CellSubject) -> str:
    """What a cell draws has its shapes, is finite, and is the same for the same seed."""
    for cell in subject.cells:
        first, again = cell.init(0), cell.init(0)
        wanted = dict(cell.shapes())
        if cell.decorrelate != "none":
            wanted["D"] = (cell.width, cell.width)
        if cell.decorrelate == "both":
            wanted["D_in"] = (cell.inputs, cell.inputs)
        if (own := cell.own_parameters(np.random.default_rng(0)).keys()) != set(cell.phi):
            raise Broken(f"phi names {_listed(cell.phi)}, and own_parameters gives {_listed(own)}")
        if first.keys() != wanted.keys():
            names = ", ".join(sorted(first.keys() ^ wanted.keys()))
            raise Broken(f"init and shapes() differ in {names}")
        for name, value in first.items():
            if np.shape(value) != tuple(wanted[name]):
                raise Broken(f"init draws {name} of shape {np.shape(value)}, not {tuple(wanted[name])}")
            if not np.isfinite(value).all():
                raise Broken(f"init draws {name} that is not finite")
            if not np.array_equal(value, again[name]):
                raise Broken(f"init draws another {name} from the same seed")
    return f"{', '.join(subject.cells[0].shapes())}: shapes, finite, the same for the same seed"


@check(
    CHECKS,
    "unit",
    "return from f(self, ops, s, a, phi) a tuple of S arrays and from o(self, ops, s) a tuple of Q arrays, "
    "[..., n] and in the float format of `ops`, of each unit by itself, computed with `ops.xp` and "
    "creditbench.cells.functions alone, without an `if` on values; s, a: tuples of S and of G arrays",
    needed=True,
)
def unit(subject: CellSubject) -> str:
    """`f` and `o` give tuples of arrays of the right number, shape and float format, and mix no units.

    The framework can trace and derive them.
    """
    ops, cell = subject.ops, subject.cells[0]
    phi = ops.from_numpy({name: cell.init(0)[name] for name in cell.phi})
    rng = np.random.default_rng(0)
    drawn = [tuple(rng.standard_normal((B, N)) for _ in range(count)) for count in (cell.S, cell.G)]
    s, a = (ops.from_numpy(values) for values in drawn)
    wanted = s[0].dtype
    for name, found, count in (("f", cell.f(ops, s, a, phi), cell.S), ("o", cell.o(ops, s), cell.Q)):
        if not isinstance(found, tuple) or len(found) != count:
            raise Broken(f"{name} returned {_described(found)}, and must return a tuple of {count} arrays")
        for x in found:
            if tuple(getattr(x, "shape", ())) != (B, N):
                raise Broken(f"{name} gives shape {tuple(getattr(x, 'shape', ()))} for rows {(B, N)}")
            if x.dtype != wanted:
                raise Broken(f"{name} gives {x.dtype} for {wanted}")

    def derived(s, a, phi):
        return Cell.slopes(cell, ops, s, a, phi, cell.f(ops, s, a, phi)), Cell.out_slopes(cell, ops, s)

    if ops.host.traces:
        ops.compile(derived, s, a, phi)
    else:
        derived(s, a, phi)
    _require_apart(ops, cell, drawn, phi)
    return f"f gives {_count(cell.S)}, o {_count(cell.Q)}, of each unit by itself"


def _count(number: int) -> str:
    return f"{number} array{'s' * (number > 1)}"


def _require_apart(ops: Ops, cell: Cell, drawn: list[tuple[NDArray[Any], ...]], phi: Any) -> None:
    """Raise `Broken` if the values of one unit and row move another's."""
    changed = [tuple(x.copy() for x in values) for values in drawn]
    for x in itertools.chain(*changed):
        x[0, 0] += 1.0
    (s, a), (moved_s, moved_a) = ([ops.from_numpy(values) for values in given] for given in (drawn, changed))
    pairs = {
        "f": (cell.f(ops, s, a, phi), cell.f(ops, moved_s, moved_a, phi)),
        "o": (cell.o(ops, s), cell.o(ops, moved_s)),
    }
    for name, (one, other) in pairs.items():
        for x, y in zip(ops.to_numpy(one), ops.to_numpy(other), strict=True):
            away = np.abs(x - y)
            away[0, 0] = 0.0
            if not away.max() < _EXACT:
                raise Broken(
                    f"{name} mixes units: where one unit's values change, those of another move by "
                    f"{away.max():.2g}"
                )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _described(found: Any) -> str:
    return f"a tuple of {len(found)}" if isinstance(found, tuple) else f"a {type(found).__name__}"


@check(CHECKS, "rest", "let `o` be 0 at s = 0: a network starts there, and nobody has said anything yet")
def rest(subject: CellSubject) -> str:
    """A network at rest sends nothing: o(0) = 0."""
    ops, cell = subject.ops, subject.cells[0]
    for h in ops.to_numpy(cell.o(ops, tuple(ops.zeros((B, N)) for _ in range(cell.S)))):
        if np.abs(h).max() != 0.0:
            raise Broken(f"o(0) is {h.ravel()[0]:.3g}")
    return "o(0) = 0"


@check(
    CHECKS, "finite", "let `f` forget: a unit that grows step by step overflows on a stream, which has no end"
)
def finite(subject: CellSubject) -> str:
    """From small weights, states and outputs stay finite over many steps."""
    ops = subject.ops
    for cell in subject.cells:
        drawn = {name: _SMALL * x if name.startswith("W") else x for name, x in lively(cell).items()}
        x = np.random.default_rng(1).standard_normal((_STEPS, B, INPUTS))
        state, a, out, s = cell_oracles.steps(ops, cell, ops.from_numpy(drawn), x)
        for name, value in {"s": s, "a": a, "ĥ": out, "the last state": leaves(tuple(state))}.items():
            values = value.values() if isinstance(value, dict) else value
            if not all(np.isfinite(ops.to_numpy(v)).all() for v in values):
                raise Broken(f"{name} is not finite within {_STEPS} steps")
    return f"over {_STEPS} steps"


@check(
    CHECKS,
    "derivatives",
    "mend `slopes`, `out_slopes` or `derivatives`, or leave them out: then the framework's forward mode of "
    "`f` and `o` gives them",
)
def derivatives(subject: CellSubject) -> str:
    """Carry, slope, ∂h/∂s and ∂s/∂φ are the framework's forward mode of f and o."""
    ops, worst = subject.ops, dict[str, float]()
    for cell in subject.cells:
        params, x = ops.from_numpy(lively(cell)), make_batch().inputs
        encoded = cell.encode(params, ops.from_numpy(x).reshape((T * B, INPUTS)))
        _, unrolled = cell.unroll(ops, params, cell.start(ops, B), encoded, T)
        _, a, _, s = cell_oracles.steps(ops, cell, params, x)
        rows = [ops.xp.concat(tuple(step[k] for step in s)) for k in range(cell.S)]
        before, after = tuple(r[: T * B] for r in rows), tuple(r[B:] for r in rows)
        gates = ops.xp.concat(tuple(a))
        parts = tuple(gates[:, k * N : (k + 1) * N] for k in range(cell.G))
        phi = {name: params[name] for name in cell.phi}
        _require_rows("slopes", cell.slopes(ops, before, parts, phi, after), _slopes(cell))
        _require_rows("out_slopes", (cell.out_slopes(ops, after),), (("∂h/∂s", cell.Q, cell.S),))
        found = cell.derivatives(ops, params, unrolled)
        # The forward mode of the base class, whatever the cell itself says.
        carry, slope, own = Cell.slopes(cell, ops, before, parts, phi, after)
        constant = np.full((T * B, 1, 1, N), 1.0 - cell.alpha)
        pairs = {
            "carry": (
                constant if found.carry is None else cell_oracles.full(ops, found.carry),
                cell_oracles.matrix(ops, carry),
            ),
            "slope": (cell_oracles.full(ops, found.slope), cell_oracles.matrix(ops, slope)),
        }
        if found.carry is None and cell.S > 1:
            raise Broken("carry is left out, and a unit's state has several numbers")
        to_h = cell_oracles.matrix(ops, Cell.out_slopes(cell, ops, after))
        identity = np.ones_like(to_h) if cell.Q == cell.S == 1 else None
        if found.out is not None:
            pairs["∂h/∂s"] = cell_oracles.full(ops, found.out), to_h
        elif identity is not None:
            pairs["∂h/∂s"] = identity, to_h
        if cell.phi:
            if found.own is None:
                raise Broken("∂s/∂φ is left out")
            pairs["∂s/∂φ"] = cell_oracles.full(ops, found.own), cell_oracles.matrix(ops, own)
        for name, (one, other) in pairs.items():
            if one.shape != other.shape:
                raise Broken(f"{name} has the axes {one.shape[1:-1]}, not {other.shape[1:-1]}")
            apart = np.abs(one - other).max((0, 3)) / max(1.0, np.abs(other).max())
            away = float(apart.max())
            worst[name] = max(worst.get(name, 0.0), away)
            if not away < _EXACT:
                entry = _entry(cell, name, *map(int, np.unravel_index(apart.argmax(), apart.shape)))
                source = "o" if "h" in name else "f"
                raise Broken(f"{name} is {away:.2g} from the forward mode of {source}, most in {entry}")
    return ", ".join(f"{name} to {away:.1g}" for name, away in worst.items())


def _slopes(cell: Cell) -> tuple[tuple[str, int, int], ...]:
    """What `slopes` returns: name, rows and columns of each matrix; ∂s/∂φ counts only where there is φ."""
    return ("∂s/∂s", cell.S, cell.S), ("∂s/∂a", cell.S, cell.G), ("∂s/∂φ", cell.S, len(cell.phi))


def _require_rows(name: str, found: Any, wanted: tuple[tuple[str, int, int], ...]) -> None:
    """Raise `Broken` unless `found` has each matrix as a tuple of rows, and each row as a tuple."""
    if not isinstance(found, tuple) or len(found) != len(wanted):
        names = ", ".join(what for what, _, _ in wanted)
        raise Broken(f"{name} returned {_described(found)}, and must return the tuple ({names})")
    for matrix, (what, rows, columns) in zip(found, wanted, strict=True):
        if not columns:  # without φ nobody looks at ∂s/∂φ
            continue
        whole = isinstance(matrix, tuple) and all(isinstance(row, tuple) for row in matrix)
        if not whole or [len(row) for row in matrix] != [columns] * rows:
            raise Broken(
                f"{name} gives {what} as {_described(matrix)}: it is a tuple of rows, {rows}, and each row a "
                f"tuple of {columns}"
            )


def _entry(cell: Cell, name: str, row: int, column: int) -> str:
    """One derivative of a unit, as `∂s[0]/∂a[1]`."""
    below = {"carry": f"s[{column}]", "slope": f"a[{column}]", "∂h/∂s": f"s[{column}]"}
    return f"∂{'h' if 'h' in name else 's'}[{row}]/∂{below.get(name) or cell.phi[column]}"


@check(CHECKS, "unrolled", "let `step`, `unroll` and `run` do the same: most cells define `f` and `o` alone")
def unrolled_is_run(subject: CellSubject) -> str:
    """The outputs of `unroll` are those of `run`, and its segments can be cut anywhere."""
    ops, worst = subject.ops, 0.0
    for cell in subject.cells:
        params, x = ops.from_numpy(lively(cell)), ops.from_numpy(make_batch().inputs)
        whole = ops.to_numpy(cell.run(ops, params, x))
        encoded = cell.encode(params, x.reshape((T * B, INPUTS)))
        for cuts in ((0, T), (0, 1, 5, T)):
            state, outputs = cell.start(ops, B), []
            for first, last in itertools.pairwise(cuts):
                part = encoded[first * B : last * B]
                state, unrolled = cell.unroll(ops, params, state, part, last - first)
                outputs.append(ops.to_numpy(cell.readout(ops, params, unrolled.out)))
            found = np.concatenate(outputs).reshape((T, B, OUTPUTS))
            worst = max(worst, difference({"y": whole}, {"y": found})[0])
            if not worst < _EXACT:
                raise Broken(f"the outputs of segments {cuts} are {worst:.2g} from those of `run`")
    return f"segments give the outputs of `run`, to {worst:.1g}"


@check(
    CHECKS,
    "reverse mode",
    "mend the derivatives of a unit: rules carry gradients with them, and BPTT is the reference of all",
)
def reverse_mode(subject: CellSubject) -> str:
    """The framework's reverse mode through `run` is what `creditbench.learner.backpropagate` gives."""
    ops, worst = subject.ops, 0.0
    for cell in subject.cells:
        params, batch = lively(cell), make_batch(loss=cell.loss)
        _, expected = autodiff(ops, cell, params, batch)
        worst = max(worst, relative_error(cell_oracles.backpropagated(ops, cell, params)[1], expected))
        if not worst < _EXACT:
            raise Broken(f"the largest difference is {worst:.2g} of the largest entry")
    return f"to {worst:.1g}"


@check(
    CHECKS, "influence", "mend the derivatives of a unit: rules that carry influence forward in time use them"
)
def influence(subject: CellSubject) -> str:
    """The influence of the parameters, carried forward, gives the gradient of reverse mode.

    Where no gate sees ĥ, the influence of each unit's parameters on that unit is all of it.
    """
    ops, worst, recurrent = subject.ops, 0.0, subject.cells[0].recurrent
    make = cell_oracles.all_influence if recurrent else cell_oracles.own_influence
    for cell in subject.cells:
        drawn, batch = lively(cell), make_batch(loss=cell.loss)
        _, expected = autodiff(ops, cell, drawn, batch)
        params, batch = ops.from_numpy(drawn), type(batch)(*ops.from_numpy(tuple(batch)))
        batch = batch._replace(inputs=cell.encode(params, batch.inputs))
        size, M = cell.state_size, cell.parameters
        trace = ops.zeros((B, N * M, size) if recurrent else (B, size, M))
        state = {"cell": cell.start(ops, B), "trace": trace}

        def segment(params, state, batch, cell=cell):
            found = online(ops, cell, params, state, batch, None, lambda c, own: make(ops, c, own))
            return {name: ops.dense(grad) for name, grad in found.grads.items()}

        grads = ops.to_numpy(ops.compile(segment, params, state, batch)(params, state, batch))
        worst = max(worst, relative_error(grads, expected))
        if not worst < _EXACT:
            raise Broken(f"the largest difference from reverse mode is {worst:.2g} of the largest entry")
    if recurrent:
        return f"W_rec takes it from unit to unit; carried forward it gives the gradient, to {worst:.1g}"
    return f"no unit sees another: that of each on itself, O(p) numbers, gives the gradient, to {worst:.1g}"


@check(
    CHECKS,
    "rules",
    "mend the cell where a rule fails with it: its traceback is that of creditbench run --learner RULE",
)
def rules(subject: CellSubject) -> str:
    """Every shipped rule runs with the cell, or says why it does not fit."""
    if subject.backend != "torch":
        raise NotApplicable("looked at under torch, where no program is compiled")
    said: dict[str, list[str]] = {}
    for plugin in registry.builtin("learners").values():
        try:
            found = goes_with(plugin, subject.plugin.cls)
        except Broken:
            raise
        except Exception as error:
            raise Broken(f"{plugin.id} fails with it: {located(error, subject.plugin.path)}") from error
        said.setdefault(found, []).append(plugin.id)
    whole = said.pop("yes", [])
    rest = [f"{', '.join(names)}: {how}" for how, names in sorted(said.items())]
    return "; ".join([f"{len(whole)} go with it", *rest])


# -- between backends --------------------------------------------------------------------------------------


def numbers(subject: CellSubject) -> dict[str, Any]:
    """Loss, gradient and outputs of each cell, by name, as lists."""
    found: dict[str, Any] = {}
    for i, cell in enumerate(subject.cells):
        drawn = lively(cell)
        loss, grads = cell_oracles.backpropagated(subject.ops, cell, drawn)
        inputs = subject.ops.from_numpy(make_batch().inputs)
        y = cell.run(subject.ops, subject.ops.from_numpy(drawn), inputs)
        own = {"the loss": loss, "the outputs": subject.ops.to_numpy(y)}
        own |= {f"the gradient of {name}": x for name, x in grads.items()}
        found |= {f"{i} {name}": np.asarray(value).tolist() for name, value in own.items()}
    return found


def compare(found: dict[str, dict[str, Any]]) -> str:
    """Compare the `numbers` of the backends; raises `Broken` or `NotApplicable`."""
    require_several(found)
    first, *others = found
    worst, where, other = max((*difference(found[first], found[name]), name) for name in others)
    if not worst < _EXACT:
        number, name = where.partition(",")[0].split(" ", 1)
        options = ", ".join(f"{k} {v}" for k, v in _OPTIONS[int(number)].items())
        raise Broken(f"{name} of {first} and of {other} differ by {worst:.2g} ({options})")
    return f"to {worst:.1g}"
