"""A separate process for measurements: one backend, with thread pools pinned before any library starts.

`python -m creditbench.studies.process ORDERS REPORTS` (`creditbench.machine.child`) takes one order and sends
its results, a message each. The output of a rule goes to the log.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from creditbench.errors import UsageError
from creditbench.machine.child import Child, Send, child_environment
from creditbench.machine.threads import usable_cores

#: Jobs of such a process: name -> module and function that yields results, called with the order's other
#: items.
_JOBS = {
    "scale": ("creditbench.studies.scaling", "measure"),
    "gradients": ("creditbench.studies.gradients", "measure"),
    "shares": ("creditbench.studies.scaling", "shares"),
}


#: `results`, for `creditbench.executors.spread`.
ENTRY = "creditbench.studies.process:results"


def results(
    job: str, *, backend: str, device: str, threads: int, slot: int | None = 0, **order: Any
) -> Iterator[dict[str, Any]]:
    """Do `job` in a separate process; its results as they come. Closing the iterator ends the process.

    `slot`: processes of different slots have cores of their own, as far as there are enough; None: any cores.
    Raises `UsageError` if the process does, or if it ends without a message.
    """
    environment = child_environment(threads, device)
    with Child("-m", "creditbench.studies.process", environment=environment, session=False) as child:
        child.send(job=job, backend=backend, device=device, threads=threads, slot=slot, **order)
        for found in child.messages():
            if "usage_error" in found:
                raise UsageError(found["usage_error"])
            yield found
        if code := child.process.wait():
            last = (child.last_line() or "it printed nothing")[:300]
            raise UsageError(f"measuring {job} with {backend} ended with exit code {code}: {last}")


def main() -> None:
    """Do the order."""
    send = Send(*map(int, sys.argv[1:3]))
    order = send.receive()
    if order is None:  # the parent has gone already
        return
    threads, slot = order.pop("threads"), order.pop("slot")
    if hasattr(os, "sched_setaffinity") and slot is not None:
        # The last cores first: systems keep the first one busiest.
        cores = usable_cores()[::-1]
        os.sched_setaffinity(0, {cores[(slot * threads + i) % len(cores)] for i in range(threads)})
    try:
        # Imported here, since libraries count the cores when they start: these are chosen first.
        from creditbench.machine.compilation import keep_programs
        from creditbench.ops import COMPILED, make_ops

        module, function = _JOBS[order.pop("job")]
        if order["backend"] in COMPILED:
            keep_programs()
        ops = make_ops(order.pop("backend"), order.pop("device"), order.pop("dtype", "float32"))
        ops.host.set_threads(threads)
        for found in getattr(importlib.import_module(module), function)(ops, **order):
            send(**found)
    except UsageError as error:
        send(usage_error=str(error))


if __name__ == "__main__":
    main()
