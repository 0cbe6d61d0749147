"""`creditbench scale`: how cost grows with T, n and B."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from creditbench.cli import options, printing
from creditbench.errors import UsageError


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
    from creditbench.check.doctor import require_device
    from creditbench.executors.spread import Spread
    from creditbench.leaderboard.text import exponents_markdown
    from creditbench.machine import files
    from creditbench.results.measured import write_scaling
    from creditbench.studies import scaling

    form = options.one_format(form, json, ("rich", "markdown", "json"), "scale")
    axes = options.known_names("axis", axis, scaling.AXES, "scale")
    quantities = options.known_names("quantity", quantity, scaling.QUANTITIES, "scale")
    backends = options.backends(backend, "scale")
    if len(axes) > 1 and sizes:
        raise UsageError(f"--sizes is {sizes} and --axis is {axis}: name one axis, or leave out --sizes")
    options.require_whole("threads", threads, 1)
    where = Spread(executor, jobs, scheduler, threads)
    fixed = _fixed(axes, {"steps": ("T", steps), "hidden": ("n", hidden), "batch": ("B", batch)})
    for option, span in {"seconds": seconds, "limit": limit}.items():
        if not span > 0:
            raise UsageError(f"--{option} is {span}: give a number above 0")
    rules, notes = scaling.rules_of(
        *(options.names("learner", learner), options.settings(set_), (scaling.FORWARD,)),
        cells=options.names("cell", cell),
    )
    for note in notes:
        printing.say(f"note: {note}")
    asked = sorted(options.numbers("--sizes", sizes, int, "64,128,256", low=1)) if sizes else []
    if sizes and len(asked) < 2:
        raise UsageError(f"--sizes is {sizes}: an exponent takes two different sizes or more")
    able = {name: [rule for rule in rules if name in rule.backends] for name in backends}
    for name in backends:
        # The device of a cluster is its workers'.
        require_device(name, device if scheduler is None else "cpu")
        for left in dict.fromkeys(rule.learner[0] for rule in rules if name not in rule.backends):
            printing.say(f"note: {left} does not run on {name}: left out")
    if not any(able.values()):
        raise UsageError(
            f"--learner is {learner} and --backend is {backend}: none runs there; choose its backend"
        )
    if where.several and "time" in quantities:
        printing.say("note: times are taken beside other parts: compare ratios, or leave out --jobs")
    if output is not None:
        files.require_writable("output", output / "scaling.json", "name another folder")
    found, rows = scaling.sweep(
        *(able, scaling.sizes_of(axes, quantities, asked), fixed, printing.bars, where),
        device=device,
        seconds=seconds,
        limit=limit,
    )
    for row in rows:
        if row["left_out"]:
            printing.say(
                f"note: {scaling.left_out(row)} left out: it would take more than --limit {limit:g} s"
            )
    if output is not None:
        write_scaling(output, found, rows)
        # The figures alone need matplotlib.
        from creditbench.leaderboard.figures import draw_scaling

        draw_scaling(found, rows, output)
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


def _fixed(axes: Sequence[str], given: Mapping[str, tuple[str, int | None]]) -> dict[str, int]:
    """T, n and B while they are not swept; `given`: option -> its axis and value.

    Raises `UsageError` if one is given and is the only axis, so that its option would be ignored.
    """
    fixed = dict(options.SIZES)
    for option, (axis, value) in given.items():
        options.require_whole(option, value, 1)
        if value is not None and [axis] == axes:
            raise UsageError(
                f"--{option} is {value} and --axis is {axis}: leave one out, or name its sizes as --sizes"
            )
        fixed[axis] = value or fixed[axis]
    return fixed
