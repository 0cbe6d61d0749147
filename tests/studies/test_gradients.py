"""Quality of gradients: against estimates whose cosine, bias and variance are known."""

from __future__ import annotations

import numpy as np
import pytest

from creditbench.cells import Tanh
from creditbench.errors import UsageError
from creditbench.learner import Batch
from creditbench.ops import make_ops
from creditbench.plugins import registry
from creditbench.studies.gradients import measure, reference, sample, statistics, why_none
from creditbench.trials.grid import Options, make_grid

P = 200


def estimates(bias, sigma, N=400, seed=0):
    """Draws with a known relative bias, orthogonal to the gradient, and variance σ²."""
    rng = np.random.default_rng(seed)
    gradient = np.zeros(P)
    gradient[0] = 3.0
    mean = gradient.copy()
    mean[1] = 3.0 * bias
    return mean + 3.0 * sigma / np.sqrt(P) * rng.standard_normal((N, P)), gradient


def test_bias_and_variance_are_those_put_in():
    for bias, sigma in ((0.0, 1.0), (0.3, 2.0), (0.5, 0.1)):
        found = statistics(*estimates(bias, sigma))
        assert found["variance"] == pytest.approx(sigma**2, rel=0.05)
        assert found["variance_interval"][0] < sigma**2 < found["variance_interval"][1]
        low, high = found["bias_interval"]
        assert low <= bias <= high
        if bias:
            assert found["bias"] == pytest.approx(bias, rel=0.2) and low > 0
        else:
            assert low == 0.0


@pytest.mark.statistical
def test_the_interval_of_the_bias_covers_it():
    """Without a correction for the number of draws no interval of these would reach down to 0."""
    covered = 0
    for seed in range(100):
        draws, gradient = estimates(0.2, 3.0, N=100, seed=seed)
        low, high = statistics(draws, gradient)["bias_interval"]
        covered += low <= 0.2 <= high
        assert np.linalg.norm(draws.mean(0) - gradient) / 3.0 > 0.25  # what was not corrected
    assert covered >= 88


@pytest.mark.statistical
def test_draws_to_cosine_are_what_it_takes():
    draws, gradient = estimates(0.2, 4.0, N=2000)
    found = statistics(draws, gradient)
    needed = found["draws_to_cosine"]
    exact = 16 / (1 / 0.81 - 1.04)
    assert needed == pytest.approx(exact, rel=0.15)
    low, high = found["draws_to_cosine_interval"]
    assert low < exact < high

    def cosine(N):
        means = [draws[rng.integers(len(draws), size=N)].mean(0) for _ in range(200)]
        return np.mean([m @ gradient / np.linalg.norm(m) / 3.0 for m in means])

    rng = np.random.default_rng(1)
    assert cosine(needed) == pytest.approx(0.9, abs=0.02)


def test_an_estimate_that_points_elsewhere_never_reaches_the_cosine():
    found = statistics(*estimates(2.0, 0.5))
    assert found["draws_to_cosine"] is None and found["draws_to_cosine_interval"] == [None, None]
    draws, gradient = estimates(0.0, 0.5)
    assert statistics(-draws, gradient)["draws_to_cosine"] is None
    assert statistics(-draws, gradient)["cosine"] < 0


def test_a_rule_without_noise_is_exact():
    gradient = np.arange(1.0, 4.0)
    found = statistics(gradient[None], gradient)
    assert (found["cosine"], found["bias"], found["variance"]) == (pytest.approx(1.0), 0.0, 0.0)
    assert found["draws_to_cosine"] == 1


@pytest.fixture(params=["jax", "torch"])
def problem(request):
    """A small cell at its first weights, a segment of 9 steps of 2 sequences, and the gradient there."""
    ops, cell = make_ops(request.param, dtype="float64"), Tanh(2, 6, 2)
    rng = np.random.default_rng(0)
    arrays = rng.standard_normal((9, 2, 2)), rng.standard_normal((9, 2, 2)), np.full((9, 2), 1 / 18)
    batch, params = Batch(*ops.from_numpy(arrays)), ops.from_numpy(cell.init(0))
    return ops, cell, params, batch, reference(ops, cell, params, batch)


def repeated(ops, batch, times):
    return Batch(*(ops.xp.stack([x] * times) for x in batch))


def test_rules_against_reverse_mode(problem):
    ops, cell, params, batch, gradient = problem

    def figures(id, draws, **hyperparameters):
        rule = registry.find("learners", id).cls(**hyperparameters)
        return statistics(sample(ops, cell, rule, params, batch, draws), gradient)

    assert figures("bptt", 5)["bias"] < 1e-12
    truncated = figures("tbptt", 5, K=3)
    assert truncated["bias"] > 0.01 and truncated["variance"] == 0.0
    noisy = figures("wp", 1000 if ops.name == "jax" else 300, sigma=1e-4)
    assert noisy["bias_interval"][0] == 0.0
    assert noisy["draws_to_cosine"] > 10 and 0 < noisy["cosine"] < 0.5


def test_a_rule_whose_noise_lies_in_its_state_settles_first(problem):
    """`oua` at fixed weights: its expected loss takes away a part of the gradient, in no other direction.

    The deviation u of the weights has an autocorrelation e^-λ, and the expected loss averages it at the rate
    ρ, so that E[(u - ū) u] = s² (1 - ρ e^-λ / (1 - (1-ρ) e^-λ)). The mean of N draws has a cosine that rises
    to 1 with N.
    """
    ops, cell, params, batch, gradient = problem
    if not ops.host.draws_together:
        pytest.skip("thousands of chains, one after another")
    rule = registry.find("learners", "oua").cls(sigma=1e-3, reversion=0.7, reward_rate=0.5)
    assert not sample(ops, cell, rule, params, batch, 3).any()
    found = sample(ops, cell, rule, params, batch, 2000, before=repeated(ops, batch, 12))
    stay = np.exp(-0.7)
    expected = 1 - 0.5 * stay / (1 - 0.5 * stay)
    along = found @ gradient / (gradient @ gradient)
    error = along.std() / np.sqrt(len(along))
    assert abs(along.mean() - expected) < 4 * error < 0.25 * expected
    cosines = [m @ gradient / np.linalg.norm(m) / np.linalg.norm(gradient) for m in means(found)]
    assert cosines[0] < 0.5 and cosines[1] < cosines[2] and cosines[2] > 0.95
    needed = statistics(found, gradient)
    assert 100 < needed["draws_to_cosine"] < 1000


def means(draws):
    """The means of 10, 200 and all draws."""
    return [draws[:count].mean(0) for count in (10, 200, len(draws))]


def test_settling_changes_nothing_of_a_rule_that_keeps_no_noise(problem):
    ops, cell, params, batch, gradient = problem
    rule = registry.find("learners", "np").cls(credit="episode", sigma=1e-3)
    plain, settled = (
        statistics(sample(ops, cell, rule, params, batch, 400, before=before), gradient)
        for before in (None, repeated(ops, batch, 3))
    )
    for name in ("cosine", "variance"):
        (low, high), (other_low, other_high) = plain[f"{name}_interval"], settled[f"{name}_interval"]
        assert low < other_high and other_low < high
        assert plain[name] != settled[name]  # the draws are others
    exact = registry.find("learners", "bptt").cls()
    other = repeated(ops, batch._replace(inputs=2.0 * batch.inputs), 3)  # measured is the segment, not these
    found = sample(ops, cell, exact, params, batch, 5, before=other)
    np.testing.assert_allclose(found, gradient[None], rtol=1e-12)


def test_an_estimate_of_zero_is_told_apart_from_weights_that_are_set(problem):
    ops, cell, params, batch, _ = problem

    def why(id, settle, **hyperparameters):
        rule = registry.find("learners", id).cls(**hyperparameters)
        return why_none(ops, cell, rule, params, batch, settle)

    assert "sets its weights itself" in why("readout_rls", 0)
    assert "give --settle" in why("oua", 0) and "sets" not in why("oua", 0)
    assert "zero after 7 segments too" in why("oua", 7)


def test_three_draws_have_intervals():
    found = statistics(*estimates(0.2, 1.0, N=3))
    assert np.isfinite([found[f"{name}_interval"] for name in ("cosine", "bias", "variance")]).all()


def test_a_segment_of_which_nothing_is_scored_is_refused():
    """The gradient of `add_stream` at its first step is zero, because its targets need earlier steps."""
    options = Options(
        tasks=("add_stream",), learners=("bptt",), backends=("torch",), hidden=4, preset="smoke"
    )
    run = make_grid(options).trials[0].model_dump(mode="json")
    with pytest.raises(UsageError, match=r"on add_stream at 0 is zero.*--steps"):
        list(measure(make_ops("torch"), trials=[run], run=run, steps=1, points=[0.0], draws=3))
