"""np, wp and anp with the options of the published rules, against the published equations in NumPy.

Garcia Fernandez, Keemink & van Gerven 2024, arXiv 2405.08967, and the code published with it. Their network
has no biases and no leak; a loss is the mean over the batch and the outputs, and L_t that of step t. A noisy
network runs beside the clean one. With x̂_t, ĥ_t of the clean one and ΔL_t = L̃_t - L_t, one number for the
whole batch, the credits of a row's unit (of NP and ANP) or of a weight (of WP) are

    NP     ΔL_t ξ_t / σ                             ξ ~ N(0, σ²), a draw for each row, unit and step
    WP     ΔL_t Ξ_t / σ                             Ξ ~ N(0, σ²), a draw for each weight and step, the batch's
    ANP    √N ΔL_t Δa_t / ‖Δa_t‖²                   N of inputs, hidden units and outputs; ‖·‖² layer by layer

NP and ANP multiply a unit's with what reaches it, summed over the batch; W_rec has none at a state's first
step.

    stream     θ moves at every step, with 1/B before ANP's; D moves after the passes of a step
    episode    D moves by a clean pass; both passes follow with the new D; θ moves by the sum over the steps

Their learning rate η is ours divided by what `OURS` has: the rules here have ΔL/σ, and the weights of the
loss sum to 1 over an episode.
"""

import numpy as np
import pytest

from creditbench.errors import UsageError
from creditbench.learner import Batch, chunk_size
from tests.conftest import (
    INPUTS,
    OUTPUTS,
    N,
    estimate,
    injected,
    learner,
    make_cell,
    make_params,
    relative_error,
)

SIGMA, ETA, ETA_D = 1e-2, 0.05, 1e-2  # the last one is that of `estimate`
STEPS, EPISODES, T = 4, 2, 12

PUBLISHED = {
    "np": {"sigma": SIGMA, "difference": "batch"},
    "wp": {"sigma": SIGMA, "resample": "step", "credit": "step", "recurrent_from": "second"},
    "anp": {"sigma": SIGMA, "difference": "batch", "counted": "all"},
}
#: Our learning rate over theirs, by protocol.
OURS = {
    "stream": {"np": lambda B: SIGMA, "wp": lambda B: SIGMA, "anp": lambda B: 1 / B},
    "episode": {"np": lambda B: SIGMA * T, "wp": lambda B: SIGMA * T, "anp": lambda B: T},
}
CASES = [
    (protocol, decorrelate)
    for protocol in ("stream", "episode")
    for decorrelate in ("none", "hidden", "both")
    # Their stream moves D_in of the clean network alone, so that the two see different inputs.
    if (protocol, decorrelate) != ("stream", "both")
]


# -- the equations ---------------------------------------------------------------------------------------


def decorrelating(D, activity):
    """D moved once; activity [T, B, units]: the mean over steps of each step's mean over the batch."""
    change = np.zeros_like(D)
    for rows in activity:
        correlation = sum(np.outer(row, row) for row in rows) / len(rows)
        np.fill_diagonal(correlation, 0.0)
        change += correlation @ D / len(activity)
    return D - ETA_D * change


class Network:
    """The published recurrent network, step by step; `before` is ĥ of the step before, [B, n]."""

    def __init__(self, params, before):
        self.params, self.before = params, before

    def step(self, x, noise=None, weights=None):
        """One step with noise on the pre-activations and outputs, or on the weights."""
        p = dict(self.params)
        for name, value in (weights or {}).items():
            p[name] = p[name] + value
        self.x = x @ p["D_in"].T if "D_in" in p else x
        self.last = self.before
        self.a = self.x @ p["W_in"].T + self.before @ p["W_rec"].T
        if noise is not None:
            self.a = self.a + noise[:, :N]
        h = np.tanh(self.a)
        self.before = self.h = h @ p["D"].T if "D" in p else h
        self.y = self.h @ p["W_out"].T
        if noise is not None:
            self.y = self.y + noise[:, N:]
        return self


def credit(rule, clean, noisy, delta, noise):
    """The estimate of one step for W_in, W_rec and W_out, before η, as {name: gradient}."""
    if rule == "wp":
        return {name: delta / SIGMA * value for name, value in noise.items()}
    if rule == "np":
        hidden, output = (delta / SIGMA * part for part in (noise[:, :N], noise[:, N:]))
    else:
        root = np.sqrt(INPUTS + N + OUTPUTS)
        changes = noisy.a - clean.a, noisy.y - clean.y
        hidden, output = (root * delta * change / np.sum(change**2) for change in changes)
    return {"W_in": hidden.T @ clean.x, "W_rec": hidden.T @ clean.last, "W_out": output.T @ clean.h}


def both_passes(rule, networks, x, target, noise):
    """A step of both networks: its credits."""
    clean, noisy = networks
    clean.step(x)
    noisy.step(x, **({"weights": noise} if rule == "wp" else {"noise": noise}))
    delta = np.mean((noisy.y - target) ** 2) - np.mean((clean.y - target) ** 2)
    return credit(rule, clean, noisy, delta, noise)


def published_stream(rule, params, data, noise):
    """Parameters after each update."""
    B, found = data[0].shape[1], []
    networks = [Network(params, np.zeros((B, N))) for _ in range(2)]
    for t, (x, target) in enumerate(zip(*data, strict=True)):
        credits = both_passes(rule, networks, x, target, noise[t][0])
        moved = dict(params)
        if "D" in params:
            moved["D"] = decorrelating(params["D"], networks[0].h[None])
        for name, value in credits.items():
            if name == "W_rec" and t == 0:
                continue
            moved[name] = params[name] - ETA * (value / B if rule == "anp" else value)
        params = networks[0].params = networks[1].params = moved
        found.append(params)
    return found


def published_episodes(rule, params, data, noise):
    """Parameters after each update."""
    found = []
    for number, (inputs, targets) in enumerate(zip(*data, strict=True)):
        rest = np.zeros((inputs.shape[1], N))
        if "D" in params:
            alone = Network(params, rest)
            seen = [(alone.step(x).x, alone.h) for x in inputs]
            seen_x, seen_h = (np.stack(part) for part in zip(*seen, strict=True))
            params = params | {"D": decorrelating(params["D"], seen_h)}
            if "D_in" in params:
                params["D_in"] = decorrelating(params["D_in"], seen_x)
        networks, moved = [Network(params, rest), Network(params, rest)], dict(params)
        for t, (x, target) in enumerate(zip(inputs, targets, strict=True)):
            for name, value in both_passes(rule, networks, x, target, noise[number][t]).items():
                if name != "W_rec" or t > 0:
                    moved[name] = moved[name] - ETA * value
        params = moved
        found.append(params)
    return found


# -- ours ------------------------------------------------------------------------------------------------


def segments(protocol, rows, seed=5):
    """Inputs and targets of each update, [updates, K, B, ...]."""
    rng = np.random.default_rng([seed, rows])
    shape = (STEPS, 1, rows) if protocol == "stream" else (EPISODES, T, rows)
    return rng.standard_normal((*shape, INPUTS)), rng.standard_normal((*shape, OUTPUTS))


def drawn(ops, rule, cell, key, batch):
    """The noise of each step of a segment, as the rule draws it from its key."""
    (K, rows), size, key, keys = batch.weights.shape, chunk_size(batch), ops.key(key), []
    while len(keys) < K:
        own = key
        if size < K:
            key, own = ops.split(key)
        keys.extend(ops.split(own, min(size, K - len(keys))))
    shapes = cell.shapes()
    if rule != "wp":
        return [SIGMA * ops.to_numpy(ops.normal(k, (rows, N + OUTPUTS))) for k in keys]
    ends = np.cumsum([np.prod(shape) for shape in shapes.values()])
    flat = [SIGMA * ops.to_numpy(ops.normal(k, (ends[-1],))) for k in keys]
    parts = [np.split(values, ends[:-1]) for values in flat]
    return [{k: v.reshape(shapes[k]) for k, v in zip(shapes, part, strict=True)} for part in parts]


def train(ops, rule, cell, params, protocol, data, rate, **options):
    """Parameters after each update of plain gradient descent, and the noise of each segment."""
    found, noise, state = [], [], None
    for number, (x, target) in enumerate(zip(*data, strict=True)):
        batch = Batch(x, target, np.full(x.shape[:2], 1 / x[..., 0].size))
        noise.append(drawn(ops, rule, cell, number, batch))
        grads, after, assigned = estimate(ops, learner(rule, **options), cell, params, batch, number, state)[
            1:
        ]
        params = {k: v - rate * grads[k] if k in grads else v for k, v in params.items()} | assigned
        state = after if protocol == "stream" else None
        found.append(params)
    return found, noise


def compare(backend, rule, protocol, decorrelate, rows, **changed):
    """The largest difference between our updates and theirs, relative to the largest update."""
    ops, cell = injected(backend), make_cell(bias=False, decorrelate=decorrelate)
    params, data = make_params(cell), segments(protocol, rows)
    order = {"decorrelation": "before"} if protocol == "episode" else {}
    options = PUBLISHED[rule] | order | changed
    rate = ETA * OURS[protocol][rule](rows)
    found, noise = train(ops, rule, cell, params, protocol, data, rate, **options)
    theirs = published_stream if protocol == "stream" else published_episodes
    flat = [part[:, 0] for part in data] if protocol == "stream" else data
    expected = theirs(rule, params, flat, noise)
    start, worst = params, 0.0
    for mine, other in zip(found, expected, strict=True):
        moves = [{k: v - start[k] for k, v in after.items()} for after in (mine, other)]
        worst = max(
            worst, *(relative_error({k: moves[0][k]}, {k: moves[1][k]}) for k in mine if moves[1][k].any())
        )
        worst = max(worst, *(np.abs(moves[0][k]).max() for k in mine if not moves[1][k].any()), 0.0)
    return worst


@pytest.mark.parametrize("backend", ["jax", "torch"])
@pytest.mark.parametrize("rows", [1, 8])
@pytest.mark.parametrize(("protocol", "decorrelate"), CASES)
@pytest.mark.parametrize("rule", PUBLISHED)
def test_updates_are_those_that_were_published(rule, protocol, decorrelate, rows, backend):
    assert compare(backend, rule, protocol, decorrelate, rows) < 1e-10


DEFAULTS = {"np": {}, "wp": {"resample": "step", "credit": "step"}, "anp": {}}


@pytest.mark.parametrize("backend", ["jax", "torch"])
@pytest.mark.parametrize("decorrelate", ["none", "hidden"])
@pytest.mark.parametrize("rule", DEFAULTS)
def test_by_default_a_row_has_its_own_difference_and_wrec_every_step(rule, decorrelate, backend):
    """The rules of theory with eight rows: w_tb (ℓ̃_tb - ℓ_tb) in place of ΔL_t, /σ², N of noisy units."""
    ops, cell, (x, target) = (
        injected(backend),
        make_cell(bias=False, decorrelate=decorrelate),
        segments("episode", 8),
    )
    weights = np.random.default_rng(6).random((T, 8))
    params, batch = make_params(cell), Batch(x[0], target[0], weights / weights.sum())
    noise = drawn(ops, rule, cell, 1, batch)
    clean, noisy = networks = [Network(params, np.zeros((8, N))) for _ in range(2)]
    expected = dict.fromkeys(cell.shapes(), 0.0)
    for t in range(T):
        both_passes(rule, networks, batch.inputs[t], batch.targets[t], noise[t])
        lost, was = (np.mean((net.y - batch.targets[t]) ** 2, axis=1) for net in (noisy, clean))
        own = (batch.weights[t] * (lost - was))[:, None]
        if rule == "wp":
            found = {k: own.sum() * v / SIGMA**2 for k, v in noise[t].items()}
        else:
            hidden, output = noise[t][:, :N] / SIGMA**2, noise[t][:, N:] / SIGMA**2
            if rule == "anp":
                changes = noisy.a - clean.a, noisy.y - clean.y
                hidden, output = (np.sqrt(N + OUTPUTS) * change / np.sum(change**2) for change in changes)
            post, post_y = own * hidden, own * output
            found = {"W_in": post.T @ clean.x, "W_rec": post.T @ clean.last, "W_out": post_y.T @ clean.h}
        expected = {k: expected[k] + v for k, v in found.items()}
    options = DEFAULTS[rule] | {"sigma": SIGMA}
    grads, _, assigned = estimate(ops, learner(rule, **options), cell, params, batch)[1:]
    assert relative_error(grads, expected) < 1e-10
    assert set(assigned) == ({"D"} if decorrelate == "hidden" else set())


@pytest.mark.parametrize("rule", ["np", "anp"])
def test_of_one_row_the_batchs_difference_is_its_own(rule):
    assert compare("jax", rule, "stream", "none", 1, difference="row") < 1e-10
    assert compare("jax", rule, "stream", "none", 8, difference="row") > 0.1


def test_the_inputs_count_in_n_by_the_root_of_it():
    ops, cell, (x, target) = injected("jax"), make_cell(), segments("episode", 3)
    params, batch = make_params(cell), Batch(x[0], target[0], np.full((T, 3), 1 / 3 / T))
    some, all_ = (estimate(ops, learner("anp", counted=c), cell, params, batch)[1] for c in ("noisy", "all"))
    root = np.sqrt((INPUTS + N + OUTPUTS) / (N + OUTPUTS))
    assert relative_error(all_, {k: root * v for k, v in some.items()}) < 1e-12


@pytest.mark.parametrize("rule", PUBLISHED)
def test_an_episode_that_is_decorrelated_afterwards_is_another(rule):
    assert compare("jax", rule, "episode", "hidden", 1, decorrelation="after") > 1e-4


# -- W_rec at a state's first step -----------------------------------------------------------------------


@pytest.mark.parametrize("credit", ["step", "episode", "trace"])
def test_wrec_has_no_credit_at_a_states_first_step_and_the_others_have(ops, credit):
    cell = make_cell()
    params, batch = (
        make_params(cell),
        Batch(*(part[0] for part in segments("stream", 3)), np.full((1, 3), 1 / 3)),
    )
    full, but_first = (
        learner("wp", resample="step", credit=credit, recurrent_from=step) for step in ("first", "second")
    )
    expected = estimate(ops, full, cell, params, batch)[1]
    assert (expected["W_rec"] != 0).all()
    _, grads, state, _ = estimate(ops, but_first, cell, params, batch)
    assert relative_error(grads, expected | {"W_rec": np.zeros((N, N))}) < 1e-12
    later = estimate(ops, but_first, cell, params, batch, key=2, state=state)[1]
    assert (later["W_rec"] != 0).all()


@pytest.mark.parametrize("credit", ["step", "trace"])
def test_a_cut_between_steps_makes_no_first_step(ops, credit):
    """An episode as two segments: the sum of the credits is that of the same steps one by one."""
    cell = make_cell()
    params, (inputs, targets) = make_params(cell), segments("episode", 1)
    batch = Batch(inputs[0], targets[0], np.full((T, 1), 1 / T))
    rule = learner("wp", resample="step", credit=credit, recurrent_from="second")
    ops = injected(ops.name, repeated=True)
    sums = {}
    for cuts in ([T], [5, 7], [1] * T):
        state, total, at = None, 0.0, 0
        for K in cuts:
            part = Batch(*(whole[at : at + K] for whole in batch))
            grads, state = estimate(ops, rule, cell, params, part, 1, state)[1:3]
            total, at = total + grads["W_rec"], at + K
        sums[len(cuts)] = total
    assert np.abs(sums[2] - sums[1]).max() < 1e-10 * np.abs(sums[1]).max()
    assert np.abs(sums[T] - sums[1]).max() < 1e-10 * np.abs(sums[1]).max()


# -- bad input -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("id", "name"),
    [
        *(("np", name) for name in ("difference", "decorrelation")),
        *(("anp", name) for name in ("difference", "counted", "decorrelation")),
        *(("wp", name) for name in ("recurrent_from", "decorrelation")),
    ],
)
def test_an_unknown_choice_is_refused_by_name(id, name):
    with pytest.raises(UsageError, match=f"{name} is 'both': .* needs one of "):
        learner(id, **{name: "both"})


def test_one_noise_for_all_steps_leaves_no_first_step_out():
    with pytest.raises(UsageError, match=r"recurrent_from is 'second' .* set resample to 'step'"):
        learner("wp", recurrent_from="second")


@pytest.mark.parametrize("rule", PUBLISHED)
def test_no_choice_is_searched(rule):
    assert set(learner(rule).search) == {"sigma"}
