"""Sweeps of cost and qualities of gradients: one call each.

Of each pair the first function is what the command line and Python share; the second one, public, takes what
a notebook has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from creditbench.check.doctor import require_device
from creditbench.errors import UsageError
from creditbench.executors.spread import Spread
from creditbench.library import defaults, progress
from creditbench.library.asked import Cells, Learners, Path_, Tasks, asked, bars_of, folders
from creditbench.library.messages import says_arguments
from creditbench.library.resultset import ResultSet
from creditbench.machine import files
from creditbench.machine.frameworks import DEFAULT
from creditbench.results.measured import (
    GradientQuality,
    ScalingPoint,
    gradient_rows,
    scaling_rows,
    write_gradients,
    write_scaling,
)
from creditbench.results.runs import Bars, Say
from creditbench.results.version import Results
from creditbench.studies import gradients, scaling
from creditbench.trials.grid import Options
from creditbench.trials.trial import CELL

if TYPE_CHECKING:
    pass

#: The arguments that set the sizes of an update while they are not swept.
ARGUMENTS = {"T": "steps", "n": "hidden", "B": "batch"}
#: The parts of a BPTT run after which gradients are compared.
PARTS = (0.0, 0.5, 1.0)


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
    with asked(settings, output) as given:
        points, fits = sweep(
            given.names("learners", learners),
            given.names("cells", cells),
            given.settings,
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
            bars=bars_of(show_progress),
            say=progress.say,
        )
    rows = tuple(map(ScalingPoint.model_validate, scaling_rows(points, fits)))
    return ResultSet(Results(scaling=rows), folders(output))


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
    with asked(settings, output) as given:
        options = Options(
            **given.grid(tasks, learners, cells, data, hidden=hidden),
            backends=defaults.names(backend),
            device=device,
            seeds=(seed,),
            hidden=hidden,
            layers=layers,
            batch=batch,
            preset=preset,
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
            bars=bars_of(show_progress),
            say=progress.say,
        )
    rows = tuple(map(GradientQuality.model_validate, gradient_rows(found)))
    return ResultSet(Results(gradients=rows), folders(output))
