"""`creditbench tune`: equal budgets of tuning for every rule."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Annotated

import typer

from creditbench.cli import options, printing
from creditbench.errors import UsageError
from creditbench.machine.frameworks import DEFAULT

#: Options of a file of `creditbench run` that tuning ignores: it has its own seeds, and one backend.
_NOT_FOR_TUNING = (
    *("seeds", "seed", "backend", "tuned", "results", "reuse", "timeout"),
    *("measure", "together"),
)


def tune(
    context: typer.Context,
    output: Annotated[Path, typer.Option(help="TOML file to write, which creditbench run --tuned reads.")],
    task: options.Tasks = "",
    learner: options.Rules = "",
    cell: options.Cells = "tanh",
    backend: Annotated[str, typer.Option(help="One backend.")] = DEFAULT,
    device: options.Device = "cpu",
    points: Annotated[int, typer.Option(help="Points of every task, rule and study.")] = 20,
    studies: Annotated[
        int, typer.Option(help="Independent studies, each with its own points, tuning seeds and result.")
    ] = 3,
    seeds: Annotated[int, typer.Option(help="Tuning seeds of every point.")] = 1,
    confirm: Annotated[
        int,
        typer.Option(
            help="Further tuning seeds that a choice is trained at; if it diverges, the next best is taken."
        ),
    ] = 4,
    draw: Annotated[
        int,
        typer.Option(
            help="Number of the draw: another one has other studies, and other seeds in creditbench run."
        ),
    ] = 0,
    preset: options.Preset = "quick",
    budget: options.Budget = None,
    evaluations: options.Evaluations = None,
    hidden: options.Hidden = 128,
    layers: options.Layers = 1,
    bias: options.Bias = False,
    set_: options.TrainingSettings = None,
    data: options.Data = None,
    keep: Annotated[
        bool,
        typer.Option(
            "--keep",
            help="Keep the choices that the output file has, and tune only what it lacks: adds rules to it.",
        ),
    ] = False,
    results: options.Records = options.TUNING,
    reuse: options.Reuse = None,
    executor: options.Executor = "local",
    scheduler: options.Scheduler = None,
    jobs: options.Jobs = None,
    shard: options.ShardText = None,
    timeout: options.Timeout = None,
    config: Annotated[
        Path | None,
        typer.Option(
            callback=options.config_reader(_NOT_FOR_TUNING),
            is_eager=True,
            help="TOML file of creditbench run, whose tasks, learners, sizes and budget are tuned; the "
            "command line wins.",
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Try the same number of points for every task and rule, and freeze the best on validation.

    Several independent studies are run, so that results show the effect of chance in tuning: creditbench run
    --tuned trains each study's choice with seeds of its own. The best point has the best raw metric. A point
    that diverged is worse than any that did not, and so is one that diverges at the seeds of --confirm. Under
    JAX the points of a task and rule are trained as one program. A trial that has a record is not run again:
    the same command resumes a run that was interrupted. What --set gives a rule is not searched.

    \b
    Examples:
      creditbench tune --task mackey_glass,adding --learner bptt,anp,anp+D --output tuned.toml
      creditbench run --task mackey_glass --learner bptt,anp --tuned tuned.toml
      creditbench tune --config grid.toml --points 16 --output tuned.toml
      creditbench tune --config grid.toml --set anp.lr=0.01 --output tuned.toml
      creditbench tune --config grid.toml --learner ./my_rule.py --output tuned.toml --keep
    """
    from creditbench.library.tuning import plan_of
    from creditbench.ops import BACKENDS
    from creditbench.results.runs import Where, tune_grid
    from creditbench.trials.grid import Options

    if backend not in BACKENDS:
        raise UsageError(
            f"--backend is {backend}: give one of {', '.join(BACKENDS)}; tune others into other files"
        )
    asked = Options(
        tasks=tuple(options.names("task", task)),
        learners=tuple(options.names("learner", learner)),
        cells=tuple(options.names("cell", cell)),
        backends=(backend,),
        device=device,
        preset=preset,
        budget=budget,
        evaluations=evaluations,
        hidden=hidden,
        layers=layers,
        bias=bias,
        settings=options.settings(set_),
        data=options.data(data),
        timeout=timeout,
    )
    found, whole = tune_grid(
        asked,
        plan_of(points=points, studies=studies, seeds=seeds, confirm=confirm, draw=draw),
        Where(results=results, executor=executor, jobs=jobs, scheduler=scheduler),
        output,
        _command(context),
        printing.bars,
        printing.say,
        keep=keep,
        reuse=reuse or (),
        shard=options.shard(shard),
    )
    rows = [dataclasses.asdict(tuned) for tuned in found]
    if json:
        printing.as_json(rows)
    else:
        printing.as_table(rows)
    if not whole:
        raise typer.Exit(1)


def _command(context: typer.Context) -> str:
    """The command that makes the tuned file again."""

    given = context.params
    always = (
        "task",
        "learner",
        "cell",
        "backend",
        "device",
        "points",
        "studies",
        "seeds",
        "confirm",
        "draw",
        "preset",
        "hidden",
        "layers",
    )
    words = ["creditbench", "tune"]
    words += [word for name in always for word in (f"--{name}", str(given[name]))]
    words += ["--bias"] if given["bias"] else []
    for name in ("budget", "evaluations"):
        words += [f"--{name}", str(given[name])] if given[name] is not None else []
    for option, name in (("--set", "set_"), ("--data", "data")):
        words += [word for item in given[name] or () for word in (option, item)]
    return shlex.join([*words, "--output", str(Path(given["output"]))])
