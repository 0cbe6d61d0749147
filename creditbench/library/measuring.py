"""Checks, sweeps of cost, qualities of gradients and tuning: one call each, for the command line and Python.

Of each pair the first function is what both share; the second one, public, takes what a notebook has.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from creditbench.check import lists, runner
from creditbench.check.doctor import require_device
from creditbench.check.runner import CheckReport
from creditbench.errors import UsageError
from creditbench.executors.spread import Spread
from creditbench.library import defaults, progress
from creditbench.library.messages import says_arguments
from creditbench.library.resultset import ResultSet
from creditbench.library.running import Asked, Cells, Learners, Path_, Tasks, several
from creditbench.machine import files
from creditbench.machine.frameworks import DEFAULT
from creditbench.machine.posix import require_posix
from creditbench.results import store
from creditbench.results.measured import (
    GradientQuality,
    ScalingPoint,
    gradient_rows,
    scaling_rows,
    write_checks,
    write_gradients,
    write_scaling,
)
from creditbench.results.runs import Bars, Plan, Say, Where, tune_grid
from creditbench.results.version import Results
from creditbench.studies import gradients, scaling
from creditbench.trials import tuning
from creditbench.trials.grid import Options
from creditbench.trials.shard import Shard
from creditbench.trials.trial import CELL, with_cell

if TYPE_CHECKING:
    import pandas as pd

#: The arguments that set the sizes of an update while they are not swept.
ARGUMENTS = {"T": "steps", "n": "hidden", "B": "batch"}
#: The parts of a BPTT run after which gradients are compared.
PARTS = (0.0, 0.5, 1.0)

# -- check -----------------------------------------------------------------------------------------------


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

    with _asked(settings, results) as asked:
        reports = check_reports(
            asked.any_names(items),
            asked.names("cells", cells),
            asked.settings,
            backends=defaults.backends(defaults.names(backend), "check"),
            only=defaults.names(only) or None,
            seconds=timeout,
            where=Spread(executor, jobs, scheduler),
            results=None if results is None else Path(results).expanduser(),
            bars=_bars(show_progress),
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


# -- scale -----------------------------------------------------------------------------------------------


def sweep(
    learners: Sequence[str],
    cells: Sequence[str],
    settings: Mapping[str, Any],
    *,
    axes: Sequence[str],
    quantities: Sequence[str],
    backends: Sequence[str],
    device: str,
    sizes: Sequence[int],
    fixed: Mapping[str, int | None],
    seconds: float,
    limit: float,
    where: Spread,
    output: Path | None,
    bars: Bars,
    say: Say,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Measure costs over sizes, and fit exponents: the points and the rows of `scaling.sweep`.

    Args:
        sizes: on the one axis; none: the usual ones.
        fixed: T, n and B while they are not swept; None: as in `defaults.SIZES`.
        output: folder for both and for figures.

    Raises `UsageError`.
    """
    if len(axes) > 1 and sizes:
        raise UsageError(
            f"--sizes is {','.join(map(str, sizes))} and --axis is {','.join(axes)}: name one axis, or leave "
            "out --sizes"
        )
    defaults.require_whole("threads", where.threads, 1)
    for axis, value in fixed.items():
        defaults.require_whole(ARGUMENTS[axis], value, 1)
        if value is not None and [axis] == list(axes):
            raise UsageError(
                f"--{ARGUMENTS[axis]} is {value} and --axis is {axis}: leave one out, or name its sizes as "
                "--sizes"
            )
    for option, span in {"seconds": seconds, "limit": limit}.items():
        if not span > 0:
            raise UsageError(f"--{option} is {span}: give a number above 0")
    rules, notes = scaling.rules_of(learners, settings, (scaling.FORWARD,), cells=cells)
    for note in notes:
        say(f"note: {note}")
    if sizes and len(set(sizes)) < 2:
        raise UsageError(f"--sizes is {sizes[0]}: an exponent takes two different sizes or more")
    able = {name: [rule for rule in rules if name in rule.backends] for name in backends}
    for name in backends:
        # The device of a cluster is its workers'.
        require_device(name, device if where.scheduler is None else "cpu")
        for left in dict.fromkeys(rule.learner[0] for rule in rules if name not in rule.backends):
            say(f"note: {left} does not run on {name}: left out")
    if not any(able.values()):
        raise UsageError(
            f"--learner is {','.join(learners)} and --backend is {','.join(backends)}: none runs there; "
            "choose its backend"
        )
    if where.several and "time" in quantities:
        say("note: times are taken beside other parts: compare ratios, or leave out --jobs")
    if output is not None:
        files.require_writable("output", output / "scaling.json", "name another folder")
    points, fits = scaling.sweep(
        able,
        scaling.sizes_of(axes, quantities, sorted(set(sizes))),
        {axis: fixed.get(axis) or usual for axis, usual in defaults.SIZES.items()},
        bars,
        where,
        device=device,
        seconds=seconds,
        limit=limit,
    )
    for fit in fits:
        if fit["left_out"]:
            say(f"note: {scaling.left_out(fit)} left out: it would take more than --limit {limit:g} s")
    if output is not None:
        write_scaling(output, points, fits)
        # The figures alone need matplotlib.
        from creditbench.leaderboard.figures import draw_scaling

        draw_scaling(points, fits, output)
    return points, fits


@says_arguments
def measure_scaling(
    learners: Learners,
    cells: Cells = CELL,
    *,
    axis: str | Sequence[str] = "T",
    quantity: str | Sequence[str] = scaling.QUANTITIES,
    backend: str | Sequence[str] = (),
    device: str = "cpu",
    sizes: Sequence[int] = (),
    steps: int | None = None,
    hidden: int | None = None,
    batch: int | None = None,
    settings: Mapping[str, Any] | None = None,
    seconds: float = 0.3,
    limit: float = scaling.LIMIT,
    executor: str = "local",
    scheduler: str | None = None,
    jobs: int | None = None,
    threads: int = 1,
    output: Path_ | None = None,
    show_progress: bool = True,
) -> ResultSet:
    """How the cost of an update grows with T, n or B, and whether it grows as the rule claims.

    Args:
        learners: rules, given as to `run`; "forward" is a forward pass. `cells`: likewise.
        axis: sizes to sweep: "T" steps, "n" hidden units, "B" sequences.
        quantity: "time", "algorithm_bytes", "flops".
        backend: "jax", "torch", or both; none: those that are installed. `device`: as of `run`.
        sizes: on the axis; none: four for times, three for the rest.
        steps: T while it is not swept; `hidden`: n; `batch`: B. None: 128, 128, 1.
        settings: fields, as of `run`. `seconds`: least time that the blocks of one figure take.
        limit: most seconds that a figure may take at one size; larger sizes are left out.
        executor: "local" or "dask". `jobs`: parts at a time; `threads`: of each.
        output: folder for the table and the figures; `load` reads the folder that it lies in, if it is named
            `scaling`.
        show_progress: a bar in a terminal, elsewhere a line for each figure.

    Returns:
        Results whose frame `scaling` has a row a size, with the exponent of its sweep; `plot.scaling()`.

    >>> import creditbench as cb
    >>> found = cb.measure_scaling("bptt", quantity="flops", backend="jax", sizes=[64, 128], hidden=8,
    ...                            show_progress=False)
    >>> found.scaling[["size", "exponent", "claimed", "held"]].round(2).values.tolist()[-1]
    [128, 1.0, 1.0, True]
    """
    with _asked(settings, output) as asked:
        points, fits = sweep(
            asked.names("learners", learners),
            asked.names("cells", cells),
            asked.settings,
            axes=defaults.known_names("axis", defaults.names(axis), scaling.AXES, "scale"),
            quantities=defaults.known_names(
                "quantity", defaults.names(quantity), scaling.QUANTITIES, "scale"
            ),
            backends=defaults.backends(defaults.names(backend), "scale"),
            device=device,
            sizes=defaults.numbers("--sizes", sizes, int, "64,128,256", low=1) if sizes else (),
            fixed={"T": steps, "n": hidden, "B": batch},
            seconds=seconds,
            limit=limit,
            where=Spread(executor, jobs, scheduler, threads),
            output=None if output is None else Path(output).expanduser(),
            bars=_bars(show_progress),
            say=progress.say,
        )
    rows = tuple(map(ScalingPoint.model_validate, scaling_rows(points, fits)))
    return ResultSet(Results(scaling=rows), _folders(output))


# -- gradients -------------------------------------------------------------------------------------------


def compare_estimates(
    options: Options,
    *,
    parts: Sequence[float],
    steps: int | None,
    draws: int,
    settle: int,
    where: Spread,
    output: Path | None,
    bars: Bars,
    say: Say,
) -> list[dict[str, Any]]:
    """Compare the estimates of rules with the gradients of BPTT: the rows of `gradients.look`.

    `output`: folder for them and for the figure. The rest: see `measure_gradients`. Raises `UsageError`.
    """
    if draws < 3:
        raise UsageError(f"--draws is {draws}: an interval takes 3 or more")
    defaults.require_whole("steps", steps, 1)
    defaults.require_whole("settle", settle, 0)
    defaults.require_whole("threads", where.threads, 1)
    rules = ",".join(options.learners)
    if "+" in rules:
        raise UsageError(
            f"--learner is {rules}: a decorrelated cell has another gradient; leave out the suffix"
        )
    for name in options.backends:
        # The device of a cluster is its workers'.
        require_device(name, options.device if where.scheduler is None else "cpu")
    ordered = gradients.orders(options, steps, say)
    if output is not None:
        files.require_writable("output", output / "gradients.json", "name another folder")
    rows = gradients.look(
        *(ordered, sorted(parts), bars, say, where),
        device=options.device,
        steps=50 if steps is None else steps,
        draws=draws,
        settle=settle,
    )
    if not rows:
        raise UsageError(f"--learner is {rules}: none of them gives a gradient here; name one that does")
    if output is not None:
        write_gradients(output, rows)
        # The figures alone need matplotlib.
        from creditbench.leaderboard.figures import draw_gradients

        draw_gradients(rows, output)
    return rows


@says_arguments
def measure_gradients(
    tasks: Tasks,
    learners: Learners,
    cells: Cells = CELL,
    *,
    backend: str | Sequence[str] = DEFAULT,
    device: str = "cpu",
    draws: int = 256,
    parts: Sequence[float] = PARTS,
    preset: str = "quick",
    hidden: int = 32,
    layers: int = 1,
    batch: int | None = None,
    steps: int | None = None,
    settle: int = 0,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    data: Mapping[str, Path_] | None = None,
    executor: str = "local",
    scheduler: str | None = None,
    jobs: int | None = None,
    threads: int = 1,
    output: Path_ | None = None,
    show_progress: bool = True,
) -> ResultSet:
    """How good each rule's estimate of the gradient is, beside BPTT's, along a BPTT run.

    Args:
        tasks: one, or several, given as to `run`. `learners`, `cells`: likewise.
        backend: "jax", "torch", or both; left out: "jax" if it is installed. `device`: as of `run`.
        draws: of each estimate.
        parts: of the BPTT run, from 0 to 1, after which it is measured.
        preset: budget of that run. `hidden`, `layers`, `batch`: of its network and its updates.
        steps: length of the segment on a stream; None: 50.
        settle: segments that each draw runs first, at the same weights, for a rule with noise in its state.
        seed: of weights and data. `settings`, `data`: as of `run`.
        executor: "local" or "dask". `jobs`: parts at a time; `threads`: of each.
        output: folder for the table and the figure; `load` reads the folder that it lies in, if it is named
            `gradients`.
        show_progress: a bar in a terminal, elsewhere a line for each figure.

    Returns:
        Results whose frame `gradients` has a row a rule, task and part; `plot.gradients()`.

    >>> import creditbench as cb
    >>> found = cb.measure_gradients("mackey_glass", ["rtrl", "rflo"], preset="smoke", hidden=4, parts=[0],
    ...                              steps=8, draws=3, show_progress=False)
    >>> found.gradients.set_index("learner").bias.round(2).gt(0).to_dict()
    {'rtrl': False, 'rflo': True}
    """
    with _asked(settings, output) as asked:
        options = Options(
            tasks=asked.names("tasks", tasks),
            learners=asked.names("learners", learners),
            cells=asked.names("cells", cells, {"hidden": hidden}),
            backends=defaults.names(backend),
            device=device,
            seeds=(seed,),
            hidden=hidden,
            layers=layers,
            batch=batch,
            preset=preset,
            settings=asked.settings,
            data={name: os.fspath(path) for name, path in (data or {}).items()},
            threads=threads,
        )
        found = compare_estimates(
            options,
            parts=defaults.numbers("--parts", parts, float, "0,0.5,1", low=0, high=1),
            steps=steps,
            draws=draws,
            settle=settle,
            where=Spread(executor, jobs, scheduler, threads),
            output=None if output is None else Path(output).expanduser(),
            bars=_bars(show_progress),
            say=progress.say,
        )
    rows = tuple(map(GradientQuality.model_validate, gradient_rows(found)))
    return ResultSet(Results(gradients=rows), _folders(output))


# -- tune ------------------------------------------------------------------------------------------------


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
    with _asked(settings, results) as asked:
        options = Options(
            tasks=asked.names("tasks", tasks),
            learners=asked.names("learners", learners),
            cells=asked.names("cells", cells, {"hidden": hidden, "bias": bias}),
            backends=(backend,),
            device=device,
            preset=preset,
            budget=budget,
            evaluations=evaluations,
            hidden=hidden,
            layers=layers,
            bias=bias,
            settings=asked.settings,
            data={name: os.fspath(path) for name, path in (data or {}).items()},
            timeout=timeout,
        )
        plan = plan_of(points=points, studies=studies, seeds=seeds, confirm=confirm, draw=draw)
        found, _ = tune_grid(
            options,
            plan,
            Where(results=asked.place, executor=executor, jobs=jobs, scheduler=scheduler),
            Path(output).expanduser(),
            _call(options, plan),
            _bars(show_progress),
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


# -- what they share -------------------------------------------------------------------------------------


@contextlib.contextmanager
def _asked(settings: Mapping[str, Any] | None, folder: Path_ | None) -> Iterator[Asked]:
    """Reads what a caller gives. Sources of a notebook are written to the folder, or to a temporary one."""
    # A process may live for days, as that of a notebook: sources change meanwhile.
    store.forget()
    with contextlib.ExitStack() as opened:
        if folder is None:
            folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="creditbench-"))
        yield Asked(Path(os.fspath(folder)).expanduser(), settings or {})


@contextlib.contextmanager
def _silence(what: str, total: int) -> Iterator[Callable[[str], None]]:
    yield lambda text: None


def _bars(shown: bool) -> Bars:
    return progress.bars if shown else _silence


def _folders(output: Path_ | None) -> list[Path]:
    return [] if output is None else [Path(output).expanduser()]
