"""The recurrent network being trained: a leaky tanh RNN with a linear readout.

    a_t = W_in x̂_t + W_rec ĥ_{t-1} + b            pre-activation, n
    h_t = (1-α) h_{t-1} + α tanh(a_t)
    ĥ_t = D h_t                                    only when the cell is decorrelated; else ĥ_t = h_t
    x̂_t = D_in x_t                                 only when its input is decorrelated too; else x̂_t = x_t
    y_t = W_out ĥ_t + c
    L   = Σ_t Σ_b w_tb ℓ(y_tb, y*_tb)              the harness scales the weights w to sum to 1

Parameters are a dict of arrays: W_in [n, I], W_rec [n, n], W_out [O, n]; with `bias`, also b [n] and c [O];
with decorrelation, also D [n, n] and D_in [I, I].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from creditbench.errors import UsageError
from creditbench.ops.base import Array, NumpyTree, Ops, Outer, Tree

Decorrelate = Literal["none", "hidden", "both"]
DECORRELATE: tuple[Decorrelate, ...] = ("none", "hidden", "both")


class CellState(NamedTuple):
    """The state of B rows."""

    h: Array  #: activity, [B, n]
    h_hat: Array | None  #: decorrelated activity, [B, n]; None when the cell is not decorrelated

    @property
    def out(self) -> Array:
        """ĥ: the input of the recurrence and of the readout, [B, n]."""
        return self.h if self.h_hat is None else self.h_hat


class Unrolled(NamedTuple):
    """The values of every step of a segment, as R rows."""

    a: Array  #: pre-activation, [R, n]
    before: Array  #: ĥ_{t-1}, [R, n]
    out: Array  #: ĥ_t, [R, n]


@dataclass(frozen=True)
class Cell:
    inputs: int  #: I
    hidden: int  #: n
    outputs: int  #: O
    alpha: float = 1.0  #: leak, in (0, 1]; 1 is the vanilla RNN
    bias: bool = False
    decorrelate: Decorrelate = "none"
    loss: Literal["mse", "cross_entropy"] = "mse"

    def __post_init__(self) -> None:
        if self.hidden <= 0:
            raise UsageError(f"hidden is {self.hidden}: a cell needs at least 1 hidden unit")
        if not 0 < self.alpha <= 1:
            raise UsageError(f"alpha is {self.alpha}: the leak of a cell must lie in (0, 1]")

    @property
    def presynaptic(self) -> int:
        """m: the number of weights of a hidden unit, from ĥ, x̂ and, with `bias`, 1."""
        return self.hidden + self.inputs + self.bias

    def init(self, seed: int) -> NumpyTree:
        """Xavier-normal weights, zero biases, identity decorrelation, as NumPy arrays of float64."""
        rng = np.random.default_rng([seed, 0xCE11])

        def xavier(rows: int, columns: int):
            return rng.standard_normal((rows, columns)) * np.sqrt(2.0 / (rows + columns))

        n = self.hidden
        params = {"W_in": xavier(n, self.inputs), "W_rec": xavier(n, n), "W_out": xavier(self.outputs, n)}
        if self.bias:
            params |= {"b": np.zeros(n), "c": np.zeros(self.outputs)}
        if self.decorrelate != "none":
            params["D"] = np.eye(n)
        if self.decorrelate == "both":
            params["D_in"] = np.eye(self.inputs)
        return params

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each parameter that a learning rule trains."""
        n = self.hidden
        shapes: dict[str, tuple[int, ...]] = {
            "W_in": (n, self.inputs),
            "W_rec": (n, n),
            "W_out": (self.outputs, n),
        }
        return shapes | {"b": (n,), "c": (self.outputs,)} if self.bias else shapes

    def trainable(self, params: Tree) -> Tree:
        """The parameters that a learning rule trains: all but the decorrelation matrices."""
        return {name: value for name, value in params.items() if name not in ("D", "D_in")}

    def start(self, ops: Ops, rows: int) -> CellState:
        """The state before the first step: zero."""
        shape = (rows, self.hidden)
        return CellState(ops.zeros(shape), None if self.decorrelate == "none" else ops.zeros(shape))

    def encode(self, params: Tree, inputs: Array) -> Array:
        """x̂ of inputs [..., I]."""
        return inputs @ params["D_in"].T if "D_in" in params else inputs

    def drive(self, ops: Ops, params: Tree, x: Array) -> Array:
        """W_in x̂ + b for rows of decorrelated inputs [rows, I], as [rows, n]."""
        return ops.linear(x, params["W_in"], params["b"] if self.bias else None)

    def step(self, ops: Ops, params: Tree, state: CellState, drive: Array) -> tuple[Array, CellState]:
        """One step, as (pre-activation a [B, n], state).

        `drive`: all terms of the pre-activation except the recurrence, [B, n] or [1, n].
        """
        a = ops.linear(state.out, params["W_rec"], drive)
        return a, self.activate(ops, params, state, a)

    def activate(self, ops: Ops, params: Tree, state: CellState, a: Array) -> CellState:
        """The state that follows from the pre-activation a [B, n]."""
        h = ops.xp.tanh(a)
        if self.alpha != 1.0:
            h = (1.0 - self.alpha) * state.h + self.alpha * h
        return CellState(h, None if self.decorrelate == "none" else ops.linear(h, params["D"]))

    def unroll(
        self, ops: Ops, params: Tree, state: CellState, drive: Array, steps: int
    ) -> tuple[CellState, Unrolled]:
        """All steps of a segment: (last state, the values of every step).

        `drive`: the drives of all steps, as R = steps·B rows, [R, n].
        """
        if steps == 1:
            a, after = self.step(ops, params, state, drive)
            return after, Unrolled(a, state.out, after.out)

        def step(state, drive):
            a, after = self.step(ops, params, state, drive)
            return after, (a, after.out)

        after, (a, out) = ops.scan(step, state, drive.reshape((steps, -1, self.hidden)))
        before = ops.xp.concat((state.out[None], out[:-1]))
        return after, Unrolled(*(x.reshape((-1, self.hidden)) for x in (a, before, out)))

    def readout(self, ops: Ops, params: Tree, h_hat: Array, noise: Array | None = None) -> Array:
        """y = W_out ĥ + c (+ noise [rows, O]) for rows ĥ [rows, n], as [rows, O]."""
        if self.bias:
            noise = params["c"] if noise is None else params["c"] + noise
        return ops.linear(h_hat, params["W_out"], noise)

    def slope(self, ops: Ops, unrolled: Unrolled) -> Array:
        """α tanh'(a) = ∂h/∂a of each row, [R, n]."""
        phi = unrolled.out if self.alpha == 1.0 and self.decorrelate == "none" else ops.xp.tanh(unrolled.a)
        slope = 1.0 - phi * phi
        return slope if self.alpha == 1.0 else self.alpha * slope

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

    def feedback(self, params: Tree, e: Array) -> Array:
        """Dᵀ W_outᵀ e: the gradient in h of a loss whose gradient in y is e [R, O]. Shape [R, n]."""
        to_h_hat = e @ params["W_out"]
        return to_h_hat @ params["D"] if "D" in params else to_h_hat

    def through_recurrence(self, ops: Ops, params: Tree, tangents: Array) -> Array:
        """W_rec D v for rows v [R, n]: the change of a_t due to the change v of h_{t-1}."""
        if "D" in params:
            tangents = ops.linear(tangents, params["D"])
        return ops.linear(tangents, params["W_rec"])

    def back_through_recurrence(self, params: Tree, cotangents: Array) -> Array:
        """Dᵀ W_recᵀ s for rows s [R, n]: the gradient in h_{t-1} of a loss whose gradient in a_t is s."""
        to_h_hat = cotangents @ params["W_rec"]
        return to_h_hat @ params["D"] if "D" in params else to_h_hat

    def run(self, ops: Ops, params: Tree, inputs: Array) -> Array:
        """The forward pass from the zero state over inputs [T, B, I], as outputs [T, B, O].

        Only the recurrence goes step by step. Input and readout are products over a chunk of steps.
        """
        B = inputs.shape[1]

        def step(state, drive):
            _, state = self.step(ops, params, state, drive)
            return state, state.out

        def chunk(state, x):
            steps = x.shape[0]
            drive = self.drive(ops, params, self.encode(params, x.reshape((-1, self.inputs))))
            state, out = ops.scan(step, state, drive.reshape((steps, B, self.hidden)))
            return state, self.readout(ops, params, out.reshape((-1, self.hidden))).reshape((steps, B, -1))

        size = max(1, min(64, 4096 // B))
        return ops.scan_chunks(chunk, self.start(ops, B), inputs, size)[1]

    def gradient(
        self, ops: Ops, post: Array, x: Array, h_hat_before: Array, post_y: Array, h_hat: Array
    ) -> Tree:
        """The gradient of a rule that multiplies post- and presynaptic terms, summed over rows.

        `post` [R, n] stands for ∂L/∂a, and `post_y` [R, O] for ∂L/∂y. `x` [R, I], `h_hat_before` [R, n] and
        `h_hat` [R, n] are the presynaptic x̂_t, ĥ_{t-1} and ĥ_t. Matrices are returned as their factors.
        """
        grads: dict[str, Any] = {
            "W_in": Outer(post, x),
            "W_rec": Outer(post, h_hat_before),
            "W_out": Outer(post_y, h_hat),
        }
        if self.bias:
            grads |= {"b": ops.xp.sum(post, axis=0), "c": ops.xp.sum(post_y, axis=0)}
        return grads

    def by_parameter(self, ops: Ops, gradient: Array | Outer) -> Tree:
        """The gradient of [W_rec W_in b], [n, m], under the names of its parameters."""
        n, m = self.hidden, self.hidden + self.inputs
        if isinstance(gradient, Outer):
            post, pre = gradient
            grads = {"W_rec": Outer(post, pre[:, :n]), "W_in": Outer(post, pre[:, n:m])}
            return grads | {"b": ops.xp.sum(post * pre[:, m:], axis=0)} if self.bias else grads
        grads = {"W_rec": gradient[:, :n], "W_in": gradient[:, n:m]}
        return grads | {"b": gradient[:, m]} if self.bias else grads


def _log_softmax(xp: Any, y: Array) -> Array:
    shifted = y - xp.max(y, axis=-1, keepdims=True)
    return shifted - xp.log(xp.sum(xp.exp(shifted), axis=-1, keepdims=True))
