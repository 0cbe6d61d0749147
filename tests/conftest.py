"""Fixtures: both backends in float64, a small cell and a small batch, noise that is the same in both."""

import gc
import importlib.util
import os
import re
import sys
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# The tests run on several processes: threads beside them would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Hundreds of tiny programs run once each: compiling them is what takes the time.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
    "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1",
)
# What JAX notes beside every operation is where in Python it was called: nobody reads it here.
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")
# Most of them are compiled again and again, in every file of tests and by every process: one of them does it
# for all.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import pytest

from creditbench.check import probe
from creditbench.check.probe import (
    INPUTS,
    OUTPUTS,
    B,
    N,
    T,
    autodiff,
    injected,
    make_batch,
    make_cell,
    make_params,
    relative_error,
)
from creditbench.learner import Batch, Decorrelated
from creditbench.machine.frameworks import FRAMEWORKS
from creditbench.ops import make_ops
from creditbench.plugins import registry
from creditbench.trials.grid import Options

__all__ = [
    "INPUTS",
    "ON_JAX",
    "OUTPUTS",
    "B",
    "N",
    "T",
    "autodiff",
    "estimate",
    "injected",
    "learner",
    "make_batch",
    "make_cell",
    "make_params",
    "relative_error",
    "thorough",
]


@pytest.fixture(params=["jax", "torch"])
def ops(request):
    """Each backend in turn, in float64."""
    return make_ops(request.param, dtype="float64")


#: For means over thousands of draws: JAX takes them together. PyTorch agrees with it draw by draw, which
#: tests of both backends hold, and draws as it should, which tests/ops holds.
ON_JAX = pytest.mark.parametrize("ops", ["jax"], indirect=True)


def thorough(values, but):
    """The values of a parameter, of which only those in `but` run for every change.

    The others go the same way through the code.
    """
    values = list(values)
    assert set(but) <= set(values), f"{set(but) - set(values)} are none of {values}"
    return [
        value if value in but else pytest.param(*_one(value), marks=pytest.mark.thorough) for value in values
    ]


def _one(value):
    return value if isinstance(value, tuple) else (value,)


@pytest.fixture
def both():
    """Both backends, in float64, with equal random draws."""
    return injected("jax"), injected("torch")


# -- an installation with one framework ------------------------------------------------------------------

ROOT = Path(__file__).parents[1]
ABSENT = [name for name in FRAMEWORKS if importlib.util.find_spec(name) is None]
#: What the harness says to whoever asks for a backend that is not installed.
_REFUSED = re.compile(rf"backend '({'|'.join(ABSENT)})' is not installed" if ABSENT else "(?!)")


def needs(framework):
    return f"needs {framework}, which is not installed: pip install 'creditbench[{framework}]'"


class SkipsWhatNeedsAnAbsentFramework:
    """A test, or a file of tests, that imports an absent framework itself is skipped.

    If the harness imports it, that is a fault, which fails as anywhere.
    """

    def find_spec(self, name, path=None, target=None):
        framework = name.partition(".")[0]
        if framework in ABSENT:
            frame = sys._getframe(1)
            while "importlib" in frame.f_code.co_filename:
                frame = frame.f_back
            if Path(frame.f_code.co_filename).is_relative_to(ROOT / "tests"):
                pytest.skip(needs(framework), allow_module_level=True)


sys.meta_path.append(SkipsWhatNeedsAnAbsentFramework())


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    """A file of tests that was skipped halfway is not kept for another one that imports it."""
    report = yield
    if ABSENT and report.skipped and collector.path.is_relative_to(ROOT):
        sys.modules.pop(".".join(collector.path.relative_to(ROOT).with_suffix("").parts), None)
    return report


#: The backends of the options that the running test has made.
_asked: set[str] = set()

if ABSENT:
    check_options = Options.__post_init__

    def note_backends(options):
        _asked.update(options.backends)
        check_options(options)

    Options.__post_init__ = note_backends


def _named(item):
    """The frameworks that the parameters of a test name."""
    values = item.callspec.params.values() if hasattr(item, "callspec") else ()
    parts = (part for value in values for part in (value if isinstance(value, list | tuple) else [value]))
    return {part for part in parts if isinstance(part, str)} & set(FRAMEWORKS)


def pytest_collection_modifyitems(items):
    for item in items if ABSENT else ():
        wanted = _named(item) | {name for mark in item.iter_markers("needs") for name in mark.args}
        wanted |= set(FRAMEWORKS) if "both" in item.fixturenames else set()
        for framework in wanted & set(ABSENT):
            item.add_marker(pytest.mark.skip(reason=needs(framework)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A test that fails and has asked for an absent backend, or was told that it is absent, is skipped.

    One whose parameter names the backend that is there had no reason to ask.
    """
    report = yield
    if ABSENT and report.failed and not _named(item):
        said = "\n".join(
            [str(call.excinfo.value), report.longreprtext, *(text for _, text in report.sections)]
        )
        told = _REFUSED.search(said)
        if wanted := [told[1]] if told else sorted(_asked & set(ABSENT)):
            report.outcome = "skipped"
            report.longrepr = (str(item.path), item.location[1], f"Skipped: {needs(wanted[0])}")
    return report


def pytest_xdist_auto_num_workers():
    """More than cores: many a test waits for a process or a browser of its own."""
    return max(2, 3 * (os.cpu_count() or 1) // 2)


def pytest_ignore_collect(collection_path, config):
    """With `-m alone` most files have nothing to run: they are not imported to find that out."""
    if config.option.markexpr == "alone" and collection_path.match("test_*.py"):
        return "pytest.mark.alone" not in collection_path.read_text(encoding="utf-8") or None
    return None


#: How many modules there were at the last freeze, and how many new ones are worth another.
_frozen, _MANY = 0, 100


def pytest_runtest_setup():
    """What was imported need not be looked at by every later collection, and every trial asks for one."""
    global _frozen
    _asked.clear()
    if len(sys.modules) > _frozen + _MANY:
        _frozen = len(sys.modules)
        gc.collect()
        gc.freeze()


def pytest_sessionfinish():
    """Hypothesis, which may be imported then, asks the collector who refers to an object."""
    gc.unfreeze()


@pytest.fixture(autouse=True, scope="module")
def forgets_what_it_compiled():
    """Thousands of small programs would exceed the memory mappings that a process may have."""
    yield
    _compiled.clear()
    probe._reverse_mode.clear()
    if "jax" in sys.modules:
        import jax

        jax.clear_caches()


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A file used as the source of every imagined rule and task: `tests.synthetic`."""
    path = tmp_path_factory.mktemp("source") / "source.py"
    path.write_text("# stands for every rule and task\n")
    return path


def learner(id, **hyperparameters):
    return registry.find("learners", id).cls(**hyperparameters)


def estimate(ops, rule, cell, params, batch, key=1, state=None):
    """One segment of a rule on NumPy parameters and batch: (loss, gradients, state, assigned), NumPy."""
    params, batch = ops.from_numpy(params), Batch(*ops.from_numpy(tuple(batch)))
    rule = Decorrelated(learner=rule, rate=1e-2) if cell.decorrelate != "none" else rule
    rows = batch.weights.shape[1]
    state = rule.init(ops, cell, params, rows) if state is None else ops.from_numpy(state)

    def segment(params, batch, key, state):
        result = rule.segment(ops, cell, params, state, batch, key)
        return result.loss, {k: ops.dense(g) for k, g in result.grads.items()}, result.state, result.assigned

    args = (params, batch, ops.key(key), state)
    what = (type(ops).__name__, ops.name, rule, cell, tuple(batch.weights.shape))
    if what not in _compiled:
        _compiled[what] = ops.compile(segment, *args)
    return ops.to_numpy(_compiled[what](*args))


_compiled = {}
