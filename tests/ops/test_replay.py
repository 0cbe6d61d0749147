"""A recorded PyTorch function gives, bit for bit, what the plain one gives."""

import contextlib
import itertools
import warnings

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from creditbench.ops import make_ops, replay
from creditbench.ops.recording import Recorder
from creditbench.plugins import registry
from tests.conftest import thorough
from tests.training import Training

RULES = [*registry.load("learners"), "np trace", "wp fresh"]
MORE = {"np trace": {"credit": "trace"}, "wp fresh": {"resample": "step", "credit": "trace"}}


def plain(f):
    return torch.no_grad()(f)


def assert_same(found, expected):
    ops = make_ops("torch")
    ops.tree_map(
        lambda a, b: np.testing.assert_array_equal(a, b), ops.to_numpy(found), ops.to_numpy(expected)
    )


PROTOCOLS = ["online", "segments", "episodes"]


@pytest.mark.parametrize(
    ("name", "protocol"),
    thorough(
        itertools.product(RULES, PROTOCOLS), but=[(name, PROTOCOLS[i % 3]) for i, name in enumerate(RULES)]
    ),
)
def test_training_is_the_same_recorded(name, protocol):
    compare_training(name, protocol)


def compare_training(name, protocol):
    """Blocks of updates. The second starts from the first one's end, on other data and keys."""
    steps = {"online": 1, "segments": 3, "episodes": 70}[protocol]
    rule = registry.find("learners", name.split()[0]).cls(**MORE.get(name, {}))
    training = Training(make_ops("torch"), rule, steps, protocol == "episodes")
    expected, losses = training.start(), []
    for seed in (1, 2):
        expected, loss = plain(training.block)(expected, training.data(seed))
        losses.append(loss)
    recorded = training.ops.compile(training.block, training.start(), training.data(0))
    found = training.start()
    for seed in (1, 2):
        found, loss = recorded(found, training.data(seed))
        assert_same(loss, losses[seed - 1])
    assert_same(found, expected)
    assert all(torch.isfinite(loss).all() for loss in losses)


@pytest.fixture
def ops():
    return make_ops("torch", dtype="float64")


def test_a_carry_may_change_places(ops):
    def f(carry, xs):
        return ops.scan(lambda carry, x: ((carry[1], carry[0] + x, carry[1]), (carry[0], x)), carry, xs)

    args = ops.from_numpy((tuple(np.arange(3.0)), np.arange(7.0)))
    assert_same(ops.compile(f, *args)(*args), f(*args))


def test_constants_that_a_step_changes_start_anew(ops):
    def f(xs):
        def step(carry, x):
            total = ops.accumulate(ops.from_numpy(np.ones(3)), x)
            unseen = ops.accumulate(torch.from_numpy(np.ones(3)), x)  # made without a kernel
            out = torch.from_numpy(np.ones(3))
            torch.add(out, x, out=out)
            return carry + total.sum() + out.prod(), total * unseen

        return ops.scan(step, ops.zeros(()), xs)

    xs = ops.from_numpy(np.arange(12.0).reshape(4, 3))
    recorded = ops.compile(f, xs)
    for _ in range(2):
        assert_same(recorded(xs), f(xs))


def test_what_is_made_before_a_loop_lasts_through_all_of_its_steps(ops):
    def f(w, xs):
        made = w * 2.0  # read at the beginning of a step, and nothing else of that step may take its place

        def step(carry, x):
            h = ops.xp.tanh(made + x)
            for _ in range(3):
                h = ops.xp.tanh(h * 1.5)
            return carry + h, None

        return ops.scan(step, w * 0.0, xs)

    args = ops.from_numpy((np.arange(4.0), np.ones((5, 4))))
    assert_same(ops.compile(f, *args)(*args), f(*args))


def test_arguments_are_left_alone(ops):
    def f(carry, xs):
        return ops.scan(lambda carry, x: (ops.accumulate(carry, x), carry.sum()), carry, xs)

    carry, xs = ops.from_numpy((np.ones(3), np.ones((4, 3))))
    recorded = ops.compile(f, carry, xs)
    first, _ = recorded(carry, xs)
    recorded(2 * carry, xs)
    np.testing.assert_array_equal(ops.to_numpy(carry), np.ones(3))
    np.testing.assert_array_equal(ops.to_numpy(first), 5 * np.ones(3))  # not overwritten by the second call


def test_noise_follows_the_key_of_each_call(ops):
    def f(key, keys):
        def step(carry, key):
            a, b = ops.split(key)
            return carry + ops.normal(a, (2,)), ops.rademacher(b, (5,))

        return ops.scan(step, ops.normal(key, (2,)), keys), ops.normal(ops.split(key, 3), (4,))

    def args(seed):
        return ops.key(seed), ops.split(ops.key(seed + 100), 6)

    recorded = ops.compile(f, *args(0))
    for seed in (0, 1, 0):
        assert_same(recorded(*args(seed)), f(*args(seed)))


def test_a_key_may_be_carried_on(ops):
    def f(key, xs):
        def step(carry, x):
            key, total = carry
            key, own = ops.split(key)

            def inner(key, _):  # a chain of splits inside the step, unrolled
                key, own = ops.split(key)
                return key, ops.normal(own, (2,))

            _, draws = ops.scan(inner, own, ops.xp.stack([x] * 6))
            return (key, total + x * draws.sum(0)), draws

        return ops.scan(step, (key, ops.zeros((2,))), xs)

    def without_key(tree):
        (_, total), draws = tree
        return total, draws

    xs = ops.from_numpy(np.arange(10.0).reshape(5, 2))
    recorded = ops.compile(lambda *args: without_key(f(*args)), ops.key(0), xs)
    for seed in (0, 1):
        assert_same(recorded(ops.key(seed), xs), without_key(f(ops.key(seed), xs)))


def test_derivatives_may_be_taken_inside(ops):
    def f(w, xs):
        def loss(w):
            return ops.scan(lambda h, x: (ops.xp.tanh(h @ w + x), None), xs[0] * 0, xs)[0].sum()

        value, grad = ops.value_and_grad(loss)(w)
        return value, grad, ops.jvp(loss, (w,), (grad,))

    args = ops.from_numpy((np.random.default_rng(0).standard_normal((3, 3)), np.ones((5, 2, 3))))
    assert_same(ops.compile(f, *args)(*(2 * a for a in args)), plain(f)(*(2 * a for a in args)))


def test_a_tape_of_autograd_runs_unrecorded_and_says_so(ops):
    """Its gradient crosses the steps of a loop, and a recording runs only one step."""

    def loss_of(w, xs):
        return ops.scan(lambda h, x: (ops.xp.tanh(w * h + x), None), xs[0] * 0.0, xs)[0].sum()

    def by_grad(w, xs):
        with torch.enable_grad():
            own = w.detach().requires_grad_(True)
            loss = loss_of(own, xs)
            return loss.detach(), torch.autograd.grad(loss, own)[0]

    def by_backward(w, xs):
        """What is accumulated over the steps of a loop lies outside of it."""
        with torch.enable_grad():
            own = w.detach().requires_grad_(True)

            def step(total, x):
                loss = (own * x).sum()
                loss.backward()
                return total + loss.detach(), None

            loss, _ = ops.scan(step, ops.zeros(()), xs)
        return loss, own.grad

    args = ops.from_numpy((np.array([0.5, -1.5]), np.arange(8.0).reshape(4, 2)))
    for f, expected in ((by_grad, torch.func.grad(loss_of)(*args)), (by_backward, args[1].sum(0))):
        with pytest.warns(UserWarning, match="a tensor requires grad.*runs unrecorded"):
            recorded = ops.compile(f, *args)
        assert_same(recorded(*args), f(*args))
        assert_same(recorded(*args)[1], expected)
    # `torch.func` needs no tape that outlasts a step.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recorded = ops.compile(lambda w, xs: ops.value_and_grad(loss_of)(w, xs), *args)
    assert_same(recorded(*args)[1], torch.func.grad(loss_of)(*args))


def test_a_step_that_reads_a_value_runs_unrecorded_and_says_so(ops):
    def f(x):
        return x * 2 if float(x.sum()) > 0 else x * 3

    x = ops.from_numpy(np.ones(2))
    with pytest.warns(UserWarning, match="value of a tensor"):
        recorded = ops.compile(f, x)
    np.testing.assert_array_equal(ops.to_numpy(recorded(-x)), [-3.0, -3.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ops.compile(lambda x: x * 2, x)


def test_results_that_are_not_needed_at_once_share_memory(ops):
    def f(w, xs):
        def update(carry, xs):
            h, _ = ops.scan(lambda h, x: (ops.xp.tanh(h @ w + x), None), carry, xs)
            return h, None

        return ops.scan(update, xs[0, 0] * 0, xs)

    def owned(steps):
        args = ops.from_numpy((np.ones((50, 50)), np.ones((2, steps, 1, 50))))
        recorder = Recorder(ops.child, torch.device("cpu"))
        ops._recorder = recorder
        try:
            with recorder:
                outputs = f(*(recorder.fixed(a) for a in args))
        finally:
            ops._recorder = None
        program = replay.Program(recorder, outputs, ops.tree_map)
        assert len(recorder.storages) > 3 * steps  # what it would be without
        return sum(s.nbytes() for s in {s._cdata: s for s in program._storages if s is not None}.values())

    assert owned(200) == owned(20) < 10 * 50 * 8


# -- CUDA graphs, made up ----------------------------------------------------------------------------------


class Graph:
    """Like a CUDA graph: kernels with the memory that they read and wrote at the capture."""

    made: list = []  # noqa: RUF012

    def __init__(self):
        self.kernels, self.stream = [], None
        Graph.made.append(self)

    def replay(self):
        for function, args, kwargs, results in self.kernels:
            found = function(*args, **kwargs)
            if not function._schema.is_mutable and not function.is_view:
                for old, new in zip(tree_leaves(results), tree_leaves(found), strict=True):
                    old.copy_(new)


class Capture(TorchDispatchMode):
    def __init__(self, graph):
        super().__init__()
        self.graph = graph

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert "normal_" not in str(function) and "random_" not in str(function)  # takes a generator
        results = function(*args, **(kwargs or {}))
        self.graph.kernels.append((function, args, kwargs or {}, results))
        return results


class Stream:
    def __init__(self, device):
        self.device = device

    def wait_stream(self, other):
        assert other.device == self.device


@pytest.fixture
def cuda(monkeypatch):
    """`torch.cuda` with one device, whose kernels run on the CPU. Recordings believe that they are on it."""
    device, current = torch.device("cuda:1"), [torch.device("cuda:0")]
    warm = []

    @contextlib.contextmanager
    def on(device):
        before, current[0] = current[0], device
        yield
        current[0] = before

    @contextlib.contextmanager
    def stream(which):
        warm.append(which)
        with on(which.device):
            yield

    @contextlib.contextmanager
    def graph(graph, stream=None):
        graph.stream = stream or Stream(torch.device("cuda:0"))  # torch's own, of the first capture's device
        assert current[0] == device and graph.stream is warm[-1]
        with Capture(graph):
            yield

    monkeypatch.setattr(Graph, "made", [])
    for name, fake in {
        "Stream": Stream,
        "current_stream": Stream,
        "stream": stream,
        "device": on,
        "CUDAGraph": Graph,
        "graph": graph,
    }.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr("creditbench.ops.torch.Recorder", lambda child, _: Recorder(child, device))
    replay._capture_stream.cache_clear()
    yield Graph.made
    replay._capture_stream.cache_clear()


@pytest.mark.parametrize("protocol", ["online", "segments"])
@pytest.mark.parametrize("name", RULES)
def test_training_is_the_same_captured(cuda, name, protocol):
    """Noise of several steps is drawn before their graph, and no captured memory is reused too early."""
    compare_training(name, protocol)
    assert len(cuda) == 1 and cuda[0].kernels


def test_graphs_of_several_steps_and_one_of_the_rest(cuda, ops, monkeypatch):
    """Keys that are given, split and carried; inputs, results and a carry: the same as without graphs."""

    def f(carry, xs):
        def step(carry, xs):
            h, key = carry
            x, own = xs
            key, noise = ops.split(key)
            h = ops.xp.tanh(h + x + ops.normal(noise, (3,))) + ops.normal(own, (3,), 0.5)
            return (h, key), h * 2

        return ops.scan(step, carry, xs)

    def arguments(seed):
        rng = np.random.default_rng(seed)
        h, x = ops.from_numpy((rng.standard_normal(3), rng.standard_normal((8, 3))))
        return (h, ops.key(seed)), (x, ops.split(ops.key(seed + 7), 8))

    for most, sizes in ((32, [8]), (3, [3, 2]), (1, [1])):
        monkeypatch.setattr(replay, "_MOST_STEPS", most)
        cuda.clear()
        recorded = ops.compile(f, *arguments(0))
        for seed in (1, 2):
            (h, _), ys = recorded(*arguments(seed))
            (expected, _), zs = f(*arguments(seed))
            assert_same((h, ys), (expected, zs))
        assert (
            sorted((sum(str(k[0]) == "aten.tanh.out" for k in g.kernels) for g in cuda), reverse=True)
            == sizes
        )


def test_a_step_that_cannot_be_captured_says_so_and_runs(cuda, ops, monkeypatch):
    def refuse(step, steps, device):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(replay, "_capture", refuse)
    x = ops.from_numpy(np.ones((5, 2)))

    def f(x):
        return ops.scan(lambda c, x: (ops.xp.tanh(c + x), None), x[0] * 0, x)[0]

    with pytest.warns(UserWarning, match="not permitted.*kernel by kernel"):
        recorded = ops.compile(f, x)
    assert_same(recorded(x), f(x))


def test_a_constant_of_the_host_is_brought_to_the_device_once(ops):
    """The device is `meta` here. Tensors that the recording made or was given differ at each replay."""
    recorder = Recorder(ops.child, torch.device("meta"))
    here, there = torch.ones(3), torch.ones(3, device="meta")
    assert recorder._brought((here,), [there])
    assert not recorder._brought((here,), [here.clone()]) and not recorder._brought((there,), [there.clone()])
    assert not recorder._brought((recorder.fixed(torch.ones(3)),), [there])
    made = torch.ones(3)
    recorder._own(made)
    assert not recorder._brought((made,), [there])


def test_all_captures_of_a_device_are_on_one_stream(cuda, ops):
    def f(x):
        return ops.scan(lambda c, x: (ops.xp.tanh(c + x), None), x[0] * 0, x)[0]

    for rows in (2, 3):
        x = ops.from_numpy(np.ones((rows, 4)))
        assert_same(ops.compile(f, x)(x), f(x))
    assert len(cuda) == 2 and cuda[0].stream is cuda[1].stream


def test_noise_that_takes_too_much_memory_is_not_drawn_ahead(cuda, ops, monkeypatch):
    """For two steps of a loop, 8 bytes per number in float64."""

    def f(keys):
        return ops.scan(lambda c, key: (c + ops.normal(key, (100,)), None), ops.zeros((100,)), keys)[0]

    keys = ops.split(ops.key(0), 2)
    for most, graphs in ((800, 1), (799, 0)):
        monkeypatch.setattr(replay, "_MOST_DRAWN", most)
        cuda.clear()
        assert_same(ops.compile(f, keys)(keys), f(keys))
        assert len(cuda) == graphs


def test_memory_lies_where_each_tensor_lay(ops):
    """A number may be made on the host among tensors of another device, here `meta`."""
    recorder = Recorder(ops.child, torch.device("cpu"))
    kept = [recorder._own(torch.empty(3, device=device)) for device in ("meta", "cpu", "meta")]
    found = replay._lay_out(recorder, kept)
    assert [storage.device.type for storage in found] == ["meta", "cpu", "meta"]
