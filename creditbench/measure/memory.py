"""Memory, by three measures: need of the algorithm, peak of the process, peak of the device.

*Algorithm bytes* are the peak of memory that the estimate of one segment needs beyond weights and data. They
include all intermediate values and the results: the gradients in the rule's own form, and the state that it
carries on, counted once. The figure is exact, and the same on every machine.

- JAX: the temporaries of the compiled program (`memory_analysis`) and the sizes of its results.
- PyTorch: the peak of the bytes of all live tensors made since the start, seen by a dispatch mode, and the
  results that existed before.

XLA plans all buffers of a program at once. It updates in place and fuses, but keeps results apart from
temporaries even where one could become the other. PyTorch makes a tensor for each operation and drops it
after its last use. For `bptt` both keep the activity of all steps and a few more arrays of that size: the two
agree within a factor 2.
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

    If the peak can be reset (`machine.memory`), a trial's figure is its own even in a process that has run
    others. Otherwise it is the peak of the whole process so far: a trial below an earlier trial's peak shows
    no growth. `source` says which of the two it is. Another process has the first figure or none.
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
        """The growth so far; None if there is no figure."""
        if self.source is None:
            return None
        return max(0, peak_bytes(self._process) - self._before)


class DevicePeak:
    """The most bytes that the framework held at once on an accelerator since the object was made.

    PyTorch's peak can be reset. JAX's cannot: its figure is the peak of the process so far.
    """

    def __init__(self, ops: Ops) -> None:
        self._peak = ops.host.device_peak()

    def bytes(self) -> int | None:
        """The peak; None on a CPU, and if the device does not report it."""
        return self._peak()
