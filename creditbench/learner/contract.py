"""The contract of a learning rule: what it is given, what it returns, what it claims of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

from creditbench.cells import Cell
from creditbench.ops.base import Array, Key, NumpyTree, Ops, Tree


class Batch(NamedTuple):
    """A segment of K steps of B sequences."""

    inputs: Array  #: [K, B, I]
    targets: Array  #: [K, B, O]
    weights: Array  #: [K, B]; scaled by the harness so that L = Σ w ℓ; 0: the step is not scored


class Estimate(NamedTuple):
    """What a rule makes of a segment."""

    loss: Array  #: L = Σ_t Σ_b w_tb ℓ_tb, scalar
    grads: Tree  #: name of a parameter -> array of its shape, or `Outer`; a parameter left out is not trained
    state: Tree  #: carried to the next segment
    assigned: Tree = {}  #: name of a parameter -> new value, for a rule that sets it itself  # noqa: RUF012
    hidden: Array | None = None  #: ĥ of every step, [R, n]; only a decorrelated cell needs it


@dataclass(frozen=True)
class Claims:
    """What a rule claims of itself; every claim is tested."""

    unbiased: bool = False  #: the expected estimate is the gradient of the segment's loss
    online: bool = False  #: may update at every step, without looking ahead or going back
    forward_only: bool = False  #: runs no reverse pass
    memory_in_T: Literal["O(1)", "O(√T)", "O(T)"] = "O(1)"
    time: str = "O(n²)"  #: of one step
    memory: str = "O(p)"  #: beyond the weights


@dataclass(frozen=True, kw_only=True)
class Learner:
    """A learning rule. Its fields are its hyper-parameters; its class attributes are its metadata."""

    id: ClassVar[str]
    name: ClassVar[str]
    paper: ClassVar[str]  #: authors, year, DOI or arXiv number
    family: ClassVar[str]
    claims: ClassVar[Claims]
    optimizer: ClassVar[str] = "sgd"  #: default optimiser
    lr: ClassVar[float] = 1e-2  #: default learning rate
    search: ClassVar[
        dict[str, tuple[float, float]]
    ] = {}  #: field -> (low, high) that `tune` tries, log-uniform
    backends: ClassVar[frozenset[str]] = frozenset({"jax", "torch"})
    decorrelates: ClassVar[bool] = True  #: whether `Decorrelated` may go with it
    decorrelation: ClassVar[Literal["after", "before"]] = "after"  #: when D moves in a segment
    couples_rows: ClassVar[str] = (
        ""  #: why the estimate of a batch is not the sum of its rows', where it is not
    )

    @property
    def stream_segment(self) -> int:
        """Steps between updates on a stream, unless the trial says otherwise."""
        return 1

    def weights(self, cell: Cell, params: NumpyTree) -> NumpyTree:
        """The weights that training starts from, given those that the cell drew; a rule may prune them."""
        return params

    def init(self, ops: Ops, cell: Cell, params: Tree, batch_size: int) -> Tree:
        """The state before the first segment."""
        return {"cell": cell.start(ops, batch_size)}

    def reset(self, ops: Ops, cell: Cell, params: Tree, state: Tree, batch_size: int) -> Tree:
        """The state before the first step of new sequences; a rule keeps here what it has learned."""
        return self.init(ops, cell, params, batch_size)

    def segment(self, ops: Ops, cell: Cell, params: Tree, state: Tree, batch: Batch, key: Key) -> Estimate:
        """The gradient estimate of one segment. Pure: it changes none of its arguments.

        When the cell is decorrelated, the inputs come decorrelated.
        """
        raise NotImplementedError
