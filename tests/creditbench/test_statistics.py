"""Statistics, held to closed forms, to scipy, and to a worked example by the definitions of Agarwal et al. 2021."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats

from creditbench.leaderboard import statistics as st


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


# -- normalised score ----------------------------------------------------------------------------------------


def test_the_normalised_score_is_0_for_trivial_and_1_for_solved_in_both_directions():
    found = st.normalised([1.0, 0.2, 0.6, 9.0, 0.0, np.nan], 1.0, 0.2)
    np.testing.assert_allclose(found, [0.0, 1.0, 0.5, -1.0, 1.1, 0.0])
    np.testing.assert_allclose(st.normalised([0.1, 0.9, 0.5, -np.inf], 0.1, 0.9), [0, 1, 0.5, 0])
    with pytest.raises(ValueError, match="no normalised score"):
        st.normalised(0.5, 1.0, 1.0)


def test_it_is_what_tasks_give(rng):
    from creditbench import registry

    for plugin in registry.load("tasks").values():
        task = plugin.cls()
        for metric in rng.uniform(0, 2, 5):
            assert task.normalise(metric, task.trivial) == pytest.approx(
                float(st.normalised(metric, task.trivial, task.solved))
            )


# -- aggregates ----------------------------------------------------------------------------------------------


def test_a_worked_example_by_the_definitions():
    """Two tasks, four runs each. The runs in order are 0 .1 .2 .3 | .5 .6 1.1 1.1: the middle four are .2 .3 .5 .6."""
    strata = [[0.0, 0.1, 0.2, 0.3], [0.5, 0.6, 1.1, 1.1]]
    found = st.aggregates(strata, draws=100)
    assert found["iqm"].value == pytest.approx(0.4)
    assert found["mean"].value == pytest.approx((0.15 + 0.825) / 2)
    assert found["median"].value == pytest.approx((0.15 + 0.825) / 2)
    assert found["optimality_gap"].value == pytest.approx(1 - (0.15 + (0.5 + 0.6 + 1 + 1) / 4) / 2)
    three = st.aggregates([*strata, [0.9]], draws=10)
    assert three["median"].value == pytest.approx(0.825)  # of the tasks' means .15, .825, .9


@pytest.mark.parametrize("runs", [1, 2, 3, 5, 8, 9])
def test_the_interquartile_mean_is_scipys_trimmed_mean(rng, runs):
    strata = [rng.normal(size=runs) for _ in range(3)]
    expected = scipy.stats.trim_mean(np.concatenate(strata), 0.25)
    assert st.interquartile_mean(strata) == pytest.approx(expected)


def test_the_bootstrap_draws_within_tasks_alone(rng):
    drawn = st.resample([[1.0, 2.0], [10.0, 20.0, 30.0]], draws=500)
    assert [d.shape for d in drawn] == [(500, 2), (500, 3)]
    assert set(np.unique(drawn[0])) == {1, 2} and set(np.unique(drawn[1])) == {10, 20, 30}
    # Every one of the 4 and 27 samples has its share.
    assert np.mean((drawn[0] == 1).all(1)) == pytest.approx(1 / 4, abs=0.06)


def test_the_interval_of_the_mean_is_that_of_all_resamples():
    """All 3³ resamples of one task, counted out, against the drawn interval."""
    runs = np.array([0.0, 0.3, 0.9])
    every = np.array([np.mean(s) for s in itertools.product(runs, repeat=3)])
    found = st.aggregates([runs], confidence=0.8)["mean"]
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(every, [0.1, 0.9])))


def test_the_interval_of_the_mean_is_normal_for_many_runs(rng):
    tasks = [rng.normal(m, 1.0, 200) for m in range(4)]
    found = st.aggregates(tasks)["mean"]
    error = np.sqrt(sum(task.var() / len(task) for task in tasks)) / 4
    assert found.low == pytest.approx(found.value - 1.96 * error, abs=0.1 * error)
    assert found.high == pytest.approx(found.value + 1.96 * error, abs=0.1 * error)


@pytest.mark.statistical
def test_the_interval_of_the_interquartile_mean_covers_what_it_should(rng):
    """Of symmetric runs the interquartile mean is the centre."""
    hits = 0
    for trial in range(200):
        strata = [rng.normal(0.5, 0.1, 20) for _ in range(4)]
        found = st.aggregates(strata, draws=400, seed=trial)["iqm"]
        hits += found.low <= 0.5 <= found.high
    assert 178 <= hits <= 199


def test_no_runs_are_refused():
    for strata in ([], [[0.1], []], [[[0.1]]]):
        with pytest.raises(ValueError, match="one array"):
            st.aggregates(strata)


# -- comparisons ---------------------------------------------------------------------------------------------


def test_the_probability_of_improvement_is_the_mean_of_mann_whitneys_u(rng):
    x = [rng.integers(0, 6, m).astype(float) for m in (5, 7, 3)]
    y = [rng.integers(1, 7, n).astype(float) for n in (5, 4, 9)]
    expected = np.mean(
        [scipy.stats.mannwhitneyu(a, b).statistic / (len(a) * len(b)) for a, b in zip(x, y, strict=True)]
    )
    found = st.probability_of_improvement(x, y)
    assert found.value == pytest.approx(expected)
    assert found.low <= found.value <= found.high
    back = st.probability_of_improvement(y, x)
    assert back.value == pytest.approx(1 - found.value)
    assert st.probability_of_improvement(x, x).value == pytest.approx(0.5)
    assert st.probability_of_improvement([[2.0, 3.0]], [[0.0, 1.0]]) == (1.0, 1.0, 1.0)


def test_its_interval_is_that_of_explicit_resampling(rng):
    x, y = [rng.normal(0.4, 1, 6), rng.normal(0, 1, 4)], [rng.normal(0, 1, 5), rng.normal(0, 1, 4)]
    found = st.probability_of_improvement(x, y)
    xs, ys = st.resample(x, 10_000, seed=1), st.resample(y, 10_000, seed=2)
    drawn = np.mean(
        [
            ((a[:, :, None] > b[:, None]) + 0.5 * (a[:, :, None] == b[:, None])).mean((1, 2))
            for a, b in zip(xs, ys, strict=True)
        ],
        axis=0,
    )
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.03)


def test_the_permutation_test_is_mann_whitneys_exact_test_on_one_task(rng):
    x, y = rng.normal(0.8, 1, 5), rng.normal(0, 1, 6)
    expected = scipy.stats.mannwhitneyu(x, y, method="exact").pvalue
    assert st.permutation_test([x], [y], draws=40_000) == pytest.approx(expected, abs=0.01)
    assert st.permutation_test([x, y], [x, y]) == 1.0
    apart = st.permutation_test([[0, 1, 2]] * 4, [[3, 4, 5]] * 4)
    assert apart < 0.001


@pytest.mark.statistical
def test_the_permutation_test_finds_nothing_too_often_where_there_is_nothing(rng):
    p = [
        st.permutation_test(
            [rng.normal(m, 1, 5) for m in range(3)], [rng.normal(m, 1, 5) for m in range(3)], 500, seed
        )
        for seed in range(300)
    ]
    assert np.mean(np.array(p) <= 0.05) <= 0.09
    assert 0.4 < np.mean(p) < 0.6


def test_holms_correction():
    # By hand: 0.01·4, 0.02·3, 0.03·2 (raised to the one before), 0.5.
    np.testing.assert_allclose(st.holm([0.5, 0.01, 0.03, 0.02]), [0.5, 0.04, 0.06, 0.06])
    np.testing.assert_allclose(st.holm([0.9, 0.8]), [1.0, 1.0])
    assert st.holm([]).size == 0


def test_pooled_intervals_are_those_of_the_t_test(rng):
    group = rng.normal(0.2, 1, 12)
    (found,) = st.mean_interval([group])
    expected = scipy.stats.ttest_1samp(group, 0)
    assert found["p"] == pytest.approx(expected.pvalue)
    assert (found["low"], found["high"]) == pytest.approx(tuple(expected.confidence_interval(0.95)))
    # Two groups of the same spread: that of the two-sample t test.
    one, two = rng.normal(size=6), rng.normal(size=9)
    first, second = st.mean_interval([one, two])
    pooled = scipy.stats.ttest_ind(one, two)
    error = (first["high"] - first["value"]) * np.sqrt(6)
    assert (first["value"] - second["value"]) / (
        error / scipy.stats.t.ppf(0.975, 13) * np.sqrt(1 / 6 + 1 / 9)
    ) == pytest.approx(pooled.statistic)
    assert [row["p"] for row in st.mean_interval([[0.3], [0.1]])] == [1.0, 1.0]
    assert st.mean_interval([[0.0, 0.0]])[0]["p"] == 1.0


# -- ranks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ties", [False, True])
def test_friedmans_test_is_scipys(rng, ties):
    scores = rng.integers(0, 4, (8, 5)) if ties else rng.normal(size=(8, 5))
    found = st.friedman_nemenyi(scores)
    expected = scipy.stats.friedmanchisquare(*scores.T)
    assert (found.statistic, found.p) == pytest.approx((expected.statistic, expected.pvalue))
    np.testing.assert_allclose(
        found.mean_ranks, np.mean([scipy.stats.rankdata(-row) for row in scores], axis=0)
    )


@pytest.mark.parametrize(("k", "q"), [(2, 1.960), (4, 2.569), (10, 3.164)])
def test_the_critical_difference_has_the_constants_of_demsars_table(rng, k, q):
    found = st.friedman_nemenyi(rng.normal(size=(14, k)))
    assert found.critical_difference == pytest.approx(q * np.sqrt(k * (k + 1) / (6 * 14)), rel=5e-4)


def test_all_ties_differ_in_nothing():
    found = st.friedman_nemenyi(np.ones((5, 3)))
    assert (found.statistic, found.p) == (0.0, 1.0)
    with pytest.raises(ValueError, match="two rules or more"):
        st.friedman_nemenyi(np.ones((5, 1)))


# -- costs ---------------------------------------------------------------------------------------------------


def test_a_profile_by_hand():
    costs = [[1.0, 10.0, np.inf, np.inf], [2.0, 5.0, 7.0, np.inf]]
    found = st.performance_profile(costs, [1.0, 1.9, 2.0, 1e9])
    np.testing.assert_allclose(found, [[0.25, 0.25, 0.5, 0.5], [0.5, 0.5, 0.75, 0.75]])
    with pytest.raises(ValueError, match="0 or below"):
        st.performance_profile([[0.0]], [1.0])


def test_a_front_by_hand_and_by_brute_force(rng):
    points = [[1, 5], [2, 4], [2, 6], [1, 5], [3, 3], [np.nan, 0]]
    assert st.pareto_front(points).tolist() == [True, True, False, True, True, False]
    cloud = rng.integers(0, 6, (40, 3)).astype(float)
    brute = [
        not any((q <= p).all() and (q < p).any() for j, q in enumerate(cloud) if j != i)
        for i, p in enumerate(cloud)
    ]
    assert st.pareto_front(cloud).tolist() == brute
