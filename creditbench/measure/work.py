"""Work: floating-point operations and bytes moved, counted from the program and not measured. Deterministic.

What counts as what, in both backends:

- a product of [M, N] and [N, P] is 2·M·N·P, and an addition fused with it one for each entry;
- anything elementwise is one for each entry of its result, transcendental functions and random draws among them;
- a reduction is one for each entry that it takes in; a linear solve of order n with k right-hand sides 2n³/3 + 2n²k;
- what only moves, makes or renames data is none.

The body of a loop counts as often as it runs: XLA's own `cost_analysis` counts it once, whatever its length, and is not
used. Of the branches of a condition the dearest counts. A `while` whose length is not in the program cannot be counted.

*Bytes moved* are the sizes of all that counted operations, copies included, take in and give out. That is an upper
bound, since a compiler fuses many of them; `product_bytes`, of matrix products alone, is what remains where everything
else is fused into them, but of what stays in a cache from one step to the next.

The two backends' FLOPs differ by what one framework does and the other does not: JAX works out its keys and normals in
the program, PyTorch takes normals from a generator, one operation each. Products are the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from creditbench.errors import UsageError
from creditbench.ops.base import Ops, Tree


class Work(NamedTuple):
    """What a program does."""

    flops: int = 0
    product_flops: int = 0  #: of matrix products alone
    bytes: int = 0
    product_bytes: int = 0  #: of matrix products alone
    #: JAX: equations of the traced program, a loop's body once; PyTorch: operations that run
    operations: int = 0

    def __add__(self, other: Work) -> Work:  # type: ignore[override]
        return Work(*(a + b for a, b in zip(self, other, strict=True)))

    def repeated(self, times: int) -> Work:
        """The same `times` over, traced once."""
        return Work(*(times * value for value in self))._replace(operations=self.operations)


class UncountableError(UsageError):
    """The program has an operation whose work is not in it."""


def count(ops: Ops, f: Callable[..., Tree], *arguments: Tree) -> Work:
    """The work of `f(*arguments)`; JAX traces it, PyTorch runs it. Raises `UncountableError`."""
    if ops.name == "jax":
        import jax

        return _of_jaxpr(jax.make_jaxpr(f)(*arguments).jaxpr)
    return _of_torch(f, arguments)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _product(flops: int, moved: int) -> Work:
    return Work(flops, flops, moved, moved, 1)


# -- JAX -------------------------------------------------------------------------------------------------

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
        # Of what is sliced only the slice is read.
        return Work(bytes=2 * sum(map(_bytes, outputs)), operations=1)
    if name in _REDUCES or name.startswith("cum"):
        entries = max(math.prod(a.shape) for a in inputs)
    return Work(entries, 0, moved, 0, 1)


def _bytes(aval: Any) -> int:
    return math.prod(aval.shape) * getattr(aval.dtype, "itemsize", 4)


# -- PyTorch ---------------------------------------------------------------------------------------------

#: Operations that move or make data and work nothing out; views come beside them.
_TORCH_MOVES = _words(
    "_to_copy cat clone constant_pad_nd copy copy_ embedding empty empty_like empty_strided eye fill "
    "fill_ flip full full_like gather index index_select lift_fresh new_empty new_empty_strided new_full "
    "new_ones new_zeros ones ones_like repeat scalar_tensor scatter slice_scatter stack zero_ zeros "
    "zeros_like arange roll tril triu"
)
_TORCH_REDUCES = _words(
    "all amax amin any argmax argmin cumprod cumsum linalg_vector_norm logsumexp max mean min norm prod "
    "std sum var"
)
_TORCH_UNKNOWN = _words(
    "_linalg_eigh _linalg_svd linalg_eig linalg_qr sort topk _fft_c2c _fft_r2c _fft_c2r bernoulli"
)


def _of_torch(f: Callable[..., Any], arguments: tuple[Any, ...]) -> Work:
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves
    from torch.utils.flop_counter import flop_registry

    def tensors(tree: Any) -> list[Any]:
        return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]

    def size(found: list[Any]) -> int:
        return sum(x.numel() * x.element_size() for x in found)

    def of(function: Any, args: Any, kwargs: Any, found: Any) -> Work:
        packet = function.overloadpacket
        name = packet.__name__
        if function.is_view or name in ("_unsafe_view", "detach", "alias"):
            return Work(operations=1)
        outputs = tensors(found)
        inputs = tensors((args, kwargs))
        entries, moved = sum(x.numel() for x in outputs), size(inputs) + size(outputs)
        if packet in flop_registry:
            flops = flop_registry[packet](*args, **kwargs, out_val=found)
            return _product(flops, moved) + _addition(name, entries)
        if name in ("mv", "addmv", "addmv_", "dot", "vdot", "addr", "addr_", "addmm_", "baddbmm_"):
            # What the registry lacks. The factors are the last two tensors; an outer product has no depth.
            depth = 1 if "addr" in name else args[-1].shape[0] if name[0] != "b" else args[-1].shape[1]
            return _product(2 * entries * depth, moved) + _addition(name, entries)
        if name in (
            "_linalg_solve_ex",
            "linalg_solve_triangular",
            "linalg_lu_factor_ex",
            "linalg_cholesky_ex",
        ):
            n = inputs[0].shape[-1]
            factor = 0 if "triangular" in name else n**3 * 2 // (6 if "cholesky" in name else 3)
            columns = inputs[1].numel() // n if len(inputs) > 1 else 0
            solves = 1 if "triangular" in name else 2
            return _product(inputs[0].numel() // n**2 * factor + solves * n * columns * n, moved)
        if name in _TORCH_UNKNOWN:
            raise UncountableError(
                f"the work of the PyTorch operation {name!r} is not known: write the rule with products"
            )
        if name in _TORCH_MOVES:
            return Work(bytes=2 * size(outputs), operations=1)
        if name in _TORCH_REDUCES:
            entries = sum(x.numel() for x in inputs[:1])
        if name in ("addcmul", "addcmul_", "addcdiv", "addcdiv_", "lerp", "lerp_"):
            entries *= 2
        return Work(entries, 0, moved, 0, 1)

    class Count(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.total = Work()

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            found = function(*args, **(kwargs or {}))
            self.total += of(function, args, kwargs or {}, found)
            return found

    with torch.no_grad(), Count() as counted:
        f(*arguments)
    return counted.total


def _addition(name: str, entries: int) -> Work:
    """What is added to a product in the same operation."""
    return Work(flops=entries) if "add" in name else Work()
