"""Progress of a run, on standard error or in a notebook: bars, or a line for each trial."""

from __future__ import annotations

import contextlib
import html
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from creditbench.results.runs import GridOutcome
    from creditbench.trials.record import Record
    from creditbench.trials.trial import Trial


def say(line: str) -> None:
    """A line on standard error."""
    print(line, file=sys.stderr, flush=True)


#: The time that is left is told from the speed over the last seconds: trials may take minutes.
_SPEED_SECONDS = 1800.0
_DRAW_SECONDS = 0.5  # between two drawings in a notebook


def _progress() -> Any:
    """Bars on standard error with the time that is left, which vanish once all is done."""
    # Rich takes longer to import than the rest of the command line.
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
    # Not needed to answer --help.
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
        self.count += 1
        self.say(f"[{self.count}/{self.total}] {outcome(record)}")
        if not self.bars:
            return
        if record.trial.id in self.running:
            self.bars.remove_task(self.running.pop(record.trial.id))
        self.parts.pop(record.trial.id, None)
        self._advance()


class NotebookBar:
    """Progress of a run in a notebook: one bar, and the trial that ended last.

    It is an element of HTML that every front end draws: no package of widgets is needed.
    """

    def __init__(self, trials: Sequence[Trial]) -> None:
        self.total, self.count, self.last = len(trials), 0, ""
        self.parts: dict[str, float] = {}  #: done of each running trial
        self.handle: Any = None
        self.began = self.drawn = time.monotonic()

    def __enter__(self) -> NotebookBar:
        if self.total:
            # Where there is a notebook, there is IPython.
            from IPython.display import display

            self.handle = display(self, display_id=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._draw()

    def _repr_html_(self) -> str:
        done, seconds = self.count + sum(self.parts.values()), time.monotonic() - self.began
        left = "" if not 0 < done < self.total else f", {seconds / done * (self.total - done):.0f} s left"
        text = f"{self.count} of {self.total} trials, {seconds:.0f} s{left} · {self.last}"
        return f'<progress value="{done:.3f}" max="{self.total}"></progress> {html.escape(text)}'

    def __repr__(self) -> str:
        return f"{self.count} of {self.total} trials"

    def _draw(self) -> None:
        self.drawn = time.monotonic()
        if self.handle is not None:
            self.handle.update(self)

    def progress(self, trial: Trial, part: float) -> None:
        """Part of the budget of `trial` is done."""
        self.parts[trial.id] = part
        if time.monotonic() - self.drawn > _DRAW_SECONDS:
            self._draw()

    def say(self, line: str) -> None:
        """A line below the bar."""
        say(line)

    def finished(self, record: Record) -> None:
        """A trial has its record."""
        self.count += 1
        self.parts.pop(record.trial.id, None)
        self.last = outcome(record)
        self._draw()


class Silent:
    """No progress; messages are still told."""

    def __init__(self, trials: Sequence[Trial]) -> None:
        pass

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def progress(self, trial: Trial, part: float) -> None:
        """Part of the budget of `trial` is done."""

    def say(self, line: str) -> None:
        """A line on standard error."""
        say(line)

    def finished(self, record: Record) -> None:
        """A trial has its record."""


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    if "IPython" not in sys.modules:
        return False
    # Rich is slow to import, and a plain process has no need of it here.
    from rich.console import Console

    return Console().is_jupyter


def outcome(record: Record) -> str:
    """A trial and how it ended, in a line."""
    # Not needed to answer --help.
    from creditbench.results.columns import TEST_SCORE

    score = "" if record.test_score is None else f", {record.metric} {TEST_SCORE.text(record.test_score)}"
    return f"{label(record.trial)}: {record.status}{score}"


def failures(outcome: GridOutcome, results: Path) -> Iterator[str]:
    """What to say of the trials that failed, and of those that the machine lost."""
    for record in outcome.failed:
        log = results / "logs" / f"{record.trial.id}.log"
        see = f"; see {log}" if log.exists() else ""
        yield f"{label(record.trial)}: {record.status}: {record.status_detail}{see}"
    faulty = [record.trial for record in outcome.failed if record.status in ("crashed", "invalid")]
    own = (path for one in faulty for path in (one.task_path, one.learner_path, one.cell_path) if path)
    for path in dict.fromkeys(own):
        yield f"to see what is wrong with it: {shlex.join(['creditbench', 'check', path])}"
    for trial, why in outcome.lost:
        detail = f" ({why})" if why else ""
        yield (
            f"{label(trial)}: no record: the machine failed, and not the rule{detail}; "
            "the same command runs it"
        )
