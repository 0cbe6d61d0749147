"""What makes the command line easy: -h, completion, the time left, and a sentence where it cannot run."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import NamedTuple

import pytest

from creditbench.cli import main, options
from creditbench.library import progress
from creditbench.plugins import registry
from tests.cli.test_cli import environment
from tests.records import record, trials


@pytest.mark.parametrize("words", [(), ("run",), ("show",), ("show", "task")])
def test_h_is_help(words, capsys):
    assert main([*words, "-h"]) == 0
    short = capsys.readouterr().out
    assert main([*words, "--help"]) == 0
    assert capsys.readouterr().out == short and "-h, --help" in short


# -- completion ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tasks", "learners"])
def test_names_that_a_shell_completes_are_the_ids(kind):
    complete = options.complete_tasks if kind == "tasks" else options.complete_learners
    assert complete("") == sorted(registry.builtin(kind))
    first, *_ = complete("")
    assert complete(f"x,{first[:-1]}")[0] == f"x,{first}" and complete("no_such") == []


def test_a_shell_completes_verbs_and_learners():
    def completed(line: str) -> list[str]:
        asked = {
            "_CREDITBENCH_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(line.split(" ")) - 1),
        }
        done = subprocess.run(
            [sys.executable, "-c", "from creditbench.cli import main; main()"],
            env=environment(**asked),
            capture_output=True,
            text=True,
        )
        return done.stdout.split()

    assert "versus" in completed("creditbench ver")
    assert completed("creditbench run --learner bptt,rfl") == ["bptt,rflo"]


def test_completion_is_installed_by_an_option(capsys):
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert "--install-completion" in said and "--show-completion" in said


# -- progress --------------------------------------------------------------------------------------------


def test_bars_tell_the_time_left_from_parts_of_running_trials(monkeypatch):
    """A trial takes minutes: the speed is known before the first has ended."""
    from rich.progress import TimeRemainingColumn

    first, second = trials("bptt", seeds=(0, 1))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress.TrialBars([first, second]) as told:
        assert any(isinstance(column, TimeRemainingColumn) for column in told.bars.columns)
        overall = told.bars.tasks[0]
        now = [0.0]
        told.bars.get_time = overall._get_time = lambda: now[0]
        overall.start_time = 0.0
        for now[0], part in ((10.0, 0.25), (90.0, 0.5)):
            told.progress(first, part)
        assert overall.completed == 0.5 and overall.time_remaining == pytest.approx(480, abs=1)
        told.finished(record(first))
        assert overall.completed == 1


# -- other systems ---------------------------------------------------------------------------------------

#: Makes this process one without what POSIX alone has, as under Windows.
BARE = """
import os, signal, sys
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None
for module, names in (
    (signal, "SIGALRM SIGKILL setitimer alarm"),
    (os, "O_NONBLOCK O_CLOEXEC O_NOFOLLOW killpg fork sched_getaffinity sched_setaffinity"),
):
    for name in names.split():
        vars(module).pop(name, None)
import json
from creditbench.cli import main
for words in json.loads(sys.argv[1]):
    status = main(words)
    for stream in (sys.stdout, sys.stderr):
        print("\\f", end="", file=stream, flush=True)
    print(status, end="\\f", flush=True)
"""


class Done(NamedTuple):
    """What became of a command."""

    words: tuple[str, ...]
    status: int
    out: str
    err: str


def bare(*commands: tuple[object, ...]) -> list[Done]:
    """The commands, one after another in one process."""
    asked = [tuple(map(str, words)) for words in commands]
    done = subprocess.run(
        [sys.executable, "-c", BARE, json.dumps(asked)], capture_output=True, text=True, env=environment()
    )
    assert done.returncode == 0, done.stderr
    out, err = done.stdout.split("\f"), done.stderr.split("\f")
    assert len(out) == 2 * len(asked) + 1 and len(err) == len(asked) + 1
    return [
        Done(words, int(status), printed, said)
        for words, status, printed, said in zip(asked, out[1::2], out[::2], err, strict=False)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from creditbench.results.store import Store

    path = tmp_path_factory.mktemp("runs")
    for trial in trials("bptt", "anp"):
        Store(path).put(record(trial, test_score=0.5, normalised_score=0.5, solved=0.1, trivial=1.0))
    return path


def test_results_are_read_on_any_system(folder, tmp_path):
    commands = (
        ("table",),
        ("table", "--format", "latex"),
        ("versus",),
        ("leaderboard", "--draws", "100", "--output", tmp_path / "page"),
        ("table", "--compact", tmp_path / "new"),
    )
    for done in bare(*((*words, "--results", folder) for words in commands)):
        assert (done.status, "error" in done.err) == (0, False), done


def test_what_there_is_is_told_on_any_system():
    for done in bare(("show", "mackey_glass", "--steps", "5"), ("list", "learners")):
        assert done.status == 0 and done.out, done


def test_what_runs_says_in_one_sentence_what_it_needs(tmp_path):
    words = {
        "run": ("--task", "adding", "--learner", "bptt"),
        "tune": ("--task", "adding", "--learner", "bptt", "--output", tmp_path / "t.toml"),
        "scale": ("--learner", "bptt"),
        "gradients": ("--task", "adding", "--learner", "bptt"),
        "check": ("anp",),
        "doctor": (),
    }
    for done in bare(*((verb, *given) for verb, given in words.items())):
        assert done.status == 2 and done.out == "", done
        assert done.err.startswith(f"error: creditbench {done.words[0]} needs Linux or macOS"), done
        assert done.err.count("\n") == 1 and "WSL" in done.err, done


def test_a_users_rule_is_not_read_where_it_cannot_be_confined(tmp_path):
    """Its file runs in a confined process even for its description."""
    source = registry.find("learners", "rflo").path.read_text(encoding="utf-8").replace('"rflo"', '"mine"')
    (tmp_path / "mine.py").write_text(source, encoding="utf-8")
    (done,) = bare(("show", "learner", tmp_path / "mine.py"))
    assert done.status == 2 and "needs Linux or macOS" in done.err


def test_a_name_that_the_system_refuses_is_not_said_in_full(capsys):
    assert main(["run", "--task", "mackey_glass", "--learner", "bptt", "--results", "x" * 5000]) == 2
    said = capsys.readouterr().err
    assert "File name too long" in said and "xxx…xxx" in said and len(said.splitlines()[-1]) < 1500
