"""Rules that perturb the network, and the references beside BPTT and the readout: their equations."""

import dataclasses

import numpy as np
import pytest

from creditbench.errors import UsageError
from creditbench.learner import Batch, Decorrelated, antithetic_slopes, antithetic_start, pull_back, unflatten
from creditbench.ops import Outer, make_ops
from creditbench.plugins import registry
from tests.conftest import (
    B,
    N,
    T,
    autodiff,
    estimate,
    injected,
    learner,
    make_batch,
    make_cell,
    make_params,
    relative_error,
    thorough,
)
from tests.learners.test_oracles import (
    CELLS,
    SIGMA,
    deviations,
    draws,
    flat,
    hidden_numpy,
    leaves_arguments_alone,
    oracle_batch,
)

#: Few enough in a population for the table of injected noise.
RULES = {
    "forward_gradient": {},
    "spsa": {},
    "es": {"population": 2},
    "es_lowrank": {"population": 2, "rank": 2},
    "pes": {"population": 2},
    "bptt_checkpointed": {},
    "readout_ridge": {},
    "reward_hebbian": {},
    "reward_hebbian linear": {"exponent": 1},
    "oua": {},
}
#: Draws: JAX draws them all at once, PyTorch one after another.
COUNT = {"jax": 20_000, "torch": 400}
UNBIASED = ["forward_gradient", "spsa", "es", "es_lowrank", "pes"]
SOME_CELLS = [CELLS[0], CELLS[3], CELLS[5], CELLS[6]]


def rule(name, **more):
    return learner(name.split()[0], **RULES[name] | more)


@pytest.fixture
def both():
    """Both backends, in float64, whose random draws are the same, signs included."""
    backends = injected("jax"), injected("torch")
    for ops in backends:
        ops.rademacher = lambda key, shape, ops=ops: ops.xp.sign(ops.normal(key, shape))
    return backends


# -- both backends, every cell ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize(("options", "loss"), [(CELLS[0], "mse"), (CELLS[7], "cross_entropy")])
def test_backends_agree_with_the_same_noise(both, options, name, loss):
    """Two segments of different length, so that the carried state is compared by what it does."""
    cell = make_cell(**options.values[0], loss=loss)
    params, results = make_params(cell), []
    for ops in both:
        state, outcomes = None, []
        for number, steps in enumerate((T, 1)):
            batch = make_batch(steps, seed=number, loss=loss)
            found, grads, state, assigned = estimate(ops, rule(name), cell, params, batch, number, state)
            outcomes.append((found, grads, assigned))
        results.append(outcomes)
    for (found, grads, assigned), (found2, grads2, assigned2) in zip(*results, strict=True):
        assert found == pytest.approx(found2, rel=1e-10)
        for one, two in ((grads, grads2), (assigned, assigned2)):
            if any(np.abs(value).max() > 0 for value in one.values()):
                assert relative_error(one, two) < 1e-10


@pytest.mark.parametrize("name", RULES)
def test_the_decorrelation_sees_the_activity_of_the_network_that_is_carried_on(ops, name):
    """D after a segment follows the direct form on ĥ. Rules without a clean pass have no noise here."""
    quiet = {"sigma": 1e-9} if name.startswith("reward") or name == "oua" else {}
    cell = make_cell(alpha=0.3, decorrelate="both")
    params, batch = make_params(cell), make_batch()
    assigned = estimate(ops, rule(name, **quiet), cell, params, batch)[3]
    activity = hidden_numpy(cell, params, batch).reshape(-1, N)
    correlation = activity.T @ activity / len(activity)
    expected = params["D"] - 1e-2 * (correlation - np.diag(np.diag(correlation))) @ params["D"]
    assert np.abs(assigned["D"] - expected).max() < (1e-9 if quiet else 1e-12)


@pytest.mark.parametrize("name", [name for name in RULES if name != "bptt_checkpointed"])
def test_a_long_segment_in_chunks_is_the_segment_in_one(ops, name, monkeypatch):
    """Chunks of 3 steps and a rest against one chunk: the same numbers, and the same state carried on.

    A rule that splits its keys chunk by chunk gets the same noise at every step.
    """
    if name.startswith("reward"):

        def normal(key, shape, scale=1.0):
            pattern = scale * np.sin(np.arange(np.prod(shape))).reshape(shape)
            steps = [len(key)] if isinstance(key, list) or getattr(key, "ndim", 0) else []
            return ops.from_numpy(np.broadcast_to(pattern, (*steps, *shape)))

        monkeypatch.setattr(ops, "normal", normal)
    cell = make_cell(alpha=0.3, decorrelate="hidden")
    params, segment = ops.from_numpy(make_params(cell)), Batch(*ops.from_numpy(tuple(make_batch(13))))
    rule_, found = rule(name), []

    def run(params, state, segment, key):
        result = rule_.segment(ops, cell, params, state, segment, key)
        grads = {k: ops.dense(g) for k, g in result.grads.items()}
        return result.loss, grads, result.assigned, result.state, result.hidden

    for kept in (64, 3 * B):
        monkeypatch.setattr("creditbench.learner.ROWS_KEPT", kept)
        args = params, rule_.init(ops, cell, params, B), segment, ops.key(2)
        found.append(ops.to_numpy(ops.compile(lambda *args: run(*args), *args)(*args)))
    for one, two in zip(*map(leaves_of, found), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-8, atol=1e-12)


def leaves_of(tree):
    if isinstance(tree, dict):
        return [leaf for value in tree.values() for leaf in leaves_of(value)]
    if isinstance(tree, tuple):
        return [leaf for value in tree for leaf in leaves_of(value)]
    return [] if tree is None else [tree]


@pytest.mark.parametrize("name", RULES)
def test_the_same_key_gives_the_same_result(ops, name):
    cell = make_cell()
    params, batch = make_params(cell), make_batch()
    one, two = (estimate(ops, rule(name), cell, params, batch, key=5) for _ in "ab")
    for first, second in zip(leaves_of(one), leaves_of(two), strict=True):
        np.testing.assert_array_equal(first, second)
    if name in UNBIASED:
        other = estimate(ops, rule(name), cell, params, batch, key=6)[1]
        assert relative_error(other, one[1]) > 1e-3


@pytest.mark.parametrize("name", RULES)
def test_rules_change_none_of_their_arguments(ops, name):
    cell = make_cell(alpha=0.3, decorrelate="both")
    params = ops.from_numpy(make_params(cell))
    batch = Batch(*ops.from_numpy(tuple(make_batch())))
    decorrelating = Decorrelated(learner=rule(name), rate=1e-2)
    state = decorrelating.init(ops, cell, params, B)
    leaves_arguments_alone(ops, decorrelating, cell, params, state, batch)


@pytest.mark.parametrize("name", RULES)
def test_a_step_that_is_not_scored_does_not_move_the_estimate(ops, name):
    cell = make_cell(alpha=0.3)
    params, batch = make_params(cell), make_batch()
    targets = np.where(batch.weights[..., None] > 0, batch.targets, 1e6)
    assert (targets == 1e6).any()
    one, two = (estimate(ops, rule(name), cell, params, b) for b in (batch, batch._replace(targets=targets)))
    for first, second in zip(leaves_of(one), leaves_of(two), strict=True):
        np.testing.assert_array_equal(first, second)


# -- oracle 4 --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", UNBIASED)
def test_unbiased_rules_have_the_expectation_of_bptt(ops, name):
    """Over draws of their own; over all that noise can be, exactly, in tests/cells."""
    cell = make_cell(alpha=0.3)
    params, batch = make_params(cell), oracle_batch()
    expected = flat(autodiff(ops, cell, params, batch)[1], cell)
    exact = {} if name == "forward_gradient" else {"sigma": SIGMA}
    samples = draws(ops, rule(name, **exact), cell, params, batch, COUNT[ops.name])
    assert deviations(samples, expected, cell).max() < 4.0
    if ops.name == "torch":
        return
    # The error of the mean falls as 1/√N: a sixteenth of the draws leaves four times the error.
    blocks = samples[: len(samples) // 16 * 16].reshape(16, -1, samples.shape[1]).mean(axis=1)
    small = np.sqrt(((blocks - expected) ** 2).mean())
    assert 2.5 < small / np.sqrt(((samples.mean(axis=0) - expected) ** 2).mean()) < 6.5


@pytest.mark.parametrize("name", ["reward_hebbian", "reward_hebbian linear"])
def test_a_biased_rule_fails_the_same_test(name):
    """From a second trial on, so that the expected loss is the clean one."""
    ops = make_ops("jax", dtype="float64")
    cell = make_cell(alpha=0.3)
    params, batch = make_params(cell), oracle_batch()
    expected = flat(autodiff(ops, cell, params, batch)[1], cell)
    samples = draws(
        ops, second_trial(ops, rule(name, sigma=SIGMA), cell, params, batch), cell, params, batch, 20_000
    )
    assert deviations(samples, expected, cell).max() > 6.0


def second_trial(ops, rule_, cell, params, batch):
    """The rule with the loss of a clean pass, a sequence, as the one that it expects."""
    loss = autodiff(ops, cell, params, batch)[0] / B

    class Later(type(rule_)):
        def init(self, *args):
            state = super().init(*args)
            return state | {"expected": state["expected"] + loss, "trials": state["trials"] + 1.0}

    return Later(**dataclasses.asdict(rule_))


# -- forward gradient ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "loss"), [*((cell, "mse") for cell in SOME_CELLS), (CELLS[5], "cross_entropy")]
)
def test_the_tangents_equal_the_frameworks_own_forward_mode(ops, options, loss):
    cell = make_cell(**options.values[0], loss=loss)
    params, batch = make_params(cell), make_batch(loss=loss)
    grads = estimate(ops, rule("forward_gradient"), cell, params, batch, key=4)[1]
    tensors, b = ops.from_numpy(params), Batch(*ops.from_numpy(tuple(batch)))
    shapes = cell.shapes()
    v = ops.normal(ops.key(4), (sum(int(np.prod(s)) for s in shapes.values()),))
    V = unflatten(v, shapes)

    def of(trained):
        y = cell.run(ops, tensors | trained, b.inputs)
        return ops.xp.sum(b.weights * cell.losses(ops, y, b.targets))

    _, slope = ops.jvp(of, (cell.trainable(tensors),), (V,))
    assert relative_error(grads, {k: float(slope) * value for k, value in ops.to_numpy(V).items()}) < 1e-12


# -- perturbed parameters --------------------------------------------------------------------------------


@pytest.mark.parametrize("stacks", [1, 4])
@pytest.mark.parametrize("rows", [1, 2, 5])
@pytest.mark.parametrize("biased", [False, True])
def test_linear_takes_a_stack_of_matrices(ops, stacks, rows, biased):
    rng = np.random.default_rng(0)
    x, W, b = (rng.standard_normal(shape) for shape in ((stacks, rows, 3), (4, 5, 3), (4, 1, 5)))
    found = ops.to_numpy(ops.linear(*ops.from_numpy((x, W)), ops.from_numpy(b) if biased else None))
    expected = np.einsum("pri,poi->pro", np.broadcast_to(x, (4, rows, 3)), W) + (b if biased else 0)
    np.testing.assert_allclose(found, expected, atol=1e-14)


@pytest.mark.parametrize("options", SOME_CELLS)
def test_pairs_in_one_batch_are_the_networks_one_by_one(ops, options):
    """Slope and state of every member against a forward pass with its own weights, over two segments."""
    cell, P, sigma = make_cell(**options), 3, 0.3
    params = make_params(cell)
    shapes = cell.shapes()
    V = {k: np.random.default_rng(i).standard_normal((P, *s)) for i, (k, s) in enumerate(shapes.items())}
    arrays = ops.from_numpy(V)
    change = {k: v if v.ndim == 2 else lambda x, v=v: ops.linear(x, v) for k, v in arrays.items()}
    batches = [make_batch(5, seed=s) for s in (0, 1)]
    state, found = antithetic_start(ops, cell.start(ops, B), P), []
    tensors = ops.from_numpy(params)
    for batch in batches:
        b = Batch(*ops.from_numpy(tuple(batch)))
        b = b._replace(inputs=cell.encode(tensors, b.inputs))
        state, slopes = antithetic_slopes(ops, cell, tensors, change, sigma, state, b)
        found.append(ops.to_numpy(slopes))
    joined = Batch(*(np.concatenate(x) for x in zip(*batches, strict=True)))
    for i in range(P):
        losses = []
        for column, sign in enumerate((1, -1)):
            moved = params | {k: params[k] + sign * sigma * V[k][i] for k in V}
            h = hidden_numpy(cell, moved, joined)
            y = h @ moved["W_out"].T + moved.get("c", 0.0)
            losses.append((joined.weights * ((y - joined.targets) ** 2).mean(-1)).sum(1))
            out = ops.to_numpy(state.out).reshape(P, 2, B, N)[i, column]
            assert np.abs(out - h[-1]).max() < 1e-12
        slope = (losses[0] - losses[1]) / (2 * sigma)
        assert [row[i] for row in found] == pytest.approx([slope[:5].sum(), slope[5:].sum()], rel=1e-10)


@pytest.mark.parametrize("name", ["spsa", "es", "es_lowrank"])
def test_the_estimate_is_the_difference_of_the_two_losses(both, name):
    """With the noise in hand and σ large, against losses taken one by one."""
    cell, sigma = make_cell(alpha=0.3), 0.2
    params, batch, shapes = make_params(cell), make_batch(), cell.shapes()
    size = sum(int(np.prod(s)) for s in shapes.values())
    for ops in both:
        if name == "spsa":
            V = [unflatten(ops.to_numpy(ops.rademacher(ops.key(3), (size,))), shapes)]
        elif name == "es":
            V = [unflatten(v, shapes) for v in ops.to_numpy(ops.normal(ops.key(3), (2, size)))]
        else:
            V = lowrank_noise(ops, shapes)
        found = estimate(ops, rule(name, sigma=sigma), cell, params, batch, key=3)[1]
        expected = dict.fromkeys(shapes, 0.0)
        for v in V:
            up, down = (loss_of(cell, {k: params[k] + s * sigma * v[k] for k in v}, batch) for s in (1, -1))
            expected = {k: expected[k] + (up - down) / (2 * sigma) * v[k] / len(V) for k in v}
        assert relative_error(found, expected) < 1e-11


def lowrank_noise(ops, shapes, r=2):
    """The V_i that `es_lowrank` makes of its draws, formed, for 2 pairs."""
    parts = {}
    for k, s in shapes.items():
        parts |= {k: s} if len(s) == 1 else {f"{k} A": (r, s[0]), f"{k} B": (r, s[1])}
    drawn = ops.to_numpy(ops.normal(ops.key(3), (2, sum(int(np.prod(s)) for s in parts.values()))))
    return [
        {k: v[k] if k in v else v[f"{k} A"].T @ v[f"{k} B"] / np.sqrt(r) for k in shapes}
        for v in (unflatten(row, parts) for row in drawn)
    ]


def loss_of(cell, params, batch):
    y = hidden_numpy(cell, params, batch) @ params["W_out"].T + params.get("c", 0.0)
    return (batch.weights * ((y - batch.targets) ** 2).mean(-1)).sum()


@pytest.mark.parametrize("name", UNBIASED)
def test_the_state_carried_on_is_that_of_the_clean_pass(ops, name):
    cell = make_cell(alpha=0.3, decorrelate="both")
    params, batch = make_params(cell), make_batch()
    large = {} if name == "forward_gradient" else {"sigma": 0.5}
    loss, _, state, _ = estimate(ops, rule(name, **large), cell, params, batch)
    expected_loss, _, expected, _ = estimate(ops, learner("bptt"), cell, params, batch)
    assert loss == pytest.approx(expected_loss, rel=1e-12)
    for one, two in zip(leaves_of(state["cell"]), leaves_of(expected["cell"]), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-12)


# -- oracle 7 --------------------------------------------------------------------------------------------


def segmented(rule_, K):
    """A rule whose one segment is the given one in segments of K steps, gradients added up."""

    class Segmented:
        def init(self, *args):
            return rule_.init(*args)

        def segment(self, ops, cell, params, state, batch, key):
            total, keys = None, ops.split(key, len(batch.weights) // K)
            for i in range(len(batch.weights) // K):
                part = Batch(*(x[i * K : (i + 1) * K] for x in batch))
                found = rule_.segment(ops, cell, params, state, part, keys[i])
                grads = {k: ops.dense(g) for k, g in found.grads.items()}
                total = grads if total is None else {k: total[k] + grads[k] for k in grads}
                state = found.state
            return found._replace(grads=total)

    return Segmented()


def test_pes_that_restarts_at_every_segment_is_es(ops):
    cell = make_cell(alpha=0.3)
    params, states = make_params(cell), [None, None]
    for number in range(3):
        batch, found = make_batch(4, seed=number), []
        for i, rule_ in enumerate((rule("es"), rule("pes", horizon=1))):
            _, grads, states[i], _ = estimate(ops, rule_, cell, params, batch, number, states[i])
            found.append(grads)
        assert relative_error(*found) < 1e-12


def test_pes_restarts_from_the_network_itself_at_its_horizon(ops):
    """With horizon 2, the first and the third segment equal those of `es`; the second does not."""
    cell = make_cell(alpha=0.3)
    params, states = make_params(cell), [None, None]
    for number in range(3):
        batch, found = make_batch(4, seed=number), []
        for i, rule_ in enumerate((rule("es"), rule("pes", horizon=2))):
            _, grads, states[i], _ = estimate(ops, rule_, cell, params, batch, number, states[i])
            found.append(grads)
        assert relative_error(*found) > 1e-3 if number == 1 else relative_error(*found) < 1e-12


# -- low rank --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [1, 3])
def test_lowrank_perturbations_are_white_at_every_rank(rank):
    """E[V_ab V_cd] = δ_ac δ_bd, and a kurtosis that shows that V is not Gaussian at rank 1."""
    rng, count = np.random.default_rng(0), 200_000
    A, B_ = rng.standard_normal((count, rank, 2)), rng.standard_normal((count, rank, 3))
    V = (np.swapaxes(A, 1, 2) @ B_ / np.sqrt(rank)).reshape(count, 6)
    second = V.T @ V / count
    assert np.abs(second - np.eye(6)).max() < 0.05
    assert (V**4).mean() == pytest.approx(3 + 6 / rank, rel=0.1)


def test_lowrank_gradients_come_as_factors_of_population_times_rank_rows(ops):
    cell = make_cell()
    params, batch = ops.from_numpy(make_params(cell)), Batch(*ops.from_numpy(tuple(make_batch())))
    rule_ = learner("es_lowrank", population=5, rank=3)
    grads = rule_.segment(ops, cell, params, rule_.init(ops, cell, params, B), batch, ops.key(0)).grads
    assert isinstance(grads["W_rec"], Outer)
    assert tuple(grads["W_rec"].post.shape) == (15, N) == tuple(grads["W_rec"].pre.shape)


# -- bptt_checkpointed -----------------------------------------------------------------------------------


@pytest.mark.parametrize("options", SOME_CELLS)
@pytest.mark.parametrize("steps", [1, T, 13])
def test_checkpointed_bptt_equals_bptt(ops, options, steps):
    cell = make_cell(**options)
    params, batch = make_params(cell), make_batch(steps)
    found, expected = (
        estimate(ops, learner(id), cell, params, batch) for id in ("bptt_checkpointed", "bptt")
    )
    assert relative_error(found[1], expected[1]) < 1e-12
    for one, two in zip(leaves_of(found), leaves_of(expected), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 12, 13, 31, 64, 100, 101, 997, 1000])
def test_chunks_are_about_the_square_root_of_the_steps(steps):
    sqrt_divisor = registry.find("learners", "bptt_checkpointed").cls.segment.__globals__["sqrt_divisor"]
    assert 1 <= sqrt_divisor(steps) <= steps
    assert np.sqrt(steps) / 2 <= sqrt_divisor(steps) <= np.sqrt(steps) + 1


@pytest.mark.parametrize("options", [CELLS[1], CELLS[4], CELLS[5]])
def test_pull_back_through_two_halves_is_pull_back_through_the_whole(ops, options):
    """The adjoint at the start is the gradient in the initial activity by the framework's reverse mode."""
    cell = make_cell(**options)
    params = ops.from_numpy(make_params(cell))
    batch = Batch(*ops.from_numpy(tuple(make_batch())))
    zero = ops.zeros((B, N))
    start = cell.start(ops, B)
    whole, adjoint = pull_back(ops, cell, params, start, batch, zero)
    first, second = (Batch(*(x[part] for x in batch)) for part in (slice(0, 5), slice(5, T)))
    middle = pull_back(ops, cell, params, start, first, zero)[0].state
    late, between = pull_back(ops, cell, params, middle, second, zero)
    early, first_adjoint = pull_back(ops, cell, params, start, first, between)
    total = {k: ops.to_numpy(ops.dense(early.grads[k]) + ops.dense(late.grads[k])) for k in early.grads}
    assert relative_error(total, {k: ops.to_numpy(ops.dense(g)) for k, g in whole.grads.items()}) < 1e-12
    assert np.abs(ops.to_numpy(first_adjoint - adjoint)).max() < 1e-14

    def loss(h):
        state = type(start)((h,), None if start.h_hat is None else ops.linear(h, params["D"]))
        _, unrolled = cell.unroll(ops, params, state, batch.inputs.reshape((T * B, -1)), T)
        y = cell.readout(ops, params, unrolled.out).reshape((T, B, -1))
        return ops.xp.sum(batch.weights * cell.losses(ops, y, batch.targets))

    assert np.abs(ops.to_numpy(ops.value_and_grad(loss)(start.s[0])[1] - adjoint)).max() < 1e-12


# -- readout_ridge ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sizes"), [*((cell, (T,)) for cell in SOME_CELLS), (CELLS[0], (1,) * T), (CELLS[5], (7, 5))]
)
def test_readout_ridge_equals_the_closed_form_and_readout_rls(ops, options, sizes):
    """However the sequence is cut; a second sequence from a zero state, the sums kept."""
    cell, ridge = make_cell(**options.values[0]), 0.7
    params = make_params(cell)
    fixed = {k: params[k] for k in ("D", "D_in") if k in params}
    found, H, Y = {}, [], []
    for id in ("readout_ridge", "readout_rls"):
        current, state = params, None
        for seed in range(2):
            batch, start = make_batch(seed=seed), 0
            if state is not None:
                state = state | {"cell": ops.to_numpy(cell.start(ops, B))}
            for size in sizes:
                part = Batch(*(x[start : start + size] for x in batch))
                _, grads, state, assigned = estimate(
                    ops, learner(id, ridge=ridge), cell, current, part, state=state
                )
                assert grads == {}
                current, start = current | assigned | fixed, start + size
            if id == "readout_ridge":
                h_hat = hidden_numpy(cell, params, batch)
                if cell.bias:
                    h_hat = np.concatenate([h_hat, np.ones((*h_hat.shape[:2], 1))], axis=2)
                H.append(h_hat[batch.weights > 0])
                Y.append(batch.targets[batch.weights > 0])
        found[id] = np.column_stack([current["W_out"], current["c"]]) if cell.bias else current["W_out"]
    H, Y = np.concatenate(H), np.concatenate(Y)
    W_0 = np.column_stack([params["W_out"], params["c"]]) if cell.bias else params["W_out"]
    expected = np.linalg.solve(H.T @ H + ridge * np.eye(H.shape[1]), H.T @ Y + ridge * W_0.T).T
    for id in found:
        assert np.abs(found[id] - expected).max() < 1e-8


# -- reward_hebbian --------------------------------------------------------------------------------------


@pytest.mark.parametrize("exponent", [1, 3])
def test_reward_hebbian_follows_its_equations(both, exponent):
    """Two trials against plain NumPy, with the noise taken from the backend."""
    cell, sigma, lam, beta = make_cell(alpha=0.3), 0.3, 0.05, 0.75
    params = make_params(cell)
    for ops in both:
        state, expected_loss = None, None
        h, mean = np.zeros((B, N)), np.zeros((B, N + 2))
        for trial in range(2):
            batch = make_batch(5, seed=trial)
            _, found, state, _ = estimate(
                ops,
                learner("reward_hebbian", sigma=sigma, exponent=exponent),
                cell,
                params,
                batch,
                trial,
                state,
            )
            losses, trace = np.zeros(B), {k: np.zeros((B, *s)) for k, s in cell.shapes().items()}
            keys = ops.split(ops.key(trial), 5)
            for (x, target, weight), key in zip(zip(*batch, strict=True), keys, strict=True):
                xi = sigma * ops.to_numpy(ops.normal(key, (B, N + 2)))
                a = x @ params["W_in"].T + h @ params["W_rec"].T + params["b"] + xi[:, :N]
                after = 0.7 * h + 0.3 * np.tanh(a)
                y = after @ params["W_out"].T + params["c"] + xi[:, N:]
                losses += weight * ((y - target) ** 2).mean(1)
                units = np.concatenate([a, y], axis=1)
                away, one = units - mean, np.ones((B, 1))
                mean = lam * mean + (1 - lam) * units
                for k, pre in (("W_in", x), ("W_rec", h), ("b", one), ("W_out", after), ("c", one)):
                    post = away[:, N:] if k in ("W_out", "c") else away[:, :N]
                    S = (post[:, :, None] * pre[:, None, :]) ** exponent
                    trace[k] += S.reshape(trace[k].shape)
                h = after
            expected_loss = losses.mean() if expected_loss is None else expected_loss
            scale = sigma**2 if exponent == 1 else 3 * sigma**4
            expected = {
                k: np.tensordot((losses - expected_loss) / scale, e, axes=1) for k, e in trace.items()
            }
            assert relative_error(found, expected) < 1e-10
            expected_loss = beta * expected_loss + (1 - beta) * losses.mean()


@pytest.mark.parametrize("exponent", thorough([1, 3], but=[3]))
def test_reward_hebbian_has_the_expectation_that_its_noise_gives(exponent):
    """E[(L - L̄) e] / σ² → the change of e along ∂L/∂ξ, as σ → 0 (Stein); e has the network's own motion."""
    ops = make_ops("jax", dtype="float64")
    cell, sigma = make_cell(alpha=0.3), 1e-4
    params, batch = make_params(cell), make_batch(6, rows=1, seed=3)
    tensors, b = ops.from_numpy(params), Batch(*ops.from_numpy(tuple(batch)))
    rule_ = learner("reward_hebbian", sigma=sigma, exponent=exponent)
    scale = 1.0 if exponent == 1 else 3 * sigma**2

    def forward(xi):
        """Loss and eligibility of a trial with the noise xi [6, N + 2], by the equations, step by step."""
        xp, h, mean = ops.xp, ops.zeros((1, N)), ops.zeros((1, N + 2))
        loss, trace = 0.0, dict.fromkeys(cell.shapes(), 0.0)
        for t in range(6):
            a = b.inputs[t] @ tensors["W_in"].T + h @ tensors["W_rec"].T + tensors["b"] + xi[t, :N]
            after = 0.7 * h + 0.3 * xp.tanh(a)
            y = after @ tensors["W_out"].T + tensors["c"] + xi[t, N:]
            loss = loss + b.weights[t, 0] * ((y - b.targets[t]) ** 2).mean()
            units = xp.concat([a, y], axis=1)
            away = units - mean
            mean = 0.05 * mean + 0.95 * units
            for k, pre in (("W_in", b.inputs[t]), ("W_rec", h), ("b", None), ("W_out", after), ("c", None)):
                post = away[0, N:] if k in ("W_out", "c") else away[0, :N]
                S = post if pre is None else post[:, None] * pre[0]
                trace[k] = trace[k] + S**exponent
            h = after
        return loss, trace

    quiet = ops.zeros((6, N + 2))
    slope = ops.value_and_grad(lambda xi: forward(xi)[0])(quiet)[1]
    _, along = ops.jvp(lambda xi: forward(xi)[1], (quiet,), (slope,))
    expected = flat(ops.to_numpy(along), cell)
    later = second_trial(ops, rule_, cell, params, batch._replace(weights=batch.weights * B))
    samples = draws(ops, later, cell, params, batch, 40_000) * scale
    assert deviations(samples, expected, cell).max() < 4.0


# -- oua -------------------------------------------------------------------------------------------------


def wander(ops, rule_, cell, params, batch, segments, lr=0.0):
    """θ and μ, [S, p] each, after each of many segments from a zero state, with gradient descent on μ."""
    batch = Batch(*ops.from_numpy(tuple(batch)))

    def join(tree):
        return ops.xp.concat([tree[k].reshape(-1) for k in cell.shapes()])

    def segment(carry, key):
        params, state = carry
        state = rule_.reset(ops, cell, params, state, batch.weights.shape[1])
        found = rule_.segment(ops, cell, params, state, batch, key)
        moved = params | {k: params[k] - lr * g for k, g in found.grads.items()}
        return (moved, found.state), (join(found.state["theta"]), join(params), join(found.grads))

    params = ops.from_numpy(params)
    carry = params, rule_.init(ops, cell, params, batch.weights.shape[1])
    keys = ops.split(ops.key(11), segments)
    run = ops.compile(lambda carry, keys: ops.scan(segment, carry, keys), carry, keys)
    return ops.to_numpy(run(carry, keys)[1])


@pytest.mark.parametrize("reversion", [0.2, 1.0])
def test_the_weights_follow_an_ornstein_uhlenbeck_process(ops, reversion):
    """Mean μ, variance s², correlation e^{-λ} from one segment to the next; and the first step from θ = μ."""
    cell, s = make_cell(alpha=0.3), 0.05
    params, batch = make_params(cell), make_batch(1, rows=1)._replace(weights=np.ones((1, 1)))
    theta, mu, _ = wander(ops, learner("oua", sigma=s, reversion=reversion), cell, params, batch, 2000)
    first = (theta[0] - mu[0]) ** 2
    assert first.mean() == pytest.approx(s**2 * (1 - np.exp(-2 * reversion)), rel=0.4)
    away = (theta - mu)[100:] / s
    effective = away.size * np.tanh(reversion / 2)
    assert abs(away.mean()) < 4 / np.sqrt(effective)
    assert (away**2).mean() == pytest.approx(1.0, abs=6 / np.sqrt(effective))
    assert (away[1:] * away[:-1]).mean() == pytest.approx(np.exp(-reversion), abs=6 / np.sqrt(effective))


def test_oua_has_the_expectation_of_bptt_once_it_is_stationary():
    """Mean over many segments of a fixed sequence at a fixed mean, against BPTT, without the first."""
    ops = make_ops("jax", dtype="float64")
    cell = make_cell(alpha=0.3)
    params, batch = make_params(cell), oracle_batch()
    expected = flat(autodiff(ops, cell, params, batch)[1], cell)
    rule_ = learner("oua", sigma=1e-4, reversion=3.0, reward_rate=1e-3)
    grads = wander(ops, rule_, cell, params, batch, 40_000)[2]
    assert np.abs(grads[0]).max() == 0.0
    settled = grads[4000:]
    blocks = settled.reshape(400, -1, settled.shape[1]).mean(axis=1)
    assert deviations(blocks, expected, cell).max() < 4.5


def test_a_segment_without_a_scored_step_is_no_reward_to_oua(ops):
    """Before the first reward and after it: no credit, and the expected reward stays; θ moves on."""
    cell, rule_ = make_cell(alpha=0.3), learner("oua", sigma=0.1)
    params, scored = make_params(cell), make_batch()
    silent = scored._replace(weights=np.zeros_like(scored.weights))
    _, grads, before, _ = estimate(ops, rule_, cell, params, silent, key=1)
    assert all((g == 0).all() for g in grads.values()) and before["segments"] == 0
    loss, _, first, _ = estimate(ops, rule_, cell, params, scored, key=2, state=before)
    assert first["expected"] == pytest.approx(loss, rel=1e-12) and first["segments"] == 1
    _, grads, after, _ = estimate(ops, rule_, cell, params, silent, key=3, state=first)
    assert all((g == 0).all() for g in grads.values())
    assert after["expected"] == first["expected"] and after["segments"] == 1
    assert (after["theta"]["W_rec"] != first["theta"]["W_rec"]).all()


def test_the_mean_converges_to_the_optimum_of_a_quadratic(ops):
    """With one step and no input the loss is ‖y* - W_out tanh(b) - c‖²/2: the mean's output goes to y*."""
    cell, lr = make_cell(), 0.005
    params = {k: np.zeros_like(v) for k, v in make_params(cell).items()}
    target = np.array([1.0, -0.5])
    batch = Batch(np.zeros((1, 1, 2)), target.reshape((1, 1, 2)), np.ones((1, 1)))
    rule_ = learner("oua", sigma=0.05, reversion=3.0, reward_rate=0.5)
    mu = unflatten(wander(ops, rule_, cell, params, batch, 1500, lr)[1], cell.shapes())
    y = (mu["W_out"] @ np.tanh(mu["b"])[..., None])[..., 0] + mu["c"]
    assert np.abs(y[-200:].mean(0) - target).max() < 0.05
    # ∂L/∂c = y - y*: the distance falls as (1 - lr)^t, or a little faster for what W_out and b add.
    left = np.linalg.norm(y[240] - target) / np.linalg.norm(target)
    assert 0.6 < left / (1 - lr) ** 240 < 1.5


# -- memory ----------------------------------------------------------------------------------------------


def torch_peak(rule_, steps, hidden):
    """(peak bytes of one segment of B = 1 beside its arguments, bytes of the weights)."""
    import torch
    from torch.multiprocessing.reductions import StorageWeakRef
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Peak(TorchDispatchMode):
        live, peak = {}, 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for tensor in tree_leaves(out):
                if isinstance(tensor, torch.Tensor):
                    storage = tensor.untyped_storage()
                    if storage._cdata not in self.live:
                        self.live[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
            for cdata in [cdata for cdata, (ref, _) in self.live.items() if ref.expired()]:
                del self.live[cdata]
            self.peak = max(self.peak, sum(size for _, size in self.live.values()))
            return out

    ops, cell = make_ops("torch", dtype="float64"), make_cell(hidden=hidden)
    params = ops.from_numpy(make_params(cell))
    batch = Batch(*ops.from_numpy(tuple(make_batch(steps, rows=1))))
    state = rule_.init(ops, cell, params, 1)
    with torch.no_grad(), Peak() as mode:
        mode.live = {}
        for tensor in leaves_of((params, state, tuple(batch))):
            storage = tensor.untyped_storage()
            mode.live[storage._cdata] = StorageWeakRef(storage), 0
        rule_.segment(ops, cell, params, state, batch, ops.key(0))
    return mode.peak, sum(8 * value.numel() for value in params.values())


def test_spsa_holds_one_array_of_the_size_of_the_weights():
    """The perturbed weights or the update, never also the noise; `es` holds `population` times the noise."""
    peak, weights = torch_peak(learner("spsa"), 2, 128)
    assert 1.0 <= peak / weights < 1.15
    peak, weights = torch_peak(learner("forward_gradient"), 2, 128)
    assert 1.0 <= peak / weights < 1.15
    peak, weights = torch_peak(learner("es", population=8), 2, 128)
    assert 8.0 <= peak / weights < 10.5
    peak, weights = torch_peak(learner("es_lowrank", population=8), 2, 128)
    assert peak / weights < 2.0


# -- the other claims ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RULES)
def test_rules_that_claim_so_run_no_reverse_pass(ops, name, monkeypatch):
    def refuse(*args, **more):
        raise AssertionError("a reverse pass")

    for way in ("value_and_grad", "vjp", "jacobian"):
        monkeypatch.setattr(ops, way, refuse)
    rule_, cell = rule(name), make_cell()
    shared = {"pull_back", "backpropagate"} & set(type(rule_).segment.__globals__)
    assert bool(shared) is not rule_.claims.forward_only
    params, batch = ops.from_numpy(make_params(cell)), Batch(*ops.from_numpy(tuple(make_batch(2))))
    rule_.segment(ops, cell, params, rule_.init(ops, cell, params, B), batch, ops.key(0))


@pytest.mark.parametrize("name", ["bptt_checkpointed", "reward_hebbian", "reward_hebbian linear"])
def test_what_is_not_online_depends_on_how_a_sequence_is_cut(name):
    """With equal noise per step the sum differs: a segment looks ahead to its end. For others see `pes`."""
    ops, cell = make_ops("jax", dtype="float64"), make_cell(alpha=0.3)
    rule_ = rule(name) if name == "bptt_checkpointed" else rule(name, sigma=1e-9)
    assert not rule_.claims.online
    if name != "bptt_checkpointed":
        rule_ = second_trial(ops, rule_, cell, make_params(cell), make_batch(seed=7))
    whole, cut = (
        draws(ops, segmented(rule_, K), cell, make_params(cell), make_batch(), 2)[0] for K in (T, T // 2)
    )
    assert np.abs(cut - whole).max() > 1e-3 * np.abs(whole).max()


@pytest.mark.parametrize("name", ["es", "es_lowrank", "spsa", "forward_gradient"])
def test_rules_that_lose_credit_between_segments_do_not_claim_to_be_online(name):
    assert not rule(name).claims.online
    assert rule("pes").claims.online and rule("oua").claims.online and rule("readout_ridge").claims.online


# -- bad input -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("id", "bad"),
    [
        ("forward_gradient", {"K": 0}),
        ("spsa", {"sigma": 0.0}),
        ("es", {"population": 0}),
        ("es_lowrank", {"rank": 0}),
        ("pes", {"horizon": 0}),
        ("bptt", {"K": 0}),
        ("bptt_checkpointed", {"K": -1}),
        ("readout_ridge", {"ridge": 0.0}),
        ("reward_hebbian", {"exponent": 2}),
        ("reward_hebbian", {"mean_decay": 1.0}),
        ("oua", {"reward_rate": 1.5}),
    ],
)
def test_bad_hyperparameters_are_refused(id, bad):
    ((name, value),) = bad.items()
    with pytest.raises(UsageError, match=f"{name} is {value}"):
        learner(id, **bad)
