"""Checks of rules, tasks and cells: one call for the command line and for Python."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from creditbench.check import lists, runner
from creditbench.check.runner import CheckReport
from creditbench.errors import UsageError
from creditbench.executors.spread import Spread
from creditbench.library import defaults
from creditbench.library.asked import Cells, Learners, Path_, Tasks, asked, bars_of
from creditbench.library.messages import says_arguments
from creditbench.results.measured import write_checks
from creditbench.results.runs import Bars
from creditbench.trials.trial import CELL, with_cell

if TYPE_CHECKING:
    import pandas as pd


def check_reports(
    items: Sequence[str],
    cells: Sequence[str],
    settings: Mapping[str, Any],
    *,
    backends: Sequence[str],
    only: Sequence[str] | None,
    seconds: float,
    where: Spread,
    results: Path | None,
    bars: Bars,
) -> list[CheckReport]:
    """Check learners with each of the cells, and tasks and cells, given by id or path. Raises `UsageError`.

    `only`: names of checks; None: all. `seconds`: that a backend's process may take. `results`: the folder
    into which the outcome of each is written as it comes.
    """
    runner.require_names(only or ())
    if not seconds > 0:
        raise UsageError(f"--timeout is {seconds}: give a number of seconds above 0")
    pairs = []
    for item in items:
        is_learner = runner.is_learner(item)
        if not is_learner and list(cells) != [CELL]:
            raise UsageError(f"--cell is {','.join(cells)} and {item} is no learner: leave --cell out")
        pairs += [(item, name) for name in (cells if is_learner else [CELL])]
    for name in cells:
        runner.resolve(name, ("cells",))
    if settings and results is not None:
        given = ", ".join(f"{name}={value}" for name, value in settings.items())
        raise UsageError(
            f"--set is {given} and --results is {results}: a leaderboard shows what holds of the defaults; "
            "leave one out"
        )
    values = runner.settings_of(settings, items, cells)
    orders = [
        {
            # A worker of a cluster has another working folder.
            "item": str(Path(item).expanduser().resolve()) if runner.is_path(item) else item,
            "backends": list(backends),
            "only": None if only is None else list(only),
            "seconds": seconds,
            "cell": str(Path(name).expanduser().resolve()) if runner.is_path(name) else name,
            "settings": values,
        }
        for item, name in pairs
    ]
    found: dict[int, CheckReport] = {}
    # The import is always checked.
    count = len({*only, "import"}) if only else len(lists.LEARNER) + 1
    with bars("check", len(pairs) * len(backends) * count) as advance:
        for number, message in where.run(runner.ENTRY, orders):
            if "report" not in message:
                subject = f"{with_cell(*pairs[number])} " if len(pairs) > 1 else ""
                advance(f"{subject}{message['result']}")
                continue
            report = CheckReport.of(message["report"])
            found[number] = report = dataclasses.replace(report, subject=with_cell(*pairs[number]))
            if results is not None:
                write_checks(results, report.about, [dataclasses.asdict(one) for one in report.results])
    return [found[number] for number in range(len(pairs))]


@says_arguments
def run_checks(
    items: Tasks | Learners | Cells,
    *,
    cells: Cells = CELL,
    backend: str | Sequence[str] = (),
    only: str | Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    timeout: float = runner.SECONDS,
    executor: str = "local",
    scheduler: str | None = None,
    jobs: int | None = None,
    results: Path_ | None = None,
    show_progress: bool = True,
) -> pd.DataFrame:
    """Are rules, tasks and cells fit for use? The checks of `creditbench check`, in confined processes.

    Args:
        items: rules, tasks or cells, given as to `run`: ids, paths, classes.
        cells: with which rules are checked.
        backend: "jax", "torch", or both; none: those that are installed.
        only: names of checks; none: all that apply.
        settings: fields, as of `run`. `timeout`: seconds that a backend's process may take.
        executor: "local" or "dask". `jobs`: items at a time.
        results: folder of results for a page: the outcomes of rules are written there too.
        show_progress: a bar in a terminal, elsewhere a line for each check.

    Returns:
        A row a check: `subject`; `name` of the check; `held`: None if it does not apply; `detail`: what was
        seen; `advice`: what to do if it does not hold.

    Raises `UsageError` for what cannot be checked. A check that does not hold is no error.

    >>> import creditbench as cb
    >>> found = cb.run_checks("adding", only="metadata", show_progress=False)
    >>> found[["subject", "name", "held"]].values.tolist()
    [['adding', 'import', True], ['adding', 'metadata', True]]
    """
    # pandas is slow to import.
    import pandas as pd

    with asked(settings, results) as given:
        reports = check_reports(
            given.any_names(items),
            given.names("cells", cells),
            given.settings,
            backends=defaults.backends(defaults.names(backend), "check"),
            only=defaults.names(only) or None,
            seconds=timeout,
            where=Spread(executor, jobs, scheduler),
            results=None if results is None else Path(results).expanduser(),
            bars=bars_of(show_progress),
        )
    rows = [
        {"subject": report.subject, **dataclasses.asdict(one), "advice": advice_of(report, one.name)}
        for report in reports
        for one in report.results
    ]
    return pd.DataFrame(rows, columns=["subject", "name", "held", "detail", "advice"])


def advice_of(report: CheckReport, name: str) -> str:
    """What to do if that check of a report does not hold."""
    return lists.advice(report.about.get("kind", "learners"), name)
