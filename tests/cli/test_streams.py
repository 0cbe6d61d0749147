"""The command line with streams that are closed, full or of few letters, and paths that are not files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from creditbench.cli import main
from creditbench.results.store import Store
from tests.synthetic import make

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    (folder / "source.py").write_text("# stands for every rule and task\n")
    made = make(folder / "source.py", rules=2, tasks=1, backends=("torch",), seeds=2, measured=False)
    for record in made.records:
        Store(folder).put(record)
    return folder


def shell(line: str, folder: Path, **environment: str) -> tuple[int, str, str]:
    """The exit status and output of a shell's line; `cb` in it is the command line."""
    line = line.replace("cb ", f"'{sys.executable}' -m creditbench ")
    known = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    done = subprocess.run(["bash", "-c", line], capture_output=True, cwd=folder, env=known, timeout=60)
    return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize(
    ("line", "status", "said"),
    [
        ("cb list backends >&-", 2, "error: standard output is closed: redirect it"),
        ("cb list backends > /dev/full", 2, "error: the system refuses what is needed "
         "(OSError: No space left"),
        ("cb list task 2> /dev/full", 2, ""),
        ("cb list task 2>&-", 2, ""),
        ("cb list backends <&- > t.txt", 0, ""),
        ("cb list learners | head -c 1; exit ${PIPESTATUS[0]}", None, ""),
    ],
)  # fmt: skip
def test_a_stream_that_cannot_be_written_is_one_sentence(results, line, status, said):
    code, _, err = shell(line, results)
    assert code == status if status is not None else code in (0, 1)
    assert said in err and "Traceback" not in err and "Exception ignored" not in err
    assert err.count("\n") == (1 if said else 0)


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "cp1252"},
        {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=lambda e: next(iter(e.values())),
)
def test_an_encoding_that_lacks_letters_ends_no_table(results, environment):
    code, out, err = shell("cb list learners", results, **environment)
    assert (code, err) == (0, "") and "bptt" in out


def test_names_that_are_no_text_are_taken_as_they_are(results, tmp_path):
    """As Python gives them: bytes that are not UTF-8 become lone surrogates."""
    version, page = (os.fsdecode(os.fsencode(tmp_path) + name) for name in (b"/\xff", b"/\xfe"))
    code = """
import sys
from creditbench.cli import main
version, page, results = sys.argv[1:]
for words in (["table", "--compact", version], ["leaderboard", "--draws", "100", "--output", page]):
    if status := main([*words, "--results", results]):
        sys.exit(status)
"""
    line = [sys.executable, "-c", code, version, page, str(results)]
    done = subprocess.run(line, capture_output=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done.stderr
    assert main(["table", "--results", version, "--format", "csv"]) == 0
    assert os.path.exists(os.path.join(page, "index.html"))
    with open(os.path.join(version, "README.md"), encoding="utf-8") as file:
        assert "\\udcff" in file.read()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(24, "Too many open files", "/x"), "'/x' (OSError: Too many open files)"),
        (MemoryError(), "(MemoryError: MemoryError)"),
        (ImportError("libx.so: cannot open shared object file"), "(ImportError: libx.so"),
    ],
)
def test_what_the_machine_refuses_is_one_sentence(error, said, results, capsys, monkeypatch):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr("creditbench.results.version.load", refuse)
    assert main(["table", "--results", str(results)]) == 2
    err = capsys.readouterr().err
    assert said in err and err.startswith("error: the system refuses") and err.count("\n") == 1


@pytest.mark.parametrize("place", ["/dev/null", "."])
def test_an_output_that_is_no_file_is_left_as_it_is(place, results, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for words in (["--format", "csv", "--output", place], ["--compact", "/dev/null"]):
        assert main(["table", "--results", str(results), *words]) == 2
        assert "cannot be written" in capsys.readouterr().err
    assert not Path("/dev/null").is_file() and not list(tmp_path.iterdir())


def test_an_output_keeps_its_rights_and_its_link(results, tmp_path):
    (tmp_path / "t.csv").write_text("")
    (tmp_path / "t.csv").chmod(0o640)
    (tmp_path / "link.csv").symlink_to("t.csv")
    assert (
        main(["table", "--results", str(results), "--format", "csv", "--output", str(tmp_path / "link.csv")])
        == 0
    )
    assert (tmp_path / "link.csv").is_symlink() and (tmp_path / "t.csv").read_text().startswith("trial,")
    assert (tmp_path / "t.csv").stat().st_mode & 0o777 == 0o640
    assert len(list(tmp_path.iterdir())) == 2


# -- files that are none -----------------------------------------------------------------------------------


def as_folder(path: Path) -> None:
    path.mkdir()


def as_pipe(path: Path) -> None:
    os.mkfifo(path)


def as_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def without_end(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**34)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("make_it", [as_folder, as_pipe, as_device, without_end])
@pytest.mark.parametrize("option", ["--config", "--tuned", "--data", "--reuse", "--results"])
def test_what_is_no_file_is_refused_and_never_waited_for(option, make_it, tmp_path, capsys):
    small = ["run", "--task", "weather", "--learner", "bptt", "--preset", "smoke"]
    path = tmp_path / "w.csv"
    words = [option, f"weather={path}" if option == "--data" else str(path)]
    if option in ("--reuse", "--results"):
        path = tmp_path / "v"
        path.mkdir()
        path, words = path / "trials.csv", [option, str(path)]
    make_it(path)
    if option == "--results":
        small = ["table"]
    elif option != "--reuse":
        words += ["--results", str(tmp_path / "r")]
    assert main([*small, *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    assert not (tmp_path / "r" / "records").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("--budget", str(10**30)),
        ("--seed", str(10**40)),
        ("--seeds", str(2**32)),
        ("--hidden", str(10**30)),
        ("--batch", str(10**30)),
        ("--lr", "1e305"),
        ("--alpha", "nan"),
        ("--decorrelation-rate", "inf"),
        ("--timeout", "nan"),
        ("--timeout", "-1"),
        ("--memory-limit", "9" * 400 + "GB"),
        ("--set", f"mackey_glass.n=1{'0' * 400}"),
        ("--jobs", "0"),
    ],
    ids=lambda words: f"{words[0]} {words[1]:.8}",
)
def test_numbers_beyond_all_sense_are_refused(words, tmp_path, capsys):
    small = ["run", "--task", "mackey_glass", "--learner", "bptt", "--results", str(tmp_path)]
    assert main([*small, *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    assert not (tmp_path / "records").exists()


HANGS = '''
import time
from dataclasses import dataclass
from creditbench.task import Task
from tasks.adding import Adding

@dataclass(frozen=True, kw_only=True)
class Hangs(Adding):
    """A task that never comes to its end."""
    id = "hangs_in_data"
    {fields}

    def {method}:
        while True:
            time.sleep(0.01)
'''


@pytest.mark.timeout(60)
@pytest.mark.parametrize("method", ["generate(self, split, seed, batch_size)", "__post_init__(self)"])
def test_a_task_that_never_makes_its_data_ends_with_the_timeout(method, tmp_path, capsys):
    path = tmp_path / "hangs_in_data.py"
    path.write_text(HANGS.format(method=method, fields=""))
    words = ["run", "--task", str(path), "--learner", "bptt", "--results", str(tmp_path), "--timeout", "0.5"]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "within 0.5 s" in said and str(path) in said and said.count("\n") == 1


@pytest.mark.timeout(60)
@pytest.mark.parametrize("where", ["data", "import"])
def test_a_task_that_hangs_in_code_in_c_ends_with_the_timeout(where, tmp_path):
    """Python cannot raise anything there: the process is ended, with the same sentence."""
    path = tmp_path / "hangs_in_data.py"
    text = HANGS.format(method="generate(self, split, seed, batch_size)", fields="")
    forever = "import itertools\nsum(itertools.repeat(1))\n"
    path.write_text(
        text.replace("while True:", "import itertools; sum(itertools.repeat(1))\n        while False:")
    )
    if where == "import":
        path.write_text(text + forever)
    words = ["run", "--task", str(path), "--learner", "bptt", "--results", str(tmp_path), "--timeout", "0.5"]
    code = (
        "from creditbench.plugins import importing; importing.IMPORT_SECONDS = 0.5\n"
        f"from creditbench.cli import main; main({words})"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert ended.returncode == -signal.SIGKILL
    assert "within 0.5 s" in ended.stderr and str(path) in ended.stderr and ended.stderr.count("\n") == 1


def test_a_run_without_a_record_of_a_trial_goes_on_and_exits_1(tmp_path, capsys, monkeypatch):
    """The machine failed at the trial, not the rule."""
    from creditbench import executors
    from creditbench.executors.base import Executor, failure

    class Lossy(Executor):
        def run(self, jobs, progress=None):
            from datetime import UTC, datetime

            for job in jobs:
                for trial in job.trials:
                    if trial.seed != 1:
                        done = failure(trial, "crashed", "", datetime.now(UTC), 0.0)
                        yield done.model_copy(update={"status": "ok"})

    monkeypatch.setattr(executors, "make_executor", lambda *_, **__: Lossy())
    words = ["run", "--task", "mackey_glass", "--learner", "bptt", "--backend", "torch", "--preset", "smoke"]
    assert main([*words, "--results", str(tmp_path), "--json"]) == 1
    said = capsys.readouterr()
    assert said.out.count('"trial"') == 2 and len(Store(tmp_path).all()) == 2
    assert "seed=1: no record: the machine failed, and not the rule; the same command runs it" in said.err
