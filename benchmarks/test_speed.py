"""The speed of the rules: updates of one program, compiled and warm, beside a plain forward pass.

    make bench                                          all of it
    pytest benchmarks/test_speed.py -k "anp and 500"    some of it

    make bench ARGS="-k anp --benchmark-save=before"    keep a run, one file for each number of threads
    make bench ARGS="-k anp --benchmark-compare"        compare the next run with the last one kept

One round is one compiled block of updates; the table's times are seconds per block. `extra_info` (in the
JSON, and printed at the end) has steps or updates per second and the paired ratio to the forward pass. Blocks
of the rule and of the forward pass run in turn, and the figure is the median of the ratios of pairs. The
tables are grouped by rule.
"""

import os

import numpy as np
import pytest

from creditbench.cells import Tanh
from creditbench.measure import clock
from creditbench.measure.update import Prepared, Update
from creditbench.ops import make_ops
from creditbench.plugins import registry

#: One thread, and all threads. JAX fixes its threads at its start: `make bench` runs this file once for each.
THREADS = int(os.environ.get("CREDITBENCH_THREADS", "1"))

RULES = registry.load("learners")
STREAM = [("anp", {}, "none", 500), ("anp", {}, "hidden", 500), ("anp", {}, "none", 200)]
EPISODES = [
    ("bptt", {}, 500),
    ("np", {"credit": "step"}, 500),
    ("np", {"credit": "episode"}, 500),
    ("anp", {}, 500),
    ("wp", {"resample": "episode"}, 500),
    ("wp", {"resample": "step", "credit": "step"}, 500),
]
#: (rule, steps between its updates)
ONLINE = [("rtrl", 1), ("uoro", 1), ("kf_rtrl", 1), ("rflo", 1), ("tbptt", 10)]


@pytest.fixture(params=["jax", "torch"])
def ops(request):
    if request.param == "torch":
        import torch

        torch.set_num_threads(THREADS)
    return make_ops(request.param)


def measure(benchmark, ops, id, hyperparameters, cell, segments, steps, episodes=None):
    """Time blocks of the rule by pytest-benchmark, then in pairs with the forward pass."""
    learner = registry.find("learners", id).cls(**hyperparameters)
    update = Update(
        learner=learner, cell=cell, steps=steps, episodes=steps > 1 if episodes is None else episodes
    )
    runs = {"rule": Prepared(ops, update, segments), "forward": Prepared(ops, update.forward, segments)}
    benchmark.group = f"{id}, {THREADS} threads"  # read when the benchmark runs
    benchmark.pedantic(runs["rule"], rounds=7, warmup_rounds=1)
    blocks = clock.interleaved(runs, budget=0.0)
    seconds = benchmark.stats.stats.median
    benchmark.extra_info.update(
        threads=THREADS,
        steps_per_second=round(segments * steps / seconds),
        milliseconds_per_update=round(1000 * seconds / segments, 3),
        times_forward=round(clock.ratio(blocks["rule"], blocks["forward"]).median, 2),
    )


@pytest.mark.parametrize("id", RULES)
def test_update(benchmark, ops, id):
    """Every rule of the registry on episodes of T = 64, n = 64, B = 1; one update per episode."""
    if ops.name not in RULES[id].cls.backends:
        pytest.skip(f"{id} has no {ops.name}")
    measure(benchmark, ops, id, {}, Tanh(2, 64, 2), 10, 64)


@pytest.mark.parametrize(("id", "hyperparameters", "decorrelate", "n"), STREAM, ids=str)
def test_stream(benchmark, ops, id, hyperparameters, decorrelate, n):
    """Online, B = 1: one update at every time step."""
    cell, updates = Tanh(1, n, 1, decorrelate=decorrelate), 1000
    measure(benchmark, ops, id, hyperparameters, cell, updates, 1)


@pytest.mark.parametrize(("id", "hyperparameters", "n"), EPISODES, ids=str)
def test_episodes(benchmark, ops, id, hyperparameters, n):
    """The shapes of copy_memory: T = 210, 10 symbols, B = 1; one update per sequence."""
    cell = Tanh(10, n, 10)
    updates = 1 if hyperparameters.get("resample") == "step" else 5
    measure(benchmark, ops, id, hyperparameters, cell, updates, 210)


@pytest.mark.parametrize("n", [32, 128])
@pytest.mark.parametrize(("id", "steps"), ONLINE, ids=str)
def test_online(benchmark, ops, id, steps, n):
    """Rules that carry influence forward, B = 1, 2 inputs, 2 outputs: the shapes of add_stream."""
    blocks = 200 if id == "rtrl" and n == 128 else 2000
    measure(benchmark, ops, id, {}, Tanh(2, n, 2), blocks // steps, steps, episodes=False)


@pytest.mark.parametrize("n", [500])
def test_normals(benchmark, ops, n):
    """The bound of weight perturbation with fresh noise at every step: only drawing the noise of 10 steps."""
    shapes, steps = Tanh(10, n, 10).shapes(), 10
    keys = ops.split(ops.key(0), steps)

    def draw(total, key):
        draws = [
            ops.normal(k, s).sum() for k, s in zip(ops.split(key, len(shapes)), shapes.values(), strict=True)
        ]
        return total + sum(draws), None

    run = ops.compile(lambda keys: ops.scan(draw, ops.zeros(()), keys), keys)
    benchmark.group = f"{THREADS} threads"
    benchmark.pedantic(lambda: ops.synchronize(run(keys)), rounds=5, warmup_rounds=1)
    count = steps * sum(int(np.prod(shape)) for shape in shapes.values())
    benchmark.extra_info.update(
        threads=THREADS, million_normals_per_second=round(count / benchmark.stats.stats.median / 1e6)
    )
