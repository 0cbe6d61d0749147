"""The overhead of a trial of ten seconds: the part of a job that is neither training nor compilation.

    pytest benchmarks/test_overhead.py

A short trial warms a worker and gives its steps per second. The next trial, in the same worker, has the steps
of ten seconds. Its job lasts from one record to the next, as the parent receives them. So it includes orders
and messages, data, evaluation, fingerprint and cleaning up. The aim is a part below 0.05. `executor` is the
part outside the trainer. On a busy machine the ten seconds hold less training, and the part is larger.
"""

import time

import pytest

from creditbench.executors import Job, make_executor
from creditbench.trials.grid import Options, make_grid

SECONDS, AIM = 10.0, 0.05


@pytest.mark.parametrize("task", ["mackey_glass", "copy_memory"])
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_overhead(benchmark, backend, task):
    """The overhead of the shipped rule `bptt` at the sizes of the quick preset, on one thread."""

    def job(**options):
        options |= {"tasks": (task,), "learners": ("bptt",), "backends": (backend,), "preset": "quick"}
        return Job(make_grid(Options(**options)).trials)

    def run(jobs):
        """(seconds since the previous record, record) of each job."""
        clock = time.perf_counter()
        for record in make_executor("local", slots=1).run(jobs):
            yield time.perf_counter() - clock, record
            clock = time.perf_counter()

    short = job(budget=20_000)
    ((_, record),) = run([short])
    budget = int(record.steps_per_second * SECONDS)
    (_, (seconds, record)) = benchmark.pedantic(lambda: list(run([short, job(budget=budget)])), rounds=1)
    assert record.status == "ok", record.status_detail
    outside = seconds - record.train_seconds - record.compile_seconds
    benchmark.extra_info.update(
        job_seconds=round(seconds, 2),
        train_seconds=round(record.train_seconds, 2),
        compile_seconds=round(record.compile_seconds, 2),
        evaluations=len(record.curve),
        overhead=round(outside / seconds, 4),
        executor=round((seconds - record.duration_seconds) / seconds, 4),
    )
    assert outside / seconds < AIM
