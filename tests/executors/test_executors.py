"""Executors: one record per trial, whatever its rule does, and no trial harmed by another."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import get_args

import psutil
import pytest

import creditbench
from creditbench.check import doctor
from creditbench.cli import main
from creditbench.errors import MachineError, UsageError
from creditbench.executors import Job, confined, local, make_executor, make_jobs
from creditbench.executors.confined import confined_trainer
from creditbench.executors.local import _cores
from creditbench.isolation import Limits
from creditbench.machine.memory import read_bytes
from creditbench.machine.threads import thread_environment, usable_cores
from creditbench.studies import process as measuring
from creditbench.trials.grid import Options, make_grid
from creditbench.trials.trainer import run_trials
from creditbench.trials.trial import Trial
from tests.conftest import thorough

PLUGINS = Path(__file__).parents[1] / "misbehaving"
HONEST = str(Path(__file__).parents[1] / "submissions" / "honest.py")


def trials(*learners: str, **options) -> tuple[Trial, ...]:
    names = tuple(
        str(PLUGINS / f"{name}.py") if (PLUGINS / f"{name}.py").exists() else name for name in learners
    )
    small = {
        "hidden": 4,
        "settings": {"mackey_glass.steps": "300"},
        "budget": 40,
        "evaluations": 2,
        "segment": 1,
    }
    tasks = options.pop("tasks", ("mackey_glass",))
    return make_grid(Options(tasks=tasks, learners=names, preset="smoke", **small | options)).trials


# -- jobs ------------------------------------------------------------------------------------------------


def test_seeds_of_a_family_share_a_process():
    made = trials("bptt", "anp", backends=("jax", "torch"), seeds=(0, 1, 2))
    jobs = make_jobs(made)
    assert sorted(len(job.trials) for job in jobs) == [3] * 4
    assert all(len({trial.family for trial in job.trials}) == 1 for job in jobs)
    assert {trial.id for job in jobs for trial in job.trials} == {trial.id for trial in made}


@pytest.mark.needs("jax")
def test_a_family_is_split_over_empty_slots_unless_it_is_trained_together():
    made = trials("bptt", backends=("jax",), seeds=(0, 1, 2))
    assert sorted(len(job.trials) for job in make_jobs(made, slots=2)) == [1, 2]
    assert sorted(len(job.trials) for job in make_jobs(made, slots=8)) == [1, 1, 1]
    assert make_jobs(made, slots=8, together=True) == [Job(made, True)]
    assert make_jobs((), slots=2) == []


def test_slots_have_cores_of_their_own():
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("cores cannot be chosen here")
    cores = usable_cores()
    assert [_cores(slot, 1) for slot in range(len(cores))] == [[core] for core in cores]
    assert _cores(len(cores), 1) == [cores[0]]
    assert _cores(0, len(cores)) == cores


def test_thread_pools_are_held_and_flags_of_the_user_kept(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=/nowhere")
    found = thread_environment(1)
    assert found["OMP_NUM_THREADS"] == found["MKL_NUM_THREADS"] == found["OPENBLAS_NUM_THREADS"] == "1"
    assert found["XLA_FLAGS"].startswith("--xla_dump_to=/nowhere --xla_cpu_multi_thread_eigen=false")


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("locale", {}, "did you mean 'local'?"),
        ("local", {"threads": 0}, "threads is 0"),
        ("local", {"threads": 10_000}, "threads is 10000"),
        ("local", {"slots": 0}, "jobs is 0"),
        ("local", {"timeout": -1.0}, "timeout is -1.0"),
        ("local", {"memory_limit": 0}, "memory limit is 0"),
        ("inline", {"timeout": 5.0}, "leave out --timeout"),
        ("inline", {"memory_limit": 1e9}, "leave out --timeout, --memory-limit"),
    ],
)
def test_settings_that_make_no_sense_are_refused(name, options, said):
    with pytest.raises(UsageError) as caught:
        make_executor(name, **options)
    assert said in str(caught.value)


def test_an_accelerator_has_one_trial_at_a_time_unless_more_are_asked_for():
    cores = len(usable_cores())
    found = [make_executor("local", device=device).slots for device in ("cpu", "cuda", "cuda:1")]
    assert found == [cores, 1, 1]
    assert make_executor("local", device="cuda", slots=2).slots == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [("4GB", 4 * 10**9), ("4 gb", 4 * 10**9), ("512MiB", 2**29), ("1.5k", 1500), ("2Ti", 2**41), ("77", 77)],
)
def test_memory_is_read_with_its_unit(text, expected):
    assert read_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "GB", "4XB", "-1GB", "four", "4 G B"])
def test_memory_without_sense_is_refused(text):
    with pytest.raises(UsageError, match=r"as in 4GB or 512MiB"):
        read_bytes(text)


# -- isolation -------------------------------------------------------------------------------------------


def test_every_way_to_fail_is_a_status_and_harms_no_other_trial(tmp_path, monkeypatch):
    monkeypatch.setenv("TZ", "HANGS")
    names = ("hangs", "raises", "wrong_shape", "bptt")
    made = trials(*names)
    reported: set[str] = set()
    executor = make_executor("local", slots=2, timeout=10.0, logs=tmp_path)
    records = list(executor.run(make_jobs(made, slots=2), lambda trial, *_: reported.add(trial.learner)))
    assert {record.trial.id for record in records} == {trial.id for trial in made} and len(records) == len(
        made
    )
    found = {record.trial.learner: record for record in records}
    assert {name: record.status for name, record in found.items()} == {
        "hangs": "timeout",
        "raises": "crashed",
        "wrong_shape": "invalid",
        "bptt": "ok",
    }
    assert found["hangs"].status_detail == "no result within 10 s"
    assert found["raises"].status_detail == "RuntimeError: the rule broke"
    assert "shape (1, 1)" in found["wrong_shape"].status_detail
    assert found["bptt"].test_score is not None and "bptt" in reported
    assert found["bptt"].environment["threads"]["OMP_NUM_THREADS"] == "1"
    assert found["bptt"].environment["cores_usable"] == 1 or not hasattr(os, "sched_setaffinity")
    assert {path.stem for path in tmp_path.iterdir()} == {
        record.trial.id for record in records if record.status not in ("ok", "diverged")
    }
    assert "the rule broke" in (tmp_path / f"{found['raises'].trial.id}.log").read_text()


def test_a_confined_rule_that_gives_no_number_has_diverged():
    (trial,) = trials("not_a_number")
    (record,) = run_trials([trial], trainer=confined_trainer(trial, Limits(seconds=300.0)))
    assert (record.status, record.normalised_score) == ("diverged", None)


def test_the_seeds_behind_a_crash_run_again_each_alone():
    made = trials("exits_on_second_seed", seeds=(0, 1, 2))
    records = list(make_executor("local", slots=1).run([Job(made)]))
    assert [(record.trial.seed, record.status) for record in records] == [
        (0, "ok"),
        (1, "crashed"),
        (2, "ok"),
    ]
    assert records[1].status_detail == "exit code 3"


def test_inline_keeps_going_after_a_failure_and_agrees_with_local():
    made = trials("raises", "bptt")
    inline = list(make_executor("inline").run(make_jobs(made)))
    assert [record.status for record in inline] == ["crashed", "ok"]
    (local,) = make_executor("local").run(make_jobs(made[1:]))
    assert (local.test_score, local.curve[-1].loss) == (inline[1].test_score, inline[1].curve[-1].loss)


def test_what_goes_wrong_before_the_first_step_is_a_crash_of_each_seed():
    gone = [
        trial.model_copy(update={"learner_path": "/nowhere/bptt.py"})
        for trial in trials("bptt", seeds=(0, 1))
    ]
    good = trials("bptt")[0]
    broken = [trial.model_copy(update={"optimizer": "no_such"}) for trial in trials("bptt", seeds=(0, 1))]
    assert gone[0].id == good.id  # a path is a place
    records = list(make_executor("inline").run([Job(tuple(broken)), Job((good,))]))
    assert [record.status for record in records] == ["crashed", "crashed", "ok"]
    assert "unknown optimizer 'no_such'" in records[0].status_detail
    (record,) = make_executor("local", slots=1).run([Job((broken[0],))])
    assert record.status == "crashed" and "unknown optimizer 'no_such'" in record.status_detail


# -- harm ------------------------------------------------------------------------------------------------

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has processes adopt those below them")


@pytest.fixture
def marked(monkeypatch):
    """A function that gives the live processes started since, under any parent."""
    mark = uuid.uuid4().hex
    monkeypatch.setenv("CREDITBENCH_TEST_MARK", mark)

    def alive() -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if (
                    process.environ().get("CREDITBENCH_TEST_MARK") == mark
                    and process.status() != psutil.STATUS_ZOMBIE
                ):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    yield alive
    for left in alive():
        left.kill()


def none_left(alive, seconds=10.0) -> bool:
    deadline = time.monotonic() + seconds
    while alive() and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive()


def harm(*ways: str) -> list[Trial]:
    """Trials of a user's task that does harm in its worker. (Rules do not run there: see test_isolation.)"""
    tasks = (str(PLUGINS / "misbehaves.py"),)
    return [trials("bptt", tasks=tasks, settings={"misbehaves.how": way})[0] for way in ways]


def test_what_does_harm_costs_one_trial_and_leaves_no_process(marked, tmp_path):
    """One slot, so that a good trial follows each bad one."""
    expected = {
        "allocates": ("oom", "of memory taken, over the limit of 1 GB"),
        "fork_allocates": ("oom", "of memory taken, over the limit of 1 GB"),
        "segfault": ("crashed", "killed by SIGSEGV"),
        "daemon+kills_group": (None, "its process was killed by SIGKILL from outside"),
        "forks+kills_guard+sleeps": (None, "its process was killed by SIGKILL from outside"),
        "forks": ("ok", ""),
        "forks+daemon+says+exits": ("crashed", "exit code 3: two | three | four"),
    }
    bad, good = harm(*expected), trials("bptt", seeds=tuple(range(len(expected))))
    jobs = [Job((trial,)) for pair in zip(bad, good, strict=True) for trial in pair]
    executor = make_executor("local", slots=1, timeout=120.0, memory_limit=1e9, logs=tmp_path)
    before = psutil.Process().children(recursive=True)
    records = {record.trial.id: record for record in executor.run(jobs)}
    lost = {trial.id: why for trial, why in executor.lost}
    assert all(records[trial.id].status == "ok" for trial in good)
    for trial, (status, detail) in zip(bad, expected.values(), strict=True):
        assert (tmp_path / f"{trial.id}.log").exists() == (status != "ok")
        if status is None:  # nobody can tell that it was the task's own doing
            assert trial.id not in records and lost.pop(trial.id) == detail
            continue
        record = records[trial.id]
        assert record.status == status and detail in record.status_detail, record.status_detail
        assert record.environment["cpu"] and len(record.environment["host"]["load"]) == 3
    assert not lost
    assert psutil.Process().children(recursive=True) == before
    if sys.platform == "linux":
        assert none_left(marked, 0.0)


@pytest.mark.parametrize("backend", thorough(["jax", "torch"], but=["torch"]))
def test_memory_that_a_framework_refuses_is_out_of_memory(backend):
    (trial,) = trials("asks", backends=(backend,))
    (record,) = run_trials([trial], trainer=confined_trainer(trial, Limits(seconds=300.0)))
    assert record.status == "oom", record.status_detail


def sleeps(process: psutil.Process) -> bool:
    try:
        return process.name() == "sleep"
    except psutil.NoSuchProcess:  # it has ended since
        return False


@linux
@pytest.mark.needs("jax")
@pytest.mark.parametrize(
    "number", thorough([signal.SIGKILL, signal.SIGINT, signal.SIGTERM], but=[signal.SIGKILL, signal.SIGINT])
)
def test_nothing_outlives_a_run_that_is_ended_half_way(number, marked, tmp_path):
    """Also the trial's forks, and processes in sessions of their own."""
    harmful = str(PLUGINS / "misbehaves.py")
    # Tests that run in the background inherit an ignored SIGINT.
    start = (
        "import signal, sys; from creditbench.cli import main; "
        "signal.signal(signal.SIGINT, signal.default_int_handler); sys.exit(main(sys.argv[1:]))"
    )
    good = "mackey_glass," if number == signal.SIGINT else ""  # which says how many are done
    command = [sys.executable, "-c", start, "run", "--task", good + harmful, "--hidden", "4"]
    command += ["--set", "mackey_glass.steps=300"] if good else []
    command += ["--set", "misbehaves.how=forks+daemon+sleeps"]
    command += ["--preset", "smoke", "--budget", "40", "--segment", "1", "--seeds", "1", "--jobs", "1"]
    command += ["--learner", "bptt", "--results", str(tmp_path)]
    root = str(Path(creditbench.__file__).parents[1])
    parent = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": root},
    )
    try:
        deadline = time.monotonic() + 60
        # The run, guards and workers, a fork, and a daemon.
        while len(found := marked()) < (7 if good else 5) or not any(map(sleeps, found)):
            assert parent.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        parent.send_signal(number)
        _, said = parent.communicate(timeout=20)
        assert none_left(marked, 5.0 if number == signal.SIGKILL else 0.0)
        assert len(list(tmp_path.glob("records/*.json"))) == bool(good)
        assert ("1 of 2 trials are done" in said) == (number == signal.SIGINT)
    finally:
        parent.kill()
        parent.wait()


def test_what_lies_in_the_working_folder_is_not_run(tmp_path, monkeypatch):
    """Neither by the worker of a run nor by the processes that look for a device or measure."""
    for name in ("json", "array_api_compat", "numpy", "creditbench", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text(
            f"import pathlib\npathlib.Path({str(tmp_path / 'marker')!r}).touch()\nraise SystemExit(9)\n"
        )
    monkeypatch.chdir(tmp_path)
    (record,) = make_executor("local", slots=1).run(make_jobs(trials("bptt")))
    assert record.status == "ok", record.status_detail
    with pytest.raises(UsageError, match="cuda"):
        doctor.require_device("jax", "cuda:99")
    fixed = {"T": 4, "n": 4, "B": 1}
    asked = {"backend": "jax", "device": "cpu", "threads": 1, "learners": [], "fixed": fixed}
    assert list(measuring.results("shares", **asked)) == []
    assert not (tmp_path / "marker").exists()


def test_no_python_is_started_with_the_working_folder_on_its_path():
    """In the package one place starts any."""
    root = Path(creditbench.__file__).parents[1]
    started = [
        (path, start)
        for folder in ("creditbench", "tasks", "learners", ".github")
        for path in (root / folder).rglob("*.py")
        for start in re.findall(r"sys\.executable.{,7}", path.read_text(encoding="utf-8"), re.DOTALL)
    ]
    assert len(started) >= 5
    assert not [pair for pair in started if not re.fullmatch(r'sys.executable, ("-P"|"-I")[],]?.*', pair[1])]
    inside = {path for path, _ in started if root / "creditbench" in path.parents}
    assert inside == {root / "creditbench" / "machine" / "child.py"}


def test_closing_the_iterator_ends_what_is_running(marked):
    records = make_executor("local", slots=1).run(make_jobs([*trials("bptt"), *harm("forks+sleeps")]))
    assert next(records).status == "ok"
    records.close()
    assert not marked()


# -- warm workers ----------------------------------------------------------------------------------------


def guards() -> list[psutil.Process]:
    """The guards. A process of multiprocessing's, which another test may have started, is none."""
    return [
        p for p in psutil.Process().children() if not any("multiprocessing" in word for word in p.cmdline())
    ]


def workers() -> set[int]:
    """The guards' processes and theirs."""
    return {process.pid for guard in guards() for process in (guard, *guard.children(recursive=True))}


def numbers(record) -> tuple:
    """The results of a trial except times and memory."""
    points = tuple((point.step, point.loss, point.validation) for point in record.curve)
    return record.status, record.validation_best, record.test_score, record.trivial, points


def run_and_watch(jobs, **options):
    """The records, and the workers that existed when each arrived."""
    return zip(
        *((record, workers()) for record in make_executor("local", slots=1, **options).run(jobs)), strict=True
    )


def test_a_worker_takes_one_job_after_another_and_changes_no_number():
    made = [
        trial for seed in (0, 1) for trial in trials("bptt", "anp", backends=("jax", "torch"), seeds=(seed,))
    ]
    first = {trial.backend: trial for trial in reversed(made)}  # of its worker, so in a fresh process
    records, seen = run_and_watch([Job((trial,)) for trial in (*made, *first.values())])
    one, two = seen[0], seen[-1]
    assert len(one) == 2 and len(two) == 4 and one < two  # one for each backend, each with a guard
    assert all(found in (one, two) for found in seen)
    for again in records[len(made) :]:  # which has had all the others before it
        alone = next(record for record in records if record.trial == again.trial)
        assert alone is not again and numbers(again) == numbers(alone) and again.status == "ok"
        assert again.environment["threads"] == alone.environment["threads"]
        (inline,) = make_executor("inline").run([Job((again.trial,))])
        assert numbers(inline) == numbers(again)


def test_a_worker_imports_one_framework_and_its_guard_none():
    if sys.platform != "linux":
        pytest.skip("the libraries of a process are listed on Linux alone")
    for backend, own, other in (("jax", "/jaxlib/", "/torch/lib/"), ("torch", "/torch/lib/", "/jaxlib/")):
        for _ in make_executor("local", slots=1).run(make_jobs(trials("bptt", backends=(backend,)))):
            (guard,) = guards()
            (worker,) = guard.children()
            libraries = " ".join(mapped.path for mapped in worker.memory_maps())
            assert own in libraries and other not in libraries
            assert "numpy" not in " ".join(mapped.path for mapped in guard.memory_maps())
            assert guard.num_threads() == 1  # else it could not be forked safely
            assert worker.cpu_affinity() == [usable_cores()[0]]


def test_a_users_task_and_what_follows_a_failure_have_workers_of_their_own(monkeypatch):
    good, own = trials("bptt", seeds=(0, 1, 2)), harm("", "")
    no_such = good[1].model_copy(update={"optimizer": "no_such"})
    too_large = good[1].model_copy(update={"hidden": 10**7})
    jobs = [Job((trial,)) for trial in (good[0], *own, good[1], no_such, too_large, good[2])]
    records, (first, second, third, again, _, large, last) = run_and_watch(jobs)
    assert [record.status for record in records] == ["ok"] * 4 + ["crashed", "oom", "ok"]
    assert first < second and first < third and first == again and not (second & third) - first
    assert "Unable to allocate" in records[5].status_detail
    assert not first & large and not large & last and not first & last


def test_a_worker_that_is_old_or_has_grown_is_replaced(monkeypatch):
    seen = []
    monkeypatch.setattr(local, "_JOBS", 1)
    jobs = [Job((trial,)) for trial in trials("bptt", seeds=(0, 1, 2))]
    for _ in make_executor("local", slots=1).run(jobs):
        seen.append(workers())
        if len(seen) == 2:  # the second is not old, but has grown
            monkeypatch.setattr(local, "_JOBS", 100)
            monkeypatch.setattr(local, "_GROWTH", 0)
    assert not seen[0] & seen[1] and not seen[1] & seen[2]


@linux
def test_the_memory_of_a_trial_is_its_own():
    """A warm worker that has run a larger trial gives the same as a fresh one."""

    def job(batch):
        sizes = {"hidden": 64, "batch": batch, "budget": 420, "evaluations": 1, "seeds": (0,)}
        sizes |= {"settings": {"copy_memory.length": 100, "copy_memory.train_sequences": 600}}
        options = Options(tasks=("copy_memory",), learners=("bptt",), backends=("torch",), **sizes)
        return Job(make_grid(options).trials)

    small, large = job(64), job(512)
    records, seen = run_and_watch([small, large, small])
    first, middle, last = (record.process_peak_bytes for record in records)
    assert seen[0] == seen[2] and middle > 3 * first  # the first is that of a fresh worker
    assert last == pytest.approx(first, rel=0.4), (first, middle, last)


def test_a_worker_that_fails_before_the_trial_is_replaced_once(tmp_path, monkeypatch):
    """Python runs `sitecustomize` as it starts: there the first workers end, as many as the file says."""
    count = tmp_path / "count"
    (tmp_path / "sitecustomize.py").write_text(
        "import os, pathlib, sys\n"
        f"count = pathlib.Path({str(count)!r})\n"
        f"if {str(local._WORKER)!r} in sys.orig_argv and int(count.read_text()):\n"
        "    count.write_text(str(int(count.read_text()) - 1))\n"
        "    print('the machine broke', flush=True)\n"
        "    os._exit(7)\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    made = trials("bptt", seeds=(0, 1))
    count.write_text("3")
    executor = make_executor("local", slots=1)
    (record,) = executor.run([Job(made), *make_jobs(trials("anp"))])
    assert (record.trial.learner, record.status) == ("anp", "ok")
    detail = "no worker came as far as the trial, twice: exit code 7: the machine broke"
    assert executor.lost == [(trial, detail) for trial in made] and count.read_text() == "0"


def killed():
    """The executor and the records of a run whose worker is killed from outside while it trains."""
    executor = make_executor("local", slots=1)

    def kill(*_):
        for worker in [p for guard in guards() for p in (guard, *guard.children(recursive=True))]:
            worker.kill()

    return executor, list(executor.run(make_jobs(trials("bptt")), kill))


def test_a_worker_killed_from_outside_leaves_no_record():
    executor, records = killed()
    assert (records, [why for _, why in executor.lost]) == (
        [],
        ["its process was killed by SIGKILL from outside"],
    )


def test_a_worker_killed_as_memory_runs_out_is_out_of_memory(monkeypatch):
    counts = iter(range(1000))
    monkeypatch.setattr(local, "out_of_memory", lambda: next(counts))
    executor, (record,) = killed()
    assert (record.status, record.status_detail) == (
        "oom",
        "killed by SIGKILL as the system ran out of memory",
    )
    assert executor.lost == []


@pytest.mark.parametrize("number", ["ENOSPC", "ENOMEM", "EACCES"])
def test_an_error_of_the_system_is_the_machines_where_it_can_be_no_rules(number, monkeypatch):
    def broken(*_):
        raise OSError(getattr(errno, number), os.strerror(getattr(errno, number)))

    monkeypatch.setattr("creditbench.trials.blocks.OwnBlocks.start", broken)
    executor = make_executor("inline")
    records = list(executor.run(make_jobs(trials("bptt", backends=("torch",)))))
    assert [record.status for record in records] == ["crashed"] * (number == "EACCES")
    assert len(executor.lost) == (number != "EACCES")


def test_where_no_worker_can_start_the_run_says_so_and_keeps_nothing(tmp_path, monkeypatch, capsys):
    def full(**_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(local.tempfile, "mkdtemp", full)
    arguments = ["run", "--task", "mackey_glass", "--learner", "bptt", "--preset", "smoke", "--seeds", "2"]
    assert main([*arguments, "--hidden", "4", "--results", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert said.count("no record: the machine failed, and not the rule (no worker starts: OSError: ") == 2
    assert not list(tmp_path.glob("records/*"))


@pytest.mark.parametrize("rule", ["bptt", HONEST])
def test_the_time_of_a_trial_includes_that_of_its_data(rule, monkeypatch):
    """The worker makes the data, whoever trains, so a task that hangs there does not hang the run."""
    settings = {"misbehaves.how": "sleeps", "misbehaves.split": "validation"}
    tasks = (str(PLUGINS / "misbehaves.py"),)
    made = trials(rule, tasks=tasks, settings=settings)
    monkeypatch.setattr(local, "_START_SECONDS", 120.0)
    (record,) = make_executor("local", slots=1, timeout=1.0).run(make_jobs(made))
    assert (record.status, record.status_detail) == ("timeout", "no result within 1 s")


def test_every_order_to_a_confined_process_has_an_answer():
    assert set(confined._ORDERS) == set(get_args(confined.Order))


def test_a_confined_process_killed_from_outside_leaves_no_record():
    (trial,) = trials("raises")
    trainer = confined_trainer(trial, Limits(seconds=300.0))
    trainer.blocks.prepare()
    trainer.blocks.child.process.kill()
    with pytest.raises(MachineError, match=r"no confined process .*: its process was killed from outside"):
        trainer.train([trial], lambda *_: None)


def test_a_folder_that_is_removed_and_a_full_disk_are_no_failures_of_a_rule(monkeypatch):
    (trial,) = trials(HONEST)
    for harm, said in (
        (lambda folder: shutil.rmtree(folder), "was removed"),
        (lambda folder: monkeypatch.setattr(shutil, "disk_usage", lambda _: Full()), "is full: "),
    ):
        trainer = confined_trainer(trial, Limits(seconds=300.0))
        blocks, real = trainer.blocks, trainer.blocks._weights

        def weights(blocks=blocks, harm=harm, real=real, **others):
            harm(blocks.child.directory)
            (blocks.child.directory / "weights.npz").unlink(missing_ok=True)
            return real(**others)

        monkeypatch.setattr(blocks, "_weights", weights)
        with pytest.raises(MachineError, match=said):
            list(run_trials([trial], trainer=trainer))


class Full:
    free = 0
