"""Printing for the verbs: tables and JSON on standard output, progress on standard error."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from creditbench.trials.record import Record
    from creditbench.trials.trial import Trial


def say(line: str) -> None:
    """A line on standard error."""
    print(line, file=sys.stderr, flush=True)


def console() -> Any:
    """The terminal, or a stand-in if standard output is a file."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 160)


def as_json(rows: Sequence[Mapping[str, Any]]) -> None:
    """The rows as one JSON array on standard output."""
    import json

    print(json.dumps(rows, indent=1))


def as_table(rows: Sequence[Mapping[str, Any]], spare: Sequence[str] = ()) -> None:
    """The rows as a table on standard output.

    `spare`: columns that are left out, in this order, until a narrow terminal has room for the others; a line
    on standard error says which.
    """
    from rich.table import Table

    from creditbench.results.table import fit, too_narrow

    screen = console()
    texts = {name: [_text(row[name]) for row in rows] for name in (rows[0] if rows else ())}
    labels = {name: name.replace("_", " ") for name in texts}
    heads = {labels[name]: cells for name, cells in texts.items()}
    widths = fit(heads, [labels.get(name, name) for name in spare], screen.width)
    table = Table()
    for head, width in widths.items():
        table.add_column(head, overflow="fold", width=width)
    for cells in zip(*(heads[head] for head in widths), strict=True):
        table.add_row(*cells)
    screen.print(table, markup=False)
    if left_out := [head for head in heads if head not in widths]:
        say(f"note: {too_narrow(left_out, screen.width, '--json has them')}")


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, list | tuple):
        return " … ".join(map(_text, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(x)}" for name, x in value.items()) or "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


#: The time that is left is told from the speed over the last seconds: trials may take minutes.
_SPEED_SECONDS = 1800.0


def _progress() -> Any:
    """Bars on standard error with the time that is left, which vanish once all is done."""
    from rich import progress
    from rich.console import Console

    columns = (
        *(progress.TextColumn("{task.description}"), progress.BarColumn(), progress.MofNCompleteColumn()),
        *(progress.TimeElapsedColumn(), progress.TextColumn("left"), progress.TimeRemainingColumn()),
    )
    return progress.Progress(
        *columns, console=Console(stderr=True), transient=True, speed_estimate_period=_SPEED_SECONDS
    )


@contextlib.contextmanager
def bars(what: str, total: int) -> Iterator[Callable[[str], None]]:
    """A function to call as each of `total` is done: it moves a bar on a terminal, else it prints a line."""
    if not sys.stderr.isatty():
        count = 0

        def line(text: str) -> None:
            nonlocal count
            count += 1
            say(f"[{count}/{total}] {text}")

        yield line
        return
    with _progress() as progress:
        task = progress.add_task(what, total=total)
        yield lambda text: progress.update(task, description=text, advance=1)


def label(trial: Trial) -> str:
    """A trial in a line."""
    from creditbench.trials.trial import with_cell

    return (
        f"{trial.task} {with_cell(trial.rule, trial.cell)} {trial.backend} lr={trial.lr:g} seed={trial.seed}"
    )


class TrialBars:
    """Progress of a run on standard error: bars on a terminal, else a line for each finished trial."""

    def __init__(self, trials: Sequence[Trial]) -> None:
        self.total, self.count = len(trials), 0
        self.bars: Any = None
        self.running: dict[str, Any] = {}
        self.parts: dict[str, float] = {}  #: done of each running trial

    def __enter__(self) -> TrialBars:
        if self.total and sys.stderr.isatty():
            self.bars = _progress()
            self.overall = self.bars.add_task("trials", total=self.total)
            self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bars:
            self.bars.stop()

    def progress(self, trial: Trial, part: float) -> None:
        """Part of the budget of `trial` is done."""
        if not self.bars:
            return
        if trial.id not in self.running:
            self.running[trial.id] = self.bars.add_task(label(trial), total=100)
        self.bars.update(self.running[trial.id], completed=round(100 * part))
        self.parts[trial.id] = part
        self._advance()

    def _advance(self) -> None:
        """Show the part of all trials that is done. Running ones count: so the time left is known early."""
        self.bars.update(self.overall, completed=self.count + sum(self.parts.values()))

    def say(self, line: str) -> None:
        """A line, beside the bars."""
        if self.bars:
            self.bars.console.print(line, markup=False, highlight=False)
        else:
            say(line)

    def finished(self, record: Record) -> None:
        """A trial has its record."""
        from creditbench.results.columns import TEST_SCORE

        self.count += 1
        score = "" if record.test_score is None else f", {record.metric} {TEST_SCORE.text(record.test_score)}"
        self.say(f"[{self.count}/{self.total}] {label(record.trial)}: {record.status}{score}")
        if not self.bars:
            return
        if record.trial.id in self.running:
            self.bars.remove_task(self.running.pop(record.trial.id))
        self.parts.pop(record.trial.id, None)
        self._advance()
