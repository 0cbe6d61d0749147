"""`creditbench doctor`: what works on this machine."""

from __future__ import annotations

from typing import Annotated

import typer


def doctor(
    json: Annotated[bool, typer.Option("--json", help="One JSON array of objects, one a backend.")] = False,
) -> None:
    """Say what works on this machine: backends, devices, speed. Exits 1 where no backend works.

    \b
    Examples:
      creditbench doctor
      creditbench doctor --json
    """
    from json import dumps

    from creditbench.doctor import examine, machine
    from creditbench.ops import BACKENDS

    host = machine()
    rows = [host | examine(backend) for backend in BACKENDS]
    if json:
        print(dumps(rows, indent=1))
    else:
        for name, value in (host | {"memory_bytes": f"{host['memory_bytes'] / 2**30:.1f} GiB"}).items():
            print(f"{name.removesuffix('_bytes'):14} {value}")
        for row in rows:
            print()
            print(f"{row['backend']:14} {'works' if row['works'] else 'does not work: ' + row['error']}")
            if row["works"]:
                print(f"{'  version':14} {row['version']}, imported in {row['import_seconds']} s")
                print(f"{'  devices':14} {', '.join(row['devices'])}")
                print(f"{'  cpu speed':14} {row['gemm_gflops']} GFLOP/s, {row['triad_gbytes']} GB/s")
    if not any(row["works"] for row in rows):
        raise typer.Exit(1)
