"""Trials as a grid makes them, and records of them with a test's values."""

from creditbench.trials.grid import Options, make_grid
from creditbench.trials.record import Record
from creditbench.trials.trial import Trial


def trials(*learners: str, task: str = "mackey_glass", **options) -> tuple[Trial, ...]:
    return make_grid(Options(tasks=(task,), learners=learners, preset="smoke", **options)).trials


def record(trial: Trial, **values) -> Record:
    common = {"status": "ok", "metric": "nrmse", "metric_direction": "min", "environment": {"cpu": "one"}}
    return Record(suite_version="0", trial=trial, learner_source="builtin", **common | values)
