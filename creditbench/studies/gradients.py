"""Quality of an estimate of the gradient, against reverse mode on the same weights and the same segment.

With g_1 … g_N independent draws of a rule's estimate, μ = E[g], and g* the gradient:

    cosine              E[g·g* / ‖g‖‖g*‖], of a single draw
    bias                ‖μ - g*‖ / ‖g*‖
    variance            E‖g - μ‖² / ‖g*‖²
    draws to cosine c   the least N for which the mean of N draws reaches it:
                        μ·g* / ‖g*‖ = c √(‖μ‖² + V/N), with V = E‖g - μ‖²

‖ḡ - g*‖² over N draws is ‖μ - g*‖² + V/N in expectation: it is not the bias. The mean of (g_i - g*)·(g_j -
g*) over pairs of different draws is used instead. Its expectation is ‖μ - g*‖². Likewise g_i·g_j is used for
‖μ‖². Intervals are 95 %, by the jackknife over 20 groups of draws. If the interval of the squared bias
reaches below 0, that of the bias starts at 0, and no bias has been shown.

The noise of some rules lies in a state that starts without noise, such as weights that wander about their
mean. Each of their draws must be a chain of its own: N segments at fixed weights, until the state has
settled, and then the segment whose estimate is the draw.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from creditbench.errors import UsageError
from creditbench.executors.spread import Spread
from creditbench.learner import Batch, backpropagate
from creditbench.ops.base import Ops
from creditbench.studies import process
from creditbench.trials.blocks import OwnBlocks
from creditbench.trials.grid import Options, make_grid, resolve
from creditbench.trials.trainer import Trainer, train_to
from creditbench.trials.trial import Trial, with_cell

COSINE = 0.9
_GROUPS = 20
_Z = 1.96
#: Bytes that the draws of one vmapped call may take.
_AT_ONCE = 1 << 26


def statistics(draws: NDArray[Any], gradient: NDArray[Any]) -> dict[str, Any]:
    """The figures of draws [N, p] of an estimate of `gradient` [p], with their intervals.

    A rule without noise may come as one draw: its variance is 0 and its figures are exact.
    """
    draws, gradient = np.asarray(draws, np.float64), np.asarray(gradient, np.float64)
    scale = np.linalg.norm(gradient)
    if len(draws) == 1 or not np.ptp(draws, axis=0).any():
        g = draws[0]
        cosine = float(g @ gradient / max(np.linalg.norm(g) * scale, 1e-300))
        bias = float(np.linalg.norm(g - gradient) / scale)
        reached = 1 if cosine >= COSINE else None
        return {
            "cosine": cosine,
            "cosine_interval": [cosine, cosine],
            "bias": bias,
            "bias_interval": [bias, bias],
            "variance": 0.0,
            "variance_interval": [0.0, 0.0],
            "draws_to_cosine": reached,
            "draws_to_cosine_interval": [reached, reached],
        }
    products = draws @ draws.T / scale**2  # [N, N], in units of ‖g*‖²
    along = draws @ gradient / scale**2  # [N]
    full = _figures(products, along)
    groups = np.array_split(np.arange(len(draws)), min(_GROUPS, len(draws)))
    left = []
    for group in groups:
        rest = np.setdiff1d(np.arange(len(draws)), group)
        left.append(_figures(products[np.ix_(rest, rest)], along[rest]))
    left_out = np.array(left)
    G = len(groups)
    error = _Z * np.sqrt((G - 1) / G * ((left_out - left_out.mean(0)) ** 2).sum(0))
    low, high = full - error, full + error

    def root(x: float) -> float:
        return math.sqrt(max(0.0, float(x)))

    def needed(rate: float) -> int | None:
        # `rate` is 1/N; if it is not positive, no number of draws is enough.
        return max(1, math.ceil(1 / rate - 1e-9)) if rate > 0 else None

    return {
        "cosine": float(full[0]),
        "cosine_interval": [float(low[0]), float(high[0])],
        "bias": root(full[1]),
        "bias_interval": [root(low[1]), root(high[1])],
        "variance": float(full[2]),
        "variance_interval": [max(0.0, float(low[2])), float(high[2])],
        "draws_to_cosine": needed(full[3]),
        "draws_to_cosine_interval": [needed(high[3]), needed(low[3])],
    }


def _figures(products: NDArray[Any], along: NDArray[Any]) -> NDArray[Any]:
    """(cosine, squared bias, variance, 1 / draws to cosine) from g_i·g_j and g_i·g*, in units of ‖g*‖²."""
    N = len(along)
    squares = np.diag(products)
    # Means over pairs of different draws: unbiased for ‖μ‖².
    mean_square = (products.sum() - squares.sum()) / (N * (N - 1))
    mean_along = along.mean()
    variance = squares.mean() - mean_square
    cosine = (along / np.sqrt(np.maximum(squares, 1e-300))).mean()
    enough = np.sign(mean_along) * (mean_along / COSINE) ** 2 - mean_square
    return np.array([cosine, mean_square - 2 * mean_along + 1.0, variance, enough / variance])


def flatten(ops: Ops, cell: Any, grads: Mapping[str, Any]) -> Any:
    """Gradients as one vector [p], in the order of the cell's parameters; untrained parameters have zeros."""
    parts = [
        ops.dense(grads[name]).reshape((-1,)) if name in grads else ops.zeros((math.prod(shape),))
        for name, shape in cell.shapes().items()
    ]
    return ops.xp.concat(parts)


def sample(
    ops: Ops,
    cell: Any,
    rule: Any,
    params: Any,
    batch: Batch,
    draws: int,
    seed: int = 0,
    before: Batch | None = None,
) -> NDArray[Any]:
    """Draws [draws, p] of a rule's estimate of one segment, from the rule's first state; vmapped under JAX.

    `before`: segments [N, K, B, ·] that each draw runs first, at the same weights and with its own noise,
    each from the start of new sequences; the rule's state is carried on. A rule whose first two draws are
    equal has no noise, and gives one draw.
    """
    rows = batch.weights.shape[1]
    first_state = rule.init(ops, cell, params, rows)

    def one(key, params, state, batch, before):
        if before is not None:
            keys = ops.split(key, before.weights.shape[0] + 1)

            def settle(state, xs):
                earlier, own = xs
                state = rule.reset(ops, cell, params, state, rows)
                return rule.segment(ops, cell, params, state, Batch(*earlier), own).state, None

            state, _ = ops.scan(settle, state, (tuple(before), keys[:-1]))
            state, key = rule.reset(ops, cell, params, state, rows), keys[-1]
        return flatten(ops, cell, rule.segment(ops, cell, params, state, batch, key).grads)

    keys = ops.split(ops.key(seed), max(2, draws))
    arguments = params, first_state, batch, before
    single = ops.compile(one, keys[0], *arguments)
    first = [ops.to_numpy(single(key, *arguments)) for key in (keys[0], keys[1])]
    if np.array_equal(*first):
        return first[0][None]
    if not ops.host.draws_together:
        return np.stack(first + [ops.to_numpy(single(key, *arguments)) for key in keys[2:]])[:draws]
    steps = batch.weights.shape[0]
    each = 4 * (4 * first[0].size + 16 * steps * rows * cell.hidden)
    size = max(1, min(draws, _AT_ONCE // each))
    many = ops.vmap(one, in_axes=(0, None, None, None, None))
    found, compiled = [], {}
    for start in range(0, draws, size):
        part = keys[start : min(draws, start + size)]
        if len(part) not in compiled:
            compiled[len(part)] = ops.compile(many, part, *arguments)
        found.append(ops.to_numpy(compiled[len(part)](part, *arguments)))
    return np.concatenate(found)


def why_none(ops: Ops, cell: Any, rule: Any, params: Any, batch: Batch, settle: int) -> str:
    """Why a rule's estimate is zero after `settle` segments, and what to do."""
    state = rule.init(ops, cell, params, batch.weights.shape[1])
    if rule.segment(ops, cell, params, state, batch, ops.key(0)).assigned:
        return "gives no gradient: it sets its weights itself"
    if settle == 0:
        return "has a first estimate of zero: if noise lies in its state, give --settle, as in --settle 100"
    return f"has an estimate of zero after {settle} segments too: give a greater --settle"


def reference(ops: Ops, cell: Any, params: Any, batch: Batch) -> NDArray[Any]:
    """The gradient by reverse mode through the segment, from the zero state, [p]."""

    def f(params, batch):
        found = backpropagate(ops, cell, params, cell.start(ops, batch.weights.shape[1]), batch)
        return flatten(ops, cell, found.grads)

    return ops.to_numpy(ops.compile(f, params, batch)(params, batch))


def measure(
    ops: Ops,
    *,
    trials: Sequence[Mapping[str, Any]],
    run: Mapping[str, Any],
    steps: int,
    points: Sequence[float],
    draws: int,
    settle: int = 0,
) -> Iterator[dict[str, Any]]:
    """The figures of the rule of each of `trials`, at each of `points` of the BPTT run of the trial `run`.

    `points` are parts of the run's budget; 0 means the weights as drawn. The segment at a point is the next
    one of `run`, on a stream `steps` steps from the zero state. The `settle` segments that a draw runs before
    it are those that follow it in the run. Raises `UsageError`.
    """
    reverse = Trainer(Trial.model_validate(run), ops)
    rules = [OwnBlocks(Trial.model_validate(trial), ops) for trial in trials]
    cell = reverse.cell
    for point, params, segments in train_to(reverse, points, steps, 1 + settle):
        batch = Batch(*(x[0] for x in segments))
        before = Batch(*(x[1:] for x in segments)) if settle else None
        gradient = reference(ops, cell, params, batch)
        if not gradient.any():
            raise UsageError(
                f"the gradient on {reverse.trial.task} at {point:g} is zero, as if no step is scored there: "
                "choose other --parts, or on a stream other --steps"
            )
        for blocks in rules:
            found = sample(ops, cell, blocks.learner, params, batch, draws, seed=1, before=before)
            if not found.any():
                note = why_none(ops, cell, blocks.learner, params, batch, settle)
                yield {"learner": blocks.trial.rule, "point": point, "note": note}
                continue
            yield {
                "learner": blocks.trial.rule,
                "task": blocks.trial.task,
                "point": point,
                **statistics(found, gradient),
                "draws": len(found),
            }


class Order(NamedTuple):
    """The rules that are measured along one BPTT run."""

    backend: str
    rules: list[Trial]
    run: Trial


def orders(
    options: Options, steps: int | None, say: Callable[[str], None] = lambda note: None
) -> list[Order]:
    """The rules of `options` by backend, cell and task, each beside the BPTT run of that cell and task.

    `say` is told what is left out.
    Raises `UsageError` for trials that cannot run, and if `steps` are given for a task with episodes.
    """
    found = []
    for backend in options.backends:
        here = dataclasses.replace(options, backends=(backend,))
        grid = make_grid(here)
        trials = grid.trials
        for note in grid.notes:
            say(f"note: {note}")
        # The run has the same tasks and cells with their settings, but not the settings of other learners.
        owners = {name for trial in trials for name in (trial.task, trial.cell)}
        kept = {name: value for name, value in options.settings.items() if name.partition(".")[0] in owners}
        used = tuple(item for item in options.cells if resolve("cells", item).id in owners)
        reverse = dataclasses.replace(here, learners=("bptt",), cells=used, settings=kept, threads=1)
        for run in make_grid(reverse).trials:
            if steps is not None and run.protocol == "episodes":
                raise UsageError(
                    f"--steps is {steps}: {run.task} has episodes of {run.segment} steps, and one is a "
                    "segment; leave out --steps"
                )
            own = [trial for trial in trials if (trial.task, trial.cell) == (run.task, run.cell)]
            found.append(Order(backend, own, run))
    return found


def look(
    asked: Sequence[Order],
    points: Sequence[float],
    bars: Callable[[str, int], AbstractContextManager[Callable[[str], None]]],
    say: Callable[[str], None],
    where: Spread,
    *,
    device: str,
    steps: int,
    draws: int,
    settle: int,
) -> list[dict[str, Any]]:
    """The figures of `measure` for each order, a part of `where`: a row a rule, task and point.

    A rule that gives no gradient has no row: `say` is told why.
    """
    parts = [
        {
            "job": "gradients",
            "backend": order.backend,
            "device": device,
            "threads": where.threads,
            "trials": [trial.model_dump(mode="json") for trial in order.rules],
            "run": order.run.model_dump(mode="json"),
            "steps": steps,
            "points": list(points),
            "draws": draws,
            "settle": settle,
        }
        for order in asked
    ]
    rows: list[tuple[int, dict[str, Any]]] = []
    said = set()
    with bars("figures", sum(len(order.rules) for order in asked) * len(points)) as advance:
        for number, found in where.run(process.ENTRY, parts):
            order = asked[number]
            rule = with_cell(found["learner"], order.run.cell)
            advance(f"{rule} {order.run.task} {order.backend} at {found['point']:g}")
            if "note" in found:
                note = f"{rule} {found['note']}"
                if note not in said:
                    say(f"note: {note}; left out")
                said.add(note)
                continue
            place = {"learner": found.pop("learner"), "cell": order.run.cell, "backend": order.backend}
            rows.append((number, place | found))
    # In the order of the parts, whichever ended first.
    return [row for _, row in sorted(rows, key=itemgetter(0))]
