"""Fixtures: both backends in float64, a small cell and a small batch, noise that is the same in both."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# The tests run on several processes: threads beside them would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Hundreds of tiny programs run once each: compiling them is what takes the time.
os.environ.setdefault(
    "XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)

import numpy as np
import pytest

from creditbench import registry
from creditbench.cell import Cell
from creditbench.learner import Batch, Decorrelated
from creditbench.ops import make_ops

N, T, B, INPUTS, OUTPUTS = 8, 12, 3, 2, 2


@pytest.fixture(params=["jax", "torch"])
def ops(request):
    """Each backend in turn, in float64."""
    return make_ops(request.param, dtype="float64")


@pytest.fixture
def both():
    """Both backends, in float64, whose random draws are the same."""
    return injected("jax"), injected("torch")


def injected(backend):
    """A backend that takes its normals, and their signs, from one NumPy table, by a key that is an index."""
    ops = make_ops(backend, dtype="float64")
    table = np.random.default_rng(99).standard_normal((997, 256))

    class InjectedJax(type(ops)):
        def key(self, seed):
            return self.xp.asarray(seed)

        def split(self, key, num=2):
            return self.xp.stack([(key * 31 + i) % 997 for i in range(1, num + 1)])

        def normal(self, key, shape, scale=1.0):
            return scale * self.table[key, : int(np.prod(shape))].reshape((-1, *shape) if key.ndim else shape)

        def rademacher(self, key, shape):
            return self.xp.sign(self.normal(key, shape))

    class InjectedTorch(type(ops)):
        def key(self, seed):
            return seed

        def child(self, key, i):
            return (key * 31 + i + 1) % 997

        def fill_normal(self, out, key, scale):
            out.copy_(scale * self.table[key, : out.numel()].reshape(out.shape))

        def fill_signs(self, out, key):
            self.fill_normal(out, key, 1.0)
            out.sign_()

    found = (InjectedJax if backend == "jax" else InjectedTorch)(dtype="float64")
    found.table = found.from_numpy(table)
    return found


def make_cell(alpha=1.0, bias=True, decorrelate="none", loss="mse", hidden=N):
    return Cell(INPUTS, hidden, OUTPUTS, alpha=alpha, bias=bias, decorrelate=decorrelate, loss=loss)


def make_params(cell, seed=0):
    """Parameters as NumPy arrays, every one of them random so that no term vanishes."""
    rng = np.random.default_rng([seed, 1])
    return {
        name: value + 0.1 * rng.standard_normal(value.shape) if name in ("b", "c", "D", "D_in") else value
        for name, value in cell.init(seed).items()
    }


def make_batch(steps=T, rows=B, seed=0, loss="mse"):
    """A batch as NumPy arrays; weights differ, some are zero, and sum to 1."""
    rng = np.random.default_rng([seed, 2])
    targets = rng.standard_normal((steps, rows, OUTPUTS))
    if loss == "cross_entropy":
        targets = np.eye(OUTPUTS)[rng.integers(OUTPUTS, size=(steps, rows))]
    weights = rng.random((steps, rows)) * (rng.random((steps, rows)) > 0.2)
    return Batch(rng.standard_normal((steps, rows, INPUTS)), targets, weights / weights.sum())


def learner(id, **hyperparameters):
    return registry.find("learners", id).cls(**hyperparameters)


def estimate(ops, rule, cell, params, batch, key=1, state=None):
    """One segment of a rule on NumPy parameters and batch: (loss, gradients, state, assigned), NumPy."""
    params, batch = ops.from_numpy(params), Batch(*ops.from_numpy(tuple(batch)))
    rule = Decorrelated(learner=rule, rate=1e-2) if cell.decorrelate != "none" else rule
    rows = batch.weights.shape[1]
    state = rule.init(ops, cell, params, rows) if state is None else ops.from_numpy(state)

    def segment(params, batch, key, state):
        result = rule.segment(ops, cell, params, state, batch, key)
        return result.loss, {k: ops.dense(g) for k, g in result.grads.items()}, result.state, result.assigned

    args = (params, batch, ops.key(key), state)
    what = (type(ops).__name__, ops.name, rule, cell, tuple(batch.weights.shape))
    if what not in _compiled:
        _compiled[what] = ops.compile(segment, *args)
    return ops.to_numpy(_compiled[what](*args))


_compiled = {}


def autodiff(ops, cell, params, batch):
    """Loss and gradient by the framework's own reverse mode through the harness's forward pass."""
    params, batch = ops.from_numpy(params), Batch(*ops.from_numpy(tuple(batch)))

    def loss(trainable, params, batch):
        y = cell.run(ops, params | trainable, batch.inputs)
        return ops.xp.sum(batch.weights * cell.losses(ops, y, batch.targets))

    args = (cell.trainable(params), params, batch)
    what = ("autodiff", type(ops).__name__, ops.name, cell, tuple(batch.weights.shape))
    if what not in _compiled:
        _compiled[what] = ops.compile(ops.value_and_grad(loss), *args)
    return ops.to_numpy(_compiled[what](*args))


def relative_error(found, expected):
    """Largest difference over all parameters, relative to the largest entry of what is expected."""
    assert set(found) == set(expected)
    scale = max(np.abs(value).max() for value in expected.values())
    return max(np.abs(found[k] - expected[k]).max() for k in expected) / scale
