"""`Host` over JAX."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from creditbench.ops.host import Host, UncountableError, Work


class JaxHost(Host):
    """Work is counted from JAX's trace, without a run; memory is read from XLA's plan of the program."""

    traces: ClassVar[bool] = True
    draws_together: ClassVar[bool] = True

    def set_threads(self, count):
        """JAX is told by its environment, before its import."""

    def forget(self):
        jax.clear_caches()

    def devices(self):
        found = ["cpu"]
        for platform in ("gpu", "tpu"):
            for i, device in enumerate(_devices(platform)):
                name = str(device) if ":" in str(device) else f"{platform}:{i}"
                found.append(f"{name} ({device.device_kind})")
        return found

    def pack(self, leaf):
        """A leaf of a tree, an array, a key or a number, as a NumPy array of its own: for a checkpoint."""
        leaf = jnp.asarray(leaf)
        return np.array(jax.random.key_data(leaf) if _is_key(leaf) else leaf)

    def unpack(self, array, like):
        """The leaf that `pack` was given, where `like` is one of the same kind."""
        like = jnp.asarray(like)
        (device,) = like.devices()
        found = jax.device_put(array, device)
        return jax.random.wrap_key_data(found, impl=jax.random.key_impl(like)) if _is_key(like) else found

    def count(self, f, *arguments):
        return _of_jaxpr(jax.make_jaxpr(f)(*arguments).jaxpr)

    def algorithm_bytes(self, f, *arguments):
        # No argument is donated, because `Learner.segment` is pure. The sizes of results come from their
        # shapes: a result that is also an argument has no buffer of its own. XLA lays out buffers before it
        # makes code for a CPU, so the code need not be optimised.
        (device,) = jax.tree.leaves(arguments)[0].devices()
        fast = (
            {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
            if device.platform == "cpu"
            else None
        )
        compiled = jax.jit(f).lower(*arguments).compile(compiler_options=fast)
        results = jax.eval_shape(f, *arguments)
        return compiled.memory_analysis().temp_size_in_bytes + sum(
            x.size * x.dtype.itemsize for x in jax.tree.leaves(results)
        )

    def device_peak(self):
        if self.ops.device == "cpu":
            return lambda: None
        (device,) = self.ops.from_numpy(np.zeros(())).devices()

        def peak() -> int | None:
            bytes = (device.memory_stats() or {}).get("peak_bytes_in_use", -1)
            return None if bytes < 0 else bytes  # -1 where the device does not know it

        return peak

    @contextlib.contextmanager
    def programs(self) -> Iterator[list[str]]:
        found: list[str] = []

        def listen(name: str, *_: object, **__: object) -> None:
            if name == "/jax/core/compile/backend_compile_duration":
                found.append(name)

        jax.monitoring.register_event_duration_secs_listener(listen)
        try:
            yield found
        finally:
            jax.monitoring.unregister_event_duration_listener(listen)

    def kernels(self, f, *arguments):
        return None

    def step_by_step(self):
        return jax.disable_jit()

    def without_tape(self):
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def single_precision(self) -> Iterator[None]:
        double = jax.config.jax_enable_x64
        jax.config.update("jax_enable_x64", False)
        try:
            yield
        finally:
            jax.config.update("jax_enable_x64", double)

    def reverse_modes(self):
        names = ("grad", "value_and_grad", "vjp", "jacrev", "hessian", "linear_transpose")
        return [(jax, name, f"jax.{name}") for name in names]


def _is_key(array: jax.Array) -> bool:
    return jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key)


def _devices(platform: str) -> list[Any]:
    try:
        return jax.devices(platform)
    except RuntimeError:  # it has no such platform
        return []


# -- work ------------------------------------------------------------------------------------------------


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _product(flops: int, moved: int) -> Work:
    return Work(flops, flops, moved, moved, 1)


_MOVES = _words(
    "broadcast_in_dim concatenate convert_element_type copy copy_p dynamic_slice dynamic_update_slice "
    "gather iota pad random_fold_in random_split rev scatter select_and_gather_add slice split transpose"
)
_RENAMES = _words(
    "bitcast_convert_type expand_dims layout_constraint optimization_barrier random_unwrap random_wrap "
    "reshape sharding_constraint squeeze stop_gradient"
)
_REDUCES = _words(
    "argmax argmin reduce_and reduce_max reduce_min reduce_or reduce_prod reduce_sum reduce_xor"
)
_UNKNOWN = _words(
    "conv_general_dilated custom_call eig eigh fft ffi_call householder_product pallas_call pure_callback "
    "qr schur sort svd tridiagonal_solve while"
)


def _of_jaxpr(jaxpr: Any) -> Work:
    total = Work()
    for equation in jaxpr.eqns:
        total += _of_equation(equation)
    return total


def _of_equation(equation: Any) -> Work:
    name, parameters = equation.primitive.name, equation.params
    inputs = [v.aval for v in equation.invars if hasattr(v.aval, "shape")]
    outputs = [v.aval for v in equation.outvars if hasattr(v.aval, "shape")]
    if name == "scan":
        return _of_jaxpr(parameters["jaxpr"].jaxpr).repeated(parameters["length"]) + Work(operations=1)
    if name == "cond":
        branches = [_of_jaxpr(branch.jaxpr) for branch in parameters["branches"]]
        return max(branches) + Work(operations=1)
    if name == "custom_linear_solve":
        return _of_jaxpr(parameters["jaxprs"].solve.jaxpr)
    if name in _UNKNOWN:
        raise UncountableError(
            f"the work of the JAX operation {name!r} is not known: write the rule with scan and products"
        )
    inner = [value for value in parameters.values() if hasattr(value, "eqns") or hasattr(value, "jaxpr")]
    if inner:  # jit, remat, custom_jvp_call, ...: the program that is called
        return _of_jaxpr(getattr(inner[0], "jaxpr", inner[0]))
    moved = sum(map(_bytes, inputs)) + sum(map(_bytes, outputs))
    entries = sum(math.prod(a.shape) for a in outputs)
    if name == "dot_general":
        (contracted, _), _ = parameters["dimension_numbers"]
        depth = math.prod(inputs[0].shape[axis] for axis in contracted)
        return _product(2 * entries * depth, moved)
    if name == "triangular_solve":
        *batch, n, k = (
            inputs[1].shape if parameters["left_side"] else (*inputs[1].shape[:-2], *inputs[1].shape[:-3:-1])
        )
        return _product(math.prod(batch) * n * n * k, moved)
    if name in ("lu", "cholesky"):
        *batch, m, n = inputs[0].shape
        flops = math.prod(batch) * m * n * min(m, n) * 2 // (3 if name == "lu" else 6)
        return _product(flops, moved)
    if name in _RENAMES:
        return Work(operations=1)
    if name in _MOVES:
        # Slicing reads only the slice.
        return Work(bytes=2 * sum(map(_bytes, outputs)), operations=1)
    if name in _REDUCES or name.startswith("cum"):
        entries = max(math.prod(a.shape) for a in inputs)
    return Work(entries, 0, moved, 0, 1)


def _bytes(aval: Any) -> int:
    return math.prod(aval.shape) * getattr(aval.dtype, "itemsize", 4)
