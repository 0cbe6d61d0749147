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
        str, typer.Option(help="Parts of a BPTT run after which to look, with commas between.")
    ] = "0,0.5,1",
    preset: Annotated[str, typer.Option(help="Budget of the BPTT run: smoke, quick, full.")] = "quick",
    hidden: Annotated[int, typer.Option(help="Hidden units.")] = 32,
    batch: Annotated[int | None, typer.Option(help="Rows.  [default: the task's]")] = None,
    steps: Annotated[int, typer.Option(help="Length of the segment on a stream.")] = 50,
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
    """
    import sys
    from json import dumps

    from creditbench.cli.measuring import bars, names, show, write
    from creditbench.cli.run import pairs
    from creditbench.doctor import require_device
    from creditbench.errors import UsageError
    from creditbench.figures import gradients as draw
    from creditbench.grid import Options, make_grid
    from creditbench.measure.process import results

    if draws < 2:
        raise UsageError(f"--draws is {draws}: give a whole number from 2")
    if steps < 1:
        raise UsageError(f"--steps is {steps}: give a whole number from 1")
    try:
        parts = sorted(set(map(float, names("points", points))))
    except ValueError:
        parts = [-1.0]
    if not 0 <= parts[0] <= parts[-1] <= 1:
        raise UsageError(
            f"--points is {points!r}: give numbers from 0 to 1 with commas between, as in 0,0.5,1"
        )
    rules, backends = names("learner", learner), names("backend", backend)
    if any("+" in rule for rule in rules):
        raise UsageError(
            f"--learner is {learner}: a decorrelated cell has another gradient; leave out the suffix"
        )
    settings = pairs("--set", set_, "np.credit=trace")
    given = pairs("--data", data, "weather=WTH.csv")

    rows = []
    orders = []
    for name in backends:
        require_device(name, device)
        for item in names("task", task):
            common: dict[str, Any] = dict(
                backends=(name,), device=device, seeds=(seed,), hidden=hidden, batch=batch, preset=preset
            )
            taken = {k: v for k, v in given.items() if k == item}
            grid = make_grid(
                Options(
                    tasks=(item,),
                    learners=tuple(rules),
                    settings=settings,
                    data=taken,
                    threads=threads,
                    **common,
                )
            )
            run = make_grid(Options(tasks=(item,), learners=("bptt",), data=taken, **common))
            orders.append((name, grid.trials, run.trials[0]))
    with bars("figures", sum(len(trials) for _, trials, _ in orders) * len(parts)) as advance:
        for name, trials, run_trial in orders:
            for found in results(
                "gradients",
                backend=name,
                device=device,
                threads=threads,
                trials=[trial.model_dump(mode="json") for trial in trials],
                run=run_trial.model_dump(mode="json"),
                steps=steps if run_trial.protocol == "stream" else None,
                points=parts,
                draws=draws,
            ):
                advance(f"{found['learner']} {run_trial.task} {name} at {found['point']:g}")
                if "note" in found:
                    if found["point"] == parts[0]:
                        print(f"note: {found['learner']} {found['note']}: left out", file=sys.stderr)
                    continue
                rows.append({"learner": found.pop("learner"), "backend": name, **found})
    if output is not None:
        write(output, {"gradients.json": rows, "gradients.csv": rows})
        for suffix in ("pdf", "png"):
            draw(rows, output / f"gradients.{suffix}")
    if json:
        print(dumps(rows, indent=1))
    else:
        show([{k: v for k, v in row.items() if k != "draws"} for row in rows])
