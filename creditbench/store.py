"""Results on disk: while running, one JSON file a trial; once compacted, the tables of a version."""

from __future__ import annotations

import ast
import contextlib
import csv
import dataclasses
import io
import json
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

import creditbench
from creditbench import registry
from creditbench.errors import UsageError
from creditbench.record import SCHEMA_VERSION, Point, Record
from creditbench.trial import NUMERICS_VERSION, Trial


class Store:
    """The records in one folder, each in `records/<trial's id>.json`.

    A record is written whole or not at all, so that a run that is killed loses none that it had finished.
    Only one process writes a record; the folder is made when the first one is written.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory)
        self.records = self.directory / "records"

    def path(self, trial: Trial) -> Path:
        """Where the record of `trial` is or would be."""
        return self.records / f"{trial.id}.json"

    def has(self, trial: Trial) -> bool:
        """Whether there is a record of `trial`; it is not read."""
        return self.path(trial).is_file()

    def get(self, trial: Trial) -> Record:
        """The record of `trial`.

        Raises KeyError where there is none, and UsageError where it is broken or of a newer schema.
        """
        if not self.has(trial):
            raise KeyError(trial.id)
        return read_record(self.path(trial))

    def put(self, record: Record) -> None:
        """Write `record`, in place of an older one of the same trial. Raises UsageError where it cannot be written."""
        path = self.path(record.trial)
        try:
            self.records.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self.records, prefix=f".{path.stem}-", suffix=".tmp")
        except OSError as error:
            raise UsageError(
                f"results folder '{self.directory}' cannot be written ({error.strerror}): name another with --results"
            ) from None
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(record.model_dump_json(indent=1) + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        with contextlib.suppress(OSError):  # some file systems cannot sync a folder
            folder = os.open(self.records, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def take(self, trials: Iterable[Trial], folders: Sequence[str | os.PathLike[str]]) -> int:
        """Write the records of `trials` that are missing here and that `folders` hold: how many. Raises UsageError."""
        shared = {record.trial.id: record for record in load(*folders).records}
        taken = [shared[trial.id] for trial in trials if trial.id in shared and not self.has(trial)]
        for record in taken:
            self.put(record)
        return len(taken)

    def all(self) -> list[Record]:
        """Every record, sorted by task, rule, backend and seed. Raises UsageError for one that cannot be read."""
        return sorted((read_record(path) for path in self.records.glob("*.json")), key=_order)


def _order(record: Record) -> tuple[Any, ...]:
    trial = record.trial
    return trial.task, trial.rule, trial.backend, trial.family, trial.seed


def read_record(path: Path) -> Record:
    """The record in a file. Raises UsageError where it is broken or of a newer schema."""
    try:
        values = json.loads(path.read_bytes())
        version = values["schema_version"]
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise UsageError(
                f"record '{path}' has the schema version {version}, and this creditbench reads up to {SCHEMA_VERSION}: "
                "update creditbench"
            )
        return Record.model_validate(values)
    except (ValueError, KeyError, TypeError, ValidationError, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UsageError(
            f"record '{path}' is not a whole record ({type(error).__name__}: {reason}): delete it and run again"
        ) from None


def stale(record: Record) -> str:
    """Why the numbers of `record` may no longer be what a run would yield now; empty where nothing has changed.

    No user's code is run: a source is compared by its sha256, that of a task with the data that it embeds. A user's
    file that was since taken into the shipped folder as it was counts as unchanged.
    """
    trial = record.trial
    sources = (
        ("tasks", trial.task, trial.task_path, trial.task_sha256),
        ("learners", trial.learner, trial.learner_path, trial.learner_sha256),
    )
    for kind, name, path, sha256 in sources:
        now = _source_sha256(kind, name, path)
        if now != sha256 and (path is None or _source_sha256(kind, name, None) != sha256):
            return f"{kind[:-1]} {name} {'is gone' if now is None else 'has changed'}"
    if trial.numerics_version != NUMERICS_VERSION:
        return f"the harness has changed from numerics version {trial.numerics_version} to {NUMERICS_VERSION}"
    return ""


@cache
def _source_sha256(kind: registry.Kind, name: str, path: str | None) -> str | None:
    """The sha256 of a task's or learner's source as it is now; None where it is gone."""
    if path is None:
        plugin = registry.load(kind).get(name)
        return plugin.sha256 if plugin else None
    try:
        return registry.source_sha256(Path(path))
    except OSError:
        return None


# -- the tables of a version -----------------------------------------------------------------------------


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ScalingPoint(_Row):
    """What one size costs, beside the exponent of all sizes: a row of scaling.csv."""

    learner: str
    backend: str
    axis: str  #: T, n, B
    quantity: str  #: time (seconds), algorithm_bytes, flops: of an update
    size: int
    value: float  #: median of its blocks
    blocks: int
    exponent: float  #: of the upper half of the sizes
    low: float  #: 95 % interval of the exponent
    high: float
    claimed: float | None
    held: bool | None  #: None: nothing is claimed


class GradientQuality(_Row):
    """How good the estimates of one rule are at one point of a BPTT run: a row of gradients.csv."""

    learner: str
    backend: str
    task: str
    point: float  #: part of the run's budget
    draws: int
    cosine: float
    cosine_low: float
    cosine_high: float
    bias: float
    bias_low: float
    bias_high: float
    variance: float
    variance_low: float
    variance_high: float
    draws_to_cosine: int | None  #: None: no number of draws is enough
    draws_to_cosine_low: int | None
    draws_to_cosine_high: int | None


class CheckResult(_Row):
    """What `creditbench check` found of one rule: a row of checks.csv."""

    learner: str
    learner_sha256: str  #: of the source that was checked
    name: str
    held: bool | None  #: None: not applicable
    detail: str


class Manifest(_Row):
    """What the files of a version must hold, and what its names stand for."""

    schema_version: int = SCHEMA_VERSION
    suite_version: str
    rows: dict[str, int]  #: file -> its rows
    learners: dict[str, dict[str, Any]]  #: id -> metadata
    tasks: dict[str, dict[str, Any]]
    environments: dict[str, dict[str, Any]]  #: id -> processor, system, versions, commit


@dataclasses.dataclass(frozen=True)
class Results:
    """All that a folder holds: records of trials, and measurements beside them."""

    records: tuple[Record, ...] = ()
    scaling: tuple[ScalingPoint, ...] = ()
    gradients: tuple[GradientQuality, ...] = ()
    learners: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)  #: metadata by id
    tasks: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    checks: tuple[CheckResult, ...] = ()


TABLES = ("trials.csv", "curves.parquet", "scaling.csv", "gradients.csv", "checks.csv")
_CURVE = ("trial", *Point.model_fields)
R = TypeVar("R", bound=_Row)


def load(*directories: str | os.PathLike[str]) -> Results:
    """What the folders hold: the tables of a version where there are any, else the records of runs.

    A folder's measurements are in its tables, or as `creditbench scale --output DIR/scaling`, `creditbench gradients
    --output DIR/gradients` and `creditbench check --results DIR` left them. Where two folders hold the same trial,
    measurement or rule checked, that of the later one counts. Raises `UsageError` for a folder that holds nothing, and
    for what cannot be read.
    """
    records: dict[str, Record] = {}
    scaling: dict[Any, ScalingPoint] = {}
    gradients: dict[Any, GradientQuality] = {}
    checks: dict[str, list[CheckResult]] = {}
    learners: dict[str, Any] = {}
    tasks: dict[str, Any] = {}
    for directory in map(Path, directories):
        found = read_tables(directory) if (directory / "trials.csv").exists() else _read_run(directory)
        if not found.records:
            raise UsageError(
                f"no records in '{directory}': make some with creditbench run, or name another folder with --results"
            )
        records |= {record.trial.id: record for record in found.records}
        # The sizes of one sweep go together: their exponent is one fit.
        swept = {(p.learner, p.backend, p.axis, p.quantity) for p in found.scaling}
        scaling = {k: p for k, p in scaling.items() if k[:4] not in swept}
        scaling |= {(p.learner, p.backend, p.axis, p.quantity, p.size): p for p in found.scaling}
        gradients |= {(g.learner, g.backend, g.task, g.point): g for g in found.gradients}
        # A rule is checked as a whole.
        checks |= {c.learner: [own for own in found.checks if own.learner == c.learner] for c in found.checks}
        learners, tasks = learners | dict(found.learners), tasks | dict(found.tasks)
    return Results(
        tuple(sorted(records.values(), key=_order)),
        tuple(scaling[key] for key in sorted(scaling)),
        tuple(gradients[key] for key in sorted(gradients)),
        learners,
        tasks,
        tuple(row for name in sorted(checks) for row in checks[name]),
    )


def _read_run(directory: Path) -> Results:
    """What runs and measurements left in a folder."""
    records = Store(directory).all()
    scaling, gradients = [], []
    folder = directory / "scaling"
    if folder.is_dir():
        fits = {
            (fit["learner"], fit["backend"], fit["axis"], fit["quantity"]): fit
            for fit in _read_json(folder / "scaling.json")
        }
        for point in _read_csv(folder / "points.csv"):
            fit = dict(fits[point["learner"], point["backend"], point["axis"], point["quantity"]])
            low, high = fit.pop("interval")
            fit.pop("left_out", None)  # sizes without a point
            scaling.append(_validate(ScalingPoint, fit | point | {"low": low, "high": high}, folder))
    folder = directory / "gradients"
    if folder.is_dir():
        for row in _read_json(folder / "gradients.json"):
            flat = {name: value for name, value in row.items() if not name.endswith("_interval")}
            for name in ("cosine", "bias", "variance", "draws_to_cosine"):
                flat[f"{name}_low"], flat[f"{name}_high"] = row[f"{name}_interval"]
            gradients.append(_validate(GradientQuality, flat, folder))
    return Results(
        tuple(records),
        tuple(scaling),
        tuple(gradients),
        *_describe(records, [row.learner for row in scaling]),
        _read_checks(directory),
    )


def write_checks(directory: Path, about: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> None:
    """Write what `creditbench check` found of one learner, for `load` to read; of a task nothing is kept.

    Raises `UsageError`.
    """
    if about.get("kind") != "learners":
        return
    rows = [
        {
            "learner": about["id"],
            "learner_sha256": about["sha256"],
            **{k: result[k] for k in ("name", "held", "detail")},
        }
        for result in results
    ]
    folder = directory / "checks"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _replace(folder / f"{about['id']}.json", (json.dumps(rows, indent=1) + "\n").encode())
    except OSError as error:
        raise UsageError(
            f"results folder '{directory}' cannot be written ({error.strerror}): name another with --results"
        ) from None


def _read_checks(directory: Path) -> tuple[CheckResult, ...]:
    """What `write_checks` left in a folder."""
    return tuple(
        _validate(CheckResult, row, path)
        for path in sorted((directory / "checks").glob("*.json"))
        for row in _read_json(path)
    )


def _describe(
    records: Iterable[Record], learners: Iterable[str] = ()
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """The metadata of the records' learners and tasks by id; of one whose source is gone there is none.

    No user's code is run: of a user's rule, its newest record has what it said of itself; of a user's task, and of a
    rule whose records are older than that, the class of that id is read as text.
    """
    described = {r.trial.learner: r.described for r in sorted(records, key=lambda r: r.started_at)}
    paths = {("learners", r.trial.learner): r.trial.learner_path for r in records}
    paths |= {("tasks", r.trial.task): r.trial.task_path for r in records}
    paths |= {("learners", name): None for name in learners if ("learners", name) not in paths}
    names = {
        "learners": ("name", "paper", "family", "claims"),
        "tasks": (
            "name",
            "citation",
            "version",
            "protocol",
            "metric",
            "metric_direction",
            "trivial",
            "solved",
        ),
    }
    found: dict[str, dict[str, dict[str, Any]]] = {"learners": {}, "tasks": {}}
    kind: registry.Kind
    for (kind, name), path in sorted(paths.items(), key=str):  # type: ignore[assignment]
        if kind == "learners" and (own := described.get(name)):
            values = own
        elif path is not None and (read := _read_attributes(Path(path), name)):
            values = read
        elif (plugin := registry.load(kind).get(name)) is not None:
            values = {field: getattr(plugin.cls, field) for field in names[kind]}
            if kind == "learners":
                values["claims"] = dataclasses.asdict(values["claims"])
        else:
            continue
        if all(field in values for field in names[kind]):
            found[kind][name] = {field: values[field] for field in names[kind]}
    return found["learners"], found["tasks"]


def _read_attributes(path: Path, name: str) -> dict[str, Any]:
    """What the class of the id `name` in a Python file has of plain attributes, or `Claims` of plain values.

    It is not run. Of a file that cannot be read there are none.
    """
    from creditbench.learner import Claims

    def plain(value: ast.expr) -> Any:
        if isinstance(value, ast.Call) and _name(value.func) == "Claims":
            return dataclasses.asdict(
                Claims(**{k.arg: ast.literal_eval(k.value) for k in value.keywords if k.arg})
            )
        return ast.literal_eval(value)

    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    for owner in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        found: dict[str, Any] = {}
        for node in owner.body:
            if not isinstance(node, ast.Assign | ast.AnnAssign):
                continue
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if isinstance(target, ast.Name) and node.value is not None:
                with contextlib.suppress(
                    ValueError, TypeError, RecursionError, MemoryError
                ):  # not a plain value
                    found[target.id] = plain(node.value)
        if found.get("id") == name:
            return found
    return {}


def _name(called: ast.expr) -> str:
    """The last part of the name of what is called: `Claims` of `learner.Claims(...)`."""
    return called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")


def write_tables(results: Results, directory: Path, readme: str) -> None:
    """Write `results` as the tables of a version: sorted, columns in fixed order, floats in fixed format.

    trials.csv has a row a trial; curves.parquet a row a point of its curve; scaling.csv, gradients.csv and checks.csv
    are there where something was measured or checked; manifest.json says what they must hold; README.md is `readme`.
    Raises `UsageError`.
    """
    import pandas as pd

    records = tuple(map(_published, sorted(results.records, key=_order)))
    trials = [record.row() for record in records]
    curves = [
        {"trial": record.trial.id, **point.model_dump()} for record in records for point in record.curve
    ]
    tables: dict[str, Sequence[Mapping[str, Any]]] = {
        "trials.csv": trials,
        "scaling.csv": [point.model_dump() for point in results.scaling],
        "gradients.csv": [row.model_dump() for row in results.gradients],
        "checks.csv": [row.model_dump() for row in results.checks],
    }
    manifest = Manifest(
        suite_version=creditbench.__version__,
        rows={name: len(rows) for name, rows in tables.items() if rows} | {"curves.parquet": len(curves)},
        learners={name: dict(values) for name, values in sorted(results.learners.items())},
        tasks={name: dict(values) for name, values in sorted(results.tasks.items())},
        environments={record.environment_id: record.environment for record in records},
    )
    kinds = {
        "trial": "string",
        "step": "int64",
        "seconds": "float64",
        "loss": "float64",
        "validation": "float64",
    }
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, rows in tables.items():
            if rows:
                exact = _EXACT if name == "trials.csv" else frozenset()
                _replace(directory / name, _as_csv(rows, exact).encode())
            else:
                (directory / name).unlink(missing_ok=True)
        parquet = io.BytesIO()
        pd.DataFrame(curves, columns=list(_CURVE)).astype(kinds).to_parquet(
            parquet, index=False, compression="zstd"
        )
        _replace(directory / "curves.parquet", parquet.getvalue())
        text = json.dumps(manifest.model_dump(exclude={"environments"}), indent=1, sort_keys=True) + "\n"
        _replace(directory / "manifest.json", text.encode())
        text = json.dumps(manifest.environments, indent=1, sort_keys=True) + "\n"
        _replace(directory / "environments.json", text.encode())
        _replace(directory / "README.md", readme.encode())
    except OSError as error:
        raise UsageError(
            f"tables '{directory}' cannot be written ({error.strerror}): name another folder"
        ) from None


def _published(record: Record) -> Record:
    """The record without the folder of a user's data file: its content is known by its hash."""
    trial = record.trial
    data = trial.task_parameters.get("data")
    if trial.data_sha256 is None or not data or data.startswith("hf:"):
        return record
    parameters = trial.task_parameters | {"data": Path(data).name}
    return record.model_copy(update={"trial": trial.model_copy(update={"task_parameters": parameters})})


def read_tables(directory: Path) -> Results:
    """The tables of a version. Raises `UsageError` where one is broken, cut short, or of a newer schema."""
    described = _read_json(directory / "manifest.json")
    version = described.get("schema_version") if isinstance(described, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise UsageError(
            f"tables '{directory}' have the schema version {version}, and this creditbench reads up to "
            f"{SCHEMA_VERSION}: update creditbench"
        )
    environments = _read_json(directory / "environments.json")
    manifest = _validate(Manifest, described | {"environments": environments}, directory / "manifest.json")
    rows = {name: _read_csv(directory / name) for name in manifest.rows if name.endswith(".csv")}
    curves = _read_curves(directory / "curves.parquet")
    for name, expected in manifest.rows.items():
        count = len(rows[name]) if name in rows else sum(map(len, curves.values()))
        if count != expected:
            raise UsageError(
                f"table '{directory / name}' has {count} rows, and manifest.json says {expected}: "
                "take it from git again, or make it again with creditbench table --compact"
            )
    records: dict[str, Record] = {}
    for line, row in enumerate(rows.get("trials.csv", ()), 2):
        where = f"table '{directory / 'trials.csv'}', line {line}"
        trial = row.get("trial", "")
        if trial in records:
            raise UsageError(f"{where}: the trial {trial} is there twice: delete one of the two rows")
        schema = row.get("schema_version", "")
        if schema.isdecimal() and int(schema) > SCHEMA_VERSION:
            raise UsageError(
                f"{where}: the schema version is {schema}, and this creditbench reads up to {SCHEMA_VERSION}: "
                "update creditbench"
            )
        try:
            environment = environments.get(row.get("environment", ""), {})
            records[trial] = Record.from_row(row, curves.get(trial, ()), environment)
        except (ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:160]
            raise UsageError(
                f"{where}: trial {trial or '(none)'} is not a whole record ({reason}): "
                "take the table from git again, or make it again with creditbench table --compact"
            ) from None
    return Results(
        tuple(sorted(records.values(), key=_order)),
        tuple(_validate(ScalingPoint, row, directory / "scaling.csv") for row in rows.get("scaling.csv", ())),
        tuple(
            _validate(GradientQuality, row, directory / "gradients.csv")
            for row in rows.get("gradients.csv", ())
        ),
        manifest.learners,
        manifest.tasks,
        tuple(_validate(CheckResult, row, directory / "checks.csv") for row in rows.get("checks.csv", ())),
    )


def _replace(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)


#: Columns that a trial's id is taken of: written to the last digit.
_EXACT = frozenset(Trial.model_fields)


#: With what a cell begins that a spreadsheet would run as a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def inert(text: str) -> str:
    """A text for a cell of a CSV file: behind an apostrophe where a spreadsheet would run it as a formula."""
    return f"'{text}" if text.lstrip("'").startswith(_FORMULA) else text


def _inert_read(text: str) -> str:
    """What `inert` was given."""
    return text[1:] if text.startswith("'") and text.lstrip("'").startswith(_FORMULA) else text


def _as_csv(rows: Sequence[Mapping[str, Any]], exact: frozenset[str]) -> str:
    """Rows as text; a float has nine significant digits, in the columns `exact` all."""

    def cell(name: str, value: Any) -> str:
        if value is None:
            return ""
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, float):
            return repr(value) if name in exact else format(value, ".9g")
        return inert(value) if isinstance(value, str) else str(value)

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(rows[0])
    writer.writerows([cell(name, value) for name, value in row.items()] for row in rows)
    return text.getvalue()


def _read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file. Raises `UsageError` where a row has not as many cells as there are columns."""
    try:
        lines = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8")), strict=True))
    except (OSError, ValueError, csv.Error) as error:
        raise _broken(path, error) from None
    if not lines:
        raise _broken(path, ValueError("it is empty"))
    for number, line in enumerate(lines[1:], 2):
        if len(line) != len(lines[0]):
            raise _broken(path, ValueError(f"line {number} has {len(line)} cells of {len(lines[0])}"))
    return [dict(zip(lines[0], map(_inert_read, line), strict=True)) for line in lines[1:]]


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise _broken(path, error) from None


def _read_curves(path: Path) -> dict[str, list[Point]]:
    """The points of each trial's curve, by its id."""
    import pyarrow as pa
    import pyarrow.parquet

    try:
        columns = pyarrow.parquet.read_table(path, columns=list(_CURVE)).to_pydict()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise _broken(path, error) from None
    curves: dict[str, list[Point]] = {}
    for trial, step, seconds, loss, validation in zip(*(columns[name] for name in _CURVE), strict=True):
        point = Point(
            step=step,
            seconds=seconds,
            loss=None if loss != loss else loss,
            validation=None if validation != validation else validation,
        )
        curves.setdefault(trial, []).append(point)
    return curves


def _validate(model: type[R], values: Mapping[str, Any], path: Path) -> R:
    try:
        return model.model_validate({name: None if value == "" else value for name, value in values.items()})
    except ValidationError as error:
        raise _broken(path, error) from None


def _broken(path: Path, error: Exception) -> UsageError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return UsageError(
        f"table '{path}' cannot be read ({' '.join(reason.split())[:160]}): "
        "take it from git again, or make it again with creditbench table --compact"
    )
