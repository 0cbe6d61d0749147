"""Quality of gradients: against estimates whose cosine, bias and variance are known."""

from __future__ import annotations

import numpy as np
import pytest

from creditbench import registry
from creditbench.cell import Cell
from creditbench.learner import Batch
from creditbench.measure.gradients import reference, sample, statistics
from creditbench.ops import make_ops

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


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_rules_against_reverse_mode(backend):
    ops = make_ops(backend, dtype="float64")
    cell = Cell(2, 6, 2)
    rng = np.random.default_rng(0)
    batch = Batch(
        *ops.from_numpy(
            (rng.standard_normal((9, 2, 2)), rng.standard_normal((9, 2, 2)), np.full((9, 2), 1 / 18))
        )
    )
    params = ops.from_numpy(cell.init(0))
    gradient = reference(ops, cell, params, batch)

    def figures(id, draws, **hyperparameters):
        rule = registry.find("learners", id).cls(**hyperparameters)
        return statistics(sample(ops, cell, rule, params, batch, draws), gradient)

    assert figures("bptt", 5)["bias"] < 1e-12
    truncated = figures("tbptt", 5, K=3)
    assert truncated["bias"] > 0.01 and truncated["variance"] == 0.0
    noisy = figures("wp", 1000 if backend == "jax" else 300, sigma=1e-4)
    assert noisy["bias_interval"][0] == 0.0
    assert noisy["draws_to_cosine"] > 10 and 0 < noisy["cosine"] < 0.5
