"""`creditbench show task` and `list tasks --format markdown`: output and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from creditbench.cells import CELLS
from creditbench.cli import drawing as example
from creditbench.cli import main
from creditbench.plugins import registry
from creditbench.task import Sequences

ROOT = Path(__file__).parents[2]
TASKS = [plugin.id for plugin in registry.load("tasks").values() if plugin.source == "builtin"]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("CREDITBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("COLUMNS", "100")


def refused(arguments, capsys) -> str:
    """The one line of the command's refusal."""
    assert main([str(argument) for argument in arguments]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("error: ") and said.err.count("\n") == 1
    return said.err


@pytest.mark.parametrize("task", [task for task in TASKS if task != "speech_vowels"])
def test_every_task_is_drawn(task, capsys):
    assert main(["show", "task", task]) == 0
    drawn = capsys.readouterr().out
    assert drawn.startswith(f"{task}: train, seed 0, row 0 of ")
    for line in ("inputs", "targets", "scored", "step"):
        assert f"\n{line}" in drawn
    assert max(map(len, drawn.splitlines())) <= 110 and "•" in drawn


def test_what_is_drawn_is_the_data(capsys):
    assert main(["show", "task", "selective_copy", "--row", "3", "--split", "test", "--seed", "5"]) == 0
    lines = {line[:12].strip(): line[12:] for line in capsys.readouterr().out.splitlines()}
    test = registry.find("tasks", "selective_copy").cls().generate("test", 5, 32)
    row = test.inputs[:, 3]
    for channel in range(10):
        assert [c == "█" for c in lines[f"inputs {channel}"][:15]] == list(row[:, channel] == 1)
    said = "".join(str(step.argmax()) if step.any() else "." for step in test.targets[:, 3])
    assert lines["targets"].startswith(said) and lines["scored"] == " " * 12 + "•••"
    assert lines["step"] == "0         10"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("adding", "task"),
        ("anp", "learner"),
        (str(ROOT / "tests" / "misbehaving" / "echo_task.py"), "task"),
        (str(ROOT / "learners" / "rflo.py"), "learner"),
    ],
)
def test_a_task_or_a_learner_is_shown_by_its_name_alone(name, kind, capsys):
    assert main(["show", name]) == 0
    alone = capsys.readouterr().out
    assert main(["show", kind, name]) == 0
    assert capsys.readouterr().out == alone != ""


def test_options_follow_a_name_without_its_kind(capsys):
    assert main(["show", "mackey_glass", "--steps", "20"]) == 0
    assert "steps 0 to 19 of" in capsys.readouterr().out


def test_what_a_learner_is_comes_from_its_class(capsys):
    assert main(["show", "learner", "anp"]) == 0
    said = capsys.readouterr().out
    cls = registry.find("learners", "anp").cls
    for text in (cls.name, cls.paper, cls.family, f"lr {cls.lr:g}", "sigma", "forward_only", "∂L/∂W_rec"):
        assert text in said


def test_what_a_cell_is_comes_from_its_class(tmp_path, monkeypatch, capsys):
    for words in (["show", "cell", "lru"], ["show", "lru"]):
        assert main(words) == 0
        said = capsys.readouterr().out
        for text in ("Linear recurrent unit", "arXiv:2303.06349", "nu, theta", "r_max 0.99", "∂s_t/∂ν"):
            assert text in said
    assert main(["show", "gru"]) == 0
    assert "4; see the input: a[0], a[1], a[2]; ĥ: a[1], a[2], a[3]" in capsys.readouterr().out
    monkeypatch.chdir(tmp_path)
    assert main(["new", "cell", "slow_unit"]) == 0
    capsys.readouterr()
    assert main(["show", "slow_unit.py"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("slow_unit: Slow unit\n") and "pace 1.0" in said


def test_cells_are_listed(capsys):
    assert main(["list", "cells", "--json"]) == 0
    rows = {row["id"]: row for row in json.loads(capsys.readouterr().out)}
    assert list(rows) == list(CELLS)
    assert rows["lif"]["spikes"] and rows["lif"]["parameters"]["decay"] == 0.95
    assert not rows["lru"]["recurrent"] and rows["lru"]["phi"] == ["nu", "theta"]
    assert main(["list", "cells"]) == 0
    assert "Long short-term memory" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mackey_glas", "unknown task, learner or cell 'mackey_glas': did you mean 'mackey_glass'?"),
        ("no_such.py", "no file"),
        (str(ROOT / "creditbench" / "errors.py"), "holds no learner, task or cell"),
    ],
)
def test_what_is_neither_is_refused(name, said, capsys):
    assert said in refused(["show", name], capsys)


def test_bars_reach_from_the_least_to_the_greatest_value():
    inputs = np.linspace(-1, 1, 8, dtype=np.float32)[:, None, None]
    drawn = example.text(Sequences(inputs, 0 * inputs, np.ones((8, 1), np.float32)))
    assert "▁▂▃▄▅▆▇█ -1 to 1" in drawn and "▁▁▁▁▁▁▁▁ 0 to 0" in drawn


def test_long_rows_are_folded():
    inputs = np.zeros((100, 1, 1), np.float32)
    drawn = example.text(Sequences(inputs, inputs, np.ones((100, 1), np.float32)), first=7, width=50)
    blocks = drawn.strip().split("\n\n")
    assert len(blocks) == 4 and max(map(len, drawn.splitlines())) <= 50
    assert drawn.count("•") == 100 and "   10" in blocks[0]


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
@pytest.mark.parametrize("task", ["adding", "lorenz", "text8_chars"])
def test_a_figure_is_written(task, suffix, tmp_path, capsys):
    output = tmp_path / f"example.{suffix}"
    assert main(["show", "task", task, "--steps", "30", "--output", str(output)]) == 0
    assert capsys.readouterr().out == ""
    beginning = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[suffix]
    assert output.read_bytes().startswith(beginning)


def test_a_figure_hatches_what_is_not_scored(tmp_path):
    inputs = np.zeros((9, 1, 1), np.float32)
    for weights in ([1] * 9, [0, 0, 1, 1, 0, 1, 1, 1, 0]):
        one = Sequences(inputs, inputs, np.array(weights, np.float32)[:, None])
        example.figure(one, "title", tmp_path / f"{sum(weights)}.svg")
    stretches = [(tmp_path / f"{scored}.svg").read_bytes().count(b"url(#h") for scored in (9, 5)]
    assert stretches == [0, 3]


def test_a_users_task_with_settings_and_data(tmp_path, capsys):
    text = tmp_path / "t.txt"
    text.write_text("abcd " * 500)
    assert main(["show", "task", "text8_chars", "--data", f"text8_chars={text}", "--steps", "10"]) == 0
    assert "1234012340" in capsys.readouterr().out
    path = ROOT / "tests" / "misbehaving" / "echo_task.py"
    assert main(["show", "task", str(path), "--set", "echo.delay=2"]) == 0
    assert "echo: train" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("addin",), "unknown task 'addin': did you mean 'adding'?"),
        (("adding", "--split", "tests"), "unknown split 'tests': did you mean 'test'?"),
        (("adding", "--row", "10000"), "row is 10000: train of adding has 10000; give 0 to 9999"),
        (("adding", "--row", "-1"), "row is -1"),
        (("adding", "--first", "20"), "first is 20"),
        (("adding", "--steps", "0"), "steps is 0"),
        (("adding", "--seed", "-1"), "seed is -1"),
        (("adding", "--set", "adding.length=1"), "adding.length is 1: set it to"),
        (("adding", "--set", "parity.length=9"), "'parity'"),
        (("adding", "--data", "adding=x.csv"), "task 'adding' reads no data"),
        (("weather", "--data", "adding=x.csv"), "unknown task in --data 'adding'"),
        (("adding", "--output", "x.jpg"), "'x.jpg' has no known suffix"),
        (("adding", "--output", "no/such/folder/x.png"), "cannot be written"),
        (("./nowhere.py",), "no file"),
    ],
)
def test_bad_usage_is_refused_in_one_line(arguments, said, capsys):
    assert said in refused(["show", "task", *arguments], capsys)


# -- the table of tasks ------------------------------------------------------------------------------------


def test_the_readme_has_the_table_that_the_command_prints(capsys):
    assert main(["list", "tasks", "--format", "markdown"]) == 0
    printed = capsys.readouterr().out
    readme = (ROOT / "tasks" / "README.md").read_text(encoding="utf-8")
    assert printed in readme, (
        "tasks/README.md should hold what `creditbench list tasks --format markdown` prints"
    )
    rows = [line for line in printed.splitlines() if line.startswith("| [`")]
    assert [row.split("`")[1] for row in rows] == TASKS


def test_the_table_says_what_the_tasks_are(capsys):
    assert main(["list", "tasks", "--format", "markdown"]) == 0
    header, _, *rows = (
        [cell.strip() for cell in line.strip("| ").split(" | ")]
        for line in capsys.readouterr().out.splitlines()
    )
    assert main(["list", "tasks", "--json"]) == 0
    for row, known in zip(rows, json.loads(capsys.readouterr().out), strict=True):
        said = dict(zip(header, row, strict=True))
        assert said["protocol"] == known["protocol"] and said["loss"] == known["loss"]
        assert float(said["trivial"]) == pytest.approx(known["trivial"], rel=1e-3)
        assert float(said["solved"]) == pytest.approx(known["solved"], rel=1e-3)
        assert int(said["quick"].replace(",", "")) == known["budgets"]["quick"]


def test_another_format_is_refused(capsys):
    assert "unknown format 'markdwn': did you mean 'markdown'?" in refused(
        ["list", "tasks", "--format", "markdwn"], capsys
    )
