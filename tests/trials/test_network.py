"""The cell as a choice: in a grid, in a tuned file, in a trial, from a user's file."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from creditbench.cells import CELLS, Tanh
from creditbench.errors import UsageError
from creditbench.executors import make_executor, make_jobs
from creditbench.executors.base import imports_own
from creditbench.leaderboard.board import command
from creditbench.plugins import contributed, registry
from creditbench.results import store
from creditbench.results.conditions import columns_of
from creditbench.trials.grid import Options, make_grid
from creditbench.trials.network import cell_of
from creditbench.trials.record import Record
from creditbench.trials.trainer import Trainer, run_trials
from creditbench.trials.trial import Trial

TEMPLATES = files("creditbench") / "plugins" / "templates"
SMALL = {"preset": "smoke", "hidden": 4, "budget": 40, "evaluations": 2, "segment": 4}


def grid(*learners, task="mackey_glass", settings=None, **options):
    own = {"mackey_glass.steps": "300"} if task == "mackey_glass" else {}
    asked = Options(
        tasks=(task,), learners=learners or ("bptt",), settings=own | (settings or {}), **SMALL | options
    )
    return make_grid(asked)


def record(trial: Trial) -> Record:
    return Record(
        suite_version="0",
        trial=trial,
        learner_source="builtin",
        status="ok",
        metric="nrmse",
        metric_direction="min",
    )


@pytest.fixture
def mine(tmp_path):
    """A user's own cell, the template."""
    path = tmp_path / "my_cell.py"
    path.write_text((TEMPLATES / "cell.py").read_text())
    return path


def test_a_grid_has_each_rule_with_each_cell():
    made = grid("bptt", "anp", cells=("tanh", "gru", "lif"), seeds=(0, 1)).trials
    assert [(t.cell, t.rule) for t in made[::2]] == [
        (cell, rule) for cell in ("tanh", "gru", "lif") for rule in ("bptt", "anp")
    ]
    assert len({trial.id for trial in made}) == 12
    assert made[-1].cell_parameters == {"decay": 0.95, "threshold": 1.0, "dampening": 0.3}
    assert all(trial.cell_sha256 is trial.cell_path is None for trial in made)


def test_trials_of_tanh_are_as_if_there_were_no_other_cell():
    trial = grid().trials[0]
    older = {name: value for name, value in trial.model_dump().items() if not name.startswith("cell")}
    assert Trial.model_validate(older) == trial and Trial.model_validate(older).id == trial.id
    assert grid(cells=("tanh",)).trials[0].id == trial.id != grid(cells=("linear",)).trials[0].id


def test_the_constants_of_a_cell_are_set_and_count():
    plain, other = (
        grid(cells=("lif",), settings=settings).trials[0] for settings in ({}, {"lif.decay": "0.9"})
    )
    assert other.cell_parameters["decay"] == 0.9 and plain.id != other.id
    assert plain.conditions != other.conditions
    cell = Trainer(other).cell
    assert (cell.id, cell.decay, cell.hidden, cell.inputs) == ("lif", 0.9, 4, 1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cells": ("gruu",)}, "unknown cell 'gruu': did you mean 'gru'"),
        ({"cells": ()}, "no cell is named"),
        (
            {"cells": ("lif",), "settings": {"lif.decai": "1"}},
            "unknown parameter of lif 'decai': did you mean",
        ),
        ({"cells": ("lif",), "settings": {"lif.decay": "x"}}, "lif.decay is 'x'"),
        ({"cells": ("lif",), "settings": {"lif.decay": "2"}}, "decay is 2.0"),
        ({"cells": ("gru",), "settings": {"gru.hidden": "2"}}, "unknown parameter gru.hidden: gru has none"),
        (
            {"cells": ("gru",), "settings": {"lif.decay": "0.5"}},
            "lif is not in this grid (mackey_glass, bptt, gru): add it with --cell",
        ),
        (
            {"cells": ("tanh", "gru"), "alpha": 0.5},
            "alpha is 0.5 and the cell gru has no leak: leave --alpha out",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(options, said):
    with pytest.raises(UsageError) as caught:
        grid(**options)
    assert said in str(caught.value)


@pytest.fixture
def leaky(monkeypatch):
    """The task has a leak by default."""
    monkeypatch.setattr(registry.find("tasks", "mackey_glass").cls, "alpha", 0.5)


def test_the_leak_is_the_tasks_where_a_cell_has_one(leaky):
    made = grid(cells=CELLS).trials
    assert {t.cell: t.alpha for t in made} == dict.fromkeys(CELLS, 1.0) | {"tanh": 0.5, "linear": 0.5}
    assert grid(cells=("gru",), alpha=1.0).trials[0].alpha == 1.0


def test_a_pair_that_does_not_fit_is_left_out_and_alone_refused():
    made = grid("bptt", "kf_rtrl", cells=("tanh", "lru"))
    assert [(t.rule, t.cell) for t in made.trials] == [("bptt", "tanh"), ("kf_rtrl", "tanh"), ("bptt", "lru")]
    assert len(made.notes) == 1
    assert made.notes[0].startswith("kf_rtrl does not go with lru: its influence")
    assert made.notes[0].endswith("; it is left out")
    with pytest.raises(UsageError, match=r"^kf_rtrl does not go with lru: .*; name another cell or learner$"):
        grid("kf_rtrl", cells=("lru",))
    with pytest.raises(UsageError, match="nothing is left to run: kf_rtrl does not go with lru"):
        grid("kf_rtrl", "snapn", cells=("lru",))


def test_trials_of_two_cells_stand_in_no_common_column(leaky):
    made = grid(cells=("gru", "tanh", "lif"), settings={"lif.decay": "0.9"}).trials
    found = columns_of(map(record, made))
    assert list(found.values()) == [
        "mackey_glass cell=gru",
        "mackey_glass cell=tanh",
        "mackey_glass cell=lif",
    ]
    assert set(columns_of(map(record, made[:1])).values()) == {"mackey_glass"}
    two = [made[2], made[2].model_copy(update={"cell_parameters": {"decay": 0.5}})]
    assert list(columns_of(map(record, two)).values()) == [
        "mackey_glass lif.decay=0.9",
        "mackey_glass lif.decay=0.5",
    ]


def test_a_command_names_the_cell_and_its_constants():
    (trial,) = grid(cells=("lif",), settings={"lif.decay": "0.9"}).trials
    words = command([record(trial)])
    assert " --cell lif " in words and "--set lif.decay=0.9" in words
    assert "--cell" not in command([record(grid().trials[0])])


TUNED = """
[default.bptt]
lr = 0.5
[[mackey_glass.bptt]]
study = "0/0"
lr = 0.25
[[mackey_glass.bptt]]
study = "0/0"
cell = "gru"
lr = 0.125
[[mackey_glass.bptt]]
study = "0/1"
cell = "gru"
lr = 0.0625
"""


def test_of_a_tuned_file_only_the_tables_of_the_cell_count(tmp_path):
    path = tmp_path / "tuned.toml"
    path.write_text(TUNED)
    made = grid(cells=("tanh", "gru", "lif"), tuned=str(path))
    found = {cell: [t.lr for t in made.trials if t.cell == cell] for cell in ("tanh", "gru", "lif")}
    assert found == {
        "tanh": [0.25],
        "gru": [0.125, 0.0625],
        "lif": [registry.find("learners", "bptt").cls.lr],
    }
    assert made.notes == (
        f"{path} has nothing for bptt with lif on mackey_glass: its defaults are run; see: creditbench tune",
    )
    path.write_text('[mackey_glass.bptt]\ncell = "gruu"\nlr = 1.0\n')
    assert any("unknown cell 'gruu': did you mean 'gru'" in n for n in grid(tuned=str(path)).notes)
    path.write_text("[mackey_glass.bptt]\ncell = 3\nlr = 1.0\n")
    with pytest.raises(UsageError, match="has the cell 3: give its id as text"):
        grid(tuned=str(path))


# -- a user's own ------------------------------------------------------------------------------------------


def test_a_cell_of_a_file_is_part_of_the_trial_by_its_content(mine, tmp_path):
    (trial,) = grid(cells=(str(mine),), settings={"my_cell.pace": "0.5"}).trials
    assert (trial.cell, trial.cell_path, trial.cell_parameters) == ("my_cell", str(mine), {"pace": 0.5})
    assert imports_own(trial) and not imports_own(grid(cells=("gru",)).trials[0])
    again = tmp_path / "elsewhere" / "my_cell.py"
    again.parent.mkdir()
    again.write_text(mine.read_text() + "# a remark\n")
    assert grid(cells=(str(again),), settings={"my_cell.pace": "0.5"}).trials[0].id == trial.id
    mine.write_text(mine.read_text().replace("z * a[0]", "2.0 * z * a[0]"))
    assert grid(cells=(str(mine),), settings={"my_cell.pace": "0.5"}).trials[0].id != trial.id
    cell = cell_of(trial, 3, 2, "mse", decorrelate="both")
    assert (cell.pace, cell.inputs, cell.outputs, cell.decorrelate) == (0.5, 3, 2, "both")


def test_records_of_a_cell_are_stale_once_it_has_changed(mine, monkeypatch):
    def forget():
        for cached in (store._source_sha256, store._vocabulary):
            cached.cache_clear()

    trials = [grid(cells=(cell,)).trials[0] for cell in (str(mine), "gru")]
    assert [store.stale(record(trial)) for trial in trials] == ["", ""]
    mine.write_text(mine.read_text().replace("z * a[0]", "2.0 * z * a[0]"))
    forget()
    assert [store.stale(record(trial)) for trial in trials] == ["cell my_cell has changed", ""]
    mine.unlink()
    forget()
    assert store.stale(record(trials[0])) == "cell my_cell is gone"
    gone = trials[1].model_copy(update={"cell": "grus"})
    assert store.stale(record(gone)) == "cell grus is gone"


def test_a_file_that_holds_no_sound_cell_is_refused(mine, tmp_path):
    text = mine.read_text()
    for old, new, said in (
        ('id = "my_cell"', 'id = "gru"', "the id 'gru' of .* is taken by"),
        (
            '    paper = "Zhou et al. 2016, arXiv:1603.09420"\n',
            "",
            "lacks paper: see the class Cell in creditbench.cells.base",
        ),
        ("class MyCell(Cell)", "class MyCell", "must hold one subclass of Cell, but holds none"),
        ("def f(", "def g(", "the cell my_cell cannot be made: TypeError"),
        ("dataclass(frozen=True)", "dataclass", "cannot be imported, line"),
    ):
        assert old in text
        mine.write_text(text.replace(old, new))
        with pytest.raises(UsageError, match=said):
            grid(cells=(str(mine),))
    with pytest.raises(UsageError, match=r"no file .*: name a Python file that holds a cell"):
        grid(cells=(str(tmp_path / "none.py"),))


PICKY = """    def fits(self, cell):
        return "it has gates" if cell.G > 1 else ""

    def init"""


def test_a_confined_rule_trains_a_users_cell_as_it_does_in_this_process(mine, tmp_path):
    """And says itself, in a process of its own, which cells it fits."""
    rule, picky = tmp_path / "my_rule.py", tmp_path / "picky.py"
    text = (TEMPLATES / "learner.py").read_text()
    rule.write_text(text)
    picky.write_text(text.replace("my_rule", "picky").replace("    def init", PICKY))
    made = grid(str(rule), str(picky), "bptt", cells=("tanh", str(mine)))
    assert [(t.rule, t.cell) for t in made.trials] == [
        *(("my_rule", "tanh"), ("picky", "tanh"), ("bptt", "tanh")),
        *(("my_rule", "my_cell"), ("bptt", "my_cell")),
    ]
    assert made.notes == ("picky does not go with my_cell: it has gates; it is left out",)
    own = [trial for trial in made.trials if trial.cell == "my_cell"]
    executor = make_executor("local", slots=1)
    confined = {r.trial.rule: r for r in executor.run(make_jobs(own))}
    assert {name: r.status for name, r in confined.items()} == {"my_rule": "ok", "bptt": "ok"}
    for trial in own:
        (here,) = run_trials([trial])
        assert np.isclose(here.test_score, confined[trial.rule].test_score, rtol=1e-4)


def test_a_stand_in_asks_its_rule_with_the_values_that_it_has(mine, tmp_path):
    path = tmp_path / "picky.py"
    text = (TEMPLATES / "learner.py").read_text()
    own = PICKY.replace("it has gates", "it has gates, gain {self.gain}").replace('return "', 'return f"')
    path.write_text(text.replace("my_rule", "picky").replace("    def init", own))
    cls = contributed.from_path(Path(path)).cls
    gated = registry.load("cells", [mine])["my_cell"].cls(2, 3, 2)
    assert cls(gain=2.0).fits(gated) == "it has gates, gain 2.0" and cls().fits(Tanh(2, 3, 2)) == ""
    path.write_text(path.read_text().replace('else ""', "else 3"))
    with pytest.raises(UsageError, match="says 3 of the cell tanh: `fits` must return text"):
        contributed.from_path(Path(path)).cls().fits(Tanh(2, 3, 2))


def test_layers_are_a_condition_and_leave_the_ids_of_one_layer_alone():
    one, two = (grid("bptt", cells=("gru",), hidden=4, layers=layers).trials[0] for layers in (1, 2))
    assert one.id != two.id and one.conditions["layers"] == 1 and two.conditions["layers"] == 2
    assert "layers" not in one.model_dump_json(exclude_defaults=True)
    assert one.vocabulary_sha256 != two.vocabulary_sha256  # cells/stack.py counts where it is used
    cell = cell_of(two, 2, 1, "mse")
    assert len(cell.layers) == 2 and cell.init(0)["W_in.2"].shape == (12, 4)
