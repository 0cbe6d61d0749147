"""What it costs to hand out a trial on a dask cluster: throughput, overhead, memory of the run.

    python benchmarks/cluster.py --trials 10000 --workers 1,2,4,8

Trials are simulated: a worker sleeps for --seconds instead of training, and gives a record like that of a
quick trial. All else is as in `creditbench run --executor dask`, in families of five seeds. With --store the
run also writes its records, each through to the disk, as `run` does. The run is a process of its own, and so
is each worker; the scheduler is in this one.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import psutil
from distributed import LocalCluster, Worker

from creditbench.executors import dask_worker, make_executor, make_jobs
from creditbench.executors.base import failure
from creditbench.executors.local import LocalExecutor
from creditbench.results.shared import run_missing
from creditbench.results.store import Store
from creditbench.trials.grid import Options, make_grid
from creditbench.trials.record import Point, Record
from creditbench.trials.trial import Trial

SEEDS = 5
CURVE = tuple(Point(step=i, seconds=i / 3, loss=1 / 3, validation=2 / 3) for i in range(10))
SECONDS = "CREDITBENCH_SIMULATED_SECONDS"


def trials(count: int) -> list[Trial]:
    """Families of five seeds, each with a learning rate of its own."""
    (trial,) = make_grid(Options(tasks=("mackey_glass",), learners=("bptt",))).trials
    own = [{"lr": 1e-3 + 1e-9 * (number // SEEDS), "seed": number % SEEDS} for number in range(count)]
    return [trial.model_copy(update=values) for values in own]


class Simulated(LocalExecutor):
    """Sleeps instead of training."""

    like: Record | None = None

    def run(self, jobs, progress=None) -> Iterator[Record]:
        for job in jobs:
            for trial in job.trials:
                time.sleep(float(os.environ[SECONDS]))
                self.like = self.like or failure(trial, "crashed", "", datetime.now(UTC), 0.0)
                yield self.like.model_copy(update={"trial": trial, "status": "ok", "curve": CURVE})


def dask_setup(worker: Worker) -> None:
    """Called by dask in each worker."""
    dask_worker._make = lambda settings, worker: Simulated(
        threads=1, slots=1, timeout=60.0, memory_limit=1 << 30
    )


def run(address: str, count: int, folder: str) -> None:
    """The run: prints its seconds, its seconds of processor, and its bytes before and at most, as JSON.

    `folder`: of the records; empty if none are written.
    """
    asked, executor = trials(count), make_executor("dask", scheduler=address)
    before, used = psutil.Process().memory_info().rss, time.process_time()
    start = time.perf_counter()
    if folder:
        found = {record.trial.id for record, _ in run_missing(Store(folder), asked, executor, make_jobs)}
    else:
        found = {record.trial.id for record in executor.run(make_jobs(asked))}
    seconds = time.perf_counter() - start
    used = time.process_time() - used
    assert len(found) == count and not executor.lost
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "processor": used, "before": before, "peak": peak}))


def main() -> None:
    """Measure each number of workers, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=10_000, help="default: %(default)s")
    parser.add_argument("--workers", default="1,2,4,8", help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=0.02, help="of a trial; default: %(default)s")
    parser.add_argument("--store", action="store_true", help="also write the records")
    parser.add_argument("--address", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.address:
        with tempfile.TemporaryDirectory() as folder:
            run(given.address, given.trials, folder if given.store else "")
        return
    print(f"{given.trials} trials of {given.seconds} s, in families of {SEEDS}")
    print("workers | trials/s | × ideal | ms a trial beyond its sleep | ms of processor: run, all | MB")
    for workers in map(int, given.workers.split(",")):
        with LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            dashboard_address="127.0.0.1:0",
            memory_limit=0,
            preload=[__file__],
            env={SECONDS: str(given.seconds)},
        ) as cluster:
            everyone = [psutil.Process(), *psutil.Process().children(recursive=True)]
            before = sum(sum(one.cpu_times()[:2]) for one in everyone)
            words = [sys.executable, __file__, "--address", cluster.scheduler_address]
            words += ["--trials", str(given.trials), *(["--store"] if given.store else [])]
            done = subprocess.run(words, stdout=subprocess.PIPE, check=True, text=True)
            used = sum(sum(one.cpu_times()[:2]) for one in everyone) - before
        found = json.loads(done.stdout)
        ideal, beyond = workers / given.seconds, workers * found["seconds"] / given.trials - given.seconds
        speed = given.trials / found["seconds"]
        own, whole = (1e3 * each / given.trials for each in (found["processor"], found["processor"] + used))
        memory = f"{found['before'] / 1e6:.0f} → {found['peak'] / 1e6:.0f}"
        figures = (
            f"{workers} | {speed:.1f} | {speed / ideal:.2f} | {1e3 * beyond:.1f} | {own:.2f}, {whole:.2f}"
        )
        print(f"{figures} | {memory}", flush=True)


if __name__ == "__main__":
    main()
