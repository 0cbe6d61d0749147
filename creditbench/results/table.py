"""Records as tables: a row a trial for programs, a row a rule for people."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from creditbench.errors import unknown
from creditbench.machine.environment import constant
from creditbench.results import columns
from creditbench.results.columns import MISSING, Column
from creditbench.results.conditions import columns_of
from creditbench.results.rows import inert
from creditbench.results.store import stale
from creditbench.trials.record import Record

if TYPE_CHECKING:
    import pandas as pd

FORMATS = ("rich", "markdown", "scores", "csv", "latex", "json", "environments")
#: Settings of a rule without a column. Those in which the rows of a rule differ are shown beside its name.
_SETTINGS = ("optimizer", "lr", "decorrelation_rate", "device")


def rows(records: Iterable[Record]) -> list[dict[str, Any]]:
    """A row a trial: the columns of `Record.row`, and `stale`: why its numbers may have changed, or empty."""
    return [record.row() | {"stale": stale(record)} for record in records]


def frame(records: Iterable[Record]) -> pd.DataFrame:
    """`rows` as a data frame; figures that were not measured are missing."""
    # pandas is slow to import.
    import pandas as pd

    table = rows(records)
    data = pd.DataFrame(table)
    for column in data.columns:
        kinds = {type(row[column]) for row in table} - {type(None)}
        if kinds == {int}:
            data[column] = data[column].astype("Int64")  # a missing value would turn the others into floats
    return data


def environments(records: Iterable[Record]) -> dict[str, dict[str, Any]]:
    """The environments that the records were made on, by id."""
    return {record.environment_id: constant(record.environment) for record in records}


@dataclasses.dataclass(frozen=True)
class Section:
    """The table of one task."""

    task: str
    metric: str
    direction: str
    trivial: str
    machines: tuple[str, ...]  #: processors that the times were taken on
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]  #: text, in the order of `columns`

    @property
    def heads(self) -> list[str]:
        return [column.label for column in self.columns]

    @property
    def left(self) -> list[str]:
        """Heads of the columns that are aligned to the left."""
        return [column.label for column in self.columns if column.left]

    @property
    def title(self) -> str:
        better = {"min": "lower", "max": "higher"}[self.direction]
        return f"{self.task}: {self.metric}, {better} is better; trivial {self.trivial}"

    @property
    def caption(self) -> str:
        where = "; ".join(self.machines)
        return (
            f"times taken on {where}" + (": not to be compared" if len(self.machines) > 1 else "")
            if where
            else ""
        )


def summarise(records: Sequence[Record]) -> list[Section]:
    """A section a task, with a row for each set of trials that differ only in seed and tuning study.

    A rule that has records on another task but none on this one has a row that says `missing`. Trials with
    other settings or on another machine have a row of their own that says so, and so have stale trials. Test
    scores are means ± standard deviations over the seeds that ended. Normalised scores are medians with the
    worst and the best, not bounded. Times are medians.
    """
    known = sorted({(r.trial.rule, r.trial.backend) for r in records})
    reasons = {id(record): stale(record) for record in records}
    column = columns_of(records)
    sections = []
    for task in sorted({r.trial.task for r in records}):
        own = [r for r in records if r.trial.task == task]
        families: dict[Any, list[Record]] = {}
        for record in own:
            families.setdefault(record.alike, []).append(record)
        fresh_seeds = {r.trial.seed for r in own if not reasons[id(r)]}
        groups: dict[tuple[str, str], list[list[Record]]] = {}
        for family in families.values():
            groups.setdefault((family[0].trial.rule, family[0].trial.backend), []).append(family)
        table = []
        for rule, backend in known:
            group = groups.get((rule, backend), [])
            for family, variant in zip(group, _variants([family[0] for family in group]), strict=True):
                conditions = column[family[0].trial.id].removeprefix(task).split()
                label = " ".join([rule, *dict.fromkeys([*conditions, *variant])])
                table.append(_row(label, family, fresh_seeds, reasons[id(family[0])]))
            if not group:
                table.append({"rule": rule, "backend": backend, "status": "missing"})
        shown = tuple(
            column
            for column in columns.SUMMARY
            if not column.optional or any(row.get(column.field, MISSING) != MISSING for row in table)
        )
        trivials = [r.trivial for r in own if r.trivial is not None]
        sections.append(
            Section(
                task,
                own[0].metric,
                own[0].metric_direction,
                columns.TEST_SCORE.text(statistics.fmean(trivials) if trivials else None),
                tuple(sorted({str(r.environment.get("cpu", "unknown")) for r in own})),
                shown,
                tuple(tuple(row.get(column.field, MISSING) for column in shown) for row in table),
            )
        )
    return sections


def _row(label: str, family: Sequence[Record], seeds: set[int], reason: str) -> dict[str, str]:
    """The cells of `columns.SUMMARY`, by field."""
    trial = family[0].trial
    statuses = Counter(record.status for record in family)
    status = ", ".join(
        f"{count} {name}" for name, count in sorted(statuses.items(), key=lambda s: s[0] != "ok")
    )
    few = not reason and len(family) < len(seeds)
    studies = len({record.trial.study for record in family if record.trial.study is not None})

    def values(name: str) -> list[float]:
        return [value for record in family if (value := getattr(record, name)) is not None]

    def median(column: Column) -> str:
        known = values(column.field)
        return column.text(statistics.median(known) if known else None)

    own = {
        "rule": label,
        "backend": trial.backend,
        "seeds": (f"{len(family)} of {len(seeds)}" if few else str(len(family)))
        + (f" in {studies} studies" if studies > 1 else ""),
        "test_score": spread(values("test_score")),
        "normalised_score": _range(family),
        "segment": str(trial.segment),
        "batch": str(trial.batch),
        "status": f"stale ({reason}): {status}" if reason else status,
    }
    return {c.field: own[c.field] if c.field in own else median(c) for c in columns.SUMMARY}


def spread(values: Sequence[float]) -> str:
    """Test scores as `0.5 ± 0.1`: their mean and standard deviation."""
    if not values:
        return MISSING
    mean = columns.TEST_SCORE.text(statistics.fmean(values))
    return f"{mean} ± {statistics.stdev(values):.2g}" if len(values) > 1 else mean


def _range(family: Sequence[Record]) -> str:
    """Normalised scores: median, worst and best, `diverged` below all numbers."""
    known = [
        r.normalised_score if r.status == "ok" and r.normalised_score is not None else -math.inf
        for r in family
        if r.status == "diverged" or (r.status == "ok" and r.normalised_score is not None)
    ]
    if not known or all(r.solved is None for r in family):
        return MISSING
    return ranged(known, columns.NORMALISED.form)


def ranged(values: Sequence[float], form: str, sign: float = 1.0) -> str:
    """`0.50 (0.40 … 0.60)`: lower median, least and greatest of values, times `sign`; -inf is diverged."""
    middle, low, high = (
        format(sign * v, form) if math.isfinite(v) else "diverged"
        for v in (statistics.median_low(values), min(values), max(values))
    )
    return f"{middle} ({low} … {high})" if len(values) > 1 else middle


def _variants(group: Sequence[Record]) -> list[list[str]]:
    """The settings in which the families of a rule differ on one task; `group` has one record of each."""

    def settings(record: Record) -> dict[str, Any]:
        trial = record.trial
        where = {"machine": record.machine, "versions": record.versions}
        if trial.study is not None:  # each study has its own tuned values
            return {"draw": trial.study.partition("/")[0]} | where
        return (
            {name: getattr(trial, name) for name in _SETTINGS}
            | trial.hyperparameters
            | trial.optimizer_parameters
            | where
        )

    known = [settings(record) for record in group]
    names = {name for own in known for name in own}
    differing = {name for name in names if any(own.get(name) != known[0].get(name) for own in known)}
    return [[f"{name}={value}" for name, value in own.items() if name in differing] for own in known]


# -- formats ---------------------------------------------------------------------------------------------


def render(records: Sequence[Record], form: str) -> str:
    """The table as text: `markdown` and `latex` with a row a rule, `csv` and `json` with a row a trial.

    `scores` is one Markdown table of test scores for all tasks. `environments` is JSON: each environment by
    the id in the column `environment`.

    Raises `UsageError` for an unknown format. `rich` is printed by `print_rich`.
    """
    if form == "environments":
        return json.dumps(environments(records), indent=1, sort_keys=True) + "\n"
    if form == "json":
        return json.dumps(rows(records), indent=1) + "\n"
    if form == "csv":
        return (
            frame(records)
            .map(lambda v: inert(v) if isinstance(v, str) else v)
            .to_csv(index=False, lineterminator="\n")
        )
    if form == "markdown":
        return "\n".join(_markdown(section) for section in summarise(records))
    if form == "scores":
        return _scores(summarise(records))
    if form == "latex":
        return "\n".join(_latex(section) for section in summarise(records))
    if form == "rich":
        # For tables on a terminal alone.
        from rich.console import Console

        text = io.StringIO()
        print_rich(records, Console(file=text, width=160))
        return text.getvalue()
    raise unknown("format", form, FORMATS, "creditbench table --help")


def _scores(sections: Sequence[Section]) -> str:
    """Test scores, a row a rule and backend, a column a task; the trivial predictor first."""
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for section in sections:
        for row in section.rows:
            values = {column.field: text for column, text in zip(section.columns, row, strict=True)}
            if "missing" not in values["status"]:
                shown = values["test_score"] if values["status"].endswith("ok") else values["status"]
                cells.setdefault((values["rule"], values["backend"]), {})[section.task] = shown
    arrows = {"min": "↓", "max": "↑"}
    metrics = (Markup(f"{plain(s.task)}<br>{plain(s.metric)} {arrows[s.direction]}") for s in sections)
    heads = [columns.RULE.label, columns.BACKEND.label, *metrics]
    lines: list[list[str]] = [[Markup("*trivial*"), "", *(s.trivial for s in sections)]]
    lines += [[*key, *(cells[key].get(s.task, MISSING) for s in sections)] for key in sorted(cells)]
    return markdown_table(heads, lines, heads)


def print_rich(records: Sequence[Record], console: Any) -> None:
    """The summary on a terminal, a table a task. A narrow terminal gets fewer columns."""
    # For tables on a terminal alone.
    from rich.table import Table
    from rich.text import Text

    for section in summarise(records):
        texts = {column: [row[i] for row in section.rows] for i, column in enumerate(section.columns)}

        def width(column: Column, texts: dict[Column, list[str]] = texts) -> int:
            # A status may be broken between words. Rich would break other cells anywhere.
            cells = [column.label, *texts[column]]
            words = [word for cell in cells for word in cell.split()] if column is columns.STATUS else cells
            return 3 + max(map(len, words))

        for column in columns.DISPENSABLE:
            if column in texts and sum(map(width, texts)) + 1 > console.width:
                del texts[column]
        caption = Text(section.caption)
        table = Table(
            title=Text(section.title), caption=caption, title_justify="left", caption_justify="left"
        )
        for column in texts:
            table.add_column(column.label, justify="left" if column.left else "right", overflow="fold")
        for row in zip(*texts.values(), strict=True):
            table.add_row(*map(Text, row))
        console.print(table)


def _markdown(section: Section) -> str:
    table = markdown_table(section.heads, section.rows, section.left)
    lines = [f"### {plain(section.title)}", "", table]
    return "\n".join([*lines, plain(section.caption), ""] if section.caption else lines)


class Markup(str):
    """A text that is Markdown already, and is left as it is."""


#: Markup of Markdown: HTML, entities, code, emphasis, links, and the end of a cell.
_MARKUP = re.compile(
    r"[\\`*|~]|<|&(?=#?\w+;)|\](?=[\[(:])|(?<![^\W_])_|_(?![^\W_])|^(?=(?:[#>+=-]|\d+[.)])(?:\s|$))"
)


def plain(text: object) -> str:
    """A text as one line of Markdown with all markup escaped; `Markup` as it is.

    >>> print(plain("<b>a|b</b> [x](y) mackey_glass"))
    &lt;b>a\\|b&lt;/b> [x\\](y) mackey_glass
    """
    if isinstance(text, Markup):
        return text
    letters = {"<": "&lt;", "&": "&amp;"}
    line = " ".join(str(text).split())
    return _MARKUP.sub(lambda found: letters.get(found[0], f"\\{found[0]}"), line)


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[object]], left: Iterable[str] = ()) -> str:
    """A table of text in Markdown; columns named in `left` are aligned to the left. Cells are `plain`."""

    def line(cells: Iterable[object]) -> str:
        return "| " + " | ".join(map(plain, cells)) + " |"

    bars = ["---" if name in left else "---:" for name in head]
    return "\n".join([line(head), line(bars), *map(line, rows)]) + "\n"


_LATEX = {
    "\\": r"\textbackslash{}",
    "±": r"$\pm$",
    "–": "--",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "×": r"$\times$",
    ">": r"$>$",
    "<": r"$<$",
    "|": r"$|$",
    "½": r"$\tfrac12$",
    "▲": r"$\blacktriangle$",
    "▼": r"$\blacktriangledown$",
    "\u202f": r"\,",
}
_LATEX |= {character: f"\\{character}" for character in "&%$#_{}"}


def _latex(section: Section) -> str:
    caption = f"{section.title}; {section.caption}" if section.caption else section.title
    return latex_table(caption, section.heads, section.rows, section.left)


def latex_table(
    caption: str, columns: Sequence[str], rows: Iterable[Sequence[str]], left: Sequence[str] = ()
) -> str:
    """A booktabs table of text; columns named in `left` are aligned to the left."""

    def escape(text: str) -> str:
        return "".join(_LATEX.get(character, character) for character in text)

    def line(cells: Iterable[str]) -> str:
        return "    " + " & ".join(map(escape, cells)) + r" \\"

    alignment = "".join("l" if column in left else "r" for column in columns)
    return "\n".join(
        [
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{escape(caption)}.}}",
            rf"  \begin{{tabular}}{{{alignment}}}",
            r"    \toprule",
            line(columns),
            r"    \midrule",
            *map(line, rows),
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
            "",
        ]
    )
