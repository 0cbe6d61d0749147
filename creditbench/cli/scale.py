"""`creditbench scale`: how cost grows with T, n and B."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer


def scale(
    learner: Annotated[
        str,
        typer.Option(
            help="Learners: ids, or paths of Python files, with commas between; forward: a forward pass."
        ),
    ] = "",
    backend: Annotated[str, typer.Option(help="jax, torch, or both with a comma between.")] = "jax,torch",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, gpu, tpu.")] = "cpu",
    axis: Annotated[str, typer.Option(help="T, n, B, with commas between: what is swept.")] = "T",
    quantity: Annotated[
        str, typer.Option(help="time, algorithm_bytes, flops, with commas between.")
    ] = "time,algorithm_bytes,flops",
    points: Annotated[
        str,
        typer.Option(
            help="Sizes on the axis, with commas between.  [default: four for times, three for the rest]"
        ),
    ] = "",
    steps: Annotated[int | None, typer.Option(help="T where it is not swept.  [default: 128]")] = None,
    hidden: Annotated[int | None, typer.Option(help="n where it is not swept.  [default: 128]")] = None,
    batch: Annotated[int | None, typer.Option(help="B where it is not swept.  [default: 1]")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="A field of a learner, as in tbptt.K=20. Repeatable.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="Least time that the blocks of one figure take.")] = 0.3,
    limit: Annotated[
        float,
        typer.Option(help="Most seconds that a figure may take at one size; larger sizes are left out."),
    ] = 20.0,
    threads: Annotated[int, typer.Option(help="Threads of the measuring process.")] = 1,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder for scaling.json, scaling.csv, points.csv and a figure an axis."),
    ] = None,
    format_: Annotated[
        str, typer.Option("--format", help="rich; markdown: a row a rule, its claims beside; json.")
    ] = "rich",
    json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Sweep the steps T, the hidden units n or the sequences B; fit exponents of cost; hold them against the claims.

    Exits 1 where algorithm bytes or FLOPs grow faster than their rule claims; times are shown alone.

    \b
    Examples:
      creditbench scale --learner bptt,anp,wp,np,forward --axis T --json
      creditbench scale --learner bptt,anp --axis T,n --output scaling
      creditbench scale --learner ./my_rule.py --axis n --quantity flops --points 64,128,256
      creditbench scale --learner bptt,rtrl --axis T,n --quantity time,algorithm_bytes --format markdown
    """
    import sys
    from json import dumps

    from creditbench.check.doctor import require_device
    from creditbench.cli.measuring import bars, names, resolve_learners, show, write
    from creditbench.cli.run import numbers
    from creditbench.errors import UsageError, unknown
    from creditbench.leaderboard.figures import scaling as draw
    from creditbench.machine import files
    from creditbench.ops import BACKENDS
    from creditbench.studies.process import results
    from creditbench.studies.scaling import (
        AXES,
        EXACT_SIZES,
        FORWARD,
        QUANTITIES,
        SIZES,
        claims_of,
        summarise,
    )

    for option, given, known in (
        ("format", format_, ("rich", "markdown", "json")),
        ("axis", axis, AXES),
        ("quantity", quantity, QUANTITIES),
        ("backend", backend, BACKENDS),
    ):
        for name in names(option, given):
            if name not in known:
                raise unknown(option, name, known, "creditbench scale --help")
    if json and format_ == "markdown":
        raise UsageError("--json and --format markdown are two formats: leave one out")
    if axis.count(",") and points:
        raise UsageError(f"--points is {points} and --axis is {axis}: name one axis, or leave out --points")
    least = {"steps": ("T", steps), "hidden": ("n", hidden), "batch": ("B", batch), "threads": ("", threads)}
    for option, (letter, value) in least.items():
        if value is not None and value < 1:
            raise UsageError(f"--{option} is {value}: give a whole number from 1")
        if value is not None and [letter] == names("axis", axis):
            raise UsageError(
                f"--{option} is {value} and --axis is {axis}: leave one out, or name its sizes as --points"
            )
    fixed = {"T": steps or 128, "n": hidden or 128, "B": batch or 1}
    for option, span in {"seconds": seconds, "limit": limit}.items():
        if not span > 0:
            raise UsageError(f"--{option} is {span}: give a number above 0")
    rules = resolve_learners(learner, set_, extra=(FORWARD,))
    quantities, backends = names("quantity", quantity), names("backend", backend)
    asked = sorted(numbers("--points", points, int, "64,128,256", low=1)) if points else []
    if points and len(asked) < 2:
        raise UsageError(f"--points is {points}: an exponent takes two different sizes or more")
    sizes = {
        swept: {name: asked or (SIZES if name == "time" else EXACT_SIZES)[swept] for name in quantities}
        for swept in names("axis", axis)
    }
    able = {name: [rule.order for rule in rules if name in rule.backends] for name in backends}
    for name in backends:
        require_device(name, device)
        for left in (rule.order[0] for rule in rules if name not in rule.backends):
            print(f"note: {left} does not run on {name}: left out", file=sys.stderr)
    if not any(able.values()):
        raise UsageError(
            f"--learner is {learner} and --backend is {backend}: none runs there; choose its backend"
        )

    if output is not None:
        files.require_writable("output", output / "scaling.json", "name another folder")
    found = []
    total = sum(map(len, able.values())) * sum(len(own) for each in sizes.values() for own in each.values())
    with bars("figures", total) as advance:
        for name in backends:
            for swept, each in sizes.items():
                order = {"learners": able[name], "axis": swept, "sizes": each, "fixed": fixed}
                for point in results(
                    "scale",
                    backend=name,
                    device=device,
                    threads=threads,
                    seconds=seconds,
                    limit=limit,
                    **order,
                ):
                    found.append(point | {"backend": name})
                    advance(f"{point['learner']} {name} {swept}={point['size']} {point['quantity']}")
    rows = summarise(found, {rule.order[0]: claims_of(*rule.order) for rule in rules})
    found = [point for point in found if point["values"]]
    for row in rows:
        if row["left_out"]:
            print(
                f"note: {row['learner']} {row['backend']}: {row['quantity']} at {row['axis']} = "
                f"{', '.join(map(str, row['left_out']))} left out, which would take more than --limit {limit:g} s",
                file=sys.stderr,
            )
    if output is not None:
        flat = [
            {k: point[k] for k in ("learner", "backend", "axis", "size", "quantity")}
            | {"value": sorted(point["values"])[len(point["values"]) // 2], "blocks": len(point["values"])}
            for point in found
        ]
        write(output, {"scaling.json": rows, "scaling.csv": rows, "points.csv": flat})
        with files.output("output", output, "name another folder"):
            for swept in sizes:
                for suffix in ("pdf", "png"):
                    with files.replacing(output / f"scaling_{swept}.{suffix}") as (new,):
                        draw([p for p in found if p["axis"] == swept], rows, new)
    if json or format_ == "json":
        print(dumps(rows, indent=1))
    elif format_ == "markdown":
        print(_markdown(rows))
    else:
        show(rows)
    broken = [row for row in rows if row["held"] is False]
    for row in broken:
        print(
            f"{row['learner']} {row['backend']}: {row['quantity']} grows as {row['axis']}^{row['exponent']:.2f}, "
            f"claimed {row['claimed']:g}",
            file=sys.stderr,
        )
    if broken:
        raise typer.Exit(1)


def _markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """A row a rule and backend, a column a quantity and axis: `1.98 (2)` is the exponent, and the claimed one.

    ✓: held, ✗: not held; a time judges nobody. What was left out at the largest sizes is marked *.
    """
    columns = list(dict.fromkeys((row["quantity"], row["axis"]) for row in rows))
    cells: dict[tuple[str, str], dict[tuple[str, str], str]] = {}
    for row in rows:
        text = f"{row['exponent']:.2f}" + ("" if row["claimed"] is None else f" ({row['claimed']:g})")
        text += {True: " ✓", False: " ✗", None: ""}[row["held"]] + ("*" if row["left_out"] else "")
        cells.setdefault((row["learner"], row["backend"]), {})[row["quantity"], row["axis"]] = text
    head = ["rule", "backend", *(f"{quantity.replace('_', ' ')} in {axis}" for quantity, axis in columns)]
    lines = [head, ["---", "---", *["---:"] * len(columns)]]
    lines += [
        [*place, *(own.get(column, "–") for column in columns)]
        for place, own in sorted(cells.items(), key=lambda item: item[0])
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
