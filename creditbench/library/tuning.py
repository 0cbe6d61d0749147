"""Tuning: one call for the command line and for Python."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from creditbench.library import defaults, progress
from creditbench.library.asked import Cells, Learners, Path_, Tasks, asked, bars_of, several
from creditbench.library.messages import says_arguments
from creditbench.machine.frameworks import DEFAULT
from creditbench.machine.posix import require_posix
from creditbench.results.runs import Plan, Where, tune_grid
from creditbench.trials import tuning
from creditbench.trials.grid import Options
from creditbench.trials.shard import Shard
from creditbench.trials.trial import CELL

if TYPE_CHECKING:
    import pandas as pd


def plan_of(*, points: int, studies: int, seeds: int, confirm: int, draw: int) -> Plan:
    """The budget of tuning. Raises `UsageError` for numbers that it cannot have."""
    for option, value, most in (("points", points, 1 << 16), ("studies", studies, 99), ("seeds", seeds, 999)):
        defaults.require_whole(option, value, 1, most)
    defaults.require_whole("confirm", confirm, 0, 999 - seeds)
    defaults.require_whole("draw", draw, 0, 999)
    return Plan(points=points, studies=studies, seeds=seeds, confirm=confirm, draw=draw)


@says_arguments
def tune(
    tasks: Tasks,
    learners: Learners,
    cells: Cells = CELL,
    *,
    output: Path_,
    backend: str = DEFAULT,
    device: str = "cpu",
    points: int = 20,
    studies: int = 3,
    seeds: int = 1,
    confirm: int = 4,
    draw: int = 0,
    preset: str = "quick",
    budget: int | None = None,
    evaluations: int | None = None,
    hidden: int = 128,
    layers: int = 1,
    bias: bool = False,
    settings: Mapping[str, Any] | None = None,
    data: Mapping[str, Path_] | None = None,
    keep: bool = False,
    results: Path_ | None = None,
    reuse: Path_ | Sequence[Path_] = (),
    executor: str = "local",
    scheduler: str | None = None,
    jobs: int | None = None,
    shard: str | None = None,
    timeout: float | None = None,
    show_progress: bool = True,
) -> pd.DataFrame:
    """Try the same number of points for every task and rule, and freeze the best on validation.

    As `creditbench tune`, see there; `run(…, tuned=output)` trains what each study chose.

    Args:
        tasks: one, or several, given as to `run`. `learners`, `cells`: likewise.
        output: TOML file to write.
        backend: "jax" or "torch": each has a file of its own; left out: "jax" if it is installed.
            `device`: as of `run`.
        points: of every task, rule and study. `studies`: independent ones. `seeds`: of every point.
        confirm: further seeds that a choice is trained at; if it diverges, the next best is taken.
        draw: another one has other studies.
        preset: budget of each trial; `budget`, `evaluations`, `hidden`, `layers`, `bias`, `settings`,
            `data`, `executor`, `scheduler`, `jobs`, `shard`, `timeout`: as of `run`. What `settings` gives a
            rule is not searched.
        keep: leave the studies that `output` has as they are, and tune what it lacks.
        results: folder of the records: the same call resumes there. None: a temporary folder.
        reuse: folders of results whose records are taken over first.
        show_progress: a bar in a terminal, elsewhere a line for each point.

    Returns:
        A row a study that has a choice: `values`, its `validation` and `score`, and how many points diverged.

    >>> import creditbench as cb
    >>> found = cb.tune("adding", "bptt", output="tuned.toml", points=2, studies=1, confirm=0, budget=200,
    ...                 hidden=4, executor="inline", show_progress=False)
    >>> found[["task", "rule", "study", "points"]].values.tolist()
    [['adding', 'bptt', '0/0', 2]]
    """
    # pandas is slow to import.
    import pandas as pd

    require_posix("creditbench.tune")
    with asked(settings, results) as given:
        options = Options(
            **given.grid(tasks, learners, cells, data, hidden=hidden, bias=bias),
            backends=(backend,),
            device=device,
            preset=preset,
            budget=budget,
            evaluations=evaluations,
            hidden=hidden,
            layers=layers,
            bias=bias,
            timeout=timeout,
        )
        plan = plan_of(points=points, studies=studies, seeds=seeds, confirm=confirm, draw=draw)
        found, _ = tune_grid(
            options,
            plan,
            Where(results=given.place, executor=executor, jobs=jobs, scheduler=scheduler),
            Path(output).expanduser(),
            _call(options, plan),
            bars_of(show_progress),
            progress.say,
            keep=keep,
            reuse=[Path(folder).expanduser() for folder in several(reuse)],
            shard=None if shard is None else Shard.parse(shard),
        )
    rows = [dataclasses.asdict(one) for one in found]
    return pd.DataFrame(rows, columns=[field.name for field in dataclasses.fields(tuning.Tuned)])


def _call(options: Options, plan: Plan) -> str:
    """The call that makes a tuned file again."""
    names = ("preset", "budget", "evaluations", "hidden", "layers", "bias")
    given: dict[str, Any] = {name: list(getattr(options, name)) for name in ("tasks", "learners", "cells")}
    given |= {"backend": options.backends[0], "device": options.device} | dataclasses.asdict(plan)
    given |= {name: getattr(options, name) for name in names}
    given |= {name: dict(getattr(options, name)) for name in ("settings", "data")}
    return f"creditbench.tune({', '.join(f'{name}={value!r}' for name, value in given.items())}, output=…)"
