"""Programs are compiled once on a machine, and few of them in a trial."""

import itertools
import os

import pytest

from creditbench.executors import make_jobs
from creditbench.executors.local import LocalExecutor
from creditbench.machine import compilation
from creditbench.trials.grid import Options, make_grid
from creditbench.trials.trainer import run_trials

pytestmark = pytest.mark.needs("jax")


def trials(**options):
    defaults = dict(tasks=("weather",), learners=("snap1",), backends=("jax",), hidden=8, measure=True)
    return make_grid(Options(**(defaults | dict(seeds=(0,), budget=2000, evaluations=5) | options))).trials


def record_of(**options):
    executor = LocalExecutor(threads=1, slots=1, timeout=200, memory_limit=4 << 30)
    (record,) = executor.run(make_jobs(trials(**options)))
    assert record.status == "ok", record.status_detail
    return record


def numbers(record):
    return [(p.loss, p.validation) for p in record.curve], record.test_score, record.flops_per_step


@pytest.fixture
def cache(tmp_path, monkeypatch):
    for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CREDITBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_program_comes_from_the_cache_and_gives_the_same_bits(cache):
    cold, warm = record_of(), record_of()
    assert cold.compile_cached is False and warm.compile_cached is True
    assert cold.cold_compile_seconds == cold.compile_seconds and warm.cold_compile_seconds is None
    # A busy machine may take long over either: the better of a few counts.
    again = itertools.chain([warm], (record_of(measure=False) for _ in range(2)))
    assert any(found.compile_seconds < cold.compile_seconds for found in again)
    assert numbers(warm) == numbers(cold) and warm.algorithm_bytes == cold.algorithm_bytes
    # A process that was killed while it wrote leaves half an entry.
    kept = list(compilation.folder().iterdir())
    assert len(kept) > 3
    for path in kept:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    broken = record_of(measure=False)
    assert broken.compile_cached is False and numbers(broken)[:2] == numbers(cold)[:2]


def test_a_program_is_cold_though_the_cache_has_those_that_evaluate(cache):
    """What evaluates belongs to the network, and another rule may have brought it."""
    first, second = record_of(measure=False), record_of(learners=("bptt",), measure=False)
    assert first.compile_cached is second.compile_cached is False
    assert second.cold_compile_seconds == second.compile_seconds > 0


def test_a_cache_that_cannot_be_made_costs_nothing_but_time(cache):
    cache.write_text("a file")
    assert record_of(measure=False).compile_cached is False


def test_the_users_own_setting_stands(cache, monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "own"))
    record_of(budget=400, measure=False)
    assert not compilation.folder().exists() and (tmp_path / "own").is_dir()


def test_the_oldest_programs_go_when_there_are_too_many(cache, monkeypatch):
    monkeypatch.setattr(compilation, "MOST_BYTES", 1000)
    for number in range(12):
        path = compilation.folder() / f"program-{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 100)
        os.utime(path, (number, number))
    compilation._prune(compilation.folder())
    assert sorted(path.name for path in compilation.folder().iterdir()) == sorted(
        f"program-{number}" for number in range(7, 12)
    )


@pytest.mark.parametrize("task", ["weather", "adding"])
def test_the_number_of_programs_is_the_same_for_any_number_of_blocks(task):
    """Every block of a run is trained by one program, and what cuts the run into blocks is none."""
    import jax

    def compiled(evaluations):
        heard = []
        (trial,) = trials(
            tasks=(task,), evaluations=evaluations, budget=400 * evaluations, measure=False, batch=4
        )
        jax.clear_caches()

        def listen(name, *_, **__):
            heard.append(name == "/jax/core/compile/backend_compile_duration")

        jax.monitoring.register_event_duration_secs_listener(listen)
        try:
            next(run_trials([trial]))
        finally:
            jax.monitoring.unregister_event_duration_listener(listen)
        return sum(heard)

    few, many = compiled(2), compiled(12)
    assert 0 < many <= few
