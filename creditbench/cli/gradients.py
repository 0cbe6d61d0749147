"""`creditbench gradients`: how good each rule's estimate of the gradient is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from creditbench.cli import options, printing
from creditbench.machine.frameworks import DEFAULT


def gradients(
    learner: options.Learners = "",
    task: options.Tasks = "",
    cell: options.Cells = "tanh",
    backend: options.Backends = DEFAULT,
    device: options.Device = "cpu",
    draws: Annotated[int, typer.Option(help="Draws of each estimate.")] = 256,
    parts: Annotated[
        str,
        typer.Option(
            help="Parts of a BPTT run to measure after, comma-separated; moved to the nearest evaluation."
        ),
    ] = "0,0.5,1",
    preset: options.Preset = "quick",
    hidden: options.Hidden = 32,
    layers: options.Layers = 1,
    batch: options.Batch = None,
    steps: Annotated[
        int | None, typer.Option(help="Length of the segment on a stream.  [default: 50]")
    ] = None,
    settle: Annotated[
        int,
        typer.Option(
            help="Segments that each draw runs first, at the same weights, for a rule with noise in its "
            "state. They follow the measured segment in the run."
        ),
    ] = 0,
    seed: Annotated[int, typer.Option(help="Of weights and data.")] = 0,
    set_: options.Settings = None,
    data: options.Data = None,
    executor: options.Executor = "local",
    scheduler: options.Scheduler = None,
    jobs: options.Jobs = None,
    threads: options.Threads = 1,
    output: Annotated[
        Path | None, typer.Option(help="Folder for gradients.csv, gradients.json and the figure.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Compare each rule's estimate of the gradient with BPTT's, at the first weights and along a BPTT run.

    cosine: of one draw. bias: ‖E[g] - g*‖/‖g*‖, corrected for the number of draws. variance: E‖g -
    E[g]‖²/‖g*‖².
    draws_to_cosine: how many draws it takes for the cosine of their mean to reach 0.9. Intervals are 95 %.

    \b
    Examples:
      creditbench gradients --learner np,wp,anp --task mackey_glass
      creditbench gradients --learner np --set np.credit=trace --task copy_memory --draws 1000 --output out
      creditbench gradients --learner eprop,snap1 --task mackey_glass --cell gru,lif --jobs 2
      creditbench gradients --learner oua,wp --task delayed_match --parts 0 --settle 100
    """
    from creditbench.executors.spread import Spread
    from creditbench.library.measuring import compare_estimates
    from creditbench.trials.grid import Options

    asked = Options(
        tasks=tuple(options.names("task", task)),
        learners=tuple(options.names("learner", learner)),
        cells=tuple(options.names("cell", cell)),
        backends=tuple(options.names("backend", backend)),
        device=device,
        seeds=(seed,),
        hidden=hidden,
        layers=layers,
        batch=batch,
        preset=preset,
        settings=options.settings(set_, "np.credit=trace"),
        data=options.data(data),
        threads=threads,
    )
    rows = compare_estimates(
        asked,
        parts=options.numbers("--parts", parts, float, "0,0.5,1", low=0, high=1),
        steps=steps,
        draws=draws,
        settle=settle,
        where=Spread(executor, jobs, scheduler, threads),
        output=output,
        bars=printing.bars,
        say=printing.say,
    )
    if json:
        printing.as_json(rows)
    else:
        printing.as_table([{k: v for k, v in row.items() if k != "draws"} for row in rows])
