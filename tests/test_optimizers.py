"""The optimisers against optax and torch.optim over a run of steps."""

import numpy as np
import pytest

from creditbench.errors import UsageError
from creditbench.ops import Outer
from creditbench.optimizers import OPTIMIZERS, make_optimizer

LR, STEPS = 0.03, 25


def gradients():
    """Gradients of a matrix as one or two outer products, and of a vector, one pair a step."""
    rng = np.random.default_rng(0)
    return [
        (rng.standard_normal((1 + i % 2, 4)), rng.standard_normal((1 + i % 2, 3)), rng.standard_normal(4))
        for i in range(STEPS)
    ]


def start():
    rng = np.random.default_rng(1)
    return {"W": rng.standard_normal((4, 3)), "b": rng.standard_normal(4), "frozen": np.ones(2)}


def ours(ops, name):
    optimizer, params = make_optimizer(name, LR), ops.from_numpy(start())
    state = optimizer.init(ops, params)
    for post, pre, b in gradients():
        post, pre, b = ops.from_numpy((post, pre, b))
        params, state = optimizer.update(ops, params, state, {"W": Outer(post, pre), "b": b})
    return ops.to_numpy(params)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_equals_optax(ops, name):
    optax = pytest.importorskip("optax", reason="optax, which needs jax, is not installed")
    optimizer = {"sgd": optax.sgd(LR), "momentum": optax.sgd(LR, momentum=0.9), "adam": optax.adam(LR)}[name]
    params = {k: v for k, v in start().items() if k != "frozen"}
    state = optimizer.init(params)
    for post, pre, b in gradients():
        updates, state = optimizer.update({"W": post.T @ pre, "b": b}, state, params)
        params = optax.apply_updates(params, updates)
    found = ours(ops, name)
    for key in params:
        np.testing.assert_allclose(found[key], params[key], rtol=0, atol=1e-7 if name == "adam" else 1e-12)
    np.testing.assert_array_equal(found["frozen"], 1.0)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_equals_torch_optim(ops, name):
    import torch

    cls, given = {
        "sgd": (torch.optim.SGD, {}),
        "momentum": (torch.optim.SGD, {"momentum": 0.9}),
        "adam": (torch.optim.Adam, {}),
    }[name]
    params = {k: torch.tensor(v, requires_grad=True) for k, v in start().items() if k != "frozen"}
    optimizer = cls(list(params.values()), lr=LR, **given)
    for post, pre, b in gradients():
        params["W"].grad, params["b"].grad = torch.tensor(post.T @ pre), torch.tensor(b)
        optimizer.step()
    found = ours(ops, name)
    for key, value in params.items():
        np.testing.assert_allclose(found[key], value.detach().numpy(), rtol=0, atol=1e-12)


def test_bad_settings_are_refused():
    with pytest.raises(UsageError, match="did you mean 'adam'"):
        make_optimizer("adamm", 0.1)
    with pytest.raises(UsageError, match="lr is 0"):
        make_optimizer("sgd", 0)
