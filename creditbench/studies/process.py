"""A process of its own in which to measure: one backend, its thread pools pinned before any library starts.

`python -m creditbench.studies.process FD` reads what to do from standard input as JSON and writes its results to the
file descriptor FD, a line of JSON each. What a rule prints goes to standard error.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

from creditbench.errors import UsageError
from creditbench.machine.threads import thread_environment, usable_cores

#: What such a process can do: name -> module and function that yields results, called with the order's other items.
_JOBS = {
    "scale": ("creditbench.studies.scaling", "measure"),
    "gradients": ("creditbench.studies.gradients", "measure"),
    "shares": ("creditbench.studies.scaling", "shares"),
}


def results(job: str, *, backend: str, device: str, threads: int, **order: Any) -> Iterator[dict[str, Any]]:
    """Have a process of its own do `job`; its results as they come. Closing the iterator ends the process.

    Raises `UsageError` where the process does, or where it ends without a word.
    """
    environment: Mapping[str, str] = os.environ | thread_environment(threads)
    if device == "cpu":
        # JAX would else start every platform that it finds, and take memory on it.
        environment = {"JAX_PLATFORMS": "cpu"} | dict(environment)
    order |= {"job": job, "backend": backend, "device": device, "threads": threads}
    read, write = os.pipe()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "creditbench.studies.process", str(write)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=environment,
            pass_fds=(write,),
        )
        os.close(write)
        try:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # it has ended already, which will be seen
                process.stdin.write(json.dumps(order).encode())
                process.stdin.close()
            with os.fdopen(read, encoding="utf-8") as pipe:
                for line in pipe:
                    found = json.loads(line)
                    if "usage_error" in found:
                        raise UsageError(found["usage_error"])
                    yield found
            if process.wait():
                log.seek(0)
                last = (log.read().decode(errors="replace").strip().splitlines() or ["it printed nothing"])[
                    -1
                ]
                raise UsageError(
                    f"measuring {job} with {backend} ended with exit code {process.returncode}: {last[:300]}"
                )
        finally:
            process.kill()
            process.wait()


def main() -> None:
    """Do the order on standard input."""
    import importlib

    order = json.load(sys.stdin)
    descriptor = int(sys.argv[1])
    os.set_inheritable(descriptor, False)
    threads = order.pop("threads")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, usable_cores()[-threads:])
    with os.fdopen(descriptor, "w", encoding="utf-8") as pipe:

        def send(values: dict[str, Any]) -> None:
            pipe.write(json.dumps(values) + "\n")
            pipe.flush()

        try:
            from creditbench.machine.compilation import keep_programs
            from creditbench.ops import COMPILED, make_ops

            module, function = _JOBS[order.pop("job")]
            if order["backend"] in COMPILED:
                keep_programs()
            ops = make_ops(order.pop("backend"), order.pop("device"), order.pop("dtype", "float32"))
            ops.host.set_threads(threads)
            for found in getattr(importlib.import_module(module), function)(ops, **order):
                send(found)
        except UsageError as error:
            send({"usage_error": str(error)})


if __name__ == "__main__":
    main()
