"""`creditbench gradients`: how good each rule's estimate of the gradient is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from creditbench.cli import options, printing
from creditbench.errors import UsageError


def gradients(
    learner: options.Learners = "",
    task: options.Tasks = "",
    cell: options.Cells = "tanh",
    backend: options.Backends = "jax",
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
    from creditbench.check.doctor import require_device
    from creditbench.executors.spread import Spread
    from creditbench.machine import files
    from creditbench.results.measured import write_gradients
    from creditbench.studies.gradients import look, orders
    from creditbench.trials.grid import Options

    if draws < 3:
        raise UsageError(f"--draws is {draws}: an interval takes 3 or more")
    options.require_whole("steps", steps, 1)
    options.require_whole("settle", settle, 0)
    options.require_whole("threads", threads, 1)
    where = Spread(executor, jobs, scheduler, threads)
    points = sorted(options.numbers("--parts", parts, float, "0,0.5,1", low=0, high=1))
    rules = options.names("learner", learner)
    if any("+" in rule for rule in rules):
        raise UsageError(
            f"--learner is {learner}: a decorrelated cell has another gradient; leave out the suffix"
        )
    asked = Options(
        tasks=tuple(options.names("task", task)),
        learners=tuple(rules),
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
    for name in asked.backends:
        # The device of a cluster is its workers'.
        require_device(name, device if scheduler is None else "cpu")
    ordered = orders(asked, steps, printing.say)
    if output is not None:
        files.require_writable("output", output / "gradients.json", "name another folder")
    rows = look(
        *(ordered, points, printing.bars, printing.say, where),
        device=device,
        steps=50 if steps is None else steps,
        draws=draws,
        settle=settle,
    )
    if not rows:
        raise UsageError(f"--learner is {learner}: none of them gives a gradient here; name one that does")
    if output is not None:
        write_gradients(output, rows)
        # The figures alone need matplotlib.
        from creditbench.leaderboard.figures import draw_gradients

        draw_gradients(rows, output)
    if json:
        printing.as_json(rows)
    else:
        printing.as_table([{k: v for k, v in row.items() if k != "draws"} for row in rows])
