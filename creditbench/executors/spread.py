"""Work that is no trial, in parts: several at a time on this machine, or on the workers of a dask cluster.

A part is an order of JSON values for one function, which answers in messages of JSON values. The function
itself starts the processes that need one. A part that fails ends the whole, since its results are one table.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from creditbench.errors import MachineError, UsageError, not_installed, unknown
from creditbench.machine.threads import usable_cores

SPREADS = ("local", "dask")


@dataclass(frozen=True)
class Spread:
    """Where parts run: `jobs` at a time here, or on a dask cluster, one a thread of its workers.

    `jobs`: None for 1. `scheduler`: of a cluster that is there; None for one on this machine, of `jobs`
    workers. `threads`: of a part. Raises `UsageError` for an unknown executor and for impossible numbers.
    """

    executor: str = "local"
    jobs: int | None = None
    scheduler: str | None = None
    threads: int = 1

    def __post_init__(self) -> None:
        if self.executor not in SPREADS:
            raise unknown("executor", self.executor, SPREADS, "one of local, dask")
        if self.slots < 1:
            raise UsageError(f"--jobs is {self.jobs}: give a whole number from 1")
        if self.scheduler is not None and (self.executor != "dask" or self.jobs is not None):
            other = (
                f"the executor is {self.executor!r}" if self.executor != "dask" else f"--jobs is {self.jobs}"
            )
            cure = (
                "give --executor dask" if self.executor != "dask" else "its workers decide; leave out --jobs"
            )
            raise UsageError(f"--scheduler is {self.scheduler} and {other}: {cure}")
        cores = len(usable_cores())
        if self.scheduler is None and self.slots * self.threads > cores:
            raise UsageError(
                f"--jobs is {self.slots} with {self.threads} threads each, and this process may use {cores} "
                f"cores: give --jobs {max(1, cores // self.threads)} or fewer"
            )
        if self.executor == "dask" and importlib.util.find_spec("distributed") is None:
            raise not_installed("the executor 'dask'", "distributed")

    @property
    def slots(self) -> int:
        """Parts at a time on this machine."""
        return 1 if self.jobs is None else self.jobs

    @property
    def several(self) -> bool:
        """Whether parts run beside each other."""
        return self.slots > 1 or self.executor == "dask"

    def run(self, entry: str, orders: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, dict[str, Any]]]:
        """The messages of all parts as they come, each with the number of its part.

        `entry`: "package.module:function", called in a thread as `function(slot=…, **order)`, an iterator.
        `slot`: the number of the thread, from 0, which has cores of its own; None where there is no such
        number. Closing the iterator ends the parts. Raises what a part raises, and `MachineError` if a
        cluster has lost one.
        """
        if self.executor == "dask":
            yield from self._on_cluster(entry, orders)
        elif self.slots == 1:
            for number, order in enumerate(orders):
                for message in _function(entry)(slot=0, **order):
                    yield number, message
        else:
            yield from self._here(_function(entry), orders)

    def _here(
        self, function: Callable[..., Iterator[dict[str, Any]]], orders: Sequence[Mapping[str, Any]]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        inbox: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        waiting, stopped, lock = iter(enumerate(orders)), threading.Event(), threading.Lock()

        def work(slot: int) -> None:
            """Do one part after another."""
            try:
                while not stopped.is_set():
                    with lock:
                        number, order = next(waiting, (-1, {}))
                    if number < 0:
                        break
                    # Closed however the loop ends, and its process with it.
                    with contextlib.closing(function(slot=slot, **order)) as messages:  # type: ignore[type-var]
                        for message in messages:
                            inbox.put((number, message))
                            if stopped.is_set():
                                break
                inbox.put((-1, None))
            except BaseException as error:
                inbox.put((-1, error))

        with ThreadPoolExecutor(self.slots) as pool:
            working = min(self.slots, len(orders))
            for slot in range(working):
                pool.submit(work, slot)
            try:
                while working:
                    number, message = inbox.get()
                    if number >= 0:
                        yield number, message
                    elif message is None:
                        working -= 1
                    else:
                        raise message
            finally:
                stopped.set()

    def _on_cluster(
        self, entry: str, orders: Sequence[Mapping[str, Any]]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        # It needs distributed, which is an extra.
        from distributed import KilledWorker, as_completed

        from creditbench.executors.dask import connected, own_cluster
        from creditbench.executors.dask_worker import harness

        with contextlib.ExitStack() as opened:
            place = self.scheduler
            if place is None:
                place = opened.enter_context(own_cluster(self.slots))
            client = opened.enter_context(connected(place))
            numbers = {
                client.submit(run_part, json.dumps([harness(), entry, order]), pure=False): number
                for number, order in enumerate(orders)
            }
            try:
                for future in as_completed(list(numbers), loop=client.loop):
                    try:
                        messages = future.result()
                    except KilledWorker as error:
                        raise MachineError(
                            f"the part {numbers[future] + 1} of {len(orders)} has lost its worker "
                            f"{error.allowed_failures + 1} times"
                        ) from None
                    for message in messages:
                        yield numbers[future], message
            finally:
                client.cancel(list(numbers), force=True)


def _function(entry: str) -> Callable[..., Iterator[dict[str, Any]]]:
    module, _, name = entry.partition(":")
    function: Callable[..., Iterator[dict[str, Any]]] = getattr(importlib.import_module(module), name)
    return function


def run_part(text: str) -> list[dict[str, Any]]:
    """Do one part in a thread of a dask worker. Raises `UsageError` if its harness is another one."""
    # They need distributed, which is an extra.
    from distributed import get_worker

    from creditbench.executors.dask_worker import another

    wanted, entry, order = json.loads(text)
    worker = get_worker()
    if why := another(wanted):
        raise UsageError(f"worker {worker.address} {why}")
    # Workers of a cluster of ours are numbered. Others do not know which cores their neighbours have.
    slot = worker.name if isinstance(worker.name, int) else None
    return list(_function(entry)(slot=slot, **order))
