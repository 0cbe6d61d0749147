"""Several layers of one cell. The input of a layer is what the readout would see of the one below.

The parameters of layer k = 2, 3, … have the names of those of a cell, and ".k" after them; the first layer's
have no number. There is one readout, of the last layer. Vectors over all layers, as the pre-activations and
the noise on them, hold the first layer's entries first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from creditbench.cells.base import Cell, CellState, Presynaptic, Unrolled
from creditbench.errors import UsageError
from creditbench.ops.base import Array, NumpyTree, Ops, Tree

#: Parameters of the readout, which belong to no layer.
_OF_READOUT = ("W_out", "c")


class UnrolledLayers(NamedTuple):
    """The values of every step of a segment, as R rows, of several layers."""

    layers: tuple[Unrolled, ...]
    a: Array  #: pre-activations of all layers, [R, sum of G n]
    hidden: Array  #: ĥ of all layers, [R, sum of Q n]

    @property
    def out(self) -> Array:
        """What the readout sees."""
        return self.layers[-1].out

    def presynaptic(self, x: Array) -> Presynaptic:
        """What the weights of each layer and of the readout multiply; x̂ is `x` [R, I]."""
        inputs = (x, *(layer.out for layer in self.layers[:-1]))
        return Presynaptic(inputs, tuple(layer.before for layer in self.layers), self.out)


@dataclass(frozen=True)
class Stack:
    """Layers of one cell, each of `first.hidden` units. Rules see it as they see a cell.

    >>> deep = cb.make_cell("tanh", inputs=2, hidden=3, outputs=1, layers=2)
    >>> sorted(deep.shapes())
    ['W_in', 'W_in.2', 'W_out', 'W_rec', 'W_rec.2']
    """

    first: Cell  #: the first layer
    depth: int  #: how many layers

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise UsageError(f"layers is {self.depth}: a network needs at least 1 layer")

    @cached_property
    def layers(self) -> tuple[Cell, ...]:
        """The cell of each layer, from the input on."""
        layers = [self.first]
        for _ in range(1, self.depth):
            layers.append(replace(self.first, inputs=layers[-1].seen))
        return tuple(layers)

    def __getattr__(self, name: str) -> Any:
        # Sizes, options and the loss are those of the first layer's cell, but for the ones below.
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.first, name)

    # -- sizes ---------------------------------------------------------------------------------------

    @property
    def units(self) -> int:
        """The number of pre-activations of all layers."""
        return sum(layer.units for layer in self.layers)

    @property
    def state_size(self) -> int:
        """The numbers of the states of all layers."""
        return sum(layer.state_size for layer in self.layers)

    @property
    def width(self) -> int:
        """The size of ĥ of all layers."""
        return sum(layer.width for layer in self.layers)

    @property
    def seen(self) -> int:
        """The size of what the readout sees."""
        return self.layers[-1].seen

    @property
    def phi(self) -> tuple[str, ...]:
        """Names of the units' own parameters in all layers."""
        return tuple(named(name, k) for k in range(self.depth) for name in self.first.phi)

    # -- parameters ------------------------------------------------------------------------------------

    def of_layer(self, values: Tree, layer: int) -> Tree:
        """The parameters of a layer among `values`, under the names that its cell has for them."""
        ending = named("", layer)
        return {
            name.removesuffix(ending): value
            for name, value in values.items()
            if name in _OF_READOUT or layer_of(name) == layer
        }

    def by_layer(self, values: Array, size: int) -> list[Array]:
        """[..., size · layers] as an array [..., size] for each layer."""
        return [values[..., k * size : (k + 1) * size] for k in range(self.depth)]

    def init(self, seed: int) -> NumpyTree:
        """The parameters of all layers, each drawn from seeds of its own, as NumPy arrays of float64."""
        params: NumpyTree = {}
        for k, layer in enumerate(self.layers):
            # A sequence as a seed gives draws that are independent of those of its first entry alone.
            drawn = layer.init(seed if k == 0 else int(np.random.default_rng([seed, k]).integers(2**62)))
            params |= {
                named(name, k): value
                for name, value in drawn.items()
                if (name not in _OF_READOUT or k == self.depth - 1) and (name != "D_in" or k == 0)
            }
        return params

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each parameter that a learning rule trains."""
        return {
            named(name, k): shape
            for k, layer in enumerate(self.layers)
            for name, shape in layer.shapes().items()
            if name not in _OF_READOUT or k == self.depth - 1
        }

    def trainable(self, params: Tree) -> Tree:
        """The parameters that a learning rule trains: all but the decorrelation matrices."""
        return {name: params[name] for name in self.shapes()}

    # -- the forward pass ------------------------------------------------------------------------------

    def start(self, ops: Ops, rows: int) -> tuple[CellState, ...]:
        """The state before the first step, of each layer: zero."""
        return tuple(layer.start(ops, rows) for layer in self.layers)

    def encode(self, params: Tree, inputs: Array) -> Array:
        """x̂ of inputs [..., I]."""
        return self.first.encode(params, inputs)

    def unroll(
        self,
        ops: Ops,
        params: Tree,
        state: tuple[CellState, ...],
        x: Array,
        steps: int,
        noise: Array | None = None,
        drive: Array | None = None,
    ) -> tuple[tuple[CellState, ...], UnrolledLayers]:
        """All steps of a segment, layer by layer: (last state, the values of every step).

        `x`: the decorrelated inputs of all steps, as R = steps·B rows, [R, I]. `noise` [R, sum of G n] is
        added to the pre-activations. `drive`: that of x in the first layer, where it is known already.
        """
        ends, unrolled = [], []
        noises = [None] * self.depth if noise is None else self.by_layer(noise, self.first.units)
        for k, layer in enumerate(self.layers):
            end, found = layer.unroll(ops, self.of_layer(params, k), state[k], x, steps, noises[k], drive)
            ends.append(end)
            unrolled.append(found)
            x, drive = found.out, None
        hidden = [found.out[:, : layer.width] for found, layer in zip(unrolled, self.layers, strict=True)]
        a = ops.xp.concat([found.a for found in unrolled], axis=1)
        return tuple(ends), UnrolledLayers(tuple(unrolled), a, ops.xp.concat(hidden, axis=1))

    def run(self, ops: Ops, params: Tree, inputs: Array) -> Array:
        """The forward pass from the zero state over inputs [T, B, I], as outputs [T, B, O]."""
        B = inputs.shape[1]

        def chunk(state, x):
            steps = x.shape[0]
            x = self.encode(params, x.reshape((-1, x.shape[-1])))
            state, unrolled = self.unroll(ops, params, state, x, steps)
            return state, self.readout(ops, params, unrolled.out).reshape((steps, B, -1))

        size = max(1, min(64, 4096 // B))
        return ops.scan_chunks(chunk, self.start(ops, B), inputs, size)[1]

    # -- gradients by the names of parameters ------------------------------------------------------------

    def gradient(self, ops: Ops, post: Array, pre: Presynaptic, post_y: Array) -> Tree:
        """The gradient of a rule that multiplies post- and presynaptic terms, as `Cell.gradient`."""
        return self._each("gradient", ops, post, pre, post_y)

    def gradient_by_row(self, ops: Ops, post: Array, pre: Presynaptic, post_y: Array) -> Tree:
        """The gradient of each of B sequences, as `Cell.gradient_by_row`."""
        return self._each("gradient_by_row", ops, post, pre, post_y)

    def _each(self, method: str, ops: Ops, post: Array, pre: Presynaptic, post_y: Array) -> Tree:
        grads: dict[str, Any] = {}
        for k, part in enumerate(self.by_layer(post, self.first.units)):
            # Of a layer that is not the last, the gradient of the readout is dropped.
            own = Presynaptic((pre.inputs[k],), (pre.before[k],), pre.out)
            found = getattr(self.layers[k], method)(ops, part, own, post_y)
            grads |= self.of_all(found, k)
        return grads

    def of_all(self, grads: Tree, layer: int) -> Tree:
        """The gradients of a layer's parameters, under their names in the network."""
        last = layer == self.depth - 1
        return {named(name, layer): g for name, g in grads.items() if last or name not in _OF_READOUT}


def named(name: str, layer: int) -> str:
    """The name of a layer's parameter in the network."""
    return name if layer == 0 or name in _OF_READOUT else f"{name}.{layer + 1}"


def layer_of(name: str) -> int:
    """The layer, from 0, of a parameter by its name in the network."""
    return int(name.partition(".")[2] or 1) - 1
