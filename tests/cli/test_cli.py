"""The command line: what it prints, how it exits, and how it takes an interruption."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
import typer

import creditbench
from creditbench.cli import app, main
from creditbench.results.store import Store

PLUGINS = Path(__file__).parents[1] / "misbehaving"
ROOT = Path(creditbench.__file__).parents[1]
HANGS = str(PLUGINS / "hangs.py")
#: A run of a second or two, in this process, without the second in which the cost of an update is measured.
SMALL = (
    *("--task", "mackey_glass", "--set", "mackey_glass.steps=300", "--hidden", "4"),
    *("--preset", "smoke", "--budget", "40", "--segment", "1", "--no-measure"),
)


APP: Any = typer.main.get_command(app)
VERBS = tuple(APP.commands)


def subverbs(name: str) -> tuple[str, ...]:
    return tuple(getattr(APP.commands[name], "commands", ()))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CREDITBENCH_CACHE", str(tmp_path / "cache"))


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "creditbench", *arguments]


def environment(**extra: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])} | extra


# -- start-up --------------------------------------------------------------------------------------------


@pytest.mark.alone
def test_help_takes_less_than_a_third_of_a_second():
    """Processor time, the best of five, so that a busy machine passes too."""
    times = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(command("--help"), capture_output=True, text=True, env=environment())
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.returncode == 0 and "Examples:" in done.stdout
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(times) < 0.3


@pytest.mark.parametrize("start", ["import creditbench", "import creditbench.cli"])
def test_starting_imports_nothing_heavy(start):
    code = f"{start}\nimport sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True
    )
    heavy = {"torch", "jax", "numpy", "pandas", "pydantic", "rich", "datasets", "scipy"}
    assert not heavy & set(done.stdout.split())


def test_resolving_a_grid_imports_no_framework():
    code = (
        "from creditbench.trials.grid import Options, make_grid\n"
        "make_grid(Options(tasks=('mackey_glass',), learners=('bptt', 'anp+D'), backends=('jax', 'torch')))\n"
        "import sys; print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True
    )
    assert not {"torch", "jax"} & set(done.stdout.split())


@pytest.mark.parametrize(
    "verb", [(), *((name,) for name in VERBS), *((name, sub) for name in VERBS for sub in subverbs(name))]
)
def test_every_help_has_examples_which_are_good_usage(verb, capsys, tmp_path, monkeypatch):
    """Each example is parsed unchanged, and nothing is run."""
    assert main([*verb, "--help"]) == 0
    lines = capsys.readouterr().out.partition("Examples:")[2].splitlines()
    examples = [line.split("  #")[0] for line in lines if line.strip().startswith("creditbench ")]
    assert examples
    (tmp_path / "grids" / "board").mkdir(parents=True)
    for name in ("grid.toml", "grids/board/weather.toml"):
        (tmp_path / name).write_text("")
    monkeypatch.chdir(tmp_path)
    for example in examples:
        parse(example)


GRIDS = Path(__file__).parents[2] / "grids"


@pytest.mark.parametrize(
    "path", sorted(GRIDS.rglob("*.toml")), ids=lambda path: path.relative_to(GRIDS).as_posix()
)
def test_every_committed_grid_is_read_by_run_and_tune(path):
    """Tuned choices are no grid, and a grid that names a file of them is not tuned."""
    keys = tomllib.loads(path.read_text(encoding="utf-8"))
    if "learner" in keys:
        parse(f"creditbench run --config {path}")
        if "tuned" not in keys:
            parse(f"creditbench tune --config {path} --output tuned.toml")
    else:
        assert all(isinstance(value, dict) for value in keys.values())


#: Options whose help is not the same everywhere, since a verb has more, or less, to say of them.
TOLD_APART = {
    *(
        "--alpha",
        "--axis",
        "--backend",
        "--batch",
        "--cell",
        "--config",
        "--device",
        "--draws",
        "--format",
        "--hidden",
    ),
    *(
        "--learner",
        "--output",
        "--reference",
        "--results",
        "--seed",
        "--seeds",
        "--set",
        "--steps",
        "--task",
        "--timeout",
    ),
}


def test_an_option_of_several_verbs_has_one_help_text():
    verbs = [
        *APP.commands.values(),
        *(sub for c in APP.commands.values() for sub in getattr(c, "commands", {}).values()),
    ]
    texts: dict[str, set[str]] = {}
    for verb in verbs:
        for option in verb.params:
            for name in option.opts:
                texts.setdefault(name, set()).add(getattr(option, "help", ""))
    assert {name for name, own in texts.items() if name.startswith("--") and len(own) > 1} == TOLD_APART


def parse(line: str) -> None:
    """Parse a command without running it. Raises typer's errors for bad usage."""
    _, *words = shlex.split(line)
    assert "--install-completion" not in words, "parsing it would change this user's shell"
    command, context = APP, APP.make_context("creditbench", words)
    while hasattr(command, "resolve_command"):
        name, command, words = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, words, parent=context)
    assert not context.args


DOCUMENTS = sorted(
    path
    for pattern in (
        "*.md",
        "*/README.md",
        "results/paper/README.md",
        "results/v*/README.md",
        "results/cells/README.md",
        "docs/**/*.md",
        "docs/**/*.ipynb",
    )
    for path in ROOT.glob(pattern)
    if not path.parts[-2].startswith(".") and "_build" not in path.parts
)


def text_of(path: Path) -> str:
    """The text of a document; of a notebook, all that is no code."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    cells = json.loads(text)["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_of_the_documents_is_good_usage(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = text_of(path)
    whole = re.findall(r"^ *(?:\.venv/bin/)?(creditbench .*?)(?: +#.*)?$", text, re.MULTILINE)
    for line in whole:
        parse(line)
    # In a sentence a command need not be whole.
    partly = {"MissingParameter", "BadOptionUsage", "NoArgsIsHelpError"}
    for line in set(re.findall(r"`(?:\.venv/bin/)?(creditbench [^`]*)`", text)):
        if not line.endswith("--help"):
            assert fault(line) in {"", *partly}, line


def fault(line: str) -> str:
    """The class of the error that refuses a command; empty if it is not refused."""
    try:
        parse(line)
    except Exception as error:
        return type(error).__name__
    return ""


@pytest.mark.parametrize(
    "words",
    [
        ("table", "--json", "--format", "csv"),
        ("table", "--compact", "v", "--format", "csv"),
        ("table", "--compact", "v", "--output", "x"),
        ("table", "--compact", "v", "--json"),
        ("list", "tasks", "--json", "--format", "markdown"),
        ("list", "learners", "--json", "--format", "markdown"),
        ("run", "--task", "adding", "--learner", "bptt", "--force", "--reuse", "v"),
    ],
)
def test_of_two_options_that_rule_each_other_out_none_is_ignored(words, capsys, tmp_path):
    where = () if words[0] == "list" else ("--results", tmp_path)
    assert "give one of them" in refused([*words, *where], capsys)


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"creditbench {creditbench.__version__}\n"


# -- list ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "some", "keys"),
    [
        ("tasks", "mackey_glass", {"id", "name", "protocol", "metric", "budgets", "parameters"}),
        ("learners", "bptt", {"id", "name", "family", "claims", "backends", "hyperparameters"}),
        ("backends", "jax", {"id", "name", "installed", "version"}),
    ],
)
def test_list_prints_json_and_a_table(what, some, keys, capsys):
    assert main(["list", what, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert some in [row["id"] for row in rows]
    assert all(keys <= set(row) for row in rows)
    assert main(["list", what]) == 0
    assert some in capsys.readouterr().out


# -- bad usage -------------------------------------------------------------------------------------------


def refused(arguments, capsys) -> str:
    """The one line of the command's refusal."""
    status = main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    assert status == 2
    assert said.out == ""
    assert said.err.startswith("error: ") and said.err.count("\n") == 1
    return said.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("--task", "mackey_glas", "--learner", "bptt"),
            "unknown task 'mackey_glas': did you mean 'mackey_glass'?",
        ),
        (("--task", "adding", "--learner", "anpp"), "unknown learner 'anpp': did you mean 'anp'?"),
        (
            ("--task", "adding", "--learner", "bptt", "--backend", "jaxx"),
            "unknown backend 'jaxx': did you mean 'jax'?",
        ),
        (("--task", "adding", "--learner", "bptt", "--preset", "ful"), "did you mean 'full'?"),
        (
            ("--task", "adding", "--learner", "bptt", "--preset", "fast"),
            "unknown preset 'fast': adding has smoke, quick, full",
        ),
        (("--task", "adding", "--learner", "bptt", "anp"), "put commas between, as in --learner bptt,anp"),
        (
            ("--task", "adding", "--seed=1", "2", "3"),
            "--seed is 1 2 3: put commas between, as in --seed 1,2,3",
        ),
        (("--reuse", "a", "b"), "'b' stands alone: give --reuse again, as in --reuse a --reuse b"),
        (("bptt",), "unexpected extra argument"),
        (
            ("--task", "adding", "--learner", "bptt", "--set", "anp.sigma=1"),
            "anp is not in this grid (adding, bptt): add it with --learner",
        ),
        (
            ("--task", "adding", "--learner", "bptt", "--set", "parity.length=9"),
            "parity is not in this grid (adding, bptt): add it with --task",
        ),
        (
            ("--task", "adding", "--learner", "bptt", "--data", "weather=x.csv"),
            "weather is not in this grid (adding): add it with --task",
        ),
        (("--task", "adding", "--learner", "bptt", "--set", "bptt.k=10"), "did you mean 'K'?"),
        (("--task", "adding", "--learner", "bptt", "--set", "bptt.lr=fast"), "bptt.lr is 'fast'"),
        (("--task", "adding", "--learner", "bptt", "--set", "bptt.lr=0"), "lr is 0.0"),
        (("--task", "adding", "--learner", "bptt", "--hidden", "0"), "hidden is 0"),
        (("--task", "adding", "--learner", "bptt", "--hidden", "-3"), "hidden is -3"),
        (("--task", "adding", "--learner", "bptt", "--hidden", "many"), "'--hidden'"),
        (("--task", "adding", "--learner", "bptt", "--batch", "0"), "batch is 0"),
        (("--task", "adding", "--learner", "bptt", "--seeds", "0"), "--seeds is 0"),
        (("--task", "adding", "--learner", "bptt", "--seed", "1,x"), "--seed is '1,x'"),
        (
            ("--task", "adding", "--learner", "bptt", "--seed", "4294967296"),
            "seed is 4294967296: give whole numbers",
        ),
        (("--task", "adding", "--learner", "bptt", "--seeds", "4294967297"), "--seeds is 4294967297"),
        (("--task", "adding", "--learner", "bptt", "--seeds", "2", "--seed", "1"), "give one of them"),
        (("--task", "adding", "--learner", "bptt", "--lr", "0"), "lr is 0.0"),
        (("--task", "adding", "--learner", "bptt", "--lr", "fast"), "--lr is 'fast'"),
        (("--task", "adding", "--learner", "bptt", "--budget", "-1"), "budget is -1"),
        (("--task", "adding", "--learner", "bptt", "--executor", "remote"), "unknown executor 'remote'"),
        (("--task", "adding", "--learner", "bptt", "--shard", "9/8"), "--shard is 9/8: shards count from 1"),
        (("--task", "adding", "--learner", "bptt", "--set", "bptt"), "--set is 'bptt'"),
        (("--task", "adding", "--learner", "./no_such.py"), "no file"),
        (("--task", "adding", "--learner", "bptt", "--lrr", "1"), "--lrr"),
        (("--learner", "bptt"), "no task is named"),
        (("--task", "adding"), "no learner is named"),
    ],
)
def test_bad_options_are_refused_in_one_line(arguments, said, capsys, tmp_path):
    assert said in refused(["run", "--results", tmp_path, *arguments], capsys)
    assert not (tmp_path / "records").exists()


@pytest.mark.parametrize(
    "arguments", [("rn",), ("list", "task"), ("table", "--format", "latx"), ("table", "--results", "no")]
)
def test_other_verbs_refuse_in_one_line_too(arguments, capsys):
    refused(arguments, capsys)


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "--task", "adding", "--learner", "bptt", "--seed"),
        ("tune", "--task", "adding", "--learner", "bptt", "--output", "no.toml", "--draw"),
        ("tune", "--task", "adding", "--learner", "bptt", "--output", "no.toml", "--seeds"),
        ("gradients", "--task", "adding", "--learner", "bptt", "--seed"),
        ("show", "task", "adding", "--seed"),
    ],
    ids=lambda arguments: f"{arguments[0]} {arguments[-1]}",
)
@pytest.mark.parametrize("seed", ["-1", "4294967296"])
def test_every_verb_refuses_seeds_that_a_generator_does_not_tell_apart(arguments, seed, capsys):
    assert re.search(rf"is '?{seed}'?: give (a )?whole numbers? from", refused([*arguments, seed], capsys))


def test_a_device_that_is_not_there_is_refused(capsys, tmp_path):
    jax = pytest.importorskip("jax")
    with contextlib.suppress(RuntimeError):
        if jax.devices("gpu"):
            pytest.skip("there is a GPU here")
    said = refused(["run", *SMALL, "--learner", "bptt", "--device", "cuda", "--results", tmp_path], capsys)
    assert "no cuda device for jax" in said


COLUMNS = (
    *("DryBulbFarenheit", "WetBulbFarenheit", "DewPointFarenheit", "RelativeHumidity"),
    *("Visibility", "WindSpeed", "WindDirection", "StationPressure", "Altimeter"),
)


@pytest.mark.parametrize(
    ("columns", "rows", "bad", "said"),
    [
        (COLUMNS[:-1], 900, None, "lacks the column 'Altimeter'"),
        (COLUMNS, 30, None, "have 30 hours"),
        (COLUMNS, 900, "warm", "'warm' in data row 8"),
        (COLUMNS, 900, "nan", "data row 8"),
        (None, 0, None, "does not exist"),
    ],
)
def test_bad_data_are_refused(columns, rows, bad, said, capsys, tmp_path):
    path = tmp_path / "w.csv"
    if columns:
        values = np.random.default_rng(0).random((rows, len(columns))).round(3).astype(str).astype(object)
        if bad:
            values[7, 0] = bad
        path.write_text("\n".join([",".join(columns), *(",".join(row) for row in values)]) + "\n")
    arguments = ["run", "--task", "weather", "--learner", "bptt", "--preset", "smoke", "--results", tmp_path]
    message = refused([*arguments, "--data", f"weather={path}"], capsys)
    assert said in message and str(path) in message


def as_csv(path, frame):
    pd.DataFrame(frame).to_csv(path, index=False)


def weather_table(rows=900):
    rng = np.random.default_rng(0)
    return {column: rng.random(rows).round(3).astype(object) for column in COLUMNS}


def constant(folder):
    as_csv(folder / "w.csv", weather_table() | {"WindSpeed": [3.0] * 900})
    return "w.csv", "column 'WindSpeed' is 3 in all"


def packed(folder):
    as_csv(folder / "plain.csv", weather_table())
    (folder / "w.csv").write_bytes(gzip.compress((folder / "plain.csv").read_bytes()))
    return "w.csv", "cannot be read as csv (it is packed: unpack it first)"


def packed_by_name(folder):
    (folder / "w.csv.gz").write_bytes(gzip.compress(b"a\n1\n"))
    return "w.csv.gz", "ends in '.gz': name a file that ends in"


def bomb(folder):
    with (folder / "w.csv").open("wb") as file:
        file.truncate(2**30 + 1)  # of holes
    return "w.csv", "has 1,073,741,825 bytes of data, more than the"


def pickled(folder):
    objects = {column: np.array([1.0, None] * 450, object) for column in COLUMNS}
    np.savez(folder / "w.npz", allow_pickle=True, **objects)
    return "w.npz", "is a pickle of Python objects"


def complex_numbers(folder):
    np.savez(folder / "w.npz", **{column: np.ones(900, complex) for column in COLUMNS})
    return "w.npz", "is of the type complex128"


def no_rows(folder):
    pd.DataFrame({column: [] for column in COLUMNS}).to_parquet(folder / "w.parquet")
    return "w.parquet", "cannot be read as parquet (it has no rows of data)"


@pytest.mark.parametrize("make", [constant, packed, packed_by_name, bomb, pickled, complex_numbers, no_rows])
def test_data_that_are_unfit_or_dangerous_are_refused(make, capsys, tmp_path):
    name, said = make(tmp_path)
    arguments = ["run", "--task", "weather", "--learner", "bptt", "--preset", "smoke", "--results", tmp_path]
    message = refused([*arguments, "--data", f"weather={tmp_path / name}"], capsys)
    assert said in message and name in message
    assert not (tmp_path / "records").exists()


@pytest.mark.parametrize(
    ("task", "frame", "said"),
    [
        ("text8_chars", {"a": ["x"] * 9}, "lacks the column 'text'"),
        ("text8_chars", {"text": ["short"] * 9}, "give a longer text"),
        ("sequential_digits", {"label": list(range(10)), "p": [1] * 10}, "leave none for"),
        ("sequential_digits", {"label": [10, 3, 4] * 33, "p": [3, 1, 2] * 33}, "has the class 10"),
        ("sequential_digits", {"label": list(range(10)) * 20, "p": [7] * 200}, "every pixel is 7"),
        ("sequential_digits", {"label": list(range(10)) * 20, "p": [-1] * 200}, "has a pixel of -1"),
        ("sequential_digits", {"label": list(range(10)) * 20, "p": ["x"] * 200}, "column 'p' has 'x'"),
    ],
)
def test_data_of_other_tasks_are_refused_too(task, frame, said, capsys, tmp_path):
    as_csv(tmp_path / "d.csv", frame)
    arguments = ["run", "--task", task, "--learner", "bptt", "--preset", "smoke", "--results", tmp_path]
    message = refused([*arguments, "--data", f"{task}={tmp_path / 'd.csv'}"], capsys)
    assert said in message and "d.csv" in message


def test_without_a_network_a_hub_data_set_is_refused(tmp_path):
    """One process for all tasks that read one; it prints how each run would have ended."""
    code = """
from creditbench.cli import main
for task in ("weather", "text8_chars", "sequential_digits"):
    print(main(["run", "--task", task, "--learner", "bptt", "--data", f"{task}=hf:owner/name:small"]))
"""
    asked = [sys.executable, "-c", code]
    done = subprocess.run(
        asked, capture_output=True, text=True, env=environment(HF_HUB_OFFLINE="1"), cwd=tmp_path
    )
    assert done.returncode == 0 and done.stdout == "2\n2\n2\n"
    lines = done.stderr.splitlines()
    assert len(lines) == 3
    for line in lines:
        assert line.startswith("error: ")
        assert "hub data set 'owner/name', configuration 'small', cannot be loaded: HF_HUB_OFFLINE" in line
        assert "fetch it first" in line and "embedded data" in line


def test_a_folder_laid_out_as_the_hub_trains(tmp_path, capsys, monkeypatch):
    """Named by a relative path, and read by a worker that starts elsewhere."""
    (tmp_path / "hub").mkdir()
    as_csv(tmp_path / "hub" / "train.csv", weather_table())
    (tmp_path / "hub" / "README.md").write_text("# Weather\n")
    monkeypatch.chdir(tmp_path)
    arguments = [
        "run",
        "--task",
        "weather",
        "--learner",
        "bptt",
        "--budget",
        "50",
        "--hidden",
        "4",
        "--seeds",
        "1",
    ]
    arguments += ["--data", "weather=hf:hub", "--batch", "2", "--results", str(tmp_path / "results")]
    assert main([*arguments, "--no-measure", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["status"] == "ok"
    assert json.loads(row["task_parameters"])["data"] == f"hf:{tmp_path / 'hub'}"


# -- configuration ---------------------------------------------------------------------------------------


def test_a_configuration_file_gives_defaults_over_which_the_command_line_wins(tmp_path, capsys, monkeypatch):
    """What neither gives has its own default: the cost is measured."""
    monkeypatch.setattr("creditbench.trials.blocks.MEASURE_SECONDS", 0.01)
    path = tmp_path / "grid.toml"
    path.write_text(
        'task = ["mackey_glass"]\nlearner = "bptt,anp"\npreset = "smoke"\nbudget = 40\nhidden = 4\n'
        'seeds = 4\nlr = [0.01]\nbias = true\nexecutor = "inline"\n'
        'set = { anp.sigma = 0.5, "mackey_glass.steps" = 300 }\n'
        f'results = "{tmp_path / "results"}"\n'
    )
    assert main(["run", "--config", str(path), "--seed", "7", "--learner", "anp", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["learner"], row["seed"], row["lr"], row["hidden"], row["bias"]) == ("anp", 7, 0.01, 4, True)
    assert json.loads(row["hyperparameters"])["sigma"] == 0.5
    assert json.loads(row["task_parameters"])["steps"] == 300
    assert row["ratio_forward"] > 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hiden = 4", "'hiden': did you mean 'hidden'?"),
        ("decorrelation_rat = 4", "did you mean 'decorrelation-rate'?"),
        ("threads = 'many'", "'--threads'"),
        ("bias = 'yes'", "'yes': give true or false"),
        ("hidden = true", "is True: give its value"),
        ("[hidden]\na = 1", "is a table"),
        ("config = 'x.toml'", "'config'"),
        ("hidden = ", "is not TOML"),
    ],
)
def test_a_bad_configuration_file_is_refused(text, said, tmp_path, capsys):
    (tmp_path / "grid.toml").write_text(text)
    assert said in refused(["run", *SMALL, "--learner", "bptt", "--config", tmp_path / "grid.toml"], capsys)


# -- run, resume, table ----------------------------------------------------------------------------------


def test_run_keeps_records_skips_what_is_done_and_exits_1_on_a_failure(tmp_path, capsys):
    arguments = ["run", *SMALL, "--seeds", "1", "--executor", "inline", "--results", str(tmp_path)]
    assert main([*arguments, "--learner", "bptt"]) == 0
    assert "1 ok" in capsys.readouterr().out
    (record,) = Store(tmp_path).all()
    written = Store(tmp_path).path(record.trial)
    before = written.stat().st_mtime_ns

    both = [*arguments, "--learner", f"bptt,{PLUGINS / 'raises.py'},{PLUGINS / 'not_a_number.py'}", "--json"]
    assert main(both) == 1
    first = capsys.readouterr()
    assert {row["learner"]: row["status"] for row in json.loads(first.out)} == {
        "bptt": "ok",
        "raises": "crashed",
        "not_a_number": "diverged",
    }
    assert (
        "1 of 3 trials already done" in first.err
        and "raises jax lr=0.01 seed=0: crashed: RuntimeError" in first.err
    )
    assert f"to see what is wrong with it: creditbench check {PLUGINS / 'raises.py'}\n" in first.err
    assert "creditbench check" not in first.err.replace(f"creditbench check {PLUGINS / 'raises.py'}", "")
    assert written.stat().st_mtime_ns == before

    # The same command says the same again, and runs nothing.
    assert main(both) == 1
    second = capsys.readouterr()
    assert second.out == first.out and "3 of 3 trials already done" in second.err
    # Another try runs the failure alone, and so does force everything.
    assert main([*both, "--retry"]) == 1
    assert "[1/1] mackey_glass raises" in capsys.readouterr().err
    assert written.stat().st_mtime_ns == before
    assert main([*arguments, "--learner", "bptt", "--force"]) == 0
    assert written.stat().st_mtime_ns > before
    capsys.readouterr()

    assert main(["table", "--results", str(tmp_path), "--json"]) == 0
    assert sorted(row["learner"] for row in json.loads(capsys.readouterr().out)) == [
        "bptt",
        "not_a_number",
        "raises",
    ]
    assert (
        main(
            ["table", "--results", str(tmp_path), "--format", "markdown", "--output", str(tmp_path / "t.md")]
        )
        == 0
    )
    assert "| raises | jax |" in (tmp_path / "t.md").read_text()
    assert main(["table", "--results", str(tmp_path)]) == 0
    assert "not_a_number" in capsys.readouterr().out

    written.write_text(written.read_text()[:100])
    assert "delete it and run again" in refused([*arguments, "--learner", "bptt"], capsys)


def test_shards_into_one_folder_or_folders_of_their_own_are_the_grid(tmp_path, capsys):
    words = ["run", *SMALL, "--learner", "bptt,readout_rls,tbptt", "--seeds", "2", "--executor", "inline"]
    folders = [tmp_path / str(number) for number in (1, 2)]
    for number, (own, count) in enumerate(zip(folders, (4, 2), strict=True), 1):
        assert main([*words, "--shard", f"{number}/2", "--results", str(own)]) == 0
        assert f"shard {number}/2: {count} of the grid's 6 trials" in capsys.readouterr().err
    found = [{record.trial.id for record in Store(own).all()} for own in folders]
    assert [len(ids) for ids in found] == [4, 2] and len(set.union(*found)) == 6
    assert main(["table", "--results", str(folders[0]), "--results", str(folders[1]), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 6

    # A share of another partition, into a folder that has some of it. The fourth of three is empty.
    assert main([*words, "--shard", "2/4", "--results", str(folders[0])]) == 0
    assert main([*words, "--shard", "4/4", "--results", str(folders[0])]) == 0
    assert "shard 4/4: 0 of the grid's 6 trials" in capsys.readouterr().err
    assert main([*words, "--results", str(folders[0])]) == 0
    assert "6 of 6 trials already done" in capsys.readouterr().err


def test_shards_of_tuning_leave_their_points_for_the_whole(tmp_path, capsys):
    words = ["tune", *SMALL[:8], "--budget", "100", "--learner", "bptt,readout_rls", "--points", "2"]
    words += ["--studies", "2", "--confirm", "0", "--executor", "inline"]
    words += ["--results", str(tmp_path / "tuning")]
    for number in (1, 2):
        own = tmp_path / f"{number}.toml"
        assert main([*words, "--shard", f"{number}/2", "--output", str(own)]) == 0
        assert f"shard {number}/2: 1 of 2 rules on tasks" in capsys.readouterr().err
        assert own.read_text().count("[[mackey_glass.") == 2
    assert main([*words, "--output", str(tmp_path / "whole.toml")]) == 0
    assert "[1/" not in capsys.readouterr().err  # nothing was left to train
    assert (tmp_path / "whole.toml").read_text().count("[[mackey_glass.") == 4


def test_a_diverged_trial_alone_is_no_failure(tmp_path):
    learner = str(PLUGINS / "not_a_number.py")
    assert (
        main(
            [
                "run",
                *SMALL,
                "--seeds",
                "1",
                "--executor",
                "inline",
                "--results",
                str(tmp_path),
                "--learner",
                learner,
            ]
        )
        == 0
    )


# -- interruption ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def half_way(results: Path):
    """A run with bptt finished and a rule that hangs in progress; and its workers."""
    parent = subprocess.Popen(
        command(
            "run",
            *SMALL,
            "--learner",
            f"bptt,{HANGS}",
            "--seeds",
            "1",
            "--jobs",
            "1",
            "--results",
            str(results),
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(TZ="HANGS"),
        # Tests that run in the background inherit an ignored SIGINT, as a shell without job control sets it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 60
        before: set[psutil.Process] = set()
        workers: set[psutil.Process] = set()
        while not workers:
            assert parent.poll() is None, parent.communicate()
            assert time.monotonic() < deadline
            children = set(psutil.Process(parent.pid).children(recursive=True))
            if list((results / "records").glob("*.json")):
                workers = children - before
            else:
                before |= children
            time.sleep(0.02)
        yield parent, workers
    finally:
        parent.kill()
        parent.wait()


def ended(workers: set[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(workers, timeout=10)
    return not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def test_ctrl_c_keeps_what_is_done_and_the_next_run_does_the_rest(tmp_path, capsys):
    with half_way(tmp_path) as (parent, workers):
        parent.send_signal(signal.SIGINT)
        out, err = parent.communicate(timeout=30)
        assert parent.returncode == 130
        assert out == ""
        assert "interrupted: 1 of 2 trials are done" in err and "Traceback" not in err
        assert ended(workers)
    (kept,) = (tmp_path / "records").iterdir()
    before = kept.stat().st_mtime_ns
    rest = ["run", *SMALL, "--learner", f"bptt,{HANGS}", "--seeds", "1", "--executor", "inline"]
    assert main([*rest, "--results", str(tmp_path), "--json"]) == 0
    said = capsys.readouterr()
    assert "1 of 2 trials already done" in said.err and "[1/1] mackey_glass hangs" in said.err
    assert [row["status"] for row in json.loads(said.out)] == ["ok", "ok"]
    assert kept.stat().st_mtime_ns == before


@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux ends the children of a process that is killed"
)
def test_no_worker_outlives_a_run_that_is_killed(tmp_path):
    with half_way(tmp_path) as (parent, workers):
        parent.kill()
        parent.wait()
        assert ended(workers)
