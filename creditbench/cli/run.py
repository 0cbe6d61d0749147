"""`creditbench run`: a grid of trials."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from creditbench.trials.record import Record
    from creditbench.trials.trial import Trial

#: Outcomes that are failures; `diverged` is a result.
FAILURES = ("crashed", "invalid", "oom", "timeout")
DEFAULT_SEEDS = 3
MOST_SEEDS = 100_000


def read_config(context: typer.Context, path: Path | None, others: Collection[str] = ()) -> Path | None:
    """Take the file's values as defaults, so that the command line wins over them; those of `others` are not."""
    if path is not None:
        from creditbench.errors import UsageError, unknown
        from creditbench.machine.files import read_toml

        options = {name.lstrip("-"): option for option in context.command.params for name in option.opts}
        del options["config"]
        defaults = dict(context.default_map or {})
        for key, value in read_toml(path).items():
            if key in others:
                continue
            option = options.get(key.replace("_", "-"))
            if option is None:
                raise unknown(f"option in {path}:", key, options, f"{context.command_path} --help")
            if option.multiple:
                value = _assignments(value)
            elif isinstance(value, list):
                value = ",".join(map(str, value))
            elif isinstance(value, dict):
                raise UsageError(f"option {key!r} in {path} is a table: give a value")
            elif (is_flag := getattr(option, "is_flag", False)) != isinstance(value, bool):
                raise UsageError(
                    f"option {key!r} in {path} is {value!r}: give {'true or false' if is_flag else 'its value'}"
                )
            defaults[option.name] = value
        context.default_map = defaults
    return path


def _read_config(context: typer.Context, path: Path | None) -> Path | None:
    return read_config(context, path)


def _assignments(value: Any) -> list[str]:
    """`["a.b=1"]`, or the tables `{"a.b" = 1}` and `{a = {b = 1}}`, as `["a.b=1"]`."""
    if isinstance(value, dict):
        flat = []
        for name, inner in value.items():
            flat += (
                [f"{name}.{rest}" for rest in _assignments(inner)]
                if isinstance(inner, dict)
                else [f"{name}={inner}"]
            )
        return flat
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def run(
    context: typer.Context,
    task: Annotated[
        str, typer.Option(help="Tasks: ids, or paths of Python files, with commas between.")
    ] = "",
    learner: Annotated[
        str,
        typer.Option(
            help="Learners, likewise. The suffix +D decorrelates the hidden units, +DD the input too."
        ),
    ] = "",
    decorrelate: Annotated[
        str, typer.Option(help="none, hidden, both: for each learner without a suffix.")
    ] = "none",
    backend: Annotated[str, typer.Option(help="jax, torch.")] = "jax",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, gpu, tpu.")] = "cpu",
    preset: Annotated[str, typer.Option(help="Budget of each task: smoke, quick, full.")] = "quick",
    seeds: Annotated[
        int | None,
        typer.Option(
            help="How many seeds, from 0 on; of a tuned file with several studies as many for each, no two of which "
            f"have the same.  [default: {DEFAULT_SEEDS}]"
        ),
    ] = None,
    seed: Annotated[
        str | None, typer.Option(help="The very seeds, as in 3,9071; the same for every study.")
    ] = None,
    hidden: Annotated[int, typer.Option(help="Hidden units.")] = 128,
    bias: Annotated[bool, typer.Option("--bias", help="Give the cell biases.")] = False,
    alpha: Annotated[
        float | None, typer.Option(help="Leak of the cell, in (0, 1].  [default: the task's]")
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Rows trained together.  [default: the task's]")] = None,
    segment: Annotated[
        int | None, typer.Option(help="Steps between updates on a stream.  [default: the learner's]")
    ] = None,
    budget: Annotated[int | None, typer.Option(help="Training time steps, in place of the preset's.")] = None,
    evaluations: Annotated[
        int | None, typer.Option(help="On the validation split.  [default: the preset's]")
    ] = None,
    lr: Annotated[
        str, typer.Option(help="Learning rates, with commas between.  [default: the learner's]")
    ] = "",
    optimizer: Annotated[
        str | None, typer.Option(help="sgd, momentum, adam.  [default: the learner's]")
    ] = None,
    decorrelation_rate: Annotated[
        float | None, typer.Option(help="Rate of the decorrelation.  [default: 0.001]")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="A field of a learner or task, as in anp.sigma=1e-3. Repeatable."),
    ] = None,
    data: Annotated[
        list[str] | None, typer.Option(help="A task's data, as in weather=WTH.csv. Repeatable.")
    ] = None,
    tuned: Annotated[
        str | None, typer.Option(help="TOML file with a table [TASK.RULE] of tuned values.")
    ] = None,
    results: Annotated[Path, typer.Option(help="Folder of the records.")] = Path("results/local"),
    reuse: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of a version or of records: its trials of this grid are not run again. Repeatable."
        ),
    ] = None,
    executor: Annotated[
        str,
        typer.Option(
            help="local: processes of their own, and a confined one for a learner that is not shipped; inline: this "
            "process, for debugging: what it imports has all your rights."
        ),
    ] = "local",
    jobs: Annotated[
        int | None, typer.Option(help="Processes at a time.  [default: cores / threads; on a GPU 1]")
    ] = None,
    threads: Annotated[int, typer.Option(help="Threads of a process.")] = 1,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds that a trial may take.  [default: 3600]")
    ] = None,
    memory_limit: Annotated[
        str | None,
        typer.Option(
            help="Memory that a trial may take, as in 4GB.  [default: nine tenths of all, shared by the processes]"
        ),
    ] = None,
    together: Annotated[bool, typer.Option("--together", help="Train seeds as one program (JAX).")] = False,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure/--no-measure",
            help="Beside training: × forward, × bptt, FLOPs and algorithm bytes, in some seconds a rule.",
        ),
    ] = True,
    force: Annotated[bool, typer.Option("--force", help="Run trials again that have a record.")] = False,
    retry: Annotated[
        bool,
        typer.Option(
            "--retry", help="Run trials again that crashed, timed out, were invalid or out of memory."
        ),
    ] = False,
    config: Annotated[
        Path | None,
        typer.Option(
            callback=_read_config,
            is_eager=True,
            help="TOML file of these options by name; the command line wins.",
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="The rows as one JSON array on standard output.")
    ] = False,
) -> None:
    """Run a grid of trials, keep their records and print the table.

    What has a record already is not run again, whatever its outcome: a rule that is mended is another trial. Exits 1
    where a trial of the grid crashed, timed out, was invalid or ran out of memory, and where the machine failed one, of
    which no record is kept.

    \b
    Examples:
      creditbench run --task mackey_glass --learner bptt,anp,anp+D --preset smoke
      creditbench run --task mackey_glass --learner anp --set anp.sigma=1e-2 --lr 0.01,0.1
      creditbench run --task weather --data weather=WTH.csv --learner ./my_rule.py --backend jax,torch
      creditbench run --learner ./my_rule.py --jobs 2 --timeout 600 --memory-limit 4GB
      creditbench run --config grid.toml --seed 3,9071
      creditbench run --config benchmarks/results/weather.toml --learner bptt,./my_rule.py --reuse results/v0.2
    """
    from functools import partial

    from creditbench.check.doctor import require_device
    from creditbench.errors import UsageError
    from creditbench.executors import make_executor, make_jobs
    from creditbench.machine.memory import read_bytes
    from creditbench.results.shared import run_missing, with_description
    from creditbench.results.store import Store
    from creditbench.results.version import load
    from creditbench.trials.grid import Options, make_grid

    listed = _seeds(context, seeds, seed)
    options = Options(
        tasks=_names(task),
        learners=_names(learner),
        decorrelate=_names(decorrelate),
        backends=_names(backend),
        device=device,
        seeds=listed or tuple(range(DEFAULT_SEEDS if seeds is None else seeds)),
        seeds_apart=not listed,
        hidden=hidden,
        bias=bias,
        alpha=alpha,
        batch=batch,
        segment=segment,
        lrs=numbers("--lr", lr, float, "0.01,0.1") if lr else (),
        optimizer=optimizer,
        decorrelation_rate=decorrelation_rate,
        preset=preset,
        budget=budget,
        evaluations=evaluations,
        settings=pairs("--set", set_, "anp.sigma=1e-3"),
        data=pairs("--data", data, "weather=WTH.csv"),
        tuned=tuned,
        threads=threads,
        measure=measure,
        timeout=timeout,
    )
    if reuse and force:
        names = ", ".join(map(str, reuse))
        raise UsageError(f"--reuse is {names} and --force is given, which runs all again: give one of them")
    store = Store(results)
    where = make_executor(
        executor,
        threads=threads,
        slots=jobs,
        device=device,
        timeout=timeout,
        memory_limit=None if memory_limit is None else read_bytes(memory_limit),
        logs=results / "logs",
    )
    for name in options.backends:
        require_device(name, device)
    grid = make_grid(options)
    for note in (*grid.notes, *_what_is_not_confined(grid.trials, executor)):
        say(f"note: {note}")

    if reuse:
        taken = store.take(grid.trials, load(*reuse).records)
        say(f"{taken} of {len(grid.trials)} trials taken from {', '.join(map(str, reuse))}")
    done = {} if force else {trial.id: store.get(trial) for trial in grid.trials if store.has(trial)}
    if retry:
        done = {name: record for name, record in done.items() if record.status not in FAILURES}
    waiting = [trial for trial in grid.trials if trial.id not in done]
    if done:
        say(f"{len(done)} of {len(grid.trials)} trials already done: --force runs them again")
    make = partial(make_jobs, together=together, slots=where.slots)
    try:
        with _ends_on_sigterm(), _Report(waiting) as report:
            new = run_missing(
                store, waiting, where, make, report.progress, report.say, describe=with_description
            )
            with contextlib.closing(new):
                for record, _ in new:
                    done[record.trial.id] = record
                    report.finished(record)
    except KeyboardInterrupt:
        say(
            f"interrupted: {len(done)} of {len(grid.trials)} trials are done, with records in '{store.records}'; "
            "the same command without --force runs the rest"
        )
        raise typer.Exit(130) from None
    why = {trial.id: detail for trial, detail in where.lost}
    lost = [(trial, why.get(trial.id, "")) for trial in grid.trials if trial.id not in done]
    _conclude([done[trial.id] for trial in grid.trials if trial.id in done], results, json, lost)


def _what_is_not_confined(trials: Sequence[Trial], executor: str) -> Iterator[str]:
    """What learners that are not shipped are not kept from here."""
    from creditbench.executors.base import is_contributed
    from creditbench.isolation import missing

    if any(is_contributed(trial) for trial in trials):
        if executor == "inline":
            yield "the executor 'inline' runs learners that are not shipped with all your rights"
        elif lacks := missing():
            yield f"{lacks}; see: creditbench doctor"


def _conclude(
    records: Sequence[Record], results: Path, as_json: bool, lost: Sequence[tuple[Trial, str]]
) -> None:
    """Print the table, where the records are, and what failed: trials, and the machine at those that were `lost`."""
    from creditbench.results import table

    if as_json:
        sys.stdout.write(table.render(records, "json"))
    else:
        from rich.console import Console

        table.print_rich(records, Console(width=None if sys.stdout.isatty() else 160))
    say(f"records: {results / 'records'}")
    failed = [record for record in records if record.status in FAILURES]
    for record in failed:
        log = results / "logs" / f"{record.trial.id}.log"
        say(
            f"{_label(record.trial)}: {record.status}: {record.status_detail}"
            + (f"; see {log}" if log.exists() else "")
        )
    for trial, why in lost:
        detail = f" ({why})" if why else ""
        say(
            f"{_label(trial)}: no record: the machine failed, and not the rule{detail}; the same command runs it"
        )
    if failed or lost:
        raise typer.Exit(1)


# -- options ---------------------------------------------------------------------------------------------


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for part in text.split(",") if (name := part.strip())))


def numbers(
    option: str, text: str, kind: type, example: str, low: float = -math.inf, high: float = math.inf
) -> tuple[Any, ...]:
    """The different numbers in `text`, with commas between; `kind` is int or float. Raises `UsageError` for others."""
    from creditbench.errors import UsageError

    try:
        found = tuple(dict.fromkeys(map(kind, _names(text))))
    except ValueError:
        found = ()
    if not (found and all(low <= number <= high for number in found)):
        wanted = "whole numbers" if kind is int else "numbers"
        wanted += f" from {low:g}" * (low > -math.inf) + f" to {high:g}" * (high < math.inf)
        raise UsageError(f"{option} is {text!r}: give {wanted} with commas between, as in {option} {example}")
    return found


def _seeds(context: typer.Context, count: int | None, listed: str | None) -> tuple[int, ...]:
    """The very seeds that are asked for; empty where their count is. Raises `UsageError`."""
    from creditbench.errors import UsageError

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
        return numbers("--seed", listed, int, "3,9071", low=0)
    if count is not None and not 1 <= count <= MOST_SEEDS:
        raise UsageError(f"--seeds is {count}: give a whole number from 1 to {MOST_SEEDS:,}")
    return ()


def pairs(option: str, items: Sequence[str] | None, example: str) -> dict[str, str]:
    """`name=value` items as a dict. Raises `UsageError` for an item that is none."""
    from creditbench.errors import UsageError

    pairs = {}
    for item in items or ():
        name, equals, value = item.partition("=")
        if not (equals and name.strip() and value.strip()):
            raise UsageError(f"{option} is {item!r}: write it as {option} {example}")
        pairs[name.strip()] = value.strip()
    return pairs


# -- progress --------------------------------------------------------------------------------------------


def say(line: str) -> None:
    """A line on standard error."""
    print(line, file=sys.stderr, flush=True)


def _label(trial: Trial) -> str:
    return f"{trial.task} {trial.rule} {trial.backend} lr={trial.lr:g} seed={trial.seed}"


@contextlib.contextmanager
def _ends_on_sigterm() -> Iterator[None]:
    """Have SIGTERM end this process in order, so that it takes its workers with it."""
    import signal

    def end(number: int, _: Any) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Report:
    """How far a run is, on standard error: bars on a terminal, else a line for each trial that has finished."""

    def __init__(self, trials: Sequence[Trial]) -> None:
        self.total, self.count = len(trials), 0
        self.bars: Any = None
        self.running: dict[str, Any] = {}

    def __enter__(self) -> _Report:
        if self.total and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
            )
            self.bars = Progress(*columns, console=Console(stderr=True), transient=True)
            self.overall = self.bars.add_task("trials", total=self.total)
            self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bars:
            self.bars.stop()

    def progress(self, trial: Trial, part: float) -> None:
        if not self.bars:
            return
        if trial.id not in self.running:
            self.running[trial.id] = self.bars.add_task(_label(trial), total=100)
        self.bars.update(self.running[trial.id], completed=round(100 * part))

    def say(self, line: str) -> None:
        if self.bars:
            self.bars.console.print(line, markup=False, highlight=False)
        else:
            say(line)

    def finished(self, record: Record) -> None:
        from creditbench.results import columns

        self.count += 1
        score = (
            ""
            if record.test_score is None
            else f", {record.metric} {columns.TEST_SCORE.text(record.test_score)}"
        )
        line = f"[{self.count}/{self.total}] {_label(record.trial)}: {record.status}{score}"
        self.say(line)
        if not self.bars:
            return
        if record.trial.id in self.running:
            self.bars.remove_task(self.running.pop(record.trial.id))
        self.bars.advance(self.overall)
