"""Executors: one record a trial, whatever its rule does, and no trial harmed by another."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from creditbench.errors import UsageError
from creditbench.executors import Job, make_executor, make_jobs, usable_cores
from creditbench.executors.base import thread_environment
from creditbench.executors.local import _cores
from creditbench.grid import Options, make_grid
from creditbench.trial import Trial

PLUGINS = Path(__file__).parent / "plugins"


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
    return make_grid(
        Options(tasks=("mackey_glass",), learners=names, preset="smoke", **small | options)
    ).trials


# -- jobs ------------------------------------------------------------------------------------------------


def test_seeds_of_a_family_share_a_process_under_jax_alone():
    made = trials("bptt", "anp", backends=("jax", "torch"), seeds=(0, 1, 2))
    jobs = make_jobs(made)
    assert sorted(len(job.trials) for job in jobs) == [1] * 6 + [3, 3]
    assert all(len({trial.family for trial in job.trials}) == 1 for job in jobs)
    assert {trial.id for job in jobs for trial in job.trials} == {trial.id for trial in made}


def test_a_family_is_split_over_empty_slots_unless_it_is_trained_together():
    made = trials("bptt", seeds=(0, 1, 2))
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
        ("inline", {"timeout": 5.0}, "leave out --timeout"),
    ],
)
def test_settings_that_make_no_sense_are_refused(name, options, said):
    with pytest.raises(UsageError) as caught:
        make_executor(name, **options)
    assert said in str(caught.value)


# -- isolation -------------------------------------------------------------------------------------------


def test_every_way_to_fail_is_a_status_and_harms_no_other_trial(tmp_path, monkeypatch):
    monkeypatch.setenv("RULE_HANGS", "1")
    names = ("hangs", "raises", "wrong_shape", "not_a_number", "exits", "forges", "bptt")
    made = trials(*names)
    reported: set[str] = set()
    executor = make_executor("local", slots=2, timeout=15.0, logs=tmp_path)
    records = list(executor.run(make_jobs(made, slots=2), lambda trial, part: reported.add(trial.learner)))
    assert {record.trial.id for record in records} == {trial.id for trial in made} and len(records) == len(
        made
    )
    found = {record.trial.learner: record for record in records}
    assert {name: record.status for name, record in found.items()} == {
        "hangs": "timeout",
        "raises": "crashed",
        "wrong_shape": "invalid",
        "not_a_number": "diverged",
        "exits": "crashed",
        "forges": "invalid",
        "bptt": "ok",
    }
    assert found["hangs"].status_detail == "no result within 15 s"
    assert found["raises"].status_detail == "RuntimeError: the rule broke"
    assert found["exits"].status_detail == "exit code 3: this is the end"
    assert "shape (1, 1)" in found["wrong_shape"].status_detail
    assert "not a record" in found["forges"].status_detail
    assert found["bptt"].test_score is not None and "bptt" in reported
    assert found["bptt"].environment["threads"]["OMP_NUM_THREADS"] == "1"
    assert found["bptt"].environment["cores_usable"] == 1 or not hasattr(os, "sched_setaffinity")
    assert {path.stem for path in tmp_path.iterdir()} == {
        record.trial.id for record in records if record.status not in ("ok", "diverged")
    }
    assert "the rule broke" in (tmp_path / f"{found['raises'].trial.id}.log").read_text()


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
