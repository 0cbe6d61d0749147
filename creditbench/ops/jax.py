"""`Ops` over JAX."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from creditbench.errors import UsageError
from creditbench.ops.base import DType, Ops, Outer

#: Up to this many rows a product is written as matrix–vector products. XLA's CPU compiler turns those into
#: loops that run at memory speed; its general product of so few rows measured half as fast.
_MATVEC_ROWS = 3
#: The generator of all draws.
_PRNG = "threefry2x32"


class JaxOps(Ops):
    name = "jax"
    xp = jnp

    def __init__(self, device: str = "cpu", dtype: DType = "float32") -> None:
        super().__init__(device, dtype)
        self._device = _find_device(device)
        # A user's settings of JAX must not change the draws.
        jax.config.update("jax_threefry_partitionable", True)
        jax.config.update("jax_random_seed_offset", 0)
        if dtype == "float64":
            jax.config.update("jax_enable_x64", True)
        self._float = jnp.dtype(dtype)
        self._cpu = self._device.platform == "cpu"
        if not self._cpu:
            # By default an accelerator may round float32 to TF32 or bfloat16 in products.
            jax.config.update("jax_default_matmul_precision", "highest")

    def scan(self, f, carry, xs, *, reverse=False):
        if jax.tree.leaves(xs)[0].shape[0] == 1:
            carry, y = f(carry, jax.tree.map(lambda x: x[0], xs))
            return carry, jax.tree.map(lambda y: y[None], y)
        squeezed = jax.tree.map(_squeeze, xs)

        def step(carry, x):
            return f(carry, jax.tree.map(lambda x, whole: x.reshape(whole.shape[1:]), x, xs))

        return jax.lax.scan(step, carry, squeezed, reverse=reverse)

    def scan_chunks(self, f, carry, xs, size):
        length = jax.tree.leaves(xs)[0].shape[0]
        whole = length // size
        squeezed = jax.tree.map(_squeeze, xs)

        def chunk(carry, start):
            # The chunk is cut from `xs` in place: a scan over `xs` in chunks may copy all of it.
            def cut(x, whole):
                return jax.lax.dynamic_slice_in_dim(x, start, size).reshape(size, *whole.shape[1:])

            return f(carry, jax.tree.map(cut, squeezed, xs))

        parts = []
        if whole:
            carry, ys = jax.lax.scan(chunk, carry, size * jnp.arange(whole))
            parts.append(jax.tree.map(lambda y: y.reshape(-1, *y.shape[2:]), ys))
        if whole * size < length:
            carry, ys = f(carry, jax.tree.map(lambda x: x[whole * size :], xs))
            parts.append(ys)
        return carry, jax.tree.map(lambda *ys: jnp.concatenate(ys), *parts)

    def compile(self, f, *args, donate=()):
        return jax.jit(f, donate_argnums=donate).lower(*args).compile()

    def synchronize(self, tree):
        jax.block_until_ready(tree)

    def vmap(self, f, in_axes=0):
        return jax.vmap(f, in_axes=in_axes)

    def tree_map(self, f, tree, *rest):
        return jax.tree.map(f, tree, *rest)

    def value_and_grad(self, f, has_aux=False):
        return jax.value_and_grad(f, has_aux=has_aux)

    def jvp(self, f, primals, tangents):
        return jax.jvp(f, primals, tangents)

    def vjp(self, f, *primals):
        return jax.vjp(f, *primals)

    def jacobian(self, f):
        return jax.jacrev(f)

    def stop_gradient(self, tree):
        return jax.lax.stop_gradient(tree)

    def key(self, seed):
        with jax.default_device(self._device):
            return jax.random.key(seed, impl=_PRNG)

    def split(self, key, num=2):
        return jax.random.split(key, num)

    def key_blocks(self, key, num, length):
        # Cut on the host: on the device each length would be a program of its own to compile.
        data = np.asarray(jax.random.key_data(self.split(key, num)))
        cuts = (jax.device_put(data[i : i + length], self._device) for i in range(0, num, length))
        return [jax.random.wrap_key_data(cut, impl=_PRNG) for cut in cuts]

    def normal(self, key, shape, scale=1.0):
        def draw(key):
            draws = jax.random.normal(key, shape, self._float)
            return draws if isinstance(scale, float) and scale == 1.0 else scale * draws

        return jax.vmap(draw)(key) if key.ndim else draw(key)

    def rademacher(self, key, shape):
        def draw(key):
            return jax.random.rademacher(key, shape, self._float)

        return jax.vmap(draw)(key) if key.ndim else draw(key)

    def from_numpy(self, tree, *, copy=True):
        def convert(x):
            x = np.asarray(x)
            # On a CPU `device_put` may keep the memory of `x`.
            x = x.astype(self.dtype if x.dtype.kind == "f" else x.dtype, copy=copy)
            return jax.device_put(x, self._device)

        return jax.tree.map(convert, tree)

    def to_numpy(self, tree):
        return jax.tree.map(lambda x: np.array(x) if isinstance(x, jax.Array) else x, tree)

    def linear(self, x, weights, bias=None):
        few = self._cpu and x.shape[-2] <= _MATVEC_ROWS
        if few and weights.ndim == 3:
            rows = [weights @ x[..., i, :, None] for i in range(x.shape[-2])]
            product = jnp.stack([row[..., 0] for row in rows], axis=-2)
        elif few and x.ndim == 2:
            product = jnp.stack([weights @ row for row in x])
        else:
            product = x @ weights.mT
        return product if bias is None else product + bias

    def accumulate(self, total, term, scale=1.0, decay=1.0):
        if isinstance(term, Outer):
            # XLA fuses a single outer product into the update; a dot would be written out first.
            if term.post.shape[0] == 1:
                term = term.post[0][:, None] * term.pre[0]
            else:
                term = term.dense()
        return (total if decay == 1.0 else decay * total) + scale * term

    def add_diagonal(self, total, term):
        i = jnp.arange(total.shape[1])
        return total.at[:, i, i].add(term, indices_are_sorted=True, unique_indices=True)

    def gather(self, tree, rows):
        # XLA would fuse a plain gather into every product that reads it, and repeat it there. A loop stores
        # its results, so each entry is gathered once.
        def step(_, at):
            return None, jax.tree.map(lambda x: x.at[rows].get(mode="promise_in_bounds"), at)

        return jax.lax.scan(step, None, tree)[1]

    def zeros(self, shape):
        return jnp.zeros(shape, self._float)


def _squeeze(x: jax.Array) -> jax.Array:
    """`x` without its axes of length 1, the leading one kept.

    Such an axis leaves the memory layout open; then XLA may carry a copy of all of `x` through a loop.
    """
    return x.reshape(x.shape[0], *(size for size in x.shape[1:] if size != 1))


def _find_device(device: str) -> jax.Device:
    platform, _, index = device.partition(":")
    try:
        devices = jax.devices("gpu" if platform == "cuda" else platform)
        return dict(enumerate(devices))[int(index or 0)]  # a dict, so that -1 is refused
    except (RuntimeError, KeyError, ValueError):
        raise UsageError(
            f"no {device} device for jax: this process sees {', '.join(str(d) for d in jax.devices())}; "
            "see: creditbench doctor"
        ) from None
