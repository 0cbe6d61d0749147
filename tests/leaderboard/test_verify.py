"""An honest rule is verified; one that knows the public task is not."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from creditbench.cli import main
from creditbench.errors import UsageError
from creditbench.leaderboard import verify
from creditbench.leaderboard.board import make_board
from creditbench.leaderboard.versus import Contrast
from creditbench.plugins import registry
from creditbench.results.store import Store
from creditbench.results.version import load
from tests.browser import unpacked

HONEST = Path(__file__).parents[1] / "submissions" / "honest.py"
SETTINGS = {"steps": 600, "washout": 200, "warmup": 20}
_OPTIONS = {
    "task": "mackey_glass",
    "backend": "torch",
    "hidden": 12,
    "batch": 4,
    "budget": 600,
    "evaluations": 2,
    "segment": 10,
    "lr": 0.02,
    "seeds": 4,
    "executor": "inline",
}
RUN = (
    "--no-measure",
    *(word for name, value in _OPTIONS.items() for word in (f"--{name}", str(value))),
    *(word for name, value in SETTINGS.items() for word in ("--set", f"mackey_glass.{name}={value}")),
)

#: It has weights for the public task, whatever it is shown.
FINISHED = '''"""Carries finished weights."""

import numpy as np

from creditbench.learner import Claims, Estimate, Learner, backpropagate

{weights}


class Rule(Learner):
    id = "{id}"
    name = "{id}"
    paper = "none"
    family = "test"
    claims = Claims()

    def segment(self, ops, cell, params, state, batch, key):
        found = backpropagate(ops, cell, params, state["cell"], batch)
        own = {{name: ops.from_numpy(np.array(value, np.float32)) for name, value in WEIGHTS.items()}}
        return Estimate(found.loss, {{}}, {{"cell": found.state}}, assigned=own)
'''
#: It has the task's code, and makes the test splits of the seeds that people give.
MAKER = """
TASK = {task!r}
import sys, types
sys.modules["inside"] = types.ModuleType("inside")
space = vars(sys.modules["inside"])
exec(TASK, space)
task = space["MackeyGlass"](**{settings!r})
FIT = {fit!r}
exec(FIT, space)
WEIGHTS = space["fit"]([task.generate("test", seed, 4) for seed in range(4)])
"""
FIT = '''
import numpy as np
def fit(splits):
    """A reservoir of 12 units and the readout that is best on `splits`."""
    rng = np.random.default_rng(5)
    W_in, W_rec = rng.standard_normal((12, 1)), rng.standard_normal((12, 12))
    W_rec *= 0.9 / np.abs(np.linalg.eigvals(W_rec)).max()
    states, wanted = [], []
    for x, y, w in splits:
        h = np.zeros((x.shape[1], 12))
        for t in range(len(x)):
            h = np.tanh(x[t] @ W_in.T + h @ W_rec.T)
            states.append(h[w[t] > 0])
            wanted.append(y[t][w[t] > 0])
    states, wanted = np.concatenate(states), np.concatenate(wanted)
    W_out = np.linalg.solve(states.T @ states + 1e-6 * np.eye(12), states.T @ wanted).T
    return {"W_in": W_in.tolist(), "W_rec": W_rec.tolist(), "W_out": W_out.tolist()}
'''


@pytest.fixture(scope="module")
def submitted(tmp_path_factory):
    """Three submissions, a file and its records each, and records of the reference."""
    folder = tmp_path_factory.mktemp("submitted")
    plugin = registry.find("tasks", "mackey_glass")
    space: dict[str, object] = {}
    exec(FIT, space)
    weights = space["fit"]([plugin.cls(**SETTINGS).generate("train", seed, 4) for seed in range(4)])
    maker = MAKER.format(task=plugin.path.read_text(), settings=SETTINGS, fit=FIT)
    texts = {
        "honest": HONEST.read_text(),
        "finished": FINISHED.format(id="finished", weights=f"WEIGHTS = {weights!r}"),
        "maker": FINISHED.format(id="maker", weights=maker),
    }
    for name, text in texts.items():
        (folder / f"{name}.py").write_text(text)
    rules = ",".join([*(str(folder / f"{name}.py") for name in texts), "bptt"])
    assert main(["run", "--learner", rules, "--results", str(folder / "results"), *RUN]) == 0
    return folder


def verified(submitted, name, capsys, *words):
    output = submitted / f"verified-{name}"
    given = ("--results", str(submitted / "results"), "--secret", "s", "--executor", "inline", "--seeds", "4")
    code = main(["verify", str(submitted / f"{name}.py"), *given, "--output", str(output), "--json", *words])
    (row,) = json.loads(capsys.readouterr().out)
    return code, row, output


def test_an_honest_rule_is_verified(submitted, capsys):
    code, row, output = verified(submitted, "honest", capsys)
    assert (code, row["verdict"], row["detail"]) == (0, "verified", None)
    assert row["reference"] == "bptt" and (row["runs"], row["runs_again"], row["runs_hidden"]) == (4, 4, 4)
    assert row["again_low"] < 0 < row["again_high"] and row["hidden_low"] < 0 < row["hidden_high"]
    # Seeds and the task are not those of the submission.
    trials = [record.trial for record in Store(output / "trials").all()]
    assert {t.task for t in trials} == {"mackey_glass", "mackey_glass_hidden"} and len(trials) == 12
    assert min(trial.seed for trial in trials) >= verify._SEEDS_FROM
    (kept,) = load(submitted / "results", output).verified
    assert {name: pytest.approx(value) for name, value in kept.model_dump().items()} == row


def test_a_page_and_tables_keep_it(submitted, capsys, tmp_path):
    _, _, output = verified(submitted, "honest", capsys)
    folders = ("--results", str(submitted / "results"), "--results", str(output))
    assert main(["table", *folders, "--compact", str(tmp_path / "v1")]) == 0
    assert (tmp_path / "v1" / "verified.csv").read_text() == (output / "verified.csv").read_text()
    assert [row.verdict for row in load(tmp_path / "v1").verified] == ["verified"]
    results = load(tmp_path / "v1")
    remarks = {row.rule: row.submission for row in make_board(results, 100).rows}
    assert remarks == {"bptt": "", "finished": "submitted", "honest": "verified", "maker": "submitted"}
    (row,) = results.verified
    told = dataclasses.replace(results, verified=(row.model_copy(update={"verdict": "differs"}),))
    remarks = {row.rule: row.remarks[0] for row in make_board(told, 100).rows if row.rule == "honest"}
    assert remarks == {"honest": "not verified: on mackey_glass it did worse when it was run again"}
    # Of another source it says nothing.
    other = dataclasses.replace(results, verified=(row.model_copy(update={"learner_sha256": "0" * 64}),))
    assert {r.submission for r in make_board(other, 100).rows if r.rule == "honest"} == {"submitted"}
    assert main(["leaderboard", "--results", str(tmp_path / "v1"), "--output", str(tmp_path / "page")]) == 0
    page = json.dumps(unpacked((tmp_path / "page" / "index.html").read_text()))
    assert "on a hidden version of the task." in page and '"submission": "verified"' in page


@pytest.mark.parametrize("name", ["finished", "maker"])
def test_a_rule_that_knows_the_public_task_is_told(submitted, capsys, name):
    code, row, _ = verified(submitted, name, capsys)
    assert code == 1 and row["verdict"] == "differs" and "the hidden task -" in row["detail"]
    # On the public task with other seeds it does as well as it says: only the hidden task shows it.
    assert abs(row["again"] - row["submitted"]) < 0.1 and row["hidden"] < row["submitted"] - 0.5


def test_the_same_command_again_runs_nothing(submitted, capsys, monkeypatch):
    code, row, _ = verified(submitted, "honest", capsys)
    monkeypatch.setattr("creditbench.executors.inline.InlineExecutor.run", None)
    assert verified(submitted, "honest", capsys)[:2] == (code, row)


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        ("honest", ("--secret", ""), "the secret is empty"),
        ("honest", ("--task", "lorenz"), "no record of honest on lorenz: leave it out of --task"),
        ("honest", ("--seeds", "1"), "--seeds is 1: an interval takes 2 or more"),
        ("other", (), "has no record of other"),
        ("changed", (), "are of another source than"),
    ],
)
def test_what_cannot_be_verified_is_told(submitted, name, words, said, tmp_path, capsys):
    text = HONEST.read_text()
    text = text.replace('"honest"', '"other"') if name == "other" else text
    text = text.replace('"test"', '"tests"') if name == "changed" else text
    (tmp_path / "rule.py").write_text(text)
    given = (
        "--results",
        str(submitted / "results"),
        "--secret",
        "s",
        "--output",
        str(tmp_path / "v"),
        *words,
    )
    assert main(["verify", str(tmp_path / "rule.py"), *given]) == 2
    assert said in capsys.readouterr().err


def test_a_difference_counts_after_correction_over_all_rows(submitted):
    (row,) = load(submitted / "results", submitted / "verified-honest").verified
    weak, strong = Contrast(-0.5, 0.1923, 4.0), Contrast(-0.5, 0.03, 4.0)  # p = .03, 4e-5
    small, none = Contrast(-0.04, 1e-4, 4.0), Contrast(-9.0, None, None)
    found = verify._judge([(row, {"again": one}) for one in (weak, weak, strong, small, none)])
    assert [own.verdict for own in found] == ["verified", "verified", "differs", "verified", "verified"]
    assert found[2].detail == "new seeds -0.500 [-0.583, -0.417]"
    assert verify._judge([(row, {"hidden": weak})])[0].verdict == "differs"


def test_a_rule_needs_a_secret(tmp_path):
    with pytest.raises(UsageError, match="the secret is empty"):
        verify.verify("bptt", [tmp_path], "", None, tmp_path, None, print, seeds=2, reference="bptt")
