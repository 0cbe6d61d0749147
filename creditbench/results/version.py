"""The tables of a version: the content of a folder of results, read, described and written as one."""

from __future__ import annotations

import ast
import contextlib
import ctypes
import dataclasses
import hashlib
import io
import json
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, StrictBool, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic can read its fields under Python 3.11

import creditbench
from creditbench.errors import UsageError, reason
from creditbench.learner import Claims
from creditbench.machine import files
from creditbench.plugins import registry
from creditbench.plugins.importing import Kind
from creditbench.results.measured import (
    CheckResult,
    GradientQuality,
    ScalingPoint,
    Verified,
    read_checks,
    read_gradients,
    read_scaling,
    read_verified,
)
from creditbench.results.rows import Row, broken, csv_lines, csv_rows, read, read_json, validate
from creditbench.results.store import Store, order
from creditbench.trials.record import PACKED, PACKED_BYTES, SCHEMA_VERSION, Curve, Environment, Point, Record
from creditbench.trials.trial import Count, Name, Number, Size, Trial


class LearnerAbout(TypedDict):
    """A version's metadata of a learner."""

    name: str
    paper: str
    family: str
    claims: dict[
        Literal["unbiased", "online", "forward_only", "memory_in_T", "time", "memory", "without_recurrence"],
        StrictBool | str | dict[str, StrictBool | str],
    ]


class TaskAbout(TypedDict):
    """A version's metadata of a task."""

    name: str
    citation: str
    version: Count
    protocol: str
    metric: str
    metric_direction: Literal["min", "max"]
    trivial: Number | None
    solved: Number | None


Table = Literal["trials.csv", "curves.parquet", "scaling.csv", "gradients.csv", "checks.csv", "verified.csv"]


class Manifest(Row):
    """The content that the files of a version must have, and the metadata of its names."""

    schema_version: Size = SCHEMA_VERSION
    suite_version: str
    rows: dict[Table, Count]  #: file -> its rows
    #: file -> of its content; none in older versions
    sha256: dict[Table | Literal["environments.json"], str] = Field(default_factory=dict)
    learners: dict[Name, LearnerAbout]  #: by id
    tasks: dict[Name, TaskAbout]
    environments: dict[str, Environment]  #: id -> processor, system, versions, commit


@dataclasses.dataclass(frozen=True)
class Results:
    """The content of a folder: records of trials, and measurements beside them."""

    records: tuple[Record, ...] = ()
    scaling: tuple[ScalingPoint, ...] = ()
    gradients: tuple[GradientQuality, ...] = ()
    learners: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)  #: metadata by id
    tasks: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    checks: tuple[CheckResult, ...] = ()
    verified: tuple[Verified, ...] = ()
    points: int | None = None  #: of all curves of tables, whether the records have them or not


TABLES: tuple[Table, ...] = get_args(Table)
_OF_A_VERSION = (*TABLES, "manifest.json", "environments.json", "README.md")
_CURVE = ("trial", *Point._fields)
_ROW_GROUP = 1 << 20  # points of curves that are in memory at a time; PyArrow's own choice for a table
_FEW_ROWS = 1_000_000  # a table of curves that has more, and more than its manifest says, is not read


def load(*directories: str | os.PathLike[str], whole: bool = False, curves: bool = True) -> Results:
    """The content of the folders: the tables of a version if there are any, else the records of runs.

    A record that cannot be read is left out, with a note on standard error; with `whole` it is an error.
    Without `curves` the records have none, and take far less memory.

    A folder's measurements are in its tables, or as `creditbench scale --output DIR/scaling`, `creditbench
    gradients --output DIR/gradients` and `creditbench check --results DIR` left them. If two folders have the
    same trial, measurement or checked rule, the later folder counts. Raises `UsageError` for a folder without
    content, and for a file that cannot be read.
    """
    records: dict[str, Record] = {}
    scaling: dict[Any, ScalingPoint] = {}
    gradients: dict[Any, GradientQuality] = {}
    checks: dict[tuple[str, str], list[CheckResult]] = {}
    verified: dict[tuple[str, str], list[Verified]] = {}
    learners: dict[str, Any] = {}
    tasks: dict[str, Any] = {}
    for directory in map(Path, directories):
        tables = any((directory / name).exists() for name in ("trials.csv", "manifest.json"))
        found = read_tables(directory, curves) if tables else _read_run(directory, whole, curves)
        # A folder may have measurements alone, beside another one with the records.
        if not (found.records or found.checks or found.scaling or found.gradients or found.verified):
            raise _no_records(directory)
        records |= {record.trial.id: record for record in found.records}
        # The sizes of one sweep go together: their exponent is one fit.
        swept = {(p.learner, p.cell, p.backend, p.axis, p.quantity) for p in found.scaling}
        scaling = {k: p for k, p in scaling.items() if k[:5] not in swept}
        scaling |= {(p.learner, p.cell, p.backend, p.axis, p.quantity, p.size): p for p in found.scaling}
        gradients |= {(g.learner, g.cell, g.backend, g.task, g.point): g for g in found.gradients}
        # A rule is checked as a whole.
        for rule in {(c.learner, c.cell) for c in found.checks}:
            checks[rule] = [c for c in found.checks if (c.learner, c.cell) == rule]
        for rule in {(v.learner, v.cell) for v in found.verified}:
            verified[rule] = [v for v in found.verified if (v.learner, v.cell) == rule]
        learners, tasks = learners | dict(found.learners), tasks | dict(found.tasks)
    if not records:
        raise _no_records(Path(next(iter(directories), ".")))
    return Results(
        tuple(sorted(records.values(), key=order)),
        tuple(scaling[key] for key in sorted(scaling)),
        tuple(gradients[key] for key in sorted(gradients)),
        learners,
        tasks,
        tuple(row for name in sorted(checks) for row in checks[name]),
        tuple(row for name in sorted(verified) for row in verified[name]),
    )


def _no_records(directory: Path) -> UsageError:
    return UsageError(
        f"no records in '{directory}': make some with creditbench run, or name another folder with --results"
    )


def _read_run(directory: Path, whole: bool, curves: bool) -> Results:
    """The files that runs and measurements left in a folder."""
    records, left_out = Store(directory).readable(curves)
    if left_out and whole:
        raise UsageError(left_out[0])
    if left_out and not records:
        raise UsageError(left_out[0])
    for why in left_out:
        print(f"note: left out: {why}", file=sys.stderr)
    scaling = read_scaling(directory)
    return Results(
        tuple(records),
        scaling,
        read_gradients(directory),
        *_describe(records, [row.learner for row in scaling]),
        read_checks(directory),
        read_verified(directory),
    )


def described(records: Iterable[Record]) -> Results:
    """Records with the metadata of their learners and tasks."""
    known = tuple(sorted(records, key=order))
    return Results(known, (), (), *_describe(known))


def _describe(
    records: Iterable[Record], learners: Iterable[str] = ()
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """The metadata of the records' learners and tasks by id, without those whose source is gone.

    No user's code is run. The newest record of a user's rule has the rule's description of itself. The class
    of a user's task is read as text, and so is a rule whose records have no description.
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
    kind: Kind
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
        with contextlib.suppress(ValidationError):  # a user's file may say anything
            about: Any = {"learners": LearnerAbout, "tasks": TaskAbout}[kind]
            own = {field: values[field] for field in names[kind] if field in values}
            found[kind][name] = dict(TypeAdapter(about).validate_python(own))
    return found["learners"], found["tasks"]


def _read_attributes(path: Path, name: str) -> dict[str, Any]:
    """The attributes of the class of the id `name` in a Python file: plain values, and `Claims` of them.

    The file is not run. One that cannot be read gives no attributes.
    """

    def plain(value: ast.expr) -> Any:
        if isinstance(value, ast.Call) and _name(value.func) == "Claims":
            return dataclasses.asdict(
                Claims(**{k.arg: ast.literal_eval(k.value) for k in value.keywords if k.arg})
            )
        return ast.literal_eval(value)

    try:
        tree = ast.parse(files.read(path, files.MOST_TEXT))
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
    """The last part of the name of a callee: `Claims` of `learner.Claims(...)`."""
    return called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")


def write_tables(results: Results, directory: Path, readme: str | Callable[[Results], str]) -> None:
    """Write `results` as the tables of a version: sorted, columns in fixed order, floats in fixed format.

    trials.csv has a row a trial, and curves.parquet a row a point of its curve. scaling.csv, gradients.csv
    and checks.csv exist if something was measured or checked. manifest.json says what the files must contain.
    README.md is `readme`, or the text that `readme` makes of the tables as read back, since rounding may tie
    two scores. The version replaces an older one in one step; other files of the folder stay. Raises
    `UsageError`.
    """
    if (directory / "records").exists():
        raise UsageError(
            f"folder '{directory}' has records of runs, which tables beside them would hide: "
            "name another folder"
        )
    with files.output("tables", directory, "name another folder"), _replacing_folder(directory) as new:
        _write_version(results, new)
        del results  # so that it is not in memory twice
        text = readme if isinstance(readme, str) else readme(read_tables(new, curves=False))
        (new / "README.md").write_bytes(files.as_bytes(text))


@contextlib.contextmanager
def _replacing_folder(directory: Path) -> Iterator[Path]:
    """A new folder for the body to fill with a version; it then replaces `directory` in one step.

    Files of `directory` that are not of a version are kept. If the body fails, nothing changes.
    """
    place = directory.resolve()
    place.parent.mkdir(parents=True, exist_ok=True)
    new = place.with_name(f".{secrets.token_hex(6)}.tmp")
    new.mkdir()
    try:
        yield new
        if place.exists():
            new.chmod(place.stat().st_mode)
            for kept in place.iterdir():
                if kept.is_dir() and not kept.is_symlink():
                    shutil.copytree(kept, new / kept.name, symlinks=True, copy_function=_link)
                elif kept.name not in _OF_A_VERSION:
                    _link(kept, new / kept.name)
        for path in (*new.rglob("*"), new):
            if path.is_file() or path.is_dir():
                files.sync(path)
        if place.exists():
            _exchange(new, place)  # `new` is what was there before
        else:
            os.rename(new, place)
        files.sync(place.parent)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _link(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """The same file under another name; a copy if the file system has no hard links."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


_EXCHANGE, _HERE = 2, -100  # RENAME_EXCHANGE, AT_FDCWD


def _exchange(one: Path, other: Path) -> None:
    """Exchange the names of two folders, under Linux in one step. Elsewhere a name is free meanwhile."""
    libc = None if os.name == "nt" else ctypes.CDLL(None, use_errno=True)
    rename = getattr(libc, "renameat2", None)
    names = os.fsencode(one), os.fsencode(other)
    if rename is not None and rename(_HERE, names[0], _HERE, names[1], _EXCHANGE) == 0:
        return
    aside = other.with_name(f".{secrets.token_hex(6)}.old")
    os.rename(other, aside)
    try:
        os.rename(one, other)
    except OSError:
        os.rename(aside, other)
        raise
    os.rename(aside, one)


def _write_version(results: Results, directory: Path) -> None:
    """Write all but the README into an empty folder. Of the records, one row is in memory at a time."""
    records = sorted(results.records, key=order)
    tables: dict[Table, Sequence[Row]] = {
        "scaling.csv": results.scaling,
        "gradients.csv": results.gradients,
        "checks.csv": results.checks,
        "verified.csv": results.verified,
    }
    lines = {name: csv_lines(row.model_dump() for row in table) for name, table in tables.items() if table}
    rows = {name: len(table) for name, table in tables.items() if table}
    if records:
        lines["trials.csv"] = csv_lines((_published(record).row() for record in records), _EXACT)
        rows["trials.csv"] = len(records)
    for name, parts in lines.items():
        with (directory / name).open("wb") as file:
            file.writelines(part.encode() for part in parts)
    rows["curves.parquet"] = _write_curves(records, directory / "curves.parquet")
    environments = {record.environment_id: record.environment for record in records}
    (directory / "environments.json").write_bytes(_as_json(environments))
    written: tuple[Any, ...] = (*rows, "environments.json")
    manifest = Manifest(
        suite_version=creditbench.__version__,
        rows=rows,
        sha256={name: _sha256(directory / name) for name in written},
        learners=_plain(results.learners),
        tasks=_plain(results.tasks),
        environments=environments,
    )
    (directory / "manifest.json").write_bytes(_as_json(manifest.model_dump(exclude={"environments"})))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_curves(records: Iterable[Record], path: Path) -> int:
    """Write the points of the records' curves, a part at a time; returns their number."""
    # pandas and PyArrow are slow to import.
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet

    kinds = {"trial": "string", "step": "int64"} | dict.fromkeys(_CURVE[2:], "float64")
    writer, count = None, 0
    with contextlib.ExitStack() as opened:
        for group in _in_groups(records, _ROW_GROUP):
            points = np.frombuffer(b"".join(packed for _, packed in group), PACKED)
            sizes = [len(packed) // PACKED_BYTES for _, packed in group]
            columns = {"trial": np.repeat(np.array([trial for trial, _ in group], object), sizes)}
            frame = pd.DataFrame(columns | {name: points[name] for name in Point._fields}).astype(kinds)
            table = pa.Table.from_pandas(frame, preserve_index=False)
            if writer is None:
                made = pyarrow.parquet.ParquetWriter(path, table.schema, compression="zstd")
                writer = opened.enter_context(made)
            writer.write_table(table)
            count += len(points)
    return count


def _in_groups(records: Iterable[Record], most: int) -> Iterator[list[tuple[str, bytes]]]:
    """The trial and the packed points of each record, in groups of `most` points, the last with fewer."""
    group: list[tuple[str, bytes]] = []
    room = most * PACKED_BYTES
    for record in records:
        curve = record.curve if isinstance(record.curve, Curve) else Curve(record.curve)
        packed = curve.packed
        while len(packed) > room:
            yield [*group, (record.trial.id, packed[:room])]
            group, packed, room = [], packed[room:], most * PACKED_BYTES
        group.append((record.trial.id, packed))
        room -= len(packed)
    yield group


def _plain(metadata: Mapping[str, Mapping[str, Any]]) -> Any:
    return {name: dict(values) for name, values in sorted(metadata.items())}


def _as_json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def _published(record: Record) -> Record:
    """The record without the folder of a user's data file: its content is known by its hash."""
    trial = record.trial
    data = trial.task_parameters.get("data")
    if trial.data_sha256 is None or not data or data.startswith("hf:"):
        return record
    parameters = trial.task_parameters | {"data": Path(data).name}
    return record.model_copy(update={"trial": trial.model_copy(update={"task_parameters": parameters})})


def read_tables(directory: Path, curves: bool = True) -> Results:
    """The tables of a version; the records have no curves unless `curves`.

    Raises `UsageError` if one is broken, cut short, of a newer schema, or not the one of the manifest.
    """
    described = read_json(directory / "manifest.json")
    if not isinstance(described, dict):
        raise broken(directory / "manifest.json", ValueError("it is no object"))
    version = described.get("schema_version")
    if type(version) is int and version > SCHEMA_VERSION:
        raise UsageError(
            f"tables '{directory}' have the schema version {version}, and this creditbench reads up to "
            f"{SCHEMA_VERSION}: update creditbench"
        )
    environments = read_json(directory / "environments.json")
    values = described | {"environments": environments}
    manifest = validate(Manifest, values, directory / "manifest.json", strict=True)
    for name in ("trials.csv", "curves.parquet"):
        if name not in manifest.rows:
            raise broken(directory / "manifest.json", ValueError(f"rows has no {name}"))
    content: dict[str, bytes] = {
        name: read(directory / name) for name in manifest.rows if name.endswith(".csv")
    }

    def rows(name: Table) -> Iterator[dict[str, str]]:
        return csv_rows(directory / name, content[name]) if name in content else iter(())

    counts = {name: sum(1 for _ in rows(name)) for name in manifest.rows if name in content}
    of_trials, points = _read_curves(directory / "curves.parquet", manifest.rows["curves.parquet"], curves)
    for name, expected in manifest.rows.items():
        count = counts.get(name, points)
        if count != expected:
            raise UsageError(
                f"table '{directory / name}' has {count} rows, and manifest.json says {expected}: "
                "take it from git again, or make it again with creditbench table --compact"
            )
    records: dict[str, Record] = {}
    for line, row in enumerate(rows("trials.csv"), 2):
        where = f"table '{directory / 'trials.csv'}', line {line}"
        trial = row.get("trial", "")
        if trial in records:
            raise UsageError(f"{where}: the trial {trial} is there twice: delete one of the two rows")
        schema = row.get("schema_version", "")
        if schema.isdecimal() and len(schema) < 10 and int(schema) > SCHEMA_VERSION:
            raise UsageError(
                f"{where}: the schema version is {schema}, and this creditbench reads up to "
                f"{SCHEMA_VERSION}: update creditbench"
            )
        try:
            environment = manifest.environments.get(row.get("environment", ""), {})
            records[trial] = Record.from_row(row, of_trials.pop(trial, ()), environment).shared()
        except (ValueError, KeyError) as error:
            raise UsageError(
                f"{where}: trial {trial or '(none)'} is not a whole record ({reason(error)}): "
                "take the table from git again, or make it again with creditbench table --compact"
            ) from None
    if astray := sorted(of_trials):
        raise broken(directory / "curves.parquet", ValueError(f"trials.csv has no trial {astray[0]:.40}"))
    found = Results(
        tuple(sorted(records.values(), key=order)),
        tuple(validate(ScalingPoint, row, directory / "scaling.csv") for row in rows("scaling.csv")),
        tuple(validate(GradientQuality, row, directory / "gradients.csv") for row in rows("gradients.csv")),
        _plain(manifest.learners),
        _plain(manifest.tasks),
        tuple(validate(CheckResult, row, directory / "checks.csv") for row in rows("checks.csv")),
        tuple(validate(Verified, row, directory / "verified.csv") for row in rows("verified.csv")),
        points,
    )
    # Last, since the errors above are more helpful.
    for name, sha256 in manifest.sha256.items():
        path = directory / name
        own = content.get(name) or read(path)
        if hashlib.sha256(own).hexdigest() != sha256:
            raise broken(path, ValueError("it is not the one that manifest.json was written with"))
    return found


#: Columns that a trial's id is made from: written to the last digit.
_EXACT = frozenset(Trial.model_fields)


def _read_curves(path: Path, expected: int, points: bool) -> tuple[dict[str, list[Point]], int]:
    """The points of each trial's curve by its id, if `points`, and the number of all points.

    Raises `UsageError` for a table that has more than `expected` rows and is large.
    """
    # PyArrow is slow to import.
    import pyarrow as pa
    import pyarrow.parquet

    content = read(path)
    curves: dict[str, list[Point]] = {}
    try:
        opened = pyarrow.parquet.ParquetFile(io.BytesIO(content))
        count = opened.metadata.num_rows
        if count > max(expected, _FEW_ROWS):
            raise ValueError(f"it has {count} rows, and manifest.json says {expected}")
        for batch in opened.iter_batches(columns=list(_CURVE)) if points else ():
            columns = batch.to_pydict()
            for trial, step, seconds, loss, validation in zip(
                *(columns[name] for name in _CURVE), strict=True
            ):
                if not isinstance(trial, str):
                    raise ValueError(f"a row has the trial {trial!r:.40}")
                finite = (None if value != value else value for value in (loss, validation))
                curves.setdefault(trial, []).append(Point(step, seconds, *finite))
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise broken(path, error) from None
    return curves, count
