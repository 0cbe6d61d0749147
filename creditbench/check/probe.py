"""The small cells, batches and noise of the checks, in float64, and the difference of two results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from creditbench.cells import Cell, Decorrelate, Tanh
from creditbench.learner import Batch, Decorrelated, Learner
from creditbench.ops import COMPILED, DType, Ops, make_ops

N, T, B, INPUTS, OUTPUTS = 8, 12, 3, 2, 2
DECORRELATION_RATE = 1e-2

Loss = Literal["mse", "cross_entropy"]

# -- cells, parameters, batches --------------------------------------------------------------------------


def make_cell(
    alpha: float = 1.0,
    bias: bool = True,
    decorrelate: Decorrelate = "none",
    loss: Loss = "mse",
    hidden: int = N,
    kind: type[Cell] = Tanh,
) -> Cell:
    """A cell of `INPUTS` inputs and `OUTPUTS` outputs."""
    return kind(INPUTS, hidden, OUTPUTS, alpha=alpha, bias=bias, decorrelate=decorrelate, loss=loss)


def make_params(cell: Cell, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Parameters as NumPy arrays, all random so that no term vanishes."""
    rng = np.random.default_rng([seed, 1])
    return {
        name: value + 0.1 * rng.standard_normal(value.shape)
        if name.partition(".")[0] in ("b", "c", "D", "D_in")
        else value
        for name, value in cell.init(seed).items()
    }


def lively(cell: Cell, seed: int = 0) -> dict[str, NDArray[Any]]:
    """As `make_params`, of a spiking cell so large that its units spike."""
    params = make_params(cell, seed)
    return {k: 3.0 * v if cell.spikes and k in ("W_in", "b") else v for k, v in params.items()}


def make_batch(steps: int = T, rows: int = B, seed: int = 0, loss: Loss = "mse") -> Batch:
    """A batch as NumPy arrays; its weights differ, some are zero, and they sum to 1."""
    rng = np.random.default_rng([seed, 2])
    targets = rng.standard_normal((steps, rows, OUTPUTS))
    if loss == "cross_entropy":
        targets = np.eye(OUTPUTS)[rng.integers(OUTPUTS, size=(steps, rows))]
    weights = rng.random((steps, rows)) * (rng.random((steps, rows)) > 0.2)
    return Batch(rng.standard_normal((steps, rows, INPUTS)), targets, weights / weights.sum())


def late_batch(steps: int = T) -> Batch:
    """Loss at the last steps only, so that nearly all credit has to travel through time."""
    batch = make_batch(steps, seed=3)
    weights = np.zeros_like(batch.weights)
    weights[steps // 2 :: 2] = 1.0
    return batch._replace(weights=weights / weights.sum())


# -- backends --------------------------------------------------------------------------------------------


def quick_ops(backend: str, dtype: DType = "float64") -> Ops:
    """A backend that compiles quickly, since each of many tiny programs runs only a few times."""
    ops = make_ops(backend, dtype=dtype)
    return _hurried(type(ops))(dtype=dtype) if backend in COMPILED else ops


def _hurried(base: Any) -> Any:
    class Hurried(base):
        def compile(self, f, *args, donate=()):
            # This module serves both frameworks.
            import jax

            options = {
                "xla_backend_optimization_level": 0,
                "xla_llvm_disable_expensive_passes": True,
                # splitting a small program takes longer than it saves
                "xla_cpu_parallel_codegen_split_count": 1,
            }
            return jax.jit(f, donate_argnums=donate).lower(*args).compile(compiler_options=options)

    return Hurried


#: Draws of injected noise come from a table of this length; it and the number of keys are primes.
_TABLE, _KEYS = 65_537, 997


def injected(backend: str, repeated: bool = False, level: bool = False) -> Any:
    """A backend in float64 that takes normals and signs from one NumPy table; a key is an index into it.

    So both backends draw the same numbers. `repeated`: every key draws the same numbers too. `level`: all
    numbers of a draw are equal, so that the noise of a sequence does not depend on the others beside it, in
    any layout. Its `drawn` counts the draws of each shape; under JAX a step that is traced once counts once.
    """
    ops = quick_ops(backend)
    base: Any = type(ops)
    stride, apart = 0 if repeated else 1009, 0 if level else 1

    class Traced(base):
        def key(self, seed):
            return self.xp.asarray(seed)

        def split(self, key, num=2):
            return self.xp.stack([(key * 31 + i) % _KEYS for i in range(1, num + 1)])

        def normal(self, key, shape, scale=1.0):
            self.drawn[tuple(shape)] += key.size
            first = key[..., None] * stride
            at = (first + apart * np.arange(int(np.prod(shape)))) % _TABLE
            return scale * self.table[at].reshape((*key.shape, *shape))

        def rademacher(self, key, shape):
            return self.xp.sign(self.normal(key, shape))

    class Run(base):
        def key(self, seed):
            return seed

        def child(self, key, i):
            return (key * 31 + i + 1) % _KEYS

        def fill_normal(self, out, key, scale):
            self.drawn[tuple(out.shape)] += 1
            at = (key * stride + apart * np.arange(out.numel())) % _TABLE
            out.copy_(scale * self.table[at].reshape(out.shape))

        def fill_signs(self, out, key):
            self.fill_normal(out, key, 1.0)
            out.sign_()

    kind = Traced if ops.host.traces else Run
    kind.__name__ += f"_{stride}_{apart}"  # compiled programs are kept by this name
    found = kind(dtype="float64")
    found.table = found.from_numpy(np.random.default_rng(99).standard_normal(_TABLE))
    found.drawn = Counter()
    return found


# -- estimates -------------------------------------------------------------------------------------------


def wrapped(rule: Learner, cell: Cell) -> Any:
    """The rule, decorrelated if the cell is."""
    return rule if cell.decorrelate == "none" else Decorrelated(learner=rule, rate=DECORRELATION_RATE)


def segment_of(ops: Ops, rule: Any, cell: Cell) -> Callable[..., Any]:
    """(params, state, batch, key) -> (loss, dense gradients, state, assigned)."""

    def segment(params, state, batch, key):
        found = rule.segment(ops, cell, params, state, Batch(*batch), key)
        grads = {name: ops.dense(grad) for name, grad in found.grads.items()}
        return found.loss, grads, found.state, found.assigned

    return segment


def arguments(
    ops: Ops, rule: Any, cell: Cell, params: Any, batch: Batch, key: int = 1, state: Any = None
) -> tuple[Any, ...]:
    """The arguments of a segment, from NumPy arrays: (params, state, batch, key)."""
    params, batch = ops.from_numpy(params), Batch(*ops.from_numpy(tuple(batch)))
    rows = batch.weights.shape[1]
    state = rule.init(ops, cell, params, rows) if state is None else ops.from_numpy(state)
    return params, state, batch, ops.key(key)


def autodiff(ops: Ops, cell: Cell, params: Any, batch: Batch) -> tuple[Any, dict[str, NDArray[Any]]]:
    """Loss and gradient by the framework's own reverse mode through the harness's forward pass."""
    params, batch = ops.from_numpy(params), Batch(*ops.from_numpy(tuple(batch)))

    def loss(trainable, params, batch):
        y = cell.run(ops, params | trainable, batch.inputs)
        return ops.xp.sum(batch.weights * cell.losses(ops, y, batch.targets))

    args = (cell.trainable(params), params, batch)
    what = (type(ops).__name__, ops.name, cell, tuple(batch.weights.shape))
    if what not in _reverse_mode:
        _reverse_mode[what] = ops.compile(ops.value_and_grad(loss), *args)
    return ops.to_numpy(_reverse_mode[what](*args))


_reverse_mode: dict[Any, Any] = {}


def relative_error(found: Mapping[str, Any], expected: Mapping[str, Any]) -> float:
    """Largest difference over all parameters, relative to the largest entry of the expected one."""
    assert set(found) == set(expected), f"{sorted(found)} are not {sorted(expected)}"
    scale = max(np.abs(value).max() for value in expected.values())
    return float(max(np.abs(found[k] - expected[k]).max() for k in expected) / scale)


def leaves(tree: Any, path: str = "") -> dict[str, Any]:
    """Every array of a tree by its path, as `state.cell.h`."""
    if tree is None:
        return {}
    if isinstance(tree, dict):
        parts = tree.items()
    elif isinstance(tree, tuple):
        parts = zip(getattr(tree, "_fields", map(str, range(len(tree)))), tree, strict=True)  # type: ignore[assignment]
    else:
        return {path: tree}
    return {k: v for name, part in parts for k, v in leaves(part, f"{path}.{name}" if path else name).items()}


#: Results of a segment, in the order of `estimate`, and its arguments, in that of `arguments`.
GIVEN, TAKEN = ("loss", "grads", "state", "assigned"), ("params", "state", "batch", "key")


def named(where: str, parts: Sequence[str] = GIVEN) -> str:
    """A place in a tuple of those parts in words: `1.W_in` is `grads W_in`."""
    part, _, rest = where.partition(".")
    return f"{parts[int(part)]} {rest}".strip() if part.isdigit() else where


def difference(one: Any, other: Any) -> tuple[float, str]:
    """The largest difference of two trees of arrays, relative to the array's largest entry, and its place."""
    first, second = leaves(one), leaves(other)
    if set(first) != set(second):
        return float("inf"), ", ".join(sorted(set(first) ^ set(second)))
    worst, where = 0.0, ""
    for name, value in first.items():
        a, b = np.asarray(value), np.asarray(second[name])
        if a.shape != b.shape:
            return float("inf"), name
        if a.size and not np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
            scale = max(float(np.abs(a).max()), 1e-300)
            gap = float(np.abs(a - b).max()) / scale
            gap = gap if np.isfinite(gap) else float("inf")
            if gap > worst:
                worst, where = gap, name
    return worst, where
