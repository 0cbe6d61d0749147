"""Untrusted code: forbidden acts are refused, and its trial does not affect others.

The bad rules are in `tests/submissions`; each is caught with a line of its own.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import pickle
import platform
import shutil
import struct
import sys
import threading
import time
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import psutil
import pytest

from creditbench import isolation
from creditbench.cli import main
from creditbench.errors import UsageError
from creditbench.executors import Job, make_executor, make_jobs
from creditbench.executors.base import failure
from creditbench.executors.confined import confined_trainer
from creditbench.isolation import (
    Confined,
    ConfinedError,
    Limits,
    calls,
    confined,
    kernel,
    read_arrays,
    remove_folder,
)
from creditbench.isolation.folder import size_of
from creditbench.isolation.watch import unlinked
from creditbench.plugins import contributed, importing, registry
from creditbench.results import store
from creditbench.trials.grid import Options, make_grid
from creditbench.trials.trainer import run_trials
from tests.conftest import thorough

PACK = Path(__file__).parents[1] / "submissions"

landlock = pytest.mark.skipif(not isolation.confinement()["landlock"], reason="the kernel has no Landlock")
linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells of it")
seccomp = pytest.mark.skipif(not isolation.confinement()["seccomp"], reason="the kernel takes no filters")


@pytest.fixture(autouse=True)
def nothing_left(tmp_path, monkeypatch):
    """No process below this one, and nothing in the temporary folder."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    before = set(psutil.Process().children(recursive=True))
    yield
    assert set(psutil.Process().children(recursive=True)) <= before
    assert not list(folder.glob("creditbench-*"))


def trials(*learners, tasks=("mackey_glass",), backends=("jax",), seeds=(0,), settings=None):
    options = Options(
        tasks=tasks,
        learners=learners,
        backends=backends,
        seeds=seeds,
        hidden=4,
        settings={"mackey_glass.steps": "300"} | (settings or {}),
        budget=40,
        evaluations=2,
        segment=1,
        preset="smoke",
    )
    return make_grid(options).trials


def bad(name: str) -> str:
    return str(PACK / f"{name}.py")


def numbers(record) -> tuple:
    """The results of a trial except times and memory."""
    points = tuple((point.step, point.loss, point.validation) for point in record.curve)
    return record.status, record.validation_best, record.test_score, record.normalised_score, points


# -- what is caught as a file is imported ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("imports_for_ever", "was not imported within 1 s: have it do nothing but define its class"),
        ("exits_at_import", "cannot be imported: exit code 4"),
        ("quits_at_import", "ends Python as it is imported (exit status bye): mend it"),
        ("needs_a_package", "needs the package no_such_package_at_all: pip install no_such_package_at_all"),
        (
            "forks",
            "PermissionError: [Errno 1] os.fork is refused: no code in a confined process starts a process",
        ),
        ("runs_a_program", "subprocess.Popen is refused: no code in a confined process starts a process"),
        ("connects", "is refused: no code in a confined process"),
        ("kills_its_parent", "os.kill is refused: no code in a confined process signals another"),
        pytest.param("reads_the_parent", "Permission denied: '/proc/", marks=landlock),
        pytest.param("reads_targets", "Permission denied: '", marks=landlock),
        pytest.param("reads_library_data", "Permission denied: '", marks=landlock),
        ("fills_the_disk", "in its working folder, over the limit of 268 MB"),
        # Its own write fails, or the watch sees the file first.
        (
            "fills_a_file",
            ("OSError: [Errno 27] File too large", "in its working folder, over the limit of 268 MB"),
        ),
        pytest.param(
            "hides_a_file", "it keeps a file without name and descriptor by a mapping alone", marks=linux
        ),
        pytest.param(
            "shares_memory",
            "PermissionError: [Errno 1] Operation not permitted (refused: mmap)",
            marks=seccomp,
        ),
        ("starts_threads", f"threads, over the limit of {confined._MOST_THREADS}"),
    ],
)
def test_a_bad_import_is_an_error_of_one_line(name, said, monkeypatch):
    monkeypatch.setattr(importing, "IMPORT_SECONDS", 1.0 if name == "imports_for_ever" else 60.0)
    clock = time.monotonic()
    with pytest.raises(UsageError) as caught:
        contributed.from_path(PACK / f"{name}.py")
    assert str(PACK / f"{name}.py") in str(caught.value)
    assert any(words in str(caught.value) for words in ([said] if isinstance(said, str) else said))
    assert "\n" not in str(caught.value) and time.monotonic() - clock < 60
    assert f"creditbench_learners.{name}" not in " ".join(sys.modules)


def test_the_command_line_says_it_and_exits_2(capsys, tmp_path):
    arguments = ["run", "--task", "mackey_glass", "--learner", f"bptt,{bad('exits_at_import')}"]
    assert main([*arguments, "--results", str(tmp_path / "results")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"error: {bad('exits_at_import')} cannot be imported: exit code 4"


def test_an_id_that_is_taken_names_both_places(tmp_path):
    mine = tmp_path / "mine.py"
    mine.write_text((PACK / "honest.py").read_text().replace('id = "honest"', 'id = "bptt"'))
    with pytest.raises(UsageError) as caught:
        trials(str(mine))
    assert str(mine) in str(caught.value) and str(registry.find("learners", "bptt").path) in str(caught.value)
    mine.write_text((PACK / "honest.py").read_text())
    with pytest.raises(UsageError) as caught:
        trials(str(mine), bad("honest"))
    assert str(mine) in str(caught.value) and bad("honest") in str(caught.value)


@landlock
def test_no_rule_writes_into_the_store(tmp_path):
    store = tmp_path / "results"
    (store / "records").mkdir(parents=True)
    with pytest.raises(
        UsageError, match=r"PermissionError: \[Errno 13\] Permission denied: .*0123456789abcdef"
    ):
        trials(bad("writes_into_the_store"), settings={"writes_into_the_store.store": str(store)})
    assert not list((store / "records").iterdir())


def test_a_stand_in_says_what_the_rule_says(tmp_path):
    """Fields with their types, checks and metadata, and no module of the rule in this process."""
    path = tmp_path / "mine.py"
    source = registry.find("learners", "np").path.read_text()
    path.write_text(source.replace('id = "np"', 'id = "mine"'))
    found, known = contributed.from_path(path), registry.find("learners", "np").cls
    assert not [module for module in sys.modules.values() if getattr(module, "__file__", "") == str(path)]
    for name in ("name", "paper", "family", "optimizer", "lr", "search", "backends", "decorrelates"):
        assert getattr(found.cls, name) == getattr(known, name)
    assert found.cls().claims == known().claims and found.cls().stream_segment == known().stream_segment
    (made,), (expected,) = (
        trials(name, settings={f"{id}.sigma": "0.5"}) for name, id in ((str(path), "mine"), ("np", "np"))
    )
    assert made.hyperparameters == expected.hyperparameters
    with pytest.raises(UsageError, match="sigma is -1"):
        found.cls(sigma=-1.0)
    with pytest.raises(UsageError, match=r"mine.sigma is 'x': give a value of the type float"):
        trials(str(path), settings={"mine.sigma": "x"})


# -- what is caught as it trains -------------------------------------------------------------------------


FEW = ("exits_in_segment", "answers_first", "patches_the_metric", "honest")


@pytest.mark.parametrize("all_of_them", thorough([False, True], but=[False]))
def test_the_grid_goes_on_after_each(all_of_them, tmp_path, monkeypatch):
    """In one slot, and in one worker while it lives. A cheating rule scores as its honest twin."""
    expected = {
        "exits_in_segment": ("crashed", "exit code 5: so long"),
        "forges": ("invalid", "it sent something that is no answer to 'load'"),
        "allocates": ("oom", "of memory taken, over the limit of 1.5 GB"),
        "answers_first": ("invalid", "it sent something that is no answer to 'train'"),
        "patches_the_metric": ("ok", ""),
        "honest": ("ok", ""),
        "spies": ("ok", ""),
    }
    if not all(isolation.confinement().values()):
        del expected["spies"]
    expected = {name: expected[name] for name in (expected if all_of_them else FEW)}
    made = trials(*map(bad, expected))
    executor = make_executor("local", slots=1, timeout=120.0, memory_limit=1.5e9, logs=tmp_path / "logs")
    found = {record.trial.learner: record for record in executor.run(make_jobs(made))}
    for name, (status, detail) in expected.items():
        record = found[name]
        assert (name, record.status) == (name, status), record.status_detail
        assert detail in record.status_detail
        assert record.learner_source == bad(name) and record.trial.learner_sha256
        if status == "ok":
            assert numbers(record) == numbers(found["honest"]) and record.test_score > 0.1
            assert record.environment["host"]["confinement"] == isolation.confinement()
            assert record.process_peak_bytes is not None or sys.platform != "linux"
    assert "so long" in (tmp_path / "logs" / f"{found['exits_in_segment'].trial.id}.log").read_text()


@pytest.mark.parametrize(
    ("name", "detail"),
    [
        ("sends_a_pickle", "the snapshot holds pickled objects in W_in: it must hold plain numbers"),
        ("compresses_weights", "W_in compressed: it must be stored as it is"),
    ],
)
def test_weights_that_are_not_stored_plainly_are_an_invalid_trial(name, detail):
    (trial,) = trials(bad(name))
    (record,) = run_trials([trial], trainer=confined_trainer(trial, Limits(seconds=120.0)))
    assert record.status == "invalid" and detail in record.status_detail, record.status_detail
    assert record.learner_source == bad(name) and record.trial.learner_sha256


@pytest.mark.parametrize(
    ("backend", "rules"), thorough([("torch", "anp+D"), ("jax", "anp")], but=[("jax", "anp")])
)
def test_a_rule_alone_in_its_process_trains_as_in_company(backend, rules, tmp_path):
    """Bit for bit, noise included; under JAX with two seeds one after another on one compilation."""
    mine = tmp_path / "mine.py"
    mine.write_text(registry.find("learners", "anp").path.read_text().replace('id = "anp"', 'id = "mine"'))
    own = [f"{mine}{suffix.removeprefix('anp')}" for suffix in rules.split(",")]
    seeds = (0, 1) if backend == "jax" else (0,)
    made = [trials(*names, backends=(backend,), seeds=seeds) for names in (rules.split(","), own)]
    if backend == "torch":  # without a worker, which starts slowly
        inside = list(make_executor("inline").run([Job(made[0])]))
        outside = list(run_trials(made[1], trainer=confined_trainer(made[1][0], Limits(seconds=300.0))))
    else:
        jobs = [job for group in made for job in make_jobs(group)]
        records = list(make_executor("local", slots=1).run(jobs))
        inside, outside = records[: len(seeds)], records[len(seeds) :]
    assert len(inside) == len(outside) == len(seeds)
    for a, b in zip(inside, outside, strict=True):
        assert a.status == "ok" and numbers(a) == numbers(b)
        assert "confinement" in b.environment["host"] and "confinement" not in a.environment["host"]
    if backend == "torch":
        inline = list(make_executor("inline").run([Job((trial,)) for trial in made[1]]))
        assert [numbers(record) for record in inline] == [numbers(record) for record in inside]


def test_nothing_comes_from_one_seed_to_the_next(capfd):
    """Each has a process and a folder of its own, whether they are one job or many."""
    made = trials(bad("keeps_from_seed_to_seed"), bad("honest"), seeds=(0, 1))
    trainer, places = confined_trainer(made[0], Limits(seconds=300.0)), []
    records = list(
        run_trials(
            made[:2],
            lambda *_: places.append((trainer.blocks.child.process.pid, trainer.blocks.child.directory)),
            trainer=trainer,
        )
    )
    assert [trial.learner for trial in made[2:]] == ["honest"] * 2
    honest = list(run_trials(made[2:], trainer=confined_trainer(made[2], Limits(seconds=300.0))))
    assert [numbers(record) for record in records] == [numbers(record) for record in honest]
    assert len({number for number, _ in places}) == len({folder for _, folder in places}) == 2


def test_figures_that_no_machine_has_are_refused(capfd):
    (trial,) = trials(bad("says_what_no_machine_has"))
    trainer = confined_trainer(trial.model_copy(update={"measure": True}), Limits(seconds=300.0))
    (record,) = run_trials([trial], trainer=trainer)
    assert record.status == "ok" and record.algorithm_bytes is None
    assert "its cost was not measured: it sent algorithm_bytes as 1000000" in capfd.readouterr().err


def test_between_orders_the_process_stands_still_and_its_memory_is_what_is_measured():
    """Otherwise it could train while the clock does not run."""
    (trial,) = trials(bad("honest"))
    trial = trial.model_copy(update={"measure": True})
    trainer, seen = confined_trainer(trial, Limits(seconds=300.0)), []

    def look(_, part, points):
        child = psutil.Process(trainer.blocks.child.process.pid)
        deadline = time.monotonic() + 10  # on a busy machine it takes a while until it has the turn to stop
        while child.status() != psutil.STATUS_STOPPED and time.monotonic() < deadline:
            time.sleep(0.01)
        seen.append((part, child.status(), child.memory_info().rss))

    (outcome,) = trainer.train([trial], look)
    trainer.close()
    assert [(part, status) for part, status, _ in seen] == [
        (0.5, psutil.STATUS_STOPPED),
        (1.0, psutil.STATUS_STOPPED),
    ]
    assert outcome.status == "ok" and outcome.cost.ratio_forward > 0 and outcome.cost.flops_per_step > 0
    assert type(outcome.cost.algorithm_bytes) is int and not hasattr(trainer.blocks, "learner")
    assert outcome.process_peak_bytes is None or outcome.process_peak_bytes < seen[-1][2]


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The honest rule in a package: its file, and a file that it makes if it is not confined."""
    site, note = tmp_path / "site", tmp_path / "trusted"
    (site / "own_rules").mkdir(parents=True)
    (site / "own_rules" / "__init__.py").touch()
    rule = site / "own_rules" / "rule.py"
    rule.write_text(
        f"import contextlib\n\nwith contextlib.suppress(OSError):\n    open({str(note)!r}, 'w').close()\n\n"
        + (PACK / "honest.py").read_text().replace('id = "honest"', 'id = "installed"')
    )
    about = site / "own_rules-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: own-rules\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[creditbench.learners]\ninstalled = own_rules.rule:Rule\n")
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]))
    registry._known.cache_clear()
    yield rule, note
    registry._known.cache_clear()


@landlock
def test_a_rule_that_an_installed_package_brings_is_held_as_one_given_by_path(installed, capsys):
    rule, note = installed
    (trial,) = trials("installed")
    (found,) = make_executor("local", slots=1).run([Job((trial,))])
    assert found.trial.learner == "installed" and found.trial.learner_path is None
    assert found.learner_source == "entry point own-rules, whose sha256 is of own_rules alone"
    assert found.status == "ok", found.status_detail
    assert found.environment["host"]["confinement"] == isolation.confinement()
    assert main(["check", "installed", "--only", "metadata", "--backend", "jax", "--json"]) == 0
    assert [row["held"] for row in json.loads(capsys.readouterr().out)] == [True, True]
    assert "own_rules.rule" not in sys.modules and not note.exists()
    # It would have been noted: inline, this process imports it, and trains it alike.
    (inline,) = make_executor("inline").run([Job((trial,))])
    assert note.exists() and numbers(inline) == numbers(found)
    # As with a file given by path: what has changed since is another rule.
    rule.write_text(rule.read_text() + "\n")
    with pytest.raises(UsageError, match="has changed since the run began: run again"):
        list(run_trials([trial], trainer=confined_trainer(trial, Limits())))
    for name in ("own_rules", "own_rules.rule"):
        del sys.modules[name]


@landlock
def test_an_installed_rule_counts_with_all_of_its_package(installed):
    """Any change in it, except Python's compiled files, gives another trial and makes the record stale."""
    rule, _ = installed
    site = rule.parents[1]
    (site / "own_rules-1.0.dist-info" / "RECORD").write_text("own_rules/rule.py,,\nown_beside.py,,\n")
    (site / "own_beside.py").touch()

    def now():
        registry._known.cache_clear()
        store._source_sha256.cache_clear()
        return trials("installed")[0]

    for path in ("own_rules/deeper/core.py", "own_rules/rates.csv", "own_beside.py", "own_rules/rule.py"):
        before = now()
        record = failure(before, "crashed", "", datetime.now(UTC), 0.0)
        assert store.stale(record) == ""
        (site / path).parent.mkdir(exist_ok=True)
        with (site / path).open("a") as file:
            file.write("\n")
        assert now().id != before.id and store.stale(record) == "learner installed has changed"
    before = now()
    for path in ("own_rules/__pycache__/core.pyc", "elsewhere.py"):
        (site / path).parent.mkdir(exist_ok=True)
        (site / path).write_text("\n")
    assert now().id == before.id


@landlock
def test_a_package_that_does_not_say_what_is_in_it_has_that_in_its_record(installed):
    rule, _ = installed
    about = rule.parents[1] / "own_rules-1.0.dist-info"
    assert registry.find("learners", "installed").source == (
        "entry point own-rules, whose sha256 is of own_rules alone"
    )
    (about / "RECORD").write_text("own_rules/rule.py,,\n")
    registry._known.cache_clear()
    assert registry.find("learners", "installed").source == "entry point own-rules"
    (about / "direct_url.json").write_text('{"dir_info": {"editable": true}, "url": "file:///own"}')
    registry._known.cache_clear()
    assert registry.find("learners", "installed").source.endswith("alone")


def test_a_file_that_changes_under_a_run_is_not_run(tmp_path):
    mine = tmp_path / "mine.py"
    shutil.copy(bad("honest"), mine)
    (trial,) = trials(str(mine))
    mine.write_text(mine.read_text() + "CHANGED = True\n")
    with pytest.raises(UsageError, match="has changed since the run began: run again"):
        list(run_trials([trial], trainer=confined_trainer(trial, Limits())))


# -- the process -----------------------------------------------------------------------------------------

HERE = "creditbench.isolation.tryout:attempt"
ENTRIES = "tests.isolation.confined_entries"
TESTS = Path(__file__).parents[1]


def test_the_kernel_refuses_what_it_is_said_to(tmp_path):
    found, refused = isolation.confinement(), isolation.probe()
    if found["landlock"]:
        assert refused["files"]
    if found["seccomp"]:
        assert refused["processes"] and refused["network"] and refused["signals"]
    assert bool(isolation.missing()) == (not all(found.values()))


def test_what_is_missing_is_said(monkeypatch):
    files = "reading and writing files of this user (no Landlock)"
    processes = "starting processes, which is noticed soon after (no seccomp)"
    for version, filters, lacks in (
        (0, False, [files, processes, "the network"]),
        (0, True, [files]),
        (3, False, [processes, "the network"]),
        (4, False, [processes, "the network other than TCP"]),
        (4, True, []),
    ):
        monkeypatch.setattr(kernel, "landlock", lambda version=version: version)
        monkeypatch.setattr(kernel, "seccomp", lambda filters=filters: filters)
        said = isolation.missing()
        assert said == (f"confined code is not kept from {', '.join(lacks)}" if lacks else "")


def test_an_environment_holds_no_secret(monkeypatch):
    monkeypatch.setenv("GITHUB_TOKEN", "secret")
    with Confined("creditbench.plugins.contributed:describe", {}) as child:  # it waits for a message
        while not (found := psutil.Process(child.process.pid).environ()):
            time.sleep(0.01)  # the system is still at work on its start
        deadline = time.monotonic() + 30
        while len(descriptors := os.listdir(f"/proc/{child.process.pid}/fd")) != 5:
            assert time.monotonic() < deadline, descriptors  # while it imports there are more
            time.sleep(0.01)
        folder = child.directory
    assert "GITHUB_TOKEN" not in found and "PYTHONPATH" not in found
    assert found["HOME"] == found["TMPDIR"] == str(folder) and not folder.exists()


@seccomp
def test_the_parent_cannot_be_looked_into_while_a_child_lives():
    before = kernel.prctl(kernel._PR_GET_DUMPABLE, 0)
    with Confined(HERE, {"file": "x", "parent": os.getpid()}):
        assert kernel.prctl(kernel._PR_GET_DUMPABLE, 0) == 0
    assert kernel.prctl(kernel._PR_GET_DUMPABLE, 0) == before


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has it")
def test_the_parent_is_afterwards_what_it_was_where_children_start_at_the_same_time(monkeypatch):
    real, before = kernel.prctl, kernel.prctl(kernel._PR_GET_DUMPABLE, 0)

    def slow(option, value):
        found = real(option, value)
        if option == kernel._PR_SET_DUMPABLE:
            time.sleep(0.05)  # the others come while the first is at it
        return found

    monkeypatch.setattr(kernel, "prctl", slow)
    try:
        for change in (+1, -1):
            threads = [threading.Thread(target=kernel.hide, args=(change,)) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert real(kernel._PR_GET_DUMPABLE, 0) == (0 if change > 0 else before)
    finally:
        real(kernel._PR_SET_DUMPABLE, before)


@seccomp
def test_what_reaches_other_processes_past_sockets_and_signals_is_refused():
    with Confined(f"{ENTRIES}:reaches_out", {}, readable=[TESTS]) as child:
        assert child.receive() == {
            "socketpair": errno.EPERM,  # a datagram from one reaches any socket that has a name
            "setpriority": errno.EPERM,
            "sched_setscheduler": errno.EPERM,
        }


@landlock
@seccomp
@pytest.mark.parametrize(("device", "needed"), [("cpu", (errno.EACCES, errno.EPERM)), ("cuda", (0, 0))])
def test_with_a_gpu_no_more_is_open_than_cuda_needs(device, needed):
    """It names its threads and has a socket; it connects to nothing, and writes nowhere else."""
    order = {"parent": os.getpid()}
    with Confined(f"{ENTRIES}:starts_as_cuda_does", order, readable=[TESTS], device=device) as child:
        found = child.receive()
    assert (found["name"], found["unix"]) == needed
    assert (found["connect"], found["internet"]) == (errno.EPERM, errno.EPERM)
    assert (found["scores"], found["others"]) == (errno.EACCES, errno.EACCES)


def test_a_filter_that_not_all_threads_took_is_an_error(monkeypatch):
    """The system then answers with the number of a thread, and confines no thread."""
    if not kernel.seccomp():
        pytest.skip("the kernel takes no filters")
    monkeypatch.setattr(calls, "syscall", lambda *_: 4321)
    with pytest.raises(OSError, match="thread 4321 has filters of its own"):
        calls.apply_seccomp()


@seccomp
def test_a_call_that_is_refused_is_named_once_in_the_log(tmp_path):
    """It fails with EPERM; a call newer than all known ones fails as one that the kernel does not have."""
    with Confined(f"{ENTRIES}:calls_what_it_may_not", {}, readable=[TESTS]) as child:
        found, said = child.receive(), child.printed().decode()
    assert found == {"inotify_init1": errno.EPERM, "fchmod": errno.EPERM, "newest": errno.ENOSYS}
    for name in ("inotify_init1", "fchmod", "number 100000"):
        assert said.count(f"the system call {name} is refused: no code in a confined process needs it\n") == 1


@seccomp
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_what_an_honest_rule_does_is_refused_nowhere(backend):
    with Confined(f"{ENTRIES}:works_honestly", {"backend": backend}, readable=[TESTS], threads=2) as child:
        assert child.receive()["seen"] > 5, child.last_lines()
        assert child.refused == [], child.refused


@seccomp
def test_where_the_kernel_asks_nobody_calls_are_refused_all_the_same(monkeypatch):
    """In a fork, because a filter stays for good. Its status has one bit per wrong answer."""
    real, libc = calls.syscall, ctypes.CDLL(None, use_errno=True)

    def older(number, *args):
        if number == calls.numbers(platform.machine())["seccomp"] and args[1] & calls._LISTENER:
            ctypes.set_errno(errno.EINVAL)
            return -1
        return real(number, *args)

    monkeypatch.setattr(calls, "syscall", older)
    refusals = isolation.calls.Refusals()
    number = os.fork()
    if number == 0:
        kernel.prctl(kernel._PR_SET_NO_NEW_PRIVS, 1)
        calls.apply_seccomp(tell=refusals.others)
        refused = libc.inotify_init1(0) == -1 and ctypes.get_errno() == errno.EPERM
        new = real(100_000) == -1 and ctypes.get_errno() == errno.ENOSYS
        os._exit((not refused) + 2 * (not new) + 4 * (libc.getppid() <= 0))
    refusals.others.close()
    assert os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]) == 0
    assert refusals.answer() == [] and refusals.fileno() == -1  # there is nothing to wait for


@linux
def test_tables_of_pages_are_memory_too():
    """Page tables of zero pages that were read and never written count in no other figure."""
    limits = Limits(memory=160 << 20)
    with (
        pytest.raises(ConfinedError, match="of memory taken, over the limit of 168 MB"),
        Confined(f"{ENTRIES}:reads_nothing_at_length", {}, readable=[TESTS], limits=limits) as child,
    ):
        child.receive()


@seccomp
def test_a_process_that_asks_without_end_is_held_by_its_deadline():
    with (
        pytest.raises(ConfinedError, match="no result within 2 s"),
        Confined(f"{ENTRIES}:asks_without_end", {}, readable=[TESTS], limits=Limits(seconds=2.0)) as child,
    ):
        child.receive()


def test_a_function_that_fails_says_why():
    with pytest.raises(ConfinedError) as caught, Confined(HERE, {}) as child:
        child.receive()
    assert (caught.value.status, caught.value.detail) == ("crashed", "KeyError: 'file'")


def test_a_deadline_ends_a_process():
    order = {"file": "x", "parent": 0}
    with (
        pytest.raises(ConfinedError) as caught,
        Confined("creditbench.plugins.contributed:describe", order, limits=Limits(seconds=0.5)) as child,
    ):
        child.receive()  # it waits for a message that does not come
    assert (caught.value.status, caught.value.detail) == ("timeout", "no result within 0.5 s")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the limit is taken otherwise")
def test_processor_time_has_a_limit_of_its_own():
    limits = Limits(cpu_seconds=1.0)
    with (
        pytest.raises(ConfinedError) as caught,
        Confined(f"{ENTRIES}:burns", {}, readable=[TESTS], limits=limits) as child,
    ):
        child.receive()
    assert (caught.value.status, caught.value.detail) == ("timeout", "more than 1 s of processor time taken")


def test_processes_beyond_those_allowed_are_noticed_and_all_are_ended():
    with (
        pytest.raises(ConfinedError) as caught,
        Confined(f"{ENTRIES}:forks", {"count": 3}, readable=[TESTS], limits=Limits(processes=2)) as child,
    ):
        list(child.messages())
    assert (caught.value.status, caught.value.detail) == (
        "invalid",
        "it started 3 processes, and may start 2",
    )
    assert not [p for p in psutil.process_iter() if child._mark in environment_of(p).values()]


def environment_of(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except psutil.Error:
        return {}


def verdict(program: bytes, number: int, *arguments: int, architecture: int) -> int:
    """The return value of a filter for a system call."""
    data = struct.pack("=iIQ6Q", number, architecture, 0, *arguments, *[0] * (6 - len(arguments)))
    at, accumulator = 0, 0
    while True:
        operation, yes, no, value = struct.unpack_from("=HBBI", program, 8 * at)
        at += 1
        if operation == calls._LOAD:
            (accumulator,) = struct.unpack_from("=I", data, value)
        elif operation == calls._AND:
            accumulator &= value
        elif operation == calls._RETURN:
            return value
        else:
            held = accumulator == value if operation == calls._JUMP_EQUAL else accumulator >= value
            at += yes if held else no


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_allows_what_is_needed_and_refuses_all_else(machine, monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: machine)
    known, allow, refuse = calls.numbers(machine), calls._ALLOW, calls._ERRNO | errno.EPERM
    own = os.getpid()

    def said(name, *arguments, **how):
        number = known[name] if isinstance(name, str) else name
        return verdict(
            calls.make_filter(**how), number, *arguments, architecture=calls._ARCHITECTURES[machine]
        )

    for name in ("futex", "read", "openat", "munmap", "getrandom", "exit_group", "restart_syscall"):
        assert said(name) == allow
    feared = (
        "fchmod fchmodat fchownat utimensat setxattr fsetxattr inotify_init1 inotify_add_watch timer_create"
    )
    feared += (
        " timerfd_create mq_notify shmget memfd_create execve unshare ptrace pidfd_open bpf io_uring_setup"
    )
    feared += (
        " io_submit flock symlinkat linkat mknodat setpriority sched_setscheduler keyctl process_vm_readv"
    )
    for name in (*feared.split(), 0x3FFFFFF0):
        expected = refuse if isinstance(name, str) else calls._ERRNO | errno.ENOSYS
        assert said(name) == expected, name
        assert said(name, asks=True) == calls._ASK, name
        assert said(name, device="cuda") == (allow if name == "flock" else expected), name
    assert said("clone", 0x3D0F00) == allow
    # Flags for a process, for descriptors of its own, for a network.
    for flags in (0, 17, 0x3D0F00 & ~0x400, 0x3D0F00 | 0x20000000):
        assert said("clone", flags) == refuse
    assert said("clone3") == calls._ERRNO | errno.ENOSYS
    assert [said("kill", number, 15) for number in (own, 1, own + 1)] == [allow, refuse, refuse]
    assert [said("tgkill", number, 7, 6) for number in (own, 1)] == [allow, refuse]
    assert said("kill", own, 9) == said("tgkill", own, 7, 9) == refuse  # which is then from outside
    assert [said("prlimit64", number) for number in (own, 0, 1)] == [allow, allow, refuse]
    assert [said("fcntl", 3, command) for command in (3, 1030, 8, 10, 1024, 1026, 1031)] == [allow] * 2 + [
        refuse
    ] * 5
    assert [said("ioctl", 3, command) for command in (0x5401, 0x5452, 0x8902)] == [allow, refuse, refuse]
    assert said("ioctl", 3, 0xC020462A, device="cuda") == allow
    assert [said("mmap", 0, 4096, 3, flags) for flags in (0x22, 0x01, 0x21, 0x4023)] == [allow] * 2 + [
        refuse
    ] * 2
    assert [said("prctl", option) for option in (15, 1, 4, 22)] == [allow, refuse, refuse, refuse]
    assert said("socket", 1, 1) == refuse and said("socket", 1, 1, device="cuda") == allow
    assert said("socket", 2, 1, device="cuda") == refuse
    assert said("execve", processes=True) == said("clone", 17, processes=True) == allow
    assert verdict(calls.make_filter(), 0, architecture=0x40000003) == calls._KILL
    last = calls._last_filter()
    assert verdict(last, known["sendmsg"], architecture=calls._ARCHITECTURES[machine]) == refuse
    assert verdict(last, known["seccomp"], architecture=calls._ARCHITECTURES[machine]) == refuse
    assert verdict(last, known["read"], architecture=calls._ARCHITECTURES[machine]) == allow


def test_every_call_of_the_lists_has_a_number_on_one_architecture_at_least():
    known = calls.numbers("x86_64").keys() | calls.numbers("aarch64").keys()
    lists = (calls._NEEDED, calls._OF_ACCELERATORS, calls._OF_PROCESSES, " ".join(calls._IN_VAIN))
    for names in map(str.split, lists):
        assert set(names) <= known and len(names) == len(set(names))
    numbers = {"x86_64": (0, 56, 157, 317), "aarch64": (63, 220, 167, 277)}
    for machine, found in numbers.items():
        assert tuple(calls.numbers(machine)[name] for name in ("read", "clone", "prctl", "seccomp")) == found


# -- snapshots -------------------------------------------------------------------------------------------

SHAPES = {"W": (3, 2), "b": (3,)}


def snapshot(path, **arrays):
    whole = {"W": np.ones((3, 2), np.float32), "b": np.ones(3, np.float32)} | arrays
    np.savez(path, **{name: value for name, value in whole.items() if value is not None})
    return path


def forged(path, member: bytes, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("W.npy", member)
        archive.writestr("b.npy", member)
    return path


def forged_name(path, name: str):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, b"")
    return path


def header(text: str) -> bytes:
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text.encode()


def test_a_good_snapshot_is_read(tmp_path):
    found = read_arrays(snapshot(tmp_path / "w.npz"), SHAPES, "float32")
    assert {name: value.shape for name, value in found.items()} == SHAPES
    assert found["W"].dtype == np.float32 and (found["W"] == 1).all()


class Bomb:
    def __reduce__(self):
        return os._exit, (9,)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path, "cannot be opened (No such file or directory)"),
        (lambda path: path.mkdir() or path, "is no plain file"),
        (lambda path: os.mkfifo(path) or path, "is no plain file"),
        (lambda path: path.symlink_to(snapshot(path.with_name("w.npz"))) or path, "cannot be opened"),
        (lambda path: path.write_bytes(b"PK") and path, "is no .npz file (BadZipFile"),
        (lambda path: path.write_bytes(bytes(1 << 20)) and path, "has more than the"),
        (lambda path: path.write_bytes(pickle.dumps(Bomb())) and path, "is no .npz file"),
        (lambda path: snapshot(path, b=np.array([Bomb()] * 3, object)), "holds pickled objects in b"),
        (lambda path: snapshot(path, b=None), "holds W.npy, not W, b"),
        (lambda path: snapshot(path, c=np.ones(1)), "holds W.npy, b.npy, c.npy, not W, b"),
        (lambda path: forged_name(path, "\x1b[2J\n" * 50), "holds [2J[2J[2J"),
        (lambda path: snapshot(path, b=np.ones(3)), "has b as float64 [3], which must be float32 [3]"),
        (lambda path: snapshot(path, W=np.ones((2, 3), np.float32)), "has W as float32 [2, 3], which must"),
        *(
            (
                lambda path, kind=kind: forged(path, bytes(1 << 20), kind),
                "has W compressed: it must be stored",
            )
            for kind in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
        ),
        (
            lambda path: forged(
                path, header("{'descr': '<f4', 'fortran_order': False, 'shape': (1<<40,)}\n")
            ),
            "is no .npz file",
        ),
        (
            lambda path: forged(
                path, header(f"{{'descr': [('{'x' * 2000}', '<f4')], 'fortran_order': False, 'shape': ()}}\n")
            ),
            "has W as [('xxx",
        ),
        (
            lambda path: forged(path, header("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2)}\n")),
            "is no .npz file (ValueError",
        ),
    ],
)
def test_a_bad_snapshot_is_refused(make, said, tmp_path):
    path = make(tmp_path / "weights.npz")
    with pytest.raises(ConfinedError) as caught:
        read_arrays(path, SHAPES, "float32")
    assert caught.value.status == "invalid" and caught.value.detail.startswith("the snapshot ")
    assert said in caught.value.detail
    assert caught.value.detail.isprintable() and len(caught.value.detail) < 400


def test_a_folder_is_removed_whatever_is_in_it(tmp_path):
    folder = tmp_path / "folder"
    outside = tmp_path / "kept"
    outside.write_text("kept")
    deep = folder / "closed" / "deep"
    deep.mkdir(parents=True)
    (deep / "link").symlink_to(outside)
    (folder / "up").symlink_to(tmp_path)
    deep.chmod(0)
    deep.parent.chmod(0)
    remove_folder(str(folder))
    assert not folder.exists() and outside.read_text() == "kept"


def test_a_folder_that_cannot_be_removed_costs_the_one_above_nothing(tmp_path, monkeypatch, capsys):
    folder, real = tmp_path / "above" / "folder", os.rmdir
    folder.mkdir(parents=True)
    folder.parent.chmod(0o755)

    def rmdir(path, **options):
        if os.path.basename(path) == "folder":
            raise OSError(errno.EBUSY, "busy")
        real(path, **options)

    monkeypatch.setattr(os, "rmdir", rmdir)
    monkeypatch.setattr("subprocess.run", lambda *_, **__: None)
    remove_folder(str(folder))
    assert folder.parent.stat().st_mode & 0o777 == 0o755
    assert f"note: the folder {folder} could not be removed" in capsys.readouterr().err


def test_what_a_folder_takes_is_counted(tmp_path):
    (tmp_path / "a").write_bytes(bytes(1 << 20))
    assert size_of(str(tmp_path)) >= 1 << 20
    with (tmp_path / "b").open("wb") as file:
        (tmp_path / "b").unlink()
        file.write(bytes(1 << 20))
        file.flush()
        if sys.platform == "linux":
            found = unlinked(os.getpid(), str(tmp_path))
            other = os.dup(file.fileno())
            assert found >= 1 << 20
            assert unlinked(os.getpid(), str(tmp_path)) == found  # of one file under two numbers
            os.close(other)


def test_what_lies_too_deep_to_be_counted_is_an_offence(tmp_path, monkeypatch):
    at = os.open(tmp_path, os.O_RDONLY)
    for _ in range(25):
        os.mkdir("d" * 200, dir_fd=at)
        below = os.open("d" * 200, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    with pytest.raises(ConfinedError, match=r"d…? in its working folder cannot be looked at \(File name too"):
        size_of(str(tmp_path))
    remove_folder(str(tmp_path))


def test_what_is_closed_to_its_owner_is_an_offence(tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir()
    real = os.scandir

    def scandir(path):  # root is refused nothing
        if os.path.basename(path) == "closed":
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(ConfinedError) as caught:
        size_of(str(tmp_path))
    assert caught.value.detail == "closed in its working folder cannot be looked at (Permission denied)"


def test_a_message_is_a_line_of_json():
    child = Confined(HERE, {})
    for line in (b"not json", b"[1]", b"3", b"[" * 100_000):
        with pytest.raises(ConfinedError, match="something that is no message"):
            child._parse(line)
    with pytest.raises(ConfinedError, match="a failure of no known kind"):
        child._parse(b'{"failed": "ok"}')
    assert child._parse(b'{"record": 1}') == {"record": 1}
