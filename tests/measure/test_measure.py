"""Time, memory and work of an update, against hand counts and rules made worse on purpose."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from creditbench.cells import Tanh, cell_class
from creditbench.learner import Claims, backpropagate
from creditbench.machine.threads import thread_environment
from creditbench.measure import clock, memory, work
from creditbench.measure.cost import compilations, cost, kernels, ratios, segments
from creditbench.measure.update import ReverseMode, Update, prepare
from creditbench.ops import make_ops
from creditbench.plugins import registry
from creditbench.studies import scaling
from tests.conftest import thorough

BACKENDS = ("jax", "torch")


@pytest.fixture(params=BACKENDS)
def ops(request):
    """Each backend in float32, as for figures; PyTorch on one thread, JAX on those of its start."""
    if request.param == "jax":
        yield make_ops("jax")
        return
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield make_ops("torch")
    torch.set_num_threads(threads)


def rule(id, **hyperparameters):
    return registry.find("learners", id).cls(**hyperparameters)


def update(id, hidden=24, steps=128, batch=2, inputs=3, outputs=2, **hyperparameters):
    learner = None if id == "forward" else rule(id, **hyperparameters)
    return Update(learner=learner, cell=Tanh(inputs, hidden, outputs), steps=steps, batch=batch)


@dataclass(frozen=True, kw_only=True)
class Once(ReverseMode):
    """`bptt` with dense gradients, `times` times; a tiny change makes the results differ."""

    times: int = 1

    def segment(self, ops, cell, params, state, batch, key):
        found, total = None, {}
        for _ in range(self.times):
            if found is not None:
                params = params | {"W_rec": params["W_rec"] * (1.0 + 1e-6 * found.loss)}
            found = super().segment(ops, cell, params, state, batch, key)
            dense = {name: ops.dense(g) / self.times for name, g in found.grads.items()}
            total = {name: total[name] + g if total else g for name, g in dense.items()}
        return found._replace(grads=total)


@dataclass(frozen=True, kw_only=True)
class Hoarder(ReverseMode):
    """Claims memory that does not depend on T, but keeps the activity of every step."""

    claims = Claims(memory_in_T="O(1)")

    def segment(self, ops, cell, params, state, batch, key):
        def step(before, x):
            _, after = cell.step(ops, params, before, cell.drive(ops, params, x))
            return after, after.out

        end, kept = ops.scan(step, state["cell"], batch.inputs)
        found = backpropagate(ops, cell, params, state["cell"], type(batch)(*(x[-1:] for x in batch)))
        return found._replace(loss=found.loss + (kept * kept[::1].max()).sum(), state={"cell": end})


# -- work ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("id", ["forward", "bptt", "anp", "np"])
def test_products_are_those_of_a_hand_count(ops, id, batch):
    """Multiplications and additions of the products of a segment of T steps, in whole chunks."""
    n, inputs, outputs, T, B = 24, 3, 2, 128, batch
    forward = n * (inputs + n + outputs)  # of one step of one sequence: input, recurrence, readout
    factors = {
        "forward": forward,
        # W_outᵀ e and W_recᵀ s. The gradients stay factors; the loss is w·ℓ.
        "bptt": forward + n * (outputs + n) + 1,
        # Two passes whose input drive is shared, three gradients that are added up chunk by chunk.
        "anp": 2 * n * (n + outputs) + n * inputs + forward + 1,
        "np": 2 * n * (n + outputs) + n * inputs + forward + 1,
    }
    f, arguments = update(id, n, T, B, inputs, outputs).estimate(ops)
    assert work.count(ops, f, *arguments).product_flops == 2 * T * B * factors[id]


def test_elementwise_work_and_loops_are_counted(ops):
    xp = ops.xp
    x = ops.from_numpy(np.ones((7, 5)))

    def loop(x):
        return ops.scan(lambda c, row: (xp.tanh(c) + row, None), x[0], x)[0]

    assert work.count(ops, loop, x).flops == 7 * 2 * 5
    assert work.count(ops, lambda x: x.sum(), x).flops == 35
    assert work.count(ops, lambda x: x.reshape((5, 7)), x).flops == 0
    moved = work.count(ops, lambda x: x + x, x).bytes
    assert moved == 3 * 35 * 4
    assert work.count(ops, lambda x: x @ x.T, x)[:2] == (2 * 7 * 7 * 5,) * 2


def test_a_loop_of_unknown_length_is_refused():
    import jax

    ops = make_ops("jax")
    with pytest.raises(work.UncountableError, match="while"):
        work.count(ops, lambda x: jax.lax.while_loop(lambda c: c < 9.0, lambda c: c + 1.0, x), ops.zeros(()))
    cond = work.count(
        ops, lambda x: jax.lax.cond(x[0, 0] > 0, lambda x: x @ x, lambda x: x + x, x), ops.zeros((4, 4))
    )
    assert cond.product_flops == 2 * 4**3


def test_backends_agree_on_products():
    for id in ("bptt", "tbptt", "anp", "np", "wp", "readout_rls"):
        found = []
        for backend in BACKENDS:
            ops = make_ops(backend)
            f, arguments = update(id).estimate(ops)
            found.append(work.count(ops, f, *arguments).product_flops)
        assert found[0] == found[1], id


# -- memory ----------------------------------------------------------------------------------------------


#: Steps at which memory is looked at: whole numbers of chunks, since what is left over is compiled apart and
#: differs from size to size. JAX plans a program of any length, PyTorch runs it.
SIZES = {"jax": (1280, 2560), "torch": (128, 512)}


def exponent(ops, subject, sizes=None):
    sizes = sizes or SIZES[ops.name]
    values = [[memory.algorithm_bytes(ops, replace(subject, steps=T))] for T in sizes]
    return scaling.fit(sizes, values)


NO_MEMORY = [
    id for id, plugin in registry.load("learners").items() if plugin.cls.claims.memory_in_T == "O(1)"
]


@pytest.mark.parametrize(
    ("ops", "id"),
    thorough(
        itertools.product(BACKENDS, NO_MEMORY),
        but=[
            *(("jax", id) for id in ("anp", "kernl", "rtrl")),
            *(("torch", id) for id in ("anp", "eprop", "es", "kernl", "rtrl", "spsa", "uoro", "wp")),
        ],
    ),
    indirect=["ops"],
)
def test_rules_that_claim_no_memory_in_T_have_none(ops, id):
    """Under PyTorch, which counts tensors, not a byte more; under JAX next to none."""
    if ops.name not in registry.find("learners", id).cls.backends:
        pytest.skip(f"{id} does not run on {ops.name}")
    # So narrow under PyTorch that the activity of all steps outweighs what a chunk of most rules keeps.
    subject = update(id, hidden=64 if ops.name == "jax" else 32, batch=1)
    found = exponent(ops, subject)
    assert found.exponent < (0.05 if ops.name == "jax" else 1e-9)
    assert scaling.held(
        found, scaling.claimed(subject.learner.claims, "T", "algorithm_bytes"), "T", "algorithm_bytes"
    )


@pytest.mark.parametrize(("id", "expected"), [("bptt", 1.0), ("bptt_checkpointed", 0.5)])
def test_reverse_mode_keeps_every_step_or_every_square_root(ops, id, expected):
    # Several sequences, so that the activity outweighs the gradients, whose size is that of the weights; and
    # squares.
    found = exponent(ops, update(id, hidden=32, batch=16), sizes=(1024, 2304))
    assert found.exponent == pytest.approx(expected, abs=0.1)


def test_backends_agree_on_the_memory_of_bptt():
    """Within a factor 2: see `creditbench.measure.memory`. The minimum is the activity of every step."""
    for T, n, B in ((128, 32, 2), (1024, 64, 1)):
        subject = update("bptt", hidden=n, steps=T, batch=B)
        jax, torch = (memory.algorithm_bytes(make_ops(b), subject) for b in BACKENDS)
        assert 0.5 < jax / torch < 2.0
        assert min(jax, torch) > 2 * 4 * T * B * n


def test_one_sequence_takes_half_of_two():
    """Under JAX an axis of length 1 must not cause copies."""
    ops = make_ops("jax")
    one, two = (memory.algorithm_bytes(ops, update("bptt", hidden=64, steps=640, batch=B)) for B in (1, 2))
    assert one < 0.55 * two


def test_a_rule_that_stores_its_activity_loses_its_claim(ops):
    subject = Update(learner=Hoarder(), cell=Tanh(3, 64, 2), steps=128)
    found = exponent(ops, subject)
    claim = scaling.claimed(Hoarder.claims, "T", "algorithm_bytes")
    assert claim == 0.0 and found.exponent > 0.5
    assert scaling.held(found, claim, "T", "algorithm_bytes") is False


def test_live_tensors_are_counted_once_and_given_up_when_freed():
    """x+1, (x+1)+1 and a view of it: at most two of the three arrays at a time."""
    import torch

    x, bytes_of = torch.ones(1000), make_ops("torch").host.algorithm_bytes

    def f(x):
        for _ in range(3):
            x = (x + 1.0).reshape(10, 100).reshape(-1)
        return x

    assert bytes_of(f, x) == 2 * 4000
    assert bytes_of(lambda x: x.add(0.0).mul_(2.0), x) == 4000
    assert bytes_of(lambda x: x, x) == 4000  # carried on unchanged
    assert bytes_of(lambda x: x.view(10, 100) * 2.0, x) == 4000  # a view of what was there


@pytest.mark.skipif(sys.platform != "linux", reason="VmHWM is Linux's")
def test_process_peak_is_the_trials_own():
    first = memory.ProcessPeak()
    if first.source != "VmHWM":
        pytest.skip("/proc/self/clear_refs cannot be written here")
    block = np.ones(64 << 17)  # 64 MiB
    assert first.bytes() > 60 << 20
    del block
    second = memory.ProcessPeak()
    small = np.ones(8 << 17)
    assert second.bytes() < 40 << 20
    assert len(small)


# -- time ------------------------------------------------------------------------------------------------


def test_blocks_are_interleaved_and_ratios_are_taken_pair_by_pair():
    order = []
    runs = {name: lambda name=name: order.append(name) for name in "ab"}
    found = clock.interleaved(runs, least=4, budget=0.0)
    assert "".join(order) == "abbaabba"
    assert [len(v) for v in found.values()] == [4, 4]
    # A machine that becomes ten times slower half way: the ratio does not notice, the times do.
    a, b = [2.0, 2.0, 20.0, 20.0], [1.0, 1.0, 10.0, 10.0]
    assert clock.ratio(a, b) == (2.0, 2.0, 2.0)
    assert clock.quartiles([4.0, 1.0, 2.0, 3.0, 5.0]) == (3.0, 2.0, 4.0)


def test_compile_time_is_apart_from_the_steady_state(ops):
    subject = prepare(ops, update("bptt", steps=16), 64)
    assert subject.segments == 4 and subject.steps == 64
    block = min(clock.blocks(subject, least=3, budget=0.0))
    if ops.name == "jax":
        assert subject.compile_seconds > 10 * block


@dataclass(frozen=True, kw_only=True)
class Reader(ReverseMode):
    """Reads a value in Python, so that it cannot be recorded."""

    def segment(self, ops, cell, params, state, batch, key):
        found = super().segment(ops, cell, params, state, batch, key)
        return found._replace(loss=found.loss * (1.0 if found.loss.item() > 0 else -1.0))


def test_an_update_is_compiled_once(ops):
    assert compilations(ops, update("anp", steps=16), 16) == 1


@pytest.mark.filterwarnings("ignore:.*runs unrecorded")
def test_an_update_that_cannot_be_recorded_runs_in_python_each_time():
    once = update("bptt", steps=16)
    assert compilations(make_ops("torch"), replace(once, learner=Reader()), 16) == 1 + 3


def test_a_timed_block_is_as_long_on_a_slow_machine_as_on_a_fast_one():
    """So a program that was compiled for one run serves the next; only extremes move."""
    for flops, expected in ((1e5, 1024), (4e6, 16), (1e9, 1), (0, 4**13)):
        usual = 5e-3 / expected
        assert {segments(flops, usual * pace, 1.0) for pace in (0.5, 1, 4)} == {expected}
        assert segments(flops, usual / 10, 1.0) == 4 * expected
        assert segments(flops, usual * 40, 1.0) == max(1, expected // 16)


@pytest.mark.needs("jax")
def test_figures_taken_again_compile_nothing_that_the_cache_lacks(tmp_path):
    """Another process, and a machine that is three times as busy: no program is new."""
    script = """
import sys
from creditbench.machine.compilation import folder, keep_programs
keep_programs()
from tests.measure.test_measure import update
from creditbench.measure.cost import figures
from creditbench.ops import make_ops
subject = update("eprop", hidden=64, steps=1)
exact, _ = figures(make_ops("jax"), subject, float(sys.argv[1]), 1.0)
print(exact.flops, len(list(folder().glob("*-cache"))))
"""
    environment = os.environ | {"CREDITBENCH_CACHE": str(tmp_path)}
    for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE"):
        environment.pop(name, None)
    first, second = (
        subprocess.run(
            [sys.executable, "-c", script, rate],
            env=environment,
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for rate in ("150_000", "50_000")
    )
    assert first == second and int(first[1]) > 3


def test_kernels_are_those_that_a_replay_runs():
    """Two more segments always cost the same, and twice the work costs more."""
    ops, once = make_ops("torch"), Update(learner=Once(), cell=Tanh(3, 8, 2), steps=16)
    found = [kernels(ops, once, segments) for segments in (2, 4, 6)]
    assert found[2] - found[1] == found[1] - found[0] > 2 * 16  # a product at each step
    assert kernels(ops, replace(once, learner=Once(times=2))) > 1.7 * found[0]


@pytest.mark.alone
def test_twice_the_work_changes_flops_and_ratios(ops):
    """The network is wide enough that arithmetic, not the calls, takes the time."""
    cell = Tanh(3, 256, 2)
    once, twice = (
        Update(learner=learner, cell=cell, steps=32, batch=32) for learner in (Once(), Once(times=2))
    )
    a, b = cost(ops, once), cost(ops, twice)
    assert 1.9 < b.flops / a.flops < 2.1

    def ratio(one, other):
        runs = {name: prepare(ops, u, 32) for name, u in (("one", one), ("other", other))}
        found = clock.interleaved(runs, least=9, budget=0.3)
        return clock.ratio(found["other"], found["one"]).median

    assert ratio(once, twice) > 1.4
    assert ratio(once, once) < 1.25
    times = [ratios(ops, u, 32, least=9, budget=0.2).bptt.median for u in (once, twice)]
    assert times[1] / times[0] > 1.4


_BUSY = """
import os, time
os.sched_setaffinity(0, {%d})
while os.getppid() == %d:
    end = time.monotonic() + 0.1
    while time.monotonic() < end:
        pass
    time.sleep(0.1)
"""
#: Pinned before a framework is imported, as a worker's threads are: else its pool would stay on all cores.
_PINNED = """
import os, sys, time
os.sched_setaffinity(0, {%d})
from creditbench.measure import clock
from creditbench.measure.update import prepare
from creditbench.ops import make_ops
from tests.measure.test_measure import update

subject, ops = update("anp", hidden=128, steps=32, batch=1), make_ops("%s")
runs = {"rule": prepare(ops, subject, 32), "forward": prepare(ops, subject.forward, 32)}
for _ in range(5):
    blocks = clock.interleaved(runs, least=51, budget=0.75)
    print(clock.ratio(blocks["rule"], blocks["forward"]).median, clock.quartiles(blocks["rule"]).median)
    time.sleep(0.2)
"""


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize("backend", BACKENDS)
def test_ratios_repeat_with_the_other_core_half_loaded(backend, capsys):
    """Four of five ratios lie within 10 % of their median: what runs on the machine outside may disturb one.

    The spread of the rule's times is printed for contrast.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) < 2:
        pytest.skip("takes two cores that can be chosen")
    busy = subprocess.Popen([sys.executable, "-c", _BUSY % (cores[1], os.getpid())])
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PINNED % (cores[0], backend)],
            cwd=Path(__file__).parents[2],
            env={k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | thread_environment(1),
            capture_output=True,
            text=True,
        )
    finally:
        busy.kill()
        busy.wait()
    assert done.returncode == 0, done.stderr
    ratios, times = np.array([line.split() for line in done.stdout.splitlines()], float).T
    near = np.sort(np.abs(ratios / np.median(ratios) - 1))
    spread, absolute = near[3], times.max() / times.min() - 1
    with capsys.disabled():
        print(f"\n{backend}: ratio {np.median(ratios):.2f} spreads {spread:.1%}, time {absolute:.1%}")
    assert len(ratios) == 5 and spread < 0.1


# -- exponents and claims --------------------------------------------------------------------------------


def test_exponents_are_fitted_on_the_upper_half():
    sizes = [1, 2, 4, 8, 16, 32, 64]
    values = [[1000.0 + s**2 * (s >= 8) * 1e9] for s in sizes]
    found = scaling.fit(sizes, values)
    assert found.exponent == pytest.approx(2.0, abs=1e-3)
    assert found.low == pytest.approx(2.0, abs=1e-2) and found.high == pytest.approx(2.0, abs=1e-2)
    rng = np.random.default_rng(0)
    noisy = scaling.fit(sizes, [s * np.exp(0.2 * rng.standard_normal(9)) for s in sizes])
    assert noisy.low < 1.0 < noisy.high and noisy.high - noisy.low > 0.02


@pytest.mark.parametrize(
    ("text", "axis", "expected"),
    [
        ("O(n²)", "n", 2),
        ("O(p)", "n", 2),
        ("O(n²p)", "n", 4),
        ("O(n p)", "n", 3),
        ("O(population·n²)", "n", 2),
        ("O(T n B)", "B", 1),
        ("O(√T n B)", "T", 0.5),
        ("O(n + T B)", "T", 1),
        ("O(1)", "T", 0),
        ("O(n O)", "n", 1),
        ("O(n log n)", "n", None),
        ("quadratic", "n", None),
    ],
)
def test_claims_are_read(text, axis, expected):
    assert scaling.exponent_of(text, axis) == expected


def test_claims_are_those_of_the_cell():
    """p is n (inputs + 1) where no unit sees another, and is taken so in claims of such cells."""
    rule = registry.find("learners", "rtrl").cls
    tanh, lru = (cell_class(id)(inputs=2, hidden=3, outputs=1) for id in ("tanh", "lru"))
    figures = [("time", "n"), ("algorithm_bytes", "n"), ("time", "T"), ("algorithm_bytes", "T")]
    assert [scaling.claimed(rule.claims, axis, name, tanh) for name, axis in figures] == [4, 3, 1, 0]
    assert [scaling.claimed(rule.claims, axis, name, lru) for name, axis in figures] == [1, 1, 1, 0]
    other = registry.find("learners", "snap1").cls.claims  # made of all cells
    assert [scaling.claimed(other, axis, name, lru) for name, axis in figures] == [2, 2, 1, 0]


def test_every_learner_has_claims_that_can_be_read():
    for plugin in registry.load("learners").values():
        for axis in scaling.AXES:
            for quantity in scaling.QUANTITIES:
                assert scaling.claimed(plugin.cls.claims, axis, quantity) is not None, plugin.id


# -- accelerators ----------------------------------------------------------------------------------------


def test_a_block_on_cuda_is_timed_by_two_events_about_its_launch(monkeypatch):
    """With a made-up device: launched between the events, waited for once, milliseconds to seconds."""
    import torch

    said = []

    class Event:
        def __init__(self, enable_timing):
            self.name = "start" if not [s for s in said if s.startswith("made")] else "end"
            said.append(f"made {self.name}")

        def record(self, stream):
            said.append(f"{self.name} on {stream}")

        def synchronize(self):
            said.append(f"wait for {self.name}")

        def elapsed_time(self, end):
            return 250.0

    class Tensor:
        device = torch.device("cuda:1")

    host = make_ops("torch").host

    class Block:
        def device_seconds(self):
            return host.seconds(lambda: said.append("launch"), [Tensor()])

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    assert clock.seconds(Block()) == 0.25
    assert said[2:] == ["start on stream of cuda:1", "launch", "end on stream of cuda:1", "wait for end"]


def test_no_block_on_a_cpu_is_timed_by_events(ops):
    assert prepare(ops, update("bptt", steps=16), 16).device_seconds() is None


@pytest.mark.parametrize(
    ("stats", "expected"),
    [(None, None), ({}, None), ({"peak_bytes_in_use": -1}, None), ({"peak_bytes_in_use": 7}, 7)],
)
def test_a_device_that_does_not_know_its_peak_has_none(stats, expected):
    class Device:
        def memory_stats(self):
            return stats

    class Here:
        def devices(self):
            return {Device()}

    ops = make_ops("jax")
    ops.device, ops.from_numpy = "gpu", lambda tree: Here()
    assert memory.DevicePeak(ops).bytes() == expected


def test_a_cpu_has_no_device_peak(ops):
    assert memory.DevicePeak(ops).bytes() is None
