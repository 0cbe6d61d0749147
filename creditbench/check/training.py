"""A few updates under both protocols, and the cost of an update beside BPTT's."""

from __future__ import annotations

import numpy as np

from creditbench.cells import Decorrelate
from creditbench.check.base import Broken, Check, check
from creditbench.check.subject import Subject
from creditbench.measure import cost
from creditbench.measure.update import Update
from creditbench.optimizers import make_optimizer

CHECKS: list[Check] = []
_UPDATES, _ROWS, _STEPS = 20, 2, 12
#: Time × bptt at n = 16 that is absurd.
_ABSURD = 10_000.0


@check(CHECKS, "stream", "lower `lr`, or bound the estimate: it must not grow with the length of a stream")
def stream(subject: Subject) -> str:
    """Updates on a stream, state carried on, leave finite weights; with and without decorrelation."""
    return _trains(subject, episodes=False)


@check(CHECKS, "episodes", "lower `lr`, or look at what `reset` leaves: the state of new sequences")
def episodes(subject: Subject) -> str:
    """Updates on episodes, state reset before each, leave finite weights; with and without decorrelation."""
    return _trains(subject, episodes=True)


def _trains(subject: Subject, episodes: bool) -> str:
    rule = subject.rule
    K = _STEPS if episodes else rule.stream_segment
    options: list[Decorrelate] = ["none", "both"] if rule.decorrelates else ["none"]
    for decorrelate in options:
        with subject.single_precision() as ops:
            update = Update(
                learner=rule,
                cell=subject.cell(0.5, hidden=8, decorrelate=decorrelate),
                steps=K,
                batch=_ROWS,
                optimizer=make_optimizer(rule.optimizer, rule.lr),
                episodes=episodes,
            )
            carry, xs = update.start(ops), update.data(ops, _UPDATES)
            carry, losses = ops.compile(update.block(ops), carry, xs)(carry, xs)
            params, losses = ops.to_numpy((carry[0], losses))
        beside = "" if decorrelate == "none" else ", decorrelated"
        if not np.isfinite(losses).all():
            first = int(np.flatnonzero(~np.isfinite(losses))[0])
            raise Broken(f"the loss is not finite after {first} updates{beside}, lr {rule.lr:g}")
        bad = [name for name, value in params.items() if not np.isfinite(value).all()]
        if bad:
            raise Broken(f"{', '.join(bad)} not finite after {_UPDATES} updates{beside}, lr {rule.lr:g}")
    return f"{_UPDATES} updates of {K} step{'s' * (K > 1)}, {' and '.join(options)} decorrelated".replace(
        "none and both", "not and fully"
    ).replace("none decorrelated", "not decorrelated")


@check(CHECKS, "speed", "profile a step: is something done every step that could be done once a segment?")
def speed(subject: Subject) -> str:
    """The time of a step over BPTT's, pair by pair; only reported, unless it is absurd."""
    rule = subject.rule
    with subject.single_precision() as ops:
        update = Update(learner=rule, cell=subject.kind(2, 16, 2), steps=max(_STEPS, rule.stream_segment))
        found = cost.ratios(ops, update, 10 * update.steps, least=5, budget=0.3).bptt
    said = f"× {found.median:.3g} bptt's time of a step, n = 16"
    if found.median > _ABSURD:
        raise Broken(said)
    return said
