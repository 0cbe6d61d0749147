"""Statistics against closed forms, scipy, and a worked example by the definitions of Agarwal et al. 2021."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats

from creditbench.leaderboard import statistics as st
from tests.conftest import thorough


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def single(strata) -> list:
    """Strata whose every run is a unit of its own."""
    return [[[run] for run in runs] for runs in strata]


# -- aggregates ----------------------------------------------------------------------------------------------


def test_a_worked_example_by_the_definitions():
    """Two tasks of four runs. In order the runs are 0 .1 .2 .3 | .5 .6 1.1 1.1: the middle is .2 .3 .5 .6."""
    strata = [[0.0, 0.1, 0.2, 0.3], [0.5, 0.6, 1.1, 1.1]]
    found = st.aggregates(single(strata), draws=100)
    assert found["iqm"].value == pytest.approx(0.4)
    assert found["mean"].value == pytest.approx((0.15 + 0.825) / 2)
    assert found["median"].value == pytest.approx((0.15 + 0.825) / 2)
    assert found["optimality_gap"].value == pytest.approx(1 - (0.15 + (0.5 + 0.6 + 1 + 1) / 4) / 2)
    three = st.aggregates(single([*strata, [0.9]]), draws=10)
    assert three["median"].value == pytest.approx(0.825)  # of the tasks' means .15, .825, .9


@pytest.mark.parametrize("runs", [1, 2, 3, 5, 8, 9])
def test_the_interquartile_mean_is_scipys_trimmed_mean(rng, runs):
    strata = [rng.normal(size=runs) for _ in range(3)]
    expected = scipy.stats.trim_mean(np.concatenate(strata), 0.25)
    assert st.interquartile_mean(strata) == pytest.approx(expected)


@pytest.mark.parametrize("sizes", [(3, 5), (4, 4, 4), (1, 9, 2)])
def test_weights_stand_for_runs_that_are_drawn_so_often(rng, sizes):
    """An aggregate with weights is that of the runs written out, each as often as its weight says."""
    strata = [rng.normal(size=n) for n in sizes]
    weights = [rng.integers(1, 4, (6, n)).astype(float) for n in sizes]
    for name in ("mean", "median", "optimality_gap"):
        f = st.AGGREGATES[name]
        for draw, value in enumerate(f(strata, weights)):
            written = [np.repeat(s, w[draw].astype(int)) for s, w in zip(strata, weights, strict=True)]
            assert value == pytest.approx(float(f(written)))
    even = st.interquartile_mean(strata, [np.full((1, n), 4.0) for n in sizes])
    assert even == pytest.approx([float(st.interquartile_mean(strata))])


def test_a_draw_takes_a_unit_less_than_there_are_each_with_all_its_runs(rng):
    weights = st.resample([[1.0, 2.0], [3.0], [4.0, 5.0, 6.0]], 500, rng)
    assert weights.shape == (500, 6)
    assert (weights[:, 0] == weights[:, 1]).all() and (weights[:, 3] == weights[:, 5]).all()
    units = weights[:, [0, 2, 3]] * 2 / 3
    assert (units.sum(1) == pytest.approx(np.full(500, 2.0))) and set(np.unique(units.round(9))) == {0, 1, 2}
    # Each of the 9 ordered samples has its share: a unit is drawn twice in one of nine.
    assert np.mean(units.round() == 2, axis=0) == pytest.approx(np.full(3, 1 / 9), abs=0.05)


def test_units_of_unequal_size_weigh_in_a_draw_as_in_the_value(rng):
    """A task that lost runs keeps its weight beside one that lost none."""
    strata = [[[0.0] * 5, [0.0] * 4, [0.0] * 3], [[1.0] * 5] * 3]
    weights = [st.resample(s, 4000, rng) for s in strata]
    assert weights[0].sum(1).mean() == pytest.approx(12, rel=0.02)
    assert weights[1].sum(1) == pytest.approx(np.full(4000, 15.0))


def test_one_unit_alone_says_nothing_of_its_spread():
    alone = st.aggregates([[[0.1, 0.2, 0.3]]], draws=50)
    beside = st.aggregates([[[0.1, 0.2, 0.3]], [[0.1], [0.2], [0.3]]], draws=50)
    for found in (*alone.values(), *beside.values()):
        assert (found.low, found.high) == (-np.inf, np.inf)
    found = st.probability_of_improvement([[[0.1, 0.2]]], [[[0.1], [0.3]]], draws=50)
    assert (found.low, found.high) == (-np.inf, np.inf)


def test_the_interval_of_the_mean_is_students(rng):
    """Of one task, ± t √(s² / U) over the means of its units; of many, with Welch's degrees of freedom."""
    units = [list(rng.normal(m, 0.05, 4)) for m in rng.normal(0, 1, 12)]
    found = st.aggregates([units], draws=40_000)["mean"]
    means = np.mean(units, axis=1)
    half = scipy.stats.t.ppf(0.975, 11) * means.std(ddof=1) / np.sqrt(12)
    assert found.high - found.low == pytest.approx(2 * half, rel=0.08)
    x, y = rng.normal(0, 1, 9), rng.normal(0, 3, 7)
    expected = scipy.stats.ttest_ind(x, y, equal_var=False).df
    assert st.degrees(single([x, y])) == pytest.approx(expected)
    assert st.degrees(single([[1.0, 1.0], [2.0, 2.0, 2.0]])) == 3


def board(rng, tasks, studies, seeds, tuned, noise) -> np.ndarray:
    """Scores of a rule [tasks, studies, seeds] whose interquartile mean, mean and median are 0.5."""
    levels = np.linspace(0.2, 0.8, tasks)[:, None, None]
    chance = tuned * rng.normal(size=(tasks, studies, 1))
    return levels + chance + noise * rng.normal(size=(tasks, studies, seeds))


#: Draws and boards of the simulations below.
FEW, BOARDS = 600, 1000


def covered(tasks, studies, seeds, tuned, noise, seed=0, boards=BOARDS) -> float:
    """Share of simulated boards whose interval of the interquartile mean holds 0.5."""
    rng = np.random.default_rng(seed)
    hits = 0
    for _ in range(boards):
        strata = [list(units) for units in board(rng, tasks, studies, seeds, tuned, noise)]
        found = interval(strata, rng)
        hits += found[0] <= 0.5 <= found[1]
    return hits / boards


def interval(strata, rng) -> tuple[float, float, float]:
    """Low, high and value of the interquartile mean: the part of `aggregates` that is needed here."""
    arrays = [st.pooled(s) for s in strata]
    low, high = np.quantile(np.concatenate(arrays), [0.25, 0.75])
    df = st.degrees([[np.clip(u, low, high) for u in s] for s in strata])
    df = min(df, sum(len(s) - 1 for s in strata) / 2)
    drawn = st.interquartile_mean(arrays, [st.resample(s, FEW, rng) for s in strata])
    return *st.percentiles(drawn, 0.95, df), float(st.interquartile_mean(arrays))


def test_the_simulated_interval_is_that_of_aggregates(rng):
    strata = [list(units) for units in board(rng, 4, 3, 5, 0.2, 0.1)]
    found = st.aggregates(strata, FEW, seed=5)["iqm"]
    assert interval(strata, np.random.default_rng(5)) == (found.low, found.high, found.value)


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("tasks", "studies", "seeds", "tuned", "noise"),
    thorough(
        [
            *((6, 3, 5, 0.2, 0.1), (6, 3, 5, 0.1, 0.2), (6, 5, 3, 0.1, 0.2)),
            *((4, 3, 5, 0.2, 0.1), (4, 3, 5, 0.0, 0.2)),
        ],
        but=[(6, 3, 5, 0.2, 0.1), (4, 3, 5, 0.2, 0.1)],
    ),
)
def test_intervals_cover_what_they_say_of_a_thousand_boards(tasks, studies, seeds, tuned, noise):
    """With four tasks of three studies alone it may be a point less."""
    least = 0.93 if tasks > 4 else 0.92
    assert least <= covered(tasks, studies, seeds, tuned, noise) <= 0.97


@pytest.mark.statistical
def test_seeds_of_one_study_do_not_show_what_chance_does_in_tuning():
    """Five seeds of one tuning, each taken for a unit of its own: half of such intervals miss."""
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(300):
        found = interval(single(board(rng, 6, 1, 5, 0.2, 0.1)[:, 0]), rng)
        hits += found[0] <= 0.5 <= found[1]
    assert hits / 300 < 0.6


@pytest.mark.statistical
def test_two_rules_of_one_gradient_share_ranks():
    """Of one distribution, tuned apart: their ranges of ranks overlap on 99 of 100 boards or more."""
    rng = np.random.default_rng(2)
    apart = 0
    for _ in range(500):
        pair = [interval(list(map(list, board(rng, 6, 3, 5, 0.2, 0.1))), rng) for _ in range(2)]
        (a, b), (c, d) = st.rank_ranges(*np.transpose(pair)[:2])
        apart += bool(b < c or d < a)
    assert apart <= 5


@pytest.mark.statistical
def test_an_order_that_ranges_settle_seldom_turns_in_another_draw():
    """Eight rules, 0.1 apart, drawn twice: of pairs with ranges apart in one, at most 5 % turn."""
    rng = np.random.default_rng(4)
    settled = turned = 0
    for _ in range(30):
        one, other = (
            np.array(
                [interval(list(map(list, 0.1 * k + board(rng, 6, 3, 5, 0.2, 0.1))), rng) for k in range(8)]
            )
            for _ in range(2)
        )
        ranges = st.rank_ranges(one[:, 0], one[:, 1])
        for i, j in itertools.permutations(range(8), 2):
            if ranges[i, 1] < ranges[j, 0]:
                settled += 1
                turned += other[i, 2] < other[j, 2]
    assert settled > 50 and turned <= 0.05 * settled


def test_ranges_of_ranks_by_hand():
    # 4 lies above all; 1 and 2 touch at a point, and tie; 0 lies below 2 alone.
    found = st.rank_ranges([0.0, 0.1, 0.4, 0.9], [0.3, 0.4, 0.6, 1.0])
    assert found.tolist() == [[3, 4], [2, 4], [2, 3], [1, 1]]
    assert st.rank_ranges([0.5, 0.5], [0.5, 0.5]).tolist() == [[1, 2], [1, 2]]
    assert st.rank_ranges([-np.inf, 0.0, 2.0], [np.inf, 1.0, 3.0]).tolist() == [[1, 3], [2, 3], [1, 2]]


def test_no_runs_are_refused():
    for strata in ([], [[[0.1]], []], [[[0.1], []]]):
        with pytest.raises(ValueError, match="one list of arrays"):
            st.aggregates(strata)


# -- comparisons ---------------------------------------------------------------------------------------------


def test_the_probability_of_improvement_is_the_mean_of_mann_whitneys_u(rng):
    x = [rng.integers(0, 6, m).astype(float) for m in (5, 7, 3)]
    y = [rng.integers(1, 7, n).astype(float) for n in (5, 4, 9)]
    expected = np.mean(
        [scipy.stats.mannwhitneyu(a, b).statistic / (len(a) * len(b)) for a, b in zip(x, y, strict=True)]
    )
    x, y = single(x), single(y)
    found = st.probability_of_improvement(x, y)
    assert found.value == pytest.approx(expected)
    assert found.low <= found.value <= found.high
    back = st.probability_of_improvement(y, x)
    assert back.value == pytest.approx(1 - found.value)
    assert st.probability_of_improvement(x, x).value == pytest.approx(0.5)
    assert st.probability_of_improvement([[[2.0], [3.0]]], [[[0.0], [-np.inf]]]) == (1.0, 1.0, 1.0)


def test_its_interval_is_that_of_the_variance_of_u(rng):
    """Of many runs: ± 1.96 √(var(P(x > Y)) / m + var(P(X > y)) / n), after Sen 1967."""
    x, y = rng.normal(0.4, 1, 80), rng.normal(0, 1, 60)
    found = st.probability_of_improvement(single([x]), single([y]))
    won = st.wins(x, y)
    error = np.sqrt(won.mean(1).var(ddof=1) / 80 + won.mean(0).var(ddof=1) / 60)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=0.06)


def exactly(x, y) -> tuple[float, list[float]]:
    """The difference of the means, and that of each relabelling of one stratum."""
    runs = np.concatenate([x, y])
    drawn = []
    for mine in itertools.combinations(range(len(runs)), len(x)):
        rest = np.setdiff1d(np.arange(len(runs)), mine)
        drawn.append(runs[rest].mean() - runs[list(mine)].mean())
    return float(np.mean(y) - np.mean(x)), drawn


def test_the_permutation_test_is_that_of_all_relabellings(rng):
    x, y = rng.normal(0.8, 1, 5), rng.normal(0, 1, 6)
    value, drawn = exactly(x, y)
    found = st.permutation_interval([x], [y], draws=40_000)
    assert found.value == pytest.approx(value)
    assert found.p == pytest.approx(np.mean(np.abs(drawn) >= abs(value) - 1e-12), abs=0.01)
    # The ends of the interval are the shifts at which the same test is at its level.
    for end in (found.low, found.high):
        value, drawn = exactly(x, y - end)
        assert np.mean(np.abs(drawn) >= abs(value) - 1e-12) == pytest.approx(0.05, abs=0.01)
    assert st.permutation_interval([x, y], [x, y]).p == 1.0
    assert st.permutation_interval([[0, 1, 2]] * 4, [[3, 4, 5]] * 4).p < 0.001
    few = st.permutation_interval([[0.0]], [[1.0]])
    assert (few.low, few.high, few.p) == (-np.inf, np.inf, 1.0)


@pytest.mark.statistical
def test_its_interval_leaves_0_out_exactly_where_the_corrected_p_is_below_alpha(rng):
    outside = 0
    for case in range(300):
        k, alpha = int(rng.integers(1, 12)), float(rng.choice([0.01, 0.05, 0.2]))
        sizes = rng.integers(1, 6, (int(rng.integers(1, 5)), 2))
        shift = rng.choice([0.0, 0.5, 2.0])
        draw = [
            lambda n: rng.normal(size=n),
            lambda n: rng.integers(0, 3, n),
            lambda n: rng.choice([-10, 0.5], n),
        ]
        of = draw[case % 3]
        x, y = [of(m) for m, _ in sizes], [of(n) + shift for _, n in sizes]
        found = st.permutation_interval(x, y, alpha / k, 400, seed=case)
        assert (not found.low <= 0 <= found.high) == (found.p < alpha / k) == (min(1, k * found.p) < alpha)
        assert found.low <= found.value <= found.high
        outside += not found.low <= 0 <= found.high
    assert 20 < outside < 280


@pytest.mark.statistical
def test_its_interval_covers_the_difference_and_no_more_often_than_it_says(rng):
    hits = 0
    for seed in range(400):
        x, y = ([rng.normal(m + shift, 1, 5) for m in range(3)] for shift in (0.0, 2.0))
        found = st.permutation_interval(x, y, 0.05, 500, seed)
        hits += found.low <= 2 <= found.high
    assert 0.92 <= hits / 400 <= 0.98


def test_holms_correction():
    # By hand: 0.01·4, 0.02·3, 0.03·2 (raised to the one before), 0.5.
    np.testing.assert_allclose(st.holm([0.5, 0.01, 0.03, 0.02]), [0.5, 0.04, 0.06, 0.06])
    np.testing.assert_allclose(st.holm([0.9, 0.8]), [1.0, 1.0])
    assert st.holm([]).size == 0


def test_a_group_alone_has_the_interval_of_the_t_test(rng):
    group = rng.normal(0.2, 0.1, 9)
    group = group[np.abs(group - np.median(group)) < 2 * 1.4826 * np.median(np.abs(group - np.median(group)))]
    (found,) = st.moderated_intervals([group])
    expected = scipy.stats.ttest_1samp(group, 0)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert st.moderated_intervals([[0.3], [0.1]]) == [
        (0.3, -np.inf, np.inf, 1.0),
        (0.1, -np.inf, np.inf, 1.0),
    ]
    assert st.moderated_intervals([[0.0, 0.0]])[0].p == 1.0


def test_a_group_beside_others_has_a_moderated_spread():
    """By hand: s_g² = 0.02 and 0.0002 twice, each over χ²'s median of 1; (2 · prior + own) / 3, or own."""
    groups = [[0.0, 0.2], [0.0, 0.02], [0.01, 0.03]]
    prior = 0.0002 / scipy.stats.chi2.ppf(0.5, 1)
    found = st.moderated_intervals(groups)
    for one, square in zip(found, (0.02, (2 * prior + 0.0002) / 3, (2 * prior + 0.0002) / 3), strict=True):
        half = scipy.stats.t.ppf(0.975, 3) * np.sqrt(square / 2)
        assert (one.high - one.low) / 2 == pytest.approx(half)
        assert one.p == pytest.approx(2 * scipy.stats.t.sf(abs(one.value) / np.sqrt(square / 2), 3))


def test_one_far_observation_moves_a_centre_by_little(rng):
    groups = list(rng.normal(0, 0.05, (6, 5)))
    plain = st.moderated_intervals(groups)[0]
    groups[0] = np.append(groups[0][:4], 9.0)
    assert abs(st.moderated_intervals(groups)[0].value - plain.value) < 0.15


@pytest.mark.statistical
@pytest.mark.parametrize("spread", ["one", "students", "some far", "of its own"])
def test_moderated_intervals_leave_0_out_no_more_often_than_they_say(rng, spread):
    """Eight groups of five that do not differ: false alarms in at most 5 % of 200 comparisons, plus 2 σ."""
    alarms = 0
    for _ in range(200):
        groups = 0.2 * rng.normal(size=(8, 5))
        if spread == "students":
            groups = 0.2 * rng.standard_t(2, (8, 5))
        elif spread == "some far":
            groups *= np.where(rng.random((8, 5)) < 0.1, 10, 1)
        elif spread == "of its own":
            groups *= np.exp(0.5 * rng.normal(size=(8, 1)))
        alarms += any(not f.low <= 0 <= f.high for f in st.moderated_intervals(list(groups), 0.05 / 8))
    assert alarms <= 16


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
