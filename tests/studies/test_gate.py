"""The performance gate: verdicts on made-up samples, on sides with fixed answers, and on two checkouts."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from creditbench.cli import main
from creditbench.errors import UsageError
from creditbench.machine import revision
from creditbench.studies import gate
from creditbench.studies.gate import CrashError, Found, GateRow, bootstrap, compare, exact_rows, time_row

ROOT = Path(__file__).parents[2]
EXACT = {"flops": 1000, "algorithm_bytes": 4000, "operations": 60, "compilations": 1}


def samples(seed, ratio=1.0, noise=0.1, count=80):
    """Paired seconds on a machine whose speed drifts by a factor 2, as `ratio` has them."""
    rng = np.random.default_rng(seed)
    drift = 1 + np.linspace(0, 1, count)
    return (scale * drift * np.exp(noise * rng.standard_normal(count)) for scale in (1.0, ratio))


# -- verdicts on made-up samples -----------------------------------------------------------------------------


def test_what_is_the_same_is_never_slower_and_what_takes_30_percent_more_always():
    same = [time_row("anp", "jax", *samples(seed)).verdict for seed in range(40)]
    slow = [time_row("anp", "jax", *samples(seed, ratio=1.3)).verdict for seed in range(40)]
    fast = [time_row("anp", "jax", *samples(seed, ratio=0.7)).verdict for seed in range(40)]
    assert (set(same), set(slow), set(fast)) == ({"same"}, {"slower"}, {"faster"})


def test_the_interval_covers_the_ratio():
    """In 95 of 100 experiments, as it says; the bootstrap of a median is a little too wide."""
    intervals = [bootstrap(*samples(seed, ratio=1.2), draws=300) for seed in range(300)]
    covered = np.mean([found.low < 1.2 < found.high for found in intervals])
    assert 0.91 < covered < 0.99
    assert all(found.low < found.ratio < found.high for found in intervals)


def test_a_ratio_above_the_threshold_whose_interval_is_not_passes():
    base = np.ones(20)
    head = np.where(np.arange(20) % 2, 1.0, 1.5)
    assert time_row("anp", "jax", base, head).ratio == 1.25
    assert time_row("anp", "jax", base, head).verdict == "same"


@pytest.mark.parametrize(
    ("figure", "value", "verdict"),
    [
        ("flops", 1010, "same"),
        ("flops", 1011, "grown"),
        ("algorithm_bytes", 4041, "grown"),
        ("operations", 61, "grown"),
        ("operations", 59, "less"),
        ("compilations", 2, "grown"),
    ],
)
def test_exact_figures_may_grow_by_their_tolerance(figure, value, verdict):
    rows = exact_rows("anp", "jax", EXACT, EXACT | {figure: value})
    assert {row.figure: row.verdict for row in rows} == dict.fromkeys(EXACT, "same") | {figure: verdict}
    assert Found(tuple(rows)).passed is (verdict != "grown")


def test_a_figure_that_can_no_longer_be_counted_fails_and_one_that_now_can_does_not():
    less = {name: value for name, value in EXACT.items() if name != "flops"}
    lost = Found(tuple(exact_rows("anp", "jax", EXACT, less, "a while of unknown length")))
    assert not lost.passed and "flops was 1,000 and can no longer be counted" in gate.sentence(*lost.failures)
    assert Found(tuple(exact_rows("anp", "jax", less, EXACT))).passed


def test_nothing_compared_is_no_pass():
    for rows in ((), (GateRow("anp", "jax", None, None, None, None, None, "new"),)):
        found = Found(rows)
        assert not found.passed and gate.summary(found, "main") == "FAILED: nothing was compared against main"


# -- sides that answer by rote -------------------------------------------------------------------------------


class Rote:
    """A side with fixed answers. `script`: side and learner -> exact figures and seconds; None if it dies."""

    script: dict = {}  # noqa: RUF012
    started: list = []  # noqa: RUF012

    def __init__(self, name, root, backend, files):
        self.name, self.root, self.backend, self.files = name, root, backend, files
        self.started.append(name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def ask(self, do, learner=None, repeat=1):
        if do == "list":
            return {"learners": {id: ["jax"] for id in self.script[self.name]}}
        if do == "prepare":
            self.figures, self.seconds = self.script[self.name][learner] or (None, None)
            if self.figures is None:
                raise CrashError(f"{self.name}: its process ended with signal 11")
            return {"figures": self.figures, "uncounted": None}
        # What this pair of processes is off by lasts as long as the second start of it.
        return {"seconds": repeat * self.seconds[min(len(self.started) // 2, len(self.seconds)) - 1]}


def by_rote(monkeypatch, base, head, **options):
    monkeypatch.setattr(gate, "SideProcess", Rote)
    monkeypatch.setattr(Rote, "script", {"base": base, "head": head})
    monkeypatch.setattr(Rote, "started", [])
    return compare(Path("a"), Path("b"), backends=("jax",), **options)


def test_new_gone_mended_and_crashed_are_told_apart(monkeypatch):
    good = (EXACT, [0.01])
    found = by_rote(
        monkeypatch,
        base={"anp": good, "old": good, "was_broken": None, "breaks": good, "slow": good},
        head={"anp": good, "fresh": good, "was_broken": good, "breaks": None, "slow": (EXACT, [0.013])},
    )
    verdicts = {row.learner: row.verdict for row in found.rows if row.figure in (None, "seconds")}
    assert verdicts == {
        "anp": "same",
        "old": "gone",
        "fresh": "new",
        "was_broken": "mended",
        "breaks": "crashed",
        "slow": "slower",
    }
    assert found.compared == 2 * 5
    lines = [gate.sentence(row) for row in found.failures]
    assert lines == [
        "breaks jax: crashed, not slower: head: its process ended with signal 11",
        "slow jax: slower, time × 1.30 (95 % interval 1.30 to 1.30)",
    ]
    assert gate.summary(found, "main").startswith(
        "FAILED: 10 figures of 2 rules against main; 1 worse, 1 crashed"
    )
    table = gate.markdown(found, "main")
    assert "| slow | jax | 1,000 |" in table and "**1.30 (1.30 … 1.30)**" in table
    assert "- fresh jax: new" in table and "- old jax: gone" in table


def test_a_crash_of_all_is_no_regression_and_no_pass(monkeypatch):
    found = by_rote(monkeypatch, {"anp": (EXACT, [0.01])}, {"anp": None})
    assert not found.passed and found.compared == 0
    assert "0 worse, 1 crashed" in gate.summary(found, "main")


def test_what_looks_slower_is_measured_again_in_fresh_processes(monkeypatch):
    """The first pair of processes is off by 30 %, the second is not: no regression."""
    found = by_rote(monkeypatch, {"anp": (EXACT, [0.01])}, {"anp": (EXACT, [0.013, 0.01])})
    assert found.passed and found.measured_again == 1 and Rote.started == ["base", "head"] * 2
    found = by_rote(monkeypatch, {"anp": (EXACT, [0.01])}, {"anp": (EXACT, [0.013, 0.013])})
    assert not found.passed and found.measured_again == 1


def test_a_rule_that_neither_has_is_a_usage_error(monkeypatch):
    with pytest.raises(UsageError, match="unknown learner 'anpp': did you mean 'anp'"):
        by_rote(monkeypatch, {"anp": (EXACT, [0.01])}, {"anp": (EXACT, [0.01])}, learners=["anpp"])


# -- two checkouts -------------------------------------------------------------------------------------------


def checkout(path):
    for folder in ("creditbench", "learners", "tasks"):
        shutil.copytree(ROOT / folder, path / folder, ignore=shutil.ignore_patterns("__pycache__", "data"))
    return path


@pytest.mark.slow
def test_each_side_runs_its_own_rules(tmp_path):
    """A rule that does more, one that ends the process, one that is new; each in its own processes."""
    head = checkout(tmp_path)
    anp = head / "learners" / "anp.py"
    once, twice = "readout(ops, params, seen.out)\n", "readout(ops, params, 2 * seen.out) / 2\n"
    assert once in anp.read_text()
    anp.write_text(anp.read_text().replace(once, twice))
    np_ = head / "learners" / "np.py"
    np_.write_text(
        np_.read_text().replace(
            "def segment(", "def segment(self, *_):\n        import os; os._exit(3)\n\n    def other("
        )
    )
    new = (head / "learners" / "bptt.py").read_text().replace('id = "bptt"', 'id = "new"')
    (head / "learners" / "new.py").write_text(new)
    found = compare(ROOT, head, ["anp", "new", "wp", "np"], ["torch"], threshold=1e9, count=10)
    verdicts = {(row.learner, row.figure): row.verdict for row in found.rows}
    assert verdicts["anp", "kernels"] == "grown"
    assert verdicts["np", None] == "crashed" and verdicts["new", None] == "new"
    assert {verdicts["wp", name] for name in ("flops", "algorithm_bytes", "kernels", "compilations")} == {
        "same"
    }
    assert "head: its process ended with exit code 3" in "\n".join(map(gate.sentence, found.failures))


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A git repository of two commits, as the current folder; its rule is never imported."""
    path = tmp_path / "repository"
    path.mkdir()

    def git(*arguments):
        names = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        return subprocess.run(
            ["git", "-C", path, *names, *arguments], check=True, capture_output=True, text=True
        ).stdout

    git("init", "--quiet", "--initial-branch=main")
    (path / "pyproject.toml").write_text('[project.entry-points."creditbench.learners"]\nrule = "a.b:C"\n')
    git("add", "pyproject.toml")
    for text in ("before", "after"):
        (path / "file").write_text(text)
        git("add", "file")
        git("commit", "--quiet", "--message", text)
    monkeypatch.chdir(path)
    return path, git


def test_a_worktree_is_removed_whatever_happens(repository):
    path, git = repository
    with pytest.raises(ZeroDivisionError), revision.worktree("HEAD~1") as base:  # noqa: PT012
        assert (base / "file").read_text() == "before" and (path / "file").read_text() == "after"
        raise ZeroDivisionError
    assert not base.exists() and len(git("worktree", "list").splitlines()) == 1
    with pytest.raises(UsageError, match="git knows no commit 'nowhere'"), revision.worktree("nowhere"):
        pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_worktree_is_removed_on_a_signal(repository, number):
    _, git = repository
    program = (
        "import signal, time, creditbench.machine.revision as revision, creditbench.cli.perf_gate as verb\n"
        # A shell gives what it starts in the background an ignored SIGINT.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "verb.end_cleanly()\n"
        "with revision.worktree('HEAD') as base:\n"
        "    print(base, flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        base = Path(process.stdout.readline().strip())
        assert (base / "file").exists()
        process.send_signal(number)
        assert process.wait(20) != 0
    assert not base.exists() and len(git("worktree", "list").splitlines()) == 1


def test_changed_files_are_those_since_the_revision_was_left(repository):
    path, git = repository
    git("branch", "topic", "HEAD~1")
    assert revision.changed("HEAD~1") == [Path("file")] and revision.changed("HEAD") == []
    (path / "new").write_text("")
    assert revision.changed("HEAD") == [Path("new")]
    assert revision.changed("topic") == [Path("file"), Path("new")]
    git("checkout", "--quiet", "topic")
    assert revision.changed("main") == [Path("new")]  # what main alone did is no change of this branch


# -- the verb ------------------------------------------------------------------------------------------------


def test_the_verb_prints_json_adds_to_the_summary_and_exits(repository, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    answer = Found(tuple(exact_rows("anp", "jax", EXACT, EXACT | {"flops": 2000})))
    monkeypatch.setattr(gate, "compare", lambda *_: answer)
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    assert main(["perf-gate", "--base", "HEAD", "--json", "--summary", str(summary)]) == 1
    said = capsys.readouterr()
    rows = json.loads(said.out)
    assert {row["figure"] for row in rows if row["verdict"] == "grown"} == {"flops"}
    assert "anp jax: flops grew from 1,000 to 2,000" in said.err
    assert summary.read_text().startswith("before\n## Performance\n")
    monkeypatch.setattr(gate, "compare", lambda *_: Found(()))
    assert main(["perf-gate", "--base", "HEAD"]) == 1
    assert "nothing was compared" in capsys.readouterr().err
    monkeypatch.setattr(gate, "compare", lambda *_: Found(tuple(exact_rows("anp", "jax", EXACT, EXACT))))
    assert main(["perf-gate", "--base", "HEAD"]) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--base", "nowhere"], "git knows no commit 'nowhere'"),
        (["--base", "HEAD", "--backend", "numpy"], "unknown backend 'numpy'"),
        (["--base", "HEAD", "--threshold", "0.9"], "--threshold is 0.9"),
        (["--base", "HEAD", "--pairs", "3"], "--pairs is 3"),
        (["--base", "HEAD", "--learner", "rule,./file"], "name ids alone"),
        (["--base", "HEAD", "--learner", "./none.py"], "no file"),
        (["--base", "HEAD", "--learner", "./"], "holds a learner"),
        (["--base", "HEAD", "--learner", str(ROOT / "learners" / "anp.py")], "is not in the repository"),
    ],
)
def test_bad_usage_is_one_line(repository, capsys, arguments, said):
    assert main(["perf-gate", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_what_has_no_rules_or_no_revisions_is_said(repository, monkeypatch, tmp_path, capsys):
    path, _ = repository
    (path / "pyproject.toml").write_text("[project]\n")
    assert main(["perf-gate", "--base", "HEAD"]) == 2
    assert f"{path} has no entry points of creditbench.learners" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    assert main(["perf-gate", "--base", "HEAD"]) == 2
    assert f"{tmp_path} is in no git repository" in capsys.readouterr().err


# -- somebody else's repository ------------------------------------------------------------------------------


def test_a_repository_of_somebody_else_is_measured_by_its_own_rules(repository, monkeypatch, capsys):
    """In a folder of it: a rule whose head does more, and one that breaks; with what is not committed yet."""
    top, git = repository
    assert main(["new", "project", "own_rules"]) == 0
    package = top / "own_rules" / "src" / "own_rules"
    config = top / "own_rules" / "pyproject.toml"
    rule = (package / "rule.py").read_text()
    (package / "other.py").write_text(rule.replace('"own_rules"', '"other"'))
    point = 'own_rules = "own_rules.rule:OwnRules"\n'
    config.write_text(config.read_text().replace(point, f'{point}other = "own_rules.other:OwnRules"\n'))
    git("add", "own_rules")
    git("commit", "--quiet", "--message", "two rules")
    once = "back(now.slope, now.delta)"
    assert once in rule
    (package / "rule.py").write_text(rule.replace(once, f"({once} + {once})"))
    (package / "other.py").write_text("1 / 0\n")
    monkeypatch.chdir(package)
    gates = [
        "perf-gate",
        "--base",
        "HEAD",
        "--backend",
        "torch",
        "--pairs",
        "10",
        "--threshold",
        "1e9",
        "--json",
    ]
    assert main(gates) == 1
    said = capsys.readouterr()
    verdicts = {(row["learner"], row["figure"]): row["verdict"] for row in json.loads(said.out)}
    assert verdicts["own_rules", "kernels"] == "grown"
    assert verdicts["own_rules", "compilations"] == "same" and verdicts["other", None] == "crashed"
    assert "other torch: crashed, not slower: head: ImportError" in said.err and "ZeroDivision" in said.err
    assert len(git("worktree", "list").splitlines()) == 1
