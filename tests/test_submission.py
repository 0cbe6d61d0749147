"""`.github/submission.py`: what of a change is checked and run, and beside what."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / ".github" / "submission.py"

pytestmark = pytest.mark.skipif(not SCRIPT.is_file(), reason="no workflows here: this is no checkout")


@pytest.fixture
def submission():
    spec = importlib.util.spec_from_file_location("submission", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def paths(*names: str) -> list[Path]:
    return list(map(Path, names))


def test_rules_tasks_and_cells_are_told_by_their_folders(submission):
    of_none = paths(
        "learners/README.md", "tasks/data/x.py", "creditbench/cells/base.py", "creditbench/cells/stack.py",
        "creditbench/learner/traces.py", "tests/cells/test_cells.py", "gru.py",
    )  # fmt: skip
    held = paths("learners/np.py", "tasks/adding.py", "creditbench/cells/gru.py")
    found = submission.files_of([*of_none, *held])
    assert found == dict(zip(held, ("learners", "tasks", "cells"), strict=True))
    # No cell's file is taken for what cells share, nor the other way round.
    from creditbench.cells import CELLS

    own = {path.stem for path in (ROOT / "creditbench" / "cells").glob("*.py")}
    assert own - set(submission.OF_ALL_CELLS) == set(CELLS)


@pytest.mark.parametrize(
    ("changed", "rules", "tasks", "cells"),
    [
        (["learners/np.py"], ["np", "bptt", "readout_rls"], ["mackey_glass", "copy_memory"], ["tanh"]),
        (["tasks/adding.py"], ["bptt", "readout_rls"], ["adding"], ["tanh"]),
        (
            ["creditbench/cells/gru.py"],
            ["bptt", "readout_rls", "snap1"],
            ["mackey_glass", "copy_memory"],
            ["gru"],
        ),
        (
            ["creditbench/cells/gru.py", "learners/snap1.py", "tasks/adding.py"],
            ["snap1", "bptt", "readout_rls"],
            ["adding"],
            ["tanh", "gru"],
        ),
        (
            ["creditbench/cells/tanh.py"],
            ["bptt", "readout_rls", "snap1"],
            ["mackey_glass", "copy_memory"],
            ["tanh"],
        ),
    ],
)
def test_the_board_has_what_changed_and_what_stands_beside_it(submission, changed, rules, tasks, cells):
    found = submission.on_the_board(submission.files_of(paths(*changed)))
    assert found == {"learners": rules, "tasks": tasks, "cells": cells}


@pytest.fixture
def ran(submission, monkeypatch, tmp_path):
    """`main` of a change: (exit status, commands). The commands succeed, unless `status` says otherwise."""

    def run(*changed: str, there: dict[str, list[str]], **status: int):
        commands = []

        def creditbench(checkout, *words):
            commands.append((checkout.name, *words))
            out = json.dumps([{"id": id} for id in there[words[1]]]) if words[0] == "list" else ""
            return subprocess.CompletedProcess(words, status.get(words[0], 0), out)

        monkeypatch.setattr(submission, "creditbench", creditbench)
        monkeypatch.setattr(submission, "changed", lambda base: paths(*changed))
        monkeypatch.setattr(submission, "worktree", lambda base: contextlib.nullcontext(tmp_path / "base"))
        monkeypatch.setattr(submission.shutil, "rmtree", lambda *_, **__: None)
        monkeypatch.setattr(sys, "argv", ["submission.py", "--base", "main"])
        return submission.main(), commands

    return run


def board_of(commands, checkout: str) -> dict[str, str] | None:
    for name, verb, *words in commands:
        if (name, verb) == (checkout, "run"):
            given = dict(zip(words[::2], words[1::2], strict=True))
            return {option: given.get(option) for option in ("--learner", "--task", "--cell")}
    return None


def test_a_cell_is_checked_and_run_and_so_is_that_of_the_base(ran, capsys):
    there = {"learners": ["bptt", "readout_rls", "snap1"], "tasks": ["mackey_glass", "copy_memory"]}
    status, commands = ran("creditbench/cells/gru.py", there=there | {"cells": ["tanh", "gru"]})
    assert status == 0 and "passed" in capsys.readouterr().out
    assert commands[0][1:] == ("check", "creditbench/cells/gru.py")
    wanted = {"--learner": "bptt,readout_rls,snap1", "--task": "mackey_glass,copy_memory", "--cell": "gru"}
    assert board_of(commands, ROOT.name) == board_of(commands, "base") == wanted
    assert commands[-1][1] == "compare"
    # A cell that the base has not is run here alone.
    status, commands = ran("creditbench/cells/gru.py", there=there | {"cells": ["tanh"]})
    assert status == 0 and board_of(commands, "base") is None and commands[-1][1] != "compare"


def test_a_base_that_is_older_than_cells_is_asked_for_none(ran):
    status, commands = ran(
        "learners/np.py", there={"learners": ["bptt", "np"], "tasks": ["mackey_glass", "copy_memory"]}
    )
    assert status == 0
    assert board_of(commands, "base") == {
        "--learner": "np,bptt", "--task": "mackey_glass,copy_memory", "--cell": None,
    }  # fmt: skip


def test_a_cell_that_is_not_shipped_fails(ran, capsys):
    status, commands = ran(
        "creditbench/cells/mine.py", there={"learners": ["bptt"], "tasks": ["mackey_glass"]}
    )
    assert status == 1
    assert "creditbench/cells/mine.py holds a cell that is not shipped: add its id" in capsys.readouterr().out
    assert commands[0][1:] == ("check", "creditbench/cells/mine.py")


@pytest.mark.parametrize(
    ("verb", "code", "said"),
    [("check", 1, "creditbench check ended with exit code 1"), ("run", 1, "a trial ended in an error")],
)
def test_what_fails_is_said(ran, capsys, verb, code, said):
    there = {"learners": [], "tasks": [], "cells": []}
    assert ran("creditbench/cells/gru.py", there=there, **{verb: code})[0] == 1
    assert f"FAILED: {said}" in capsys.readouterr().out


def test_a_change_of_nothing_that_is_submitted_passes(ran, capsys):
    status, commands = ran("creditbench/cells/base.py", "README.md", there={})
    assert (status, commands) == (0, [])
    assert "no rule, task or cell differs from main: nothing was checked" in capsys.readouterr().out
