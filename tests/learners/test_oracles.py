"""The rules' equations against finite differences, closed forms and each other."""

import numpy as np
import pytest

from creditbench.check.probe import arguments, leaves, segment_of, wrapped
from creditbench.learner import Batch, Decorrelated, decorrelated
from creditbench.ops import BACKENDS
from creditbench.optimizers import SGD
from creditbench.trials.blocks import with_numbers
from tests.conftest import (
    ON_JAX,
    B,
    N,
    T,
    _compiled,
    autodiff,
    estimate,
    learner,
    make_batch,
    make_cell,
    make_params,
    relative_error,
    thorough,
)

CELLS = [
    pytest.param(
        dict(alpha=alpha, bias=bias, decorrelate=decorrelate), id=f"alpha={alpha}-bias={bias}-D={decorrelate}"
    )
    for alpha in (1.0, 0.3)
    for bias in (True, False)
    for decorrelate in ("none", "both")
]
LOSSES = ["mse", "cross_entropy"]

RULES = {
    "bptt": {},
    "tbptt": {"K": 5},
    "np step": {"credit": "step"},
    "np episode": {"credit": "episode"},
    "np trace": {"credit": "trace"},
    "wp step": {"resample": "step", "credit": "step"},
    "wp step episode": {"resample": "step", "credit": "episode"},
    "wp step trace": {"resample": "step", "credit": "trace"},
    "wp episode": {"resample": "episode"},
    "anp": {},
    "readout_rls": {},
}


def rule(name, **more):
    return learner(name.split()[0], **RULES[name] | more)


def loss_numpy(cell, params, batch):
    """The loss of the cell's equations, written again in plain NumPy."""
    h = np.zeros((batch.inputs.shape[1], cell.hidden))
    D, D_in = params.get("D", np.eye(cell.hidden)), params.get("D_in", np.eye(cell.inputs))
    h_hat, total = h, 0.0
    for x, target, weight in zip(*batch, strict=True):
        a = x @ D_in.T @ params["W_in"].T + h_hat @ params["W_rec"].T + params.get("b", 0.0)
        h = (1 - cell.alpha) * h + cell.alpha * np.tanh(a)
        h_hat = h @ D.T
        y = h_hat @ params["W_out"].T + params.get("c", 0.0)
        if cell.loss == "mse":
            losses = ((y - target) ** 2).mean(axis=1)
        else:
            losses = np.log(np.exp(y).sum(axis=1)) - (y * target).sum(axis=1)
        total += (weight * losses).sum()
    return total


def finite_differences(cell, params, batch, epsilon=1e-5):
    """Central differences of `loss_numpy` in every trained parameter."""
    gradient = {}
    for name, value in cell.trainable(params).items():
        gradient[name] = np.zeros_like(value)
        for index in np.ndindex(value.shape):
            ends = []
            for sign in (1, -1):
                moved = value.copy()
                moved[index] += sign * epsilon
                ends.append(loss_numpy(cell, params | {name: moved}, batch))
            gradient[name][index] = (ends[0] - ends[1]) / (2 * epsilon)
    return gradient


# -- oracle 1 --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("options", CELLS)
def test_bptt_equals_finite_differences(ops, options, loss):
    cell = make_cell(**options, loss=loss)
    params, batch = make_params(cell), make_batch(loss=loss)
    found_loss, found, _, _ = estimate(ops, learner("bptt"), cell, params, batch)
    assert found_loss == pytest.approx(loss_numpy(cell, params, batch), rel=1e-12)
    assert relative_error(found, finite_differences(cell, params, batch)) < 1e-6


@pytest.mark.parametrize("options", CELLS)
def test_bptt_equals_the_frameworks_own_reverse_mode(ops, options):
    cell = make_cell(**options)
    params, batch = make_params(cell), make_batch()
    _, expected = autodiff(ops, cell, params, batch)
    assert relative_error(estimate(ops, learner("bptt"), cell, params, batch)[1], expected) < 1e-12


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("options", [CELLS[0], CELLS[7]])
def test_backends_agree_with_the_same_noise(both, options, name):
    """Two segments, so that the carried state is compared by what it does."""
    cell = make_cell(**options)
    params, results = make_params(cell), []
    for ops in both:
        state, outcomes = None, []
        for number in range(2):
            loss, grads, state, assigned = estimate(
                ops, rule(name), cell, params, make_batch(seed=number), number, state
            )
            outcomes.append((loss, grads, assigned))
        results.append(outcomes)
    for (loss, grads, assigned), (loss2, grads2, assigned2) in zip(*results, strict=True):
        assert loss == pytest.approx(loss2, rel=1e-10)
        if name != "readout_rls":
            assert relative_error(grads, grads2) < 1e-10
        if assigned:
            assert relative_error(assigned, assigned2) < 1e-10


# -- oracle 2 --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", CELLS)
@pytest.mark.parametrize("K", [T, T + 5])
def test_tbptt_with_chunks_of_the_whole_equals_bptt(ops, options, K):
    cell = make_cell(**options)
    params, batch = make_params(cell), make_batch()
    expected = estimate(ops, learner("bptt"), cell, params, batch)[1]
    assert relative_error(estimate(ops, learner("tbptt", K=K), cell, params, batch)[1], expected) < 1e-14


@pytest.mark.parametrize("K", [1, 5])
def test_tbptt_adds_up_the_gradients_of_its_chunks(ops, K):
    """Each chunk by the framework's reverse mode, from the state after the chunk before."""
    cell = make_cell(alpha=0.3)
    params, batch = make_params(cell), make_batch()
    expected, state = dict.fromkeys(params, 0.0), None
    for start in range(0, T, K):
        chunk = Batch(*(x[start : start + K] for x in batch))
        _, grads, state, _ = estimate(ops, learner("bptt"), cell, params, chunk, state=state)
        expected = {k: expected[k] + grads[k] for k in grads}
    found = estimate(ops, learner("tbptt", K=K), cell, params, batch)[1]
    assert relative_error(found, expected) < 1e-12
    assert relative_error(found, estimate(ops, learner("bptt"), cell, params, batch)[1]) > 1e-3


# -- oracles 4 and 5 -------------------------------------------------------------------------------------


def draws(ops, rule, cell, params, batch, count):
    """`count` independent gradient estimates, one flat vector each, [count, p]."""
    params, batch = ops.from_numpy(params), Batch(*ops.from_numpy(tuple(batch)))

    def draw(params, batch, key):
        state = rule.init(ops, cell, params, batch.weights.shape[1])
        grads = rule.segment(ops, cell, params, state, batch, key).grads
        return ops.xp.concat([ops.dense(grads[k]).reshape(-1) for k in cell.shapes()])

    keys = ops.split(ops.key(7), count)
    if ops.name == "jax":
        import jax

        def draw_all(params, batch, keys):
            return jax.lax.map(lambda key: draw(params, batch, key), keys, batch_size=250)

        if (what := ("draws", rule, cell, count, batch.weights.shape)) not in _compiled:
            # Many draws take longer than it takes to compile them well.
            options = {"xla_backend_optimization_level": 1} if count > 1000 else {}
            _compiled[what] = jax.jit(draw_all).lower(params, batch, keys).compile(options)
        return ops.to_numpy(_compiled[what](params, batch, keys))
    draw = ops.compile(draw, params, batch, keys[0])
    return np.stack([ops.to_numpy(draw(params, batch, key)) for key in keys])


def deviations(samples, expected, cell):
    """|mean - expected| in standard errors, along fixed directions of every parameter and coordinate group.

    Each parameter has the expected gradient itself as a direction, and 8 random ones.
    """
    rng, found, start = np.random.default_rng(0), [], 0
    for shape in cell.shapes().values():
        part = slice(start, start + int(np.prod(shape)))
        start = part.stop
        directions = np.vstack([expected[part], rng.standard_normal((8, part.stop - part.start))])
        projected = (samples[:, part] - expected[part]) @ directions.T
        error = projected.std(axis=0, ddof=1) / np.sqrt(len(samples))
        found.append(np.abs(projected.mean(axis=0)) / error)
    return np.array(found)


#: Draws of an estimate.
COUNT = 10_000
SIGMA = 1e-4

UNBIASED = ["np episode", "np trace", "wp step episode", "wp step trace", "wp episode"]
BIASED = ["np step", "wp step", "anp"]


def flat(grads, cell):
    return np.concatenate([grads[k].ravel() for k in cell.shapes()])


def oracle_batch():
    """Loss at the last steps only, so that nearly all credit has to travel through time."""
    batch = make_batch(seed=3)
    weights = np.zeros_like(batch.weights)
    weights[T // 2 :: 2] = 1.0
    return batch._replace(weights=weights / weights.sum())


@ON_JAX
@pytest.mark.parametrize("name", UNBIASED)
def test_unbiased_rules_have_the_expectation_of_bptt(ops, name):
    """Over draws of their own; over all that noise can be, exactly, in tests/cells."""
    cell = make_cell(alpha=0.3)
    params, batch = make_params(cell), oracle_batch()
    expected = flat(autodiff(ops, cell, params, batch)[1], cell)
    samples = draws(ops, rule(name, sigma=SIGMA), cell, params, batch, COUNT)
    assert deviations(samples, expected, cell).max() < 4.0
    # The error of the mean falls as 1/√N: a sixteenth of the draws leaves four times the error.
    blocks = samples[: len(samples) // 16 * 16].reshape(16, -1, samples.shape[1]).mean(axis=1)
    small = np.sqrt(((blocks - expected) ** 2).mean())
    assert 2.5 < small / np.sqrt(((samples.mean(axis=0) - expected) ** 2).mean()) < 6.5


@ON_JAX
@pytest.mark.parametrize("name", BIASED)
def test_biased_rules_fail_the_same_test(ops, name):
    cell = make_cell(alpha=0.3)
    params, batch = make_params(cell), oracle_batch()
    expected = flat(autodiff(ops, cell, params, batch)[1], cell)
    samples = draws(ops, rule(name, sigma=SIGMA), cell, params, batch, COUNT)
    assert deviations(samples, expected, cell).max() > 6.0


@ON_JAX
@pytest.mark.parametrize("name", ["np step", "wp step"])
def test_step_credit_has_the_expectation_of_tbptt_1(ops, name):
    cell = make_cell(alpha=0.3)
    params, batch = make_params(cell), make_batch(seed=3)
    expected = flat(estimate(ops, learner("tbptt", K=1), cell, params, batch)[1], cell)
    samples = draws(ops, rule(name, sigma=SIGMA), cell, params, batch, COUNT)
    assert deviations(samples, expected, cell).max() < 4.0


@pytest.mark.parametrize("name", [*UNBIASED, "np step", "wp step"])
def test_what_a_draw_yields_has_a_limit_as_sigma_vanishes(ops, name):
    """The clean loss is subtracted: otherwise it would add nothing to the mean, and 1/σ to every draw."""
    cell = make_cell(alpha=0.3)
    params, batch = make_params(cell), oracle_batch()
    far, near = at_sigmas(ops, name, cell, params, batch, (1e-4, 1e-5))
    assert relative_error(far, near) < 1e-2


def at_sigmas(ops, name, cell, params, batch, sigmas):
    """The gradients of a rule at each of `sigmas`; under JAX by one program, whose argument it is."""
    if ops.name != "jax":
        return [estimate(ops, rule(name, sigma=sigma), cell, params, batch)[1] for sigma in sigmas]
    rule_ = rule(name)

    def gradients(params, state, batch, key, sigma):
        learner, _ = with_numbers(rule_, SGD(lr=1.0), {"sigma": sigma})
        return segment_of(ops, wrapped(learner, cell), cell)(params, state, batch, key)[1]

    given = arguments(ops, wrapped(rule_, cell), cell, params, batch)
    values = [ops.from_numpy(np.asarray(sigma)) for sigma in sigmas]
    program = ops.compile(gradients, *given, values[0])
    return [ops.to_numpy(program(*given, value)) for value in values]


# -- oracle 6 --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", CELLS)
def test_anp_does_not_depend_on_sigma_to_first_order(ops, options):
    cell = make_cell(**options)
    params, batch = make_params(cell), make_batch()
    least, *others = at_sigmas(ops, "anp", cell, params, batch, (1e-6, 1e-3, 2e-3))
    near, far = (relative_error(other, least) for other in others)
    assert 1e-6 < near < 0.1
    assert far / near == pytest.approx(2.0, rel=0.1)


def test_anp_scales_with_the_loss(ops):
    cell = make_cell()
    params, batch = make_params(cell), make_batch()
    scaled = batch._replace(weights=3.0 * batch.weights)
    one, three = (estimate(ops, learner("anp"), cell, params, b)[1] for b in (batch, scaled))
    assert relative_error({k: g / 3.0 for k, g in three.items()}, one) < 1e-10


@pytest.mark.parametrize("alpha", [1.0, 0.3])
def test_anp_is_its_equation(alpha, both):
    """√N ΔL_t Δa_t / ‖Δa_t‖² ⊗ presynaptic, in plain NumPy from the noise that the rule drew."""
    cell, sigma = make_cell(alpha=alpha), 1e-3
    params, batch, ops = make_params(cell), make_batch(), both[1]
    keys = ops.split(ops.key(1), T)
    passes = {"clean": (np.zeros((B, N)), 0.0), "noisy": (np.zeros((B, N)), 1.0)}
    expected = {k: np.zeros(shape) for k, shape in cell.shapes().items()}
    units = N + cell.outputs
    for (x, target, weight), key in zip(zip(*batch, strict=True), keys, strict=True):
        xi = sigma * ops.to_numpy(ops.normal(key, (B, units)))
        seen = {}
        for name, (h, on) in passes.items():
            a = x @ params["W_in"].T + h @ params["W_rec"].T + params["b"] + on * xi[:, :N]
            after = (1 - alpha) * h + alpha * np.tanh(a)
            y = after @ params["W_out"].T + params["c"] + on * xi[:, N:]
            seen[name] = a, y, after, weight * ((y - target) ** 2).mean(axis=1)
        before = passes["clean"][0]
        delta_loss = (seen["noisy"][3] - seen["clean"][3])[:, None]
        post, post_y = (
            np.sqrt(units) * delta_loss * (d := seen["noisy"][i] - seen["clean"][i]) / (d**2).sum()
            for i in (0, 1)
        )
        expected["W_in"] += post.T @ x
        expected["W_rec"] += post.T @ before
        expected["b"] += post.sum(axis=0)
        expected["W_out"] += post_y.T @ seen["clean"][2]
        expected["c"] += post_y.sum(axis=0)
        passes = {name: (seen[name][2], passes[name][1]) for name in passes}
    for ops in both:
        assert (
            relative_error(estimate(ops, learner("anp", sigma=sigma), cell, params, batch)[1], expected)
            < 1e-9
        )


# -- oracle 8 --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", CELLS)
@pytest.mark.parametrize("rows", [1, B])
def test_readout_rls_equals_the_ridge_solution(ops, options, rows):
    """(HᵀH + λI) W = HᵀY + λ W_0, over two segments, scored steps only."""
    cell, ridge = make_cell(**options), 0.7
    params, state, current = make_params(cell), None, make_params(cell)
    features, targets = [], []
    for seed in range(2):
        batch = make_batch(rows=rows, seed=seed)
        rule_ = learner("readout_rls", ridge=ridge)
        _, grads, new_state, assigned = estimate(ops, rule_, cell, current, batch, state=state)
        assert grads == {}
        # Decorrelation would move D between the segments; here it stays, so that the features are the same.
        current = current | {k: v for k, v in assigned.items() if k in ("W_out", "c")}
        # New sequences: activity from zero, P kept.
        state = {"cell": ops.to_numpy(cell.start(ops, rows)), "P": new_state["P"]}
        h_hat = hidden_numpy(cell, params, batch)
        if cell.bias:
            h_hat = np.concatenate([h_hat, np.ones((*h_hat.shape[:2], 1))], axis=2)
        scored = batch.weights > 0
        features.append(h_hat[scored])
        targets.append(batch.targets[scored])
    H, Y = np.concatenate(features), np.concatenate(targets)
    W_0 = np.column_stack([params["W_out"], params["c"]]) if cell.bias else params["W_out"]
    expected = np.linalg.solve(H.T @ H + ridge * np.eye(H.shape[1]), H.T @ Y + ridge * W_0.T).T
    found = np.column_stack([current["W_out"], current["c"]]) if cell.bias else current["W_out"]
    assert np.abs(found - expected).max() < 1e-8


def hidden_numpy(cell, params, batch):
    """ĥ of every step in plain NumPy, [T, B, n]."""
    D, D_in = params.get("D", np.eye(cell.hidden)), params.get("D_in", np.eye(cell.inputs))
    h = h_hat = np.zeros((batch.inputs.shape[1], cell.hidden))
    steps = []
    for x in batch.inputs:
        a = x @ D_in.T @ params["W_in"].T + h_hat @ params["W_rec"].T + params.get("b", 0.0)
        h = (1 - cell.alpha) * h + cell.alpha * np.tanh(a)
        h_hat = h @ D.T
        steps.append(h_hat)
    return np.stack(steps)


# -- oracle 9 --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RULES)
def test_decorrelation_equals_the_direct_form(ops, name):
    """D - η offdiag(⟨ĥ ĥᵀ⟩) D with the n×n×n product written out, and the same for the input."""
    cell = make_cell(alpha=0.3, decorrelate="both")
    params, batch = make_params(cell), make_batch()
    assigned = estimate(ops, rule(name), cell, params, batch)[3]
    x_hat = batch.inputs @ params["D_in"].T
    for key, activity in (("D", hidden_numpy(cell, params, batch)), ("D_in", x_hat)):
        rows = activity.reshape(-1, activity.shape[-1])
        correlation = rows.T @ rows / len(rows)
        off = correlation - np.diag(np.diag(correlation))
        expected = params[key] - 1e-2 * off @ params[key]
        assert np.abs(assigned[key] - expected).max() < 1e-12


def test_decorrelation_lowers_the_correlation_of_correlated_activity(ops):
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((N, N))
    activity = ops.from_numpy(rng.standard_normal((4000, N)) @ mixing.T / np.sqrt(N))
    D = ops.from_numpy(np.eye(N))

    def off_diagonal(D):
        rows = ops.to_numpy(activity @ D.T)
        covariance = np.cov(rows.T)
        return ((covariance - np.diag(np.diag(covariance))) ** 2).mean()

    before = off_diagonal(D)
    for start in range(0, 4000, 4):
        D = decorrelated(ops, D, activity[start : start + 4] @ D.T, 3e-3)
    assert off_diagonal(D) < before / 10


# -- oracle 10 -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RULES)
def test_the_same_key_gives_the_same_result(ops, name):
    cell = make_cell()
    params, batch = make_params(cell), make_batch()
    (_, one, _, set_one), (_, two, _, set_two) = (
        estimate(ops, rule(name), cell, params, batch, key=5) for _ in "ab"
    )
    for first, second in ((one, two), (set_one, set_two)):
        for k in first:
            np.testing.assert_array_equal(first[k], second[k])


@pytest.mark.parametrize("backend", thorough(BACKENDS, but=["torch"]))
@pytest.mark.parametrize("name", ["np step", "np trace", "anp", "wp step", "wp step trace", "tbptt"])
@pytest.mark.parametrize("sizes", [(1,) * T, (4, 4, 4), (7, 5)])
def test_any_segmentation_of_an_episode_gives_the_same_summed_gradient(both, backend, name, sizes):
    """The noise of a step is the same for any cut of the episode, and so is the sum of the gradients."""
    rule_ = learner("tbptt", K=1) if name == "tbptt" else rule(name)
    cell = make_cell(alpha=0.3)
    params, batch = make_params(cell), make_batch()
    ops = both[BACKENDS.index(backend)]
    if (what := (backend, name)) not in _whole:
        _whole[what] = cut(ops, rule_, cell, params, batch, (T,))
    assert relative_error(cut(ops, rule_, cell, params, batch, sizes), _whole[what]) < 1e-10


_whole = {}


def cut(ops, rule, cell, params, batch, sizes):
    """Sum of the gradients of an episode in segments of `sizes` steps, one key per step in any segment."""
    total, start, split, programs = dict.fromkeys(cell.shapes(), 0.0), 0, ops.split, {}
    params, keys = ops.from_numpy(params), split(ops.key(1), T)
    state = rule.init(ops, cell, params, B)

    def segment(params, state, batch, keys):
        first = [True]

        def split_once(key, num=2):
            if first and num == len(keys):
                first.clear()
                return keys
            return split(key, num)

        ops.split = split_once
        try:
            return segment_of(ops, rule, cell)(params, state, batch, ops.key(0))
        finally:
            del ops.split

    for size in sizes:
        part = slice(start, start + size)
        given = params, state, Batch(*ops.from_numpy(tuple(x[part] for x in batch))), keys[part]
        if size not in programs:
            programs[size] = ops.compile(segment, *given) if ops.name == "jax" else segment
        _, grads, state, _ = programs[size](*given)
        start = part.stop
        total = {k: total[k] + ops.to_numpy(grads[k]) for k in total}
    return total


def test_rules_change_none_of_their_arguments(ops):
    cell = make_cell(alpha=0.3, decorrelate="both")
    for name in RULES:
        decorrelating = Decorrelated(learner=rule(name), rate=1e-2)
        params, batch = ops.from_numpy(make_params(cell)), Batch(*ops.from_numpy(tuple(make_batch())))
        state = decorrelating.init(ops, cell, params, B)
        leaves_arguments_alone(ops, decorrelating, cell, params, state, batch)


def leaves_arguments_alone(ops, rule, cell, params, state, batch):
    """Neither arrays change nor what holds them; under JAX, whose arrays cannot, the rule is only traced."""

    def unchanged(params, state, batch):
        before = leaves((params, state, batch))
        values = ops.to_numpy(before) if ops.name == "torch" else {}
        rule.segment(ops, cell, params, state, batch, ops.key(1))
        after = leaves((params, state, batch))
        assert after.keys() == before.keys() and all(after[k] is before[k] for k in before)
        for where, value in values.items():
            np.testing.assert_array_equal(ops.to_numpy(after[where]), value)

    if ops.name == "jax":
        import jax

        jax.eval_shape(unchanged, params, state, batch)
    else:
        unchanged(params, state, batch)
