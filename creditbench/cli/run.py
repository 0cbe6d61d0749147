"""`creditbench run`: a grid of trials."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from creditbench.cli import options
from creditbench.cli.options import LOCAL
from creditbench.cli.printing import console, say
from creditbench.errors import UsageError
from creditbench.library import defaults
from creditbench.library.progress import TrialBars, failures
from creditbench.machine.frameworks import DEFAULT

if TYPE_CHECKING:
    from creditbench.results.runs import GridOutcome


def run(
    context: typer.Context,
    task: options.Tasks = "",
    learner: options.Rules = "",
    decorrelate: Annotated[
        str, typer.Option(help="none, hidden, both: for each learner without a suffix.")
    ] = "none",
    cell: options.Cells = "tanh",
    backend: options.Backends = DEFAULT,
    device: options.Device = "cpu",
    preset: options.Preset = "quick",
    seeds: Annotated[
        int | None,
        typer.Option(
            help="Number of seeds, from 0 on. With a tuned file each study has as many, and no two studies "
            f"share one; those of draw D start at 1000 D.  [default: {defaults.SEEDS}]"
        ),
    ] = None,
    seed: Annotated[
        str | None, typer.Option(help="Explicit seeds, as in 3,9071; the same for every study.")
    ] = None,
    hidden: options.Hidden = 128,
    layers: options.Layers = 1,
    bias: options.Bias = False,
    alpha: Annotated[
        float | None, typer.Option(help="Leak of a cell that has one, in (0, 1].  [default: the task's]")
    ] = None,
    batch: options.Batch = None,
    segment: Annotated[
        int | None, typer.Option(help="Steps between updates on a stream.  [default: the learner's]")
    ] = None,
    budget: options.Budget = None,
    evaluations: options.Evaluations = None,
    lr: Annotated[str, typer.Option(help="Learning rates, comma-separated.  [default: the learner's]")] = "",
    optimizer: Annotated[
        str | None, typer.Option(help="sgd, momentum, adam.  [default: the learner's]")
    ] = None,
    decorrelation_rate: Annotated[
        float | None, typer.Option(help="Rate of the decorrelation.  [default: 0.001]")
    ] = None,
    set_: options.TrainingSettings = None,
    data: options.Data = None,
    tuned: Annotated[
        str | None, typer.Option(help="TOML file with a table [TASK.RULE] of tuned values.")
    ] = None,
    results: options.Records = LOCAL,
    reuse: options.Reuse = None,
    executor: options.Executor = "local",
    scheduler: options.Scheduler = None,
    jobs: options.Jobs = None,
    shard: options.ShardText = None,
    threads: options.Threads = 1,
    timeout: options.Timeout = None,
    memory_limit: Annotated[
        str | None,
        typer.Option(
            help="Memory that a trial may take, as in 4GB.  [default: nine tenths of all, over the processes]"
        ),
    ] = None,
    checkpoint: Annotated[
        float | None,
        typer.Option(
            help="Seconds after which a running trial is kept at its next evaluation, to go on there "
            "if the run is cut short; 0: at each.  [default: 60]"
        ),
    ] = None,
    together: Annotated[bool, typer.Option("--together", help="Train seeds as one program (JAX).")] = False,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure/--no-measure",
            help="Also measure × forward, × bptt, FLOPs and algorithm bytes; takes some seconds a rule.",
        ),
    ] = True,
    log: Annotated[
        str,
        typer.Option(help="Curves while trials run, in the folder of results: jsonl, tensorboard, wandb."),
    ] = "",
    force: Annotated[
        bool, typer.Option("--force", help="Run trials again even if they have a record.")
    ] = False,
    retry: Annotated[
        bool,
        typer.Option(
            "--retry", help="Run again the trials that crashed, timed out, were invalid or out of memory."
        ),
    ] = False,
    config: Annotated[
        Path | None,
        typer.Option(
            callback=options.config_reader(),
            is_eager=True,
            help="TOML file of these options by name; the command line wins.",
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Run a grid of trials, keep their records and print the table.

    A trial that has a record is not run again, whatever its outcome: a corrected rule is another trial. Runs
    on one folder share the work. Exits 1 if a trial of the grid crashed, timed out, was invalid or ran out of
    memory. Exits 1 too if the machine failed at one; no record of it is kept.

    \b
    Examples:
      creditbench run --task mackey_glass --learner bptt,anp,anp+D --preset smoke
      creditbench run --task mackey_glass --learner anp --set anp.sigma=1e-2 --lr 0.01,0.1
      creditbench run --task mackey_glass --learner bptt,anp --lr 0.001 --set anp.lr=0.01
      creditbench run --task mackey_glass --learner bptt,eprop --cell gru,lif --set lif.decay=0.9
      creditbench run --task weather --data weather=WTH.csv --learner ./my_rule.py --backend jax,torch
      creditbench run --learner ./my_rule.py --jobs 2 --timeout 600 --memory-limit 4GB
      creditbench run --config grid.toml --seed 3,9071
      creditbench run --config grid.toml --shard 3/8
      creditbench run --task copy_memory --learner bptt --preset full --log tensorboard
      creditbench run --config grids/board/weather.toml --learner ./my_rule.py --reuse results/v0.2
    """
    from creditbench.machine.memory import read_bytes
    from creditbench.results.runs import Interrupted, Where, run_grid
    from creditbench.trials.grid import Options

    listed = _seeds(context, seeds, seed)
    asked = Options(
        tasks=options.split(task),
        learners=options.split(learner),
        cells=options.split(cell),
        decorrelate=options.split(decorrelate),
        backends=options.split(backend),
        device=device,
        seeds=listed or defaults.first_seeds(defaults.SEEDS if seeds is None else seeds),
        seeds_apart=not listed,
        hidden=hidden,
        layers=layers,
        bias=bias,
        alpha=alpha,
        batch=batch,
        segment=segment,
        lrs=options.numbers("--lr", lr, float, "0.01,0.1") if lr else (),
        optimizer=optimizer,
        decorrelation_rate=decorrelation_rate,
        preset=preset,
        budget=budget,
        evaluations=evaluations,
        settings=options.settings(set_),
        data=options.data(data),
        tuned=tuned,
        threads=threads,
        measure=measure,
        timeout=timeout,
    )
    where = Where(
        results=results,
        executor=executor,
        jobs=jobs,
        scheduler=scheduler,
        checkpoint=checkpoint,
        memory_limit=None if memory_limit is None else read_bytes(memory_limit),
    )
    try:
        with _ends_on_sigterm():
            outcome = run_grid(
                *(asked, where, TrialBars, say),
                together=together,
                force=force,
                retry=retry,
                reuse=reuse or (),
                shard=options.shard(shard),
                logs=options.split(log),
                curves=False,
            )
    except Interrupted as stop:
        say(str(stop))
        raise typer.Exit(130) from None
    _print(outcome, results, json)
    if outcome.failed or outcome.lost:
        raise typer.Exit(1)


def _seeds(context: typer.Context, count: int | None, listed: str | None) -> tuple[int, ...]:
    """The explicit seeds; empty if their number is given instead. Raises `UsageError`."""
    if count is not None and listed is not None:
        # One of them may come from the configuration file, over which the command line wins.
        sources = {name: context.get_parameter_source(name) for name in ("seeds", "seed")}
        given = [
            name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"
        ]
        if len(given) != 1:
            raise UsageError(f"--seeds is {count} and --seed is {listed}: give one of them")
        count, listed = (count, None) if given == ["seeds"] else (None, listed)
    if listed is not None:
        return options.numbers("--seed", listed, int, "3,9071", low=0)
    return ()


def _print(outcome: GridOutcome, results: Path, json: bool) -> None:
    """Print the table, the folder of records, the trials that failed, and those that the machine lost."""
    from creditbench.results import table

    if json:
        sys.stdout.writelines(table.parts(outcome.records, "json"))
    else:
        table.print_rich(outcome.records, console())
    say(f"records: {results / 'records'}")
    for line in failures(outcome, results):
        say(line)


@contextlib.contextmanager
def _ends_on_sigterm() -> Iterator[None]:
    """Make SIGTERM end this process in order, so that its workers end with it."""

    def end(number: int, _: Any) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
