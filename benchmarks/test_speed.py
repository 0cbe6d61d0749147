"""How fast the rules are: updates of one program, compiled and warm, against a plain forward pass in the same run.

    make bench                                          all of it
    pytest benchmarks/test_speed.py -k "anp and 500"    some of it

One round is one compiled block of updates; the table's times are seconds a block. `extra_info` (in the JSON, and
printed at the end) has steps or updates a second and the paired ratio to the forward pass: a block of the rule and
a block of the forward pass follow each other, the ratio is taken pair by pair, and its median is given.
"""

import os
import time

import numpy as np
import pytest

from creditbench import registry
from creditbench.cell import Cell
from creditbench.learner import Batch, Decorrelated
from creditbench.ops import make_ops
from creditbench.optimizers import SGD

#: One thread, and all of them. JAX fixes its threads when it starts: `make bench` runs this file once for each.
THREADS = int(os.environ.get("CREDITBENCH_THREADS", "1"))

STREAM = [
    ("anp", {}, "none", 500),
    ("anp", {}, "hidden", 500),
    ("anp", {}, "none", 200),
]
EPISODES = [
    ("bptt", {}, 500),
    ("np", {"credit": "step"}, 500),
    ("np", {"credit": "episode"}, 500),
    ("anp", {}, 500),
    ("wp", {"resample": "episode"}, 500),
    ("wp", {"resample": "step", "credit": "step"}, 500),
]


@pytest.fixture(params=["jax", "torch"])
def ops(request):
    if request.param == "torch":
        import torch

        torch.set_num_threads(THREADS)
    return make_ops(request.param)


def prepare(ops, learner_id, hyperparameters, cell, segments, steps):
    """Two functions that run and wait: one block of updates, and the forward pass over as many steps."""
    rng = np.random.default_rng(0)
    learner = registry.find("learners", learner_id).cls(**hyperparameters)
    if cell.decorrelate != "none":
        learner = Decorrelated(learner=learner, rate=1e-6)
    optimizer = SGD(lr=1e-9)
    shape = (segments, steps, 1)
    arrays = (
        rng.standard_normal((*shape, cell.inputs)),
        rng.standard_normal((*shape, cell.outputs)),
        np.full(shape, 1 / steps),
    )
    xs = Batch(*ops.from_numpy(arrays)), ops.split(ops.key(0), segments)

    def update(carry, xs):
        params, state = carry
        batch, key = xs
        if steps > 1:
            state = learner.reset(ops, cell, params, state, 1)
        estimate = learner.segment(ops, cell, params, state, batch, key)
        params, _ = optimizer.update(ops, params, (), estimate.grads)
        return (params | estimate.assigned, estimate.state), estimate.loss

    def forward(params, inputs):
        return cell.run(ops, params, inputs)

    params = ops.from_numpy(cell.init(0))
    carry = [(params, learner.init(ops, cell, params, 1))]
    block = ops.compile(lambda carry, xs: ops.scan(update, carry, xs), carry[0], xs, donate=(0,))
    inputs = xs[0].inputs.reshape((segments * steps, 1, cell.inputs))
    fixed = ops.from_numpy(cell.init(1))
    run_forward = ops.compile(forward, fixed, inputs)

    def train():
        carry[0], losses = block(carry[0], xs)
        ops.synchronize((carry[0], losses))

    return train, lambda: ops.synchronize(run_forward(fixed, inputs))


def measure(benchmark, train, forward, updates, steps):
    """Time `train` by the plug-in, then pair by pair against `forward`."""
    train(), forward()
    benchmark.pedantic(train, rounds=7, warmup_rounds=1)
    ratios = []
    for _ in range(7):
        marks = [time.perf_counter()]
        for run in (train, forward):
            run()
            marks.append(time.perf_counter())
        ratios.append((marks[1] - marks[0]) / (marks[2] - marks[1]))
    seconds = benchmark.stats.stats.median
    benchmark.extra_info.update(
        threads=THREADS,
        steps_per_second=round(updates * steps / seconds),
        milliseconds_per_update=round(1000 * seconds / updates, 3),
        times_forward=round(float(np.median(ratios)), 2),
    )
    benchmark.group = f"{THREADS} threads"


@pytest.mark.parametrize(("id", "hyperparameters", "decorrelate", "n"), STREAM, ids=str)
def test_stream(benchmark, ops, id, hyperparameters, decorrelate, n):
    """Online, B = 1: one update at every time step."""
    cell, updates = Cell(1, n, 1, decorrelate=decorrelate), 1000
    measure(benchmark, *prepare(ops, id, hyperparameters, cell, updates, 1), updates, 1)


@pytest.mark.parametrize(("id", "hyperparameters", "n"), EPISODES, ids=str)
def test_episodes(benchmark, ops, id, hyperparameters, n):
    """The shapes of copy_memory: T = 210, 10 symbols, B = 1; one update a sequence."""
    cell = Cell(10, n, 10)
    updates = 1 if hyperparameters.get("resample") == "step" else 5
    measure(benchmark, *prepare(ops, id, hyperparameters, cell, updates, 210), updates, 210)


@pytest.mark.parametrize("n", [500])
def test_normals(benchmark, ops, n):
    """The bound of weight perturbation with fresh noise at every step: drawing the noise of 10 steps, and no more."""
    shapes, steps = Cell(10, n, 10).shapes(), 10
    keys = ops.split(ops.key(0), steps)

    def draw(total, key):
        draws = [
            ops.normal(k, s).sum() for k, s in zip(ops.split(key, len(shapes)), shapes.values(), strict=True)
        ]
        return total + sum(draws), None

    run = ops.compile(lambda keys: ops.scan(draw, ops.zeros(()), keys), keys)
    benchmark.pedantic(lambda: ops.synchronize(run(keys)), rounds=5, warmup_rounds=1)
    count = steps * sum(int(np.prod(shape)) for shape in shapes.values())
    benchmark.extra_info.update(
        threads=THREADS, million_normals_per_second=round(count / benchmark.stats.stats.median / 1e6)
    )
    benchmark.group = f"{THREADS} threads"
