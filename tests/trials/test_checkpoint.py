"""A trial that is cut short goes on where it was cut, bit for bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from creditbench.executors.confined import confined_trainer
from creditbench.isolation import Limits
from creditbench.results.store import Store
from creditbench.trials import checkpoint
from creditbench.trials.checkpoint import Checkpoint, Checkpoints
from creditbench.trials.grid import Options, make_grid
from creditbench.trials.trainer import Trainer, run_trials

HONEST = str(Path(__file__).parents[1] / "submissions" / "honest.py")
#: Fields of a record that two runs of a trial differ in.
TIMES = {"train_seconds", "compile_seconds", "compile_cached", "steps_per_second", "process_peak_bytes"}
TIMES |= {"environment", "started_at", "duration_seconds", "seconds_to_target", "resumed"}


class Stop(BaseException):
    """Ends a run as a signal would."""


def trials(learner, backend="jax", task="mackey_glass", seeds=(3,), **options):
    budget = {"mackey_glass": 240, "adding": 600}[task]
    options = {"hidden": 6, "budget": budget, "evaluations": 4, "measure": False} | options
    return make_grid(
        Options(tasks=(task,), learners=(learner,), backends=(backend,), seeds=seeds, **options)
    ).trials


def numbers(records):
    """All of the records but their times."""
    return [
        record.model_dump(exclude={*TIMES, "curve"})
        | {"curve": [(point.step, point.loss, point.validation) for point in record.curve]}
        for record in records
    ]


@pytest.fixture
def kept(tmp_path):
    """Checkpoints at each evaluation, and what is said of them."""
    said: list[str] = []
    return Checkpoints(tmp_path / "checkpoints", 0.0, said.append), said


def cut(asked, kept, monkeypatch, after=2, together=False, trainer=None):
    """Train, and stop after `after` checkpoints."""
    left, save = [after], Trainer._save

    def stop(self, *given):
        save(self, *given)
        left[0] -= 1
        if not left[0]:
            raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_save", stop)
        with pytest.raises(Stop):
            list(run_trials(asked, None, together, trainer, kept))
    assert kept.path(asked).exists()


@pytest.mark.parametrize(
    ("learner", "backend", "options"),
    [
        ("bptt", "jax", {"layers": 2, "optimizer": "adam"}),
        ("anp+DD", "jax", {"task": "adding", "optimizer": "momentum"}),
        ("uoro", "jax", {}),
        ("kf_rtrl", "torch", {"task": "adding", "optimizer": "adam"}),
        ("es+D", "torch", {"optimizer": "adam"}),
    ],
)
def test_a_resumed_trial_is_the_undisturbed_one(learner, backend, options, kept, monkeypatch):
    asked = trials(learner, backend, **options)
    (plain,) = run_trials(asked)
    cut(asked, kept[0], monkeypatch)
    (again,) = run_trials(asked, checkpoints=kept[0])
    assert numbers([again]) == numbers([plain]) and not kept[1]
    assert (plain.resumed, again.resumed) == (0, 1)


def test_seconds_are_those_of_all_parts(kept, monkeypatch):
    asked = trials("readout_rls", "torch")
    cut(asked, kept[0], monkeypatch, after=1)
    cut(asked, kept[0], monkeypatch, after=1)
    before = Checkpoint.read(kept[0].path(asked)).so_far
    (again,) = run_trials(asked, checkpoints=kept[0])
    assert (before.done, before.resumed, again.resumed) == (2, 1, 2)
    assert [p.seconds for p in again.curve[:3]] == [p.seconds for p in before.runs[0].curve]
    assert again.train_seconds > before.seconds and again.duration_seconds > before.duration
    assert len(again.curve) == 5 and again.curve[3].seconds > before.seconds


def test_seeds_that_are_trained_together_go_on_together(kept, monkeypatch):
    asked = trials("wp", seeds=(3, 4))
    cut(asked, kept[0], monkeypatch, together=True)
    again = list(run_trials(asked, together=True, checkpoints=kept[0]))
    assert numbers(again) == numbers(run_trials(asked, together=True)) and again[1].resumed == 1
    # A seed alone is another program.
    list(run_trials(asked[:1], checkpoints=kept[0]))
    assert "it is of other trials, which were trained as one program" in kept[1][0]


def test_a_confined_rule_goes_on_and_its_state_is_bytes_here(kept, monkeypatch):
    asked = trials(HONEST)

    def trainer():
        return confined_trainer(asked[0], Limits(seconds=60.0))

    # A state that its folder has no room for is not kept, and the trial goes on.
    small = trainer()
    small.blocks.most_state = 1000
    (plain,) = run_trials(asked, trainer=small, checkpoints=kept[0])
    assert "state has more than 1,000 bytes" in kept[1][0] and not kept[0].folder.exists()
    cut(asked, kept[0], monkeypatch, trainer=trainer())
    (state,) = Checkpoint.read(kept[0].path(asked)).carry
    assert state.dtype == np.uint8
    (again,) = run_trials(asked, trainer=trainer(), checkpoints=kept[0])
    assert numbers([again]) == numbers([plain]) and again.resumed == 1


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-500]), "it is broken"),
        (lambda path: path.write_bytes(b""), "it is broken"),
        (lambda path: np.savez(path, about=np.zeros(3, np.uint8)), "Invalid JSON"),
        (lambda path: np.savez(path, about=np.array([Stop], object)), "allow_pickle"),
        (
            lambda path: changed(path, environment={"cpu": "another"}),
            "another machine or with other versions",
        ),
        (lambda path: changed(path, version=2), "version: "),
        (lambda path: changed(path, done=4), "its training has ended"),
        (lambda path: changed(path, drop=1), "its arrays are not those of the rule's state"),
        (lambda path: (path.unlink(), path.mkdir()), "it is a folder"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_named_and_not_used(harm, said, kept, monkeypatch):
    asked = trials("readout_rls", "torch")
    cut(asked, kept[0], monkeypatch)
    harm(kept[0].path(asked))
    (found,) = run_trials(asked, checkpoints=kept[0])
    assert found.status == "ok" and found.resumed == 0
    assert str(kept[0].path(asked)) in kept[1][0] and said in kept[1][0] and "begins anew" in kept[1][0]


def changed(path, drop=0, **values):
    """A checkpoint of other values, or without some of its arrays."""
    found = Checkpoint.read(path)
    so_far = found.so_far.model_copy(update=values)
    Checkpoint(so_far, found.carry[: len(found.carry) - drop], found.best).write(path)


def test_a_checkpoint_that_cannot_be_written_ends_no_trial(kept):
    kept[0].folder.write_text("a file in its place")
    (found,) = run_trials(trials("readout_rls", "torch"), checkpoints=kept[0])
    assert found.status == "ok" and len(kept[1]) >= 1 and "cannot be written" in kept[1][-1]


def test_a_short_trial_leaves_none(kept):
    often = Checkpoints(kept[0].folder, checkpoint.SECONDS)
    list(run_trials(trials("readout_rls", "torch"), checkpoints=often))
    assert not often.folder.exists()


@pytest.mark.needs("torch")
def test_a_run_that_is_killed_goes_on(tmp_path):
    """SIGKILL of a real run, in the middle of a trial: the next run has the record of an undisturbed one."""
    words = "--task mackey_glass --learner uoro --backend torch --seeds 1 --hidden 8 --budget 5000"
    words = [*words.split(), "--evaluations", "20", "--no-measure", "--checkpoint", "0", "--results"]
    command = [sys.executable, "-m", "creditbench", "run", *words]
    with subprocess.Popen([*command, str(tmp_path / "cut")], stderr=subprocess.DEVNULL) as run:
        deadline = time.monotonic() + 120
        while not list((tmp_path / "cut").glob("checkpoints/*.npz")) and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(run.pid, signal.SIGKILL)
    assert list((tmp_path / "cut").glob("checkpoints/*.npz")) and not Store(tmp_path / "cut").all()
    subprocess.run([*command, str(tmp_path / "cut")], check=True, capture_output=True)
    (again,) = Store(tmp_path / "cut").all()
    (whole,) = run_trials([again.trial])
    assert numbers([again]) == numbers([whole]) and (again.resumed, whole.resumed) == (1, 0)
    assert not (tmp_path / "cut" / "checkpoints").exists()
