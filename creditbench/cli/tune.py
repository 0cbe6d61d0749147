"""`creditbench tune`: equal budgets of tuning for every rule."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from creditbench.cli.run import read_config

#: What a file of `creditbench run` says that is not for tuning: it has seeds and a budget of its own, and one backend.
_NOT_FOR_TUNING = (
    "seeds",
    "seed",
    "backend",
    "tuned",
    "results",
    "reuse",
    "timeout",
    "evaluations",
    "budget",
)


def _read_config(context: typer.Context, path: Path | None) -> Path | None:
    return read_config(context, path, _NOT_FOR_TUNING)


def tune(
    output: Annotated[Path, typer.Option(help="TOML file to write, which creditbench run --tuned reads.")],
    task: Annotated[
        str, typer.Option(help="Tasks: ids, or paths of Python files, with commas between.")
    ] = "",
    learner: Annotated[str, typer.Option(help="Learners, likewise; the suffix +D decorrelates.")] = "",
    backend: Annotated[str, typer.Option(help="jax or torch.")] = "jax",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, gpu, tpu.")] = "cpu",
    points: Annotated[int, typer.Option(help="Points of every task and rule.")] = 20,
    seeds: Annotated[int, typer.Option(help="Tuning seeds of every point, from 1000 on.")] = 1,
    draw: Annotated[int, typer.Option(help="Seed of the points.")] = 0,
    preset: Annotated[str, typer.Option(help="Budget of each task: smoke, quick, full.")] = "quick",
    budget: Annotated[int | None, typer.Option(help="Training time steps, in place of the preset's.")] = None,
    hidden: Annotated[int, typer.Option(help="Hidden units.")] = 128,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="A field of a learner or task, as in tbptt.K=1. Repeatable."),
    ] = None,
    data: Annotated[
        list[str] | None, typer.Option(help="A task's data, as in weather=WTH.csv. Repeatable.")
    ] = None,
    results: Annotated[Path, typer.Option(help="Folder of the tuning's records.")] = Path("results/tuning"),
    executor: Annotated[
        str, typer.Option(help="local: warm processes; inline: this process, for debugging.")
    ] = "local",
    jobs: Annotated[
        int | None,
        typer.Option(help="Processes at a time.  [default: as many as there are cores; on a GPU 1]"),
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds that a point may take.")] = 600.0,
    config: Annotated[
        Path | None,
        typer.Option(
            callback=_read_config,
            is_eager=True,
            help="TOML file of creditbench run, whose tasks, learners and sizes are tuned, at the preset's budget; "
            "the command line wins.",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="What was found as one JSON array.")] = False,
) -> None:
    """Try the same number of points for every task and rule, and freeze those that are best on validation.

    Under JAX the points of a task and rule are trained as one program. What has a record already is not run again:
    the same command goes on where it was broken off.

    \b
    Examples:
      creditbench tune --task mackey_glass,adding --learner bptt,anp,anp+D --output tuned.toml
      creditbench run --task mackey_glass --learner bptt,anp --tuned tuned.toml
      creditbench tune --config grid.toml --points 16 --output tuned.toml
    """
    import contextlib
    import dataclasses
    import shlex
    import sys
    from json import dumps

    from creditbench.cli.measuring import bars, names, show
    from creditbench.cli.run import FAILURES, pairs
    from creditbench.doctor import require_device
    from creditbench.errors import UsageError
    from creditbench.executors import make_executor, make_jobs
    from creditbench.grid import SEEDS, Options, make_grid
    from creditbench.store import Store
    from creditbench.tuning import FIRST_SEED, choose, frozen, space, trials_of
    from creditbench.tuning import draw as draw_points

    for option, value, least in (("points", points, 1), ("seeds", seeds, 1), ("draw", draw, 0)):
        if not least <= value < SEEDS:
            raise UsageError(f"--{option} is {value}: give a whole number from {least} to {SEEDS - 1}")
    if backend not in ("jax", "torch"):
        raise UsageError(
            f"--backend is {backend}: tune on one, jax or torch; the other has the same equations"
        )
    require_device(backend, device)
    grid = make_grid(
        Options(
            tasks=tuple(names("task", task)),
            learners=tuple(names("learner", learner)),
            backends=(backend,),
            device=device,
            seeds=tuple(range(FIRST_SEED, FIRST_SEED + seeds)),
            preset=preset,
            budget=budget,
            hidden=hidden,
            settings=pairs("--set", set_, "anp.sigma=1e-3"),
            data=pairs("--data", data, "weather=WTH.csv"),
        )
    )
    for note in grid.notes:
        print(f"note: {note}", file=sys.stderr)
    wanted = [
        found
        for trial in grid.trials
        for found in trials_of(trial, draw_points(space(trial), points, draw, trial.decorrelate != "none"))
    ]
    store = Store(results)
    where = make_executor(executor, slots=jobs, device=device, timeout=timeout, logs=results / "logs")
    waiting = [trial for trial in wanted if not store.has(trial)]
    with bars("points", len(waiting)) as advance:
        todo = make_jobs(waiting, together=True, slots=where.slots)
        with contextlib.closing(where.run(todo, lambda *_: None)) as records:
            for record in records:
                store.put(record)
                advance(f"{record.trial.task} {record.trial.rule} lr={record.trial.lr:g}: {record.status}")
    groups: dict[tuple[str, str], list] = {}
    for trial in wanted:
        groups.setdefault((trial.task, trial.rule), []).append(store.get(trial))
    found = []
    for (of_task, rule), group in groups.items():
        if all(record.status in FAILURES for record in group):
            print(
                f"{of_task} {rule}: not tuned: {group[0].status}: {group[0].status_detail}", file=sys.stderr
            )
        else:
            found.append(choose(group))
    words = ["creditbench", "tune"]
    given = {
        "task": task,
        "learner": learner,
        "backend": backend,
        "device": device,
        "points": points,
        "seeds": seeds,
        "draw": draw,
        "preset": preset,
        "hidden": hidden,
    }
    words += [word for option, value in given.items() for word in (f"--{option}", str(value))]
    words += ["--budget", str(budget)] if budget is not None else []
    for option, items in (("--set", set_), ("--data", data)):
        words += [word for item in items or () for word in (option, item)]
    try:
        output.write_text(frozen(found, shlex.join([*words, "--output", str(output)])), encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"output '{output}' cannot be written ({error.strerror}): name another file"
        ) from None
    rows = [dataclasses.asdict(tuned) for tuned in found]
    if json:
        print(dumps(rows, indent=1))
    else:
        show(rows)
    if len(found) < len(groups):
        raise typer.Exit(1)
