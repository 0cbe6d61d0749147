"""Some of the results: those of the rules, tasks and backends that a user asks for."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable

from creditbench.errors import UsageError, unknown
from creditbench.results.conditions import columns_of
from creditbench.results.version import Results


def select(
    results: Results, rules: Collection[str] = (), tasks: Collection[str] = (), backends: Collection[str] = ()
) -> Results:
    """The results of these rules, tasks and backends; an empty collection stands for all.

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
    kept = tuple(
        r
        for r in records
        if (not rules or r.trial.rule in rules)
        and (not tasks or places(r.trial.task, r.trial.id) & set(tasks))
        and (not backends or r.trial.backend in backends)
    )
    if not kept:
        asked = " and ".join(", ".join(names) for names in (rules, tasks, backends) if names)
        raise UsageError(f"no results of {asked} together: leave one of them out; see: creditbench table")
    of_tasks = {r.trial.task for r in kept}
    return dataclasses.replace(
        results,
        records=kept,
        scaling=tuple(
            p
            for p in results.scaling
            if (not rules or p.learner in rules) and (not backends or p.backend in backends)
        ),
        gradients=tuple(
            g
            for g in results.gradients
            if (not rules or g.learner in rules)
            and (not backends or g.backend in backends)
            and (not tasks or g.task in of_tasks)
        ),
    )


def _require(what: str, names: Iterable[str], known: Iterable[str]) -> None:
    there = sorted(set(known))
    for name in names:
        if name not in there:
            raise unknown(f"{what} in these results", name, there, "creditbench table")
