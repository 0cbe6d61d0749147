"""Recordings of what PyTorch runs: kernels with the memory that they read and write.

A loop is recorded from its first step. `creditbench.ops.replay` makes a recording ready to run.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

#: Operators that only check values on the device. A replay omits them: a singular matrix shows in the
#: results.
_LEFT_OUT = frozenset({torch.ops.aten._linalg_check_errors.default})


class ValueReadError(RuntimeError):
    """A function asked for the value of a tensor; a recording has no values."""


class TapeError(RuntimeError):
    """A function used autograd's tape. A recording cannot: the tape of a loop holds its first step alone."""


class Key:
    """A symbolic key of a recording: the path to it from a root key, which each replay sets."""

    __slots__ = ("path", "root")

    def __init__(self, root: list[int], path: tuple[int, ...] = ()) -> None:
        self.root, self.path = root, path


@dataclass(frozen=True)
class Spec:
    """A tensor in memory that the recording owns."""

    storage: int
    dtype: torch.dtype
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class Room(NamedTuple):
    """The size and the device of a storage. A number made on the host stays on the host."""

    bytes: int
    device: torch.device


class Call(NamedTuple):
    """One kernel: `func(*args, **kwargs)`. Its new results are written to `outs`."""

    func: Any
    args: tuple
    kwargs: dict
    outs: tuple[Spec, ...]


class Draw(NamedTuple):
    """Random numbers for a key, written to `out`: `fill(out, key)`."""

    fill: Callable[[torch.Tensor, int], Any]
    key: Key | int
    out: Spec | torch.Tensor


class Derive(NamedTuple):
    """A step that computes a key and stores it as the root of a symbolic key."""

    root: list[int]
    key: Key | int


class Loop(NamedTuple):
    """A loop: the calls from `begin` to `end`, once for each of `length` steps."""

    begin: int
    end: int
    length: int
    inputs: list[tuple[torch.Tensor, Any]]  #: (buffer of a step, all steps' values)
    keys: list[tuple[list[int], list]]  #: (root of a step, all steps' keys)
    results: list[tuple[torch.Tensor, Any]]  #: (all steps' values, value of a step)
    carry: list[tuple[torch.Tensor, Any]]  #: (buffer, its next value)
    carried_keys: list[Derive]


class Recorder(TorchDispatchMode):
    """Records every operation that runs inside its context."""

    def __init__(self, child: Callable[[int, int], int], device: torch.device) -> None:
        super().__init__()
        self.child = child  #: (key, i) -> its i-th child
        self.device = device  #: the device on which the loops run
        self.calls: list[Call | Draw | Derive] = []
        self.loops: list[Loop] = []
        self.prologue: list[Call] = []  #: calls that restore constants which the recording changes
        self.storages: list[Room] = []  #: the storages that the recording owns
        self._owned: dict[int, int] = {}
        self._fixed: set[int] = set()
        self.constants: dict[int, torch.Tensor] = {}
        # While these are held, no other storage gets the same address.
        self._references: list[StorageWeakRef] = []
        self._begin: int | None = None  #: the first call of the loop that is being recorded

    # -- recording -------------------------------------------------------------------------------

    def fixed(self, tensor: torch.Tensor) -> torch.Tensor:
        """Mark `tensor` as memory with a fixed address: an argument or the carry of a loop."""
        self._owned.pop(_address(tensor), None)
        self._fixed.add(_address(tensor))
        self.constants[_address(tensor)] = tensor
        return tensor

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.is_nonzero.default):
            raise ValueReadError(
                "a recorded step may look at shapes, not at the value of a tensor (.item(), if tensor: ...)"
            )
        if any(isinstance(t, torch.Tensor) and t.requires_grad for t in leaves((args, kwargs))):
            raise TapeError(
                "a tensor requires grad, and autograd's tape is no part of a recording (ops.value_and_grad "
                "and torch.func.grad need none)"
            )
        # An operation in place may change a constant; each replay must start from the constant's old value.
        if func._schema.is_mutable:
            arguments = func._schema.arguments
            given = dict(zip((argument.name for argument in arguments), args, strict=False)) | kwargs
            for argument in arguments:
                if argument.alias_info is not None and argument.alias_info.is_write:
                    for tensor in leaves(given.get(argument.name)):
                        self._restore(tensor)
        result = func(*args, **kwargs)
        if func in _LEFT_OUT:
            return result
        results = [r for r in leaves(result) if isinstance(r, torch.Tensor)]
        if func._schema.is_mutable:
            self.calls.append(Call(func, self.spec(args), self.spec(kwargs), ()))
            return result
        known = {_address(t) for t in leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        # A result that shares memory with an argument is a view. A tensor on `meta` has a shape alone.
        fresh = [r for r in results if _address(r) not in known and r.device.type != "meta"]
        if not fresh or self._brought(args, fresh):
            return result
        args, kwargs = self.spec(args), self.spec(kwargs)
        outs = tuple(self._own(r) for r in fresh)
        # An empty tensor has no values to compute; its memory is laid out with that of the others.
        if func.overloadpacket not in (torch.ops.aten.empty, torch.ops.aten.empty_like):
            self.calls.append(Call(func, args, kwargs, outs))
        return result

    def draw(self, fill: Callable[[torch.Tensor, int], Any], key: Key | int, out: torch.Tensor) -> None:
        """Record that `out` is filled with random numbers of `key`, and fill it."""
        self.calls.append(Draw(fill, key, self.spec(out)))
        with _disable_current_modes():
            fill(out, self.value(key))

    def children(self, key: Key, num: int) -> list[Key]:
        """The keys that `key` splits into."""
        # A new root, so that a replay does not walk a long chain of splits from its start for every key.
        if len(key.path) > 2:
            key = self._rooted(key)
        return [Key(key.root, (*key.path, i)) for i in range(num)]

    def _rooted(self, key: Key | int) -> Key:
        root = [self.value(key)]
        self.calls.append(Derive(root, key))
        return Key(root)

    def value(self, key: Key | int) -> int:
        """The present value of a symbolic key."""
        if isinstance(key, int):
            return key
        return functools.reduce(self.child, key.path, key.root[0])

    def scan(self, f, carry, xs, length, tree_map):
        """Record a loop by its first step. The results hold that step's values in place of all steps'."""
        inputs, keys, results = [], [], []
        buffers: list[Any] = []

        def first(leaf):
            if isinstance(leaf, list):
                root = [self.value(leaf[0])]
                keys.append((root, leaf))
                return Key(root)
            buffer = self.fixed(leaf[0].clone())
            inputs.append((buffer, self.spec(leaf)))
            return buffer

        def own(leaf):
            if not isinstance(leaf, torch.Tensor):
                buffers.append(self._rooted(leaf))
            else:
                buffers.append(self.fixed(torch.empty_like(leaf)))
                buffers[-1].copy_(leaf)
            return buffers[-1]

        carry = tree_map(own, carry)
        with _disable_current_modes():
            x = tree_map(first, xs)
        self._begin = len(self.calls)  # a loop inside this step is now unrolled: see `loops_here`
        try:
            after, y = f(carry, x)
            pairs: list[tuple[Any, Any]] = []
            tree_map(lambda buffer, value: pairs.append((buffer, value)), carry, after)
            moved: list[tuple[torch.Tensor, Any]] = []
            derived = []
            places = {_address(buffer) for buffer in buffers if isinstance(buffer, torch.Tensor)}
            for buffer, value in pairs:
                if isinstance(buffer, Key):
                    derived.append(Derive(buffer.root, value))
                elif not _same(value, buffer):
                    # A new value may lie in another buffer of the carry, which is overwritten too: copy it
                    # first.
                    value = value.clone() if _address(value) in places else value
                    moved.append((buffer, self.spec(value)))

            def stacked(leaf):
                # Memory for the values of all steps; a replay fills it row by row.
                with _disable_current_modes():
                    out = self.fixed(leaf.unsqueeze(0).expand(length, *leaf.shape).clone())
                results.append((out, self.spec(leaf)))
                return out

            ys = tree_map(stacked, y)
        finally:
            begin, self._begin = self._begin, None
        self.loops.append(Loop(begin, len(self.calls), length, inputs, keys, results, moved, derived))
        return carry, ys

    @property
    def loops_here(self) -> bool:
        """Whether a loop here is recorded as one: not inside another, not under a `torch.func` transform."""
        return self._begin is None and torch._C._functorch.peek_interpreter_stack() is None

    def _brought(self, args: tuple, fresh: list[torch.Tensor]) -> bool:
        """Whether `fresh` is a constant that was copied from the host to the device.

        Then it is a constant of the device from now on. Otherwise each step would copy it again, and the host
        would have to wait for it; no CUDA graph can hold such a copy.
        """
        given = [t for t in leaves(args) if isinstance(t, torch.Tensor)]
        return (
            len(given) == len(fresh) == 1
            and given[0].device.type == "cpu" != fresh[0].device.type
            and _address(given[0]) not in self._owned
            and _address(given[0]) not in self._fixed
        )

    def _own(self, tensor: torch.Tensor) -> Spec:
        storage = tensor.untyped_storage()
        self._references.append(StorageWeakRef(storage))
        self._owned[storage._cdata] = len(self.storages)
        self.storages.append(Room(storage.nbytes(), tensor.device))
        return self.spec(tensor)

    def _restore(self, tensor: torch.Tensor | None) -> None:
        """Restore a constant that is about to change, at the start of each replay or step of its loop."""
        if tensor is None:
            return
        address = _address(tensor)
        if address in self._owned or address in self._fixed:
            return
        with _disable_current_modes():
            original = tensor.clone()
        self.fixed(tensor)
        restored = Call(torch.ops.aten.copy_.default, (tensor, self.spec(original)), {}, ())
        if self._begin is None:
            self.prologue.append(restored)
        else:
            self.calls.insert(self._begin, restored)

    def spec(self, tree):
        """`tree` with a `Spec` in place of each tensor whose memory the recording owns."""
        if isinstance(tree, torch.Tensor):
            owner = self._owned.get(_address(tree))
            if owner is None:
                self.constants[_address(tree)] = tree
                return tree
            return Spec(owner, tree.dtype, tree.storage_offset(), tuple(tree.shape), tree.stride())
        if isinstance(tree, dict):
            return {name: self.spec(value) for name, value in tree.items()}
        if isinstance(tree, (tuple, list)):
            return type(tree)(self.spec(value) for value in tree)
        return tree


def _address(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return (
        _address(a) == _address(b)
        and a.storage_offset() == b.storage_offset()
        and a.shape == b.shape
        and a.stride() == b.stride()
    )


def leaves(tree: Any) -> list:
    """The leaves of `tree`, in order."""
    if isinstance(tree, dict):
        tree = tuple(tree.values())
    if isinstance(tree, (tuple, list)):
        return [leaf for child in tree for leaf in leaves(child)]
    return [tree]
