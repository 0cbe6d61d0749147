"""Cells: the derivatives that rules use, against the frameworks' own and against other people's networks."""

import numpy as np
import pytest

from creditbench.cells import CELLS, Cell, Stack, back, cell_class, through
from tests.conftest import (
    INPUTS,
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
)

KINDS = {id: cell_class(id) for id in CELLS}
LEAKY = [id for id, kind in KINDS.items() if kind.leaky]
#: Each loss, each decorrelation, with and without biases, one layer and two, one row and several.
OPTIONS = [
    ({"bias": True, "loss": "mse"}, 1, B),
    ({"bias": False, "decorrelate": "hidden", "loss": "cross_entropy"}, 1, 1),
    ({"bias": True, "decorrelate": "both", "loss": "cross_entropy"}, 2, B),
    ({"bias": False, "decorrelate": "hidden", "loss": "mse"}, 2, B),
]


def small(id, layers=1, **options):
    """A cell of that kind, or a stack of them; a leaky one has a leak."""
    cell = make_cell(kind=KINDS[id], alpha=0.4 if id in LEAKY else 1.0, **options)
    return cell if layers == 1 else Stack(cell, layers)


def params_of(cell):
    """Random weights; the voltages of spiking units lie about their threshold."""
    params = make_params(cell)
    if not cell.spikes:
        return params
    return {k: v + 0.3 if k.partition(".")[0] == "b" else v for k, v in params.items()}


@pytest.mark.parametrize(("options", "layers", "rows"), OPTIONS)
@pytest.mark.parametrize("id", CELLS)
def test_bptt_and_rtrl_equal_the_frameworks_own_reverse_mode(ops, id, options, layers, rows):
    """For spiking cells: with the surrogate as the derivative of a spike."""
    if ops.name == "jax" and options is not OPTIONS[2][0]:
        pytest.skip("one network of each cell is enough, since both backends agree on each rule and cell")
    cell = small(id, layers, **options)
    params, batch = params_of(cell), make_batch(rows=rows, loss=cell.loss)
    loss, expected = autodiff(ops, cell, params, batch)
    assert all(np.abs(value).max() > 0 for value in expected.values())
    for rule, most in (("bptt", 1e-12), ("rtrl", 1e-10)):
        found = estimate(ops, learner(rule), cell, params, batch)
        assert found[0] == pytest.approx(loss, rel=1e-12), rule
        assert relative_error(found[1], expected) < most, rule


@pytest.mark.parametrize("id", [id for id in CELLS if not KINDS[id].spikes])
def test_bptt_equals_finite_differences(ops, id):
    cell = small(id, decorrelate="both")
    params, batch = make_params(cell), make_batch()
    found = estimate(ops, learner("bptt"), cell, params, batch)[1]
    rng, epsilon = np.random.default_rng(0), 1e-6
    for name, gradient in found.items():
        direction = rng.standard_normal(gradient.shape)
        ends = [
            estimate(ops, learner("bptt"), cell, params | {name: params[name] + s * direction}, batch)[0]
            for s in (epsilon, -epsilon)
        ]
        slope = (ends[0] - ends[1]) / (2 * epsilon)
        assert slope == pytest.approx(np.sum(gradient * direction), rel=1e-6, abs=1e-9), name


@pytest.mark.parametrize("id", CELLS)
def test_derivatives_are_those_of_the_unit(ops, id):
    """What a cell writes by hand equals the forward mode of its f and o."""
    cell = small(id)
    params = ops.from_numpy(params_of(cell))
    x = ops.from_numpy(np.random.default_rng(1).standard_normal((T * B, INPUTS)))
    _, unrolled = cell.unroll(ops, params, cell.start(ops, B), x, T)
    found = cell.derivatives(ops, params, unrolled)
    phi = {name: params[name] for name in cell.phi}
    if unrolled.s is None:  # of a leaky unit no derivative needs s
        before = after = (ops.zeros((T * B, N)),)
    else:
        before, after = tuple(s[: T * B] for s in unrolled.s), tuple(s[B:] for s in unrolled.s)
    a = tuple(unrolled.a[:, k * N : (k + 1) * N] for k in range(cell.G))
    carry, slope, own = Cell.slopes(cell, ops, before, a, phi, after)

    def matrix(rows):
        return np.stack([[ops.to_numpy(x) for x in row] for row in rows]).transpose(2, 0, 1, 3)

    def full(M):
        return with_axes(ops.to_numpy(M))

    np.testing.assert_allclose(full(found.slope), matrix(slope), atol=1e-14)
    if found.carry is None:
        np.testing.assert_allclose(matrix(carry), 1.0 - cell.alpha, atol=1e-14)
    else:
        np.testing.assert_allclose(full(found.carry), matrix(carry), atol=1e-14)
    if cell.phi:
        np.testing.assert_allclose(full(found.own), matrix(own), atol=1e-13)
    if found.out is not None:
        out = matrix(Cell.out_slopes(cell, ops, after))
        np.testing.assert_allclose(full(found.out), out, atol=1e-14)


def with_axes(M):
    """[R, n] as [R, 1, 1, n]."""
    return M[:, None, None] if M.ndim == 2 else M


@pytest.mark.parametrize("id", CELLS)
def test_push_and_pull_are_the_transition(ops, id):
    """H v and Hᵀ g, as rules take them step by step, equal the products with the matrix H itself."""
    cell = small(id, decorrelate="hidden")
    params = ops.from_numpy(params_of(cell))
    rng = np.random.default_rng(2)
    x = ops.from_numpy(rng.standard_normal((T * B, INPUTS)))
    _, unrolled = cell.unroll(ops, params, cell.start(ops, B), x, T)
    now = cell.derivatives(ops, params, unrolled)
    v, g = (ops.from_numpy(rng.standard_normal((T * B, cell.state_size))) for _ in range(2))
    stacked = ops.from_numpy(rng.standard_normal((T * B, 3, cell.state_size)))
    if cell.recurrent:
        H = cell.transition(ops, cell.recurrence_matrix(ops, params), now)
    else:
        n = cell.hidden
        H = np.zeros((T * B, cell.S, n, cell.S, n))
        H[:, :, range(n), :, range(n)] = with_axes(ops.to_numpy(now.carry)).transpose(3, 0, 1, 2)
        H = ops.from_numpy(H.reshape((T * B, cell.state_size, cell.state_size)))
    H = ops.to_numpy(H)
    pushed = cell.push(ops, params, now, v)
    np.testing.assert_allclose(ops.to_numpy(pushed), np.einsum("rij,rj->ri", H, ops.to_numpy(v)), atol=1e-12)
    by_row = ops.to_numpy(cell.push(ops, params, now, stacked))
    np.testing.assert_allclose(by_row, np.einsum("rij,rej->rei", H, ops.to_numpy(stacked)), atol=1e-12)
    pulled = ops.to_numpy(cell.pull(params, now, g, back(now.slope, g)))
    np.testing.assert_allclose(pulled, np.einsum("rij,ri->rj", H, ops.to_numpy(g)), atol=1e-12)


def test_matrices_of_units_multiply_as_matrices(ops):
    rng = np.random.default_rng(3)
    M, v, u = rng.standard_normal((4, 2, 3, 5)), rng.standard_normal((4, 15)), rng.standard_normal((4, 10))
    found = through(*ops.from_numpy((M, v)))
    np.testing.assert_allclose(found, np.einsum("bxyn,byn->bxn", M, v.reshape(4, 3, 5)).reshape(4, 10))
    found = back(*ops.from_numpy((M, u)))
    np.testing.assert_allclose(found, np.einsum("bxyn,bxn->byn", M, u.reshape(4, 2, 5)).reshape(4, 15))


@pytest.mark.parametrize("id", CELLS)
def test_nothing_is_seen_of_a_state_of_zero(ops, id):
    cell = small(id)
    h = cell.o(ops, cell.start(ops, B).s)
    assert len(h) == cell.Q and all(np.abs(ops.to_numpy(x)).max() == 0 for x in h)


@pytest.mark.parametrize("id", [id for id in CELLS if KINDS[id].spikes])
def test_spiking_units_spike_and_are_silent(ops, id):
    cell = small(id)
    params = ops.from_numpy(params_of(cell))
    x = ops.from_numpy(np.random.default_rng(1).standard_normal((T * B, INPUTS)))
    out = ops.to_numpy(cell.unroll(ops, params, cell.start(ops, B), x, T)[1].out)
    assert set(np.unique(out)) == {0.0, 1.0} and 0.01 < out.mean() < 0.6
    quiet = params | {"b": 0.0 * params["b"]}
    silent = ops.to_numpy(cell.unroll(ops, quiet, cell.start(ops, B), 0.0 * x, T)[1].out)
    assert np.abs(silent).max() == 0.0
