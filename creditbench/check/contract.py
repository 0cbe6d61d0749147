"""The contract of `Learner.segment`: its result, and the arguments that must not change."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from creditbench.cells import Cell
from creditbench.check.base import Broken, Check, NotApplicable, check
from creditbench.check.probe import TAKEN, B, T, difference, leaves, make_batch, named, segment_of, wrapped
from creditbench.check.subject import Subject
from creditbench.errors import InvalidEstimateError
from creditbench.learner import Batch, Claims
from creditbench.learner.training import check_estimate
from creditbench.ops import BACKENDS, Outer
from creditbench.optimizers import make_optimizer

CHECKS: list[Check] = []


@check(
    CHECKS,
    "metadata",
    "set the class attributes as creditbench/learner/contract.py describes them",
    needed=True,
)
def metadata(subject: Subject) -> str:
    """Names, claims, defaults and the search space are of the right kind."""
    cls, rule = subject.plugin.cls, subject.rule
    for name in ("id", "name", "paper", "family"):
        if not isinstance(getattr(cls, name), str) or not getattr(cls, name).strip():
            raise Broken(f"{name} is {getattr(cls, name)!r}, and must be text")
    if not isinstance(cls.claims, Claims):
        raise Broken(f"claims are {cls.claims!r}, and must be Claims(...)")
    if not cls.backends or not set(cls.backends) <= set(BACKENDS):
        raise Broken(f"backends are {sorted(cls.backends)}, and must be among {', '.join(BACKENDS)}")
    make_optimizer(cls.optimizer, cls.lr)
    fields = {field.name for field in dataclasses.fields(rule)}
    for name, limits in cls.search.items():
        if name not in fields | {"lr"}:
            raise Broken(f"search names {name!r}, which is no field: they are {', '.join(sorted(fields))}")
        if not (len(limits) == 2 and 0 < limits[0] < limits[1] < math.inf):
            raise Broken(f"search[{name!r}] is {limits!r}, and must be (low, high) with 0 < low < high")
    segment = rule.stream_segment
    if not isinstance(segment, int) or segment < 1:
        raise Broken(f"stream_segment is {segment!r}, and must be a whole number from 1")
    hash(rule)
    return f"{cls.family}; {', '.join(sorted(cls.backends))}"


@check(
    CHECKS,
    "cell",
    "return from `fits` why the rule does not go with a cell, as text, or an empty text",
    needed=True,
)
def fits(subject: Subject) -> str:
    """The rule goes with the cell, or says why it does not: then there is nothing more to check."""
    why = subject.rule.fits(subject.plain)
    if not isinstance(why, str):
        raise Broken(f"fits returned {why!r:.50}, and must return text")
    if why:
        raise NotApplicable(f"{subject.plugin.id} does not go with {subject.kind.id}: {why}")
    return f"goes with {subject.kind.id}"


@check(
    CHECKS,
    "estimate",
    "return an Estimate whose loss is a scalar, whose grads have the shapes of their parameters, and whose "
    "state has the shapes that init returned, all finite and in the float format of `ops`",
    needed=True,
)
def estimate_fits(subject: Subject) -> str:
    """Shapes and float formats fit and every number is finite: long and short segments, both losses."""
    _inspect(subject, subject.cell(alpha=0.3, loss="cross_entropy"), T)
    _inspect(subject, subject.cell(bias=False), 1)
    return "shapes, float formats and finite numbers in 2 cells"


def _inspect(subject: Subject, cell: Cell, steps: int) -> None:
    """Raise `Broken` unless the result of one segment fits."""
    ops, rule = subject.ops, wrapped(subject.rule, cell)
    args = subject.arguments(cell=cell, batch=make_batch(steps, loss=cell.loss))
    before = {name: (tuple(x.shape), _format(x)) for name, x in leaves(args[1]).items()}
    wanted = _format(args[0]["W_out"])

    def segment(*args):
        found = rule.segment(ops, cell, args[0], args[1], Batch(*args[2]), args[3])
        try:
            check_estimate(found, args[0])
        except InvalidEstimateError as error:
            raise Broken(str(error)) from None
        dense = {k: g for k, g in found.grads.items() if not isinstance(g, Outer)}
        factors = {k: (g.post, g.pre) for k, g in found.grads.items() if isinstance(g, Outer)}
        for name, x in leaves({"loss": found.loss, "grads": dense | factors}).items():
            if _format(x) != wanted:
                raise Broken(f"{name} is {_format(x)} where the parameters are {wanted}")
        after = {name: (tuple(x.shape), _format(x)) for name, x in leaves(found.state).items()}
        for name in before.keys() | after.keys():
            if name not in after or name not in before:
                raise Broken(f"state has {name!r} {'before' if name in before else 'after'} a segment only")
            if before[name] != after[name]:
                had, has = ("{} {}".format(*x[name]) for x in (before, after))
                raise Broken(f"state {name!r} is {has} after a segment, and was {had}")
        if cell.decorrelate != "none":
            *lengths, width = found.hidden.shape
            if math.prod(lengths) != steps * B or width not in (cell.width, cell.seen):
                raise Broken(f"hidden has shape {tuple(found.hidden.shape)}, not {(steps * B, cell.width)}")
        return found.loss, dense, factors, found.state, found.assigned

    found = ops.to_numpy(ops.compile(segment, *args)(*args))
    for where, x in leaves(found).items():
        if np.asarray(x).dtype.kind == "f" and not np.isfinite(x).all():
            name = named(where, ("loss", "grads", "grads", "state", "assigned"))
            raise Broken(f"{name.replace(' ', '.')} is not finite")


def _format(x: Any) -> str:
    return str(getattr(x, "dtype", type(x).__name__)).removeprefix("torch.")


@check(
    CHECKS,
    "decorrelation",
    "return the hidden activity of every step as Estimate.hidden, or set `decorrelates = False`",
)
def decorrelates(subject: Subject) -> str:
    """With a decorrelated cell the estimate fits too, and has the hidden activity."""
    if not subject.plugin.cls.decorrelates:
        raise NotApplicable("the rule says that it does not go with a decorrelated cell")
    try:
        _inspect(subject, subject.cell(alpha=0.3, decorrelate="both"), T)
    except TypeError as error:
        if "no hidden activity" in str(error):
            raise Broken(str(error)) from None
        raise
    return "hidden units and input"


@check(
    CHECKS,
    "arguments unchanged",
    "copy what you change: `x + 0.0` before ops.accumulate, `state | {...}` in place of state[...] = ...",
)
def arguments_unchanged(subject: Subject) -> str:
    """`segment` changes neither the arrays nor the dicts that it gets."""
    ops, args = subject.ops, subject.arguments()
    changed: list[str] = []

    def segment(*args):
        kept = {"params": args[0], "state": args[1], "batch": tuple(args[2])}
        before = {name: id(x) for name, x in leaves(kept).items()}
        found = segment_of(ops, subject.rule, subject.plain)(*args)
        after = {name: id(x) for name, x in leaves(kept).items()}
        changed[:] = [name for name in before | after if before.get(name) != after.get(name)]
        return found

    if ops.host.traces:
        ops.compile(segment, *args)
    else:
        before = ops.to_numpy(args[:3])
        with ops.host.without_tape():
            segment(*args)
        worst, where = difference(before, ops.to_numpy(args[:3]))
        if worst and not changed:
            raise Broken(f"{named(where, TAKEN).replace(' ', '.')} is changed in place")
    if changed:
        raise Broken(f"{', '.join(changed)} of its arguments is put in or replaced")
    return "parameters, state and batch"


@check(
    CHECKS,
    "unscored steps",
    "multiply what depends on a step's target or loss by the step's weight: a step of weight 0 is not scored",
)
def unscored_steps(subject: Subject) -> str:
    """The targets of steps of weight 0 do not move the estimate."""
    batch = make_batch()
    other = batch._replace(targets=np.where(batch.weights[..., None] > 0, batch.targets, 1e3))
    ops = subject.ops
    found = [ops.to_numpy(subject.program(*subject.arguments(batch=one))) for one in (batch, other)]
    worst, where = difference(*found)
    if worst > 1e-12:
        raise Broken(f"{named(where)} changes with the target of a step that is not scored")
    return "their targets move nothing"
