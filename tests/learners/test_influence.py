"""Rules that carry an influence or an eligibility trace forward in time: properties of their equations."""

import numpy as np
import pytest

from creditbench.errors import UsageError
from creditbench.learner import Batch, Decorrelated
from creditbench.ops import BACKENDS
from creditbench.optimizers import make_optimizer
from creditbench.plugins import registry
from tests.conftest import (
    INPUTS,
    ON_JAX,
    OUTPUTS,
    B,
    N,
    T,
    autodiff,
    estimate,
    learner,
    make_batch,
    make_cell,
    make_params,
    relative_error,
    thorough,
)
from tests.learners.test_oracles import (
    CELLS,
    LOSSES,
    cut,
    deviations,
    draws,
    flat,
    hidden_numpy,
    leaves_arguments_alone,
    oracle_batch,
)

RULES = {
    "rtrl": {},
    "snap1": {},
    "snapn": {"steps": 2, "density": 0.3},
    "rflo": {},
    "eprop symmetric": {"feedback": "symmetric"},
    "eprop random": {"feedback": "random"},
    "eprop adaptive": {"feedback": "adaptive", "feedback_rate": 0.3, "feedback_decay": 0.1},
    "uoro": {},
    "kf_rtrl": {},
    "kernl": {"beta_rate": 0.3, "gamma_rate": 0.3},
    "dni": {"rate": 0.3},
}
SOME_CELLS = [CELLS[0], CELLS[3], CELLS[5], CELLS[6]]  # each of α, bias and decorrelation both ways
UNBIASED = ["rtrl", "uoro", "kf_rtrl"]
BIASED = [name for name in RULES if name not in UNBIASED]


def rule(name, **more):
    return learner(name.split()[0], **RULES[name] | more)


def mutant(folder, id, old, new):
    """The rule with one piece of its source replaced."""
    source = registry.find("learners", id).path.read_text(encoding="utf-8")
    assert source.count(old) == 1, f"{id} does not hold {old!r} once"
    path = folder / f"{id}_mutant.py"
    path.write_text(source.replace(old, new).replace(f'id = "{id}"', f'id = "{id}_mutant"'), encoding="utf-8")
    return registry.find("learners", f"{id}_mutant", [path], imports=True).cls()


def deterministic(ops, rule, cell, params, batch, **more):
    return estimate(ops, rule, cell, params, batch, **more)[1]


# -- both backends -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("options", [CELLS[0], CELLS[5]])
def test_backends_agree_with_the_same_noise(both, options, name):
    """Two segments, so that the carried state is compared by what it does."""
    cell = make_cell(**options, loss="cross_entropy")
    params, results = make_params(cell), []
    for ops in both:
        state, outcomes = None, []
        for number in range(2):
            batch = make_batch(steps=30, seed=number, loss="cross_entropy")  # two chunks
            loss, grads, state, assigned = estimate(ops, rule(name), cell, params, batch, number, state)
            outcomes.append((loss, grads, assigned))
        results.append(outcomes)
    for (loss, grads, assigned), (loss2, grads2, assigned2) in zip(*results, strict=True):
        assert loss == pytest.approx(loss2, rel=1e-10)
        assert set(grads) == set(cell.shapes())
        assert relative_error(grads, grads2) < 1e-10
        if assigned:
            assert relative_error(assigned, assigned2) < 1e-10


@pytest.mark.parametrize("name", RULES)
def test_the_readout_gets_its_exact_instantaneous_gradient(ops, name):
    loss = "cross_entropy"
    cell = make_cell(alpha=0.3, decorrelate="both", loss=loss)
    params, batch = make_params(cell), make_batch(loss=loss)
    found_loss, found, _, _ = estimate(ops, rule(name), cell, params, batch)
    expected_loss, expected, _, _ = estimate(ops, learner("bptt"), cell, params, batch)
    assert found_loss == pytest.approx(expected_loss, rel=1e-12)
    for key in ("W_out", "c"):
        np.testing.assert_allclose(found[key], expected[key], atol=1e-14)


# -- oracle 2 ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("options", CELLS)
def test_rtrl_over_an_episode_equals_bptt(ops, options, loss):
    cell = make_cell(**options, loss=loss)
    params, batch = make_params(cell), make_batch(loss=loss)
    expected = estimate(ops, learner("bptt"), cell, params, batch)[1]
    assert relative_error(estimate(ops, learner("rtrl"), cell, params, batch)[1], expected) < 1e-10


@pytest.mark.parametrize("rows", [1, B])
def test_rtrl_over_several_chunks_equals_bptt(ops, rows):
    cell = make_cell(alpha=0.3)
    params, batch = make_params(cell), make_batch(steps=131, rows=rows)
    expected = estimate(ops, learner("bptt"), cell, params, batch)[1]
    assert relative_error(estimate(ops, learner("rtrl"), cell, params, batch)[1], expected) < 1e-10


# -- oracle 3 ----------------------------------------------------------------------------------------------


def with_recurrence(params, change):
    return params | {"W_rec": change(params["W_rec"])}


@pytest.mark.parametrize("options", SOME_CELLS)
def test_snap1_equals_rtrl_where_units_act_on_themselves_only(ops, options):
    cell = make_cell(**options)
    params, batch = make_params(cell), make_batch()
    own = with_recurrence(params, lambda W: np.diag(np.diag(W)))
    if "D" in own:
        own["D"] = np.diag(np.diag(own["D"]))
    found, expected = (deterministic(ops, learner(id), cell, own, batch) for id in ("snap1", "rtrl"))
    assert relative_error(found, expected) < 1e-12
    found, expected = (deterministic(ops, learner(id), cell, params, batch) for id in ("snap1", "rtrl"))
    assert relative_error(found, expected) > 1e-2


@pytest.mark.parametrize("options", SOME_CELLS)
@pytest.mark.parametrize("name", ["rflo", "eprop random", "eprop symmetric"])
def test_traces_with_exact_feedback_equal_rtrl_where_nothing_recurs(ops, options, name):
    cell = make_cell(**options)
    params, batch = make_params(cell), make_batch()

    def compare(params):
        found = deterministic(
            ops, rule(name), cell, params, batch, state=exact_feedback(ops, name, cell, params)
        )
        return relative_error(found, deterministic(ops, learner("rtrl"), cell, params, batch))

    assert compare(with_recurrence(params, np.zeros_like)) < 1e-12
    assert compare(params) > 1e-2


def exact_feedback(ops, name, cell, params):
    """The state at the start, with Dᵀ W_outᵀ for feedback."""
    state = ops.to_numpy(rule(name).init(ops, cell, ops.from_numpy(params), B))
    exact = (params["W_out"] @ params.get("D", np.eye(N))).T
    if name == "rflo":
        return state | {"feedback": exact}
    return state if name == "eprop symmetric" else state | {"trace": (state["trace"][0], exact)}


@pytest.mark.parametrize("options", SOME_CELLS)
def test_symmetric_eprop_equals_rflo_with_the_readouts_weights(ops, options):
    cell = make_cell(**options)
    params, batch = make_params(cell), make_batch()
    expected = deterministic(
        ops, rule("rflo"), cell, params, batch, state=exact_feedback(ops, "rflo", cell, params)
    )
    assert relative_error(deterministic(ops, rule("eprop symmetric"), cell, params, batch), expected) < 1e-12
    # With its own feedback rflo is another rule, and random e-prop the same.
    own = deterministic(ops, rule("rflo"), cell, params, batch)
    assert relative_error(own, expected) > 1e-2
    assert relative_error(deterministic(ops, rule("eprop random"), cell, params, batch), own) < 1e-12


@pytest.mark.parametrize("options", SOME_CELLS)
def test_snapn_goes_from_snap1_to_rtrl(ops, options):
    """On existing weights: n = 1 is snap1, n - 1 at least the diameter is RTRL, between them is neither."""
    cell = make_cell(**options)
    sparse = {"density": 0.25}  # two inputs a unit
    diameter = diameter_of(learner("snapn", **sparse).connected(cell))
    assert 2 <= diameter < N
    params = learner("snapn", **sparse).weights(cell, make_params(cell))
    if "D" in params:
        params["D"] = np.diag(np.diag(params["D"]))
    batch, exists = make_batch(), learner("snapn", **sparse).connected(cell)

    def existing(grads):
        return grads | {"W_rec": grads["W_rec"] * exists}

    def found(steps):
        return deterministic(ops, learner("snapn", steps=steps, **sparse), cell, params, batch)

    snap1, rtrl = (existing(deterministic(ops, learner(id), cell, params, batch)) for id in ("snap1", "rtrl"))
    assert relative_error(found(1), snap1) < 1e-12
    for steps in (diameter + 1, N + 1, 1000):
        assert relative_error(found(steps), rtrl) < 1e-12
    errors = [relative_error(found(steps), rtrl) for steps in range(1, diameter + 1)]
    assert min(errors) > 1e-6
    assert errors[0] > errors[-1]


def diameter_of(connected):
    """The largest number of connections on a shortest path from one unit to another."""
    reached, length = np.eye(len(connected), dtype=bool), 0
    while (further := reached | connected @ reached).sum() > reached.sum():
        reached, length = further, length + 1
    return length


def test_snapn_with_every_weight_in_place_is_rtrl(ops):
    cell = make_cell(alpha=0.3, decorrelate="both")
    params, batch = make_params(cell), make_batch()
    found = deterministic(ops, learner("snapn", density=1.0, steps=2), cell, params, batch)
    assert relative_error(found, deterministic(ops, learner("rtrl"), cell, params, batch)) < 1e-12


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_weights_that_snapn_prunes_stay_zero(ops, optimizer):
    cell, rule_ = make_cell(), learner("snapn", density=0.25)
    pruned = rule_.weights(cell, make_params(cell))
    exists = rule_.connected(cell)
    assert (exists.sum(axis=1) == 2).all()
    assert ((pruned["W_rec"] != 0) == exists).all()
    params, optimizer = ops.from_numpy(pruned), make_optimizer(optimizer, 0.1)
    state, optimizer_state = rule_.init(ops, cell, params, B), optimizer.init(ops, params)
    for seed in range(3):
        batch = Batch(*ops.from_numpy(tuple(make_batch(seed=seed))))
        grads = rule_.segment(ops, cell, params, state, batch, ops.key(0)).grads
        params, optimizer_state = optimizer.update(ops, params, optimizer_state, grads)
    moved = ops.to_numpy(params["W_rec"])
    assert (moved[~exists] == 0).all()
    assert (moved != pruned["W_rec"])[exists].all()


# -- oracle 4 ----------------------------------------------------------------------------------------------


def mean_of_draws(ops, rule, cell, params, batch, runs=208, copies=64):
    """`runs` flat gradients, each the mean of `copies` independent draws, so that no single draw dominates.

    Signs are drawn for each sequence: a batch that holds every sequence `copies` times gives as many draws at
    once.
    """
    many = Batch(*(np.concatenate([x] * copies, axis=1) for x in batch))
    return draws(ops, rule, cell, params, many._replace(weights=many.weights / copies), runs)


@ON_JAX
@pytest.mark.statistical
@pytest.mark.parametrize(
    "options", [dict(alpha=1.0, bias=False), dict(alpha=0.3, bias=True, decorrelate="hidden")]
)
@pytest.mark.parametrize("name", ["uoro", "kf_rtrl"])
def test_unbiased_rules_have_the_expectation_of_bptt(ops, name, options):
    cell = make_cell(**options)
    params, batch = make_params(cell), oracle_batch()
    expected = flat(estimate(ops, learner("bptt"), cell, params, batch)[1], cell)
    samples = mean_of_draws(ops, rule(name), cell, params, batch)
    assert recurrent(deviations(samples, expected, cell), cell).max() < 4.0
    # The error of a mean falls as 1/√N: that of 13 runs against that of one.
    means = samples.reshape(16, 13, -1).mean(axis=1)
    one, thirteen = (np.sqrt(((found - expected) ** 2).mean()) for found in (samples, means))
    assert 0.7 < one / thirteen / np.sqrt(13) < 1.4


def recurrent(found, cell):
    """The rows of the parameters whose gradient is not exact in every draw."""
    return found[[name not in ("W_out", "c") for name in cell.shapes()]]


@ON_JAX
@pytest.mark.statistical
@pytest.mark.parametrize(
    ("id", "old", "new"),
    [
        ("uoro", "h = rho_0 * Hh + rho_1 * nu", "h = rho_1 * Hh + rho_0 * nu"),
        ("uoro", "nu / rho_1, now", "nu * rho_1, now"),
        ("kf_rtrl", "(c1 / p1)[:, :, None] * HA", "(c1 * p1)[:, :, None] * HA"),
        ("kf_rtrl", "(c2 * p2) * now.z", "p2 * now.z"),
    ],
)
def test_one_wrong_factor_fails_the_same_test(ops, tmp_path, id, old, new):
    cell = make_cell(alpha=0.3, decorrelate="hidden")
    params, batch = make_params(cell), oracle_batch()
    expected = flat(estimate(ops, learner("bptt"), cell, params, batch)[1], cell)
    samples = mean_of_draws(ops, mutant(tmp_path, id, old, new), cell, params, batch)
    assert recurrent(deviations(samples, expected, cell), cell).max() > 6.0


@pytest.mark.parametrize("name", BIASED)
def test_biased_rules_have_another_expectation_than_bptt(ops, name):
    """All are deterministic except kernl, whose draws are averaged."""
    cell = make_cell(alpha=0.3)
    params, batch = make_params(cell), oracle_batch()
    if name == "snapn":
        params = rule(name).weights(cell, params)
    _, expected = autodiff(ops, cell, params, batch)
    if name == "kernl":
        samples = draws(ops, rule(name), cell, params, batch, 200)
        with np.errstate(invalid="ignore"):  # of the readout every draw is the same
            found = deviations(samples, flat(expected, cell), cell)
        assert recurrent(found, cell).max() > 6.0
    else:
        exists = rule(name).connected(cell) if name == "snapn" else 1.0
        expected["W_rec"] *= exists
        assert relative_error(deterministic(ops, rule(name), cell, params, batch), expected) > 1e-2


@pytest.mark.parametrize("name", RULES)
def test_claims_are_those_that_the_tests_show(name):
    claims = learner(name.split()[0]).claims
    assert claims.unbiased == (name in UNBIASED)
    assert claims.online
    assert claims.forward_only == (name != "dni")
    assert claims.memory_in_T == "O(1)"


# -- the equations again, in plain NumPy -------------------------------------------------------------------


def steps_numpy(cell, params, batch):
    """For each step H_t [B, n, n], Ī_t [B, n, n, m], δ_t [B, n], α φ'(a_t) [B, n] and z_t [B, m]."""
    D, D_in = params.get("D", np.eye(N)), params.get("D_in", np.eye(INPUTS))
    alpha, rows = cell.alpha, batch.inputs.shape[1]
    h, h_hat = np.zeros((2, rows, N))
    for x, target, weight in zip(*batch, strict=True):
        z = np.concatenate([h_hat, x @ D_in.T, np.ones((rows, int(cell.bias)))], axis=1)
        W = np.concatenate(
            [params["W_rec"], params["W_in"], *([params["b"][:, None]] if cell.bias else [])], axis=1
        )
        phi = np.tanh(z @ W.T)
        h = (1 - alpha) * h + alpha * phi
        h_hat = h @ D.T
        slope = alpha * (1 - phi**2)
        H = (1 - alpha) * np.eye(N) + slope[:, :, None] * (params["W_rec"] @ D)
        immediate = np.zeros((rows, N, N, z.shape[1]))
        for i in range(N):
            immediate[:, i, i] = slope[:, i, None] * z
        error = 2 / OUTPUTS * (h_hat @ params["W_out"].T + params.get("c", 0.0) - target)
        yield H, immediate, weight[:, None] * error @ params["W_out"] @ D, slope, z


def recurrent_gradient(grads, cell):
    return np.concatenate(
        [grads["W_rec"], grads["W_in"], *([grads["b"][:, None]] if cell.bias else [])], axis=1
    )


@pytest.mark.parametrize("options", SOME_CELLS)
def test_uoro_is_its_equations(both, options):
    cell = make_cell(**options)
    params, batch, epsilon = make_params(cell), make_batch(), 1e-7
    for ops in both:
        keys = ops.split(ops.key(1), T)
        h, theta, expected = np.zeros((B, N)), np.zeros((B, N, cell.fan_in)), 0.0
        for (H, immediate, delta, _, _), key in zip(steps_numpy(cell, params, batch), keys, strict=True):
            nu = ops.to_numpy(ops.rademacher(key, (B, N)))
            for b in range(B):
                Hh, nu_I = H[b] @ h[b], np.tensordot(nu[b], immediate[b], axes=1)
                rho_0 = np.sqrt((np.linalg.norm(theta[b]) + epsilon) / (np.linalg.norm(Hh) + epsilon))
                rho_1 = np.sqrt(np.linalg.norm(nu_I) / np.linalg.norm(nu[b]))
                h[b] = rho_0 * Hh + rho_1 * nu[b]
                theta[b] = theta[b] / rho_0 + nu_I / rho_1
                expected = expected + (delta[b] @ h[b]) * theta[b]
        found = recurrent_gradient(estimate(ops, rule("uoro"), cell, params, batch)[1], cell)
        assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("options", SOME_CELLS)
def test_kf_rtrl_is_its_equations(both, options):
    cell = make_cell(**options)
    params, batch, epsilon = make_params(cell), make_batch(), 1e-7
    for ops in both:
        keys = ops.split(ops.key(1), T)
        u, A, expected = np.zeros((B, cell.fan_in)), np.zeros((B, N, N)), 0.0
        for (H, _, delta, slope, z), key in zip(steps_numpy(cell, params, batch), keys, strict=True):
            signs = ops.to_numpy(ops.rademacher(key, (B, 2)))
            for b, (c1, c2) in enumerate(signs):
                HA, immediate = H[b] @ A[b], np.diag(slope[b])
                p1 = np.sqrt((np.linalg.norm(HA) + epsilon) / (np.linalg.norm(u[b]) + epsilon))
                p2 = np.sqrt(np.linalg.norm(immediate) / np.linalg.norm(z[b]))
                u[b] = c1 * p1 * u[b] + c2 * p2 * z[b]
                A[b] = c1 * HA / p1 + c2 * immediate / p2
                expected = expected + np.outer(delta[b] @ A[b], u[b])
        found = recurrent_gradient(estimate(ops, rule("kf_rtrl"), cell, params, batch)[1], cell)
        assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("options", SOME_CELLS)
def test_kernl_is_its_equations(both, options):
    cell, sigma, rate = make_cell(**options), 1e-3, 0.3
    params, batch, alpha = make_params(cell), make_batch(), cell.alpha
    recurrence = params["W_rec"] @ params.get("D", np.eye(N))
    theta = recurrent_gradient(params, cell)
    for ops in both:
        keys = ops.split(ops.key(1), T)
        beta, gamma, expected = np.eye(N), np.full(N, 0.5), 0.0
        P, (psi, Omega, Gamma) = np.zeros((B, N, cell.fan_in)), np.zeros((3, B, N))
        for (_, _, delta, slope, z), key in zip(steps_numpy(cell, params, batch), keys, strict=True):
            xi, a, decay = ops.to_numpy(ops.normal(key, (B, N))), z @ theta.T, np.exp(-gamma)
            P = decay[:, None] * P + slope[:, :, None] * z[:, None, :]
            expected = expected + np.einsum("bi,ik,bkj->kj", delta, beta, P)
            moved = np.tanh(a + sigma * psi @ recurrence.T) - np.tanh(a)
            psi = (1 - alpha) * psi + alpha * moved / sigma + xi
            Gamma = decay * (Gamma - Omega)
            Omega = decay * Omega + xi
            error = Omega @ beta.T - psi
            step = error @ beta * Gamma / (1 + (Gamma**2).sum(1, keepdims=True))
            gamma = np.maximum(0, gamma - rate * step.mean(0))
            beta = beta - rate / B * error.T @ (Omega / (1 + (Omega**2).sum(1, keepdims=True)))
        _, grads, state, _ = estimate(ops, rule("kernl"), cell, params, batch)
        assert np.abs(recurrent_gradient(grads, cell) - expected).max() < 1e-8 * np.abs(expected).max()
        np.testing.assert_allclose(state["trace"].beta, beta.T, atol=1e-8)
        np.testing.assert_allclose(state["trace"].gamma, gamma, atol=1e-8)


@pytest.mark.parametrize("options", SOME_CELLS)
def test_dni_is_its_equations(ops, options):
    cell, rate = make_cell(**options), 0.3
    params, batch = make_params(cell), make_batch()
    A, before, expected = np.zeros((N, N + OUTPUTS + 1)), np.zeros((B, N + OUTPUTS + 1)), 0.0
    steps = zip(
        steps_numpy(cell, params, batch),
        hidden_numpy(cell, params, batch),
        batch.targets,
        batch.weights,
        strict=True,
    )
    for (H, _, delta, slope, z), h_hat, target, weight in steps:
        features = np.concatenate([h_hat, target * (weight > 0)[:, None], np.ones((B, 1))], axis=1)
        c = delta + features @ A.T
        expected = expected + (c * slope).T @ z
        error = before @ A.T - np.einsum("bki,bk->bi", H, c)
        A = A - rate / B * error.T @ (before / (1 + (before**2).sum(1, keepdims=True)))
        before = features
    _, grads, state, _ = estimate(ops, rule("dni"), cell, params, batch)
    assert np.abs(recurrent_gradient(grads, cell) - expected).max() < 1e-12 * np.abs(expected).max()
    np.testing.assert_allclose(state["trace"][0], A, atol=1e-12)


def test_the_first_step_of_nothing_is_finite(ops):
    """Without activity, input and bias every norm is 0, and must not divide."""
    cell = make_cell(bias=False)
    params, batch = make_params(cell), make_batch(steps=3)
    batch.inputs[:2] = 0.0
    for name in RULES:
        for value in estimate(ops, rule(name), cell, params, batch)[1].values():
            assert np.isfinite(value).all(), name


def test_adaptive_feedback_follows_the_readout(ops):
    """The equation in NumPy. If W_out only moves along its gradient, B aligns with it."""
    cell, rate, decay = make_cell(alpha=0.3), 0.3, 0.1
    params, batch = make_params(cell), make_batch()
    state = ops.to_numpy(rule("eprop adaptive").init(ops, cell, ops.from_numpy(params), B))
    expected = state["trace"][1].copy()
    h = hidden_numpy(cell, params, batch)
    y = h @ params["W_out"].T + params["c"]
    e = batch.weights[:, :, None] * 2 / OUTPUTS * (y - batch.targets)
    P, credited = np.zeros((B, N, cell.fan_in)), 0.0
    steps = zip(h, e, steps_numpy(cell, params, batch), strict=True)
    for h_t, e_t, (_, _, _, slope, z) in steps:
        P = 0.7 * P + slope[:, :, None] * z[:, None, :]
        credited = credited + np.einsum("bi,bij->ij", e_t @ expected.T, P)
        expected = (1 - decay) * expected - rate * h_t.T @ e_t
    _, grads, state, _ = estimate(ops, rule("eprop adaptive"), cell, params, batch)
    np.testing.assert_allclose(state["trace"][1], expected, atol=1e-13)
    np.testing.assert_allclose(recurrent_gradient(grads, cell), credited, atol=1e-13)

    fast = rule("eprop adaptive", feedback_rate=1.0, feedback_decay=0.01)
    current, state, cosines = params, None, []
    for number in range(200):
        _, grads, state, _ = estimate(ops, fast, cell, current, make_batch(seed=number % 5), state=state)
        current = current | {"W_out": current["W_out"] * 0.99**T - grads["W_out"]}
        a, b = state["trace"][1].T.ravel(), current["W_out"].ravel()
        cosines.append(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    assert cosines[0] < 0.5
    assert cosines[-1] > 0.95


@pytest.mark.parametrize("name", ["rflo", "eprop random", "eprop adaptive", "kernl", "dni", "snapn"])
def test_what_a_rule_has_learned_outlives_a_sequence(ops, name):
    """New sequences start from zero activity and trace, and keep drawn and learned values."""
    cell = make_cell(alpha=0.3)
    params, batch = make_params(cell), make_batch()
    kept = {
        "rflo": lambda s: [s["feedback"]],
        "eprop": lambda s: [s["trace"][1]],
        "kernl": lambda s: [s["trace"].beta, s["trace"].gamma],
        "dni": lambda s: [s["trace"][0]],
        "snapn": lambda s: list(s["graph"].values()),
    }[name.split()[0]]
    after = estimate(ops, rule(name), cell, params, batch)[2]
    fresh = rule(name).init(ops, cell, ops.from_numpy(params), B)
    again = ops.to_numpy(rule(name).reset(ops, cell, ops.from_numpy(params), ops.from_numpy(after), B))
    for found, expected in zip(kept(again), kept(after), strict=True):
        np.testing.assert_array_equal(found, expected)
    learned = name not in ("rflo", "eprop random", "snapn")
    assert learned == any((a != b).any() for a, b in zip(kept(after), kept(ops.to_numpy(fresh)), strict=True))
    for value in leaves(again, kept(again)):
        assert not value.any()


def leaves(tree, but):
    if isinstance(tree, dict):
        tree = tuple(tree.values())
    if isinstance(tree, tuple):
        return [leaf for child in tree for leaf in leaves(child, but)]
    return [] if tree is None or any(tree is kept for kept in but) else [tree]


# -- what influence is -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RULES)
def test_forward_rules_carry_what_no_loss_has_touched(ops, name):
    """Influence depends on weights and activity. Only `dni` carries values that come from a loss.

    Adaptive feedback learns from errors too, but its trace does not.
    """
    cell = make_cell(alpha=0.3)
    params = make_params(cell)
    one, two = (
        estimate(ops, rule(name), cell, params, make_batch()._replace(targets=make_batch(seed=s).targets))
        for s in (0, 1)
    )
    traces = [r[2]["trace"][0] if name == "eprop adaptive" else r[2]["trace"] for r in (one, two)]
    same = all((a == b).all() for a, b in zip(leaves(traces[0], []), leaves(traces[1], []), strict=True))
    assert same == rule(name).claims.forward_only
    assert relative_error(one[1], two[1]) > 1e-2


STATE = {
    "rtrl": 3,
    "snap1": 2,
    "rflo": 2,
    "eprop symmetric": 2,
    "uoro": 2,
    "kf_rtrl": 2,
    "kernl": 2,
    "dni": 2,
}


@pytest.mark.parametrize("name", STATE)
def test_what_is_carried_grows_with_n_as_claimed(ops, name):
    """Exponent of the carried numbers in n: O(n p) is 3, O(p) and O(n²) are 2. A state has no T."""
    sizes = []
    for n in (64, 128):
        cell = make_cell(hidden=n)
        state = rule(name).init(ops, cell, ops.from_numpy(make_params(cell)), 1)
        sizes.append(sum(value.size for value in leaves(ops.to_numpy(state), [])))
    assert np.log2(sizes[1] / sizes[0]) == pytest.approx(STATE[name], abs=0.1)
    assert (
        rule(name).claims.memory
        == {3: "O(n p)", 2: "O(n²)" if name in ("kf_rtrl", "dni") else "O(p)"}[STATE[name]]
    )


@pytest.mark.parametrize("name", RULES)
def test_a_step_that_is_not_scored_does_not_move_the_estimate(ops, name):
    """Nor does its target, which may be anything. Two segments, to compare learned state too."""
    cell = make_cell(alpha=0.3)
    params, found = make_params(cell), []
    for unscored in (0.0, 1e6):
        state, outcomes = None, []
        for seed in range(2):
            batch = make_batch(seed=seed)
            targets = np.where(batch.weights[..., None] > 0, batch.targets, unscored)
            assert (batch.weights == 0).any()
            batch = batch._replace(targets=targets)
            loss, grads, state, _ = estimate(ops, rule(name), cell, params, batch, seed, state)
            outcomes += [loss, *grads.values()]
        found.append(outcomes)
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)


# -- oracle 10 ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RULES)
def test_the_same_key_gives_the_same_result(ops, name):
    cell = make_cell()
    params, batch = make_params(cell), make_batch()
    one, two, other = (estimate(ops, rule(name), cell, params, batch, key=k)[1] for k in (5, 5, 6))
    for k in one:
        np.testing.assert_array_equal(one[k], two[k])
    assert (relative_error(other, one) > 1e-9) == (name in ("uoro", "kf_rtrl", "kernl"))


@pytest.mark.parametrize("backend", thorough(BACKENDS, but=["torch"]))
@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("sizes", [(1,) * T, (7, 5)])
def test_any_segmentation_of_an_episode_gives_the_same_summed_gradient(both, backend, name, sizes):
    cell = make_cell(alpha=0.3)
    params, batch = make_params(cell), make_batch()
    ops = both[BACKENDS.index(backend)]
    if (what := (backend, name)) not in _whole:
        _whole[what] = cut(ops, rule(name), cell, params, batch, (T,))
    assert relative_error(cut(ops, rule(name), cell, params, batch, sizes), _whole[what]) < 1e-10


_whole = {}


def test_rules_change_none_of_their_arguments(ops):
    cell = make_cell(alpha=0.3, decorrelate="both")
    for name in RULES:
        for steps in (1, 3):
            decorrelating = Decorrelated(learner=rule(name), rate=1e-2)
            params = ops.from_numpy(make_params(cell))
            batch = Batch(*ops.from_numpy(tuple(make_batch(steps=steps))))
            state = decorrelating.init(ops, cell, params, B)
            if ops.name == "torch":  # a state that is not zero, so that a change shows
                state = decorrelating.segment(ops, cell, params, state, batch, ops.key(0)).state
            leaves_arguments_alone(ops, decorrelating, cell, params, state, batch)


# -- kernl and dni: their learned state --------------------------------------------------------------------


def small_cell(alpha, W_rec, outputs=0.0):
    """A cell with given recurrence, so close to 0 that it is linear."""
    cell = make_cell(alpha=alpha, bias=False)
    return cell, make_params(cell) | {"W_rec": W_rec, "W_out": outputs * np.ones((OUTPUTS, N)) / N}


def random_recurrence(radius, seed):
    """Random weights [n, n] of that spectral radius."""
    W = np.random.default_rng(seed).standard_normal((N, N))
    return W * radius / np.abs(np.linalg.eigvals(W)).max()


def white_noise(steps, rows, seed, scale=1e-3):
    rng = np.random.default_rng(seed)
    targets = np.broadcast_to(np.array([0.3, -0.2]) * scale, (steps, rows, OUTPUTS))
    return Batch(scale * rng.standard_normal((steps, rows, INPUTS)), targets, np.ones((steps, rows)))


@ON_JAX
@pytest.mark.statistical
def test_kernl_finds_the_kernel_of_units_that_act_on_themselves_only(ops):
    """∂h_t/∂h_{t-τ} is diag(λ^τ), λ = 1 - α + α w: β comes to I, e^{-γ} to λ, and the gradient to RTRL's."""
    alpha, w = 0.5, np.linspace(-0.1, 0.7, N)
    cell, params = small_cell(alpha, np.diag(w), 1.0)
    state, lam = None, 1 - alpha + alpha * w
    for number, rate in enumerate([0.2] * 3 + [0.05] * 2):
        kernl = learner("kernl", gamma=1.0, beta_rate=rate, gamma_rate=2 * rate)
        state = estimate(ops, kernl, cell, params, white_noise(400, 16, number), number, state)[2]
    np.testing.assert_allclose(np.exp(-state["trace"].gamma), lam, atol=0.02)
    np.testing.assert_allclose(state["trace"].beta, np.eye(N), atol=0.02)
    fresh = ops.to_numpy(kernl.reset(ops, cell, ops.from_numpy(params), ops.from_numpy(state), B))
    batch = white_noise(T, B, 9, 1e-3)
    found = deterministic(ops, kernl, cell, params, batch, state=fresh)
    assert relative_error(found, deterministic(ops, learner("rtrl"), cell, params, batch)) < 0.05


@ON_JAX
@pytest.mark.statistical
def test_kernl_finds_the_average_effect_of_a_unit_on_others(ops):
    """With γ held, the best β is E[ψ Ωᵀ] E[Ω Ωᵀ]⁻¹ = (1 - e^{-2γ}) Σ_τ M^τ e^{-γτ}, M = ∂h_t/∂h_{t-1}."""
    alpha, gamma = 0.5, 0.7
    W = random_recurrence(0.7, 3)
    cell, params = small_cell(alpha, W)
    M = (1 - alpha) * np.eye(N) + alpha * W
    expected = (1 - np.exp(-2 * gamma)) * np.linalg.inv(np.eye(N) - np.exp(-gamma) * M)
    state = None
    for number, rate in enumerate([0.3] * 2 + [0.03] * 3):
        kernl = learner("kernl", gamma=gamma, beta_rate=rate, gamma_rate=0.0)
        state = estimate(ops, kernl, cell, params, white_noise(400, 16, number), number, state)[2]
    beta = state["trace"].beta.T
    np.testing.assert_allclose(state["trace"].gamma, gamma)
    assert np.abs(beta - expected).max() < 0.05
    assert np.abs(expected - np.diag(np.diag(expected))).max() > 0.15  # there is something to be found off it


@ON_JAX
@pytest.mark.statistical
@pytest.mark.parametrize("alpha", [1.0, 0.4])
def test_dni_finds_the_gradient_of_the_future_of_a_linear_problem(ops, alpha):
    """Fixed weights, white input, fixed targets: E[∂L_{>t}/∂h_t] = G h_t + g has a closed form.

    With Q = W_outᵀ W_out · 2/O and q = -W_outᵀ y* · 2/O: G = Mᵀ (Q + G) M and g = Mᵀ (q + g).
    """
    W = random_recurrence(0.6, 4)
    cell, params = small_cell(alpha, W)
    params["W_out"] = np.random.default_rng(5).standard_normal((OUTPUTS, N))
    M = (1 - alpha) * np.eye(N) + alpha * W
    Q = 2 / OUTPUTS * params["W_out"].T @ params["W_out"]
    scale, state = 0.1 / alpha**0.5, None
    target = np.array([0.3, -0.2]) * scale
    q, G = -2 / OUTPUTS * params["W_out"].T @ target, np.zeros((N, N))
    for _ in range(500):
        G = M.T @ (Q + G) @ M
    g = np.linalg.solve(np.eye(N) - M.T, M.T @ q)
    for number, rate in enumerate([1.0] * 10 + [0.2] * 4):
        batch = white_noise(400, 32, number, scale)
        state = estimate(ops, learner("dni", rate=rate), cell, params, batch, state=state)[2]
    A = state["trace"][0]
    h = hidden_numpy(cell, params, white_noise(50, 32, 99, scale))[-1]
    found = np.concatenate([h, np.tile(target, (32, 1)), np.ones((32, 1))], axis=1) @ A.T
    expected = h @ G.T + g
    assert np.abs(found - expected).max() < 0.1 * np.abs(expected).max()


# -- bad input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("id", "field", "value"),
    [
        ("eprop", "feedback", "exact"),
        ("eprop", "feedback_rate", 0.0),
        ("eprop", "feedback_decay", 1.0),
        ("uoro", "epsilon", 0.0),
        ("kf_rtrl", "epsilon", 0.0),
        ("snapn", "steps", 0),
        ("snapn", "density", 1.5),
        ("kernl", "sigma", 0.0),
        ("kernl", "gamma_rate", -1.0),
        ("dni", "rate", 0.0),
    ],
)
def test_a_bad_hyperparameter_is_named_with_its_value(id, field, value):
    with pytest.raises(UsageError, match=f"{field} is {value!r}"):
        learner(id, **{field: value})
