"""The vocabulary in which a learning rule is written.

One implementation stands over JAX (`creditbench.ops.jax`) and one over PyTorch (`creditbench.ops.torch`);
a rule sees only the names below, so its equations are the same in both.

Arrays of a tree are dict, tuple, NamedTuple or None nested at will, as in `jax.tree`.
"""

from __future__ import annotations

import abc
import importlib
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from creditbench.ops.host import Host

Array = Any  #: jax.Array or torch.Tensor
Key = Any  #: jax key array, or a Python int
Tree = Any
DType = Literal["float32", "float64"]


class Outer(NamedTuple):
    """A matrix kept as its factors: postᵀ pre, a sum of R outer products.

    Gradients of this form never need to be formed: an optimiser that is linear in the gradient adds the
    factors to the weights in one rank-R update.
    """

    post: Array  #: [R, rows]
    pre: Array  #: [R, columns]

    def dense(self) -> Array:
        """The matrix itself, [rows, columns]."""
        return self.post.T @ self.pre


class Ops(abc.ABC):
    """One framework, device and float format behind the common vocabulary."""

    name: ClassVar[str]
    xp: Any  #: array-API namespace: `jax.numpy` or `array_api_compat.torch`

    def __init__(self, device: str = "cpu", dtype: DType = "float32") -> None:
        self.device = device
        self.dtype = dtype

    @cached_property
    def host(self) -> Host:
        """What the harness asks of the framework; no rule does."""
        # Its module, `host_NAME`, brings what a rule does not need, and is no part of what rules run through.
        module = importlib.import_module(f"creditbench.ops.host_{self.name}")
        return getattr(module, f"{self.name.capitalize()}Host")(self)

    # -- control ---------------------------------------------------------------------------------

    @abc.abstractmethod
    def scan(
        self, f: Callable[[Tree, Tree], tuple[Tree, Tree]], carry: Tree, xs: Tree, *, reverse: bool = False
    ) -> tuple[Tree, Tree]:
        """Fold `f(carry, x) -> (carry, y)` over the leading axis of `xs`; the `y` are stacked."""

    @abc.abstractmethod
    def scan_chunks(
        self, f: Callable[[Tree, Tree], tuple[Tree, Tree]], carry: Tree, xs: Tree, size: int
    ) -> tuple[Tree, Tree]:
        """Fold `f(carry, chunk) -> (carry, ys)` over chunks of `size` leading entries of `xs`, then over the rest.

        The `ys` of a chunk have one leading entry a step, and come joined.
        """

    @abc.abstractmethod
    def compile(
        self, f: Callable[..., Tree], *args: Tree, donate: tuple[int, ...] = ()
    ) -> Callable[..., Tree]:
        """`f` made ready to be called with arguments shaped like `args`.

        The arguments numbered in `donate` are given up by the caller: their memory may be reused.
        """

    @abc.abstractmethod
    def synchronize(self, tree: Tree) -> None:
        """Wait until every array of `tree` has been computed."""

    @abc.abstractmethod
    def vmap(self, f: Callable[..., Tree], in_axes: Any = 0) -> Callable[..., Tree]: ...

    @abc.abstractmethod
    def tree_map(self, f: Callable[..., Any], tree: Tree, *rest: Tree) -> Tree: ...

    # -- derivatives -----------------------------------------------------------------------------

    @abc.abstractmethod
    def value_and_grad(self, f: Callable[..., Any], has_aux: bool = False) -> Callable[..., Any]:
        """Value of a scalar function and its gradient in its first argument, by reverse mode."""

    @abc.abstractmethod
    def jvp(self, f: Callable[..., Tree], primals: tuple, tangents: tuple) -> tuple[Tree, Tree]: ...

    @abc.abstractmethod
    def vjp(self, f: Callable[..., Tree], *primals: Tree) -> tuple[Tree, Callable[..., Any]]: ...

    @abc.abstractmethod
    def jacobian(self, f: Callable[..., Tree]) -> Callable[..., Tree]: ...

    @abc.abstractmethod
    def stop_gradient(self, tree: Tree) -> Tree: ...

    # -- randomness: keys are values, the same key always draws the same ---------------------------

    @abc.abstractmethod
    def key(self, seed: int) -> Key: ...

    @abc.abstractmethod
    def split(self, key: Key, num: int = 2) -> Any:
        """`num` independent keys, as something that can be unpacked and scanned over."""

    @abc.abstractmethod
    def key_blocks(self, key: Key, num: int, length: int) -> list[Any]:
        """The keys that `split(key, num)` gives, cut into blocks of `length`, the last of what is left."""

    @abc.abstractmethod
    def normal(self, key: Key, shape: tuple[int, ...], scale: float = 1.0) -> Array:
        """Draws from N(0, scale²); for several keys, as `split` gives them, one array a key, stacked."""

    @abc.abstractmethod
    def rademacher(self, key: Key, shape: tuple[int, ...]) -> Array:
        """Random signs; for several keys, as `split` gives them, one array a key, stacked."""

    # -- arrays ----------------------------------------------------------------------------------

    @abc.abstractmethod
    def from_numpy(self, tree: Tree, *, copy: bool = True) -> Tree:
        """NumPy arrays to arrays of this framework, on this device; floats take this float format.

        With `copy` False the caller gives its arrays up: their memory may become that of the result.
        """

    @abc.abstractmethod
    def to_numpy(self, tree: Tree) -> Any:
        """Arrays of this framework to NumPy arrays; what is not an array is left as it is."""

    @abc.abstractmethod
    def linear(self, x: Array, weights: Array, bias: Array | None = None) -> Array:
        """x Wᵀ + bias: [rows, inputs], [outputs, inputs], broadcastable to [rows, outputs].

        A stack of P matrices [P, outputs, inputs] takes a stack of rows, [P or 1, rows, inputs].
        """

    @abc.abstractmethod
    def accumulate(self, total: Array, term: Array | Outer, scale: Any = 1.0, decay: float = 1.0) -> Array:
        """decay · total + scale · term.

        `total` is given up: PyTorch updates it in place, as XLA does with a donated buffer. An `Outer`
        is added by its factors.
        """

    @abc.abstractmethod
    def add_diagonal(self, total: Array, term: Array) -> Array:
        """`total` [B, n, n, ...] with `term` [B, n, ...] added where the second and third index agree.

        `total` is given up: nothing but its diagonal is touched.
        """

    @abc.abstractmethod
    def gather(self, tree: Tree, rows: Array) -> Tree:
        """Of arrays [T, N, ...] those entries of the second axis that `rows` [B] numbers: [T, B, ...]."""

    def zeros(self, shape: tuple[int, ...]) -> Array:
        """Zeros in this float format, on this device."""
        return self.from_numpy(np.zeros(shape))

    def dense(self, grad: Array | Outer) -> Array:
        """A gradient as an array."""
        return grad.dense() if isinstance(grad, Outer) else grad


NumpyTree = dict[str, NDArray[Any]]
