"""Pins the threads before any framework starts, and prints one line per benchmark at the end."""

import os

from creditbench.machine.threads import thread_environment, usable_cores

THREADS = int(os.environ.setdefault("CREDITBENCH_THREADS", "1"))
os.environ.update(thread_environment(THREADS))
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, usable_cores()[:THREADS])


def pytest_terminal_summary(terminalreporter, config):
    """One line per benchmark."""
    session = getattr(config, "_benchmarksession", None)
    for bench in session.benchmarks if session else []:
        figures = "  ".join(f"{name}={value}" for name, value in bench.extra_info.items())
        terminalreporter.write_line(f"{bench.name}: {figures}")
