"""Some of the results: those of the rules, tasks, backends and cells that a user asks for."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Iterable

from creditbench.errors import UsageError, unknown
from creditbench.results.conditions import columns_of
from creditbench.results.version import Results
from creditbench.trials.trial import CELL


def select(
    results: Results,
    rules: Collection[str] = (),
    tasks: Collection[str] = (),
    backends: Collection[str] = (),
    cells: Collection[str] = (),
) -> Results:
    """The results of these rules, tasks, backends and cells; an empty collection stands for all.

    A task is named by itself, with all conditions that it was run under, or by a column of the board. Sweeps
    have no task, and are kept for every task.

    Raises `UsageError` for a name that the results do not have, and if nothing is left.
    """
    column = columns_of(results.records)

    def places(task: str, trial: str) -> set[str]:
        return {task, column[trial]}

    records = results.records
    _require("rule", rules, (r.trial.rule for r in records))
    _require("task", tasks, (name for r in records for name in places(r.trial.task, r.trial.id)))
    _require("backend", backends, (r.trial.backend for r in records))
    _require("cell", cells, (r.trial.cell for r in records))
    kept = tuple(
        r
        for r in records
        if (not rules or r.trial.rule in rules)
        and (not tasks or places(r.trial.task, r.trial.id) & set(tasks))
        and (not backends or r.trial.backend in backends)
        and (not cells or r.trial.cell in cells)
    )
    if not kept:
        asked = " and ".join(", ".join(names) for names in (rules, tasks, backends, cells) if names)
        raise UsageError(f"no results of {asked} together: leave one of them out; see: creditbench table")
    of_tasks = {r.trial.task for r in kept}
    return dataclasses.replace(
        results,
        records=kept,
        scaling=tuple(
            p
            for p in results.scaling
            if (not rules or p.learner in rules)
            and (not backends or p.backend in backends)
            and (not cells or p.cell in cells)
        ),
        gradients=tuple(
            g
            for g in results.gradients
            if (not rules or g.learner in rules)
            and (not backends or g.backend in backends)
            and (not tasks or g.task in of_tasks)
            and (not cells or g.cell in cells)
        ),
        checks=tuple(c for c in results.checks if not cells or c.cell in cells),
        verified=tuple(v for v in results.verified if not cells or v.cell in cells),
    )


def cells_of(results: Results) -> list[str]:
    """The cells of the records, that with most of them first; among equals the usual one, then by name."""
    counts = Counter(record.trial.cell for record in results.records)
    return sorted(counts, key=lambda cell: (-counts[cell], cell != CELL, cell))


def _require(what: str, names: Iterable[str], known: Iterable[str]) -> None:
    there = sorted(set(known))
    for name in names:
        if name not in there:
            raise unknown(f"{what} in these results", name, there, "creditbench table")
