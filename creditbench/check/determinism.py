"""The same arguments give the same result: again, at another time, under other global states."""

from __future__ import annotations

import warnings

import numpy as np

from creditbench.check.base import Broken, Check, NotApplicable, check
from creditbench.check.probe import arguments, difference, make_batch, named, segment_of
from creditbench.check.still import global_states
from creditbench.check.subject import Subject

CHECKS: list[Check] = []


@check(
    CHECKS,
    "determinism",
    "draw all that is random from `key`, and carry in `state` all that outlives a segment: nothing in "
    "globals, in the class, or in an unseeded generator",
    needed=True,
)
def determinism(subject: Subject) -> str:
    """Two runs with the same arguments agree bit for bit."""
    worst, where = difference(subject.first, subject.stopped_estimate())
    if worst:
        raise Broken(f"two runs with the same arguments and key differ, in {named(where)} by {worst:.1g}")
    return "two runs agree bit for bit"


@check(CHECKS, "clock", "do not let a result depend on the time: count steps, in `state`")
def clock(subject: Subject) -> str:
    """Another time of day gives the same result."""
    worst, where = difference(subject.first, subject.stopped_estimate(now=1.5e9))
    if worst:
        raise Broken(f"reads the clock: at another time {named(where)} differs by {worst:.1g}")
    return "no result depends on it"


@check(
    CHECKS,
    "global random state",
    "draw from `key` with ops.normal or ops.rademacher; where NumPy must draw, from np.random.default_rng of "
    "a field",
)
def global_random_state(subject: Subject) -> str:
    """The global generators are neither read nor moved."""
    before = global_states()
    subject.estimate()
    after = global_states()
    moved = [name for name in before if not all(map(np.array_equal, before[name], after[name]))]
    if moved:
        raise Broken(f"draws from the global random state of {' and '.join(moved)}")
    worst, where = difference(subject.first, subject.stopped_estimate(seed=1))
    if worst:
        raise Broken(f"reads a global random state: with another seed of it {named(where)} differs")
    return "neither read nor moved"


@check(CHECKS, "keys", "use the noise that is drawn, and draw it from `key`")
def keys(subject: Subject) -> str:
    """Two keys give two results if the rule draws, and the same result if it does not."""
    counted = subject.injected
    counted.drawn.clear()
    subject.estimate(counted)
    draws = bool(counted.drawn)
    if subject.noisy and not draws and len(subject.plugin.cls.backends) > 1:
        raise Broken("two keys give two results, but nothing is drawn with ops.normal or ops.rademacher")
    if draws and not subject.noisy:
        raise Broken("noise is drawn, but two keys give the same result")
    return "two keys give two results" if subject.noisy else "nothing is drawn"


@check(
    CHECKS,
    "seeds together",
    "use shapes of the arrays that segment is given, and nothing that jax.vmap cannot follow",
)
def seeds_together(subject: Subject) -> str:
    """Two seeds under one `vmap` give the results of each alone (the oracle of `run --together`)."""
    if not subject.ops.host.draws_together:
        raise NotApplicable("jax only")
    ops, rule, segment = subject.ops, subject.rule, segment_of(subject.ops, subject.rule, subject.plain)
    weights = {seed: subject.params(subject.plain, seed) for seed in (3, 4)}
    alone = [
        arguments(ops, rule, subject.plain, params, make_batch(), seed) for seed, params in weights.items()
    ]
    single = ops.compile(segment, *alone[0])
    expected = [ops.to_numpy(single(*args)) for args in alone]
    both = ops.tree_map(lambda *x: ops.xp.stack(x), *alone)
    found = ops.to_numpy(ops.compile(ops.vmap(segment), *both)(*both))
    for i, one in enumerate(expected):
        worst, where = difference(one, ops.tree_map(lambda x, i=i: x[i], found))
        if worst > 1e-9:
            raise Broken(
                f"seed {3 + i} beside another differs from itself alone in {named(where)}: {worst:.1g}"
            )
    return "two under vmap are the two alone"


@check(
    CHECKS,
    "recording",
    "keep what a step makes in the carry of ops.scan, and look at no value of a tensor: a recorded step is "
    "replayed",
)
def recording(subject: Subject) -> str:
    """A recorded and replayed `segment` equals a plain run, for another key, batch and weights too."""
    if subject.ops.host.traces:
        raise NotApplicable("torch only")

    ops, rule, segment = subject.ops, subject.rule, segment_of(subject.ops, subject.rule, subject.plain)
    first = subject.arguments()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        replay = ops.compile(segment, *first)
    if said:
        if len(subject.plugin.cls.backends) == 1:
            raise NotApplicable(str(said[0].message))
        raise Broken(str(said[0].message))
    replay(*first)
    other = arguments(ops, rule, subject.plain, subject.params(subject.plain, 5), make_batch(seed=1), 2)
    found = ops.to_numpy(replay(*other))
    with ops.host.without_tape():
        worst, where = difference(ops.to_numpy(segment(*other)), found)
    if worst > 1e-12:
        raise Broken(f"replayed, {named(where)} differs by {worst:.1g} from a plain run")
    return "a replay is a plain run"
