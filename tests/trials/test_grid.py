"""From options to trials: resolution and refusals."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from creditbench.cli import main
from creditbench.errors import UsageError
from creditbench.executors.base import failure
from creditbench.leaderboard.board import command
from creditbench.optimizers import Adam
from creditbench.plugins import registry
from creditbench.plugins.importing import embedded
from creditbench.results import store
from creditbench.results.store import Store
from creditbench.trials.blocks import optimizer_of
from creditbench.trials.grid import Options, make_grid
from creditbench.trials.record import Record
from creditbench.trials.trial import Trial

PLUGINS = Path(__file__).parents[1] / "misbehaving"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CREDITBENCH_CACHE", str(tmp_path / "cache"))


def grid(*learners: str, task: str = "mackey_glass", **options) -> tuple[Trial, ...]:
    options = {"preset": "smoke"} | options
    return make_grid(Options(tasks=tuple(task.split(",")), learners=learners or ("bptt",), **options)).trials


def test_a_grid_is_the_product_of_its_axes():
    trials = grid(
        "bptt",
        "anp",
        task="mackey_glass,adding",
        decorrelate=("none", "hidden"),
        backends=("jax", "torch"),
        lrs=(0.1, 0.01),
        seeds=(3, 9),
    )
    assert len(trials) == len({trial.id for trial in trials}) == 2 * 2 * 2 * 2 * 2 * 2
    assert {trial.rule for trial in trials} == {"bptt", "bptt+D", "anp", "anp+D"}
    assert len({trial.family for trial in trials}) == len(trials) / 2


def test_a_suffix_decorrelates_one_rule_alone():
    assert [trial.rule for trial in grid("anp", "anp+D", "anp+DD")] == ["anp", "anp+D", "anp+DD"]
    assert [trial.rule for trial in grid("bptt+D", "anp", decorrelate=("none", "both"))] == [
        "bptt+D",
        "anp",
        "anp+DD",
    ]
    assert grid("anp")[0].decorrelation_rate == 0.0
    assert grid("anp+D", decorrelation_rate=0.5)[0].decorrelation_rate == 0.5


def test_defaults_come_from_task_and_learner():
    task, learner = registry.find("tasks", "adding").cls, registry.find("learners", "bptt").cls
    (trial,) = grid(task="adding")
    assert (trial.batch, trial.alpha, trial.budget_steps) == (task.batch, task.alpha, task.budgets["smoke"])
    assert (trial.optimizer, trial.lr) == (learner.optimizer, learner.lr)
    assert trial.segment == task().generate("train", 0, task.batch).inputs.shape[0]  # an episode
    assert trial.task_path is trial.learner_path is trial.data_sha256 is None
    (stream,) = grid()
    assert stream.segment == learner().stream_segment
    assert grid(segment=7)[0].segment == 7
    assert grid(budget=100, evaluations=1)[0].preset == "custom"


def test_evaluations_fit_into_the_budget():
    (trial,) = grid(task="copy_memory")
    assert trial.evaluations * trial.segment <= trial.budget_steps
    room = trial.budget_steps // trial.segment
    with pytest.raises(UsageError, match=f"room for {room} "):
        grid(task="copy_memory", evaluations=room + 1)
    with pytest.raises(UsageError, match=f"one segment of copy_memory has {trial.segment};"):
        grid(task="copy_memory", budget=trial.segment - 1)


def test_settings_are_converted_to_the_types_of_the_fields():
    (trial,) = grid("wp", settings={"wp.sigma": "1", "wp.credit": "step", "mackey_glass.steps": "1e3"})
    assert trial.hyperparameters["sigma"] == 1.0 and isinstance(trial.hyperparameters["sigma"], float)
    assert trial.hyperparameters["credit"] == "step"
    assert trial.task_parameters["steps"] == 1000 and isinstance(trial.task_parameters["steps"], int)
    assert grid("anp", settings={"anp.sigma": 1})[0].id == grid("anp", settings={"anp.sigma": "1.0"})[0].id


def test_a_rule_has_a_learning_rate_of_its_own():
    """It counts before --lr, for that rule alone, and leaves no trace in its hyper-parameters."""
    own = {"anp.lr": "0.25"}
    rates = {t.rule: t.lr for t in grid("anp", "anp+D", "bptt", settings=own, lrs=(0.5,))}
    assert rates == {"anp": 0.25, "anp+D": 0.25, "bptt": 0.5}
    assert grid("anp", settings=own)[0].id == grid("anp", lrs=(0.25,))[0].id
    assert [t.lr for t in grid("anp", settings={"anp.lr": 1})] == [1.0]


TUNED = """
[mackey_glass."anp+D"]
lr = 0.5
sigma = 0.25
decorrelation_rate = 0.125
[default.anp]
lr = 0.75
[default."anp+D"]
lr = 0.875
batch = 2
segment = 5
optimizer = "adam"
[default.a_rule_of_another_run]
lr = 1
"""


def test_tuned_values_stand_between_options_and_defaults(tmp_path):
    (tmp_path / "tuned.toml").write_text(TUNED)
    tuned = str(tmp_path / "tuned.toml")
    plain, decorrelated = grid("anp", "anp+D", tuned=tuned)
    assert (plain.lr, plain.batch, plain.optimizer) == (0.75, 1, "sgd")
    assert (decorrelated.lr, decorrelated.batch, decorrelated.segment) == (0.5, 2, 5)
    assert (decorrelated.optimizer, decorrelated.decorrelation_rate) == ("adam", 0.125)
    assert decorrelated.hyperparameters["sigma"] == 0.25
    (given,) = grid(
        "anp+D",
        tuned=tuned,
        lrs=(1.0,),
        batch=3,
        segment=4,
        optimizer="momentum",
        settings={"anp.sigma": "2"},
    )
    assert (given.lr, given.batch, given.segment, given.optimizer) == (1.0, 3, 4, "momentum")
    assert given.hyperparameters["sigma"] == 2.0
    notes = make_grid(Options(tasks=("mackey_glass",), learners=("anp",), preset="smoke", tuned=tuned)).notes
    assert any("a_rule_of_another_run" in note for note in notes)
    two = Options(tasks=("mackey_glass", "adding"), learners=("anp", "bptt"), preset="smoke", tuned=tuned)
    (said,) = [note for note in make_grid(two).notes if "its defaults are run" in note]
    assert "has nothing for bptt on mackey_glass, adding" in said


def test_a_rate_of_decorrelation_that_decorrelates_nothing_is_noted():
    options = Options(tasks=("mackey_glass",), learners=("anp",), preset="smoke", decorrelation_rate=0.5)
    assert make_grid(options).notes == (
        "decorrelation_rate is 0.5 and nothing is decorrelated: name anp+D, say",
    )
    assert not make_grid(dataclasses.replace(options, learners=("anp", "anp+D"))).notes


@pytest.mark.parametrize("kind", ["learners", "tasks"])
@pytest.mark.parametrize("name", ["a|b", "=1", "<b>", "my rule", "../x", "µ"])
def test_an_id_that_is_no_plain_name_is_refused(kind, name, tmp_path):
    source = {
        "learners": "from creditbench.learner import Claims, Learner\n"
        "class One(Learner):\n    name, paper, family, claims = 'n', 'p', 'f', Claims()\n",
        "tasks": (PLUGINS / "echo_task.py").read_text(),
    }[kind]
    path = tmp_path / "one.py"
    path.write_text(
        source.replace('id = "echo"', f"id = {name!r}") if kind == "tasks" else f"{source}    id = {name!r}\n"
    )
    for imports in (False, True):
        with pytest.raises(UsageError, match="give it letters, digits and _"):
            registry.load(kind, [path], imports=imports)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[default.anp]\nsigmaa = 1", "did you mean 'sigma'?"),
        ("[default.anp]\nlr = 'fast'", "give a value of the type float"),
        ("[default.anp]\nlr = -1", "lr is -1"),
        ("[default]\nanp = 1", "default.anp is no table"),
        ("anp = 1", "no table of tables"),
        ("[default", "is not TOML"),
        (None, "cannot be read"),
    ],
)
def test_a_bad_tuned_file_is_refused(tmp_path, text, said):
    path = tmp_path / "tuned.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match="(?s)" + said):
        grid("anp", tuned=str(path))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"settings": {"anp.sigmaa": "1"}}, "did you mean 'sigma'?"),
        ({"settings": {"anp.sigma": "much"}}, "anp.sigma is 'much': give a value of the type float"),
        ({"settings": {"anp.sigma": "nan"}}, "give a finite number"),
        ({"settings": {"anp.sigma": "-1"}}, "sigma is -1.0"),
        ({"settings": {"mackey_glass.steps": "10.5"}}, "give a value of the type int"),
        ({"settings": {"mackey_glass.horizn": "1"}}, "did you mean 'horizon'?"),
        ({"settings": {"anpp.sigma": "1"}}, "did you mean 'anp'?"),
        ({"settings": {"sigma": "1"}}, "names no field"),
        (
            {"settings": {"wp.sigma": "1"}},
            "wp is not in this grid (mackey_glass, anp): add it with --learner",
        ),
        ({"settings": {"anp.lr": "fast"}}, "anp.lr is 'fast': give a value of the type float"),
        ({"settings": {"anp.Lr": "1"}}, "did you mean"),
        ({"optimizer": "adan"}, "did you mean 'adam'?"),
        ({"lrs": (0.0,)}, "lr is 0.0"),
        ({"lrs": (float("inf"),)}, "lr is inf"),
        ({"preset": "quik"}, "did you mean 'quick'?"),
        ({"decorrelate": ("hiden",)}, "did you mean 'hidden'?"),
        ({"decorrelate": ("hidden",), "decorrelation_rate": -1.0}, "decorrelation_rate is -1.0"),
        ({"alpha": 0.0}, "alpha is 0.0"),
        ({"seeds": (-1,)}, "seed is -1"),
        (
            {"seeds": (1, 2**32, 2**32 + 1)},
            "seed is 4294967296, 4294967297: give whole numbers from 0 to 4294967295",
        ),
        ({"segment": 5001}, "has 5000 steps"),
        ({"evaluations": 0}, "evaluations is 0"),
        ({"threads": 0}, "threads is 0"),
        ({"data": {"mackey_glass": "x.csv"}}, "reads no data"),
        ({"data": {"weather": "x.csv"}}, "weather is not in this grid (mackey_glass)"),
    ],
)
def test_bad_options_are_refused(options, said):
    with pytest.raises(UsageError) as caught:
        grid("anp", **options)
    assert said in str(caught.value)


def test_a_learner_that_rules_a_backend_or_a_decorrelated_cell_out_is_left_out_with_a_note(tmp_path):
    path = tmp_path / "narrow.py"
    path.write_text(
        "from creditbench.learner import Claims, Learner\n"
        "class Narrow(Learner):\n"
        "    id, name, paper, family, claims = 'narrow', 'n', 'p', 'f', Claims()\n"
        "    backends, decorrelates = frozenset({'jax'}), False\n"
    )
    options = Options(
        tasks=("mackey_glass",),
        learners=(str(path), "bptt"),
        backends=("jax", "torch"),
        decorrelate=("none", "hidden"),
        preset="smoke",
    )
    made = make_grid(options)
    assert sorted((trial.rule, trial.backend) for trial in made.trials) == [
        *(("bptt", "jax"), ("bptt", "torch"), ("bptt+D", "jax"), ("bptt+D", "torch")),
        ("narrow", "jax"),
    ]
    assert made.trials[0].learner_path == str(path)
    assert len(made.notes) == 2
    with pytest.raises(UsageError, match="leave out its suffix"):
        grid(f"{path}+D")
    with pytest.raises(UsageError, match="runs on jax alone"):
        grid(str(path), backends=("torch",))


def test_a_shipped_file_named_by_its_path_is_the_builtin_learner():
    path = registry.find("learners", "bptt").path
    assert grid(str(path))[0].id == grid("bptt")[0].id


# -- identity --------------------------------------------------------------------------------------------


def test_the_same_options_give_the_same_ids():
    assert [trial.id for trial in grid("bptt", "anp", seeds=(0, 1))] == [
        trial.id for trial in grid("bptt", "anp", seeds=(0, 1))
    ]
    assert set(grid("anp", seeds=(1,))[0].id) <= set("0123456789abcdef")


FIXED = Trial(
    task="task",
    task_version=1,
    task_sha256="a",
    task_parameters={"steps": 10},
    learner="rule",
    learner_sha256="b",
    hyperparameters={"sigma": 0.5},
    decorrelate="none",
    decorrelation_rate=0.0,
    backend="jax",
    device="cpu",
    hidden=8,
    batch=1,
    segment=1,
    alpha=1.0,
    bias=False,
    protocol="stream",
    optimizer="sgd",
    lr=0.1,
    seed=0,
    preset="smoke",
    budget_steps=100,
    evaluations=2,
    numerics_version=1,
)
OTHER = {str: "other", int: 77, float: 0.77, bool: True, dict: {"other": 1}, type(None): "other"}
OTHER_CHOICES = {"decorrelate": "both", "backend": "torch", "dtype": "float64", "protocol": "episodes"}
OTHER_CHOICES |= {"beat_trivial": False}
LABELS = ("task_path", "learner_path", "cell_path", "measure", "study", "beat_trivial")


@pytest.mark.parametrize("field", Trial.model_fields)
def test_each_field_but_a_label_changes_the_id(field):
    value = OTHER_CHOICES.get(field, OTHER[type(getattr(FIXED, field))])
    other = Trial(**FIXED.model_dump() | {field: value})
    assert getattr(other, field) != getattr(FIXED, field)
    same = field in LABELS
    assert (other.id == FIXED.id) == same
    assert (other.family == FIXED.family) == (same or field == "seed")


def test_the_id_outlives_versions_of_python_and_of_the_harness():
    """If this fails, every existing record loses its trial: raise NUMERICS_VERSION and say so."""
    assert FIXED.id == "56100926c874270b"


COLUMNS = (
    *("DryBulbFarenheit", "WetBulbFarenheit", "DewPointFarenheit", "RelativeHumidity"),
    *("Visibility", "WindSpeed", "WindDirection", "StationPressure", "Altimeter"),
)


def test_data_count_by_content_not_by_place(tmp_path):
    rng = np.random.default_rng(0)
    for folder, values in (("a", rng.random(900)), ("b", None), ("c", rng.random(900))):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "w.npz"
        if values is None:
            path.write_bytes((tmp_path / "a" / "w.npz").read_bytes())
        else:
            np.savez(path, **dict.fromkeys(COLUMNS, values))

    def trial(folder):
        return grid(task="weather", data={"weather": str(tmp_path / folder / "w.npz")})[0]

    assert trial("a").id == trial("b").id != trial("c").id
    assert trial("a").task_parameters["data"] == str(tmp_path / "a" / "w.npz")
    assert trial("a").id != grid(task="weather")[0].id


def write_digits(folder: Path, shift: int = 0, note: str = "") -> str:
    """A hub data set of digits with a test split, whose labels are `shift` too high; its name."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for split, rows in (("train", 300), ("test", 100)):
        labels = np.arange(rows) % 10
        pixels = rng.integers(0, 30, (rows, 12))
        pixels[np.arange(rows), labels] = 200
        if split == "test":
            labels = (labels + shift) % 10
        lines = [",".join(["label", *(f"pixel{i}" for i in range(12))])]
        lines += [",".join(map(str, row)) for row in np.column_stack([labels, pixels])]
        (folder / f"{split}.csv").write_text("\n".join(lines) + "\n")
    (folder / "README.md").write_text(note)
    return f"hf:{folder}"


def test_hub_data_count_by_all_that_is_read_of_them_and_by_nothing_else(tmp_path, monkeypatch):
    def trial(name: str, **options) -> Trial:
        return grid(task="sequential_digits", data={"sequential_digits": name}, **options)[0]

    found = trial(name := write_digits(tmp_path / "a"))
    moved = write_digits(tmp_path / "b", note="Lies elsewhere, and says something else of itself.")
    assert trial(moved).id == found.id
    monkeypatch.setenv("CREDITBENCH_CACHE", str(tmp_path / "another cache"))
    for other in (trial(name), trial(name, seeds=(5,)), trial(name, batch=7)):
        assert other.data_sha256 == found.data_sha256
    corrected = trial(write_digits(tmp_path / "c", shift=5))
    assert corrected.data_sha256 != found.data_sha256 and corrected.id != found.id


def test_of_a_hub_table_counts_what_the_task_reads(tmp_path):
    """Only the columns that the task reads count, here one in its train split and another in its test."""
    path = tmp_path / "own.py"
    path.write_text(
        (PLUGINS / "echo_task.py")
        .read_text()
        .replace(
            "    delay: int = 1\n",
            "    delay: int = 1\n    data: str | None = None\n    reads_data: ClassVar[bool] = True\n",
        )
        .replace(
            "        signs = self.rng",
            "        read_table(self.data, ['a' if split == 'train' else 'b'])\n        signs = self.rng",
        )
        .replace("from creditbench.task", "from creditbench.data import read_table\nfrom creditbench.task")
    )

    def sha256(name: str, a: int = 1, b: int = 2, c: int = 3, tested: int = 4) -> str | None:
        (folder := tmp_path / name).mkdir()
        (folder / "train.csv").write_text(f"a,b,c\n{a},{b},{c}\n")
        (folder / "test.csv").write_text(f"a,b,c\n{tested},{tested},{tested}\n")
        return grid(task=str(path), data={"echo": f"hf:{folder}"})[0].data_sha256

    found = sha256("plain")
    assert found == sha256("unread", c=5, tested=6)
    assert len({found, sha256("train", a=5), sha256("test", b=5)}) == 3


def test_embedded_data_are_part_of_a_task(tmp_path):
    """For a shipped task and one in a file: changed data give another id, and make the records stale."""
    shipped = registry.find("tasks", "weather")
    content = shipped.path.parent / "data" / "weather_nyc.csv"
    assert embedded(shipped.path) == content
    assert embedded(registry.find("tasks", "text8_chars").path).name == "text_kjv.txt"
    (tmp_path / "data").mkdir()
    path, data = tmp_path / "own.py", tmp_path / "data" / "weather_nyc.csv"
    path.write_text(shipped.path.read_text().replace('"weather"', '"own_weather"'))
    data.write_bytes(content.read_bytes())

    def trial() -> Trial:
        store._source_sha256.cache_clear()
        return grid(task=str(path))[0]

    before = trial()
    record = failure(before, "crashed", "", datetime.now(UTC), 0.0)
    assert store.stale(record) == "" and trial().id == before.id
    data.write_bytes(content.read_bytes().replace(b"1\n", b"2\n", 1))  # a value, in the row's last column
    assert trial().id != before.id
    assert store.stale(record) == "task own_weather has changed"
    data.unlink()
    with pytest.raises(UsageError, match="which cannot be read"):
        trial()
    store._source_sha256.cache_clear()
    assert store.stale(record) == "task own_weather is gone"


def test_embedded_data_that_cannot_be_told_from_the_text_are_refused(tmp_path):
    path = tmp_path / "own.py"
    source = (PLUGINS / "echo_task.py").read_text()
    path.write_text(f'{source}\nEMBEDDED = "".join([__file__, ".csv"])\n')
    with pytest.raises(UsageError, match="write it as EMBEDDED = Path"):
        grid(task=str(path))


def test_an_optimisers_own_parameters_are_set(tmp_path, capsys):
    """They count where they are not the defaults, so that ids without them stay as they are."""
    common = dict(tasks=("mackey_glass",), learners=("bptt",), preset="smoke", hidden=4)

    def made(optimizer, **settings):
        return make_grid(Options(**common, optimizer=optimizer, settings=settings)).trials[0]

    plain, slow = made("adam"), made("adam", **{"adam.beta1": "0.99"})
    assert (plain.optimizer_parameters, slow.optimizer_parameters) == ({}, {"beta1": 0.99})
    assert made("adam", **{"adam.beta1": "0.9", "adam.epsilon": "1e-8"}).id == plain.id != slow.id
    assert optimizer_of(slow) == Adam(lr=slow.lr, beta1=0.99) and optimizer_of(plain) == Adam(lr=plain.lr)
    assert "optimizer_parameters" not in plain.model_dump_json(exclude_defaults=True)
    for settings, said in (
        ({"adam.beta3": "1"}, "unknown parameter of adam 'beta3'.*did you mean"),
        ({"adam.beta1": "x"}, "adam.beta1 is 'x'"),
        ({"adam.beta1": "-1"}, "beta1 is -1.0: Adam needs a number in"),
        ({"adam.lr": "1"}, "--lr"),
        ({"sgd.mu": "1"}, "sgd has none"),
        ({"adams.beta1": "1"}, "unknown task, learner, cell or optimizer in --set 'adams'"),
    ):
        with pytest.raises(UsageError, match=said):
            made("adam", **settings)
    words = ["run", "--task", "mackey_glass", "--learner", "bptt", "--preset", "smoke", "--hidden", "4"]
    words += ["--executor", "inline", "--results", str(tmp_path), "--set", "momentum.mu=0.5", "--json"]
    words += ["--budget", "50", "--no-measure"]
    assert main(words) == 2
    assert "no rule runs with it: give --optimizer momentum" in capsys.readouterr().err
    assert main([*words, "--optimizer", "momentum"]) == 0
    record = Store(tmp_path).all()[0]
    assert record.trial.optimizer_parameters == {"mu": 0.5}
    row = {name: "" if value is None else value for name, value in record.row().items()}
    assert Record.from_row(row, record.curve, record.environment).trial == record.trial.model_copy(
        update={"measure": False}
    )
    assert "--set momentum.mu=0.5" in command([record])
