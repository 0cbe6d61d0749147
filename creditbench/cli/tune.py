"""`creditbench tune`: equal budgets of tuning for every rule."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from creditbench.cli.run import read_config

if TYPE_CHECKING:
    from creditbench.trials.trial import Trial

#: What a file of `creditbench run` says that is not for tuning, which has seeds of its own, and one backend.
_NOT_FOR_TUNING = (
    "seeds",
    "seed",
    "backend",
    "tuned",
    "results",
    "reuse",
    "timeout",
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
    points: Annotated[int, typer.Option(help="Points of every task, rule and study.")] = 20,
    studies: Annotated[
        int, typer.Option(help="Independent studies: points and tuning seeds of their own, a result each.")
    ] = 3,
    seeds: Annotated[int, typer.Option(help="Tuning seeds of every point.")] = 1,
    draw: Annotated[int, typer.Option(help="Number of the draw: another one has other studies.")] = 0,
    preset: Annotated[str, typer.Option(help="Budget of each task: smoke, quick, full.")] = "quick",
    budget: Annotated[int | None, typer.Option(help="Training time steps, in place of the preset's.")] = None,
    evaluations: Annotated[
        int | None, typer.Option(help="On the validation split.  [default: the preset's]")
    ] = None,
    hidden: Annotated[int, typer.Option(help="Hidden units.")] = 128,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="A field of a learner or task, as in tbptt.K=1. Repeatable."),
    ] = None,
    data: Annotated[
        list[str] | None, typer.Option(help="A task's data, as in weather=WTH.csv. Repeatable.")
    ] = None,
    keep: Annotated[
        bool,
        typer.Option(
            "--keep",
            help="What the output file has already is kept as it is, and is not tuned again: add rules to it.",
        ),
    ] = False,
    results: Annotated[Path, typer.Option(help="Folder of the tuning's records.")] = Path("results/tuning"),
    reuse: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of records of tuning: its points are not run again. Repeatable."),
    ] = None,
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
            help="TOML file of creditbench run, whose tasks, learners, sizes and budget are tuned; the command line "
            "wins.",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="What was found as one JSON array.")] = False,
) -> None:
    """Try the same number of points for every task and rule, and freeze those that are best on validation.

    That is done in several independent studies, so that results show what chance does in tuning: creditbench run
    --tuned trains each study's choice with seeds of its own. Best is the best raw metric; a point that diverged is
    worse than any that did not. Under JAX the points of a task and rule are trained as one program. What has a record
    already is not run again: the same command goes on where it was broken off.

    \b
    Examples:
      creditbench tune --task mackey_glass,adding --learner bptt,anp,anp+D --output tuned.toml
      creditbench run --task mackey_glass --learner bptt,anp --tuned tuned.toml
      creditbench tune --config grid.toml --points 16 --output tuned.toml
      creditbench tune --config grid.toml --learner ./my_rule.py --output tuned.toml --keep
    """
    import contextlib
    import dataclasses
    import shlex
    import sys
    from functools import partial
    from json import dumps

    from creditbench.check.doctor import require_device
    from creditbench.cli.measuring import bars, names, show
    from creditbench.cli.run import FAILURES, pairs, say
    from creditbench.errors import UsageError
    from creditbench.executors import make_executor, make_jobs
    from creditbench.machine import files
    from creditbench.results.shared import run_missing, with_description
    from creditbench.results.store import Store
    from creditbench.results.version import load
    from creditbench.trials.grid import Options, make_grid
    from creditbench.trials.tuning import (
        choose,
        described,
        frozen,
        kept_studies,
        space,
        study_seeds,
        trials_of,
    )
    from creditbench.trials.tuning import draw as draw_points

    for option, value, most in (("points", points, 1 << 16), ("studies", studies, 99), ("seeds", seeds, 999)):
        if not 1 <= value <= most:
            raise UsageError(f"--{option} is {value}: give a whole number from 1 to {most}")
    if not 0 <= draw < 10_000:
        raise UsageError(f"--draw is {draw}: give a whole number from 0 to 9999")
    if backend not in ("jax", "torch"):
        raise UsageError(
            f"--backend is {backend}: tune on one, jax or torch; tune the other apart, into a file of its own"
        )
    require_device(backend, device)
    study_of = {seed: study for study in range(studies) for seed in study_seeds(draw, study, seeds)}
    grid = make_grid(
        Options(
            tasks=tuple(names("task", task)),
            learners=tuple(names("learner", learner)),
            backends=(backend,),
            device=device,
            seeds=tuple(study_of),
            preset=preset,
            budget=budget,
            evaluations=evaluations,
            hidden=hidden,
            settings=pairs("--set", set_, "anp.sigma=1e-3"),
            data=pairs("--data", data, "weather=WTH.csv"),
            timeout=timeout,
        )
    )
    files.require_writable("output", output)
    kept, known = kept_studies(output) if keep and output.exists() else ("", set())
    groups: dict[tuple[str, str, str], list[Trial]] = {}
    for trial in grid.trials:
        study = study_of[trial.seed]
        place = trial.task, trial.rule, f"{draw}/{study}"
        if place not in known:
            drawn = draw_points(space(trial), points, (draw, study), trial.decorrelate != "none")
            groups.setdefault(place, []).extend(trials_of(trial, drawn))
    for note in grid.notes:
        print(f"note: {note}", file=sys.stderr)
    wanted = [trial for group in groups.values() for trial in group]
    store = Store(results)
    store.take(wanted, load(*reuse).records if reuse else ())
    where = make_executor(executor, slots=jobs, device=device, timeout=timeout, logs=results / "logs")
    waiting = [trial for trial in wanted if not store.has(trial)]
    make = partial(make_jobs, together=True, slots=where.slots)
    new = run_missing(store, waiting, where, make, say=say, describe=with_description)
    with bars("points", len(waiting)) as advance, contextlib.closing(new):
        for record, _ in new:
            advance(f"{record.trial.task} {record.trial.rule} lr={record.trial.lr:g}: {record.status}")
    found = []
    for (of_task, rule, study_name), group in groups.items():
        records_of = [store.get(trial) for trial in group if store.has(trial)]
        if len(records_of) < len(group):
            why = next((f" ({why})" for trial, why in where.lost if trial in group), "")
            say(
                f"{of_task} {rule} {study_name}: not tuned: {len(group) - len(records_of)} points have no record: the "
                f"machine failed, and not the rule{why}; the same command runs them"
            )
            continue
        if all(record.status in FAILURES for record in records_of):
            first = records_of[0]
            print(
                f"{of_task} {rule} {study_name}: not tuned: {first.status}: {first.status_detail}",
                file=sys.stderr,
            )
            continue
        tuned = choose(records_of, study_name)
        found.append(tuned)
        if not tuned.beat_trivial:
            print(f"note: {of_task} {rule} {study_name}: {described(tuned)}", file=sys.stderr)
    words = ["creditbench", "tune"]
    given = {
        "task": task,
        "learner": learner,
        "backend": backend,
        "device": device,
        "points": points,
        "studies": studies,
        "seeds": seeds,
        "draw": draw,
        "preset": preset,
        "hidden": hidden,
    }
    words += [word for option, value in given.items() for word in (f"--{option}", str(value))]
    words += ["--budget", str(budget)] if budget is not None else []
    words += ["--evaluations", str(evaluations)] if evaluations is not None else []
    for option, items in (("--set", set_), ("--data", data)):
        words += [word for item in items or () for word in (option, item)]
    text = frozen(found, shlex.join([*words, "--output", str(output)])) if found or not kept else ""
    with files.output("output", output):
        content = "\n".join(filter(None, (kept, text)))
        files.write(output, files.as_bytes(content))
    rows = [dataclasses.asdict(tuned) for tuned in found]
    if json:
        print(dumps(rows, indent=1))
    else:
        show(rows)
    if len(found) < len(groups):
        raise typer.Exit(1)
