"""Memory, by three measures: what an algorithm needs, what the process took, what the device held.

*Algorithm bytes* are what the estimate of one segment needs beyond weights and data, at its peak: everything
made on the way, and what comes out of it: the gradients in the form in which the rule gives them, and the
state that it carries on, counted once. The figure is exact, and the same on every machine.

- JAX: the temporaries of the compiled program (`memory_analysis`) and the sizes of its results.
- PyTorch: the peak of the bytes of all tensors alive that were made since the start, watched by a dispatch
  mode, and the results that were there before.

XLA plans all buffers of a program at once: it updates in place and fuses, but holds results apart from
temporaries even where one could turn into the other. PyTorch makes a tensor for each operation and drops it
with its last use. For `bptt` both keep the activity of all steps, and a few arrays of its size beside it: the
two agree within a factor 2.
"""

from __future__ import annotations

from typing import Literal

from creditbench.machine.memory import peak_bytes, reset_peak, resident_bytes, settle
from creditbench.measure.update import Update
from creditbench.ops.base import Ops


def algorithm_bytes(ops: Ops, update: Update) -> int:
    """Algorithm bytes of one segment's estimate; see the module."""
    f, arguments = update.estimate(ops)
    return ops.host.algorithm_bytes(f, *arguments)


class ProcessPeak:
    """Growth of the peak resident memory of this process, or of `process`, since the object was made.

    Where the peak can be set back (`machine.memory`), a trial's figure is its own even in a process that has
    run others. Elsewhere the peak of the whole process so far serves: a trial that stays below an earlier
    one's peak then shows no growth. `source` says which. Of another process there is the first figure or
    none.
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
        self._peak = ops.host.device_peak()

    def bytes(self) -> int | None:
        """The peak; None on a CPU, and where the device does not say."""
        return self._peak()
