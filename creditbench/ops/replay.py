"""PyTorch functions recorded once and replayed on fixed buffers: what a CUDA graph is, on any device.

An eager step of a rule is dozens of kernels of a microsecond each, and Python takes longer to ask for one than the
kernel takes to run. So a function is run once under a dispatch mode that writes down every kernel with the memory
that it read and wrote. A replay is those kernels, one call each: no view is taken, no shape worked out, no memory
allocated again. A loop over time is recorded from its first step; loops inside that step, and those that run backwards,
are unrolled.

As with `jax.jit`, what Python decides is decided once: a step may look at shapes, never at the value of a tensor.
Keys are symbols while recording, and drawn from anew at every replay. A buffer is shared by the intermediate results
whose lifetimes do not overlap, so that a replay needs no more memory than the plain run.

On CUDA the kernels of several steps of a loop are captured into one CUDA graph, which is launched as one. The noise
of those steps is drawn before it, and what they are given and give lies in buffers that the graph knows.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

#: Functions of `torch` that take the arguments of their ATen operator, and are called faster than it.
_DIRECT = frozenset(
    "abs add addcdiv addcmul addmm addmv baddbmm bmm cat div dot exp log maximum minimum mm mul mv neg pow rsqrt "  # noqa: SIM905
    "sigmoid sign sqrt square stack sub tanh".split()
)
#: Operators that have no result, and ask the device for one: whether a matrix was singular is seen in what follows.
_LEFT_OUT = frozenset({torch.ops.aten._linalg_check_errors.default})
#: The most that one CUDA graph holds: steps, calls, and bytes of noise, of which each draw of each step has its own.
_MOST_STEPS, _MOST_CALLS, _MOST_DRAWN = 32, 2048, 1 << 28


class ValueReadError(RuntimeError):
    """A function asked for the value of a tensor, which a recording does not know."""


class Key:
    """A key while recording: the way down to it from a key that is known at each replay."""

    __slots__ = ("path", "root")

    def __init__(self, root: list[int], path: tuple[int, ...] = ()) -> None:
        self.root, self.path = root, path


@dataclass(frozen=True)
class _Spec:
    """A tensor in memory that the recording owns."""

    storage: int
    dtype: torch.dtype
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _Room(NamedTuple):
    """What a storage takes; a number made on the host may stand among those of another device."""

    bytes: int
    device: torch.device


class _Call(NamedTuple):
    """One kernel: `func(*args, **kwargs)`, its fresh results written to `outs`."""

    func: Any
    args: tuple
    kwargs: dict
    outs: tuple[_Spec, ...]


class _Draw(NamedTuple):
    """Random numbers for a key, written to `out`: `fill(out, key)`."""

    fill: Callable[[torch.Tensor, int], Any]
    key: Key | int
    out: _Spec | torch.Tensor


class _Derive(NamedTuple):
    """A key worked out and put where a symbol begins."""

    root: list[int]
    key: Key | int


class _Loop(NamedTuple):
    """The calls from `begin` to `end`, once for each of `length` steps."""

    begin: int
    end: int
    length: int
    inputs: list[tuple[torch.Tensor, Any]]  #: (buffer of a step, all steps' values)
    keys: list[tuple[list[int], list]]  #: (root of a step, all steps' keys)
    results: list[tuple[torch.Tensor, Any]]  #: (all steps' values, value of a step)
    carry: list[tuple[torch.Tensor, Any]]  #: (buffer, its next value)
    carried_keys: list[_Derive]


class Recorder(TorchDispatchMode):
    """Writes down what runs while it is entered."""

    def __init__(self, child: Callable[[int, int], int], device: torch.device) -> None:
        super().__init__()
        self.child = child  #: (key, i) -> its i-th child
        self.device = device  #: where the loops run
        self.calls: list[_Call | _Draw | _Derive] = []
        self.loops: list[_Loop] = []
        self.prologue: list[_Call] = []  #: what puts constants that are changed back to what they were
        self.storages: list[_Room] = []  #: what each storage takes that the recording owns
        self._owned: dict[int, int] = {}
        self._fixed: set[int] = set()
        self._constants: dict[int, torch.Tensor] = {}
        self._references: list[
            StorageWeakRef
        ] = []  # while they are held, no other storage has the same address
        self._begin: int | None = None  #: where the body of the loop that is being recorded begins

    # -- writing down ----------------------------------------------------------------------------

    def fixed(self, tensor: torch.Tensor) -> torch.Tensor:
        """`tensor` as memory that keeps its place: an argument or the carry of a loop."""
        self._owned.pop(_address(tensor), None)
        self._fixed.add(_address(tensor))
        self._constants[_address(tensor)] = tensor
        return tensor

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.is_nonzero.default):
            raise ValueReadError(
                "a recorded step may look at shapes, not at the value of a tensor (.item(), if tensor: ...)"
            )
        if func._schema.is_mutable:
            arguments = func._schema.arguments
            given = dict(zip((argument.name for argument in arguments), args, strict=False)) | kwargs
            for argument in arguments:
                if argument.alias_info is not None and argument.alias_info.is_write:
                    for tensor in _leaves(given.get(argument.name)):
                        self._restore(tensor)
        result = func(*args, **kwargs)
        if func in _LEFT_OUT:
            return result
        results = [r for r in _leaves(result) if isinstance(r, torch.Tensor)]
        if func._schema.is_mutable:
            self.calls.append(_Call(func, self._spec(args), self._spec(kwargs), ()))
            return result
        known = {_address(t) for t in _leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        # What shares its memory with an argument is a view, and what lies on `meta` has a shape alone.
        fresh = [r for r in results if _address(r) not in known and r.device.type != "meta"]
        if not fresh or self._brought(args, fresh):
            return result
        args, kwargs = self._spec(args), self._spec(kwargs)
        outs = tuple(self._own(r) for r in fresh)
        if func.overloadpacket not in (torch.ops.aten.empty, torch.ops.aten.empty_like):
            self.calls.append(_Call(func, args, kwargs, outs))
        return result

    def draw(self, fill: Callable[[torch.Tensor, int], Any], key: Key | int, out: torch.Tensor) -> None:
        """Write down that `out` is filled with random numbers of `key`, and fill it."""
        self.calls.append(_Draw(fill, key, self._spec(out)))
        with _disable_current_modes():
            fill(out, self.value(key))

    def children(self, key: Key, num: int) -> list[Key]:
        """The keys that `key` splits into."""
        if len(key.path) > 2:  # a chain of splits would else be walked anew from its beginning by every link
            key = self._rooted(key)
        return [Key(key.root, (*key.path, i)) for i in range(num)]

    def _rooted(self, key: Key | int) -> Key:
        root = [self.value(key)]
        self.calls.append(_Derive(root, key))
        return Key(root)

    def value(self, key: Key | int) -> int:
        """The key that a symbol stands for at present."""
        if isinstance(key, int):
            return key
        return functools.reduce(self.child, key.path, key.root[0])

    def scan(self, f, carry, xs, length, tree_map):
        """Write down a loop by its first step. Its results hold what that step gave, and nothing yet of the rest."""
        inputs, keys, results = [], [], []
        buffers: list[Any] = []

        def first(leaf):
            if isinstance(leaf, list):
                root = [self.value(leaf[0])]
                keys.append((root, leaf))
                return Key(root)
            buffer = self.fixed(leaf[0].clone())
            inputs.append((buffer, self._spec(leaf)))
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
        self._begin = len(self.calls)
        try:
            after, y = f(carry, x)
            pairs: list[tuple[Any, Any]] = []
            tree_map(lambda buffer, value: pairs.append((buffer, value)), carry, after)
            moved: list[tuple[torch.Tensor, Any]] = []
            derived = []
            places = {_address(buffer) for buffer in buffers if isinstance(buffer, torch.Tensor)}
            for buffer, value in pairs:
                if isinstance(buffer, Key):
                    derived.append(_Derive(buffer.root, value))
                elif not _same(value, buffer):
                    # Two steps where a new value lies in the memory of another's old one.
                    value = value.clone() if _address(value) in places else value
                    moved.append((buffer, self._spec(value)))

            def stacked(leaf):
                with _disable_current_modes():
                    out = self.fixed(leaf.unsqueeze(0).expand(length, *leaf.shape).clone())
                results.append((out, self._spec(leaf)))
                return out

            ys = tree_map(stacked, y)
        finally:
            begin, self._begin = self._begin, None
        self.loops.append(_Loop(begin, len(self.calls), length, inputs, keys, results, moved, derived))
        return carry, ys

    @property
    def loops_here(self) -> bool:
        """Whether a loop would be recorded as one: not inside another, and not under a transform of `torch.func`."""
        return self._begin is None and torch._C._functorch.peek_interpreter_stack() is None

    def _brought(self, args: tuple, fresh: list[torch.Tensor]) -> bool:
        """Whether `fresh` is a constant of the host that was copied to the device: it is a constant there from now on.

        It would else be copied anew in each step, for which the host has to wait: no graph can hold that.
        """
        given = [t for t in _leaves(args) if isinstance(t, torch.Tensor)]
        return (
            len(given) == len(fresh) == 1
            and given[0].device.type == "cpu" != fresh[0].device.type
            and _address(given[0]) not in self._owned
            and _address(given[0]) not in self._fixed
        )

    def _own(self, tensor: torch.Tensor) -> _Spec:
        storage = tensor.untyped_storage()
        self._references.append(StorageWeakRef(storage))
        self._owned[storage._cdata] = len(self.storages)
        self.storages.append(_Room(storage.nbytes(), tensor.device))
        return self._spec(tensor)

    def _restore(self, tensor: torch.Tensor | None) -> None:
        """Have a constant that is about to be changed start each replay, or each step of its loop, as it is now."""
        if tensor is None:
            return
        address = _address(tensor)
        if address in self._owned or address in self._fixed:
            return
        with _disable_current_modes():
            original = tensor.clone()
        self.fixed(tensor)
        restored = _Call(torch.ops.aten.copy_.default, (tensor, self._spec(original)), {}, ())
        if self._begin is None:
            self.prologue.append(restored)
        else:
            self.calls.insert(self._begin, restored)

    def _spec(self, tree):
        """`tree` with the tensors whose memory the recording owns replaced by their specification."""
        if isinstance(tree, torch.Tensor):
            owner = self._owned.get(_address(tree))
            if owner is None:
                self._constants[_address(tree)] = tree
                return tree
            return _Spec(owner, tree.dtype, tree.storage_offset(), tuple(tree.shape), tree.stride())
        if isinstance(tree, dict):
            return {name: self._spec(value) for name, value in tree.items()}
        if isinstance(tree, (tuple, list)):
            return type(tree)(self._spec(value) for value in tree)
        return tree

    # -- making it ready -------------------------------------------------------------------------

    def program(self, outputs: Any, tree_map: Callable) -> Program:
        """The recording made ready to run; `outputs` are the tensors that it is to return."""
        kept = tree_map(lambda leaf: self._spec(leaf) if isinstance(leaf, torch.Tensor) else leaf, outputs)
        return Program(self, kept, tree_map)


class Program:
    """A recording with its memory laid out."""

    def __init__(self, recorder: Recorder, outputs: Any, tree_map: Callable) -> None:
        self._tree_map = tree_map
        self._storages = _lay_out(recorder, [s for s in _leaves(outputs) if isinstance(s, _Spec)])
        self._keep = recorder._constants
        self._outputs = tree_map(self._tensor, outputs)
        self._run = [self._call(call, recorder) for call in recorder.prologue]
        position = 0
        for loop in recorder.loops:
            self._run += [self._call(call, recorder) for call in recorder.calls[position : loop.begin]]
            self._run.append(self._loop(loop, recorder))
            position = loop.end
        self._run += [self._call(call, recorder) for call in recorder.calls[position:]]

    def __call__(self) -> Any:
        for call in self._run:
            call()
        return self._tree_map(
            lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, self._outputs
        )

    def _loop(self, loop: _Loop, recorder: Recorder) -> Callable[[], None]:
        run = self._graphs(loop, recorder) if recorder.device.type == "cuda" else None
        return run or self._steps(loop, recorder)

    def _steps(self, loop: _Loop, recorder: Recorder) -> Callable[[], None]:
        """The loop kernel by kernel."""
        inputs = [
            [functools.partial(buffer.copy_, row) for row in self._tensor(values).unbind(0)]
            for buffer, values in loop.inputs
        ]
        results = [
            [functools.partial(row.copy_, self._tensor(value)) for row in values.unbind(0)]
            for values, value in loop.results
        ]
        ins, outs = list(zip(*inputs, strict=True)), list(zip(*results, strict=True))
        ins, outs = ins or [()] * loop.length, outs or [()] * loop.length
        body = [self._call(call, recorder) for call in recorder.calls[loop.begin : loop.end]]
        # The results are read before the carry moves on: they may lie in its memory.
        move: list[Callable[[], Any]] = [
            functools.partial(buffer.copy_, self._tensor(value)) for buffer, value in loop.carry
        ]
        move += [self._call(derived, recorder) for derived in loop.carried_keys]

        def run() -> None:
            for t in range(loop.length):
                for root, keys in loop.keys:
                    root[0] = recorder.value(keys[t])
                for call in ins[t]:
                    call()
                for call in body:
                    call()
                for call in outs[t]:
                    call()
                for call in move:
                    call()

        return run

    def _graphs(self, loop: _Loop, recorder: Recorder) -> Callable[[], None] | None:
        """The loop as CUDA graphs of several steps each; None where there can be none."""
        calls = recorder.calls[loop.begin : loop.end]
        drawn = [self._tensor(call.out) for call in calls if isinstance(call, _Draw)]
        bytes = sum(out.numel() * out.itemsize for out in drawn)
        if bytes > _MOST_DRAWN:
            return None
        most = min(_MOST_STEPS, _MOST_CALLS // max(1, len(calls)), _MOST_DRAWN // max(1, bytes))
        size = -(-loop.length // -(-loop.length // max(1, most)))
        inputs = [(buffer, self._tensor(values)) for buffer, values in loop.inputs]
        results = [(values, self._tensor(value)) for values, value in loop.results]

        def stage(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.new_zeros((size, *tensor.shape))

        given, noise, found = (
            [stage(tensor) for tensor in tensors]
            for tensors in ([buffer for buffer, _ in inputs], drawn, [value for _, value in results])
        )
        # A step on the device, whose noise is there, and one on the host, which draws it.
        kernels: list[Callable[[int], Any]] = []
        draws: list[Callable[[int], Any]] = []
        staged = iter(zip(drawn, noise, strict=True))
        for call in calls:
            if isinstance(call, _Draw):
                out, rows = next(staged)
                kernels.append(_taking(out, rows))
                draws.append(_filling(call, rows, recorder))
            else:
                (kernels if isinstance(call, _Call) else draws).append(_any(self._call(call, recorder)))
        draws += [_any(self._call(derived, recorder)) for derived in loop.carried_keys]
        carry = [(buffer, self._tensor(value)) for buffer, value in loop.carry]

        def step(i: int) -> None:
            for (buffer, _), rows in zip(inputs, given, strict=True):
                buffer.copy_(rows[i])
            for kernel in kernels:
                kernel(i)
            # The results are read before the carry moves on: they may lie in its memory.
            for (_, value), rows in zip(results, found, strict=True):
                rows[i].copy_(value)
            for buffer, value in carry:
                buffer.copy_(value)

        parts = [(first, min(size, loop.length - first)) for first in range(0, loop.length, size)]
        try:
            graphs = {
                steps: _capture(step, steps, recorder.device) for steps in {steps for _, steps in parts}
            }
        except RuntimeError as error:
            said = (str(error).strip().splitlines() or [type(error).__name__])[0]
            warnings.warn(
                f"a step could not be captured ({said}); it runs kernel by kernel, and slower", stacklevel=2
            )
            return None

        def moves(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> list[Callable[[], Any]]:
            return [functools.partial(to.copy_, of) for to, of in pairs]

        ready = [
            (
                first,
                steps,
                moves(
                    [
                        (rows[:steps], values[first : first + steps])
                        for rows, (_, values) in zip(given, inputs, strict=True)
                    ]
                ),
                graphs[steps].replay,
                moves(
                    [
                        (values[first : first + steps], rows[:steps])
                        for (values, _), rows in zip(results, found, strict=True)
                    ]
                ),
            )
            for first, steps in parts
        ]

        def run() -> None:
            for first, steps, ins, replay, outs in ready:
                for call in ins:
                    call()
                for i in range(steps):
                    for root, keys in loop.keys:
                        root[0] = recorder.value(keys[first + i])
                    for draw in draws:
                        draw(i)
                replay()
                for call in outs:
                    call()

        return run

    def _tensor(self, spec: Any) -> Any:
        if not isinstance(spec, _Spec):
            return spec
        storage = self._storages[spec.storage]
        empty = torch.empty(0, dtype=spec.dtype, device=storage.device)
        return empty.set_(storage, spec.offset, spec.size, spec.stride)

    def _tensors(self, tree: Any) -> Any:
        if isinstance(tree, _Spec):
            return self._tensor(tree)
        if isinstance(tree, dict):
            return {name: self._tensors(value) for name, value in tree.items()}
        if isinstance(tree, (tuple, list)):
            return type(tree)(self._tensors(value) for value in tree)
        return tree

    def _call(self, call: _Call | _Draw | _Derive, recorder: Recorder) -> Callable[[], Any]:
        if isinstance(call, _Derive):
            root, derived = call
            return lambda: root.__setitem__(0, recorder.value(derived))
        if isinstance(call, _Draw):
            fill, out, key = call.fill, self._tensor(call.out), call.key
            return lambda: fill(out, recorder.value(key))
        func, name = call.func, call.func.overloadpacket.__name__
        args, kwargs = self._tensors(call.args), self._tensors(call.kwargs)
        outs = tuple(map(self._tensor, call.outs))
        if not outs:
            method = getattr(args[0], name, None) if args and name.endswith("_") else None
            if method is not None:
                return functools.partial(method, *args[1:], **kwargs)
            return functools.partial(func, *args, **kwargs)
        if name in ("clone", "_to_copy", "lift_fresh_copy"):
            return functools.partial(outs[0].copy_, args[0])
        if name == "sum" and not kwargs:
            axes = args[1] if len(args) > 1 else tuple(range(args[0].ndim))
            return functools.partial(torch.sum, args[0], axes, *args[2:], out=outs[0])
        if len(outs) == 1 and name in _DIRECT:
            return functools.partial(getattr(torch, name), *args, **kwargs, out=outs[0])
        variant = _out_variant(func)
        if variant is not None and len(variant[1]) == len(outs):
            return functools.partial(variant[0], *args, **kwargs, **dict(zip(variant[1], outs, strict=True)))

        def copied() -> None:
            results = [r for r in _leaves(func(*args, **kwargs)) if isinstance(r, torch.Tensor)]
            for out, result in zip(outs, results, strict=True):
                out.copy_(result)

        return copied


def _lay_out(recorder: Recorder, kept: list[_Spec]) -> list[torch.UntypedStorage]:
    """Memory for every storage that the recording owns; those that are never needed at once may share it."""
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for position, call in enumerate(recorder.calls):
        if isinstance(call, _Derive):
            continue
        used = (call.out,) if isinstance(call, _Draw) else (call.args, call.kwargs, call.outs)
        for spec in _specs(used):
            first.setdefault(spec.storage, position)
            last[spec.storage] = position
    for loop in recorder.loops:
        for spec in _specs(
            [[value for _, value in group] for group in (loop.inputs, loop.results, loop.carry)]
        ):
            first.setdefault(spec.storage, loop.begin)
            last[spec.storage] = max(last.get(spec.storage, 0), loop.end)
        for storage, begin in first.items():
            # What comes from before the loop is needed by all of its steps.
            if begin < loop.begin <= last[storage]:
                last[storage] = max(last[storage], loop.end)
    for spec in kept:
        first.setdefault(spec.storage, 0)
        last[spec.storage] = len(recorder.calls)

    starts: dict[int, list[int]] = {}
    ends: dict[int, list[int]] = {}
    for storage, position in first.items():
        starts.setdefault(position, []).append(storage)
        ends.setdefault(last[storage], []).append(storage)
    storages: list[Any] = [None] * len(recorder.storages)
    free: dict[_Room, list[torch.UntypedStorage]] = {}
    for position in range(len(recorder.calls) + 1):
        for storage in starts.get(position, ()):
            room = recorder.storages[storage]
            available = free.get(room)
            storages[storage] = (
                available.pop() if available else torch.UntypedStorage(room.bytes, device=room.device)
            )
        for storage in ends.get(position, ()):
            free.setdefault(recorder.storages[storage], []).append(storages[storage])
    return storages


def _any(run: Callable[[], Any]) -> Callable[[int], Any]:
    return lambda _: run()


def _taking(out: torch.Tensor, rows: torch.Tensor) -> Callable[[int], Any]:
    return lambda i: out.copy_(rows[i])


def _filling(call: _Draw, rows: torch.Tensor, recorder: Recorder) -> Callable[[int], Any]:
    """What draws into the i-th of `rows`, for the key that is the call's by then."""
    fill, key, parts = call.fill, call.key, rows.unbind(0)
    return lambda i: fill(parts[i], recorder.value(key))


def _capture(step: Callable[[int], Any], steps: int, device: torch.device) -> torch.cuda.CUDAGraph:
    """`step(0)` to `step(steps - 1)` as one CUDA graph. The first of them is run, too."""
    stream = _capture_stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        step(0)  # libraries set themselves up at the first call, outside a capture
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # Without a stream it would be captured on one of whichever device was captured on first; what runs elsewhere is no
    # part of a graph, and nothing says so.
    with torch.cuda.device(device), torch.cuda.graph(graph, stream=stream):
        for i in range(steps):
            step(i)
    return graph


@functools.cache
def _capture_stream(device: torch.device) -> torch.cuda.Stream:
    """The one stream on which steps of that device are warmed up and captured.

    What a library keeps for each stream, as cuBLAS its workspace, is then made once, and before a capture.
    """
    return torch.cuda.Stream(device)


@functools.cache
def _out_variant(func) -> tuple[Any, tuple[str, ...]] | None:
    """The overload of an operator that writes its results to given tensors, and their names."""
    wanted = [(a.name, str(a.type)) for a in func._schema.arguments]
    packet = func.overloadpacket
    for name in packet.overloads():
        overload = getattr(packet, name)
        outs = tuple(a.name for a in overload._schema.arguments if a.is_out)
        rest = [(a.name, str(a.type)) for a in overload._schema.arguments if not a.is_out]
        if outs and rest == wanted:
            return overload, outs
    return None


def _address(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return (
        _address(a) == _address(b)
        and a.storage_offset() == b.storage_offset()
        and a.shape == b.shape
        and a.stride() == b.stride()
    )


def _leaves(tree: Any) -> list:
    if isinstance(tree, dict):
        tree = tuple(tree.values())
    if isinstance(tree, (tuple, list)):
        return [leaf for child in tree for leaf in _leaves(child)]
    return [tree]


def _specs(tree: Any) -> list[_Spec]:
    return [leaf for leaf in _leaves(tree) if isinstance(leaf, _Spec)]
