"""The time of tasks to make their data, at their default size; data from files come from the cache.

    make bench ARGS="-k tasks"

Generating any task takes less than half a second, and loading one from the cache less than 50 ms. A test
fails if its best round takes longer. The time is processor time of the task's work alone: its file and its
libraries are imported before.
"""

import importlib.util
import time

import numpy as np
import pytest

from creditbench import data
from creditbench.plugins import registry

TASKS = {plugin.id: plugin.cls for plugin in registry.load("tasks").values() if plugin.source == "builtin"}
READS = ("sequential_digits", "speech_vowels", "text8_chars", "weather")  # through the cache
MOST, MOST_CACHED = 0.5, 0.05  # seconds

pytestmark = pytest.mark.benchmark(timer=time.process_time)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CREDITBENCH_CACHE", str(tmp_path))


def needs_data(id):
    if id == "speech_vowels" and importlib.util.find_spec("aeon") is None:
        pytest.skip("aeon is not installed, which has the data: pip install --no-deps aeon")


@pytest.mark.parametrize("id", TASKS)
def test_generate(benchmark, id):
    """The train split of the next seed. Tasks that read a file take it from the cache."""
    needs_data(id)
    cls = TASKS[id]
    cls().generate("train", 0, cls.batch)
    benchmark.pedantic(lambda: cls().generate("train", 1, cls.batch), rounds=7)
    assert benchmark.stats.stats.min < MOST
    if id in READS:
        assert benchmark.stats.stats.min < MOST_CACHED


@pytest.mark.parametrize("id", READS)
def test_first_time(benchmark, id, tmp_path, monkeypatch):
    """The same with an empty cache: the file is read and parsed."""
    import datasets  # noqa: F401
    import sklearn.datasets  # noqa: F401

    needs_data(id)
    cls, folders = TASKS[id], iter(range(100))

    def empty():
        monkeypatch.setenv("CREDITBENCH_CACHE", str(tmp_path / str(next(folders))))

    benchmark.pedantic(lambda: cls().generate("train", 0, cls.batch), setup=empty, rounds=5)
    assert benchmark.stats.stats.min < MOST


def test_from_cache(benchmark):
    """200 MB, the size of MNIST's pixels as numbers: memory-mapped, not read."""
    make = lambda: {"a": np.zeros((60_000, 784), np.float32)}  # noqa: E731
    data.cached("key", make)
    benchmark.pedantic(lambda: data.cached("key", make), rounds=7)
    assert benchmark.stats.stats.min < MOST_CACHED / 10
