"""Records as tables: a row a trial for programs, a row a rule for people."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from creditbench.errors import UsageError, suggestion, unknown
from creditbench.machine.environment import constant
from creditbench.results import columns
from creditbench.results.columns import MISSING, Column
from creditbench.results.conditions import columns_of
from creditbench.results.rows import inert
from creditbench.results.store import stale
from creditbench.trials.record import Record
from creditbench.trials.trial import CELL, with_cell

if TYPE_CHECKING:
    import pandas as pd

FORMATS = ("rich", "markdown", "scores", "csv", "json", "environments")
_ROWS = 1000  # of a part of a CSV file
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


def summarise(records: Sequence[Record], chosen: Sequence[Column] = ()) -> list[Section]:
    """A section a task, with a row for each set of trials that differ only in seed and tuning study.

    `chosen`: the columns; none for all of `columns.SUMMARY` that have a figure.

    A rule that has records on another task but none on this one has a row that says `missing`. Trials with
    other settings or on another machine have a row of their own that says so, and so have stale trials. Test
    scores are means ± standard deviations over the seeds that ended. Normalised scores are medians with the
    worst and the best, not bounded. Times are medians.
    """
    known = sorted({_who(r) for r in records}, key=lambda who: (who[0], who[1] != CELL, *who[1:]))
    reasons = {id(record): stale(record) for record in records}
    column = columns_of(records)
    sections = []
    for task in sorted({r.trial.task for r in records}):
        own = [r for r in records if r.trial.task == task]
        families: dict[Any, list[Record]] = {}
        for record in own:
            families.setdefault(record.alike, []).append(record)
        fresh_seeds = {r.trial.seed for r in own if not reasons[id(r)]}
        groups: dict[tuple[str, str, str], list[list[Record]]] = {}
        for family in families.values():
            groups.setdefault(_who(family[0]), []).append(family)
        table = []
        for rule, cell, backend in known:
            group = groups.get((rule, cell, backend), [])
            for family, variant in zip(group, _variants([family[0] for family in group]), strict=True):
                # The cell has a column of its own.
                labels = column[family[0].trial.id].removeprefix(task).split()
                conditions = [label for label in labels if label != f"cell={cell}"]
                label = " ".join([rule, *dict.fromkeys([*conditions, *variant])])
                table.append(_row(label, family, fresh_seeds, reasons[id(family[0])]))
            if not group:
                table.append({"rule": rule, "cell": cell, "backend": backend, "status": "missing"})
        shown = tuple(chosen) or tuple(column for column in columns.SUMMARY if _is_told(column, table))
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


def _who(record: Record) -> tuple[str, str, str]:
    """(rule, cell, backend)."""
    return record.trial.rule, record.trial.cell, record.trial.backend


def _is_told(column: Column, table: Sequence[Mapping[str, str]]) -> bool:
    """Whether a column says something: a figure that some row has, or a cell other than the usual one."""
    if column is columns.CELL:
        return any(row["cell"] != CELL for row in table)
    return not column.optional or any(row.get(column.field, MISSING) != MISSING for row in table)


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
        "cell": trial.cell,
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


def render(records: Sequence[Record], form: str, chosen: Sequence[str] = ()) -> str:
    """The table as text: `markdown` with a row a rule, `csv` and `json` with a row a trial.

    `scores` is one Markdown table of test scores for all tasks. `environments` is JSON: each environment by
    the id in the column `environment`.

    Args:
        chosen: the columns, by the names that the format has for them; none for all.

    Raises `UsageError` for an unknown format, an unknown column, and for columns of a format whose columns
    are not those of rules or trials. `rich` is printed by `print_rich`.
    """
    if form not in FORMATS:
        raise unknown("format", form, FORMATS, "creditbench table --help")
    if form in ("rich", "markdown"):
        summary = choose(chosen, columns.SUMMARY)
        if form == "markdown":
            return "\n".join(_markdown(section) for section in summarise(records, summary))
        # For tables on a terminal alone.
        from rich.console import Console

        text = io.StringIO()
        print_rich(records, Console(file=text, width=160), summary)
        return text.getvalue()
    if form in ("csv", "json"):
        return "".join(parts(records, form, chosen))
    refuse_columns(chosen, form)
    if form == "environments":
        return json.dumps(environments(records), indent=1, sort_keys=True) + "\n"
    return _scores(summarise(records))


def parts(records: Sequence[Record], form: str, chosen: Sequence[str] = ()) -> Iterator[str]:
    """The text of `render` for the formats csv and json, part after part: there may be many rows."""
    fields = _chosen_fields(chosen, list(rows(records[:1])[0]) if records else [])
    if form == "json":
        for number, record in enumerate(records):
            (row,) = rows([record])
            text = json.dumps({name: row[name] for name in fields}, indent=1)
            yield ("[\n " if number == 0 else ",\n ") + text.replace("\n", "\n ")
        yield "\n]\n" if records else "[]\n"
        return
    for first in range(0, max(1, len(records)), _ROWS):
        data = frame(records[first : first + _ROWS])[fields].map(
            lambda v: inert(v) if isinstance(v, str) else v
        )
        yield data.to_csv(index=False, header=first == 0, lineterminator="\n")


def choose(names: Sequence[str], known: Sequence[Column]) -> tuple[Column, ...]:
    """The columns of these names, in this order; a name is a column's head or its field.

    >>> [column.label for column in choose(["rule", "× forward", "ratio_bptt"], columns.SUMMARY)]
    ['rule', '× forward', '× bptt']

    Raises `UsageError` for an unknown name.
    """
    places = {column.field: column for column in known}
    places |= {head: column for column in known for head in (column.short, column.label)}
    return tuple(places[name] for name in _known(names, places, [column.label for column in known]))


def _chosen_fields(names: Sequence[str], known: Sequence[str]) -> list[str]:
    """The columns of a table of trials: those named, or all. Raises `UsageError` for an unknown name."""
    return _known(names, known, known) if names else list(known)


def _known(names: Sequence[str], known: Iterable[str], shown: Sequence[str]) -> list[str]:
    known = list(known)
    for name in names:
        if name not in known:
            raise UsageError(
                f"unknown column {name!r}: {suggestion(name, known)}name some of {', '.join(shown)}"
            )
    return list(names)


def refuse_columns(names: Sequence[str], form: str) -> None:
    """Raise `UsageError` if columns are named for a format that has no choice of them."""
    if names:
        raise UsageError(
            f"--columns is {','.join(names)} and --format is {form}, which has columns of its own: leave "
            "--columns out, or choose its rows and tasks with --rule, --task and --backend"
        )


def scores(sections: Sequence[Section]) -> dict[tuple[str, str], dict[str, str]]:
    """Test scores by (rule with its cell, backend) and task; how runs ended where they have none."""
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for section in sections:
        for row in section.rows:
            values = {column.field: text for column, text in zip(section.columns, row, strict=True)}
            if "missing" not in values["status"]:
                shown = values["test_score"] if values["status"].endswith("ok") else values["status"]
                rule = with_cell(values["rule"], values.get("cell", CELL))
                cells.setdefault((rule, values["backend"]), {})[section.task] = shown
    return {key: cells[key] for key in sorted(cells)}


#: Whether lower or higher is better.
ARROWS = {"min": "↓", "max": "↑"}


def _scores(sections: Sequence[Section]) -> str:
    """Test scores, a row a rule and backend, a column a task; the trivial predictor first."""
    metrics = (Markup(f"{plain(s.task)}<br>{plain(s.metric)} {ARROWS[s.direction]}") for s in sections)
    heads = [columns.RULE.label, columns.BACKEND.label, *metrics]
    lines: list[list[str]] = [[Markup("*trivial*"), "", *(s.trivial for s in sections)]]
    lines += [[*key, *(own.get(s.task, MISSING) for s in sections)] for key, own in scores(sections).items()]
    return markdown_table(heads, lines, heads)


def print_rich(records: Sequence[Record], console: Any, chosen: Sequence[Column] = ()) -> None:
    """The summary on a terminal, a table a task. A narrow terminal gets fewer columns, and a line says which.

    `chosen`: the columns, none of which is left out.
    """
    # For tables on a terminal alone.
    from rich.table import Table
    from rich.text import Text

    sections = summarise(records, chosen)
    narrow: dict[str, None] = {}
    for section in sections:
        texts = {column.label: [row[i] for row in section.rows] for i, column in enumerate(section.columns)}
        spare, last = (
            [] if chosen else [column.label for column in own]
            for own in (columns.DISPENSABLE, columns.DISPENSABLE_LAST)
        )
        widths = fit(texts, spare, console.width, last)
        narrow |= dict.fromkeys(name for name in texts if name not in widths)
        table = Table(
            title=Text(section.title),
            caption=Text(section.caption),
            title_justify="left",
            caption_justify="left",
        )
        for name, width in widths.items():
            table.add_column(
                name, justify="left" if name in section.left else "right", overflow="fold", width=width
            )
        for row in zip(*(texts[name] for name in widths), strict=True):
            table.add_row(*map(Text, row))
        console.print(table)
    if narrow:
        console.print(Text(too_narrow(narrow, console.width, 'name yours with --columns "rule,..."')))


def too_narrow(names: Iterable[str], width: int, cure: str) -> str:
    """The line that says which columns a terminal of `width` characters has no room for."""
    return f"left out, since {width} characters have no room for them: {', '.join(names)}; {cure}"


def fit(
    texts: Mapping[str, Sequence[str]], spare: Iterable[str], room: int, last: Iterable[str] = ()
) -> dict[str, int]:
    """The columns of a table that a terminal of `room` characters has room for, with their widths.

    Columns of `spare` are left out, in this order, until the others fit. If they do not fit then, cells are
    broken between words, and columns of `last` are left out until words fit. Words are broken if nothing
    else is left.

    >>> fit({"rule": ["bptt"], "seeds": ["15 in 3 studies"], "p": ["0.05"]}, ["p"], 28)
    {'rule': 4, 'seeds': 15}
    >>> fit({"rule": ["bptt"], "seeds": ["15 in 3 studies"]}, [], 20)
    {'rule': 4, 'seeds': 9}
    """
    whole = {name: max(map(len, (name, *cells))) for name, cells in texts.items()}
    words = {
        name: max((len(word) for cell in (name, *cells) for word in cell.split()), default=1)
        for name, cells in texts.items()
    }

    def free(widths: Mapping[str, int]) -> int:
        """The characters that are left beside these columns with their lines."""
        return room - 1 - sum(width + 3 for width in widths.values())

    def without(widths: dict[str, int], names: Iterable[str]) -> dict[str, int]:
        for name in names:
            if free(widths) < 0:
                widths.pop(name, None)
        return widths

    kept = without(dict(whole), spare)
    kept = without({name: words[name] for name in kept}, last)
    while free(kept) < 0 and max(kept.values()) > 1:
        kept[max(kept, key=kept.__getitem__)] -= 1
    while free(kept) > 0 and (short := [name for name in kept if kept[name] < whole[name]]):
        kept[min(short, key=kept.__getitem__)] += 1
    return kept


def _markdown(section: Section) -> str:
    table = markdown_table(section.heads, section.rows, section.left)
    lines = [f"### {plain(section.title)}", "", table]
    return "\n".join([*lines, plain(section.caption), ""] if section.caption else lines)


class Markup(str):
    """A text that is Markdown or LaTeX already, and is left as it is."""


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
    "½": r"$\frac12$",
    "▲": r"$\blacktriangle$",
    "▼": r"$\blacktriangledown$",
    "−": r"$-$",
    "∞": r"$\infty$",
    "†": r"$^\dagger$",
    "‡": r"$^\ddagger$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "\u202f": r"\,",
}
_LATEX |= {character: f"\\{character}" for character in "&%$#_{}"}


#: The most lines of text in a table that fits a page, in LaTeX's scriptsize.
LINES_OF_A_PAGE = 60


def escaped(text: object) -> str:
    """A text for LaTeX; `Markup` as it is.

    >>> print(escaped("bptt_checkpointed ± 5 %"))
    bptt\\_checkpointed $\\pm$ 5 \\%
    """
    return text if isinstance(text, Markup) else "".join(_LATEX.get(letter, letter) for letter in str(text))


def latex_table(
    caption: str,
    label: str,
    heads: Sequence[str],
    blocks: Sequence[Sequence[Sequence[str]]],
    left: Sequence[str] = (),
) -> str:
    """A booktabs table that fits a page; columns named in `left` are aligned to the left.

    Args:
        blocks: rows of text, in blocks with a rule between.

    Raises `UsageError` if there are more rows than a page has room for.
    """
    if (count := sum(map(len, blocks))) > LINES_OF_A_PAGE:
        raise UsageError(
            f"the table has {count} rows, and a page has room for {LINES_OF_A_PAGE}: choose some with "
            "--rule, --task or --backend"
        )

    def line(cells: Iterable[str]) -> str:
        return "    " + " & ".join(map(escaped, cells)) + r" \\"

    alignment = "".join("l" if column in left else "r" for column in heads)
    body: list[str] = []
    for rows in blocks:
        body += [r"    \midrule", *map(line, rows)]
    return "\n".join(
        [
            r"% \usepackage{booktabs}, and amssymb for the marks of a ranking",
            r"\begin{table*}",
            r"  \centering",
            rf"  \caption{{{escaped(caption)}.}}",
            rf"  \label{{{label}}}",
            r"  \scriptsize",
            r"  \setlength{\tabcolsep}{3pt}",
            rf"  \begin{{tabular}}{{@{{}}{alignment}@{{}}}}",
            r"    \toprule",
            line(heads),
            *body,
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table*}",
            "",
        ]
    )
