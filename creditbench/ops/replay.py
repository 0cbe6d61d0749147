"""PyTorch functions recorded once and replayed on fixed buffers, as a CUDA graph is, on any device.

An eager step of a rule is dozens of kernels of a microsecond each, and Python takes longer to launch a kernel
than the kernel takes to run. So a function runs once under a dispatch mode that records every kernel with the
memory that it reads and writes. A replay calls those kernels one by one. It takes no view, computes no shape
and allocates no memory. A loop over time is recorded from its first step. Loops inside that step, and loops
that run backwards, are unrolled.

As with `jax.jit`, Python's decisions are taken once: a step may look at shapes, never at the value of a
tensor. Keys are symbols while recording; every replay draws from new ones. Intermediate results whose
lifetimes do not overlap share a buffer, so that a replay needs no more memory than the plain run.

On CUDA the kernels of several steps of a loop are captured into one CUDA graph and launched together. The
noise of those steps is drawn before the launch. Their inputs and results lie in buffers that the graph knows.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch

from creditbench.ops.recording import Call, Derive, Draw, Loop, Recorder, Room, Spec, leaves

#: Functions of `torch` that take the arguments of their ATen operator, and are faster to call.
_DIRECT = frozenset(
    "abs add addcdiv addcmul addmm addmv baddbmm bmm cat div dot exp log "  # noqa: SIM905
    "maximum minimum mm mul mv neg pow rsqrt sigmoid sign sqrt square stack sub tanh".split()
)
#: The most that one CUDA graph holds: steps, calls, and bytes of noise. Each draw of each step has its own
#: noise.
_MOST_STEPS, _MOST_CALLS, _MOST_DRAWN = 32, 2048, 1 << 28


class Program:
    """A recording with its memory laid out, ready to run. Each call returns `outputs` as new tensors."""

    def __init__(self, recorder: Recorder, outputs: Any, tree_map: Callable) -> None:
        kept = tree_map(lambda leaf: recorder.spec(leaf) if isinstance(leaf, torch.Tensor) else leaf, outputs)
        self._tree_map = tree_map
        self._storages = _lay_out(recorder, _specs(kept))
        self._keep = recorder.constants
        self._outputs = tree_map(self._tensor, kept)
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
        # Copies, because the next call overwrites these buffers.
        return self._tree_map(
            lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, self._outputs
        )

    def _loop(self, loop: Loop, recorder: Recorder) -> Callable[[], None]:
        run = self._graphs(loop, recorder) if recorder.device.type == "cuda" else None
        return run or self._steps(loop, recorder)

    def _steps(self, loop: Loop, recorder: Recorder) -> Callable[[], None]:
        """The loop, kernel by kernel."""
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

    def _graphs(self, loop: Loop, recorder: Recorder) -> Callable[[], None] | None:
        """The loop as CUDA graphs of several steps each; None if it cannot be captured."""
        calls = recorder.calls[loop.begin : loop.end]
        drawn = [self._tensor(call.out) for call in calls if isinstance(call, Draw)]
        bytes = sum(out.numel() * out.itemsize for out in drawn)
        if bytes > _MOST_DRAWN:
            return None
        most = min(_MOST_STEPS, _MOST_CALLS // max(1, len(calls)), _MOST_DRAWN // max(1, bytes))
        # As few graphs as `most` allows, of nearly equal length, so that the last is not much shorter.
        size = -(-loop.length // -(-loop.length // max(1, most)))
        inputs = [(buffer, self._tensor(values)) for buffer, values in loop.inputs]
        results = [(values, self._tensor(value)) for values, value in loop.results]

        def stage(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.new_zeros((size, *tensor.shape))

        given, noise, found = (
            [stage(tensor) for tensor in tensors]
            for tensors in ([buffer for buffer, _ in inputs], drawn, [value for _, value in results])
        )
        # A step has two parts: the kernels, which the graph captures and which read staged noise; and the
        # draws of that noise, which the host makes before each launch.
        kernels: list[Callable[[int], Any]] = []
        draws: list[Callable[[int], Any]] = []
        staged = iter(zip(drawn, noise, strict=True))
        for call in calls:
            if isinstance(call, Draw):
                out, rows = next(staged)
                kernels.append(_taking(out, rows))
                draws.append(_filling(call, rows, recorder))
            else:
                (kernels if isinstance(call, Call) else draws).append(_any(self._call(call, recorder)))
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
        # One graph per number of steps: all parts but the last share one.
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
        if not isinstance(spec, Spec):
            return spec
        storage = self._storages[spec.storage]
        empty = torch.empty(0, dtype=spec.dtype, device=storage.device)
        return empty.set_(storage, spec.offset, spec.size, spec.stride)

    def _tensors(self, tree: Any) -> Any:
        if isinstance(tree, Spec):
            return self._tensor(tree)
        if isinstance(tree, dict):
            return {name: self._tensors(value) for name, value in tree.items()}
        if isinstance(tree, (tuple, list)):
            return type(tree)(self._tensors(value) for value in tree)
        return tree

    def _call(self, call: Call | Draw | Derive, recorder: Recorder) -> Callable[[], Any]:
        if isinstance(call, Derive):
            root, derived = call
            return lambda: root.__setitem__(0, recorder.value(derived))
        if isinstance(call, Draw):
            fill, out, key = call.fill, self._tensor(call.out), call.key
            return lambda: fill(out, recorder.value(key))
        func, name = call.func, call.func.overloadpacket.__name__
        args, kwargs = self._tensors(call.args), self._tensors(call.kwargs)
        outs = tuple(map(self._tensor, call.outs))
        # Below, the fastest way to call the kernel with its results in given memory; `copied` always works.
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
            results = [r for r in leaves(func(*args, **kwargs)) if isinstance(r, torch.Tensor)]
            for out, result in zip(outs, results, strict=True):
                out.copy_(result)

        return copied


def _lay_out(recorder: Recorder, kept: list[Spec]) -> list[torch.UntypedStorage]:
    """Memory for every storage that the recording owns. Storages never needed together may share it."""
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for position, call in enumerate(recorder.calls):
        if isinstance(call, Derive):
            continue
        used = (call.out,) if isinstance(call, Draw) else (call.args, call.kwargs, call.outs)
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
            # All steps of the loop need a storage that was made before it.
            if begin < loop.begin <= last[storage]:
                last[storage] = max(last[storage], loop.end)
    # Outputs are read after the last call, so nothing may reuse their memory.
    for spec in kept:
        first.setdefault(spec.storage, 0)
        last[spec.storage] = len(recorder.calls)

    starts: dict[int, list[int]] = {}
    ends: dict[int, list[int]] = {}
    for storage, position in first.items():
        starts.setdefault(position, []).append(storage)
        ends.setdefault(last[storage], []).append(storage)
    storages: list[Any] = [None] * len(recorder.storages)
    free: dict[Room, list[torch.UntypedStorage]] = {}
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


def _filling(call: Draw, rows: torch.Tensor, recorder: Recorder) -> Callable[[int], Any]:
    """A function that draws into the i-th of `rows`, with the key that the call has at that time."""
    fill, key, parts = call.fill, call.key, rows.unbind(0)
    return lambda i: fill(parts[i], recorder.value(key))


def _capture(step: Callable[[int], Any], steps: int, device: torch.device) -> torch.cuda.CUDAGraph:
    """`step(0)` to `step(steps - 1)` as one CUDA graph. The first is also run once."""
    stream = _capture_stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        step(0)  # libraries set themselves up at the first call, outside a capture
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # By default the graph is captured on a stream of the device that was captured on first. Kernels on other
    # devices would be left out of the graph without a warning.
    with torch.cuda.device(device), torch.cuda.graph(graph, stream=stream):
        for i in range(steps):
            step(i)
    return graph


@functools.cache
def _capture_stream(device: torch.device) -> torch.cuda.Stream:
    """The one stream on which steps of that device are warmed up and captured.

    Libraries keep state for each stream, as cuBLAS its workspace. With one stream it is made once, before a
    capture.
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


def _specs(tree: Any) -> list[Spec]:
    return [leaf for leaf in leaves(tree) if isinstance(leaf, Spec)]
