"""Checks of a rule's claims, against BPTT, against other ways to cut a sequence, and against its cost."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from creditbench.cells import Cell
from creditbench.check.base import Broken, Check, NotApplicable, check
from creditbench.check.probe import (
    B,
    T,
    arguments,
    autodiff,
    late_batch,
    leaves,
    make_batch,
    relative_error,
    segment_of,
)
from creditbench.check.subject import Subject
from creditbench.learner import Batch, Learner
from creditbench.measure import memory, work
from creditbench.measure.update import Update
from creditbench.ops import COMPILED, Ops
from creditbench.studies import scaling
from creditbench.studies.gradients import sample

CHECKS: list[Check] = []

# -- unbiased --------------------------------------------------------------------------------------------

#: Draws at first and at most, and the seconds after which there are no more: a compiled program draws many at
#: once.
_DRAWS = {True: (4096, 65_536), False: (512, 4096)}  # by whether a backend compiles
_SECONDS = 12.0
#: A difference of so many times the effect of noise on a sum is not due to noise.
_NOISE = 10.0
#: A deviation of so many standard errors is a bias.
_ERRORS = 4.0
#: There are enough draws if an error of this part of the gradient would show.
_POWER = 0.1


@check(
    CHECKS,
    "unbiased",
    "look for a missing factor (B, K, σ, α), a target's weight left out, or influence that is dropped; else "
    "leave out `unbiased`",
)
def unbiased(subject: Subject) -> str:
    """The mean of draws is BPTT's gradient in every parameter, and its error falls as 1/√N.

    A unit's own parameters that the rule leaves as they start are left out. A rule that takes no derivative
    cannot follow the surrogate by which BPTT is defined in a spiking cell.
    """
    rule, ops = subject.precise, subject.ops
    if not subject.claims.unbiased:
        raise NotApplicable("not claimed")
    cell, params, batch = subject.plain, subject.params(subject.plain), late_batch()
    if cell.spikes and not takes_derivatives(subject):
        raise NotApplicable(
            f"{cell.id} spikes: BPTT's gradient is that of a surrogate, and the rule takes no derivative"
        )
    _, gradient = autodiff(ops, cell, params, batch)
    expected = np.concatenate([gradient[name].ravel() for name in cell.shapes()])
    if not subject.noisy:
        _, found, *_ = ops.to_numpy(_once(ops, rule, cell, params, batch))
        missing = set(cell.shapes()) - set(found)
        if missing:
            raise Broken(f"no gradient of {', '.join(sorted(missing))}")
        left = [name for name in cell.phi if not found[name].any()]
        found, gradient = ({k: v for k, v in x.items() if k not in left} for x in (found, gradient))
        error = relative_error(found, gradient)
        if error > 1e-8:
            raise Broken(f"without noise, and {error:.2g} of the largest entry away from BPTT's gradient")
        return f"is BPTT's gradient to {error:.1g}{_but(left)}"
    first, most = _DRAWS[ops.name in COMPILED]
    began, draws = time.monotonic(), np.zeros((0, expected.size))
    while True:
        more = _draw(ops, rule, cell, params, batch, max(first, len(draws)), len(draws))
        draws = np.concatenate([draws, more])
        along = draws @ expected / float(expected @ expected)  # 1 if a draw is the gradient
        power = _ERRORS * float(along.std(ddof=1)) / np.sqrt(len(draws))
        if power < _POWER or len(draws) >= most or time.monotonic() - began > _SECONDS:
            break
    parts = _parts(cell)
    left = [name for name in cell.phi if not draws[:, parts[name]].any()]
    kept = np.concatenate([np.arange(x.start, x.stop) for name, x in parts.items() if name not in left])
    worst, where = _deviation(draws, expected, {k: x for k, x in parts.items() if k not in left})
    if worst > _ERRORS:
        raise Broken(
            f"the mean of {len(draws):,} draws is {worst:.3g} standard errors from BPTT's gradient in {where}"
        )
    # The error of the mean falls as 1/√N: a sixteenth of the draws has four times the error, but the same
    # bias.
    sixteen = draws[: len(draws) // 16 * 16].reshape(16, -1, expected.size).mean(axis=1)
    away = ((x - expected)[:, kept] for x in (sixteen, draws.mean(0)[None]))
    small, all_ = (np.sqrt((x**2).sum(-1).mean()) for x in away)
    if small < 1.6 * all_:
        raise Broken(
            f"16 times the draws make the error {small / all_:.2g} times smaller, where it should be 4"
        )
    seen = f"{len(draws):,} draws, {worst:.1f} standard errors at most"
    if power > 1.0:
        raise NotApplicable(f"too noisy to tell: {seen}, and a gradient of 0 would have passed")
    return f"{seen}; a factor of {1 + power:.2f} would have shown{_but(left)}"


def _but(left: list[str]) -> str:
    """The unit's own parameters that were left out, in words."""
    return f"; leaves {', '.join(left)} as they start" if left else ""


def _parts(cell: Cell) -> dict[str, slice]:
    """The place of each parameter in a flat gradient."""
    ends = np.cumsum([0, *(int(np.prod(shape)) for shape in cell.shapes().values())])
    return {name: slice(ends[i], ends[i + 1]) for i, name in enumerate(cell.shapes())}


def takes_derivatives(subject: Subject) -> bool:
    """Whether the rule asks for a derivative: of a unit, or of the framework."""
    if reverse_passes(subject):
        return True
    ops, called = subject.ops, set[str]()
    # A cell asks itself which class defines a method: each is noted where it is defined.
    owners = {
        name: next(one for one in subject.kind.__mro__ if name in vars(one))
        for name in ("derivatives", "slopes")
    }
    with contextlib.ExitStack() as stack:
        for name, owner in {**owners, "jvp": ops}.items():
            stack.enter_context(_noted(owner, name, name, called))
        ops.compile(segment_of(ops, subject.rule, subject.plain), *subject.arguments(ops))
    return bool(called)


def _once(ops: Ops, rule: Any, cell: Cell, params: Any, batch: Batch) -> Any:
    args = arguments(ops, rule, cell, params, batch)
    return ops.compile(segment_of(ops, rule, cell), *args)(*args)


def _draw(
    ops: Ops, rule: Any, cell: Cell, params: Any, batch: Batch, count: int, seed: int
) -> NDArray[np.float64]:
    """Draws of the estimate of one segment from its first state, [count, p]."""
    params, _, batch, _ = arguments(ops, rule, cell, params, batch)
    return sample(ops, cell, rule, params, Batch(*batch), count, seed)


def _deviation(
    draws: NDArray[np.float64], expected: NDArray[Any], parts: Mapping[str, slice]
) -> tuple[float, str]:
    """The largest |mean - expected| in standard errors, and the parameter.

    For each parameter: along the expected gradient and along 4 random directions. The errors are those of the
    means of 64 groups, since a single draw may have heavy tails.
    """
    rng, worst = np.random.default_rng(0), (0.0, "")
    groups = draws[: len(draws) // 64 * 64].reshape(64, -1, draws.shape[1]).mean(axis=1)
    for name, part in parts.items():
        directions = np.vstack([expected[part], rng.standard_normal((4, part.stop - part.start))])
        away = (groups[:, part] - expected[part]) @ directions.T
        # A value that is the same in every draw is exact up to rounding.
        rounding = 1e-10 * np.abs(directions).sum(1) * max(np.abs(expected).max(), 1e-300)
        error = np.maximum(away.std(axis=0, ddof=1) / 8.0, rounding)
        worst = max(worst, (float((np.abs(away.mean(axis=0)) / error).max()), name))
    return worst


# -- online ----------------------------------------------------------------------------------------------


@check(
    CHECKS,
    "online",
    "carry in `state` all that a later step needs, and use nothing of the segment's length or of later steps",
)
def online(subject: Subject) -> str:
    """An episode in segments of any length, even one step, has the same summed gradient as in one piece.

    All noise is the same, whatever its key. If it is drawn anew for each segment, the sums may differ as much
    as noise moves them, and the check settles nothing. They may not differ by far more.
    """
    rule, ops = subject.rule, subject.repeated
    if not subject.claims.online:
        raise NotApplicable("not claimed")
    run = sorted(rule.backends - COMPILED)
    if ops.host.traces and run:
        raise NotApplicable(f"looked at under {run[0]}")  # where every step is run, and not traced
    unit = rule.stream_segment
    steps = unit * max(2, -(-T // unit))
    cell, params, batch = subject.plain, subject.params(subject.plain), make_batch(steps)
    whole, drawn = _cut(ops, rule, cell, params, batch, (steps,))
    # An update at every step must be possible, even if the rule prefers longer segments.
    alone, _ = _cut(ops, rule, cell, params, batch, (1,) * steps)
    bad = [name for part in alone for name, x in part.items() if not np.isfinite(x).all()]
    if bad:
        raise Broken(f"in segments of 1 step the summed {bad[0]} is not finite")
    cuts = [(unit,) * (steps // unit), (unit, steps - unit)]
    if unit == 1:
        cuts.append((7, 5))
    scale = max(float(np.abs(x).max()) for part in whole for x in part.values()) or 1.0
    unsettled = ""
    for sizes in dict.fromkeys(cuts):
        found, own = _cut(ops, rule, cell, params, batch, sizes)
        for name, away in _away(whole, found).items():
            if away < 1e-9 * scale:
                continue
            if own == drawn or not away < _NOISE * _spread(subject, params, batch, (steps,), sizes)[name]:
                raise Broken(
                    f"in segments of {_sizes(sizes)} steps the summed {name} is {away / scale:.2g} from that "
                    "in one piece" + (", by far more than noise moves it" if own != drawn else "")
                )
            unsettled = (
                f"not settled: {steps} updates of 1 step are finite, but noise is drawn anew for each "
                "segment, and moves the sums as much as to cut the episode does"
            )
    if unsettled:
        raise NotApplicable(unsettled)
    return f"{steps} steps in one piece, and in segments of {' / '.join(map(_sizes, dict.fromkeys(cuts)))}"


def _away(one: Any, other: Any) -> dict[str, float]:
    """The largest differences of two results of `_cut`, by parameter."""
    found: dict[str, float] = {}
    for first, second in zip(one, other, strict=True):
        for name, x in first.items():
            found[name] = max(found.get(name, 0.0), float(np.abs(x - second[name]).max()))
    return found


def _spread(subject: Subject, params: Any, batch: Batch, *cuts: tuple[int, ...]) -> dict[str, float]:
    """How far noise moves the sums of an episode, by parameter: the largest over the cuts."""
    found: dict[str, float] = {}
    for sizes in cuts:
        first, *others = (
            _cut(subject.injected, subject.rule, subject.plain, params, batch, sizes, key)[0]
            for key in range(1, 9)
        )
        for other in others:
            away = _away(first, other)
            found = {name: max(found.get(name, 0.0), away[name]) for name in away}
    return found


def _sizes(sizes: tuple[int, ...]) -> str:
    return str(sizes[0]) if len(set(sizes)) == 1 else "+".join(map(str, sizes))


def _cut(
    ops: Any, rule: Learner, cell: Cell, params: Any, batch: Batch, sizes: tuple[int, ...], key: int = 1
) -> Any:
    """((summed gradients, last assigned values), draws) of an episode in segments, at fixed weights."""
    _, state, _, noise = arguments(ops, rule, cell, params, batch, key)
    current, start = ops.from_numpy(params), 0
    total: dict[str, Any] = {}
    assigned: dict[str, Any] = {}
    segment = segment_of(ops, rule, cell)
    ops.drawn.clear()
    with ops.host.step_by_step():
        for size in sizes:
            part = Batch(*ops.from_numpy(tuple(x[start : start + size] for x in batch)))
            _, grads, state, new = segment(current, state, part, noise)
            current, assigned, start = current | new, assigned | ops.to_numpy(new), start + size
            total = {k: total.get(k, 0.0) + g for k, g in ops.to_numpy(grads).items()}
    return (total, assigned), dict(ops.drawn)


# -- forward only ----------------------------------------------------------------------------------------


@check(
    CHECKS,
    "forward only",
    "leave out reverse mode (value_and_grad, vjp, backward), or leave out `forward_only`",
)
def forward_only(subject: Subject) -> str:
    """The rule asks for no reverse pass: not from `ops`, not from the framework, not as a backward scan."""
    if not subject.claims.forward_only:
        raise NotApplicable("not claimed")
    called = reverse_passes(subject)
    if called:
        raise Broken(f"runs a reverse pass: {', '.join(sorted(called))}")
    return "no reverse pass is asked for"


def reverse_passes(subject: Subject) -> set[str]:
    """The functions of reverse mode that the rule calls in one segment."""
    called: set[str] = set()
    base = type(subject.ops)

    class Watched(base):  # type: ignore[misc, valid-type]
        def scan(self, f, carry, xs, *, reverse=False):
            if reverse:
                called.add("ops.scan(reverse=True)")
            return super().scan(f, carry, xs, reverse=reverse)

    ops = Watched(dtype="float64")
    places: list[tuple[Any, str, str]] = [(ops, n, f"ops.{n}") for n in ("value_and_grad", "vjp", "jacobian")]
    places += ops.host.reverse_modes()
    module = sys.modules[subject.plugin.cls.__module__]
    held = {id(getattr(owner, name)): said for owner, name, said in places if not isinstance(owner, Ops)}
    places += [(module, name, held[id(x)]) for name, x in list(vars(module).items()) if id(x) in held]
    args = subject.arguments(ops)
    with contextlib.ExitStack() as stack:
        for owner, name, said in places:
            stack.enter_context(_noted(owner, name, said, called))
        ops.compile(segment_of(ops, subject.rule, subject.plain), *args)
    # A call by `ops` itself is not a second finding.
    own = {said for said in called if said.startswith("ops.")}
    return own or called


@contextlib.contextmanager
def _noted(owner: Any, name: str, said: str, called: set[str]) -> Iterator[None]:
    """Calls of `owner.name` add `said` to `called`."""
    real = getattr(owner, name)

    def noted(*args, **kwargs):
        called.add(said)
        return real(*args, **kwargs)

    own = name in vars(owner)
    setattr(owner, name, noted)
    try:
        yield
    finally:
        setattr(owner, name, real) if own else delattr(owner, name)


# -- cost ------------------------------------------------------------------------------------------------

#: Sizes between which exponents are taken. The figures are exact, so two are enough. T is whole chunks of 64
#: and of 10.
_T = {"algorithm_bytes": (640, 2560), "flops": (320, 1280)}
_N = {True: (128, 512), False: (32, 128)}  # by whether a backend compiles
_UNITS = 32  # n where T is swept: so many that the index of a chunk weighs nothing


@check(
    CHECKS,
    "memory in T",
    "sum over time in the carry of ops.scan, carry the key too, and return nothing for each step (see "
    "docs/explanation/rules.md, Good to know); or claim what it is",
)
def memory_in_T(subject: Subject) -> str:  # noqa: N802 - T as in the claim
    """Algorithm bytes grow with the steps of a segment no faster than claimed."""
    return _grows(subject, "T", "algorithm_bytes", _T["algorithm_bytes"], subject.claims.memory_in_T)[0]


@check(CHECKS, "memory", "keep no array larger than claimed, temporaries included; or claim what it is")
def memory_in_n(subject: Subject) -> str:
    """Algorithm bytes grow with the hidden units no faster than claimed.

    The gradient is as large as the weights, and no claim counts it. So bytes that grow no faster than the
    gradient settle nothing for a rule that claims less. The state that a segment changes must still grow no
    faster than claimed.
    """
    sizes, text = (64, 256), subject.claims.memory
    said, held = _grows(subject, "n", "algorithm_bytes", sizes, text)
    if held:
        return said
    claim = scaling.claimed(subject.rule.claims, "n", "algorithm_bytes", subject.plain)
    assert claim is not None
    carried = [[float(_carried_bytes(subject, n))] for n in sizes]
    if all(x[0] for x in carried):
        state = scaling.fit(sizes, carried, draws=2)
        if not state.exponent < claim + scaling.tolerance(claim):
            raise Broken(f"the state that is carried on grows as n^{state.exponent:.2f}, claimed {text}")
    raise NotApplicable(f"not settled: {said}, and no faster than the gradient, which is not counted")


def _carried_bytes(subject: Subject, n: int) -> int:
    """Bytes of the state that a segment changes, at n hidden units, the network's own activity left out."""
    before, after = (leaves(x) for x in (subject.first_state(B), subject.program(*subject.arguments())[2]))
    changed = [name for name, x in subject.ops.to_numpy(before).items() if not np.array_equal(x, after[name])]
    with subject.single_precision() as ops:
        cell = subject.kind(2, n, 2)
        params = ops.from_numpy(subject.rule.weights(cell, cell.init(0)))
        state = leaves(subject.rule.init(ops, cell, params, 1))
        own = sum(x.nbytes for x in leaves(cell.start(ops, 1)).values())
        return max(0, sum(state[name].nbytes for name in changed) - own)


@check(CHECKS, "time", "use rank-one factors (Outer) and products of rows; or claim what it is")
def time_of_a_step(subject: Subject) -> str:
    """FLOPs grow with the hidden units, and with the steps, no faster than claimed."""
    claims = subject.claims
    with_n, _ = _grows(subject, "n", "flops", _N[subject.backend in COMPILED], claims.time)
    return f"{with_n}; {_grows(subject, 'T', 'flops', _T['flops'], claims.time)[0]}"


def _grows(
    subject: Subject, axis: str, quantity: str, sizes: tuple[int, int], text: str
) -> tuple[str, bool | None]:
    """The exponent of a cost in T or n beside the claimed one, and whether it settles the claim."""
    claim = scaling.claimed(subject.rule.claims, axis, quantity, subject.plain)
    if claim is None:
        raise NotApplicable(f"'{text}' is no claim that can be compared with figures: write it as O(...)")
    if axis == "n" and (strange := _strange(text, subject.rule)):
        raise NotApplicable(f"{', '.join(strange)} in {text} may grow with n")
    values = []
    with subject.single_precision() as ops:
        for size in sizes:
            K = max(4, subject.rule.stream_segment) if axis == "n" else size
            cell = subject.kind(2, size if axis == "n" else _UNITS, 2)
            update = Update(learner=subject.rule, cell=cell, steps=K)
            if quantity == "flops":
                found = work.count(ops, update.block(ops), update.start(ops), update.data(ops, 1)).flops
            else:
                found = memory.algorithm_bytes(ops, update)
            values.append([float(found)])
    fitted = scaling.fit(sizes, values, draws=2)
    name = {"flops": "FLOPs", "algorithm_bytes": "bytes"}[quantity]
    exponent = round(fitted.exponent, 2) + 0.0
    said = f"{name} grow as {axis}^{exponent:.2f} from {axis} = {sizes[0]} to {sizes[1]}, claimed {text}"
    if axis == "n" and not subject.plain.recurrent and re.search(r"p\b", text):
        said += f" ({scaling.WITHOUT_W_REC})"
    held = scaling.held(fitted, claim, axis, quantity)
    if held is False:
        raise Broken(said)
    return said, held


def _strange(text: str, rule: Any) -> list[str]:
    """Names in a claim that are neither the harness's symbols nor hyper-parameters of the rule."""
    fields = {field.name for field in dataclasses.fields(rule)}
    names = re.findall(r"[A-Za-z_]+", text.removeprefix("O"))
    return sorted(
        {name for name in names if name not in fields and not set(name) <= set("TnBpmKIO") and name != "log"}
    )
