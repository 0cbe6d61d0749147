"""`Ops` over PyTorch.

A step is a handful of kernels of a few microseconds each, so its time depends on their number. Products are
fused with their additions. Weights are updated in place from the factors of their gradient. A compiled
function is its kernels alone, recorded once and replayed (`creditbench.ops.replay`).
"""

from __future__ import annotations

import warnings

import array_api_compat.torch as xp
import numpy as np
import torch

from creditbench.errors import UsageError, tells_of_no_memory
from creditbench.ops.base import DType, Ops, Outer
from creditbench.ops.recording import Key, Recorder, TapeError, ValueReadError
from creditbench.ops.replay import Program


class TorchOps(Ops):
    name = "torch"
    xp = xp

    def __init__(self, device: str = "cpu", dtype: DType = "float32") -> None:
        super().__init__(device, dtype)
        self._device = _find_device(device)
        self._float = getattr(torch, dtype)
        self._generator = torch.Generator(self._device)
        self._recorder: Recorder | None = None
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False

    def scan(self, f, carry, xs, *, reverse=False):
        recorder, length = self._recorder, _length(xs)
        if recorder is not None and recorder.loops_here and length > 1 and not reverse:
            return recorder.scan(f, carry, xs, length, _map)
        steps = _unstack(xs)
        if reverse:
            steps.reverse()
        ys = []
        for x in steps:
            carry, y = f(carry, x)
            ys.append(y)
        if reverse:
            ys.reverse()
        return carry, _stack(ys)

    def scan_chunks(self, f, carry, xs, size):
        parts = []
        for start in range(0, _length(xs), size):
            carry, ys = f(carry, _map(lambda x: x[start : start + size], xs))  # noqa: B023
            parts.append(ys)
        return carry, _map(lambda *ys: torch.cat(ys), *parts)

    def compile(self, f, *args, donate=()):
        # `torch.func` takes derivatives inside `no_grad`; the tape stays off elsewhere.
        plain = torch.no_grad()(f)
        recorder = Recorder(self.child, self._device)
        tensors: list[torch.Tensor] = []
        roots: list[list[int]] = []

        def fixed(leaf):
            if isinstance(leaf, torch.Tensor):
                tensors.append(recorder.fixed(leaf.clone()))
                return tensors[-1]
            keys = [Key([key]) for key in _keys(leaf)]
            roots.extend(key.root for key in keys)
            return keys if isinstance(leaf, list) else keys[0]

        inputs = _ordered(_map(fixed, _sorted(args)), args)
        self._recorder = recorder
        try:
            with recorder:
                outputs = plain(*inputs)
        except (ValueReadError, TapeError) as error:
            warnings.warn(f"{error}; it runs unrecorded, and slower", stacklevel=2)
            return plain
        finally:
            self._recorder = None
        program = Program(recorder, outputs, _map)

        @torch.no_grad()
        def replay(*args):
            leaves = _leaves(_sorted(args))
            keys = [key for leaf in leaves if not isinstance(leaf, torch.Tensor) for key in _keys(leaf)]
            for buffer, leaf in zip(tensors, filter(torch.is_tensor, leaves), strict=True):
                buffer.copy_(leaf)
            for root, key in zip(roots, keys, strict=True):
                root[0] = key
            return program()

        return replay

    def synchronize(self, tree):
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def vmap(self, f, in_axes=0):
        return torch.func.vmap(f, in_dims=in_axes)

    def tree_map(self, f, tree, *rest):
        return _map(f, tree, *rest)

    def value_and_grad(self, f, has_aux=False):
        grad_and_value = torch.func.grad_and_value(f, has_aux=has_aux)

        def value_and_grad(*args):
            grad, value = grad_and_value(*args)
            return value, grad

        return value_and_grad

    def jvp(self, f, primals, tangents):
        return torch.func.jvp(f, primals, tangents)

    def vjp(self, f, *primals):
        return torch.func.vjp(f, *primals)

    def jacobian(self, f):
        return torch.func.jacrev(f)

    def stop_gradient(self, tree):
        return _map(lambda x: x.detach(), tree)

    def key(self, seed):
        return _mix(seed & _MASK)

    def child(self, key: int, i: int) -> int:
        """The i-th of the keys that `key` splits into."""
        return _mix(key + (i + 1) * _GAMMA & _MASK)

    def split(self, key, num=2):
        if self._recorder is not None and isinstance(key, Key):
            return self._recorder.children(key, num)
        return [self.child(key, i) for i in range(num)]

    def key_blocks(self, key, num, length):
        keys = self.split(key, num)
        return [keys[i : i + length] for i in range(0, num, length)]

    def fill_normal(self, out: torch.Tensor, key: int, scale: float) -> None:
        """Fill `out` with draws from N(0, scale²)."""
        out.normal_(0.0, scale, generator=self._generator.manual_seed(key))

    def fill_signs(self, out: torch.Tensor, key: int) -> None:
        """Fill `out` with random signs."""
        out.random_(0, 2, generator=self._generator.manual_seed(key)).mul_(2.0).sub_(1.0)

    def normal(self, key, shape, scale=1.0):
        return self._draw(lambda out, key: self.fill_normal(out, key, scale), key, shape)

    def rademacher(self, key, shape):
        return self._draw(self.fill_signs, key, shape)

    def _draw(self, fill, key, shape):
        keys = key if isinstance(key, list) else [key]
        draws = torch.empty((len(keys), *shape), dtype=self._float, device=self._device)
        for out, k in zip(draws.unbind(0), keys, strict=True):
            if self._recorder is not None:
                self._recorder.draw(fill, k, out)
            else:
                fill(out, k)
        return draws if isinstance(key, list) else draws[0]

    def from_numpy(self, tree, *, copy=True):
        # `copy` keeps in-place updates away from the caller's array.
        make = torch.tensor if copy else torch.as_tensor

        def convert(x):
            x = np.asarray(x)
            return make(x, dtype=self._float if x.dtype.kind == "f" else None, device=self._device)

        return _map(convert, tree)

    def to_numpy(self, tree):
        return _map(lambda x: x.detach().cpu().numpy().copy() if isinstance(x, torch.Tensor) else x, tree)

    def linear(self, x, weights, bias=None):
        if weights.ndim == 3:
            product = x @ weights.mT
            return product if bias is None else product + bias
        # One kernel, with a bias of any shape that broadcasts to the product.
        return torch.nn.functional.linear(x, weights, bias)

    def accumulate(self, total, term, scale=1.0, decay=1.0):
        if isinstance(term, Outer):
            if isinstance(scale, torch.Tensor):
                term, scale = Outer(term.post * scale, term.pre), 1.0
            return total.addmm_(term.post.T, term.pre, beta=decay, alpha=scale)
        if decay != 1.0:
            total.mul_(decay)
        return (
            total.addcmul_(term, scale) if isinstance(scale, torch.Tensor) else total.add_(term, alpha=scale)
        )

    def add_diagonal(self, total, term):
        total.diagonal(dim1=1, dim2=2).add_(term.movedim(1, -1))
        return total

    def gather(self, tree, rows):
        return _map(lambda x: x.index_select(1, rows), tree)

    def zeros(self, shape):
        return torch.zeros(shape, dtype=self._float, device=self._device)


# -- keys: a key is a 64-bit integer; children are drawn by SplitMix64 (Steele, Lea & Flood 2014) ---------

_MASK = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15


def _mix(z: int) -> int:
    z = (z + _GAMMA) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


# -- trees: dict, tuple, NamedTuple, None; a list is an array of keys ------------------------------------


def _rebuild(like, children):
    return type(like)(*children) if hasattr(like, "_fields") else tuple(children)


def _map(f, tree, *rest):
    if tree is None:
        return None
    if isinstance(tree, dict):
        return {k: _map(f, tree[k], *(r[k] for r in rest)) for k in tree}
    if isinstance(tree, tuple):
        return _rebuild(tree, [_map(f, *row) for row in zip(tree, *rest, strict=True)])
    return f(tree, *rest)


def _leaves(tree) -> list:
    """The leaves that are not None, in the order of `_map`."""
    found: list = []
    _map(found.append, tree)
    return found


def _sorted(tree):
    """`tree` with the names of each dict sorted, so that equal trees have the same order of leaves."""
    if isinstance(tree, dict):
        return {k: _sorted(tree[k]) for k in sorted(tree)}
    if isinstance(tree, tuple):
        return _rebuild(tree, [_sorted(child) for child in tree])
    return tree


def _ordered(tree, like):
    """`tree` with the names of each dict in the order of `like`."""
    if isinstance(tree, dict):
        return {k: _ordered(tree[k], like[k]) for k in like}
    if isinstance(tree, tuple):
        return _rebuild(tree, [_ordered(*pair) for pair in zip(tree, like, strict=True)])
    return tree


def _keys(leaf) -> list:
    return leaf if isinstance(leaf, list) else [leaf]


def _length(tree) -> int:
    if isinstance(tree, dict):
        tree = tuple(tree.values())
    if isinstance(tree, tuple):
        return max(_length(child) for child in tree)
    return 0 if tree is None else len(tree)


def _unstack(tree) -> list:
    """The entries along the leading axis, one tree each; one kernel per array, whatever its length."""
    length = _length(tree)

    def entries(node):
        if node is None:
            return [None] * length
        if isinstance(node, list):
            return list(node)
        if isinstance(node, dict):
            return [
                dict(zip(node, row, strict=True)) for row in zip(*map(entries, node.values()), strict=True)
            ]
        if isinstance(node, tuple):
            return [_rebuild(node, row) for row in zip(*map(entries, node), strict=True)]
        return list(node.unbind(0))

    return entries(tree)


def _stack(trees: list):
    first = trees[0]
    if first is None:
        return None
    if isinstance(first, dict):
        return {k: _stack([tree[k] for tree in trees]) for k in first}
    if isinstance(first, tuple):
        return _rebuild(first, [_stack(list(column)) for column in zip(*trees, strict=True)])
    return torch.stack(trees) if len(trees) > 1 else first.unsqueeze(0)


def _find_device(device: str) -> torch.device:
    platform, _, index = device.partition(":")
    try:
        if platform == "cpu":
            if int(index or 0):
                raise ValueError(device)  # PyTorch would accept any index of the one CPU
            return torch.device("cpu")
        found = torch.device("cuda" if platform == "gpu" else platform, int(index or 0))
        torch.empty(1, device=found)
        return found
    except (RuntimeError, AssertionError, ValueError, NotImplementedError) as error:
        if tells_of_no_memory(str(error)):
            raise
        seen = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        said = f" ({(str(error).splitlines() or [''])[0]})" if seen else ""
        raise UsageError(
            f"no {device} device for torch{said}: this process sees {', '.join(['cpu', *seen])}; "
            "see: creditbench doctor"
        ) from None
