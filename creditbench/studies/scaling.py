"""How cost grows: one size of the problem is swept, and the exponent of the cost in it is fitted.

    log cost = exponent · log size + constant

The fit is least squares over the upper half of the sizes, on a log scale, with a bootstrap interval: sizes
are drawn anew, and for times the blocks at each size too. The exponent is shown beside the one that the rule
claims.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from creditbench.cells import Cell
from creditbench.errors import UsageError
from creditbench.executors.spread import Spread
from creditbench.learner import Claims
from creditbench.measure import clock, memory, work
from creditbench.measure.roofline import Peaks, last_cache_bytes, least_bytes, peaks, share
from creditbench.measure.update import FORWARD_CLAIMS, Update, prepare
from creditbench.ops import BACKENDS
from creditbench.ops.base import Ops
from creditbench.plugins import registry
from creditbench.studies import process
from creditbench.trials.grid import resolve_cells, resolve_learners, user_path
from creditbench.trials.network import make_network
from creditbench.trials.settings import by_owner, converted, fields_of
from creditbench.trials.trial import CELL, with_cell

AXES = ("T", "n", "B")
QUANTITIES = ("time", "algorithm_bytes", "flops")
#: The pseudo-learner that is a plain forward pass.
FORWARD = "forward"
#: T is whole chunks of 64 and of 10 from 320 on, since a remainder is compiled apart. One small size is shown
#: only, and three from the geometric middle on are fitted.
SIZES = {"T": (160, 640, 1280, 2560), "n": (32, 128, 256, 512), "B": (1, 16, 32, 64)}
#: Exact figures have no noise, so fewer sizes are enough. PyTorch runs them slowly, operation by operation.
EXACT_SIZES = {"T": (320, 640, 1280), "n": (64, 128, 256), "B": (16, 32, 64)}
#: Seconds that a figure may take at one size.
LIMIT = 20.0
_INPUTS = _OUTPUTS = 2
#: The tolerance for a claimed exponent of 0, and for any other.
_CONSTANT, _EXACT = 0.05, 0.1


class Fit(NamedTuple):
    """An exponent and its 95 % interval."""

    exponent: float
    low: float
    high: float


def fit(sizes: Sequence[float], values: Sequence[Sequence[float]], draws: int = 2000) -> Fit:
    """The exponent of `values` in `sizes`, fitted to the median of the measurements at each size.

    The upper half of the range counts: the sizes from the geometric middle of the least and the greatest on,
    but at least two. Raises `UsageError` for fewer than two sizes, and for values that are not positive.
    """
    if len(set(sizes)) < 2:
        raise UsageError(
            f"points are {', '.join(map(str, sizes))}: an exponent takes two different sizes or more"
        )
    if not all(value > 0 for at_size in values for value in at_size):
        raise UsageError("a cost of 0 has no exponent: measure at greater sizes")
    order = np.argsort(sizes)
    middle = math.sqrt(min(sizes) * max(sizes)) * (1 - 1e-9)
    upper = [i for i in order if sizes[i] >= middle]
    upper = upper if len(upper) > 1 else list(order[-2:])
    x = np.log([sizes[i] for i in upper])
    samples = [np.log(np.asarray(values[i], float)) for i in upper]
    exponent = _slope(x, np.array([np.median(s) for s in samples]))
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(draws):
        take = rng.integers(len(upper), size=len(upper))
        if len(set(take)) > 1:
            y = [np.median(samples[i][rng.integers(len(samples[i]), size=len(samples[i]))]) for i in take]
            drawn.append(_slope(x[take], np.array(y)))
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Fit(exponent, float(low), float(high))


def _slope(x: NDArray[Any], y: NDArray[Any]) -> float:
    centred = x - x.mean()
    return float(centred @ y / (centred @ centred))


#: A learner or a cell as a measuring process gets it: id, path of a user's file, own fields.
Named = tuple[str, str | None, Mapping[str, Any]]
#: The cell of what is measured without a choice of cells.
USUAL: Named = (CELL, None, {})


class Rule(NamedTuple):
    """A learner with a cell."""

    learner: Named
    cell: Named
    backends: frozenset[str]

    @property
    def order(self) -> tuple[Named, Named]:
        return self.learner, self.cell

    @property
    def name(self) -> str:
        """The learner, and the cell unless it is the usual one."""
        return with_cell(self.learner[0], self.cell[0])


def rules_of(
    names: Sequence[str],
    settings: Mapping[str, str],
    extra: Sequence[str] = (),
    cells: Sequence[str] = (CELL,),
) -> tuple[list[Rule], list[str]]:
    """The learners of those names with each of the cells, with `settings`, and notes on pairs left out.

    `extra` are names that stand for no learner. These run on every backend, with every cell. Raises
    `UsageError` for an unknown name, for a field that no learner or cell has, and if no pair is left.
    """
    networks = resolve_cells(cells)
    found = resolve_learners([name for name in names if name not in extra], settings, networks)
    learners = {plugin.id: plugin for plugin, _ in found.values()}
    own = by_owner(settings, {}, learners, cells=networks)
    rules, notes = [], []
    for plugin in networks.values():
        values = converted(plugin, own.get(plugin.id, {}))
        cell = make_network(plugin.cls, inputs=_INPUTS, hidden=1, outputs=_OUTPUTS, **values)
        network = plugin.id, user_path(plugin), fields_of(plugin, cell)
        for name in names:
            if name not in found:
                rules.append(Rule((name, None, {}), network, frozenset(BACKENDS)))
                continue
            learner, fields = found[name]
            if why := learner.cls(**fields).fits(cell):
                notes.append(f"{learner.id} does not go with {plugin.id}: {why}; it is left out")
                continue
            rules.append(Rule((learner.id, user_path(learner), fields), network, learner.cls.backends))
    if not rules:
        raise UsageError(f"nothing is left to measure: {'; '.join(notes)}")
    return rules, notes


# -- claims ----------------------------------------------------------------------------------------------

_SUPERSCRIPTS = {"²": 2.0, "³": 3.0, "⁴": 4.0, "": 1.0}
#: p = n m parameters; m = n + inputs + 1, or inputs + 1 without recurrent weights.
_POWERS = {"n": {"n": 1.0, "m": 1.0, "p": 2.0}, "T": {"T": 1.0}, "B": {"B": 1.0}}
_WITHOUT_RECURRENCE = _POWERS | {"n": {"n": 1.0, "m": 0.0, "p": 1.0}}
#: What is said where p is less.
WITHOUT_W_REC = "without W_rec p grows as n"


def claimed(claims: Claims, axis: str, quantity: str, cell: Cell | None = None) -> float | None:
    """The exponent that a rule claims, of one update on T steps of B sequences; None if it claims none.

    `cell`: the network; None: one with recurrent weights. Without them p grows as n, in what is claimed of
    such cells alone: a claim of all cells takes p for n².
    """
    field = "time" if quantity != "algorithm_bytes" else "memory_in_T" if axis == "T" else "memory"
    special = cell is not None and not cell.recurrent and field in claims.without_recurrence
    text = claims.without_recurrence[field] if special else getattr(claims, field)
    exponent = exponent_of(text, axis, not special)
    # `time` is of one step of one sequence.
    return exponent if field != "time" or exponent is None else exponent + (axis != "n")


def exponent_of(text: str, axis: str, recurrent: bool = True) -> float | None:
    """The exponent of `axis` in text such as `O(n²p)`; in a sum the greatest; None in other text.

    `recurrent`: whether there are recurrent weights. Without them p and m grow less with n.

    >>> exponent_of("O(n²p)", "n"), exponent_of("O(√T n B)", "T"), exponent_of("O(1)", "B")
    (4.0, 0.5, 0.0)
    >>> exponent_of("O(n²p)", "n", recurrent=False)
    3.0
    """
    inside = re.fullmatch(r"O\((.+)\)", text.strip())
    if not inside or "log" in text:
        return None
    exponents = []
    for term in inside[1].split("+"):
        total = 0.0
        for root, name, power in re.findall(r"(√?)([A-Za-z_]+)([²³⁴]?)", term):
            known = _POWERS[axis] if recurrent else _WITHOUT_RECURRENCE[axis]
            # Several letters are one name, as `population`, unless each is a symbol, as in `TnB`.
            letters = [name] if name in known or not set(name) <= set("TnBpmK") else list(name)
            for i, letter in enumerate(letters):
                own = _SUPERSCRIPTS[power if i == len(letters) - 1 else ""]
                total += known.get(letter, 0.0) * own / (2 if root and i == 0 else 1)
        exponents.append(total)
    return max(exponents)


def held(found: Fit, claim: float | None, axis: str, quantity: str) -> bool | None:
    """Whether a cost grows no faster than claimed; None if nothing is claimed.

    None for times too: caches and neighbours distort them, so they are shown but not judged. None for bytes
    that grow faster with n than claimed and no faster than the gradient: it has the size of the weights, no
    claim counts it, and smaller arrays cannot be seen beside it.
    """
    if claim is None or quantity == "time":
        return None
    if found.exponent < claim + tolerance(claim):
        return True
    behind = quantity == "algorithm_bytes" and axis == "n" and found.exponent < 2.0 + _EXACT
    return None if behind else False


def tolerance(claim: float) -> float:
    """The most that the exponent of an exact figure may exceed the claimed one."""
    return _CONSTANT if claim == 0 else _EXACT


# -- measuring -------------------------------------------------------------------------------------------


def claims_of(name: str, path: str | None, hyperparameters: Mapping[str, Any]) -> Claims:
    """The claims of that rule with those hyper-parameters."""
    return FORWARD_CLAIMS if name == FORWARD else _learner(name, path, hyperparameters).claims


def _learner(name: str, path: str | None, hyperparameters: Mapping[str, Any]) -> Any:
    return registry.find("learners", name, [path] if path else [], imports=True).cls(**hyperparameters)


def _cell(name: str, path: str | None, parameters: Mapping[str, Any], n: int) -> Cell:
    kind = registry.find("cells", name, [path] if path else []).cls
    return make_network(kind, inputs=_INPUTS, hidden=n, outputs=_OUTPUTS, **parameters)


def make_update(learner: Named, cell: Named, sizes: Mapping[str, int]) -> Update:
    """One update of a rule, or the forward pass for `FORWARD`, on an episode of T steps of B sequences.

    `sizes`: T, n and B.
    """
    rule = None if learner[0] == FORWARD else _learner(*learner)
    return Update(learner=rule, cell=_cell(*cell, sizes["n"]), steps=sizes["T"], batch=sizes["B"])


def measure(
    ops: Ops,
    *,
    rules: Sequence[tuple[Named, Named]],
    axis: str,
    sizes: Mapping[str, Sequence[int]],
    fixed: Mapping[str, int],
    seconds: float = clock.SECONDS,
    limit: float = LIMIT,
) -> Iterator[dict[str, Any]]:
    """The costs of rules at the sizes of each quantity: dicts of learner, cell, axis, size, quantity, values.

    A size is left out if it would take longer than `limit` seconds, by the time of the last one and the
    growth that the rule claims, and so are all above it. Its dict has no values. The two least sizes are
    always measured.
    """
    for learner, cell in rules:
        growth = claimed(claims_of(*learner), axis, "time", _cell(*cell, 1)) or 1.0
        for quantity, own in sizes.items():
            before, took = 0, 0.0
            for i, size in enumerate(own):
                point: dict[str, Any] = {"learner": learner[0], "cell": cell[0], "axis": axis}
                point |= {"size": size, "quantity": quantity}
                if i > 1 and took * (size / before) ** growth > limit:
                    yield from (point | {"size": left, "values": []} for left in own[i:])
                    break
                update = make_update(learner, cell, {**fixed, axis: size})
                values, took = _figure(ops, update, quantity, seconds)
                before = size
                yield point | {"values": values}


def _figure(ops: Ops, update: Update, quantity: str, seconds: float) -> tuple[list[float], float]:
    """(values, the seconds that they took in running the update)."""
    if quantity == "time":
        values = clock.blocks(prepare(ops, update, update.steps), budget=seconds)
        # The blocks, the calls that warm up, and PyTorch's recording.
        return values, (clock.BLOCKS + 3) * float(np.median(values))
    start = time.perf_counter()
    if quantity == "flops":
        value = work.count(ops, update.block(ops), update.start(ops), update.data(ops, 1)).flops
    else:
        value = memory.algorithm_bytes(ops, update)
    # A program that is only traced does not run.
    return [value], 0.0 if ops.host.traces else time.perf_counter() - start


def shares(ops: Ops, *, learners: Sequence[Named], fixed: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    """Each rule's share of the roofline that its FLOPs and bytes allow.

    The peaks are measured before each rule and after the last, and the best count. If the machine were busy
    during a single measurement of the peak, a rule could exceed it.
    """
    best, measured = peaks(ops), []
    cache = last_cache_bytes() if ops.device == "cpu" else None
    for learner in learners:
        update = make_update(learner, USUAL, fixed)
        does = work.count(ops, update.block(ops), update.start(ops), update.data(ops, 1))
        seconds = clock.quartiles(clock.blocks(prepare(ops, update, update.steps))).median
        best = Peaks(*map(max, best, peaks(ops)))
        measured.append((learner[0], update, does, seconds))
    for name, update, does, seconds in measured:
        yield {
            "learner": name,
            "gflops": does.flops / seconds / 1e9,
            "flops": does.flops,
            "bytes": does.bytes,
            "product_bytes": does.product_bytes,
            "seconds": seconds,
            "roofline_share": share(
                best, does.flops, least_bytes(update, does.product_bytes, cache), seconds
            ),
        }


def sizes_of(
    axes: Sequence[str], quantities: Sequence[str], asked: Sequence[int] = ()
) -> dict[str, dict[str, Sequence[int]]]:
    """axis -> quantity -> the given sizes, or the default ones."""
    return {
        axis: {name: asked or (SIZES if name == "time" else EXACT_SIZES)[axis] for name in quantities}
        for axis in axes
    }


def _of(row: Mapping[str, Any]) -> str:
    """The rule, cell and backend of a sweep."""
    return f"{with_cell(row['learner'], row['cell'])} {row['backend']}"


def left_out(row: Mapping[str, Any]) -> str:
    """The sizes of a sweep that were not measured."""
    sizes = ", ".join(map(str, row["left_out"]))
    return f"{_of(row)}: {row['quantity']} at {row['axis']} = {sizes}"


def broken(row: Mapping[str, Any]) -> str:
    """How a sweep exceeds its claim."""
    return (
        f"{_of(row)}: {row['quantity']} grows as {row['axis']}^{row['exponent']:.2f}, "
        f"claimed {row['claimed']:g}"
    )


def sweep(
    rules: Mapping[str, Sequence[Rule]],
    sizes: Mapping[str, Mapping[str, Sequence[int]]],
    fixed: Mapping[str, int],
    bars: Callable[[str, int], AbstractContextManager[Callable[[str], None]]],
    where: Spread,
    *,
    device: str,
    seconds: float,
    limit: float,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Measure what the rules cost at each size, in processes of their own.

    Args:
        rules: the rules to measure, by backend.
        sizes: axis -> quantity -> the sizes.
        fixed: T, n and B while they are not swept.
        bars: told as each figure is measured.
        where: parts run there: all rules of a backend and an axis, or if several run at a time, each alone.
        seconds: least time that the blocks of one figure take; `limit`: most time that a figure may take.

    Returns:
        The points that were measured, and the rows of `summarise`.
    """
    parts = [
        {
            "job": "scale",
            "backend": backend,
            "device": device,
            "threads": where.threads,
            "rules": [rule.order for rule in group],
            "axis": axis,
            "sizes": each,
            "fixed": fixed,
            "seconds": seconds,
            "limit": limit,
        }
        for backend, own in rules.items()
        for axis, each in sizes.items()
        for group in ([[rule] for rule in own] if where.several else [own] if own else [])
    ]
    total = sum(map(len, rules.values())) * sum(len(own) for each in sizes.values() for own in each.values())
    told: list[tuple[int, dict[str, Any]]] = []
    with bars("figures", total) as advance:
        for number, point in where.run(process.ENTRY, parts):
            told.append((number, point | {"backend": parts[number]["backend"]}))
            advance(f"{_of(told[-1][1])} {point['axis']}={point['size']} {point['quantity']}")
    # In the order of the parts, whichever ended first.
    found = [point for _, point in sorted(told, key=itemgetter(0))]
    pairs = {(rule.learner[0], rule.cell[0]): rule.order for own in rules.values() for rule in own}
    rows = summarise(
        found, {names: (claims_of(*learner), _cell(*cell, 1)) for names, (learner, cell) in pairs.items()}
    )
    return [point for point in found if point["values"]], rows


def summarise(
    points: Sequence[Mapping[str, Any]], claims: Mapping[tuple[str, str], tuple[Claims, Cell]]
) -> list[dict[str, Any]]:
    """A row for each learner, cell, backend, axis and quantity of `points`: its exponent beside the claim.

    `claims`: by ids of learner and cell, the rule's claims and the network.
    """
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for point in points:
        key = tuple(point[name] for name in ("learner", "cell", "backend", "axis", "quantity"))
        groups.setdefault(key, []).append(point)
    rows = []
    for (learner, cell, backend, axis, quantity), group in groups.items():
        taken = [p for p in group if p["values"]]
        found = fit([p["size"] for p in taken], [p["values"] for p in taken])
        own, network = claims[learner, cell]
        claim = claimed(own, axis, quantity, network)
        rows.append(
            {
                "learner": learner,
                "cell": cell,
                "backend": backend,
                "axis": axis,
                "quantity": quantity,
                "exponent": round(found.exponent, 4) + 0.0,
                "interval": [round(found.low, 4) + 0.0, round(found.high, 4) + 0.0],
                "claimed": claim,
                "held": held(found, claim, axis, quantity),
                "left_out": [p["size"] for p in group if not p["values"]],
            }
        )
    return rows
