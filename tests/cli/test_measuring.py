"""`scale` and `gradients` from the command line, and what a record keeps of a trial's cost."""

from __future__ import annotations

import dataclasses
import json

import pytest

from creditbench.cli import main
from creditbench.errors import UsageError
from creditbench.leaderboard.text import exponents_markdown
from creditbench.machine.environment import constant
from creditbench.measure.roofline import Peaks, least_bytes, share, triad_bytes
from creditbench.results.measured import GradientQuality, ScalingPoint, read_rows
from creditbench.results.store import Store
from creditbench.results.table import render, rows, summarise
from creditbench.studies.process import results
from creditbench.studies.scaling import USUAL, make_update
from creditbench.trials.grid import Options, make_grid
from creditbench.trials.record import SCHEMA_VERSION, Record
from creditbench.trials.trainer import run_trials


@pytest.fixture(scope="module")
def record() -> Record:
    options = Options(
        tasks=("mackey_glass",),
        learners=("anp",),
        backends=("torch",),
        hidden=8,
        budget=40,
        evaluations=2,
        measure=True,
        preset="smoke",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("creditbench.trials.blocks.MEASURE_SECONDS", 0.05)
        (found,) = run_trials(make_grid(options).trials)
    return found


SCALE = ("--hidden", "16", "--sizes", "40,80,160", "--seconds", "0.01")


def test_scale_sets_exponents_beside_claims(tmp_path, capsys):
    words = ["scale", "--learner", "bptt,forward", "--backend", "torch", *SCALE]
    assert main([*words, "--output", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {(row["learner"], row["quantity"]) for row in found} == {
        (learner, quantity)
        for learner in ("bptt", "forward")
        for quantity in ("time", "algorithm_bytes", "flops")
    }
    keys = ("learner", "backend", "axis", "quantity", "exponent", "interval", "claimed")
    assert all(set(keys) <= set(row) for row in found)
    memory = next(row for row in found if (row["learner"], row["quantity"]) == ("bptt", "algorithm_bytes"))
    assert memory["exponent"] == pytest.approx(1.0, abs=0.1) and memory["claimed"] == 1.0 and memory["held"]
    assert json.loads((tmp_path / "scaling.json").read_text()) == found
    for name in ("scaling.csv", "scaling_T.pdf", "scaling_T.png"):
        assert (tmp_path / name).stat().st_size > 100
    points = read_rows(ScalingPoint, tmp_path / "scaling.csv", "scale")
    assert {(p.learner, p.quantity, p.size) for p in points} == {
        (row["learner"], row["quantity"], size) for row in found for size in (40, 80, 160)
    }
    assert {(p.exponent, p.low, p.high) for p in points} == {
        (row["exponent"], *row["interval"]) for row in found
    }


HOARDER = '''"""Claims no memory in T and has BPTT's."""
from dataclasses import dataclass
from creditbench.learner import Claims, Learner, backpropagate

@dataclass(frozen=True, kw_only=True)
class Hoarder(Learner):
    id, name, paper, family = "hoarder", "Hoarder", "none", "test"
    claims = Claims(memory_in_T="O(1)")

    def segment(self, ops, cell, params, state, batch, key):
        print("a line on standard output")
        found = backpropagate(ops, cell, params, state["cell"], batch)
        return found._replace(state={"cell": found.state})
'''


@pytest.mark.needs("jax", "torch")
def test_scale_says_what_a_backend_leaves_out(tmp_path, monkeypatch, capsys):
    path = tmp_path / "hoarder.py"
    path.write_text(
        HOARDER.replace("    def segment", '    backends = frozenset({"jax"})\n\n    def segment')
    )
    orders = []

    def results(job, backend, rules, sizes, **order):
        orders.append((backend, [name for (name, *_), _ in rules]))
        for (name, *_), (cell, *_) in rules:
            for size in (1, 2):
                yield {
                    "learner": name,
                    "cell": cell,
                    "axis": "T",
                    "size": size,
                    "quantity": "flops",
                    "values": [size],
                }

    monkeypatch.setattr("creditbench.studies.process.results", results)
    arguments = [
        "scale",
        "--learner",
        f"{path},bptt,forward",
        "--quantity",
        "flops",
        "--sizes",
        "1,2",
        "--json",
    ]
    assert main(arguments) == 0
    said = capsys.readouterr()
    assert orders == [("jax", ["hoarder", "bptt", "forward"]), ("torch", ["bptt", "forward"])]
    assert said.err.count("note: hoarder does not run on torch: left out") == 1
    assert "[10/10]" in said.err and len(json.loads(said.out)) == 5
    assert main(["scale", "--learner", str(path), "--backend", "torch"]) == 2
    assert "none runs there" in capsys.readouterr().err


def test_scale_exits_1_where_a_claim_does_not_hold(tmp_path, capsys):
    path = tmp_path / "hoarder.py"
    path.write_text(HOARDER)
    words = ["scale", "--learner", str(path), "--backend", "jax", "--hidden", "16", "--sizes", "400,800,1600"]
    assert main([*words, "--quantity", "algorithm_bytes", "--json"]) == 1
    said = capsys.readouterr()
    (row,) = json.loads(said.out)
    assert row["held"] is False and row["claimed"] == 0.0
    assert "hoarder jax: algorithm_bytes grows as T^1.0" in said.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("scale",), "--learner is left out"),
        (("scale", "--learner", "bptt", "--axis", "K"), "unknown axis 'K'"),
        (("scale", "--learner", "bptt", "--sizes", "0,5"), "--sizes is '0,5'"),
        (("scale", "--learner", "bptt", "--sizes", "8"), "two different sizes"),
        (
            ("scale", "--learner", "bptt", "--set", "anp.sigma=1"),
            "anp is not in this grid (bptt): add it with --learner",
        ),
        (("scale", "--learner", "bptt", "--axis", "T", "--steps", "9"), "--steps is 9 and --axis is T"),
        (("scale", "--learner", "bptt", "--sizes", "8,0"), "give whole numbers from 1 with commas"),
        (("scale", "--learner", "anp", "--set", "anp.lr=1"), "anp.lr is set, and nothing is trained here"),
        (("scale", "--learner", "bptt", "--quantity", "flop"), "did you mean 'flops'"),
        (("gradients", "--learner", "np"), "--task is left out"),
        (("gradients", "--learner", "np+D", "--task", "adding"), "leave out the suffix"),
        (("gradients", "--learner", "np", "--task", "adding", "--parts", "2"), "from 0 to 1"),
        (("gradients", "--learner", "np", "--task", "adding", "--parts", "0,nan,1"), "from 0 to 1"),
        (("gradients", "--learner", "np", "--task", "adding", "--settle", "-1"), "--settle is -1"),
        (("gradients", "--learner", "np", "--task", "adding", "--draws", "2"), "takes 3 or more"),
        (("gradients", "--learner", "np", "--task", "adding", "--steps", "5"), "leave out --steps"),
        (("gradients", "--learner", "np", "--task", "adding", "--data", "ading=a.csv"), "'ading'"),
        (("scale", "--learner", "bptt", "--json", "--format", "markdown"), "give one of them"),
        (("doctor", "--learner", "bptt", "--hidden", "0"), "--hidden is 0"),
        (("doctor", "--hidden", "64"), "--hidden is 64: it is of learners"),
    ],
)
def test_bad_options_are_refused_in_one_line(arguments, said, capsys):
    assert main(list(arguments)) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


@pytest.mark.parametrize("verb", ["scale", "gradients"])
def test_help_has_examples(verb, capsys):
    assert main([verb, "--help"]) == 0
    assert "Examples:" in capsys.readouterr().out


def test_gradients_prints_and_draws_figures(tmp_path, capsys):
    options = ("--preset", "smoke", "--hidden", "8", "--steps", "10", "--draws", "20", "--backend", "jax")
    arguments = ["gradients", "--learner", "bptt,np,readout_rls", "--task", "mackey_glass", *options]
    assert main([*arguments, "--parts", "0,1", "--json", "--output", str(tmp_path)]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert [(row["learner"], row["point"]) for row in found] == [
        (learner, point) for point in (0.0, 1.0) for learner in ("bptt", "np")
    ]
    keys = ("backend", "task", "cosine", "bias", "variance", "draws_to_cosine")
    assert all(set(keys) <= set(row) for row in found)
    assert all(row["bias"] < 1e-5 for row in found if row["learner"] == "bptt")
    assert said.err.count("readout_rls gives no gradient") == 1
    assert len(read_rows(GradientQuality, tmp_path / "gradients.csv", "gradients")) == len(found)
    for name in ("gradients.json", "gradients.csv", "gradients.pdf", "gradients.png"):
        assert (tmp_path / name).stat().st_size > 100


def test_gradients_are_those_of_the_task_as_it_is_set_and_of_a_state_that_has_settled(monkeypatch, capsys):
    """BPTT runs on the same tasks with the same settings. A note says why a rule is left out."""
    orders = []

    def results(job, **order):
        orders.append(order)
        yield {"learner": "oua", "point": 0.5, "note": "has none"}
        yield {"learner": "oua", "point": 1.0, "note": "has none"}

    monkeypatch.setattr("creditbench.studies.process.results", results)
    settings = ("--set", "delayed_match.delay=3", "--set", "adding.length=7", "--set", "oua.sigma=0.5")
    tasks = ("--task", "adding,delayed_match", "--preset", "smoke", "--parts", "0.4,1", "--settle", "4")
    assert main(["gradients", "--learner", "oua", *tasks, *settings]) == 2
    said = capsys.readouterr().err
    assert said.count("note: oua has none") == 1 and "none of them gives a gradient" in said
    assert [order["run"]["segment"] for order in orders] == [7, 2 + 3 + 2]
    for order in orders:
        assert order["settle"] == 4 and order["run"]["learner"] == "bptt"
        (trial,) = order["trials"]
        assert trial["task_parameters"] == order["run"]["task_parameters"]
        assert trial["hyperparameters"]["sigma"] == 0.5


def test_a_measuring_process_that_ends_is_told_of():
    order = dict(backend="torch", device="cpu", threads=1)
    with pytest.raises(UsageError, match="exit code 1: KeyError"):
        list(results("no such job", **order))
    with pytest.raises(UsageError, match="no cuda:77 device for torch"):
        list(results("shares", **order | {"device": "cuda:77"}, learners=[], fixed={}))


# -- roofline --------------------------------------------------------------------------------------------


def test_the_share_is_that_of_the_tighter_bound():
    peaks = Peaks(gemm_gflops=10.0, triad_gbytes=2.0)
    assert share(peaks, flops=5e9, bytes=1e8, seconds=1.0) == pytest.approx(0.5)
    assert share(peaks, flops=1e8, bytes=1e9, seconds=1.0) == pytest.approx(0.5)
    update = make_update(("forward", None, {}), USUAL, {"T": 10, "n": 100, "B": 1})
    weights = 4 * 100 * (100 + 2 + 2)
    assert least_bytes(update, 12345, cache=1 << 20) == 2 * weights + 4 * 10 * 5
    assert least_bytes(update, 12345, cache=weights - 1) == least_bytes(update, 12345, None) == 12345


def test_the_triad_does_not_fit_into_the_last_cache():
    assert [triad_bytes(cache << 20) >> 20 for cache in (1, 32, 1024)] == [16, 128, 512]
    assert triad_bytes(None) == 16 << 20


# -- records ---------------------------------------------------------------------------------------------


def test_what_an_update_costs_is_measured_once_for_the_seeds_of_a_program(monkeypatch):
    """Seeds share the program and its figures; another rate has the same program, timed on its own."""
    from creditbench.measure import cost, work

    cost._exact.cache_clear()
    counted, count = [], work.count
    monkeypatch.setattr(work, "count", lambda *args: counted.append(args) or count(*args))
    monkeypatch.setattr("creditbench.trials.blocks.MEASURE_SECONDS", 0.01)
    options = Options(
        tasks=("mackey_glass",),
        learners=("anp",),
        backends=("torch",),
        hidden=4,
        budget=40,
        evaluations=2,
        seeds=(0, 1, 2),
        measure=True,
    )
    found = list(run_trials(make_grid(options).trials))
    assert len(counted) == 1 and len({(r.flops_per_step, r.ratio_bptt) for r in found}) == 1
    (again,) = run_trials(make_grid(dataclasses.replace(options, seeds=(0,), lrs=(1e-4,))).trials)
    assert len(counted) == 1 and again.trial.family != found[0].trial.family
    assert again.flops_per_step == found[0].flops_per_step and again.ratio_bptt != found[0].ratio_bptt
    (other,) = run_trials(make_grid(dataclasses.replace(options, seeds=(0,), hidden=5)).trials)
    assert len(counted) == 2 and other.flops_per_step > found[0].flops_per_step


def test_a_trial_says_what_it_cost(record):
    assert record.status == "ok"
    assert record.ratio_forward > 1.0 and record.ratio_bptt > 0.0
    assert record.flops_per_step > 2 * 2 * 8 * 8  # two passes through W_rec
    assert record.algorithm_bytes > 4 * 8 and record.device_peak_bytes is None
    assert record.process_peak_source in ("VmHWM", "ru_maxrss")
    found = summarise([record])[0]
    assert {"× forward", "× bptt", "algorithm kB"} <= set(found.heads)
    bare = record.model_copy(update={"ratio_forward": None})
    assert "× forward" not in summarise([bare])[0].columns


def test_measuring_is_no_part_of_a_trials_hash(record):
    other = record.trial.model_copy(update={"measure": False})
    assert other.id == record.trial.id and "measure" not in record.row()


def test_a_cost_that_cannot_be_taken_leaves_the_training(record, monkeypatch, capsys):
    from creditbench.trials import blocks

    def fails(*_):
        raise RuntimeError("no clock")

    monkeypatch.setattr(blocks, "figures", fails)
    (found,) = run_trials([record.trial])
    assert found.status == "ok" and found.test_score == record.test_score
    assert found.ratio_forward is None and "no clock" in capsys.readouterr().err


def test_a_record_of_the_first_schema_is_read(tmp_path, record):
    new = ("ratio_forward", "ratio_bptt", "flops_per_step", "algorithm_bytes")
    new += ("process_peak_source", "device_peak_bytes")
    values = json.loads(record.model_dump_json())
    del values["trial"]["measure"]
    values = {k: v for k, v in values.items() if k not in new} | {"schema_version": 1}
    there = Store(tmp_path)
    there.records.mkdir()
    there.path(record.trial).write_text(json.dumps(values))
    (read,) = there.all()
    assert read.schema_version == SCHEMA_VERSION and read.test_score == record.test_score
    assert read.ratio_forward is None and read.process_peak_source == "ru_maxrss"
    assert Record.model_validate(json.loads(read.model_dump_json())) == read


def test_an_environment_is_kept_once(record):
    other = record.model_copy(update={"environment": record.environment | {"cores": 999}})
    found = json.loads(render([record, record, other], "environments"))
    assert len(found) == 2
    for row, environment in zip(rows([record, other]), (record.environment, other.environment), strict=True):
        assert found[row["environment"]] == json.loads(json.dumps(constant(environment)))


def test_exponents_as_a_table_for_a_document():
    common = {"learner": "wp", "cell": "tanh", "backend": "jax", "interval": [0, 0], "left_out": []}
    rows = [
        common
        | {"axis": "n", "quantity": "time", "exponent": 1.9, "claimed": 2.0, "held": None, "left_out": [512]},
        common | {"axis": "T", "quantity": "algorithm_bytes", "exponent": 0.3, "claimed": 0.0, "held": False},
        common
        | {"learner": "anp", "axis": "T", "quantity": "algorithm_bytes"}
        | {"exponent": 0.01, "claimed": 0.0, "held": True},
    ]
    assert exponents_markdown(rows).splitlines() == [
        "| rule | backend | time in n | algorithm bytes in T |",
        "| --- | --- | ---: | ---: |",
        "| anp | jax | – | 0.01 (0) ✓ |",
        "| wp | jax | 1.90 (2)* | 0.30 (0) ✗ |",
    ]
    rows[2]["cell"] = "gru"
    for shown in (rows, rows[2:]):
        assert "| anp with gru | jax |" in exponents_markdown(shown)


def test_scale_and_gradients_measure_each_rule_with_each_cell(tmp_path, capsys):
    """A pair that does not fit is left out with a note; the constants of a cell are set."""
    words = ["--cell", "tanh,lru", "--set", "lru.r_max=0.9", "--json"]
    sizes = ["--axis", "n", "--sizes", "16,32", "--quantity", "flops", "--output", str(tmp_path / "scaling")]
    assert main(["scale", "--learner", "kf_rtrl,forward", "--backend", "jax", *sizes, *words]) == 0
    found = capsys.readouterr()
    rows = json.loads(found.out)
    assert [(row["learner"], row["cell"]) for row in rows] == [
        *(("kf_rtrl", "tanh"), ("forward", "tanh"), ("forward", "lru"))
    ]
    assert rows[1]["exponent"] > 1.5 > 1.1 > rows[2]["exponent"]  # nothing of a diagonal cell is n × n
    assert found.err.count("note: kf_rtrl does not go with lru: its influence") == 1
    points = read_rows(ScalingPoint, tmp_path / "scaling" / "scaling.csv", "scale")
    assert {(p.learner, p.cell) for p in points} == {(row["learner"], row["cell"]) for row in rows}
    task = ["--task", "mackey_glass", "--preset", "smoke", "--hidden", "4", "--parts", "0", "--steps", "5"]
    output = ["--output", str(tmp_path / "gradients")]
    assert main(["gradients", "--learner", "kf_rtrl,eprop", "--draws", "3", *task, *output, *words]) == 0
    found = capsys.readouterr()
    rows = {(row["learner"], row["cell"]): row for row in json.loads(found.out)}
    assert list(rows) == [("kf_rtrl", "tanh"), ("eprop", "tanh"), ("eprop", "lru")]
    assert rows["eprop", "lru"]["bias"] < 1e-5 < 1e-2 < rows["eprop", "tanh"]["bias"]
    assert found.err.count("note: kf_rtrl does not go with lru: its influence") == 1
    assert (tmp_path / "gradients" / "gradients.png").stat().st_size > 100
    assert main(["scale", "--learner", "kf_rtrl", "--cell", "lru"]) == 2
    assert "nothing is left to measure: kf_rtrl does not go with lru" in capsys.readouterr().err
