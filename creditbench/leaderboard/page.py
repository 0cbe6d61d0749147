"""The page: one HTML file that opens from disk with no network; charts, scripts and data are inline."""

from __future__ import annotations

import base64
import html
import io
import json
import math
import statistics as plain
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from importlib import metadata
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

import creditbench
from creditbench.errors import unknown
from creditbench.leaderboard import charts, text
from creditbench.leaderboard.board import HIGH, LOW, QUICK_SEEDS, SEEDS, Board, Entry, Standing
from creditbench.leaderboard.claims import claims
from creditbench.leaderboard.statistics import Interval
from creditbench.leaderboard.text import NOTES, interval
from creditbench.results import columns
from creditbench.results.columns import MISSING, Column
from creditbench.results.table import spread
from creditbench.trials.record import Record

#: The rule that the summary places if no other is highlighted.
SUBJECT = "anp"
#: Draws of a bootstrap interval that a reader's browser takes when other tasks are picked.
DRAWS = 2000
#: Most points of a curve that are kept: a screen shows no more. Fewer, but at least `FEWEST`, if there are
#: more curves than `POINTS` go into `ALL_POINTS`.
POINTS, FEWEST, ALL_POINTS = 26, 8, 60_000
#: Significant digits of the charts' data.
DIGITS = 4
#: Columns of the ranking that are no cost, which is a figure of the trials.
_COMPUTED = (
    *(columns.RANK, columns.RULE, columns.BACKEND, columns.DEVICE, columns.IQM, *columns.MEANS),
    *(columns.IMPROVEMENT, columns.SOLVED, columns.NOTE),
)
_CLAIMS = {
    "unbiased": "unbiased",
    "online": "online",
    "forward_only": "forward only",
    "constant": "memory O(1) in T",
}


@cache
def _vega() -> str:
    """The script of the charts, which takes seconds to build."""
    # An extra, for this figure alone.
    import vl_convert

    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))


def page(
    board: Board,
    folders: Sequence[Path],
    highlight: Collection[str] = (),
    releases: Mapping[str, str] | None = None,
    release: str = "",
    cells: Mapping[str, str] | None = None,
) -> str:
    """The page of a board that was made from `folders`.

    `highlight`: rules that stand out in the tables and the chart; the summary says where they stand, or where
    `SUBJECT` stands. `releases`: links to the pages of several releases, by name; `release` is this page's.
    `cells`: links to the pages of the same results with each cell, by its id. Raises `UsageError` if a
    highlighted rule is not on the board.
    """
    rules = {row.rule for row in board.rows}
    for rule in highlight:
        if rule not in rules:
            raise unknown("rule in these results", rule, sorted(rules), "creditbench table")
    own = files("creditbench.leaderboard") / "static"
    script = [(own / f"{name}.js").read_text(encoding="utf-8") for name in ("statistics", "scatter", "page")]
    parts = {
        "title": "creditbench leaderboard",
        "style": (own / "page.css").read_text(encoding="utf-8"),
        "script": "\n".join(script),
        "vega": packed(_vega()),
        "data": packed(json.dumps(_data(board, highlight), separators=(",", ":"), allow_nan=False)),
        "about": _about(board),
        "made": escape(text.again("leaderboard", folders, "--output", "DIR")),
        "remarks": "".join(f"<li>{escape(line)}</li>" for line in text.remarks(board)),
        "noremarks": "" if text.remarks(board) else "hidden",
        "setting": escape(_setting(board)),
        "repository": _repository(),
        "releases": _options({link: name for name, link in (releases or {}).items()}, selected=release),
        "noreleases": "" if releases and len(releases) > 1 else "hidden",
        "cells": _options({link: name for name, link in (cells or {}).items()}, selected=board.cell),
        "nocells": "" if cells and len(cells) > 1 else "hidden",
        "filters": _filters(board),
        "tasks": _tasks(board),
        "ranking": _ranking_head(),
        "notes": "".join(f"<li>{escape(note)}</li>" for note in NOTES),
        "draws": f"{DRAWS:,}",
        "heat": _heat(board),
        "curve_tasks": _options(_described(board)),
        "axes": _options(
            {
                a: columns.AXES.get(a, a)
                for a in sorted({p.axis for p in board.results.scaling}, key="TnB".find)
            }
        ),
        "quantities": _options(
            {q: _quantity(q) for q in dict.fromkeys(p.quantity for p in board.results.scaling)}
        ),
        "gradient_figures": _options({column.field: column.label for column in columns.GRADIENTS}),
        "gradient_tasks": _options({g.task: g.task for g in board.results.gradients}),
        "groups": _options({" ".join(group): " ".join(group) for group in board.groups}),
        "costs": _options({cost: cost for cost in columns.COSTS}),
        "scatter_costs": _options({column.field: column.axis for column in _costs()}),
        "ranks": "".join(
            f"<li>{escape(line.removeprefix('- '))}</li>" for line in text.differences(board).splitlines()
        ),
        "exponents": _exponents(board),
        "rules": "".join(
            _rule_head(board, learner) for learner in sorted({row.learner for row in board.rows})
        ),
        "hardware": "".join(
            f"<li>{_code(line.removeprefix('- '))}</li>" for line in text.hardware(board).splitlines()
        ),
        "noscaling": "" if board.results.scaling else "hidden",
        "nogradients": "" if board.results.gradients else "hidden",
    }
    return _fill((own / "page.html").read_text(encoding="utf-8"), parts)


def packed(content: str) -> str:
    """Text as `unpack` of page.js reads it: deflated, in base64, in which nothing ends a script element."""
    return base64.b64encode(zlib.compress(content.encode(), 9)).decode()


def _fill(template: str, parts: Mapping[str, str]) -> str:
    """A text with each `{{name}}` replaced, in one pass, so that no part is searched for names."""
    pieces = template.split("{{")
    return pieces[0] + "".join(
        parts[name] + rest for name, _, rest in (p.partition("}}") for p in pieces[1:])
    )


def escape(value: object) -> str:
    """Text within HTML, in an attribute too."""
    return html.escape(str(value))


def _code(line: str) -> str:
    """Text with `code` in it."""
    parts = line.split("`")
    return "".join(f"<code>{escape(part)}</code>" if i % 2 else escape(part) for i, part in enumerate(parts))


def _options(values: Mapping[str, str], selected: str = "") -> str:
    return "".join(
        f'<option value="{escape(value)}"{" selected" if label == selected else ""}>{escape(label)}</option>'
        for value, label in values.items()
    )


def _quantity(name: str) -> str:
    """The name of a swept cost."""
    return columns.QUANTITIES[name].label if name in columns.QUANTITIES else name


def _described(board: Board) -> dict[str, str]:
    """Each task with its name."""
    return {
        task: f"{task}: {about['name']}" if (about := board.results.tasks.get(task)) else task
        for task in board.tasks
    }


def _claims(board: Board, learner: str) -> list[str]:
    said = board.results.learners.get(learner, {}).get("claims", {})
    found = [name for name in ("unbiased", "online", "forward_only") if said.get(name)]
    return found + (["constant"] if said.get("memory_in_T") == "O(1)" else [])


def _costs() -> list[Column]:
    """The costs of a row, by which its score may be drawn."""
    return [column for column in (*columns.RANKING, columns.FLOPS) if column not in _COMPUTED]


def _family(board: Board, learner: str) -> str:
    return str(board.results.learners.get(learner, {}).get("family", "unknown"))


# -- data ------------------------------------------------------------------------------------------------


def _round(value: Any) -> Any:
    """A number at `DIGITS`; None if it is not finite."""
    if value is None or not math.isfinite(value):
        return None
    short = float(f"{value:.{DIGITS}g}")
    return int(short) if short.is_integer() else short


def _rounded(values: Iterable[Any]) -> list[Any]:
    return [_round(value) for value in values]


def _data(board: Board, highlight: Collection[str]) -> dict[str, Any]:
    results, rows = board.results, board.rows
    rules = list(dict.fromkeys(row.rule for row in rows))
    backends = sorted({row.backend for row in rows})
    return {
        "rules": rules,
        "strokes": charts.strokes(rules),
        "backends": backends,
        "widths": {backend: charts.WIDTHS[i % len(charts.WIDTHS)] for i, backend in enumerate(backends)},
        "tasks": list(board.tasks),
        "unscaled": list(board.unscaled),
        "reference": columns.REFERENCE,
        "highlight": list(highlight),
        "subject": [rule for rule in highlight or (SUBJECT,) if rule in rules],
        "seeds": {"full": SEEDS, "quick": QUICK_SEEDS},
        "bounds": [LOW, HIGH],
        "draws": DRAWS,
        "forms": {
            column.field: {
                "form": column.form,
                "scale": column.scale,
                "label": column.axis,
                "unit": column.unit,
            }
            for column in (*columns.RANKING, columns.FLOPS, columns.NORMALISED)
        },
        "ranking": [column.field for column in columns.RANKING if column is not columns.DEVICE],
        "costs": [column.field for column in _costs()],
        "profiles": {name: column.field for name, column in columns.COSTS.items()},
        "rows": [
            {
                "rule": row.rule,
                "learner": row.learner,
                "name": str(results.learners.get(row.learner, {}).get("name", "")),
                "backend": row.backend,
                "device": row.device,
                "family": _family(board, row.learner),
                "submission": row.submission,
                "claims": _claims(board, row.learner),
                "alone": "" if row.cells or not row.unranked else row.unranked.partition(": ")[2],
                "scores": {name: _ends(found) for name, found in row.scores.items()} or None,
                "improvement": _ends(row.improvement) if row.improvement else None,
                "cells": {task: _cell(board, row, cell) for task, cell in row.cells.items()},
            }
            for row in rows
        ],
        "runs": _runs(board),
        "parquet": _parquet(board),
        "citation": _citation(board),
        "curves": {task: _curves(board, task) for task in board.tasks},
        "scaling": [
            [p.learner, p.backend, p.axis, p.quantity, p.size, *_rounded((p.value, p.exponent, p.claimed))]
            for p in results.scaling
        ],
        "gradients": [
            [
                *(g.learner, g.backend, g.task, g.point, g.draws),
                *(
                    [_round(getattr(g, f"{name}{end}")) for end in ("", "_low", "_high")]
                    for name in (column.field for column in columns.GRADIENTS)
                ),
            ]
            for g in results.gradients
        ],
        "figures": [column.field for column in columns.GRADIENTS],
        "charts": charts.specifications(backends),
        "sections": {learner: _rule(board, learner) for learner in sorted({row.learner for row in rows})},
    }


def _exactly(value: float | None) -> float | None:
    """A number with as many digits as the tables have."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.9g}")


def _ends(found: Interval) -> list[float | None]:
    """A figure and its interval; None for an infinite end, the lower one first."""
    return [_exactly(value) for value in found]


def _cell(board: Board, row: Standing, cell: Entry) -> list[Any]:
    """What the page's statistics read of a cell but its runs, in the order of `cellOf` in page.js."""
    same = cell.machine == board.machines[" ".join(row.key[1:])]
    return [
        len(cell.records),
        len(cell.metrics),
        cell.status,
        cell.stale,
        int(cell.normalises),
        int(all(record.trial.preset == "quick" for record in cell.records)),
        int(bool(cell.untuned)),
        _exactly(cell.target("steps_to_target")),
        # Seconds of another machine do not count.
        _exactly(cell.target("seconds_to_target")) if same else None,
        [_exactly(cell.median(column.field)) for column in _costs()],
    ]


def _records(board: Board) -> Iterable[tuple[Standing, str, Record]]:
    """All runs of the board, by row and task, those of one tuning study together."""
    for row in board.rows:
        for task, cell in row.cells.items():
            for records in cell.grouped:
                yield from ((row, task, record) for record in records)


def _runs(board: Board) -> dict[str, list[Any]]:
    """The runs, a list a column, in the order of `_records`."""
    records = [record for _, _, record in _records(board)]
    return {
        "study": [record.trial.study for record in records],
        "seed": [record.trial.seed for record in records],
        "status": [record.status for record in records],
        "test_score": [_exactly(record.test_score) for record in records],
        "normalised_score": [_exactly(record.normalised_score) for record in records],
    }


def _parquet(board: Board) -> str:
    """The runs as a Parquet file with the columns of `runs` in page.js, in base64."""
    # pandas is slow to import.
    import pandas as pd

    who = [(row.rule, row.backend, row.device, task) for row, task, _ in _records(board)]
    frame = pd.DataFrame(who, columns=["rule", "backend", "device", "task"]).assign(**_runs(board))
    kinds = {"study": "string", "test_score": "float64", "normalised_score": "float64"}
    file = io.BytesIO()
    texts = [name for name in frame.columns if name not in ("seed", "test_score", "normalised_score")]
    frame.astype(kinds).to_parquet(file, index=False, compression="zstd", use_dictionary=texts)
    return base64.b64encode(file.getvalue()).decode()


def _citation(board: Board) -> str:
    """The citation of the package in BibTeX, from its metadata."""
    about = metadata.metadata("creditbench")
    dates = [record.started_at for record in board.results.records if record.started_at]
    year = f"  year = {{{max(dates)[:4]}}},\n" if dates else ""
    url = "".join(f"  url = {{{link}}},\n" for link in _links().values())
    return (
        f"@software{{creditbench,\n  author = {{{{{about['Author']}}}}},\n"
        f"  title = {{creditbench: {about['Summary']}}},\n  version = {{{creditbench.__version__}}},\n"
        f"{year}{url}}}\n"
    )


def _links() -> dict[str, str]:
    """The address of the repository by its label, from the package's metadata; empty if it names none."""
    urls = [line.partition(", ") for line in metadata.metadata("creditbench").get_all("Project-URL") or ()]
    return {label: url for label, _, url in urls if label.lower() in ("repository", "source", "homepage")}


def _repository() -> str:
    return "".join(f' <a href="{escape(url)}">{escape(label)}</a>' for label, url in _links().items())


def _curves(board: Board, task: str) -> dict[str, Any]:
    """The curves of one task: for each row step, median second, and median and quartiles of its runs."""
    lines: list[list[Any]] = []
    trivial: list[float] = []
    solved_at: list[float] = []
    first = None
    kept = max(FEWEST, min(POINTS, ALL_POINTS // max(1, len(board.rows) * len(board.tasks))))
    for i, row in enumerate(board.rows):
        cell = row.cells.get(task)
        if cell is None:
            continue
        first = first or cell.records[0]
        trivial += cell.values("trivial")
        solved_at += cell.values("solved")
        at: dict[int, list[tuple[float, float]]] = {}
        for record in cell.records:
            for point in record.curve:
                if point.validation is not None:
                    at.setdefault(point.step, []).append((point.seconds, point.validation))
        steps = sorted(at)
        if not steps:
            continue
        # Evenly spaced, with the first and the last.
        count = min(kept, len(steps))
        steps = [steps[round(k * (len(steps) - 1) / max(1, count - 1))] for k in range(count)]
        seconds = [plain.median(s for s, _ in at[step]) for step in steps]
        values = [np.quantile([v for _, v in at[step]], [0.5, 0.25, 0.75]) for step in steps]
        lines.append([i, steps, _rounded(seconds), *map(_rounded, zip(*values, strict=True))])
    middle = plain.fmean(trivial) if trivial else None
    solved = plain.fmean(solved_at) if solved_at else None
    direction = first.metric_direction if first else "min"
    if solved is not None and middle is not None and (solved < middle) != (direction == "min"):
        solved = None  # no scale
    domain = charts.extent(
        [[v for v in line[3] if v is not None] for line in lines], middle, solved, direction
    )
    return {
        "metric": first.metric if first else "",
        "direction": direction,
        "trivial": _round(middle),
        "solved": _round(solved),
        "domain": _rounded(domain),
        "lines": lines,
    }


# -- tables ----------------------------------------------------------------------------------------------


def _about(board: Board) -> str:
    rules, tasks = len({row.rule for row in board.rows}), len({task.split(" ")[0] for task in board.tasks})
    return (
        f"Which learning rules train recurrent networks, how well and at what cost: {rules} "
        f"{'rule' if rules == 1 else 'rules'}, with and without backpropagation through time, on {tasks} "
        f"{'task' if tasks == 1 else 'tasks'}."
    )


def _range(values: Iterable[int]) -> str:
    """`20,000–40,000`."""
    found = sorted(set(values))
    return f"{found[0]:,}" if len(found) == 1 else f"{found[0]:,}–{found[-1]:,}"


def _setting(board: Board) -> str:
    """What all runs of the board have in common, and when they were made."""
    cells = [cell for row in board.rows for cell in row.cells.values()]
    runs = [record for cell in cells for record in cell.records]
    trials = [record.trial for record in runs]
    if not trials:
        return ""
    studies = _range(cell.studies for cell in cells)
    each = _range(len(cell.records) for cell in cells)
    tuned = f" from {studies} tuning {'study' if studies == '1' else 'studies'}" if studies != "0" else ""
    versions = Counter(record.versions.partition(",")[0] for record in runs)
    parts = [
        f"cell {board.cell}",
        f"{_range(trial.hidden for trial in trials)} hidden units",
        f"{_range(trial.budget_steps for trial in trials)} training steps",
        f"{each} {'run' if each == '1' else 'runs'}{tuned} for a rule and task",
        ", ".join(sorted(name for name in versions if name))
        or ", ".join(sorted({t.backend for t in trials})),
        " and ".join(sorted({trial.device for trial in trials})),
    ]
    dates = sorted(record.started_at[:10] for record in runs if record.started_at)
    if dates:
        parts.append(dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}")
    return f"{len(runs):,} runs: {'; '.join(parts)}. creditbench {creditbench.__version__}."


def _filters(board: Board) -> str:
    def select(name: str, label: str, values: Mapping[str, str], every: str = "all") -> str:
        options = f'<option value="">{every}</option>' + _options(values)
        # A choice between one thing is none.
        hidden = " hidden" if len(values) < 2 else ""
        return f'<label{hidden}>{label} <select id="filter-{name}">{options}</select></label>'

    def same(values: Iterable[str]) -> dict[str, str]:
        return {value: value for value in sorted(set(values))}

    return "".join(
        [
            '<label>Rule <input type="search" id="filter-text" placeholder="name" '
            'autocomplete="off"></label>',
            select("backend", "Backend", same(row.backend for row in board.rows)),
            select("device", "Device", same(row.device for row in board.rows)),
            select("family", "Family", same(_family(board, row.learner) for row in board.rows)),
            select("claim", "Claims", _CLAIMS, "any"),
        ]
    )


def _tasks(board: Board) -> str:
    """A box a column of the board; where tasks have several, a button a set of conditions."""
    boxes = "".join(
        f'<label><input type="checkbox" name="task" value="{escape(task)}" checked>'
        f"<span>{escape(task)}</span></label>"
        for task in board.tasks
    )
    conditions = sorted({own for task in board.tasks if (own := task.partition(" ")[2])})
    several = {task.partition(" ")[0] for task in board.tasks}
    buttons = "".join(
        f'<button type="button" data-conditions="{escape(own)}">{escape(own)}</button>' for own in conditions
    )
    return boxes + (buttons if len(several) < len(board.tasks) else "")


#: Classes of heads that are not numbers.
_ALIGNED = {columns.RULE: "sticky", columns.BACKEND: "", columns.NOTE: ""}
#: What a head says where the table's own word for it is not enough.
_HELP = {
    columns.RULE: "the learning rule; +D decorrelates the hidden units. ☆ keeps it for the comparison",
    columns.BACKEND: "the framework that ran it, and the device where it is not the CPU",
    columns.IQM: (
        "the mean of the middle half of all runs, normalised: 0 is the trivial predictor, 1 is solved; "
        "in brackets its 95 % interval"
    ),
    columns.NOTE: "runs that diverged or lie beyond the scale, and why a row has no rank",
}


def _ranking_head() -> str:
    """The head of the ranking; its rows are the script's, since they follow what is picked."""
    # The device stands beside the backend.
    shown = [column for column in columns.RANKING if column is not columns.DEVICE]
    head = "".join(
        f'<th scope="col" class="{_ALIGNED.get(column, "n")}" data-field="{column.field}"><span class="head">'
        f'<button type="button" data-column="{column.field}" '
        f'data-first="{"desc" if column.better == "max" else "asc"}">{escape(column.heading)}</button>'
        f"{_help(column.heading, _HELP.get(column, column.help))}</span></th>"
        for column in shown
    )
    return f"<thead><tr>{head}</tr></thead><tbody></tbody>"


def _help(name: str, said: str) -> str:
    """A button that says what a word means, to a pointer, a finger and the keyboard."""
    return (
        f'<button type="button" class="help" data-help="{escape(said)}" aria-label="{escape(name)}: what is '
        f'it?">?</button>'
        if said
        else ""
    )


def _small(found: Interval, column: Column) -> str:
    """A figure, and its interval in small letters."""
    value, _, ends = interval(found, column.form).partition(" ")
    return f"{value} <small>{ends}</small>"


def _heat(board: Board) -> str:
    head = "".join(f'<th scope="col">{escape(task)}</th>' for task in board.tasks)
    body = []
    for i, row in enumerate(board.rows):
        cells = []
        for task in board.tasks:
            cell = row.cells.get(task)
            if cell is None or not len(cell.metrics):
                state = "missing" if cell is None else cell.status
                cells.append(
                    f'<td class="missing" data-help="{escape(row.label)}: {escape(task)}: '
                    f'{escape(state)}">{MISSING if cell is None else escape(state)}</td>'
                )
                continue
            stale = f"; stale: {cell.stale}" if cell.stale else ""
            dagger = "†" if cell.stale else "*" if cell.status != f"{len(cell.records)} ok" else ""
            hint = escape(f"{row.label}: {task}: {text.score(cell)}, {cell.status}{stale}")
            shown = text.score(cell).partition(" ")[0] + dagger
            if cell.normalises and len(cell.runs):
                # The colour's strength is the score's; below 0 another colour.
                middle = float(np.quantile(cell.scores, 0.5, method="lower"))
                share, sign = round(100 * min(1.0, abs(middle))), "bad" if middle < 0 else "good"
                cells.append(f'<td class="{sign}" style="--s:{share}%" data-help="{hint}">{shown}</td>')
            else:
                place = board.places(board.groups[row.key[1:]], task)[row.key]
                cells.append(
                    f'<td class="good" style="--s:0%" data-help="{hint}; place {place}">{shown}</td>'
                )
        name = (
            f'<th scope="row" class="sticky"><a href="#rule-{escape(row.learner)}">'
            f"{escape(row.label)}</a></th>"
        )
        body.append(f'<tr data-row="{i}">{name}{"".join(cells)}</tr>')
    return (
        f'<thead><tr><th scope="col" class="sticky">rule</th>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody>"
    )


def _line(head: str, *cells: str, last: str = "") -> str:
    """A row of a table from HTML; `last` is the class of its last cell."""
    inside = "".join(f"<td>{cell}</td>" for cell in cells[:-1])
    return f'<tr><th scope="row">{head}</th>{inside}<td class="{last}">{cells[-1]}</td></tr>'


def _exponents(board: Board) -> str:
    fits = {(p.learner, p.backend, p.axis, p.quantity): p for p in board.results.scaling}
    signs = {True: "held", False: "<strong>did not hold</strong>", None: MISSING}
    rows = "".join(
        _line(
            escape(p.learner),
            escape(p.backend),
            escape(columns.AXES.get(p.axis, p.axis)),
            escape(_quantity(p.quantity)),
            _small(Interval(p.exponent, p.low, p.high), columns.EXPONENT),
            columns.CLAIMED.text(p.claimed),
            signs[p.held],
        )
        for p in fits.values()
    )
    head = "".join(f'<th scope="col">{column.heading}</th>' for column in columns.EXPONENTS)
    return f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody>"


def _rule_head(board: Board, learner: str) -> str:
    """A rule's section, closed; the script fills in `_rule` when it is opened."""
    name = board.results.learners.get(learner, {}).get("name", "")
    return (
        f'<details class="rule" id="rule-{escape(learner)}" data-learner="{escape(learner)}"><summary>'
        f"<h3>{escape(learner)}</h3> {escape(name)}</summary></details>"
    )


def _rule(board: Board, learner: str) -> str:
    about = board.results.learners.get(learner, {})
    own = [row for row in board.rows if row.learner == learner]
    promised = "".join(
        _line(escape(c.name), escape(c.claimed), _sign(c.held), escape(c.detail))
        for c in claims(board.results, learner)
    )
    made = [_cells(row) for row in own]
    sources = sorted(
        {record.learner_source for row in own for cell in row.cells.values() for record in cell.records}
    )
    source = ", ".join(f"learners/{learner}.py" if s == "builtin" else s for s in sources)
    again = "".join(f"<p>{escape(line)}</p>" for line in _verified(board, own))
    return (
        f"<p>{escape(about.get('family', 'unknown family'))}. {_paper(about.get('paper', ''))} Source "
        f"and equations: <code>{escape(source)}</code></p>"
        f'<div class="scroll" tabindex="0" role="region" aria-label="Claims of {escape(learner)}">'
        f"<table><thead><tr><th scope=col>Claim</th><th scope=col>claimed</th><th scope=col>outcome</th>"
        f"<th scope=col>measured</th></tr></thead><tbody>{promised}</tbody></table></div>"
        f"{again}{''.join(made)}"
    )


def _verified(board: Board, own: Sequence[Standing]) -> list[str]:
    """What `creditbench verify` found of a rule, a line a task."""
    number = columns.NORMALISED.text
    return [
        f"{v.task}, {v.backend}: {v.verdict}. Submitted {number(v.submitted)} ({v.runs} runs), run again "
        f"{number(v.again)} with other seeds, {number(v.hidden)} on a hidden version of the task."
        f"{' ' + v.detail + '.' if v.detail else ''}"
        for v in board.results.verified
        if v.learner in {row.rule for row in own}
    ]


def _sign(held: bool | None) -> str:
    return {True: "✓ held", False: "<strong>✗ did not hold</strong>", None: "not settled here"}[held]


def _paper(paper: str) -> str:
    """A paper, its DOI or arXiv number as a link."""
    words = []
    for word in paper.split():
        bare = word.rstrip(".,;)")
        kind, found, rest = bare.partition(":")
        place = {"doi": "https://doi.org/", "arxiv": "https://arxiv.org/abs/"}.get(kind.lower())
        link = found and rest and place
        words.append(
            f'<a href="{place}{escape(rest)}">{escape(bare)}</a>{escape(word[len(bare) :])}'
            if link
            else escape(word)
        )
    return " ".join(words) + ("." if paper else "")


def _cells(row: Standing) -> str:
    """The results of one row on each task, with the commands that reproduce them."""

    def line(task: str, cell: Entry) -> str:
        notes = [cell.status, *([f"stale: {cell.stale}"] if cell.stale else [])]
        notes += [f"{cell.others} other settings in the table"] if cell.others else []
        environments = sorted({record.environment_id for record in cell.records})
        again = "".join(f"<code>{escape(line)}</code> " for line in cell.commands)
        own = {
            "task": escape(task),
            "test_score": spread(cell.values("test_score")),
            "normalised_score": columns.NORMALISED.text(cell.scores.mean() if len(cell.scores) else None),
            **{c.field: c.text(cell.target(c.field)) for c in columns.TARGETS},
            "seeds": escape("; ".join(notes)),
            "machine": escape(", ".join(environments)),
            "commands": again,
        }
        texts = [
            own[column.field] if column.field in own else column.text(cell.median(column.field))
            for column in shown
        ]
        return _line(*texts, last="command")

    # Only spiking cells have a firing rate.
    fires = any(cell.values(columns.FIRING_RATE.field) for cell in row.cells.values())
    shown = [column for column in columns.BY_TASK if fires or column is not columns.FIRING_RATE]
    metric = {task: cell.records[0] for task, cell in row.cells.items()}
    rows = "".join(
        line(f"{task} ({metric[task].metric} {'↓' if metric[task].metric_direction == 'min' else '↑'})", cell)
        for task, cell in sorted(row.cells.items())
    )
    head = "".join(f"<th scope=col>{column.short}</th>" for column in shown)
    return (
        f'<h4>{escape(row.label)}</h4><div class="scroll" tabindex="0" role="region" '
        f'aria-label="{escape(row.label)} by task"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )
