"""The contract of a learning rule: its arguments, its result, its claims."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Literal, NamedTuple

from creditbench.cells import Cell
from creditbench.errors import UsageError
from creditbench.ops.base import Array, Key, NumpyTree, Ops, Tree


class Batch(NamedTuple):
    """A segment of K steps of B sequences.

    >>> [tuple(array.shape) for array in batch]
    [(4, 5, 2), (4, 5, 1), (4, 5)]
    """

    inputs: Array  #: [K, B, I]
    targets: Array  #: [K, B, O]
    weights: Array  #: [K, B]; scaled by the harness so that L = Σ w ℓ; a step of weight 0 is not scored


class Estimate(NamedTuple):
    """The result of a rule on a segment.

    >>> rule = cb.make_learner("bptt")
    >>> found = rule.segment(ops, cell, params, rule.init(ops, cell, params, 5), batch, ops.key(0))
    >>> sorted(found.grads), found.loss.ndim, found.assigned
    (['W_in', 'W_out', 'W_rec'], 0, {})
    """

    loss: Array  #: L = Σ_t Σ_b w_tb ℓ_tb, scalar
    grads: Tree  #: name of a parameter -> array of its shape, or `Outer`; a parameter left out is not trained
    state: Tree  #: carried to the next segment
    assigned: Tree = {}  #: name of a parameter -> new value, for a rule that sets it itself  # noqa: RUF012
    hidden: Array | None = None  #: `Unrolled.out` of every step; only a decorrelated cell needs it


@dataclass(frozen=True)
class Claims:
    """The claims of a rule. Every claim is tested.

    >>> claims = cb.make_learner("rflo").claims
    >>> claims.online, claims.memory_in_T
    (True, 'O(1)')
    """

    unbiased: bool = False  #: the expected estimate is the gradient of the segment's loss
    online: bool = False  #: can update at every step, without looking ahead or going back
    forward_only: bool = False  #: runs no reverse pass
    memory_in_T: Literal["O(1)", "O(√T)", "O(T)"] = "O(1)"
    time: str = "O(n²)"  #: of one step
    memory: str = "O(p)"  #: beyond the weights
    #: by field, what is claimed instead where there are no recurrent weights: a unit acts on itself alone
    without_recurrence: dict[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        known = [own.name for own in fields(self) if own.name != "without_recurrence"]
        for name in self.without_recurrence:
            if name not in known:
                raise UsageError(f"without_recurrence claims {name!r}: take one of {', '.join(known)}")

    def on(self, cell: Cell) -> Claims:
        """The claims in a network of this cell."""
        return self if cell.recurrent else replace(self, **self.without_recurrence)


@dataclass(frozen=True, kw_only=True)
class Learner:
    """A learning rule. Its fields are its hyper-parameters; its class attributes are its metadata.

    >>> rule = cb.make_learner("anp", sigma=1e-2)
    >>> rule.sigma, rule.family, rule.fits(cell)
    (0.01, 'perturbation', '')
    """

    id: ClassVar[str]
    name: ClassVar[str]
    paper: ClassVar[str]  #: authors, year, DOI or arXiv number
    family: ClassVar[str]
    claims: ClassVar[Claims]
    optimizer: ClassVar[str] = "sgd"  #: default optimiser
    lr: ClassVar[float] = 1e-2  #: default learning rate
    #: field -> (low, high) of the values that `tune` tries, log-uniform
    search: ClassVar[dict[str, tuple[float, float]]] = {}
    backends: ClassVar[frozenset[str]] = frozenset({"jax", "torch"})
    decorrelates: ClassVar[bool] = True  #: whether `Decorrelated` can wrap the rule
    decorrelation: ClassVar[Literal["after", "before"]] = (
        "after"  #: whether D moves after or before a segment
    )
    #: why the estimate of a batch is not the sum of the estimates of its rows; empty if it is
    couples_rows: ClassVar[str] = ""

    @property
    def stream_segment(self) -> int:
        """Steps between updates on a stream, unless the trial says otherwise."""
        return 1

    def fits(self, cell: Cell) -> str:
        """Why the rule does not go with this cell, after "NAME does not go with CELL: "; empty if it does."""
        return ""

    def weights(self, cell: Cell, params: NumpyTree) -> NumpyTree:
        """The initial weights, given those that the cell drew. A rule may prune them here."""
        return params

    def init(self, ops: Ops, cell: Cell, params: Tree, batch_size: int) -> Tree:
        """The state before the first segment."""
        return {"cell": cell.start(ops, batch_size)}

    def reset(self, ops: Ops, cell: Cell, params: Tree, state: Tree, batch_size: int) -> Tree:
        """The state before the first step of new sequences. A rule keeps its learned state here."""
        return self.init(ops, cell, params, batch_size)

    def segment(self, ops: Ops, cell: Cell, params: Tree, state: Tree, batch: Batch, key: Key) -> Estimate:
        """The gradient estimate of one segment. It is pure: it changes none of its arguments.

        If the cell decorrelates its input, the inputs are already decorrelated.
        """
        raise NotImplementedError
