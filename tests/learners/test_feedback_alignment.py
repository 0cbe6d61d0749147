"""Feedback alignment through time: BPTT whose errors come back through other weights."""

import numpy as np
import pytest

from creditbench.ops import make_ops
from tests.conftest import B, estimate, learner, make_batch, make_cell, make_params, relative_error
from tests.learners.test_oracles import CELLS, LOSSES


def with_weights(ops, rule, cell, params, B_out, B_rec):
    """The state at the start, with those feedback weights."""
    state = ops.to_numpy(rule.init(ops, cell, ops.from_numpy(params), B))
    return state | {"B_out": B_out, "B_rec": B_rec}


def exact(cell, params):
    """Dᵀ W_outᵀ and Dᵀ W_recᵀ."""
    D = params.get("D", np.eye(cell.hidden))
    return (params["W_out"] @ D).T, (params["W_rec"] @ D).T


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("options", CELLS)
def test_with_the_forward_weights_it_is_bptt(ops, options, loss):
    cell, rule = make_cell(**options, loss=loss), learner("feedback_alignment")
    params, batch = make_params(cell), make_batch(loss=loss)
    state = with_weights(ops, rule, cell, params, *exact(cell, params))
    found_loss, found, *_ = estimate(ops, rule, cell, params, batch, state=state)
    expected_loss, expected, *_ = estimate(ops, learner("bptt"), cell, params, batch)
    assert found_loss == pytest.approx(expected_loss, rel=1e-12)
    assert relative_error(found, expected) < 1e-12
    # With weights of its own it is another estimate, but for the readout's.
    own = estimate(ops, rule, cell, params, batch)[1]
    assert relative_error(own, expected) > 1e-2
    np.testing.assert_allclose(own["W_out"], expected["W_out"], atol=1e-14)


def test_without_recurrent_feedback_it_is_rflo(ops):
    """B_rec = 0: errors come back by the leak alone, which is what the eligibility trace carries forward."""
    cell, rule = make_cell(alpha=0.3), learner("feedback_alignment")
    params, batch = make_params(cell), make_batch()
    B_out = np.random.default_rng(0).standard_normal((cell.hidden, cell.outputs))
    state = with_weights(ops, rule, cell, params, B_out, np.zeros((cell.hidden, cell.hidden)))
    found = estimate(ops, rule, cell, params, batch, state=state)[1]
    rflo = learner("rflo")
    state = ops.to_numpy(rflo.init(ops, cell, ops.from_numpy(params), B)) | {"feedback": B_out}
    assert relative_error(found, estimate(ops, rflo, cell, params, batch, state=state)[1]) < 1e-12


def test_the_feedback_is_drawn_once_and_outlives_a_sequence():
    ops, cell, rule = make_ops("torch", dtype="float64"), make_cell(), learner("feedback_alignment")
    params = ops.from_numpy(make_params(cell))
    state = rule.init(ops, cell, params, B)
    again, other = rule.init(ops, cell, params, B), learner("feedback_alignment", feedback_seed=1)
    new = rule.reset(ops, cell, params, state | {"B_rec": state["B_rec"] + 1.0}, B)
    for name in ("B_out", "B_rec"):
        np.testing.assert_array_equal(state[name], again[name])
        assert np.abs(ops.to_numpy(state[name] - other.init(ops, cell, params, B)[name])).max() > 0.1
    np.testing.assert_array_equal(new["B_rec"], state["B_rec"] + 1.0)
    assert float(new["cell"].s[0].abs().max()) == 0.0
