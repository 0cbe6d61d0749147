"""Memory, by three measures: what an algorithm needs, what the process took, what the device held.

*Algorithm bytes* are what the estimate of one segment needs beyond weights and data, at its peak: everything made on
the way, and what comes out of it: the gradients in the form in which the rule gives them, and the state that it
carries on, counted once. The figure is exact, and the same on every machine.

- JAX: the temporaries of the compiled program (`memory_analysis`) and the sizes of its results.
- PyTorch: the peak of the bytes of all tensors alive that were made since the start, watched by a dispatch mode, and
  the results that were there before.

XLA plans all buffers of a program at once: it updates in place and fuses, but holds results apart from temporaries even
where one could turn into the other. PyTorch makes a tensor for each operation and drops it with its last use. For
`bptt` both keep the activity of all steps, and a few arrays of its size beside it: the two agree within a factor 2.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from creditbench.machine.memory import peak_bytes, reset_peak, resident_bytes, settle
from creditbench.measure.update import Update
from creditbench.ops.base import Ops


def algorithm_bytes(ops: Ops, update: Update) -> int:
    """Algorithm bytes of one segment's estimate; see the module."""
    f, arguments = update.estimate(ops)
    return _jax_bytes(f, arguments) if ops.name == "jax" else _torch_bytes(f, arguments)


def _jax_bytes(f: Any, arguments: tuple[Any, ...]) -> int:
    import jax

    # No argument is given up, as `Learner.segment` is pure; the sizes of results are taken from their shapes, since a
    # result that is an argument too has no buffer of its own.
    # Buffers are laid out before code is made for a CPU, so that code need not be good.
    (device,) = jax.tree.leaves(arguments)[0].devices()
    fast = (
        {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
        if device.platform == "cpu"
        else None
    )
    compiled = jax.jit(f).lower(*arguments).compile(compiler_options=fast)
    results = jax.eval_shape(f, *arguments)
    return compiled.memory_analysis().temp_size_in_bytes + sum(
        x.size * x.dtype.itemsize for x in jax.tree.leaves(results)
    )


def _torch_bytes(f: Any, arguments: tuple[Any, ...]) -> int:
    import weakref
    from functools import partial

    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    def storages(tree: Any) -> list[Any]:
        return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]

    class Watch(TorchDispatchMode):
        """Adds a storage when it first comes out of an operation, and takes it off when it is freed."""

        def __init__(self) -> None:
            super().__init__()
            self.alive: dict[int, Any] = {}  # the storage's address -> a reference that does not keep it
            self.now = self.peak = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            found = function(*args, **(kwargs or {}))
            # What goes in and has not been seen was there before: it counts nothing, nor do views of it.
            before = {storage._cdata for storage in storages((args, kwargs))}
            for storage in storages(found):
                key, size = storage._cdata, storage.nbytes()
                if key not in before and key not in self.alive:
                    self.alive[key] = weakref.ref(storage, partial(self.free, key, size))
                    self.now += size
            self.peak = max(self.peak, self.now)
            return found

        def free(self, key: int, size: int, _: Any) -> None:
            del self.alive[key]
            self.now -= size

    with torch.no_grad(), Watch() as watch:
        results = f(*arguments)
    # Outer is a NamedTuple of tensors, so that factors are counted as they are.
    old = {s._cdata: s.nbytes() for s in storages(results) if s._cdata not in watch.alive}
    return watch.peak + sum(old.values())


class ProcessPeak:
    """Growth of the peak resident memory of this process, or of `process`, since the object was made.

    Where the peak can be set back (`machine.memory`), a trial's figure is its own even in a process that has run
    others. Elsewhere the peak of the whole process so far serves: a trial that stays below an earlier one's peak then
    shows no growth. `source` says which. Of another process there is the first figure or none.
    """

    def __init__(self, process: int | None = None) -> None:
        self._process = process
        self.source: Literal["VmHWM", "ru_maxrss"] | None
        if process is None:
            self._before, own = settle()
            self.source = "VmHWM" if own else "ru_maxrss"
        else:
            self.source = "VmHWM" if reset_peak(process) else None
            self._before = resident_bytes(process) if self.source else 0

    def bytes(self) -> int | None:
        """The growth so far; None where there is no figure."""
        if self.source is None:
            return None
        return max(0, peak_bytes(self._process) - self._before)


class DevicePeak:
    """Most bytes that the framework held on an accelerator at once since the object was made.

    PyTorch's peak can be set back. JAX's cannot: there it is the peak of the process so far.
    """

    def __init__(self, ops: Ops) -> None:
        self._cuda: Any = None
        self._jax: Any = None
        if ops.device == "cpu":
            return
        here = ops.from_numpy(np.zeros(()))
        if ops.name == "jax":
            (self._jax,) = here.devices()
        elif here.device.type == "cuda":
            import torch

            self._cuda = here.device
            torch.cuda.reset_peak_memory_stats(self._cuda)

    def bytes(self) -> int | None:
        """The peak; None on a CPU, and where the device does not say."""
        if self._cuda is not None:
            import torch

            return int(torch.cuda.max_memory_allocated(self._cuda))
        if self._jax is not None:
            peak = (self._jax.memory_stats() or {}).get("peak_bytes_in_use", -1)
            return None if peak < 0 else peak  # -1 where the device does not know it
        return None
