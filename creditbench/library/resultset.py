"""Results in Python: data frames, comparisons, figures, the page."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Collection, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from creditbench.errors import UsageError
from creditbench.leaderboard import text
from creditbench.leaderboard.board import make_board
from creditbench.leaderboard.pages import write_pages
from creditbench.leaderboard.versus import LEVEL, MARGIN
from creditbench.leaderboard.versus import versus as versus_rows
from creditbench.library.defaults import names
from creditbench.library.meanings import meanings
from creditbench.library.messages import says_arguments
from creditbench.machine import files
from creditbench.results import store, table, version
from creditbench.results.columns import MEANS, MISSING, REFERENCE
from creditbench.results.measured import CheckResult, GradientQuality, ScalingPoint, Verified
from creditbench.results.rows import Row
from creditbench.results.runs import FAILURES
from creditbench.results.selection import cells_of, select
from creditbench.results.version import Results
from creditbench.trials.record import Point, Record
from creditbench.trials.trial import Trial

if TYPE_CHECKING:
    import pandas as pd

    from creditbench.leaderboard.compare import Comparison
    from creditbench.leaderboard.figures import PrintFigure, Width

#: Columns of a frame of results that say of which trial a row is.
_OF_TRIAL = ("trial", "task", "rule", "cell", "backend", "seed")
_FRAMES = ("curves", "scaling", "gradients", "checks", "verified")


class ResultSet:
    """The results of a run, or of folders that `load` has read.

    Data frames (pandas), each made when it is asked for; `columns` says what every column means:

    - `trials`: a row a trial; `curves`: a row a point of a trial's curve
    - `scaling`, `gradients`, `checks`, `verified`: what `creditbench scale`, `gradients`, `check` and
      `verify` found

    >>> import creditbench as cb
    >>> found = cb.load("results/cells")
    >>> found
    ResultSet of 441 trials: 3 tasks, 7 rules, 7 cells
    >>> beside = found.select(rules=["bptt", "anp"], cells="gru", tasks="mackey_glass").versus("bptt")
    >>> beside.set_index("rule").normalised.round(2).to_dict()
    {'anp': 0.67, 'bptt': 0.89}
    """

    def __init__(
        self,
        results: Results,
        folders: Sequence[Path],
        *,
        lost: Sequence[tuple[Trial, str]] = (),
        holds: tempfile.TemporaryDirectory[str] | None = None,
    ) -> None:
        self.results = results  #: what the functions of `creditbench.results` and `leaderboard` take
        self.folders = tuple(folders)  #: where it was read, or written by a run
        self.lost = tuple(lost)  #: trials without a record, since the machine failed, each with the reason
        # A temporary folder lives as long as what holds it.
        self._holds = holds

    @property
    def records(self) -> tuple[Record, ...]:
        """The records of the trials: what the frames are made of."""
        return self.results.records

    # -- frames --------------------------------------------------------------------------------------

    @cached_property
    def trials(self) -> pd.DataFrame:
        """A row a trial: its settings, how it ended, its scores and costs.

        >>> found.trials.query("cell == 'lif'").groupby("rule").steps_per_second.median().idxmax()
        'bptt'
        """
        frame = table.frame(self.records)
        frame.insert(1, "rule", [record.trial.rule for record in self.records])
        return frame

    @cached_property
    def curves(self) -> pd.DataFrame:
        """A row a point of a trial's curve: steps, seconds, training loss, validation metric.

        >>> own = found.curves.query("rule == 'bptt' and cell == 'gru' and task == 'add_stream'")
        >>> own.groupby("step").validation.median().round(2).iloc[[0, -1]].to_dict()
        {0: 0.7, 40000: 0.46}
        """
        # pandas is slow to import.
        import pandas as pd

        points = [
            {"trial": trial.id, "rule": trial.rule}
            | {name: getattr(trial, name) for name in ("task", "cell", "backend", "seed")}
            | {"metric": record.metric}
            | point._asdict()
            for record in self.records
            for trial in [record.trial]
            for point in record.curve
        ]
        return pd.DataFrame(points, columns=[*_OF_TRIAL, "metric", *Point._fields])

    @cached_property
    def scaling(self) -> pd.DataFrame:
        """A row a size of a sweep of T, n or B: its cost, and the exponent of the sweep.

        >>> found.scaling.query("quantity == 'flops'").groupby("learner").exponent.first().round(2).to_dict()
        {'bptt': 1.0, 'eprop': 1.0, 'rtrl': 1.0, 'snap1': 1.0}
        """
        return _frame(ScalingPoint, self.results.scaling)

    @cached_property
    def gradients(self) -> pd.DataFrame:
        """A row a rule, task and point of a bptt run: cosine, bias and variance of its estimate.

        >>> found.gradients.query("point == 1").groupby("learner").cosine.median().round(1).to_dict()
        {'eprop': 0.9, 'rflo': 0.4, 'rtrl': 1.0, 'snap1': 0.9, 'uoro': 0.4}
        """
        return _frame(GradientQuality, self.results.gradients)

    @cached_property
    def checks(self) -> pd.DataFrame:
        """A row a check of a rule: whether it held, and why.

        >>> found.checks.query("name == 'estimate'").held.tolist()[:2]
        [True, True]
        """
        return _frame(CheckResult, self.results.checks)

    @cached_property
    def verified(self) -> pd.DataFrame:
        """A row a submitted rule and task that `creditbench verify` ran again: scores and verdict.

        >>> len(found.verified)
        0
        """
        return _frame(Verified, self.results.verified)

    @cached_property
    def failed(self) -> pd.DataFrame:
        """The rows of `trials` that crashed, were invalid, timed out or ran out of memory.

        A trial that diverged is a result, and not among them.

        >>> len(found.failed)
        0
        """
        return self.trials[self.trials.status.isin(FAILURES)] if self.records else self.trials

    @property
    def columns(self) -> pd.DataFrame:
        """What each column of each frame means.

        >>> found.columns.loc[("trials", "normalised_score"), "meaning"]
        '0 is trivial, 1 is solved, unbounded; None without `solved`, or diverged'
        """
        # pandas is slow to import.
        import pandas as pd

        frames = {name: getattr(self, name).columns for name in ("trials", *_FRAMES)}
        known = meanings()
        rows = {(name, column): known[name][column] for name, own in frames.items() for column in own}
        index = pd.MultiIndex.from_tuples(list(rows), names=["frame", "column"])
        return pd.DataFrame({"meaning": list(rows.values())}, index=index)

    # -- scores and comparisons ----------------------------------------------------------------------

    @says_arguments
    def select(
        self,
        rules: str | Collection[str] = (),
        tasks: str | Collection[str] = (),
        backends: str | Collection[str] = (),
        cells: str | Collection[str] = (),
    ) -> ResultSet:
        """Those of these rules, tasks, backends and cells; left out: all.

        >>> found.select(rules=["bptt", "anp"], cells="gru")
        ResultSet of 18 trials: 3 tasks, 2 rules
        """
        asked = (names(rules), names(tasks), names(backends), names(cells))
        return ResultSet(select(self.results, *asked), self.folders, lost=self.lost, holds=self._holds)

    def scores(self) -> pd.DataFrame:
        """Test scores: a row a rule and backend, a column a task, mean ± standard deviation over the seeds.

        >>> print(found.select(rules=["bptt", "anp"], cells="tanh", tasks="add_stream").scores())
                        add_stream (cross_entropy ↓)
        rule    backend
        trivial                               0.6616
        anp     jax                   0.5172 ± 0.018
        bptt    jax                   0.454 ± 0.0027
        """
        # pandas is slow to import.
        import pandas as pd

        if not self.records:
            return pd.DataFrame()
        sections = table.summarise(self.records)
        rows: dict[tuple[str, str], dict[str, str]] = {("trivial", ""): {s.task: s.trivial for s in sections}}
        rows |= table.scores(sections)
        heads = {s.task: f"{s.task} ({s.metric} {table.ARROWS[s.direction]})" for s in sections}
        index = pd.MultiIndex.from_tuples(list(rows), names=["rule", "backend"])
        values = [[own.get(task, MISSING) for task in heads] for own in rows.values()]
        return pd.DataFrame(values, index=index, columns=list(heads.values()))

    @says_arguments
    def ranking(self, cell: str | None = None) -> pd.DataFrame:
        """Scores over all tasks: a row a rule, backend and device, best first, with 95 % intervals.

        Rows of different cells are never ranked together. `cell`: None for that of most trials.

        >>> found.ranking(cell="gru")[["rank", "rule", "iqm"]].shape
        (7, 3)
        """
        # pandas is slow to import.
        import pandas as pd

        rows = []
        for row in make_board(self.results, cell=cell).rows:
            found = row.scores.get("iqm")
            rows.append(
                {"rank": text.rank(row), "rule": row.rule, "backend": row.backend, "device": row.device}
                | dict(zip(("iqm", "low", "high"), found or (None,) * 3, strict=True))
                | {column.field: text.aggregate(row, column.field) for column in MEANS}
                | {"solved": text.solved(row), "ratio_forward": row.cost("ratio_forward")}
                | {"algorithm_bytes": row.cost("algorithm_bytes"), "note": "; ".join(row.remarks)}
            )
        return pd.DataFrame(rows)

    @says_arguments
    def versus(
        self,
        reference: str = REFERENCE,
        *,
        level: float = LEVEL,
        margin: float = MARGIN,
        rules: str | Collection[str] = (),
        tasks: str | Collection[str] = (),
    ) -> pd.DataFrame:
        """Each rule beside a reference: scores, verdict, steps and seconds to its level, cost.

        As `creditbench versus`, see there. p values are corrected for the rows that are asked for.

        >>> beside = found.select(cells="gru").versus("bptt", rules=["anp", "eprop"])
        >>> beside[["rule", "verdict"]].values.tolist()[1]
        ['bptt', 'reference']
        """
        rows = versus_rows(self.results, reference, level, margin, names(rules), names(tasks))
        return _table(rows)

    @says_arguments
    def compare(
        self,
        other: ResultSet | str | os.PathLike[str],
        *,
        alpha: float = 0.05,
        tolerance: float = 0.1,
        cell: str | None = None,
    ) -> pd.DataFrame:
        """What got better, worse, faster, slower, bigger or broken from these results to `other`.

        As `creditbench compare`, see there; `other`: results, or a folder. `attrs` of the frame has `notes`,
        and `compared`: how many rules.

        >>> len(found.compare("results/cells", cell="gru"))
        0
        """
        # SciPy is slow to import.
        from creditbench.leaderboard.compare import compare

        after = other.results if isinstance(other, ResultSet) else load(other).results
        found: Comparison = compare(self.results, after, alpha=alpha, tolerance=tolerance, cell=cell)
        frame = _table(found.changes)
        frame.attrs |= {"notes": list(found.notes), "compared": dict(found.compared)}
        return frame

    # -- figures, page, files ------------------------------------------------------------------------

    @property
    def plot(self) -> Plots:
        """Figures for print and for notebooks: `plot.curves()`, `plot.pareto()`, …"""
        return Plots(self.results)

    @says_arguments
    def leaderboard(
        self,
        output: str | os.PathLike[str],
        *,
        highlight: str | Collection[str] = (),
        cells: str | Sequence[str] = (),
        draws: int = 10_000,
    ) -> Path:
        """Write the page, which opens from disk, and its twin in Markdown; returns its path.

        Args:
            output: folder to write index.html and leaderboard.md into.
            highlight: rules that stand out.
            cells: those that have a page. `draws`: of each bootstrap interval.

        >>> found.select(cells="gru").leaderboard("page", draws=100).as_posix()
        'page/index.html'
        """
        return write_pages(
            *({"": self.folders}, lambda _: self.results, Path(output).expanduser(), _note),
            highlight=names(highlight),
            cells=list(names(cells)),
            draws=draws,
        )

    @says_arguments
    def to_latex(self, ranking: bool = False) -> str:
        """A table for a paper: rules and tasks, the best of each task in bold; or the ranking.

        >>> found.select(cells="gru").to_latex().splitlines()[1]
        '\\\\begin{table*}'
        """
        board = make_board(self.results)
        return (text.ranking_latex if ranking else text.scores_latex)(board)

    @says_arguments
    def to_markdown(self, ranking: bool = False) -> str:
        """Normalised scores, a row a rule, a column a task; or the ranking.

        >>> found.select(cells="gru").to_markdown().splitlines()[0]
        '| rule | backend | add_stream | copy_memory | mackey_glass |'
        """
        board = make_board(self.results)
        return (text.ranking_markdown if ranking else text.tasks_markdown)(board)

    @says_arguments
    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write all as the tables of a version: `load` reads them, git takes them. Returns the folder.

        The sources of rules, tasks and cells of a notebook go into its folder `sources`.

        >>> cb.load(found.select(rules="bptt", cells="gru").save("saved"))
        ResultSet of 9 trials: 3 tasks, 1 rule
        """
        target = Path(folder).expanduser()
        results = _moved(self.results, self._holds, target)
        version.write_tables(
            results, target, lambda read: text.readme(make_board(read), target, list(self.folders))
        )
        return target

    # -- display -------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        if not self.records:
            rows = {name: len(getattr(self.results, name)) for name in _FRAMES[1:]}
            others = [f"{name}: {_count('row', count)}" for name, count in rows.items() if count]
            return ", ".join(["ResultSet without trials", *others])
        counts = {
            "task": len({r.trial.task for r in self.records}),
            "rule": len({r.trial.rule for r in self.records}),
        }
        cells, failed = cells_of(self.results), sum(r.status in FAILURES for r in self.records)
        parts = [_count(name, count) for name, count in counts.items()]
        parts += [_count("cell", len(cells))] if len(cells) > 1 else []
        parts += [f"{failed} failed: see .failed"] if failed else []
        parts += [f"{len(self.lost)} lost by the machine: see .lost"] if self.lost else []
        return f"ResultSet of {_count('trial', len(self.records))}: {', '.join(parts)}"

    def _repr_html_(self) -> str:
        return f"<p>{self!r}</p>{self.scores().to_html()}" if self.records else f"<p>{self!r}</p>"


class Plots:
    """Figures of results. Each is a matplotlib figure, and is written to a file if `output` names one.

    `notes` of a figure says what it has no room for. `width`: "page" or "column", as journals have them.

    >>> figure = found.select(rules=["bptt", "anp"], cells="gru").plot.curves("curves.pdf", width="column")
    >>> figure.axes[0].get_title()
    'add_stream'
    """

    def __init__(self, results: Results) -> None:
        self._results = results

    def curves(self, output: str | os.PathLike[str] | None = None, width: Width = "page") -> PrintFigure:
        """The validation metric against training steps: a panel a task, a colour a rule."""
        return self._draw("curves", output, width)

    def pareto(self, output: str | os.PathLike[str] | None = None, width: Width = "page") -> PrintFigure:
        """Each rule's score against its costs, and the fronts."""
        return self._draw("pareto", output, width)

    def profiles(self, output: str | os.PathLike[str] | None = None, width: Width = "page") -> PrintFigure:
        """Performance profiles: the share of tasks solved within a multiple of the least cost."""
        return self._draw("profiles", output, width)

    def units(self, output: str | os.PathLike[str] | None = None, width: Width = "page") -> PrintFigure:
        """The normalised test score against hidden units."""
        return self._draw("units", output, width)

    def scaling(
        self, output: str | os.PathLike[str] | None = None, width: Width = "page", axis: str = "T"
    ) -> PrintFigure:
        """Cost against the steps T, the hidden units n or the sequences B of an update."""
        return self._draw("scaling", output, width, axis)

    def gradients(self, output: str | os.PathLike[str] | None = None, width: Width = "page") -> PrintFigure:
        """Cosine, bias and variance of each rule's estimate of the gradient."""
        return self._draw("gradients", output, width)

    @says_arguments
    def _draw(
        self, name: str, output: str | os.PathLike[str] | None, width: Width, axis: str = "T"
    ) -> PrintFigure:
        # Matplotlib is slow to import.
        from creditbench.leaderboard.figures import draw

        figure = draw(name, self._results, axis, width)
        if output is not None:
            path = Path(output).expanduser()
            files.require_picture(path)
            with files.output("output", path), files.replacing(path) as (new,):
                figure.savefig(new)
        return figure


@says_arguments
def load(*folders: str | os.PathLike[str], curves: bool = True, whole: bool = False) -> ResultSet:
    """The results in folders: of runs, or of the tables of a version.

    If two folders have the same trial, the later counts. A record that cannot be read is left out with a
    note; with `whole` it is an error. Without `curves` the trials have none, and take far less memory.

    Raises `UsageError` for a folder without results.

    >>> import creditbench as cb
    >>> cb.load("results/cells")
    ResultSet of 441 trials: 3 tasks, 7 rules, 7 cells
    """
    if not folders:
        raise UsageError('no folder is named: give one or more, as in load("results/v0.2")')
    store.forget()
    places = [Path(folder).expanduser() for folder in folders]
    return ResultSet(version.load(*places, whole=whole, curves=curves), places)


def _frame(model: type[Row], rows: Iterable[Row]) -> pd.DataFrame:
    """Rows of a table as a frame, with its columns even without rows."""
    # pandas is slow to import.
    import pandas as pd

    return pd.DataFrame([row.model_dump() for row in rows], columns=list(model.model_fields))


def _table(rows: Iterable[Any]) -> pd.DataFrame:
    """Instances of a dataclass as a frame."""
    # pandas is slow to import.
    import pandas as pd

    return pd.DataFrame([dataclasses.asdict(row) for row in rows])


def _count(name: str, count: int) -> str:
    return f"{count:,} {name}{'s' * (count != 1)}"


def _note(line: str) -> None:
    if line.startswith("note: "):
        print(line, file=sys.stderr)


def _moved(results: Results, folder: tempfile.TemporaryDirectory[str] | None, target: Path) -> Results:
    """The results with the sources that lie in a temporary folder, which goes, moved to another one."""
    if folder is None:
        return results
    place, there = Path(folder.name).resolve() / "sources", target.resolve() / "sources"
    if place.is_dir():
        with files.output("folder", there, "name another folder"):
            shutil.copytree(place, there, dirs_exist_ok=True)
    old, new = re.escape(str(place)), str(there)

    def moved(record: Record) -> Record:
        names = ("task_path", "learner_path", "cell_path")
        paths = {name: getattr(record.trial, name) for name in names}
        changed = {name: re.sub(f"^{old}", lambda _: new, path) for name, path in paths.items() if path}
        source = re.sub(f"^{old}", lambda _: new, record.learner_source)
        trial = record.trial.model_copy(update=changed)
        return record.model_copy(update={"trial": trial, "learner_source": source})

    return dataclasses.replace(results, records=tuple(map(moved, results.records)))
