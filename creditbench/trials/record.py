"""The result of one trial: one row of a results table, and its curve."""

from __future__ import annotations

import hashlib
import json
import marshal
import math
import struct
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, NamedTuple, cast, overload

from pydantic import AfterValidator, BaseModel, ConfigDict, PlainSerializer, TypeAdapter, model_validator

from creditbench.machine.environment import constant, environment_id
from creditbench.machine.files import parse_json, require_plain
from creditbench.machine.frameworks import FRAMEWORKS
from creditbench.trials.trial import FAMILIES, Amount, Count, Number, Size, Trial

#: 2: costs (ratios, FLOPs, algorithm bytes, device peak), and the source of `process_peak_bytes`. 3: the
#: solved score at the trial's own parameters and data; unbounded scores; the study of tuning.
SCHEMA_VERSION = 3

Status = Literal["ok", "diverged", "timeout", "oom", "crashed", "invalid"]


class Point(NamedTuple):
    """The state of training at one evaluation. It is checked where it becomes part of a record."""

    step: Count  #: training time steps so far
    seconds: Amount  #: training time so far, without compilation and evaluation
    loss: Number | None  #: mean training loss since the last point; None if not finite
    validation: Number | None  #: metric on the validation split; None if not finite


_POINT = TypeAdapter(Point)
#: A point in a curve; not a number stands for None.
_PACKED = struct.Struct("<qddd")
PACKED = [(name, "<i8" if name == "step" else "<f8") for name in Point._fields]  #: the same for NumPy
PACKED_BYTES = _PACKED.size


class Curve(Sequence[Point]):
    """The points of a record, 32 bytes each: tuples would be most of what many records take."""

    __slots__ = ("packed",)

    def __init__(self, points: Iterable[Point]) -> None:
        self.packed = b"".join(
            _PACKED.pack(step, seconds, *(math.nan if value is None else value for value in rest))
            for step, seconds, *rest in points
        )

    def __len__(self) -> int:
        return len(self.packed) // PACKED_BYTES

    def __iter__(self) -> Iterator[Point]:
        return map(_unpacked, _PACKED.iter_unpack(self.packed))

    @overload
    def __getitem__(self, at: int) -> Point: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Point]: ...
    def __getitem__(self, at: int | slice) -> Point | Sequence[Point]:
        if isinstance(at, slice):
            return tuple(self)[at]
        return _unpacked(_PACKED.unpack_from(self.packed, range(len(self))[at] * PACKED_BYTES))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Curve):
            return self.packed == other.packed
        return tuple(self) == other

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return repr(tuple(self))


def _unpacked(values: tuple[int, float, float, float]) -> Point:
    step, seconds, loss, validation = values
    return Point(
        step, seconds, None if loss != loss else loss, None if validation != validation else validation
    )


#: In the JSON of a record a point is an object.
Points = Annotated[
    Sequence[Point],
    AfterValidator(Curve),
    PlainSerializer(lambda curve: [dict(zip(Point._fields, point, strict=True)) for point in curve]),
]


def checked(point: Point) -> Point:
    """The point. Raises ValidationError if no record could hold it."""
    return _POINT.validate_python(point)


#: Parts of environments by their content. Records share them: they are most of a record without its curve.
_PARTS: dict[bytes, Any] = {}


def _require_environment(known: dict[str, Any]) -> dict[str, Any]:
    """The description of a machine. Raises ValueError if a part that reports use has a wrong type."""
    try:
        key = hashlib.sha256(marshal.dumps(constant(known), 2)).digest()
    except ValueError:  # nested too deep
        return _checked(known)
    if key not in _PARTS:
        _PARTS[key] = constant(_checked(known))
    varying = known.keys() - _PARTS[key].keys()
    if not varying:  # records of tables share all of it
        return cast(dict[str, Any], _PARTS[key])
    return _PARTS[key] | {name: require_plain(known[name]) for name in varying}


def _checked(known: dict[str, Any]) -> dict[str, Any]:
    require_plain(known)
    maybe = {"commit": str, "precision": dict, "accelerators": list}
    kinds: dict[str, Any] = {
        "cpu": str,
        "packages": dict,
        **{name: kind | None for name, kind in maybe.items()},
    }
    for name, kind in kinds.items():
        if name in known and not isinstance(known[name], kind):
            raise ValueError(f"{name} is {known[name]!r:.40}")
    if not all(isinstance(one, dict) for one in known.get("accelerators") or ()):
        raise ValueError("an accelerator has no names for what is said of it")
    return known


Environment = Annotated[dict[str, Any], AfterValidator(_require_environment)]


class Cost(NamedTuple):
    """The cost of an update: the fields of a `Record` of these names. A figure that was not taken is None."""

    ratio_forward: float | None = None
    ratio_bptt: float | None = None
    flops_per_step: float | None = None
    algorithm_bytes: int | None = None


_NO_COST = Cost()


@dataclass(frozen=True)
class Outcome:
    """The outcome of training one trial: the fields of its `Record` that training decides."""

    status: Status
    status_detail: str = ""
    trivial: float | None = None
    solved: float | None = None
    validation_best: float | None = None
    test_score: float | None = None
    normalised_score: float | None = None
    firing_rate: float | None = None
    steps_to_target: int | None = None
    seconds_to_target: float | None = None
    train_seconds: float | None = None
    steps_per_second: float | None = None
    process_peak_bytes: int | None = None
    process_peak_source: Literal["VmHWM", "ru_maxrss"] | None = None
    device_peak_bytes: int | None = None
    resumed: int = 0
    curve: tuple[Point, ...] = ()
    cost: Cost = _NO_COST

    def fields(self) -> dict[str, Any]:
        """The values by the names of the record's fields."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "cost"}
        return values | self.cost._asdict()


class Record(BaseModel):
    """One trial and its outcome. A figure that was not taken is None, never 0."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION  #: of the record
    suite_version: str  #: of creditbench
    trial: Trial  #: what was run
    learner_source: str  #: where the rule came from
    described: dict[str, Any] | None = None  #: the metadata, at the time of the run, of a rule not shipped
    status: Status  #: how the trial ended: ok, diverged, or a failure
    status_detail: str = ""  #: the step of divergence, or the error
    metric: str  #: name of the task's metric
    metric_direction: Literal["min", "max"]  #: whether a lower or a higher metric is better
    trivial: Number | None = None  #: metric of the trivial predictor on the test split
    solved: Number | None = None  #: metric at which the test split counts as solved; None if not known
    validation_best: Number | None = None  #: best metric on the validation split
    test_score: Number | None = None  #: metric on the test split, with the weights best on validation
    #: 0 is trivial, 1 is solved, unbounded; None without `solved`, or diverged
    normalised_score: Number | None = None
    #: part of the steps of the test split at which a unit spikes, mean over units; None for other cells
    firing_rate: Amount | None = None
    #: training steps until validation is 0.9 of the way from trivial to solved; None if never
    steps_to_target: Count | None = None
    seconds_to_target: Amount | None = None  #: seconds of training until then
    train_seconds: Amount | None = None  #: of training alone, without compiling and evaluating
    #: of the program that trains, tracing included. Up to v0.2, those that evaluate are in it too
    compile_seconds: Amount | None = None
    compile_cached: bool | None = None  #: whether that program came from the cache
    steps_per_second: Amount | None = None  #: steady state; a step of the whole batch counts once
    ratio_forward: Amount | None = None  #: time of a step, × the same cell's forward pass; paired blocks
    ratio_bptt: Amount | None = None  #: time of a step, × `bptt` under the same optimiser
    #: FLOPs of an update with the optimiser, for the whole batch, divided by its steps
    flops_per_step: Amount | None = None
    #: memory that an update needs beyond weights and data: `creditbench.measure.memory`
    algorithm_bytes: Count | None = None
    process_peak_bytes: Count | None = None  #: growth of the process's peak resident memory over the trial
    #: VmHWM is the trial's own, see `ProcessPeak`
    process_peak_source: Literal["VmHWM", "ru_maxrss"] | None = None
    #: on an accelerator; under JAX the process's so far, see `DevicePeak`
    device_peak_bytes: Count | None = None
    trained_together: Size = 1  #: seeds trained in one program
    resumed: Count = 0  #: times that training went on from a checkpoint; seconds of training are of all parts
    curve: Points = ()  #: at every evaluation
    environment: Environment = {}  #: processor, system, versions
    started_at: str = ""  #: UTC, ISO 8601
    duration_seconds: Amount | None = None  #: of the whole trial

    @model_validator(mode="before")
    @classmethod
    def _migrate(cls, values: Any) -> Any:
        """A record of an older schema as one of this schema. Figures that it lacks are None."""
        version = values.get("schema_version", SCHEMA_VERSION) if isinstance(values, dict) else SCHEMA_VERSION
        if type(version) is not int or not 1 <= version <= SCHEMA_VERSION:
            raise ValueError(f"the schema version is {version!r:.40}: there are 1 to {SCHEMA_VERSION}")
        if version < SCHEMA_VERSION:
            first = version == 1
            values = dict(values) | {"schema_version": SCHEMA_VERSION}
            if first and values.get("process_peak_bytes") is not None:
                values["process_peak_source"] = "ru_maxrss"
            # Older schemas cut the score off at -1 and 1.1, and set it to 0 if a seed diverged.
            score = values.get("normalised_score")
            if isinstance(score, int | float | str) and (
                values.get("status") != "ok" or not -1 < float(score) < 1.1
            ):
                values["normalised_score"] = None
        return values

    def shared(self) -> Record:
        """The record itself. Its sets of fields are now one with those of its like: half of its bytes."""
        for model in (self, self.trial):
            own = model.model_fields_set
            shared = _FIELDS.setdefault((type(model), frozenset(own)), own)
            object.__setattr__(model, "__pydantic_fields_set__", shared)
        return self

    @property
    def cold_compile_seconds(self) -> float | None:
        """The compile time; None if the program came from the cache."""
        return None if self.compile_cached else self.compile_seconds

    @property
    def machine(self) -> str:
        """The machine that took the times. Do not compare them with times of another machine."""
        known = self.environment
        accelerators = ", ".join(str(one.get("name")) for one in known.get("accelerators") or ())
        threads = f"{self.trial.threads} thread{'s' * (self.trial.threads > 1)}"
        return f"{accelerators or known.get('cpu', 'unknown processor')}, {threads}"

    @property
    def versions(self) -> str:
        """The versions that decide rounding and draws: the framework with its settings, and NumPy."""
        packages = self.environment.get("packages", {})
        names = FRAMEWORKS[self.trial.backend].rounding
        found = [f"{name} {packages[name]}" for name in (*names, "numpy") if name in packages]
        settings = self.environment.get("precision") or {}
        return ", ".join([*found, *(f"{name}={value}" for name, value in sorted(settings.items()))])

    @property
    def environment_id(self) -> str:
        """Equal for records made on the same machine with the same versions and settings."""
        return environment_id(self.environment)

    @property
    def alike(self) -> tuple[str, ...]:
        """Equal for repeated runs of a rule on one machine with the same versions.

        Such runs belong to one family, or to the studies of one draw of tuning under the same conditions.
        """
        trial = self.trial
        if trial.study is None:
            made = trial.family
        else:
            sources = trial.task, trial.task_sha256, trial.learner_sha256
            draw = trial.study.partition("/")[0]
            place = [trial.rule, trial.backend, trial.device, draw, *sources, trial.conditions]
            made = json.dumps(place, sort_keys=True)
        return made, self.machine, self.versions

    def row(self) -> dict[str, Any]:
        """The record as one flat row of a table, without its curve, in a fixed order of columns.

        Nested values become JSON. `backend_version`, `device_name` and `seq_len` (None: an endless stream)
        follow from the others.
        """
        trial = self.trial.model_dump(exclude={"measure"})
        for name in _NESTED:
            trial[name] = json.dumps(trial[name], sort_keys=True)
        for name in _MAY_LACK:
            trial[name] = trial[name] if getattr(self.trial, name) else None
        known = self.environment
        derived = {
            "trial": self.trial.id,
            "backend_version": known.get("packages", {}).get(self.trial.backend),
            "device_name": known.get("device_name", known.get("cpu") if self.trial.device == "cpu" else None),
            "seq_len": self.trial.segment if self.trial.protocol == "episodes" else None,
        }
        values = self.model_dump(exclude={"trial", "curve", "environment", "described"})
        row = derived | trial | values | {"environment": self.environment_id}
        return {name: row[name] for name in (*_FIRST, *(name for name in row if name not in _FIRST))}

    @classmethod
    def from_row(cls, row: Mapping[str, Any], curve: Sequence[Point], environment: dict[str, Any]) -> Record:
        """The record of a row of a table. Empty cells mean None. Raises ValueError for an incomplete row."""
        row = {name: value for name, value in row.items() if value not in (None, "")}
        trial = {name: row.pop(name) for name in Trial.model_fields if name in row}
        trial = dict.fromkeys(_MAY_LACK, "{}") | trial
        for name in _NESTED:
            trial[name] = parse_json(trial[name])
        values = {name: value for name, value in row.items() if name not in _DERIVED}
        values["schema_version"] = int(values["schema_version"])  # migration needs a number
        if (seed := str(trial.get("seed"))).isascii() and seed.isdecimal() and len(seed) < 19:
            trial["seed"] = int(seed)
        for name in ("suite_version", "learner_source", "metric"):  # few texts, each in many rows
            if name in values:
                values[name] = sys.intern(values[name])
        known = FAMILIES.known(trial)
        record = cls.model_validate(values | {"trial": known, "curve": curve, "environment": environment})
        if record.trial.id != row.get("trial"):
            raise ValueError(f"its settings are those of the trial {record.trial.id}")
        if record.environment_id != row.get("environment"):
            raise ValueError(f"there is no environment {row.get('environment')}")
        FAMILIES.keep(trial, record.trial)
        return record


#: Sets of fields that were given, which pydantic keeps with each model.
_FIELDS: dict[tuple[type, frozenset[str]], set[str]] = {}
#: Columns of a row that are JSON.
_NESTED = ("hyperparameters", "task_parameters", "optimizer_parameters", "cell_parameters")
#: Columns of these that are empty where there is nothing in them, or that older tables lack.
_MAY_LACK = ("optimizer_parameters", "cell_parameters")
#: Columns of a row that follow from others.
_DERIVED = ("trial", "backend_version", "device_name", "seq_len", "environment")
#: Columns that come first in a row; the others follow as they are declared.
_FIRST = (
    *(
        "trial",
        "suite_version",
        "task",
        "task_version",
        "learner",
        "cell",
        "learner_sha256",
        "learner_source",
    ),
    *(
        "decorrelate",
        "backend",
        "backend_version",
        "device",
        "device_name",
        "hidden",
        "layers",
        "batch",
        "alpha",
        "seq_len",
    ),
    *("protocol", "optimizer", "lr", "hyperparameters", "seed", "preset", "budget_steps", "status"),
    *("status_detail", "metric", "validation_best", "test_score", "normalised_score", "steps_to_target"),
    *(
        "seconds_to_target",
        "train_seconds",
        "compile_seconds",
        "steps_per_second",
        "ratio_forward",
        "ratio_bptt",
    ),
    *(
        "flops_per_step",
        "algorithm_bytes",
        "process_peak_bytes",
        "device_peak_bytes",
        "environment",
        "started_at",
    ),
)
