"""`creditbench gradients`: how good each rule's estimate of the gradient is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def gradients(
    learner: Annotated[
        str, typer.Option(help="Learners: ids, or paths of Python files, with commas between.")
    ] = "",
    task: Annotated[str, typer.Option(help="Tasks, likewise.")] = "",
    backend: Annotated[str, typer.Option(help="jax, torch, or both with a comma between.")] = "jax",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, gpu, tpu.")] = "cpu",
    draws: Annotated[int, typer.Option(help="Draws of each estimate.")] = 256,
    points: Annotated[
        str,
        typer.Option(
            help="Parts of a BPTT run after which to look, with commas between, each moved to the nearest evaluation."
        ),
    ] = "0,0.5,1",
    preset: Annotated[str, typer.Option(help="Budget of the BPTT run: smoke, quick, full.")] = "quick",
    hidden: Annotated[int, typer.Option(help="Hidden units.")] = 32,
    batch: Annotated[int | None, typer.Option(help="Rows.  [default: the task's]")] = None,
    steps: Annotated[
        int | None, typer.Option(help="Length of the segment on a stream.  [default: 50]")
    ] = None,
    settle: Annotated[
        int,
        typer.Option(
            help="Segments that each draw runs first, at the same weights, for a rule whose noise lies in its state: "
            "those that come after the one that is measured in the run."
        ),
    ] = 0,
    seed: Annotated[int, typer.Option(help="Of weights and data.")] = 0,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="A field of a learner or task, as in np.credit=trace.")
    ] = None,
    data: Annotated[
        list[str] | None, typer.Option(help="A task's data, as in weather=WTH.csv. Repeatable.")
    ] = None,
    threads: Annotated[int, typer.Option(help="Threads of the measuring process.")] = 1,
    output: Annotated[
        Path | None, typer.Option(help="Folder for gradients.json, gradients.csv and the figure.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="The figures as one JSON array.")] = False,
) -> None:
    """Hold each rule's estimate of the gradient against BPTT's, at the first weights and along a BPTT run.

    cosine: of one draw. bias: ‖E[g] - g*‖/‖g*‖, corrected for the number of draws. variance: E‖g - E[g]‖²/‖g*‖².
    draws_to_cosine: how many draws it takes for their mean to reach 0.9. Intervals are 95 %.

    \b
    Examples:
      creditbench gradients --learner np,wp,anp --task mackey_glass
      creditbench gradients --learner np --set np.credit=trace --task copy_memory --draws 1000 --output gradients
      creditbench gradients --learner oua,wp --task delayed_match --points 0 --settle 100
    """
    import sys
    from json import dumps

    from creditbench.check.doctor import require_device
    from creditbench.cli.measuring import bars, names, show, write
    from creditbench.cli.run import numbers, pairs
    from creditbench.errors import UsageError
    from creditbench.leaderboard.figures import gradients as draw
    from creditbench.machine import files
    from creditbench.studies.process import results
    from creditbench.trials.grid import Options, make_grid

    if draws < 3:
        raise UsageError(f"--draws is {draws}: an interval takes 3 or more")
    if steps is not None and steps < 1:
        raise UsageError(f"--steps is {steps}: give a whole number from 1")
    if settle < 0:
        raise UsageError(f"--settle is {settle}: give a whole number from 0")
    parts = sorted(numbers("--points", points, float, "0,0.5,1", low=0, high=1))
    rules, backends = names("learner", learner), names("backend", backend)
    if any("+" in rule for rule in rules):
        raise UsageError(
            f"--learner is {learner}: a decorrelated cell has another gradient; leave out the suffix"
        )
    settings = pairs("--set", set_, "np.credit=trace")
    common: dict[str, Any] = dict(
        tasks=tuple(names("task", task)),
        device=device,
        seeds=(seed,),
        hidden=hidden,
        batch=batch,
        preset=preset,
        data=pairs("--data", data, "weather=WTH.csv"),
    )
    rows, orders, said = [], [], set()
    for name in backends:
        require_device(name, device)
        own = {"backends": (name,), **common}
        trials = make_grid(Options(learners=tuple(rules), settings=settings, threads=threads, **own)).trials
        # The run is on the same tasks, set likewise; what is set of a learner is not `bptt`'s.
        tasks = {trial.task for trial in trials}
        of_tasks = {field: value for field, value in settings.items() if field.partition(".")[0] in tasks}
        for run in make_grid(Options(learners=("bptt",), settings=of_tasks, **own)).trials:
            if steps is not None and run.protocol == "episodes":
                raise UsageError(
                    f"--steps is {steps}: {run.task} has episodes of {run.segment} steps, and one is a segment; "
                    "leave out --steps"
                )
            orders.append((name, [trial for trial in trials if trial.task == run.task], run))
    if output is not None:
        files.require_writable("output", output / "gradients.json", "name another folder")
    with bars("figures", sum(len(asked) for _, asked, _ in orders) * len(parts)) as advance:
        for name, asked, run in orders:
            for found in results(
                "gradients",
                backend=name,
                device=device,
                threads=threads,
                trials=[trial.model_dump(mode="json") for trial in asked],
                run=run.model_dump(mode="json"),
                steps=50 if steps is None else steps,
                points=parts,
                draws=draws,
                settle=settle,
            ):
                advance(f"{found['learner']} {run.task} {name} at {found['point']:g}")
                if "note" in found:
                    note = f"{found['learner']} {found['note']}"
                    if note not in said:
                        print(f"note: {note}; left out", file=sys.stderr)
                    said.add(note)
                    continue
                rows.append({"learner": found.pop("learner"), "backend": name, **found})
    if not rows:
        raise UsageError(f"--learner is {learner}: none of them gives a gradient here; name one that does")
    if output is not None:
        write(output, {"gradients.json": rows, "gradients.csv": rows})
        with files.output("output", output, "name another folder"):
            for suffix in ("pdf", "png"):
                with files.replacing(output / f"gradients.{suffix}") as (new,):
                    draw(rows, new)
    if json:
        print(dumps(rows, indent=1))
    else:
        show([{k: v for k, v in row.items() if k != "draws"} for row in rows])
