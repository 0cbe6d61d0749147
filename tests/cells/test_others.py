"""Cells against other people's: PyTorch's own layers, and a complex scan in NumPy."""

import numpy as np
import pytest
import torch

from creditbench.learner import backpropagate
from creditbench.learner.contract import Batch
from creditbench.ops import make_ops
from tests.cells.test_cells import small
from tests.conftest import INPUTS, B, N, T, make_batch, make_params

#: Our gates in PyTorch's order, as rows of weight_ih and of weight_hh.
GATES = {"tanh": ((0,), (0,)), "gru": ((1, 2, 0), (0, 1, 2)), "lstm": ((0, 1, 2, 3), (0, 1, 2, 3))}
LAYERS = {"tanh": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}


def reorder(rows, gates):
    """Rows of N units a gate, gate by gate in another order."""
    return np.concatenate([rows[k * N : (k + 1) * N] for k in gates])


def layer_of(id, params, dtype):
    """PyTorch's layer with the weights of `params`."""
    layer = LAYERS[id](INPUTS, N).to(dtype)
    of_input, of_recurrence = GATES[id]
    b = params["b"]
    if id == "gru":  # ours has one bias for r and for z; the candidate's two are those of x and h
        of_x, of_h = b[[*range(N, 3 * N), *range(N)]], np.concatenate([np.zeros(2 * N), b[3 * N :]])
    else:
        of_x, of_h = b, np.zeros_like(b)
    values = {
        "weight_ih_l0": reorder(params["W_in"], of_input),
        "weight_hh_l0": reorder(params["W_rec"], of_recurrence),
        "bias_ih_l0": of_x,
        "bias_hh_l0": of_h,
    }
    with torch.no_grad():
        for name, value in values.items():
            getattr(layer, name).copy_(torch.tensor(value))
    return layer


@pytest.mark.parametrize(("dtype", "most"), [("float32", 1e-6), ("float64", 1e-12)])
@pytest.mark.parametrize("backend", ["jax", "torch"])
@pytest.mark.parametrize("id", GATES)
def test_outputs_and_gradients_are_those_of_pytorchs_layer(id, backend, dtype, most):
    ops = make_ops(backend, dtype=dtype)
    cell = small(id) if id != "tanh" else small(id).__class__(INPUTS, N, 2, bias=True)
    params, batch = make_params(cell), make_batch()
    layer, kind = layer_of(id, params, getattr(torch, dtype)), getattr(torch, dtype)
    W_out, c = (torch.tensor(params[k], dtype=kind, requires_grad=True) for k in ("W_out", "c"))
    y = layer(torch.tensor(batch.inputs, dtype=kind))[0] @ W_out.T + c
    weights, targets = (torch.tensor(x, dtype=kind) for x in (batch.weights, batch.targets))
    (weights * ((y - targets) ** 2).mean(-1)).sum().backward()

    arrays = ops.from_numpy(params)
    found = ops.to_numpy(cell.run(ops, arrays, ops.from_numpy(batch.inputs)))
    np.testing.assert_allclose(found, y.detach().numpy(), atol=most, rtol=0)
    with torch.no_grad():
        estimate = backpropagate(ops, cell, arrays, cell.start(ops, B), Batch(*ops.from_numpy(tuple(batch))))
    grads = {k: ops.to_numpy(ops.dense(g)) for k, g in estimate.grads.items()}
    of_input, of_recurrence = GATES[id]
    expected = {
        "W_in": (reorder(grads["W_in"], of_input), layer.weight_ih_l0),
        "W_rec": (reorder(grads["W_rec"], of_recurrence), layer.weight_hh_l0),
        "W_out": (grads["W_out"], W_out),
        "c": (grads["c"], c),
    }
    if id == "gru":
        expected["b of x, r, z"] = (grads["b"][[*range(N, 3 * N), *range(N)]], layer.bias_ih_l0)
        expected["b of h"] = (grads["b"][3 * N :], layer.bias_hh_l0.grad[2 * N :])
    else:
        expected["b"] = (grads["b"], layer.bias_ih_l0)
    for name, (ours, theirs) in expected.items():
        theirs = theirs if theirs.grad is None else theirs.grad
        np.testing.assert_allclose(ours, theirs.numpy(), atol=most, rtol=0, err_msg=name)


def test_lru_is_a_complex_scan(ops):
    cell = small("lru")
    params, x = make_params(cell), make_batch().inputs
    eigenvalues = np.exp(-np.exp(params["nu"]) + 1j * np.exp(params["theta"]))
    gamma = np.sqrt(1 - np.abs(eigenvalues) ** 2)
    B_ = params["W_in"][:N] + 1j * params["W_in"][N:]
    b = params["b"][:N] + 1j * params["b"][N:]
    C = params["W_out"][:, :N] - 1j * params["W_out"][:, N : 2 * N]
    D = params["W_out"][:, 2 * N :]
    s, expected = np.zeros((B, N), complex), np.zeros((T, B, 2))
    for t in range(T):
        s = eigenvalues * s + gamma * (x[t] @ B_.T + b)
        expected[t] = (s @ C.T).real + x[t] @ D.T + params["c"]
    found = ops.to_numpy(cell.run(ops, ops.from_numpy(params), ops.from_numpy(x)))
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_lru_starts_in_its_ring():
    cell = small("lru").__class__(1, 4000, 1, r_min=0.3, r_max=0.8, max_phase=1.0)
    params = cell.init(0)
    size, phase = np.exp(-np.exp(params["nu"])), np.exp(params["theta"])
    assert size.min() > 0.3 and size.max() < 0.8 and phase.max() <= 1.0
    # uniform in area: |λ|² is uniform between the squares
    uniform = (size**2 - 0.09) / (0.64 - 0.09)
    assert uniform.mean() == pytest.approx(0.5, abs=0.02) and uniform.var() == pytest.approx(
        1 / 12, abs=0.005
    )
    assert params["W_in"].var() == pytest.approx(0.5, rel=0.1)


def test_the_forget_gate_starts_open():
    cell = small("lstm")
    assert cell.init(0)["b"].reshape(4, N).tolist() == [[0.0] * N, [1.0] * N, [0.0] * N, [0.0] * N]
