"""Measurements beside training, as their verbs leave them in a folder of results.

The tables of a version have the rows of `ScalingPoint`, `GradientQuality`, `CheckResult` and `Verified`:
scaling.csv, gradients.csv, checks.csv, verified.csv. A run has the same files, but scaling/scaling.csv and
gradients/gradients.csv, and beside each of these two the output of the verb as JSON. It has one file of
checks for each rule.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from creditbench.machine import files
from creditbench.results.columns import GRADIENTS
from creditbench.results.rows import R, Row, as_csv, read_csv, read_objects, validate
from creditbench.trials.trial import CELL, Amount, Count, Number, Size


class ScalingPoint(Row):
    """The cost at one size, and the exponent over all sizes: a row of scaling.csv."""

    learner: str  #: id of the rule
    cell: str = CELL  #: id of the cell
    backend: str  #: jax, torch
    axis: str  #: size that is swept: T, n, B
    quantity: str  #: of an update: time (seconds), algorithm_bytes, flops
    size: Size  #: its value
    value: Amount  #: of the quantity, median of the blocks
    blocks: Count  #: that were timed
    exponent: Number  #: of the upper half of the sizes
    low: Number  #: lower end of the 95 % interval of the exponent
    high: Number  #: its upper end
    claimed: Number | None  #: exponent that the rule claims; None without a claim
    held: bool | None  #: whether the claim held; None: nothing is claimed


class GradientQuality(Row):
    """Quality of one rule's estimates at one point of a BPTT run: a row of gradients.csv."""

    learner: str  #: id of the rule
    cell: str = CELL  #: id of the cell
    backend: str  #: jax, torch
    task: str  #: id of the task
    point: Amount  #: part of the run's budget
    draws: Count  #: of the estimate
    cosine: Number  #: cosine of one draw with the gradient of bptt
    cosine_low: Number  #: lower end of its 95 % interval
    cosine_high: Number  #: upper end
    bias: Number  #: ‖E[g] - g*‖/‖g*‖, corrected for the number of draws
    bias_low: Number  #: lower end of its 95 % interval
    bias_high: Number  #: upper end
    variance: Number  #: E‖g - E[g]‖²/‖g*‖²
    variance_low: Number  #: lower end of its 95 % interval
    variance_high: Number  #: upper end
    draws_to_cosine: Count | None  #: draws whose mean has the cosine 0.9; None: no number is enough
    draws_to_cosine_low: Count | None  #: lower end of its 95 % interval
    draws_to_cosine_high: Count | None  #: upper end


class CheckResult(Row):
    """One result of `creditbench check` on one rule: a row of checks.csv."""

    learner: str  #: id of the rule
    cell: str = CELL  #: id of the cell
    learner_sha256: str  #: of the source that was checked
    name: str  #: of the check
    held: bool | None  #: whether it held; None: not applicable
    detail: str  #: what was seen


class Verified(Row):
    """A submitted rule run again by `creditbench verify`: a row of verified.csv.

    Scores are normalised, and bounded as on the board. Intervals are of differences to the submitted runs.
    """

    learner: str  #: the rule, with the suffix of a decorrelated cell
    learner_sha256: str  #: of the source that was run again
    cell: str = CELL  #: id of the cell
    task: str  #: id of the task
    backend: str  #: jax, torch
    runs: Count  #: submitted
    runs_again: Count  #: with new seeds
    runs_hidden: Count  #: on the hidden task
    submitted: Number | None  #: mean score of the submitted runs
    again: Number | None  #: mean score with new seeds
    again_low: Number | None  #: lower end of the 95 % interval of its difference to the submitted one
    again_high: Number | None  #: upper end
    hidden: Number | None  #: mean score on the hidden task
    hidden_low: Number | None  #: lower end of the 95 % interval of its difference, less the reference's
    hidden_high: Number | None  #: upper end
    reference: str | None  #: the rule whose change on the hidden task is taken out
    verdict: Literal["verified", "differs", "failed", "no scale"]  #: see `creditbench verify --help`
    detail: str | None  #: why it is not verified


def read_rows(model: type[R], path: Path, verb: str) -> tuple[R, ...]:
    """The rows that `creditbench VERB` left in a CSV file, if any. Raises `UsageError`."""
    if not path.parent.is_dir():
        return ()
    cure = f"make it again with creditbench {verb} --output {path.parent}"
    return tuple(validate(model, row, path, cure=cure) for row in read_csv(path, cure))


def read_scaling(directory: Path) -> tuple[ScalingPoint, ...]:
    """The rows that `creditbench scale --output DIRECTORY/scaling` left."""
    return read_rows(ScalingPoint, directory / "scaling" / "scaling.csv", "scale")


def read_gradients(directory: Path) -> tuple[GradientQuality, ...]:
    """The rows that `creditbench gradients --output DIRECTORY/gradients` left."""
    return read_rows(GradientQuality, directory / "gradients" / "gradients.csv", "gradients")


def scaling_rows(
    points: Sequence[Mapping[str, Any]], fits: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The values of `ScalingPoint`s, from what was measured at each size and the fits."""
    names = ("learner", "cell", "backend", "axis", "quantity")
    fit_of = {tuple(fit[name] for name in names): fit for fit in fits}
    rows = []
    for point in points:
        fit, values = fit_of[tuple(point[name] for name in names)], sorted(point["values"])
        taken = {"value": values[len(values) // 2], "blocks": len(values)}
        rows.append(_row(ScalingPoint, {**fit, **_ends(fit, "interval", ""), **point, **taken}))
    return rows


def gradient_rows(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The values of `GradientQuality`s, from what was found: the ends of intervals are columns."""
    rows = []
    for values in found:
        ends = [_ends(values, f"{column.field}_interval", f"{column.field}_") for column in GRADIENTS]
        rows.append(
            _row(GradientQuality, {**values, **{name: end for own in ends for name, end in own.items()}})
        )
    return rows


def _row(model: type[Row], values: Mapping[str, Any]) -> dict[str, Any]:
    return {column: values[column] for column in model.model_fields}


def write_scaling(
    folder: Path, points: Sequence[Mapping[str, Any]], fits: Sequence[Mapping[str, Any]]
) -> None:
    """Write a sweep: scaling.csv, a row a size, and scaling.json, the fits. Raises `UsageError`."""
    _write(folder, "scaling", scaling_rows(points, fits), fits)


def write_gradients(folder: Path, found: Sequence[Mapping[str, Any]]) -> None:
    """Write gradients.csv, and with intervals gradients.json. Raises `UsageError`."""
    _write(folder, "gradients", gradient_rows(found), found)


def _ends(row: Mapping[str, Any], interval: str, prefix: str) -> dict[str, Any]:
    """The ends of an interval, a column each."""
    return {f"{prefix}low": row[interval][0], f"{prefix}high": row[interval][1]}


def _write(
    folder: Path, name: str, rows: Sequence[Mapping[str, Any]], printed: Sequence[Mapping[str, Any]]
) -> None:
    """Write the rows as CSV, and the output of the verb as JSON."""
    content = {f"{name}.json": json.dumps(printed, indent=1) + "\n", f"{name}.csv": as_csv(rows)}
    with files.output("output", folder, "name another folder"):
        folder.mkdir(parents=True, exist_ok=True)
        with files.replacing(*(folder / file for file in content)) as new:
            for path, text in zip(new, content.values(), strict=True):
                path.write_text(text, encoding="utf-8")


def write_checks(directory: Path, about: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> None:
    """Write the results of `creditbench check` on a learner, for `load` to read. Others' are not kept.

    Raises `UsageError`.
    """
    if about.get("kind") != "learners":
        return
    cell = about.get("cell") or CELL
    rows = [
        {
            "learner": about["id"],
            "cell": cell,
            "learner_sha256": about["sha256"],
            **{k: result[k] for k in ("name", "held", "detail")},
        }
        for result in results
    ]
    name = about["id"] if cell == CELL else f"{about['id']}.{cell}"
    path = directory / "checks" / f"{name}.json"
    with files.output("results folder", directory, "name another with --results"):
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write(path, (json.dumps(rows, indent=1) + "\n").encode())


def read_checks(directory: Path) -> tuple[CheckResult, ...]:
    """The rows that `write_checks` left in a folder."""
    return tuple(
        validate(CheckResult, row, path)
        for path in sorted((directory / "checks").glob("*.json"))
        for row in read_objects(path)
    )


def write_verified(directory: Path, rows: Sequence[Verified]) -> None:
    """Write the rows of `creditbench verify` beside its records, in place of the rule's older ones.

    Raises `UsageError`.
    """
    names = {(row.learner, row.cell) for row in rows}
    kept = [row for row in read_verified(directory) if (row.learner, row.cell) not in names]
    with files.output("results folder", directory, "name another with --output"):
        directory.mkdir(parents=True, exist_ok=True)
        text = as_csv([row.model_dump() for row in (*kept, *rows)])
        files.write(directory / "verified.csv", text.encode())


def read_verified(directory: Path) -> tuple[Verified, ...]:
    """The rows that `write_verified` left in a folder."""
    path = directory / "verified.csv"
    return read_rows(Verified, path, "verify") if os.path.lexists(path) else ()
