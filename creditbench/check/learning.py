"""The value of an estimate to an optimiser: its sequences, its direction, and what it keeps of the past.

These are no claims: they are the contract of `segment` and `reset`, compared with the harness's own forward
pass and its gradient by reverse mode.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from creditbench.check.base import Broken, Check, NotApplicable, check
from creditbench.check.probe import B, T, arguments, autodiff, difference, leaves, make_batch, segment_of
from creditbench.check.subject import Subject
from creditbench.learner import Batch

CHECKS: list[Check] = []
#: Number of weights, and of keys for each of them if a rule draws noise.
_WEIGHTS, _KEYS = 16, 8
#: Precision of finite differences in float64.
_EXACT = 1e-6
_SEGMENTS = 60
#: A cosine is clearly negative if it is below -_UPHILL, and below 0 by _ERRORS standard errors. From _SUSPECT
#: standard errors on, more draws are taken.
_UPHILL, _ERRORS, _SUSPECT, _MORE_KEYS = 0.05, 4.0, 1.5, 64


class Chain(NamedTuple):
    """Results of a rule on a batch at one set of weights, from its first state and again after a reset."""

    loss: float  #: as reported, of the first result
    estimate: dict[
        str, NDArray[Any]
    ]  #: of the second result: what is subtracted, by parameter; untrained ones are left out
    expected: float  #: the loss of the harness's own forward pass
    gradient: dict[str, NDArray[Any]]


def make_chains(subject: Subject, keys: int = _KEYS) -> list[list[Chain]]:
    """Chains by weights and by key; one key if the rule draws no noise."""
    ops, rule, cell, run = subject.ops, subject.rule, subject.plain, subject.program
    found = []
    for seed in range(_WEIGHTS):
        weights, drawn = subject.params(cell, seed), make_batch(seed=seed)
        expected, gradient = autodiff(ops, cell, weights, drawn)
        params, first, batch, _ = arguments(ops, rule, cell, weights, drawn)
        own = []
        for k in range(keys if subject.noisy else 1):
            key = 2 * (k + keys * seed)
            loss, grads, state, assigned = run(params, first, batch, ops.key(key))
            if subject.once(kept_by_reset):
                # Some rules compare a loss with earlier ones.
                state = rule.reset(ops, cell, params, state, B)
                _, grads, _, assigned = run(params, state, batch, ops.key(key + 1))
            loss, grads, assigned = ops.to_numpy((loss, grads, assigned))
            own.append(Chain(float(loss), _subtracted(weights, grads, assigned), float(expected), gradient))
        found.append(own)
    return found


def kept_by_reset(subject: Subject) -> list[str]:
    """The parts of the state that differ from the first state after a segment and a reset."""
    params, state, batch, key = subject.arguments()
    after = subject.rule.reset(
        subject.ops, subject.plain, params, subject.program(params, state, batch, key)[2], B
    )
    before, after = (leaves(subject.ops.to_numpy(x)) for x in (state, after))
    return sorted(
        name
        for name, x in before.items()
        if name not in after or not np.array_equal(x, after[name], equal_nan=True)
    )


def _subtracted(weights: Any, grads: Any, assigned: Any) -> dict[str, NDArray[Any]]:
    """The step against each trained parameter, up to a factor: its gradient, or the change of its value."""
    return {k: weights[k] - assigned[k] for k in weights if k in assigned} | dict(grads)


# -- rows ------------------------------------------------------------------------------------------------


@check(
    CHECKS,
    "rows",
    "add up what each sequence of the batch gives by its own trace and error: the weights w hold the 1/B "
    "already, and a learning rate must not mean another thing at another B. Where the rule is defined so, "
    "say why in its class attribute `couples_rows`",
)
def rows(subject: Subject) -> str:
    """The estimate of a batch is the sum of the estimates of its sequences alone, in any order.

    Noise is the same for all sequences here. If the estimate is then not a sum, by another factor than B, the
    check says so, but fails only if `unbiased` is claimed: the size of a noisy estimate may depend on the
    batch. State that is learned within a segment from all sequences couples them by the next step, so such a
    rule is checked on one step.
    """
    ops, rule = subject.level if subject.noisy else subject.ops, subject.rule
    compiled: dict[tuple[int, ...], Any] = {(T, B): subject.program} if ops is subject.ops else {}

    def run(batch: Batch, state: Any = None) -> tuple[Any, Any, Any]:
        args, shape = subject.arguments(ops, batch=batch, state=state), batch.weights.shape
        if shape not in compiled:
            compiled[shape] = ops.compile(segment_of(ops, rule, subject.plain), *args)
        _, grads, state, assigned = ops.to_numpy(compiled[shape](*args))
        return grads, assigned, state

    batch = make_batch()
    grads, assigned, state = run(batch)
    if not all(np.isfinite(x).all() for x in leaves((grads, assigned)).values()):
        raise NotApplicable(
            "not looked at: with noise that is the same for all sequences nothing finite comes out"
        )
    turned, moved, _ = run(Batch(*(x[:, ::-1].copy() for x in batch)))
    worst, where = difference({**grads, **assigned}, {**turned, **moved})
    if worst > _EXACT:
        raise Broken(f"{where} changes by {worst:.2g} with the order of the batch's sequences")
    if not grads:
        raise NotApplicable("in any order the same; the rule gives no gradient that could be a sum")
    # From the middle of a sequence, where traces are not empty, if each sequence's part can be told.
    alone = _of_each_row(subject, state)
    state = None if alone is None else state
    scored = int(np.argmax(batch.weights.min(axis=1)))
    said, factors = "", list[float]()
    for steps in (slice(None), slice(scored, scored + 1)):
        part = Batch(*(x[steps] for x in batch))
        whole, *_ = run(part, state)
        each = [
            run(Batch(*(x[:, i : i + 1] for x in part)), None if alone is None else alone[i])[0]
            for i in range(B)
        ]
        said, factors = _apart(whole, {name: sum(one[name] for one in each) for name in whole})
        length = len(part.weights)
        if not said:
            return f"the sum of {B} sequences' alone, in any order" + (
                "" if length == T else ", of one step: what is learned within a segment couples them"
            )
        if not _learns(subject, run(batch)[2]):
            break
    if rule.couples_rows:
        raise NotApplicable(f"{said}; the rule says why: {rule.couples_rows}")
    divided = any(math.isclose(factor, other, rel_tol=_EXACT) for factor in factors for other in (B, 1.0 / B))
    if subject.noisy and not subject.claims.unbiased and not divided:
        raise NotApplicable(f"{said}: its learning rate means another thing at another batch")
    raise Broken(said)


def _apart(whole: Any, total: Any) -> tuple[str, list[float]]:
    """Where an estimate is not the sum of its parts, and by which factors; empty if it is."""
    scale = max(float(np.abs(x).max()) for x in total.values()) or 1.0
    said, factors = [], []
    for name, x in total.items():
        if not np.abs(whole[name] - x).max() / scale > _EXACT:
            continue
        factor = float((whole[name] * x).sum() / max(float((x * x).sum()), 1e-300))
        if np.abs(whole[name] - factor * x).max() <= _EXACT * np.abs(x).max():
            factors.append(factor)
            said.append(f"{name} is {factor:.3g} ×")
        else:
            said.append(f"{name} is not")
    return f"{', '.join(said)} the sum of what {B} sequences give alone" if said else "", factors


def _of_each_row(subject: Subject, state: Any) -> list[Any] | None:
    """The state of each sequence of a batch alone; None if it cannot be told apart."""
    ops, one = subject.ops, subject.ops.to_numpy(subject.first_state(1))

    def row(i: int) -> Callable[[Any, Any], Any]:
        def of(x: Any, single: Any) -> Any:
            if np.shape(x) == np.shape(single):
                return x
            if np.shape(x) != (B, *np.shape(single)[1:]) or np.shape(single)[0] != 1:
                raise _InseparableError
            return x[i : i + 1]

        return of

    with contextlib.suppress(_InseparableError):
        return [ops.tree_map(row(i), state, one) for i in range(B)]
    return None


class _InseparableError(Exception):
    pass


def _learns(subject: Subject, after: Any) -> bool:
    """Whether a segment changes a state that its sequences share."""
    before, after = leaves(subject.ops.to_numpy(subject.first_state(B))), leaves(after)
    return any(not np.array_equal(before[name], after[name]) for name in before.keys() - _by_row(subject))


def _by_row(subject: Subject) -> set[str]:
    """The parts of the state that each sequence of a batch has for itself."""
    some, more = (
        {name: tuple(x.shape) for name, x in leaves(subject.first_state(rows)).items()} for rows in (B, B + 1)
    )
    return {name for name in some if some[name] != more.get(name)}


# -- parameters, direction and loss ----------------------------------------------------------------------


@check(CHECKS, "trained", "give every parameter a gradient, or leave out `unbiased`")
def trained(subject: Subject) -> str:
    """Parameters that are never trained are named; if `unbiased` is claimed, there may be φ alone."""
    missing = [
        name
        for name in subject.plain.shapes()
        if not any(
            np.any(one.estimate.get(name, 0.0)) for chain in subject.once(make_chains) for one in chain
        )
    ]
    if not missing:
        return "every parameter"
    said = f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} never trained"
    if subject.claims.unbiased and not set(missing) <= set(subject.kind.phi):
        raise Broken(said)
    raise NotApplicable(f"{said}: give a gradient to each, or say in the docstring what stays as drawn")


@check(
    CHECKS,
    "alignment",
    "look for a lost sign: `grads` is what an optimiser subtracts, ∂L/∂θ and not the direction of an update",
)
def alignment(subject: Subject) -> str:
    """The cosine of the mean estimate with BPTT's gradient is shown; a clearly negative one fails."""
    keys, (cosines, length) = _KEYS, _cosines(subject, subject.once(make_chains))
    if subject.noisy and any(_below(found, _SUSPECT) for found in cosines.values()):
        keys = _MORE_KEYS
        cosines, length = _cosines(subject, make_chains(subject, keys))
    uphill = {name: found for name, found in cosines.items() if _below(found, _ERRORS)}
    if uphill:
        said = (f"{name or 'as a whole'} {x.mean():.2f} ± {_error(x):.1g}" for name, x in uphill.items())
        raise Broken(f"points uphill: cosine with BPTT's gradient {', '.join(said)}")
    if not length:
        raise NotApplicable("the estimate is zero wherever it was looked at")
    whole, *parts = (f"{name} {found.mean():.2f}".strip() for name, found in cosines.items() if len(found))
    draws = f" of the mean of {keys} draws" if subject.noisy else ""
    return f"cosine with BPTT's gradient {whole}{draws}, length × {length:.2g} ({', '.join(parts)})"


def _cosines(subject: Subject, chains: list[list[Chain]]) -> tuple[dict[str, NDArray[Any]], float]:
    """The cosines at each of the weights, by parameter and in all (""), and the mean ratio of lengths."""
    cosines: dict[str, list[float]] = {"": [], **{name: [] for name in subject.plain.shapes()}}
    lengths = [0.0]
    for chain in chains:
        names = [name for name in subject.plain.shapes() if all(name in one.estimate for one in chain)]
        mean = {name: np.mean([one.estimate[name] for one in chain], axis=0) for name in names}
        gradient = {name: chain[0].gradient[name] for name in names}
        for name in names:
            if np.any(mean[name]):
                cosines[name].append(_cosine(mean[name], gradient[name]))
        one, other = (np.concatenate([x[name].ravel() for name in names] or [[]]) for x in (mean, gradient))
        if np.any(one):
            cosines[""].append(_cosine(one, other))
            lengths.append(float(np.linalg.norm(one) / np.linalg.norm(other)))
    return {name: np.array(found) for name, found in cosines.items()}, sum(lengths) / max(1, len(lengths) - 1)


def _below(found: NDArray[Any], errors: float) -> bool:
    """Whether cosines are clearly negative, by so many standard errors."""
    return len(found) > 1 and found.mean() < -_UPHILL and found.mean() + errors * _error(found) < 0


def _error(found: NDArray[Any]) -> float:
    return float(found.std(ddof=1)) / math.sqrt(len(found))


def _cosine(one: NDArray[Any], other: NDArray[Any]) -> float:
    return float((one * other).sum() / max(float(np.linalg.norm(one) * np.linalg.norm(other)), 1e-300))


@check(
    CHECKS,
    "loss",
    "return as `loss` what the segment lost, L = Σ_t Σ_b w_tb ℓ_tb: it is what a training curve shows",
)
def loss(subject: Subject) -> str:
    """The reported loss is the batch's, up to rounding or up to the effect of the rule's noise."""
    reported = np.array([[one.loss for one in chain] for chain in subject.once(make_chains)])
    expected = np.array([[one.expected for one in chain] for chain in subject.once(make_chains)])
    away = reported - expected
    worst = float(np.abs(away / expected).max())
    if worst < _EXACT:
        return f"is the batch's to {worst:.1g}"
    if _sets_weights(subject):
        # Weights may move within a segment: only the first step has the given weights.
        batch = make_batch()
        batch.weights[0], batch.weights[1:] = 1.0 / B, 0.0
        found = float(subject.program(*subject.arguments(batch=batch))[0])
        wanted = float(autodiff(subject.ops, subject.plain, subject.params(subject.plain), batch)[0])
        if abs(found / wanted - 1.0) < _EXACT:
            return "is the batch's at its first step, by the weights that are set on the way from then on"
    said = f"{reported.mean():.3g} on average where the batch's is {expected.mean():.3g}"
    noise = math.sqrt(reported.var(axis=1).mean())
    if abs(away.mean()) > _ERRORS * noise or not math.isfinite(noise):
        raise Broken(f"{said}{f', and noise moves it by {noise:.2g}' if subject.noisy else ''}")
    return f"{said}; noise moves it by {noise:.2g}"


@check(
    CHECKS,
    "noise scale",
    "divide by the power of `sigma` that theory gives: ΔL ξ/σ² for noise ξ of standard deviation σ, ΔL v/σ "
    "for σ v. The estimate then stays as it is when σ gets small, and the learning rate hides no factor of "
    "it",
)
def noise_scale(subject: Subject) -> str:
    """Half the `sigma` of the noise does not shrink the estimate: the learning rate hides no factor of σ."""
    rule, ops = subject.rule, subject.ops
    if not hasattr(rule, "sigma") or not subject.noisy:
        raise NotApplicable("no noise of standard deviation `sigma`")
    half = dataclasses.replace(rule, sigma=rule.sigma / 2)
    run = {
        rule: subject.program,
        half: ops.compile(segment_of(ops, half, subject.plain), *subject.arguments()),
    }
    sizes, cosines = [], []
    for k in range(_KEYS):
        found = []
        for one, segment in run.items():
            params, state, batch, key = subject.arguments(key=2 * k)
            state = one.reset(ops, subject.plain, params, segment(params, state, batch, key)[2], B)
            grads = ops.to_numpy(segment(params, state, batch, ops.key(2 * k + 1))[1])
            found.append(np.concatenate([x.ravel() for x in grads.values()]))
        if all(np.any(x) for x in found):
            sizes.append(float(np.log2(np.linalg.norm(found[0]) / np.linalg.norm(found[1]))))
            cosines.append(_cosine(*found))
    if not sizes:
        raise NotApplicable("the estimate is zero")
    power, alike = float(np.median(sizes)), float(np.median(cosines))
    said = f"with half the sigma the estimate is {2.0**-power:.2g} times as large"
    if power > 0.5 and alike > 0.9:
        raise Broken(f"{said}, and points where it did: it goes as sigma^{power:.1f}")
    if power < -0.5:
        raise NotApplicable(f"{said}: the learning rate that fits goes with sigma")
    return said


def _sets_weights(subject: Subject) -> bool:
    return bool(subject.program(*subject.arguments())[3])


# -- state -----------------------------------------------------------------------------------------------


@check(
    CHECKS,
    "reset",
    "return from `reset` what `init` returns, and of the former state only what was learned and is shared by "
    "all sequences: what one sequence has left must not be credited by the next one",
)
def reset(subject: Subject) -> str:
    """After `reset` the parts of the state that each sequence has do not depend on earlier sequences."""
    ops, rule = subject.ops, subject.rule
    states, fresh = [], {}
    for seed in (0, 1):
        params, first, batch, key = subject.arguments(batch=make_batch(seed=seed), key=seed)
        fresh = leaves(first)
        state = subject.program(params, first, batch, key)[2]
        states.append(leaves(ops.to_numpy(rule.reset(ops, subject.plain, params, state, B))))
    one, other = states
    if one.keys() != fresh.keys():
        raise Broken(
            f"the state has {', '.join(sorted(one.keys() ^ fresh.keys()))} before or after a reset only"
        )
    strange = [name for name, x in fresh.items() if tuple(x.shape) != np.shape(one[name])]
    if strange:
        raise Broken(
            f"{strange[0]} has shape {np.shape(one[strange[0]])} after a reset, "
            f"not {tuple(fresh[strange[0]].shape)}"
        )
    kept = [name for name in one if not np.array_equal(one[name], other[name], equal_nan=True)]
    own = sorted(_by_row(subject).intersection(kept))
    if own:
        shapes = ", ".join(f"{name} {list(np.shape(one[name]))}" for name in own)
        raise Broken(
            f"leaves of the former sequences {shapes}: the next ones in their rows are credited with it"
        )
    return (
        f"keeps {', '.join(sorted(kept))}, which all sequences share"
        if kept
        else "nothing of what went before is left"
    )


@check(CHECKS, "state", "keep sums and fixed buffers, not lists that grow: a run has millions of segments")
def state_keeps_its_shapes(subject: Subject) -> str:
    """The state has the same shapes after 60 segments as after 1."""
    ops, rule = subject.ops, subject.rule
    # Compiled code cannot change a shape; a framework that does not compile is run step by step.
    plain = not ops.host.traces
    batch = make_batch(1) if plain else make_batch()
    params, state, batch, _ = subject.arguments(batch=batch)
    segment = segment_of(ops, rule, subject.plain) if plain else subject.program
    shapes: list[dict[str, Any]] = []
    with ops.host.without_tape():
        for i in range(_SEGMENTS):
            state = segment(params, state, batch, ops.key(i))[2]
            if i in (0, _SEGMENTS - 1):
                shapes.append({name: tuple(x.shape) for name, x in leaves(state).items()})
    first, last = shapes
    for name in sorted(first.keys() | last.keys()):
        if first.get(name) != last.get(name):
            raise Broken(
                f"{name} is {last.get(name, 'gone')} after {_SEGMENTS} segments, "
                f"and was {first.get(name, 'not there')}"
            )
    return f"as large after {_SEGMENTS} segments as after 1"
