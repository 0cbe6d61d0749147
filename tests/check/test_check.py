"""`creditbench check` and `creditbench new`: sound files pass, each bad submission fails by its own line."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import creditbench
from creditbench.check import claims, lists, parity, runner, task
from creditbench.check.base import Result, outcomes
from creditbench.check.claims import reverse_passes
from creditbench.check.subject import Subject
from creditbench.check.task import TaskSubject
from creditbench.cli import main
from creditbench.errors import ConfinedError, UsageError
from creditbench.leaderboard.claims import claims as board_claims
from creditbench.plugins import registry
from creditbench.results.measured import write_checks
from creditbench.results.version import load
from tests.browser import unpacked
from tests.conftest import thorough
from tests.tasks.conftest import has_data

SUBMISSIONS = Path(__file__).parents[1] / "submissions"


def subject(name: str, backend: str) -> Subject:
    return Subject(registry.read(SUBMISSIONS / f"{name}.py"), backend)


def found(name: str, backend: str, check: str):
    """The result of one check of one bad submission, in this process."""
    it = subject(name, backend)
    (result,) = outcomes([c for c in lists.LEARNER if c.name == check], it, it.plugin.path)
    return result


# -- bad submissions -----------------------------------------------------------------------------------------

#: submission -> (check that it fails, message), under one backend or both
BAD = {
    "wrong_shape_of_gradient": ("estimate", "grads['W_in'] has shape (1, 1), not (8, 2)"),
    "wrong_shape_of_state": (
        "estimate",
        "state 'cell.s.0' is (1, 8) float64 after a segment, and was (3, 8) float64",
    ),
    "gives_nan": ("estimate", "grads.W_in is not finite"),
    "puts_into_state": ("arguments unchanged", "state.cell.s.0 of its arguments is put in or replaced"),
    "cheats_on_unscored": (
        "unscored steps",
        "grads W_out changes with the target of a step that is not scored",
    ),
    "reads_the_clock": ("clock", "reads the clock: at another time grads W_in differs"),
    "draws_globally": ("global random state", "draws from the global random state of NumPy"),
    "reads_a_global_seed": (
        "global random state",
        "reads a global random state: with another seed of it grads W_in differs",
    ),
    "never_the_same": ("determinism", "two runs with the same arguments and key differ, in grads W_in"),
    "no_noise_used": ("keys", "noise is drawn, but two keys give the same result"),
    "falsely_unbiased": ("unbiased", "without noise, and"),
    "falsely_unbiased_noisy": ("unbiased", "standard errors from BPTT's gradient in W_in"),
    "falsely_constant": ("memory in T", "bytes grow as T^"),
    "falsely_forward": ("forward only", "runs a reverse pass: ops.scan(reverse=True)"),
    "slow_in_n": ("time", "FLOPs grow as n^"),
    "diverges": ("stream", "not finite"),
}
#: Faults that only one backend can show, or shows so much sooner that only it is tested.
ONE = {
    "falsely_constant": "torch",
    "slow_in_n": "jax",
    "diverges": "torch",
    "falsely_unbiased_noisy": "torch",
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_submission_is_caught_with_its_own_line(name):
    check, said = BAD[name]
    for backend in [ONE[name]] if name in ONE else ["jax", "torch"]:
        result = found(name, backend, check)
        assert result.held is False, result
        assert said in result.detail
        assert lists.advice("learners", check)


def test_a_rule_that_reads_the_clock_is_not_called_random():
    """The clock stands still in the other checks, so that each names its own cause."""
    assert found("reads_the_clock", "torch", "determinism").held is True


def test_parameters_changed_in_place_are_caught_where_they_can_be():
    result = found("changes_parameters", "torch", "arguments unchanged")
    assert result.held is False and result.detail == "params.W_in is changed in place"


def test_a_segments_length_in_the_estimate_is_no_online_rule():
    result = found("falsely_online", "torch", "online")
    assert result.held is False
    assert "in segments of 1 steps the summed W_in is" in result.detail and "in one piece" in result.detail


def test_a_rule_that_is_another_under_the_other_backend_is_caught():
    numbers = {
        backend: parity.numbers(subject("another_under_torch", backend)) for backend in ("jax", "torch")
    }
    with pytest.raises(parity.Broken, match=r"grads W_in of jax and of torch differ by 0\.001"):
        parity.compare(numbers, frozenset(numbers))


@pytest.mark.parametrize(
    "check", ["unbiased", "determinism", "keys", "recording", "online", "stream", "speed"]
)
def test_a_sound_rule_passes_what_others_fail(check):
    """The same checks pass a rule whose claims are true; otherwise their failures would mean nothing."""
    # Under JAX draws are many at once.
    name, backend = ("spsa", "jax") if check == "unbiased" else ("anp", "torch")
    it = Subject(registry.find("learners", name), backend)
    (result,) = outcomes([c for c in lists.LEARNER if c.name == check], it, it.plugin.path)
    assert result.held is True, result.detail


def test_a_noisy_rule_with_a_wrong_factor_fails():
    """spsa with a factor of 1.3 is distinguished from BPTT."""
    cls = registry.find("learners", "spsa").cls

    class Scaled(cls):
        def segment(self, ops, *args):
            found = super().segment(ops, *args)
            return found._replace(grads={k: 1.3 * ops.dense(g) for k, g in found.grads.items()})

    plugin = dataclasses.replace(registry.find("learners", "spsa"), cls=Scaled)
    with pytest.raises(claims.Broken, match="standard errors from BPTT's gradient"):
        claims.unbiased(Subject(plugin, "jax"))


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_reverse_mode_is_seen_however_it_is_asked_for(backend, monkeypatch):
    class Reverse(registry.find("learners", "anp").cls):
        def segment(self, ops, cell, params, state, batch, key):
            def loss(W_rec):
                return ops.xp.sum(W_rec * W_rec)

            self.ask(ops, loss, params["W_rec"])
            return super().segment(ops, cell, params, state, batch, key)

    plugin = registry.find("learners", "anp")
    asked = {
        "ops.value_and_grad": lambda self, ops, f, x: ops.value_and_grad(f)(x),
        "ops.vjp": lambda self, ops, f, x: ops.vjp(f, x),
        "ops.jacobian": lambda self, ops, f, x: ops.jacobian(f),
    }
    if backend == "jax":
        import jax

        asked["jax.grad"] = lambda self, ops, f, x: jax.grad(f)(x)
    else:
        import torch

        asked["torch.func.grad"] = lambda self, ops, f, x: torch.func.grad(f)(x)
    # One that the rule's module has imported by its name, too.
    module = sys.modules[Reverse.__module__]
    monkeypatch.setattr(module, "own", jax.vjp if backend == "jax" else torch.func.vjp, raising=False)
    asked[f"{'jax' if backend == 'jax' else 'torch.func'}.vjp"] = lambda self, ops, f, x: module.own(f, x)
    for name, ask in asked.items():
        Reverse.ask = ask
        assert name in reverse_passes(Subject(dataclasses.replace(plugin, cls=Reverse), backend))
    assert not reverse_passes(Subject(plugin, backend))


# -- rules in the process of their own -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "check", "said"),
    [
        ("exits_in_segment", "estimate", "exit code"),
        ("exits_quietly", "estimate", "it ended before it was through, as if all were well (exit code 0)"),
        ("imports_for_ever", "import", "no result within 1 s"),
        (
            "needs_a_package",
            "import",
            "needs the package no_such_package_at_all: pip install no_such_package_at_all",
        ),
        ("fails_to_import", "import", "cannot be imported, line 4: ZeroDivisionError: division by zero"),
        ("quits_at_import", "import", "ends Python as it is imported (exit status bye)"),
        ("takes_an_id", "import", "is taken by"),
    ],
)
def test_a_submission_that_breaks_its_process_is_a_failed_check(name, check, said, capsys):
    path = str(SUBMISSIONS / f"{name}.py")
    arguments = [
        "check",
        path,
        "--json",
        "--backend",
        "torch",
        "--timeout",
        "1" if name == "imports_for_ever" else "60",
    ]
    assert main(arguments) == 1
    printed = capsys.readouterr()
    rows = json.loads(printed.out)
    assert set(rows[0]) == {"name", "held", "detail"}
    (failed,) = [row for row in rows if row["held"] is False]
    assert failed["name"] == check and said in failed["detail"], failed
    assert "what to do: " in printed.err
    if name == "takes_an_id":
        assert (
            str(SUBMISSIONS / "takes_an_id.py") in failed["detail"] and "learners/anp.py" in failed["detail"]
        )


RULE = """
from dataclasses import dataclass
from creditbench.learner import Claims, Learner, backpropagate

@dataclass(frozen=True, kw_only=True)
class Rule(Learner):
    id = "mine"
    name = "Mine"
    paper = "none"
    family = "test"
    claims = Claims()
    lr = 1e-2
    stream_segment = 1
"""


@pytest.mark.parametrize(
    ("of", "to", "said"),
    [
        ("lr = 1e-2", "lr = 'fast'", "lr is 'fast': set it to a finite number"),
        ("stream_segment = 1", "stream_segment = 0", "stream_segment of Rule in"),
        ('id = "mine"', 'id = "anp"', "is taken by"),
        ("lr = 1e-2", f"lr = {'-' * 200_000}1", "cannot be imported: MemoryError"),
        ("lr = 1e-2", f"lr = 1e-2  # {'x' * 2**20}", "a plug-in is a file of at most"),
    ],
)
def test_what_run_refuses_check_refuses_in_the_same_words(of, to, said, tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text(RULE.replace(of, to))
    assert main(["check", str(path), "--json", "--backend", "torch", "--only", "metadata"]) == 1
    (row,) = [row for row in json.loads(capsys.readouterr().out) if row["held"] is False]
    assert row["name"] == "import" and said in row["detail"]
    assert main(["run", "--learner", str(path), "--task", "adding", "--results", str(tmp_path / "r")]) == 2
    assert capsys.readouterr().err == f"error: {row['detail']}\n"


def test_results_are_written_under_the_id_that_was_asked_for(tmp_path, capsys):
    """A process may claim the id of another rule, whose results would then be overwritten."""
    path, results = tmp_path / "mine.py", tmp_path / "results"
    path.write_text(
        RULE
        + """
import os, stat, sys
if "creditbench.check.child" in sys.modules:
    import json
    from creditbench.plugins import meaning
    about = {"kind": "learners", "id": "readout_rls", "backends": ["torch"], "runs": True, "cell": "tanh"}
    about["sha256"] = meaning.digest(open(__file__, "rb").read())
    sent = [{"about": about}, {"result": {"name": "online", "held": True, "detail": "so"}}, {"done": True}]
    for pipe in range(3, 64):
        try:
            if stat.S_ISFIFO(os.fstat(pipe).st_mode):
                os.write(pipe, b"".join(json.dumps(one).encode() + b"\\n" for one in sent))
        except OSError:
            pass
    os._exit(0)
"""
    )
    arguments = ["--json", "--backend", "torch", "--only", "metadata", "--results", str(results)]
    assert main(["check", str(path), *arguments]) == 1
    (row,) = [row for row in json.loads(capsys.readouterr().out) if row["held"] is False]
    assert row["detail"] == "it says that it is the learner 'readout_rls', and is the learner 'mine'"
    assert [file.name for file in (results / "checks").iterdir()] == ["mine.json"]
    assert not any(row.held for row in load_checks(results))


def test_bad_usage_is_one_line(tmp_path, capsys):
    for arguments, said in (
        (["check", str(tmp_path / "no.py")], "no file"),
        (["check", "anpp"], "did you mean 'anp'?"),
        (["check", "anp", "--only", "unbiasd"], "did you mean 'unbiased'?"),
        (["check", "anp", "--backend", "jx"], "did you mean 'jax'?"),
        (["check", "anp", "--timeout", "0"], "--timeout is 0"),
    ):
        assert main(arguments) == 2
        printed = capsys.readouterr()
        assert printed.out == "" and printed.err.count("\n") == 1 and said in printed.err


def test_every_check_has_advice_and_a_name_of_its_own():
    for checks in (lists.LEARNER, lists.TASK):
        assert len({one.name for one in checks}) == len(checks)
        assert all(one.advice and one.run.__doc__ for one in checks)
    assert next(iter(lists.order())) == "import" and parity.NAME in lists.order()


ABOUT = {"kind": "learners", "id": "x", "sha256": "5", "cell": "", "runs": True, "backends": ["torch"]}
RESULT = {"result": {"name": "estimate", "held": True, "detail": "fits"}}


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({}, "no result of a check: {}"),
        ({"result": 5}, "no result of a check"),
        ({"result": {**RESULT["result"], "held": "yes"}}, "no result of a check"),
        ({"result": {**RESULT["result"], "name": "another"}}, "no result of a check"),
        ({"started": "another"}, "no result of a check"),
        ({"numbers": [1.0]}, "no result of a check"),
        ({"about": {**ABOUT, "id": "../../x"}}, "no result of a check"),
        ({"about": {**ABOUT, "kind": "rules"}}, "no result of a check"),
        ({"about": {**ABOUT, "cell": "../x"}}, "no result of a check"),
        ({"about": {**ABOUT, "sha256": "6"}}, "the file has changed since the check began"),
    ],
)
def test_what_is_no_message_of_a_check_is_refused(message, said):
    """A process with contributed code may send anything, and an id becomes the name of a file."""
    with pytest.raises(ConfinedError, match=said):
        runner._take(runner._Sent(), message, "5")


def test_numbers_that_are_none_are_a_finding_and_do_not_end_the_check():
    sides = {}
    for backend, numbers in (("jax", {"0 0 loss": [1.0]}), ("torch", {"0 0 loss": ["x"]})):
        sides[backend] = runner._Sent()
        runner._take(sides[backend], {"about": {**ABOUT, "backends": ["jax", "torch"]}}, "5")
        runner._take(sides[backend], {"numbers": numbers}, "5")
    report = {r.name: r for r in runner.merge("x.py", sides).results}
    assert report[parity.NAME].held is False and "are no numbers" in report[parity.NAME].detail


def test_an_end_is_told_with_the_check_that_was_started_last():
    side = runner._Sent()
    for message in ({"about": ABOUT}, {"started": "estimate"}, RESULT):
        runner._take(side, message, "5")
    side.died = "exit code 7"
    report = {r.name: r for r in runner.merge("x.py", {"torch": side}).results}
    assert (report["estimate"].held, report["estimate"].detail) == (False, "exit code 7")
    assert report["stream"].held is None and "the process ended before" in report["stream"].detail
    nothing = runner._Sent(died="exit code 7")
    assert [(r.name, r.held) for r in runner.merge("x.py", {"torch": nothing}).results] == [("import", False)]


def test_a_shipped_task_is_checked_by_its_id_and_an_id_of_one_is_taken(tmp_path, capsys):
    only = ["--only", "metadata,direction", "--json"]
    assert main(["check", "adding", *only]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["name"], row["held"]) for row in rows] == [
        ("import", True),
        ("metadata", True),
        ("direction", True),
    ]
    (tmp_path / "mine.py").write_text(registry.find("tasks", "adding").path.read_text())
    assert main(["check", str(tmp_path / "mine.py"), *only, "--backend", "torch"]) == 1
    (row,) = json.loads(capsys.readouterr().out)
    assert f"is taken by {registry.find('tasks', 'adding').path}" in row["detail"]


def test_a_check_that_is_interrupted_leaves_nothing(tmp_path):
    folder = tmp_path / "temporary"
    folder.mkdir()
    root = str(Path(creditbench.__file__).parents[1])
    # Tests that run in the background inherit an ignored SIGINT.
    start = (
        "import signal, sys; from creditbench.cli import main; "
        "signal.signal(signal.SIGINT, signal.default_int_handler); sys.exit(main(sys.argv[1:]))"
    )
    rule = str(SUBMISSIONS / "hangs.py")
    command = [sys.executable, "-c", start, "check", rule, "--backend", "torch"]
    parent = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": root, "TMPDIR": str(folder)},
    )
    try:
        deadline = time.monotonic() + 60
        while not (children := psutil.Process(parent.pid).children()):
            assert parent.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        parent.send_signal(signal.SIGINT)
        parent.wait(30)
        assert not list(folder.iterdir()) and not [child for child in children if child.is_running()]
    finally:
        parent.kill()
        parent.wait()


def test_a_backend_that_the_rule_is_not_written_for_says_nothing():
    ran = {"about": ABOUT}
    not_run = {"about": {**ran["about"], "runs": False}}
    sides = {"jax": runner._Sent(), "torch": runner._Sent()}
    for side, messages in (("jax", [not_run]), ("torch", [ran])):
        for message in messages:
            runner._take(sides[side], message, "5")
    runner._take(sides["torch"], RESULT, "5")
    report = {r.name: r for r in runner.merge("x.py", sides).results}
    assert report["estimate"].held is True
    assert report[parity.NAME].held is None and "for torch alone" in report[parity.NAME].detail


# -- tasks -----------------------------------------------------------------------------------------------


def task_results(cls) -> dict[str, object]:
    plugin = dataclasses.replace(registry.find("tasks", "adding"), cls=cls)
    return {r.name: r for r in outcomes(lists.TASK, TaskSubject(plugin), plugin.path)}


ADDING = registry.find("tasks", "adding").cls


def test_a_bad_task_is_caught_with_its_own_line():
    def changed(**parts):
        return dataclasses.dataclass(frozen=True, kw_only=True)(
            type("Bad", (ADDING,), {"__module__": ADDING.__module__, **parts})
        )

    def generating(change):
        return changed(
            generate=lambda self, split, seed, batch: change(ADDING.generate(self, split, seed, batch), split)
        )

    bad = {
        "metadata": (changed(protocol="streams"), "protocol is 'streams', and must be stream or episodes"),
        "direction": (changed(solved=0.5), "solved is 0.5, and must lie below trivial, 0.166667"),
        "trivial score": (changed(trivial=0.2), "and trivial is 0.2"),
        "arrays": (
            generating(lambda s, split: s._replace(inputs=s.inputs.astype(float))),
            "inputs of train are float64, not float32",
        ),
        "determinism": (
            generating(lambda s, split: s._replace(inputs=s.inputs + task.time.time_ns() % 7)),
            "depends on the clock or on a global random state",
        ),
        "splits": (
            changed(generate=lambda self, split, seed, batch: ADDING.generate(self, "train", seed, batch)),
            "sequences of train are in validation too",
        ),
        "seeds": (
            changed(
                generate=lambda self, split, seed, batch: ADDING.generate(
                    self, split, seed if split == "test" else 0, batch
                )
            ),
            "train is the same for every seed, where test are not",
        ),
        "score": (
            changed(score=lambda self, outputs, s: float(abs(outputs).mean())),
            "outputs at steps of weight 0",
        ),
    }
    for name, (cls, said) in bad.items():
        result = task_results(cls)[name]
        assert result.held is False and said in result.detail, result


@pytest.mark.parametrize(
    "id", thorough(registry.load("tasks"), but=("adding", "mackey_glass", "sequential_digits"))
)
def test_every_shipped_task_passes(id):
    if not has_data(id):
        pytest.skip("its data are not here")
    plugin = registry.find("tasks", id)
    for result in outcomes(lists.TASK, TaskSubject(plugin), plugin.path):
        assert result.held is not False, result


# -- what is found, and what is not ----------------------------------------------------------------------


def clear():
    registry._builtin.cache_clear()
    registry._known.cache_clear()


def test_one_broken_shipped_file_costs_only_itself(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "learners"
    folder.mkdir()
    for name in ("fails_to_import", "needs_a_package", "gives_nan"):
        (folder / f"{name}.py").write_text((SUBMISSIONS / f"{name}.py").read_text())
    (folder / "same_id.py").write_text((SUBMISSIONS / "gives_nan.py").read_text())
    monkeypatch.setattr(registry, "shipped", lambda kind: folder)
    clear()
    try:
        assert list(registry.load("learners")) == ["gives_nan"]
        notes = capsys.readouterr().err.splitlines()
        assert len(notes) == 3 and all(note.startswith("note: left out: ") for note in notes)
        assert f"{folder / 'fails_to_import.py'} cannot be imported, line 4" in notes[0]
        assert "pip install no_such_package_at_all" in notes[1]
        assert f"{folder / 'same_id.py'} is taken by {folder / 'gives_nan.py'}" in notes[2]
        registry.load("learners")
        assert capsys.readouterr().err == ""  # told once
        with pytest.raises(UsageError, match="line 4: ZeroDivisionError"):
            registry.find("learners", "fails_to_import")
    finally:
        clear()


# -- from a template to a ranked row ---------------------------------------------------------------------


def test_a_template_is_refused_under_a_bad_or_taken_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, said in (
        ("Not-an-id", "lower-case letters"),
        ("anp", "is taken by"),
        ("adding", "is taken by"),
    ):
        assert main(["new", "learner", name]) == 2
        assert said in capsys.readouterr().err
    (tmp_path / "mine.py").write_text("kept")
    assert main(["new", "task", "mine"]) == 2
    assert "mine.py is there already" in capsys.readouterr().err
    assert (tmp_path / "mine.py").read_text() == "kept"


def test_a_template_is_created_checked_run_and_ranked(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CREDITBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("creditbench.trials.blocks.MEASURE_SECONDS", 0.02)  # of each trial
    assert main(["new", "learner", "my_idea"]) == 0
    assert main(["new", "task", "my_recall"]) == 0
    with open("my_idea.py", "a") as file:
        file.write(
            "\n\nclass Notes:\n    family = 'exact'\n    claims = Claims(unbiased=True, memory_in_T='O(1)')\n"
        )
    # Under one backend and without what takes longest; the shipped rules' own tests have the rest.
    few = [c.name for c in lists.LEARNER if c.name not in ("memory in T", "time", "speed")]
    assert (
        main(
            [
                "check",
                "my_idea.py",
                "--json",
                "--results",
                "out",
                "--backend",
                "torch",
                "--only",
                ",".join(few),
            ]
        )
        == 0
    )
    rows = {row["name"]: row["held"] for row in json.loads(capsys.readouterr().out)}
    assert rows["online"] is True and rows["forward only"] is True and rows["unbiased"] is None
    assert main(["check", "my_recall.py", "--json"]) == 0
    assert all(row["held"] for row in json.loads(capsys.readouterr().out))
    small = [
        "--preset",
        "smoke",
        "--budget",
        "60",
        "--hidden",
        "4",
        "--segment",
        "1",
        "--seeds",
        "5",
        "--executor",
        "inline",
    ]
    command = [
        "run",
        "--learner",
        "my_idea.py,bptt",
        "--task",
        "my_recall.py",
        "--results",
        "out",
        "--backend",
        "torch",
    ]
    assert main([*command, *small, "--set", "my_recall.steps=200"]) == 0
    capsys.readouterr()
    assert main(["table", "--results", "out", "--format", "ranking"]) == 0
    assert "my_idea" in capsys.readouterr().out
    assert main(["table", "--results", "out", "--compact", "v1"]) == 0
    assert (tmp_path / "v1" / "checks.csv").is_file()
    results = load("v1")
    found = {claim.name: claim for claim in board_claims(results, "my_idea")}
    # The claims are those of the class that ran.
    assert "unbiased" not in found and results.learners["my_idea"]["family"] != "exact"
    assert found["online"].held is True and found["forward only"].held is True
    assert "creditbench check" in found["online"].detail
    # Of another source, what was found says nothing.
    other = dataclasses.replace(
        results, checks=tuple(row.model_copy(update={"learner_sha256": "0" * 64}) for row in results.checks)
    )
    assert {c.name: c.held for c in board_claims(other, "my_idea")}["online"] is None
    assert main(["leaderboard", "--results", "v1", "--output", "page", "--draws", "200"]) == 0
    data = unpacked((tmp_path / "page" / "index.html").read_text(encoding="utf-8"))
    shown = json.dumps(data, ensure_ascii=False)
    assert "my_idea" in shown and "✓ held" in shown


def test_what_did_not_hold_is_shown_so(tmp_path):
    about = {"kind": "learners", "id": "my_idea", "sha256": "0" * 64}
    write_checks(tmp_path, about, [{"name": "online", "held": False, "detail": "not so"}])
    (row,) = load_checks(tmp_path)
    assert (row.learner, row.name, row.held, row.detail) == ("my_idea", "online", False, "not so")
    write_checks(tmp_path, about | {"kind": "tasks", "id": "t"}, [])
    assert [path.name for path in (tmp_path / "checks").iterdir()] == ["my_idea.json"]


def test_what_was_checked_before_an_interruption_is_kept(tmp_path, monkeypatch):
    def stream(item, **_):
        if item == "wp":
            raise KeyboardInterrupt
        about = {"kind": "learners", "id": item, "sha256": "0" * 64}
        yield {"report": dataclasses.asdict(runner.CheckReport(item, about, [Result("online", True, "so")]))}

    monkeypatch.setattr(runner, "stream", stream)
    assert main(["check", "np", "wp", "--results", str(tmp_path)]) == 130
    assert [row.learner for row in load_checks(tmp_path)] == ["np"]


def load_checks(folder: Path):
    from creditbench.results.measured import read_checks

    return read_checks(folder)
