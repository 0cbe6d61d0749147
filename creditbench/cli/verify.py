"""`creditbench verify`: a submitted rule, run again on seeds and tasks that its author cannot know."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from creditbench.cli import options, printing
from creditbench.errors import UsageError

if TYPE_CHECKING:
    from creditbench.results.measured import Verified

#: Columns that a narrow terminal does without, in this order.
_SPARE = ("cell", "backend", "hidden − submitted", "again − submitted")


def verify(
    learner: Annotated[
        str, typer.Argument(metavar="FILE", help="Python file of the rule, or the id of a known one.")
    ],
    results: options.Results = None,
    task: options.ShownTasks = "",
    secret: Annotated[
        str,
        typer.Option(
            envvar="CREDITBENCH_SECRET",
            help="Any text that the author does not know: seeds and hidden tasks come from it.",
            show_default=False,
        ),
    ] = "",
    seeds: Annotated[int, typer.Option(help="The most runs of each study.")] = 5,
    reference: Annotated[
        str, typer.Option(help="Rule whose change on the hidden task is taken out, where it has records.")
    ] = "bptt",
    executor: options.Executor = "local",
    scheduler: options.Scheduler = None,
    jobs: options.Jobs = None,
    timeout: options.Timeout = None,
    output: Annotated[
        Path, typer.Option(help="Folder for verified.csv, which a page shows, and for the new trials.")
    ] = Path("results/verified"),
    json: options.Json = False,
) -> None:
    """Train a submitted rule again, with new seeds and on hidden versions of its tasks, and compare.

    The settings are those of the author's records, which must be of this file. A hidden task has other
    parameters of the same difficulty, and its channels in another order and sign. The records of a reference
    rule show by how much its difficulty differs. Exits 1 unless every task is verified.

    \b
    Examples:
      creditbench verify my_rule.py --results submitted --results results/v0.2 --secret "some words"
      CREDITBENCH_SECRET="some words" creditbench verify my_rule.py --results submitted --task mackey_glass
      creditbench leaderboard --results submitted --results results/verified --output page
    """
    from creditbench.leaderboard.verify import verify as run_again
    from creditbench.results.runs import Where

    if seeds < 2:
        raise UsageError(f"--seeds is {seeds}: an interval takes 2 or more")
    where = Where(results=output / "trials", executor=executor, jobs=jobs, scheduler=scheduler)
    rows = run_again(
        *(learner, options.folders(results), secret, where, output, printing.bars, printing.say),
        seeds=seeds,
        reference=reference,
        tasks=options.split(task),
        timeout=timeout,
    )
    if json:
        printing.as_json([row.model_dump() for row in rows])
    else:
        printing.as_table([_shown(row) for row in rows], _SPARE)
    printing.say(f"rows: {output / 'verified.csv'}")
    unsure = [row for row in rows if row.verdict != "verified"]
    for row in unsure:
        printing.say(f"{row.learner} on {row.task} {row.backend}: {row.verdict}: {row.detail}")
    if unsure:
        raise typer.Exit(1)


def _shown(row: Verified) -> dict[str, object]:
    """The cells of a row of the table."""
    ends = {"again": (row.again_low, row.again_high), "hidden": (row.hidden_low, row.hidden_high)}
    interval = {
        name: None if None in both else [round(end, 3) for end in both if end is not None]
        for name, both in ends.items()
    }
    return {
        "rule": row.learner,
        "cell": row.cell,
        "task": row.task,
        "backend": row.backend,
        "submitted": row.submitted,
        "again": row.again,
        "again − submitted": interval["again"],
        "hidden": row.hidden,
        "hidden − submitted": interval["hidden"],
        "verdict": row.verdict,
    }
