"""The recurrent network being trained: affine maps, then dynamics that each unit has for itself.

    z_t   = [ĥ_{t-1}, x̂_t, 1]                        what a unit can see, m
    a_t^g = W^g z_t                      g = 1…G      pre-activations: G gates of n units
    s_t   = f(s_{t-1}, a_t; φ)                        S numbers a unit, elementwise; φ: its own parameters
    h_t   = o(s_t)                                    Q numbers a unit
    ĥ_t   = D h_t                                     only when the cell is decorrelated; else ĥ_t = h_t
    x̂_t   = D_in x_t                                  only when its input is decorrelated too; else x̂_t = x_t
    y_t   = W_out ĥ_t + c                             W_out [ĥ_t, x̂_t] + c where the cell `skips`
    L     = Σ_t Σ_b w_tb ℓ(y_tb, y*_tb)               the harness scales the weights w to sum to 1

A cell is a subclass: G, S, Q, what its gates see, f, o, and how its weights start. All that a rule needs of a
unit are small matrices, one a unit: `carry` ∂s_t/∂s_{t-1}, `slope` ∂s_t/∂a_t, ∂h_t/∂s_t and ∂s_t/∂φ. The
matrix of a unit where S = G = Q = 1 is a number, and has no axes of its own.

Parameters are a dict of arrays: W_in [gates with input · n, I], W_rec [gates with recurrence · n, Q n],
W_out [O, Q n]; with `bias`, also b [gates with bias · n] and c [O]; φ by their names, [n]; with
decorrelation, also D [Q n, Q n] and D_in [I, I]. Rows are ordered by gate, then unit. Vectors over the
numbers of all units, [S n], [G n] and [Q n], have the same order: all units' first numbers come first.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from creditbench.errors import UsageError
from creditbench.ops.base import Array, NumpyTree, Ops, Outer, Tree

Decorrelate = Literal["none", "hidden", "both"]
DECORRELATE: tuple[Decorrelate, ...] = ("none", "hidden", "both")


class CellState(NamedTuple):
    """The state of B rows.

    >>> tuple(end.out.shape), len(end.s)
    ((5, 3), 1)
    """

    s: tuple[Array, ...]  #: the S numbers of each unit, [B, n] each
    h_hat: Array | None  #: ĥ, [B, Q n]; None where it is the first number of s

    @property
    def out(self) -> Array:
        """ĥ: the input of the recurrence, [B, Q n]."""
        return self.s[0] if self.h_hat is None else self.h_hat


class Unrolled(NamedTuple):
    """The values of every step of a segment, as R rows.

    >>> tuple(unrolled.a.shape), tuple(unrolled.out.shape)
    ((20, 3), (20, 3))
    """

    a: Array  #: pre-activation, [R, G n]
    before: Array  #: ĥ_{t-1}, [R, Q n]
    out: Array  #: what the readout sees: ĥ_t, [R, Q n]; [ĥ_t, x̂_t] where the cell skips
    s: tuple[Array, ...] | None  #: s from the start on, [B + R, n] each; None where no derivative needs it

    @property
    def layers(self) -> tuple[Unrolled, ...]:
        """The values of each layer: these alone."""
        return (self,)

    @property
    def hidden(self) -> Array:
        """ĥ of all layers, [R, sum of Q n], after which the readout's other inputs may come."""
        return self.out

    def presynaptic(self, x: Array) -> Presynaptic:
        """What the weights of each layer and of the readout multiply; x̂ is `x` [R, I]."""
        return Presynaptic((x,), (self.before,), self.out)


class Presynaptic(NamedTuple):
    """What weights multiply, at R rows: W_in of each layer, W_rec of each layer, W_out.

    >>> pre = unrolled.presynaptic(x)
    >>> [tuple(array.shape) for array in (*pre.inputs, *pre.before, pre.out)]
    [(20, 2), (20, 3), (20, 3)]
    """

    inputs: tuple[Array, ...]
    before: tuple[Array, ...]  #: ĥ_{t-1}
    out: Array


class Derivatives(NamedTuple):
    """A unit's derivatives at each row. None stands for what is constant, the identity, or not there.

    >>> now = cell.derivatives(ops, params, unrolled)
    >>> tuple(now.slope.shape), now.out                              # h = s
    ((20, 3), None)
    """

    slope: Array  #: ∂s_t/∂a_t, [R, S, G, n]; [R, n] where S = G = 1
    carry: Array | None = None  #: ∂s_t/∂s_{t-1}, [R, S, S, n]; [R, n] where S = 1; None for the constant 1-α
    out: Array | None = None  #: ∂h_t/∂s_t, [R, Q, S, n]; [R, n] where Q = S = 1; None where h = s
    out_before: Array | None = None  #: the same a step before
    own: Array | None = None  #: ∂s_t/∂φ, [R, S, F, n]; None without φ


def through(M: Array | None, v: Array) -> Array:
    """M v for each unit: M [B, X, Y, n] or, for X = Y = 1, [B, n]; v [B, Y n] or [B, E, Y n]. None is I.

    >>> M = ops.from_numpy(np.array([[[[1.0], [2.0]], [[0.0], [1.0]]]]))    # one unit of two numbers
    >>> through(M, ops.from_numpy(np.array([[1.0, 1.0]]))).tolist()
    [[3.0, 1.0]]
    """
    if M is None:
        return v
    if M.ndim == 2:
        return M * v if v.ndim == 2 else M[:, None] * v
    M = M if v.ndim == 2 else M[:, None]
    X, Y, n = M.shape[-3:]
    v = v.reshape((*v.shape[:-1], 1, Y, n))
    return (M * v).sum(-2).reshape((*v.shape[:-3], X * n))


def back(M: Array | None, v: Array) -> Array:
    """Mᵀ v for each unit: M [B, X, Y, n] or, for X = Y = 1, [B, n]; v [B, X n] or [B, E, X n]. None is I.

    >>> M = ops.from_numpy(np.array([[[[1.0], [2.0]], [[0.0], [1.0]]]]))    # one unit of two numbers
    >>> back(M, ops.from_numpy(np.array([[1.0, 1.0]]))).tolist()
    [[1.0, 3.0]]
    """
    if M is None or M.ndim == 2:
        return through(M, v)
    M = M if v.ndim == 2 else M[:, None]
    X, Y, n = M.shape[-3:]
    v = v.reshape((*v.shape[:-1], X, 1, n))
    return (M * v).sum(-3).reshape((*v.shape[:-3], Y * n))


@dataclass(frozen=True)
class Cell(abc.ABC):
    """A network of one kind of unit. Its fields after `loss` are the unit's own constants.

    >>> cell.shapes()
    {'W_in': (3, 2), 'W_rec': (3, 3), 'W_out': (1, 3)}
    >>> tuple(cell.run(ops, params, ops.from_numpy(np.ones((4, 5, 2)))).shape)
    (4, 5, 1)
    """

    id: ClassVar[str]
    name: ClassVar[str]
    paper: ClassVar[str]  #: authors, year, DOI or arXiv number
    S: ClassVar[int] = 1  #: numbers of a unit's state
    G: ClassVar[int] = 1  #: gates
    Q: ClassVar[int] = 1  #: numbers of a unit that others see
    sees_input: ClassVar[tuple[int, int]] = (0, 1)  #: the gates with weights of the input: from, to
    sees_recurrence: ClassVar[tuple[int, int]] = (0, 1)  #: the gates with recurrent weights: from, to
    phi: ClassVar[tuple[str, ...]] = ()  #: names of a unit's own parameters
    leaky: ClassVar[bool] = False  #: whether `alpha` is its leak: s_t = (1-α) s_{t-1} + α φ(a_t)
    skips: ClassVar[bool] = False  #: whether the readout sees the input too
    spikes: ClassVar[bool] = False  #: whether h is 0 or 1, with a surrogate for its derivative

    inputs: int  #: I
    hidden: int  #: n
    outputs: int  #: O
    alpha: float = 1.0  #: leak, in (0, 1]; 1 is no leak
    bias: bool = False
    decorrelate: Decorrelate = "none"
    loss: Literal["mse", "cross_entropy"] = "mse"

    def __post_init__(self) -> None:
        if self.hidden <= 0:
            raise UsageError(f"hidden is {self.hidden}: a cell needs at least 1 hidden unit")
        if not 0 < self.alpha <= 1:
            raise UsageError(f"alpha is {self.alpha}: the leak of a cell must lie in (0, 1]")
        if self.alpha != 1 and not self.leaky:
            raise UsageError(f"alpha is {self.alpha}: the cell {self.id} has no leak; leave alpha out")

    # -- a unit: what a cell defines ---------------------------------------------------------------

    @abc.abstractmethod
    def f(self, ops: Ops, s: tuple, a: tuple, phi: Tree) -> tuple:
        """s_t of s_{t-1}, a tuple of S arrays [..., n], and a_t, a tuple of G; φ by name, [n]."""

    def o(self, ops: Ops, s: tuple) -> tuple:
        """h of s: a tuple of Q arrays [..., n]. It must be 0 at s = 0. By default the first Q numbers."""
        return s[: self.Q]

    def slopes(
        self, ops: Ops, s: tuple, a: tuple, phi: Tree, after: tuple
    ) -> tuple[tuple[tuple, ...], tuple[tuple, ...], tuple[tuple, ...]]:
        """(∂s_t/∂s_{t-1}, ∂s_t/∂a_t, ∂s_t/∂φ), rows and columns of arrays [R, n], or 0.0 for nothing.

        `after`: s_t. By default they come from the framework's forward mode of `f`.
        """
        own = tuple(phi[name] + 0.0 * s[0] for name in self.phi)

        S, G = self.S, self.G

        def f(*values):
            own = dict(zip(self.phi, values[S + G :], strict=True))
            return self.f(ops, values[:S], values[S : S + G], own)

        columns = list(_columns(ops, f, (*s, *a, *own)))

        def rows(columns):
            return tuple(tuple(column[k] for column in columns) for k in range(S))

        return rows(columns[:S]), rows(columns[S : S + G]), rows(columns[S + G :])

    def out_slopes(self, ops: Ops, s: tuple) -> tuple[tuple, ...]:
        """∂h_t/∂s_t, rows and columns of arrays [R, n], or 0.0. By default from the forward mode of `o`."""
        columns = list(_columns(ops, lambda *s: self.o(ops, s), s))
        return tuple(tuple(column[q] for column in columns) for q in range(self.Q))

    def own_parameters(self, rng: np.random.Generator) -> NumpyTree:
        """φ at the start, by name, [n]."""
        return {}

    def first_bias(self) -> Any:
        """b at the start, [G n]."""
        return np.zeros(self.G * self.hidden)

    # -- layers: a cell is the only one of its own -----------------------------------------------------

    @property
    def layers(self) -> tuple[Cell, ...]:
        """The cell of each layer, from the input on."""
        return (self,)

    def of_layer(self, values: Tree, layer: int) -> Tree:
        """The parameters of a layer among `values`, under the names that its cell has for them."""
        return values

    def of_all(self, grads: Tree, layer: int) -> Tree:
        """The gradients of a layer's parameters, under their names in the network."""
        return grads

    def by_layer(self, values: Array, size: int) -> list[Array]:
        """[..., size · layers] as an array [..., size] for each layer."""
        return [values]

    # -- sizes ---------------------------------------------------------------------------------------

    @property
    def scalar(self) -> bool:
        """Whether S = G = Q = 1: no unit has a matrix."""
        return self.S == self.G == self.Q == 1

    @property
    def keeps_state(self) -> bool:
        """Whether the derivatives need s of every step."""
        return type(self).derivatives is Cell.derivatives

    @property
    def keeps_out(self) -> bool:
        """Whether h is other than the first number of s."""
        return self.Q > 1 or type(self).o is not Cell.o

    @property
    def recurrent(self) -> bool:
        """Whether any gate sees ĥ. If none does, a unit acts on itself alone."""
        return self.sees_recurrence[1] > self.sees_recurrence[0]

    @property
    def state_size(self) -> int:
        """S n."""
        return self.S * self.hidden

    @property
    def units(self) -> int:
        """G n: the number of pre-activations."""
        return self.G * self.hidden

    @property
    def width(self) -> int:
        """Q n: the size of ĥ."""
        return self.Q * self.hidden

    @property
    def seen(self) -> int:
        """The size of what the readout sees: of ĥ, and of x̂ where the cell skips."""
        return self.width + self.skips * self.inputs

    @property
    def fan_in(self) -> int:
        """m: the size of what a unit sees: ĥ where the cell is recurrent, x̂, and with `bias` 1."""
        return self.recurrent * self.width + self.inputs + self.bias

    @property
    def parameters(self) -> int:
        """M: the parameters of a unit: m weights for each gate, and φ."""
        return self.G * self.fan_in + len(self.phi)

    # -- parameters ------------------------------------------------------------------------------------

    def init(self, seed: int) -> NumpyTree:
        """Xavier-normal weights, zero biases, identity decorrelation, as NumPy arrays of float64."""
        rng = np.random.default_rng([seed, 0xCE11])

        def xavier(gates: int, columns: int, rows: int = self.hidden):
            return rng.standard_normal((gates * rows, columns)) * np.sqrt(2.0 / (rows + columns))

        params = {"W_in": xavier(_length(self.sees_input), self.inputs)}
        if self.recurrent:
            params["W_rec"] = xavier(_length(self.sees_recurrence), self.width)
        params["W_out"] = xavier(1, self.seen, self.outputs)
        if self.bias:
            params |= {"b": self.first_bias(), "c": np.zeros(self.outputs)}
        params |= self.own_parameters(rng)
        if self.decorrelate != "none":
            params["D"] = np.eye(self.width)
        if self.decorrelate == "both":
            params["D_in"] = np.eye(self.inputs)
        return params

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each parameter that a learning rule trains."""
        n = self.hidden
        shapes: dict[str, tuple[int, ...]] = {"W_in": (_length(self.sees_input) * n, self.inputs)}
        if self.recurrent:
            shapes["W_rec"] = (_length(self.sees_recurrence) * n, self.width)
        shapes["W_out"] = (self.outputs, self.seen)
        if self.bias:
            shapes |= {"b": (self.units,), "c": (self.outputs,)}
        return shapes | dict.fromkeys(self.phi, (n,))

    def trainable(self, params: Tree) -> Tree:
        """The parameters that a learning rule trains: all but the decorrelation matrices."""
        return {name: value for name, value in params.items() if name not in ("D", "D_in")}

    def recurrent_weights(self, ops: Ops, params: Tree) -> Array:
        """W_rec with rows of zeros for the gates that have no recurrent weights, [G n, Q n]."""
        return self.all_gates(ops, params["W_rec"], self.sees_recurrence, axis=0)

    def recurrence(self, ops: Ops, params: Tree) -> Array | None:
        """`recurrent_weights`, or None where there are none: for `step`, where there are many steps."""
        return self.recurrent_weights(ops, params) if self.recurrent else None

    def readout_weights(self, params: Tree) -> Array:
        """The part of W_out that sees ĥ, [O, Q n]."""
        return params["W_out"][:, : self.width] if self.skips else params["W_out"]

    def all_gates(self, ops: Ops, values: Array, gates: tuple[int, int], axis: int = -1) -> Array:
        """Values of the gates from, to, with zeros for the other gates: `axis` has length G n then."""
        parts = [values]
        for k, missing in enumerate((gates[0], self.G - gates[1])):
            if missing:
                shape = list(values.shape)
                shape[axis] = missing * self.hidden
                parts.insert(0 if k == 0 else len(parts), ops.zeros(tuple(shape)))
        return values if len(parts) == 1 else ops.xp.concat(parts, axis=axis)

    def of_gates(self, values: Array, gates: tuple[int, int]) -> Array:
        """The columns of [..., G n] that belong to the gates from, to."""
        if _length(gates) == self.G:
            return values
        return values[..., gates[0] * self.hidden : gates[1] * self.hidden]

    # -- the forward pass ------------------------------------------------------------------------------

    def start(self, ops: Ops, rows: int) -> CellState:
        """The state before the first step: zero."""
        s = tuple(ops.zeros((rows, self.hidden)) for _ in range(self.S))
        kept = self.keeps_out or self.decorrelate != "none"
        return CellState(s, ops.zeros((rows, self.width)) if kept else None)

    def encode(self, params: Tree, inputs: Array) -> Array:
        """x̂ of inputs [..., I]."""
        return inputs @ params["D_in"].T if "D_in" in params else inputs

    def drive(self, ops: Ops, params: Tree, x: Array) -> Array:
        """W_in x̂ + b for rows of decorrelated inputs [rows, I], as [rows, G n]."""
        bias = params["b"] if self.bias else None
        if _length(self.sees_input) == self.G:
            return ops.linear(x, params["W_in"], bias)
        driven = self.all_gates(ops, ops.linear(x, params["W_in"]), self.sees_input)
        return driven if bias is None else driven + bias

    def step(
        self, ops: Ops, params: Tree, state: CellState, drive: Array, W: Array | None = None
    ) -> tuple[Array, CellState]:
        """One step, as (pre-activation a [B, G n], state).

        `drive`: all terms of the pre-activation except the recurrence, [B, G n] or [1, G n]. `W`: the
        recurrent weights of all gates, from `recurrent_weights`, where there are many steps.
        """
        if self.recurrent:
            W = self.recurrent_weights(ops, params) if W is None else W
            drive = ops.linear(state.out, W, drive)
        return drive, self.activate(ops, params, state, drive)

    def activate(self, ops: Ops, params: Tree, state: CellState, a: Array) -> CellState:
        """The state that follows from the pre-activation a [B, G n]."""
        s = self.f(ops, state.s, self._parts(a, self.G), {name: params[name] for name in self.phi})
        if self.keeps_out:
            h = self.o(ops, s)
            out = h[0] if self.Q == 1 else ops.xp.concat(h, axis=-1)
        else:
            out = s[0]
        if self.decorrelate != "none":
            return CellState(s, ops.linear(out, params["D"]))
        return CellState(s, out if self.keeps_out else None)

    def unroll(
        self,
        ops: Ops,
        params: Tree,
        state: CellState,
        x: Array,
        steps: int,
        noise: Array | None = None,
        drive: Array | None = None,
    ) -> tuple[CellState, Unrolled]:
        """All steps of a segment: (last state, the values of every step).

        `x`: the decorrelated inputs of all steps, as R = steps·B rows, [R, I]. `noise` [R, G n] is added to
        the pre-activations. `drive`: that of x, where it is known already.
        """
        xp, keeps = ops.xp, self.keeps_state
        drive = self.drive(ops, params, x) if drive is None else drive
        if noise is not None:
            drive = drive + noise
        if steps == 1:
            a, after = self.step(ops, params, state, drive)
            s = tuple(xp.concat(pair) for pair in zip(state.s, after.s, strict=True)) if keeps else None
            return after, Unrolled(a, state.out, self.see(ops, after, x), s)
        W = self.recurrence(ops, params)

        def step(state, drive):
            a, after = self.step(ops, params, state, drive, W)
            return after, (a, after.out, after.s if keeps else None)

        after, (a, out, s) = ops.scan(step, state, drive.reshape((steps, -1, self.units)))
        before = xp.concat((state.out[None], out[:-1]))
        a, before, out = (r.reshape((-1, r.shape[-1])) for r in (a, before, out))
        if keeps:
            s = tuple(
                xp.concat((first, rest.reshape((-1, self.hidden))))
                for first, rest in zip(state.s, s, strict=True)
            )
        return after, Unrolled(a, before, ops.xp.concat((out, x), axis=-1) if self.skips else out, s)

    def see(self, ops: Ops, state: CellState, x: Array) -> Array:
        """What the readout sees after a step with the inputs x̂ [B, I]."""
        return ops.xp.concat((state.out, x), axis=-1) if self.skips else state.out

    def readout(self, ops: Ops, params: Tree, out: Array, noise: Array | None = None) -> Array:
        """y = W_out ĥ + c (+ noise [rows, O]) for rows of what the readout sees, as [rows, O]."""
        if self.bias:
            noise = params["c"] if noise is None else params["c"] + noise
        return ops.linear(out, params["W_out"], noise)

    def run(self, ops: Ops, params: Tree, inputs: Array) -> Array:
        """The forward pass from the zero state over inputs [T, B, I], as outputs [T, B, O].

        Only the recurrence goes step by step. Input and readout are products over a chunk of steps.
        """
        B = inputs.shape[1]
        W = self.recurrence(ops, params)

        def step(state, drive):
            _, state = self.step(ops, params, state, drive, W)
            return state, state.out

        def chunk(state, x):
            steps = x.shape[0]
            x = self.encode(params, x.reshape((-1, self.inputs)))
            state, out = ops.scan(step, state, self.drive(ops, params, x).reshape((steps, B, self.units)))
            seen = out.reshape((-1, self.width))
            seen = ops.xp.concat((seen, x), axis=-1) if self.skips else seen
            return state, self.readout(ops, params, seen).reshape((steps, B, -1))

        size = max(1, min(64, 4096 // B))
        return ops.scan_chunks(chunk, self.start(ops, B), inputs, size)[1]

    # -- the loss ----------------------------------------------------------------------------------------

    def losses(self, ops: Ops, y: Array, target: Array) -> Array:
        """ℓ of each row, [..., O] and [..., O] to [...]: squared error or cross-entropy of the softmax.

        The squared error is the mean over the outputs.
        """
        xp = ops.xp
        if self.loss == "mse":
            error = y - target
            return (error * error).mean(-1) if self.outputs > 1 else (error * error)[..., 0]
        return -xp.sum(target * _log_softmax(xp, y), axis=-1)

    def error(self, ops: Ops, y: Array, target: Array) -> Array:
        """∂ℓ/∂y, [..., O]."""
        if self.loss == "mse":
            return (2.0 / self.outputs) * (y - target)
        return ops.xp.exp(_log_softmax(ops.xp, y)) * ops.xp.sum(target, axis=-1, keepdims=True) - target

    # -- derivatives -------------------------------------------------------------------------------------

    def derivatives(self, ops: Ops, params: Tree, unrolled: Unrolled) -> Derivatives:
        """The derivatives of every unit at each of the R rows."""
        assert unrolled.s is not None
        a = self._parts(unrolled.a, self.G)
        R = a[0].shape[0]
        B = unrolled.s[0].shape[0] - R
        before, after = tuple(s[:R] for s in unrolled.s), tuple(s[B:] for s in unrolled.s)
        phi = {name: params[name] for name in self.phi}
        carry, slope, own = self.slopes(ops, before, a, phi, after)
        out = None
        if self.keeps_out or self.S > 1:
            out = self._matrix(ops, self.out_slopes(ops, unrolled.s), unrolled.s[0])
        return Derivatives(
            self._matrix(ops, slope, a[0]),
            self._matrix(ops, carry, a[0]),
            None if out is None else out[B:],
            None if out is None else out[:R],
            self._matrix(ops, own, a[0]).reshape((R, self.S, -1, self.hidden)) if self.phi else None,
        )

    def _parts(self, values: Array, count: int) -> tuple[Array, ...]:
        """[..., count·n] as `count` arrays [..., n]."""
        n = self.hidden
        return (values,) if count == 1 else tuple(values[..., k * n : (k + 1) * n] for k in range(count))

    def _matrix(self, ops: Ops, rows: tuple[tuple, ...], like: Array) -> Array:
        """Rows and columns of arrays [R, n], which `like` has the shape of, as [R, rows, columns, n].

        One row and column are an array [R, n].
        """
        xp = ops.xp
        if len(rows) == len(rows[0]) == 1:
            return rows[0][0] + xp.zeros_like(like)
        entries = [x + xp.zeros_like(like) for row in rows for x in row]
        return xp.stack(entries, axis=1).reshape((like.shape[0], len(rows), len(rows[0]), like.shape[1]))

    def feedback(self, params: Tree, e: Array) -> Array:
        """Dᵀ W_outᵀ e: the gradient in h of a loss whose gradient in y is e [R, O]. Shape [R, Q n]."""
        return self.back_to_h(params, e @ self.readout_weights(params))

    def back_to_h(self, params: Tree, to_seen: Array) -> Array:
        """The gradient in h, [R, Q n], of a loss whose gradient in what the readout sees is `to_seen`."""
        to_h_hat = to_seen[:, : self.width] if self.skips else to_seen
        return to_h_hat @ params["D"] if "D" in params else to_h_hat

    def back_to_input(self, params: Tree, post: Array, to_seen: Array) -> Array:
        """The gradient in x̂ of the same step, [R, I], given those in a and in what the readout sees."""
        to_x = self.of_gates(post, self.sees_input) @ params["W_in"]
        return to_x + to_seen[:, self.width :] if self.skips else to_x

    def through_recurrence(self, ops: Ops, params: Tree, tangents: Array) -> Array:
        """W_rec D v for rows v [R, Q n]: the change of a_t, [R, G n], due to the change v of h_{t-1}."""
        if "D" in params:
            tangents = ops.linear(tangents, params["D"])
        return ops.linear(tangents, self.recurrent_weights(ops, params))

    def back_through_recurrence(self, params: Tree, cotangents: Array) -> Array:
        """Dᵀ W_recᵀ s for rows s [R, G n]: the gradient in h_{t-1} of a loss whose gradient in a_t is s."""
        to_h_hat = self.of_gates(cotangents, self.sees_recurrence) @ params["W_rec"]
        return to_h_hat @ params["D"] if "D" in params else to_h_hat

    def recurrence_matrix(self, ops: Ops, params: Tree) -> Array:
        """W_rec D of all gates, [G n, Q n]: the change of a_t due to each h_{t-1}."""
        W = self.recurrent_weights(ops, params)
        return W @ params["D"] if "D" in params else W

    def own_recurrence(self, ops: Ops, params: Tree) -> Array:
        """The part of `recurrence_matrix` from each unit to itself, [G, Q, n]; [n] for G = Q = 1."""
        xp, n, W, D = ops.xp, self.hidden, self.recurrent_weights(ops, params), params.get("D")
        if self.G == self.Q == 1:
            return xp.linalg.diagonal(W) if D is None else xp.sum(W * D.T, axis=1)
        W = W if D is None else W @ D
        return xp.linalg.diagonal(xp.permute_dims(W.reshape((self.G, n, self.Q, n)), (0, 2, 1, 3)))

    def transition(self, ops: Ops, W: Array, now: Any) -> Array:
        """H_t = ∂s_t/∂s_{t-1}, [B, S n, S n], with W from `recurrence_matrix`."""
        xp, S, n, B = ops.xp, self.S, self.hidden, now.slope.shape[0]
        if self.scalar:
            H = now.slope[:, :, None] * (W if now.out_before is None else W * now.out_before[:, None, :])
        else:
            W = W.reshape((1, self.G, n, self.Q, 1, n))
            by_state = W if now.out_before is None else W * _full(now.out_before)[:, None, None]
            by_state = by_state.sum(3).reshape((-1, 1, self.G, n, S * n))
            H = (_full(now.slope)[..., None] * by_state).sum(2).reshape((B, S * n, S * n))
        if S == 1:
            if self.forgets:
                return H
            carry = (1.0 - self.alpha) * xp.ones_like(now.slope) if now.carry is None else now.carry
            return ops.add_diagonal(H, carry)
        blocks = xp.permute_dims(now.carry, (0, 1, 3, 2))[..., None]  # [B, S, n, S, 1]
        return H + (blocks * ops.from_numpy(np.eye(n))[:, None, :]).reshape(H.shape)

    def own_transition(self, ops: Ops, own: Array, now: Any) -> Array:
        """The part of H_t that acts from each unit on itself, [B, S, S, n]; [B, n] for S = 1.

        `own` comes from `own_recurrence`.
        """
        if self.scalar:
            H = now.slope * own if now.out_before is None else now.slope * own * now.out_before
        else:
            own = own.reshape((1, self.G, self.Q, 1, -1))
            by_state = own if now.out_before is None else own * _full(now.out_before)[:, None]
            H = (_full(now.slope)[:, :, :, None] * by_state.sum(2)[:, None]).sum(2)
            H = H[:, 0, 0] if self.S == 1 else H
        if self.forgets:
            return H
        return (1.0 - self.alpha) + H if now.carry is None else now.carry + H

    def push(self, ops: Ops, params: Tree, now: Any, v: Array) -> Array:
        """H_t v = carry v + slope W_rec D ∂h/∂s v: the change of s_t due to the change v of s_{t-1}.

        `now`: what has the entries of `Derivatives` for B rows. `v`: [B, S n], or [B, E, S n].
        """
        if not self.recurrent:
            return self.carried(now, v)
        h = through(now.out_before, v)
        a = self.through_recurrence(ops, params, h.reshape((-1, self.width)))
        moved = through(now.slope, a.reshape((*v.shape[:-1], self.units)))
        return moved if self.forgets else moved + self.carried(now, v)

    def pull(self, params: Tree, now: Any, g: Array, post: Array) -> Array:
        """H_tᵀ g: the gradient in s_{t-1} of a loss whose gradient in s_t is g [B, S n].

        `post` is slopeᵀ g, the gradient in a_t, [B, G n].
        """
        if not self.recurrent:
            return self.carried_back(now, g)
        moved = back(now.out_before, self.back_through_recurrence(params, post))
        return moved if self.forgets else moved + self.carried_back(now, g)

    @property
    def forgets(self) -> bool:
        """Whether carry is 0: nothing of s_t comes from s_{t-1} but by the recurrence."""
        return self.leaky and self.alpha == 1.0

    def carried(self, now: Any, v: Array) -> Array:
        """carry v of v [B, S n], or [B, E, S n]."""
        return (1.0 - self.alpha) * v if now.carry is None else through(now.carry, v)

    def carried_back(self, now: Any, v: Array) -> Array:
        """carryᵀ v of v [B, S n]."""
        return (1.0 - self.alpha) * v if now.carry is None else back(now.carry, v)

    # -- gradients by the names of parameters ------------------------------------------------------------

    def gradient(self, ops: Ops, post: Array, pre: Presynaptic, post_y: Array) -> Tree:
        """The gradient of a rule that multiplies post- and presynaptic terms, summed over rows.

        `post` [R, G n] stands for ∂L/∂a, and `post_y` [R, O] for ∂L/∂y. Matrices are returned as their
        factors. φ, which has no presynaptic term, gets 0.
        """
        grads: dict[str, Any] = {"W_in": Outer(self.of_gates(post, self.sees_input), pre.inputs[0])}
        if self.recurrent:
            grads["W_rec"] = Outer(self.of_gates(post, self.sees_recurrence), pre.before[0])
        grads["W_out"] = Outer(post_y, pre.out)
        if self.bias:
            grads |= {"b": ops.xp.sum(post, axis=0), "c": ops.xp.sum(post_y, axis=0)}
        return grads | self.nothing_for_own(ops)

    def nothing_for_own(self, ops: Ops, *rows: int) -> Tree:
        """Zeros for φ, by name, [*rows, n]."""
        return {name: ops.zeros((*rows, self.hidden)) for name in self.phi}

    def gradient_by_row(self, ops: Ops, post: Array, pre: Presynaptic, post_y: Array) -> Tree:
        """The gradient of each of B sequences, summed over K steps: arrays [B, *shape].

        The arguments are those of `gradient`, with [K, B] in place of [R].
        """
        xp = ops.xp

        def product(post, pre):
            return xp.permute_dims(post, (1, 2, 0)) @ xp.permute_dims(pre, (1, 0, 2))

        sums = {"W_in": product(self.of_gates(post, self.sees_input), pre.inputs[0])}
        if self.recurrent:
            sums["W_rec"] = product(self.of_gates(post, self.sees_recurrence), pre.before[0])
        sums["W_out"] = product(post_y, pre.out)
        sums |= self.nothing_for_own(ops, post.shape[1])
        return sums | {"b": post.sum(0), "c": post_y.sum(0)} if self.bias else sums

    def own_gradient(self, ops: Ops, own: Array | None, g: Array) -> Tree:
        """The gradient of φ, by name, given ∂s_t/∂φ and ∂L/∂s_t [R, S n], summed over rows."""
        if own is None:
            return {}
        found = ops.xp.sum(back(own, g), axis=0)
        return dict(zip(self.phi, self._parts(found, len(self.phi)), strict=True))

    def by_parameter(self, ops: Ops, gradient: Array | Outer) -> Tree:
        """The gradient of a unit's M parameters, [n, M], or factors [R, G n], [R, m], under their names."""
        n, m, w = self.hidden, self.fan_in, self.recurrent * self.width
        grads: dict[str, Any] = {}
        if isinstance(gradient, Outer):
            post, pre = gradient
            if self.recurrent:
                grads["W_rec"] = Outer(self.of_gates(post, self.sees_recurrence), pre[:, :w])
            grads["W_in"] = Outer(self.of_gates(post, self.sees_input), pre[:, w : w + self.inputs])
            grads |= self.nothing_for_own(ops)
            return grads | {"b": ops.xp.sum(post * pre[:, m - 1 :], axis=0)} if self.bias else grads
        weights = gradient
        if self.G > 1 or self.phi:
            weights = gradient[:, : self.G * m].reshape((n, self.G, m))
            weights = ops.xp.permute_dims(weights, (1, 0, 2)).reshape((self.G * n, m))
            for k, name in enumerate(self.phi):
                grads[name] = gradient[:, self.G * m + k]

        def of(gates: tuple[int, int]) -> Array:
            return weights if _length(gates) == self.G else weights[gates[0] * n : gates[1] * n]

        if self.recurrent:
            grads["W_rec"] = of(self.sees_recurrence)[:, :w]
        grads["W_in"] = of(self.sees_input)[:, w : w + self.inputs]
        return grads | {"b": weights[:, m - 1]} if self.bias else grads


def _columns(ops: Ops, f: Any, values: tuple) -> Iterator[tuple]:
    """The derivative of an elementwise f in each of its arguments: for each, a tuple like f's result."""
    zeros = tuple(ops.xp.zeros_like(x) for x in values)
    for k, value in enumerate(values):
        tangents = (*zeros[:k], ops.xp.ones_like(value), *zeros[k + 1 :])
        yield ops.jvp(f, values, tangents)[1]


def _full(M: Array) -> Array:
    """[R, n] as [R, 1, 1, n]; what has four axes stays."""
    return M[:, None, None] if M.ndim == 2 else M


def _length(gates: tuple[int, int]) -> int:
    return gates[1] - gates[0]


def _log_softmax(xp: Any, y: Array) -> Array:
    shifted = y - xp.max(y, axis=-1, keepdims=True)
    return shifted - xp.log(xp.sum(xp.exp(shifted), axis=-1, keepdims=True))
