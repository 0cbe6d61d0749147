"""Rules, recordings, figures and commands give the same on an accelerator as on the CPU.

Skipped if there is none. `make test-gpu` lets JAX look for one; the other tests forbid it.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from creditbench.cells import Tanh
from creditbench.check.probe import arguments as arguments_of
from creditbench.check.probe import difference, make_batch, make_cell, make_params, segment_of, wrapped
from creditbench.measure import clock, memory, work
from creditbench.measure.cost import compilations
from creditbench.measure.update import Update, prepare
from creditbench.ops import make_ops
from creditbench.plugins import registry
from creditbench.studies import scaling
from creditbench.trials.grid import Options, make_grid
from creditbench.trials.trainer import Trainer
from tests.training import Training

pytestmark = pytest.mark.gpu

RULES = sorted(registry.load("learners"))


def find_rule(id, **hyperparameters):
    return registry.find("learners", id).cls(**hyperparameters)


def update(id, hidden=24, steps=128, batch=2, inputs=3, outputs=2):
    return Update(learner=find_rule(id), cell=Tanh(inputs, hidden, outputs), steps=steps, batch=batch)


def accelerator(backend, dtype="float32"):
    """The backend on the accelerator that it sees."""
    if backend == "torch":
        import torch

        if not torch.cuda.is_available():
            pytest.skip("torch sees no cuda device")
        return make_ops("torch", "cuda", dtype)
    import jax

    if jax.default_backend() == "cpu":
        pytest.skip("jax sees no accelerator")
    return make_ops("jax", jax.default_backend(), dtype)


@pytest.fixture(params=["jax", "torch"])
def ops(request):
    return accelerator(request.param)


@pytest.fixture(params=["jax", "torch"])
def name(request):
    """A backend that sees an accelerator."""
    accelerator(request.param)
    return request.param


def drawing_alike(ops):
    """`ops` with the CPU's draws, where it has others: PyTorch's generators differ from device to device."""
    if ops.name == "jax":
        return ops
    import torch

    class Alike(type(ops)):
        def fill_normal(self, out, key, scale):
            out.copy_(torch.empty(out.shape, dtype=out.dtype).normal_(0.0, scale, generator=self.seeded(key)))

        def fill_signs(self, out, key):
            drawn = torch.empty(out.shape, dtype=out.dtype).random_(0, 2, generator=self.seeded(key))
            out.copy_(drawn.mul_(2.0).sub_(1.0))

        def seeded(self, key):
            return torch.Generator().manual_seed(key)

    return Alike(ops.device, ops.dtype)


# -- rules ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decorrelate", ["none", "both"])
@pytest.mark.parametrize("backend", ["jax", "torch"])
@pytest.mark.parametrize("id", RULES)
def test_a_rule_gives_what_it_gives_on_the_cpu(id, backend, decorrelate):
    learner = find_rule(id)
    if decorrelate != "none" and not learner.decorrelates:
        pytest.skip(f"{id} does not decorrelate")
    cell = make_cell(alpha=0.5, decorrelate=decorrelate)
    rule = wrapped(learner, cell)
    found = []
    for ops in (drawing_alike(accelerator(backend, "float64")), make_ops(backend, dtype="float64")):
        segment = segment_of(ops, rule, cell)
        args = arguments_of(ops, rule, cell, make_params(cell), make_batch())
        run = ops.compile(segment, *args)
        first = ops.to_numpy(run(*args))
        again = arguments_of(ops, rule, cell, make_params(cell), make_batch(seed=1), key=2, state=first[2])
        found.append((first, ops.to_numpy(run(*again))))
    gap, where = difference(*found)
    assert gap < 1e-9, where


@pytest.mark.parametrize("protocol", ["online", "segments", "episodes"])
@pytest.mark.parametrize("id", RULES)
def test_training_captured_is_training_run_step_by_step(id, protocol, monkeypatch):
    """Blocks of updates as CUDA graphs. The second block starts from the first one's end, on other data."""
    import torch

    steps = {"online": 1, "segments": 3, "episodes": 40}[protocol]
    training = Training(accelerator("torch", "float64"), find_rule(id), steps, protocol == "episodes")
    ops, replays = training.ops, []

    class Graph(torch.cuda.CUDAGraph):
        def replay(self):
            replays.append(self)
            super().replay()

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)

    expected, losses = training.start(), []
    for seed in (1, 2):
        expected, loss = torch.no_grad()(training.block)(expected, training.data(seed))
        losses.append(ops.to_numpy(loss))
    assert not replays
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "a step could not be captured")
        recorded, found = ops.compile(training.block, training.start(), training.data(0)), training.start()
    for seed in (1, 2):
        found, loss = recorded(found, training.data(seed))
        np.testing.assert_allclose(ops.to_numpy(loss), losses[seed - 1], rtol=1e-9)
    gap, where = difference(ops.to_numpy(found), ops.to_numpy(expected))
    assert gap < 1e-8, where
    assert len(replays) >= 2


def test_the_same_noise_is_drawn_again(ops):
    draws = [
        ops.to_numpy((ops.normal(ops.key(3), (5, 4)), ops.rademacher(ops.key(3), (5,)))) for _ in range(2)
    ]
    np.testing.assert_array_equal(draws[0][0], draws[1][0])
    np.testing.assert_array_equal(draws[0][1], draws[1][1])
    many = ops.to_numpy(ops.normal(ops.key(4), (200, 200), 2.0))
    assert many.std() == pytest.approx(2.0, rel=0.02) and abs(many.mean()) < 0.04


def test_products_are_in_float32(ops):
    """And not in TF32, whose numbers have 10 bits."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 256, 256)).astype(np.float32)
    found = ops.to_numpy(
        ops.compile(lambda x, w: ops.linear(x, w), *ops.from_numpy((x, w)))(*ops.from_numpy((x, w)))
    )
    expected = x.astype(float) @ w.T.astype(float)
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


# -- figures -------------------------------------------------------------------------------------------------


def test_figures_of_an_accelerator(ops):
    peak = memory.DevicePeak(ops)
    subject = update("bptt", hidden=256, steps=128, batch=16)
    block = prepare(ops, subject, 128)
    assert peak.bytes() > 4 * 128 * 16 * 256
    found = clock.quartiles(clock.blocks(block))
    assert found.median > 0 and math.isfinite(found.median)
    # A block has ended when its time is taken: one of twice the steps takes longer.
    longer = clock.quartiles(clock.blocks(prepare(ops, replace(subject, steps=1024), 1024)))
    assert longer.median > 2 * found.median


@pytest.mark.parametrize(("id", "low", "high"), [("bptt", 0.9, 1.1), ("anp", -0.05, 0.05)])
def test_algorithm_bytes_grow_with_steps_as_claimed(ops, id, low, high):
    sizes = (64, 128, 256, 512, 1024) if ops.name == "jax" else (64, 128, 256)
    found = [[memory.algorithm_bytes(ops, update(id, hidden=64, steps=T, batch=1))] for T in sizes]
    assert low < scaling.fit(sizes, found).exponent < high


def test_work_and_compilations_are_those_of_the_cpu(ops):
    subject, here = update("anp", steps=16), make_ops(ops.name)
    counts = [
        work.count(o, subject.block(o), subject.start(o), subject.data(o, 1)).flops for o in (ops, here)
    ]
    assert counts[0] == counts[1] > 0
    assert compilations(ops, subject, 64) == 1


def test_events_time_a_block_as_a_wall_clock_does():
    ops = accelerator("torch")
    block = prepare(ops, update("bptt", hidden=256, steps=128, batch=16), 1280)
    assert block.device_seconds() is not None
    events = clock.quartiles([clock.seconds(block) for _ in range(9)]).median
    walls = []
    for _ in range(9):
        start = time.perf_counter()
        block()
        walls.append(time.perf_counter() - start)
    assert events == pytest.approx(clock.quartiles(walls).median, rel=0.3)


@pytest.mark.parametrize("settings", [{}, {"mackey_glass.steps": 1000}, {"dyck.length": 30}])
def test_a_trial_trains_as_on_the_cpu(name, settings):
    """On a stream, on one that is gone through four times, from rest each time, and on episodes."""
    task = next(iter(settings), "mackey_glass").partition(".")[0]
    options = Options(
        tasks=(task,),
        learners=("bptt",),
        backends=(name,),
        hidden=16,
        budget=4000,
        evaluations=4,
        batch=4,
        settings=settings,
    )
    trial = make_grid(options).trials[0].model_copy(update={"dtype": "float64"})
    found, expected = (
        Trainer(trial, ops).train([trial], lambda *_: None)[0]
        for ops in (accelerator(name, "float64"), make_ops(name, dtype="float64"))
    )
    assert found.status == expected.status == "ok"
    for a, b in zip(found.curve, expected.curve, strict=True):
        assert a.loss == (None if b.loss is None else pytest.approx(b.loss, rel=1e-7))
    assert found.test_score == pytest.approx(expected.test_score, rel=1e-6)


# -- commands ------------------------------------------------------------------------------------------------


def command(*arguments, code=0):
    done = subprocess.run(
        [sys.executable, "-m", "creditbench", *arguments],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        timeout=240,
    )
    assert done.returncode == code, done.stderr[-3000:]
    return done.stdout


RUN = (
    "run",
    "--task",
    "mackey_glass",
    "--seeds",
    "2",
    "--budget",
    "2000",
    "--hidden",
    "32",
    "--device",
    "cuda",
)


def test_trials_run_and_say_where(tmp_path, name):
    found = json.loads(
        command(
            *RUN, "--learner", "bptt,anp,readout_rls", "--backend", name, "--results", str(tmp_path), "--json"
        )
    )
    assert {row["status"] for row in found} == {"ok"} and {row["learner"] for row in found} == {
        "anp",
        "bptt",
        "readout_rls",
    }
    records = [json.loads(file.read_text()) for file in (tmp_path / "records").rglob("*.json")]
    assert len(records) == 6
    for record in records:
        assert record["trial"]["device"] == "cuda" and record["device_peak_bytes"] > 0
        assert record["environment"]["accelerators"][0]["memory"]
        assert record["flops_per_step"] > 0 and record["algorithm_bytes"] > 0
        assert record["ratio_forward"] > 0 and record["ratio_bptt"] > 0


def test_memory_that_a_device_does_not_have_is_a_row(tmp_path, name):
    command(
        *("run", "--task", "mackey_glass", "--learner", "rtrl", "--hidden", "4000", "--budget", "1000"),
        *("--device", "cuda", "--backend", name, "--results", str(tmp_path)),
        code=1,
    )
    (record,) = [json.loads(file.read_text()) for file in (tmp_path / "records").rglob("*.json")]
    assert record["status"] == "oom", record["status_detail"]


HONEST = Path(__file__).parent / "submissions" / "honest.py"


def test_a_contributed_rule_trains_confined(tmp_path, name):
    command(*RUN, "--learner", str(HONEST), "--backend", name, "--results", str(tmp_path))
    records = [json.loads(file.read_text()) for file in (tmp_path / "records").rglob("*.json")]
    assert {record["status"] for record in records} == {"ok"} and len(records) == 2


def test_gradients_and_scaling_run(tmp_path, name):
    common = ("--learner", "bptt,anp", "--backend", name, "--device", "cuda", "--json")
    found = json.loads(
        command(
            "scale", *common, "--sizes", "128,256,512", "--seconds", "0.01", "--output", str(tmp_path / "s")
        )
    )
    memory = {row["learner"]: row["exponent"] for row in found if row["quantity"] == "algorithm_bytes"}
    assert memory["bptt"] > 0.5 and memory["anp"] < 0.05
    found = json.loads(
        command(
            *("gradients", *common, "--task", "mackey_glass", "--hidden", "16", "--draws", "16"),
            *("--output", str(tmp_path / "g")),
        )
    )
    exact = [row["cosine"] for row in found if row["learner"] == "bptt"]
    assert exact and min(exact) > 0.999


def test_the_doctor_knows_its_speed(name):
    row = next(
        row
        for row in json.loads(command("doctor", "--json", "--learner", "bptt", "--device", "cuda"))
        if row["backend"] == name
    )
    (peak,) = [peak for peak in row["peaks"] if peak["device"].startswith("cuda")]
    assert peak["gemm_gflops"] > 1000 and peak["triad_gbytes"] > 100
    assert 0 < row["rules"][0]["roofline_share"] <= 1
