"""What one trial yielded: one row of a results table, and its curve."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from creditbench.environment import environment_id
from creditbench.trial import Trial

#: 2: cost beside training (ratios, FLOPs, algorithm bytes, device peak), and whose peak `process_peak_bytes` is.
SCHEMA_VERSION = 2

Status = Literal["ok", "diverged", "timeout", "oom", "crashed", "invalid"]


class Point(BaseModel):
    """The state of training at one evaluation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int  #: training time steps so far
    seconds: float  #: training time so far, compilation and evaluation left out
    loss: float | None  #: mean training loss since the last point; None when it was not finite
    validation: float | None  #: metric on the validation split; None when it was not finite


class Record(BaseModel):
    """One trial and its outcome. A figure that was not taken is None, never 0."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    suite_version: str
    trial: Trial
    learner_source: str
    status: Status
    status_detail: str = ""  #: for `diverged`, the step; else the error
    metric: str
    metric_direction: Literal["min", "max"]
    trivial: float | None = None  #: metric of the trivial predictor on the test split
    validation_best: float | None = None
    test_score: float | None = None  #: metric on the test split, with the weights best on validation
    normalised_score: float | None = None
    steps_to_target: int | None = None
    seconds_to_target: float | None = None
    train_seconds: float | None = None
    compile_seconds: float | None = None
    steps_per_second: float | None = None  #: steady state, all sequences of the batch counted as one
    ratio_forward: float | None = None  #: time of a step, × the same cell's forward pass; paired blocks
    ratio_bptt: float | None = None  #: × `bptt` under the same optimiser
    flops_per_step: float | None = (
        None  #: FLOPs of an update, optimiser included, over its steps; the whole batch's
    )
    algorithm_bytes: int | None = (
        None  #: what an update needs beyond weights and data: `creditbench.measure.memory`
    )
    process_peak_bytes: int | None = None  #: growth of the process's peak resident memory over the trial
    process_peak_source: Literal["VmHWM", "ru_maxrss"] | None = (
        None  #: VmHWM is the trial's own, see `ProcessPeak`
    )
    device_peak_bytes: int | None = None  #: on an accelerator
    trained_together: int = 1  #: seeds trained in one program
    curve: tuple[Point, ...] = ()
    environment: dict[str, Any] = {}
    started_at: str = ""  #: UTC, ISO 8601
    duration_seconds: float | None = None

    @model_validator(mode="before")
    @classmethod
    def _migrate(cls, values: Any) -> Any:
        """A record of an older schema as one of this: what was not taken then is None."""
        if isinstance(values, dict) and values.get("schema_version") == 1:
            values = dict(values) | {"schema_version": SCHEMA_VERSION}
            if values.get("process_peak_bytes") is not None:
                values["process_peak_source"] = "ru_maxrss"
        return values

    @property
    def environment_id(self) -> str:
        """The same for records that were made on the same machine, versions and settings."""
        return environment_id(self.environment)

    def row(self) -> dict[str, Any]:
        """The record as one flat row of a table; nested values as JSON."""
        values = self.model_dump(exclude={"trial", "curve", "environment"})
        trial = self.trial.model_dump(exclude={"task_path", "learner_path", "measure"})
        for name in ("hyperparameters", "task_parameters"):
            trial[name] = json.dumps(trial[name], sort_keys=True)
        return {"trial": self.trial.id, **trial, **values, "environment": self.environment_id}
