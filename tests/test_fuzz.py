"""Any file content: no traceback, no hang, and no value that the schema refuses.

`CREDITBENCH_FUZZ` is the number of examples of each kind; its default is 25.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import shutil
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from creditbench.cli import main
from creditbench.errors import UsageError
from creditbench.leaderboard.board import make_board
from creditbench.leaderboard.compare import compare
from creditbench.leaderboard.text import markdown
from creditbench.machine import files
from creditbench.results.store import Store, read_record
from creditbench.results.table import FORMATS, render
from creditbench.results.version import load, write_tables
from creditbench.trials.grid import Options, make_grid
from creditbench.trials.record import Record
from creditbench.trials.tuning import kept_studies
from tests.synthetic import make

SECONDS = 5.0
fuzz = settings(
    max_examples=int(os.environ.get("CREDITBENCH_FUZZ", "25")),
    deadline=None,  # of processor time: see `in_time`
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)

odd_numbers = st.sampled_from(
    [
        *(0, -1, 1, 2**31, 2**63, -(2**63) - 1, 10**30, 10**400, 0.0, -0.0, 5e-324, 1e300, 1e308, 1e-300),
        *(float("nan"), float("inf"), float("-inf"), True, False, None),
    ]
)
odd_texts = st.sampled_from(
    [
        "",
        "nan",
        "inf",
        "-1",
        "1e400",
        "=1",
        "<b>",
        "a|b",
        "\n",
        "\x00",
        "\ud800",
        "é",
        "0" * 5000,
        "../x",
        "NULL",
    ]
)
leaves = odd_numbers | odd_texts | st.integers() | st.floats() | st.text(max_size=5)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
) | st.just(json.loads("[" * 60 + "]" * 60))


@contextlib.contextmanager
def in_time():
    """No more processor time than a hang would take, whatever else the machine is at."""
    before = time.process_time()
    yield
    assert time.process_time() - before < SECONDS


def sentence(error: UsageError) -> None:
    said = str(error)
    assert said and "\n" not in said and len(said) < 1000


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def results(folder):
    (folder / "source.py").write_text("# stands for every rule and task\n")
    return make(folder / "source.py", rules=2, tasks=2, backends=("torch",), seeds=3, points=3)


@pytest.fixture(scope="module")
def version(folder, results) -> Path:
    write_tables(results, folder / "v", "")
    return folder / "v"


def paths(value, place=()):
    """The place of every value in a nested one."""
    yield place
    if isinstance(value, dict | list | tuple):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from paths(inner, (*place, name))


def put(whole, place, value, remove):
    """`whole` with another value at that place, or without it."""
    if not place:
        return value
    found = inner = copy.deepcopy(whole)
    for name in place[:-1]:
        inner = inner[name]
    if remove:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    return found


def reports(found) -> None:
    """All that is made of records: nothing that was taken in may end it."""
    for form in FORMATS:
        render(found.records, form)
    markdown(make_board(found, 100), [Path("x")])


# -- records -----------------------------------------------------------------------------------------------


@fuzz
@given(data=st.data())
def test_no_record_ends_a_report_and_none_is_taken_that_the_schema_refuses(data, folder, results):
    store = Store(folder / "run")
    shutil.rmtree(store.directory, ignore_errors=True)
    one, other = results.records[0], results.records[3]
    values_ = json.loads(one.model_dump_json())
    place = data.draw(st.sampled_from(list(paths(values_))))
    changed = put(values_, place, data.draw(values), bool(place) and data.draw(st.booleans()))
    store.records.mkdir(parents=True)
    name = store.path(one.trial)
    # A record of another trial has another name, which is looked at apart.
    with contextlib.suppress(ValueError, TypeError):
        name = store.path(Record.model_validate(changed).trial)
    with contextlib.suppress(UnicodeEncodeError):
        name.write_text(json.dumps(changed, ensure_ascii=data.draw(st.booleans())))
    (store.path(other.trial)).write_text(other.model_dump_json())
    with in_time(), contextlib.redirect_stderr(io.StringIO()):
        try:
            taken = read_record(name)
        except UsageError as error:
            sentence(error)
            taken = None
        if taken is not None:
            again = Record.model_validate_json(taken.model_dump_json(), strict=False)
            assert again == taken and taken.trial.id == name.stem
        found = load(store.directory)
        assert len(found.records) == 1 + (taken is not None)
        if taken is not None:
            reports(found)
            write_tables(found, folder / "compacted", "")
            back = {record.trial.id for record in load(folder / "compacted").records}
            assert back == {record.trial.id for record in found.records}


def test_records_at_the_ends_of_what_is_allowed_end_no_comparison(results):
    """The least and the greatest numbers of every field, against records as they are."""
    import dataclasses

    fields = (
        "test_score",
        "trivial",
        "solved",
        "normalised_score",
        "train_seconds",
        "ratio_forward",
        "ratio_bptt",
    )
    fields += (
        "steps_per_second",
        "flops_per_step",
        "algorithm_bytes",
        "seconds_to_target",
        "steps_to_target",
    )
    for extreme in (0, 5e-324, 1e300, -1e300, 2**63 - 1):
        records = []
        for record in results.records:
            for field in fields:
                with contextlib.suppress(ValueError):
                    values_ = record.model_dump() | {field: extreme, "trial": record.trial}
                    record = Record.model_validate(values_)
            records.append(record)
        compare(results, dataclasses.replace(results, records=tuple(records)))


@fuzz
@given(content=st.binary(max_size=200) | st.text(max_size=200).map(lambda t: t.encode("utf-8", "replace")))
@example(content=b"[" * 200_000)
@example(content=b'{"schema_version": 3' + b'{"a":' * 100_000)
@example(content=b"\xff\xfe{\x00}\x00")
def test_no_bytes_pass_for_a_record(content, folder):
    path = folder / "0123456789abcdef.json"
    path.write_bytes(content)
    with in_time(), pytest.raises(UsageError) as caught:
        read_record(path)
    sentence(caught.value)


# -- tables --------------------------------------------------------------------------------------------------


@fuzz
@given(data=st.data())
def test_no_table_is_taken_that_is_not_the_one_that_was_written(data, folder, version, results):
    """A cell, a line, a manifest's value or some bytes change. Without checksums, accepted values hold."""
    broken = folder / "broken"
    shutil.rmtree(broken, ignore_errors=True)
    shutil.copytree(version, broken)
    name = data.draw(st.sampled_from(sorted(p.name for p in version.iterdir() if p.name != "README.md")))
    path = broken / name
    content = path.read_bytes()
    how = data.draw(st.sampled_from(["bytes", "cut", "value", "line"]))
    if how == "value" and name.endswith(".json"):
        whole = json.loads(content)
        place = data.draw(st.sampled_from(list(paths(whole))))
        with contextlib.suppress(UnicodeEncodeError):
            path.write_text(json.dumps(put(whole, place, data.draw(values), False)))
    elif how == "value" and name.endswith(".csv"):
        lines = content.decode().splitlines()
        number = data.draw(st.integers(0, len(lines) - 1))
        cells = lines[number].split(",")
        cells[data.draw(st.integers(0, len(cells) - 1))] = str(data.draw(odd_texts | st.just("1e308")))
        path.write_bytes(
            files.as_bytes("\n".join([*lines[:number], ",".join(cells), *lines[number + 1 :]]) + "\n")
        )
    elif how == "line" and name.endswith(".csv"):
        lines = content.splitlines(keepends=True)
        number = data.draw(st.integers(0, len(lines) - 1))
        path.write_bytes(b"".join([*lines[:number], *lines[number + 1 :], lines[number]]))
    elif how == "cut":
        path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    else:
        at, new = data.draw(st.integers(0, len(content) - 1)), data.draw(st.binary(min_size=1, max_size=4))
        path.write_bytes(content[:at] + new + content[at + len(new) :])
    bare = data.draw(st.booleans())
    if bare and name != "manifest.json":
        described = json.loads((broken / "manifest.json").read_text()) | {"sha256": {}}
        (broken / "manifest.json").write_text(json.dumps(described))
    with in_time(), contextlib.redirect_stderr(io.StringIO()):
        try:
            found = load(broken)
        except UsageError as error:
            sentence(error)
            return
        if not bare and name != "manifest.json":
            assert path.read_bytes() == content
        for record in found.records:
            assert Record.model_validate(record.model_dump()) == record
        reports(found)


# -- configurations and tuned files --------------------------------------------------------------------------


def as_toml(value) -> str:
    """A value as TOML has it, or nearly."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(k))} = {as_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(as_toml, value)) + "]"
    return json.dumps(value) if isinstance(value, str) else "1979-05-27" if value is None else repr(value)


OPTIONS = (
    *(
        "task",
        "learner",
        "decorrelate",
        "backend",
        "preset",
        "seeds",
        "seed",
        "hidden",
        "bias",
        "alpha",
        "batch",
    ),
    *("segment", "budget", "evaluations", "lr", "optimizer", "decorrelation-rate", "set", "data", "tuned"),
    *(
        "results",
        "reuse",
        "executor",
        "jobs",
        "threads",
        "timeout",
        "memory-limit",
        "together",
        "measure",
        "json",
    ),
)


def refused(words, folder: Path) -> None:
    """A run that must be refused before its first trial, or that has no trial to run."""
    out, err = io.StringIO(), io.StringIO()
    with in_time(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(["run", "--task", "mackey_glass", "--learner", "bptt", *words])
    last = err.getvalue().splitlines()[-1]
    assert status == 2 and last.startswith("error: "), (status, err.getvalue())
    assert len(last) < 1500


@pytest.fixture
def nothing_runs(monkeypatch):
    """The run is told to stop where its first trial would begin."""

    def stop(*_, **__):
        raise UsageError("stopped before the first trial")

    monkeypatch.setattr("creditbench.results.runs.run_missing", stop)


@fuzz
@given(option=st.sampled_from(OPTIONS), value=values)
@example(option="hidden", value=10**30)
@example(option="seed", value=[10**40])
@example(option="results", value="\x00")
@example(option="results", value=5)
def test_no_configuration_ends_in_a_traceback(option, value, folder, nothing_runs):
    path = folder / "grid.toml"
    path.write_bytes(files.as_bytes(f"{option} = {as_toml(value)}\n"))
    words = [] if option == "results" else ["--results", str(folder / "none")]
    words += [] if option == "backend" else ["--backend", "torch"]
    refused(["--config", str(path), *words], folder)


@fuzz
@given(
    task=st.sampled_from(["mackey_glass", "default", "adding", "mackey_glas"]),
    rule=st.sampled_from(["bptt", "bptt+D", "anp", "x"]),
    key=st.sampled_from(
        [
            *("lr", "optimizer", "segment", "batch", "decorrelation_rate", "study", "beat_trivial", "sigma"),
            *("cell", "cell_parameters"),
        ]
    ),
    value=values,
    form=st.sampled_from(
        ["[{task}.{rule}]\n{key} = {value}", "[[{task}.{rule}]]\n{key} = {value}", "{task} = {value}"]
    ),
)
def test_no_tuned_file_ends_in_a_traceback(task, rule, key, value, form, folder, nothing_runs):
    path = folder / "tuned.toml"
    text = form.format(task=task, rule=json.dumps(rule), key=key, value=as_toml(value))
    path.write_bytes(files.as_bytes(text + "\n"))
    words = ["--tuned", str(path), "--backend", "torch", "--results", str(folder / "none")]
    refused(words, folder)
    with contextlib.suppress(UsageError):
        kept_studies(path)


@fuzz
@given(content=st.binary(max_size=100))
@example(content=b"a = " + b"[" * 100_000)
@example(content=b"a." * 100_000 + b"a = 1")
@example(content=b"['a'. a" + b".'a'" * 100_000 + b"]")
@example(content=b"a" * 1_000_000)
@example(content=b"a = " + b"9" * 10_000)
@example(content=b"a = 0x" + b"f" * 10_000)
@example(content=b"\xef\xbb\xbfhidden = 0\r\n")
def test_no_bytes_pass_for_a_configuration(content, folder, nothing_runs):
    path = folder / "bytes.toml"
    path.write_bytes(content)
    for option in ("--config", "--tuned"):
        refused([option, str(path), "--backend", "torch", "--results", str(folder / "none")], folder)


def test_what_is_sound_still_is(folder, version):
    """So that the tests above do not hold because all is refused."""
    (folder / "sound.toml").write_text('[mackey_glass.bptt]\nlr = 0.5\nstudy = "0/1"\n')
    options = Options(tasks=("mackey_glass",), learners=("bptt",), tuned=str(folder / "sound.toml"))
    (trial,) = make_grid(options).trials
    assert (trial.lr, trial.study) == (0.5, "0/1")
    assert len(load(version).records) == 12
