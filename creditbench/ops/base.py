"""The vocabulary in which a learning rule is written.

There is one implementation over JAX (`creditbench.ops.jax`) and one over PyTorch (`creditbench.ops.torch`).
A rule sees only the names below, so its equations are the same in both.

A tree is any nesting of dict, tuple, NamedTuple and None, with arrays as leaves, as in `jax.tree`.
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

    The matrix itself need not be formed: an optimiser that is linear in the gradient adds the factors to the
    weights in one rank-R update.

    >>> import numpy as np
    >>> Outer(np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]])).dense().tolist()
    [[3.0, 4.0], [6.0, 8.0]]
    """

    post: Array  #: [R, rows]
    pre: Array  #: [R, columns]

    def dense(self) -> Array:
        """The matrix itself, [rows, columns]."""
        return self.post.T @ self.pre


class Ops(abc.ABC):
    """The common vocabulary over one framework, device and float format.

    >>> import numpy as np
    >>> import creditbench as cb
    >>> ops = cb.make_ops("torch")
    >>> def step(total, x):
    ...     return total + x, ops.xp.tanh(total)
    >>> total, seen = ops.scan(step, ops.zeros(()), ops.from_numpy(np.arange(4.0)))
    >>> float(total), tuple(seen.shape)
    (6.0, (4,))
    >>> ops.value_and_grad(lambda x: (x * x).sum())(ops.from_numpy(np.array([3.0])))[1].tolist()
    [6.0]
    >>> a, b = (ops.normal(ops.key(0), (2,)) for _ in range(2))     # a key is a value
    >>> bool((a == b).all())
    True
    """

    name: ClassVar[str]
    xp: Any  #: array-API namespace: `jax.numpy` or `array_api_compat.torch`

    def __init__(self, device: str = "cpu", dtype: DType = "float32") -> None:
        self.device = device
        self.dtype = dtype

    @cached_property
    def host(self) -> Host:
        """Functions of the framework that the harness needs and no rule does."""
        # A module of its own, `host_NAME`: rules do not run through it, so its changes make no result stale.
        module = importlib.import_module(f"creditbench.ops.host_{self.name}")
        return getattr(module, f"{self.name.capitalize()}Host")(self)

    # -- control ---------------------------------------------------------------------------------

    @abc.abstractmethod
    def scan(
        self, f: Callable[[Tree, Tree], tuple[Tree, Tree]], carry: Tree, xs: Tree, *, reverse: bool = False
    ) -> tuple[Tree, Tree]:
        """Fold `f(carry, x) -> (carry, y)` over the leading axis of `xs`, and stack the `y`."""

    @abc.abstractmethod
    def scan_chunks(
        self, f: Callable[[Tree, Tree], tuple[Tree, Tree]], carry: Tree, xs: Tree, size: int
    ) -> tuple[Tree, Tree]:
        """Fold `f(carry, chunk) -> (carry, ys)` over chunks of `size` leading entries of `xs`.

        The last chunk holds the rest. The `ys` of a chunk have one leading entry per step. The `ys` of all
        chunks are joined.
        """

    @abc.abstractmethod
    def compile(
        self, f: Callable[..., Tree], *args: Tree, donate: tuple[int, ...] = ()
    ) -> Callable[..., Tree]:
        """`f` compiled for arguments shaped like `args`.

        The caller gives up the arguments numbered in `donate`: their memory may be reused.
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
        """The value of a scalar function and its gradient in its first argument, by reverse mode."""

    @abc.abstractmethod
    def jvp(self, f: Callable[..., Tree], primals: tuple, tangents: tuple) -> tuple[Tree, Tree]: ...

    @abc.abstractmethod
    def vjp(self, f: Callable[..., Tree], *primals: Tree) -> tuple[Tree, Callable[..., Any]]: ...

    @abc.abstractmethod
    def jacobian(self, f: Callable[..., Tree]) -> Callable[..., Tree]: ...

    @abc.abstractmethod
    def stop_gradient(self, tree: Tree) -> Tree: ...

    # -- randomness: keys are values; the same key always gives the same draws ---------------------

    @abc.abstractmethod
    def key(self, seed: int) -> Key: ...

    @abc.abstractmethod
    def split(self, key: Key, num: int = 2) -> Any:
        """`num` independent keys, which can be unpacked and scanned over."""

    @abc.abstractmethod
    def key_blocks(self, key: Key, num: int, length: int) -> list[Any]:
        """The keys of `split(key, num)` in blocks of `length`; the last block holds the rest."""

    @abc.abstractmethod
    def normal(self, key: Key, shape: tuple[int, ...], scale: float = 1.0) -> Array:
        """Draws from N(0, scale²). Several keys, as from `split`, give one array per key, stacked."""

    @abc.abstractmethod
    def rademacher(self, key: Key, shape: tuple[int, ...]) -> Array:
        """Random signs. Several keys, as from `split`, give one array per key, stacked."""

    # -- arrays ----------------------------------------------------------------------------------

    @abc.abstractmethod
    def from_numpy(self, tree: Tree, *, copy: bool = True) -> Tree:
        """NumPy arrays to arrays of this framework, on this device, in this float format.

        With `copy` False the caller gives up its arrays: the result may share their memory.
        """

    @abc.abstractmethod
    def to_numpy(self, tree: Tree) -> Any:
        """Arrays of this framework to NumPy arrays. Other leaves stay as they are."""

    @abc.abstractmethod
    def linear(self, x: Array, weights: Array, bias: Array | None = None) -> Array:
        """x Wᵀ + bias: [rows, inputs], [outputs, inputs], broadcastable to [rows, outputs].

        A stack of P matrices [P, outputs, inputs] takes a stack of rows, [P or 1, rows, inputs].
        """

    @abc.abstractmethod
    def accumulate(self, total: Array, term: Array | Outer, scale: Any = 1.0, decay: float = 1.0) -> Array:
        """decay · total + scale · term.

        The caller gives up `total`: PyTorch updates it in place, as XLA does a donated buffer. An `Outer` is
        added by its factors.
        """

    @abc.abstractmethod
    def add_diagonal(self, total: Array, term: Array) -> Array:
        """`total` [B, n, n, ...] with `term` [B, n, ...] added where the second and third index agree.

        The caller gives up `total`: only its diagonal is written.
        """

    @abc.abstractmethod
    def gather(self, tree: Tree, rows: Array) -> Tree:
        """The entries `rows` [B] of the second axis of arrays [T, N, ...], as [T, B, ...]."""

    def zeros(self, shape: tuple[int, ...]) -> Array:
        """Zeros in this float format, on this device."""
        return self.from_numpy(np.zeros(shape))

    def dense(self, grad: Array | Outer) -> Array:
        """A gradient as an array."""
        return grad.dense() if isinstance(grad, Outer) else grad


NumpyTree = dict[str, NDArray[Any]]
