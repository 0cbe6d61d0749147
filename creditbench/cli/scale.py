"""`creditbench scale`: how cost grows with T, n and B."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from creditbench.cli import options, printing


def scale(
    learner: Annotated[
        str,
        typer.Option(
            help="Learners: ids or paths of Python files, comma-separated; forward: a forward pass."
        ),
    ] = "",
    cell: options.Cells = "tanh",
    backend: options.InstalledBackends = "",
    device: options.Device = "cpu",
    axis: Annotated[str, typer.Option(help="Sizes to sweep: T, n, B, comma-separated.")] = "T",
    quantity: Annotated[
        str, typer.Option(help="time, algorithm_bytes, flops, comma-separated.")
    ] = "time,algorithm_bytes,flops",
    sizes: Annotated[
        str,
        typer.Option(
            help="Sizes on the axis, comma-separated.  [default: four for times, three for the rest]"
        ),
    ] = "",
    steps: options.StepsT = None,
    hidden: options.HiddenN = None,
    batch: options.BatchB = None,
    set_: options.Settings = None,
    seconds: Annotated[float, typer.Option(help="Least time that the blocks of one figure take.")] = 0.3,
    limit: Annotated[
        float,
        typer.Option(help="Most seconds that a figure may take at one size; larger sizes are left out."),
    ] = 20.0,
    executor: options.Executor = "local",
    scheduler: options.Scheduler = None,
    jobs: options.Jobs = None,
    threads: options.Threads = 1,
    output: Annotated[
        Path | None, typer.Option(help="Folder for scaling.csv, scaling.json and a figure an axis.")
    ] = None,
    form: Annotated[
        str, typer.Option("--format", help="rich; markdown: a row a rule, with its claims; json.")
    ] = "rich",
    json: options.Json = False,
) -> None:
    """Sweep the steps T, hidden units n or sequences B; fit exponents of cost; compare them with the claims.

    Exits 1 if algorithm bytes or FLOPs grow faster than their rule claims. Times are only shown.

    \b
    Examples:
      creditbench scale --learner bptt,anp,wp,np,forward --axis T --json
      creditbench scale --learner bptt,anp --axis T,n --output scaling
      creditbench scale --learner bptt,rtrl --cell gru,lru --axis T
      creditbench scale --learner bptt,anp,rtrl --axis T,n --quantity flops,algorithm_bytes --jobs 2
      creditbench scale --learner ./my_rule.py --axis n --quantity flops --sizes 64,128,256
      creditbench scale --learner bptt,rtrl --axis T,n --quantity time,algorithm_bytes --format markdown
    """
    from creditbench.executors.spread import Spread
    from creditbench.leaderboard.text import exponents_markdown
    from creditbench.library.measuring import sweep
    from creditbench.studies import scaling

    form = options.one_format(form, json, ("rich", "markdown", "json"), "scale")
    _, rows = sweep(
        options.names("learner", learner),
        options.names("cell", cell),
        options.settings(set_),
        axes=options.known_names("axis", axis, scaling.AXES, "scale"),
        quantities=options.known_names("quantity", quantity, scaling.QUANTITIES, "scale"),
        backends=options.backends(backend, "scale"),
        device=device,
        sizes=options.numbers("--sizes", sizes, int, "64,128,256", low=1) if sizes else (),
        fixed={"T": steps, "n": hidden, "B": batch},
        seconds=seconds,
        limit=limit,
        where=Spread(executor, jobs, scheduler, threads),
        output=output,
        bars=printing.bars,
        say=printing.say,
    )
    if form == "json":
        printing.as_json(rows)
    elif form == "markdown":
        print(exponents_markdown(rows))
    else:
        printing.as_table(rows)
    broken = [row for row in rows if row["held"] is False]
    for row in broken:
        printing.say(scaling.broken(row))
    if broken:
        raise typer.Exit(1)
