"""`creditbench doctor`: what works on this machine."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from creditbench.cli import options, printing
from creditbench.errors import UsageError
from creditbench.library import defaults


def doctor(
    learner: Annotated[
        str,
        typer.Option(
            help="Learners, comma-separated, whose share of the roofline is measured too, on one thread."
        ),
    ] = "",
    device: Annotated[
        str | None,
        typer.Option(help="Where these learners run: cpu, cuda, cuda:1, gpu, tpu.  [default: cpu]"),
    ] = None,
    hidden: options.HiddenN = None,
    steps: options.StepsT = None,
    batch: options.BatchB = None,
    json: options.Json = False,
) -> None:
    """Say what works on this machine: backends, devices, speed. Exits 1 if no backend works.

    A rule's share of the roofline is the least time that its FLOPs and bytes allow at the peaks of this
    machine, over the time that it takes.

    \b
    Examples:
      creditbench doctor
      creditbench doctor --json
      creditbench doctor --learner bptt,anp --hidden 512
      creditbench doctor --learner bptt,anp --device cuda
    """
    from creditbench.check.doctor import confinement, examine, machine, require_device
    from creditbench.ops import BACKENDS
    from creditbench.studies.process import results
    from creditbench.studies.scaling import rules_of

    for option, value in {"device": device, "hidden": hidden, "steps": steps, "batch": batch}.items():
        if value is not None and not learner:
            raise UsageError(
                f"--{option} is {value}: it is of learners; name them as --learner, or leave it out"
            )
        if isinstance(value, int):
            defaults.require_whole(option, value, 1)
    fixed = {
        letter: value or defaults.SIZES[letter]
        for letter, value in zip("TnB", (steps, hidden, batch), strict=True)
    }
    rules = rules_of(options.names("learner", learner), {})[0] if learner else []
    host, confined = machine(), confinement()
    rows: list[dict[str, Any]] = [host | {"confinement": confined} | examine(backend) for backend in BACKENDS]
    if rules:
        for row in rows:
            able = [rule.learner for rule in rules if row["backend"] in rule.backends]
            row["rules"] = []
            if row["works"] and able:
                at = device or "cpu"
                require_device(row["backend"], at)
                row["rules"] = list(
                    results(
                        "shares", backend=row["backend"], device=at, threads=1, learners=able, fixed=fixed
                    )
                )
    if json:
        printing.as_json(rows)
    else:
        _print(host, confined, rows)
    if not any(row["works"] for row in rows):
        raise typer.Exit(1)


def _print(host: dict[str, Any], confined: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """The machine, and each backend below it."""
    for name, value in (host | {"memory_bytes": f"{host['memory_bytes'] / 2**30:.1f} GiB"}).items():
        print(f"{name.removesuffix('_bytes'):14} {value}")
    print(f"{'confinement':14} {_confinement(confined)}")
    for row in rows:
        print()
        print(f"{row['backend']:14} {'works' if row['works'] else 'does not work: ' + row['error']}")
        if row["works"]:
            print(f"{'  version':14} {row['version']}, imported in {row['import_seconds']} s")
            print(f"{'  devices':14} {', '.join(row['devices'])}")
            for peak in row["peaks"]:
                threads = f" ({peak['threads']} thread{'s' * (peak['threads'] > 1)})"
                speed = f"{peak['gemm_gflops']} GFLOP/s, {peak['triad_gbytes']} GB/s"
                print(
                    f"{'  ' + peak['device'] + ' speed':14} {peak.get('error') or speed}"
                    + threads * (peak["device"] == "cpu")
                )
            for rule in row.get("rules", ()):
                print(
                    f"{'  ' + rule['learner']:14} {rule['gflops']:.2f} GFLOP/s, "
                    f"{100 * rule['roofline_share']:.2g} % of what its work allows"
                )


def _confinement(found: dict[str, Any]) -> str:
    """How a learner that is not shipped is confined here, in one line."""
    held = [f"Landlock {found['landlock']}"] * bool(found["landlock"]) + ["seccomp"] * found["seccomp"]
    refused = [name for name, is_refused in found["refused"].items() if is_refused]
    open_to_it = [name for name, is_refused in found["refused"].items() if not is_refused]
    line = f"{', '.join(held) or 'a process of its own alone'}; refused: {', '.join(refused) or 'nothing'}"
    line += f"; not refused: {', '.join(open_to_it)}" if open_to_it else ""
    line += f"; memory: {found['memory']}" if found["memory"] else ""
    return line + (f" ({found['error']})" if found["error"] else "")
