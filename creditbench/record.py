"""What one trial yielded: one row of a results table, and its curve."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from creditbench.trial import Trial

SCHEMA_VERSION = 1

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
    process_peak_bytes: int | None = None  #: growth of the process's peak resident memory over the trial
    trained_together: int = 1  #: seeds trained in one program
    curve: tuple[Point, ...] = ()
    environment: dict[str, Any] = {}
    started_at: str = ""  #: UTC, ISO 8601
    duration_seconds: float | None = None

    def row(self) -> dict[str, Any]:
        """The record as one flat row of a table; nested values as JSON."""
        import json

        values = self.model_dump(exclude={"trial", "curve", "environment"})
        trial = self.trial.model_dump(exclude={"task_path", "learner_path"})
        for name in ("hyperparameters", "task_parameters"):
            trial[name] = json.dumps(trial[name], sort_keys=True)
        return {"trial": self.trial.id, **trial, **values}
