"""The page: one HTML file that opens from disk with no network; charts, scripts and data are inline."""

from __future__ import annotations

import html
import json
import math
import statistics as plain
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

import creditbench
from creditbench.leaderboard import charts, text
from creditbench.leaderboard.board import Board, Entry, Standing
from creditbench.leaderboard.claims import claims
from creditbench.leaderboard.statistics import Interval
from creditbench.leaderboard.text import NOTES, aggregate, interval, mark
from creditbench.results import columns
from creditbench.results.columns import MISSING, Column
from creditbench.results.table import spread

#: Most points of a curve that are kept: a screen shows no more.
POINTS = 26
#: Significant digits of the charts' data.
DIGITS = 4
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

    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", "<\\/script")


def page(board: Board, folders: Sequence[Path]) -> str:
    """The page of a board that was made from `folders`."""
    own = files("creditbench.leaderboard") / "static"
    parts = {
        "title": "creditbench leaderboard",
        "style": (own / "page.css").read_text(encoding="utf-8"),
        "script": _fill(
            (own / "page.js").read_text(encoding="utf-8"),
            {"gradient_figures": json.dumps([column.field for column in columns.GRADIENTS])},
        ),
        "vega": _vega(),
        # Within a script element only `<` can end it.
        "data": json.dumps(_data(board), separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
        "about": _about(board, folders),
        "filters": _filters(board),
        "ranking": _ranking(board),
        "notes": "".join(f"<li>{escape(note)}</li>" for note in NOTES),
        "heat": _heat(board),
        "tasks": _options(_described(board)),
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
        "ranks": "".join(
            f"<li>{escape(line.removeprefix('- '))}</li>" for line in text.differences(board).splitlines()
        ),
        "exponents": _exponents(board),
        "rules": "".join(_rule(board, learner) for learner in sorted({row.learner for row in board.rows})),
        "hardware": "".join(
            f"<li>{_code(line.removeprefix('- '))}</li>" for line in text.hardware(board).splitlines()
        ),
        "noscaling": "" if board.results.scaling else "hidden",
        "nogradients": "" if board.results.gradients else "hidden",
    }
    return _fill((own / "page.html").read_text(encoding="utf-8"), parts)


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


def _options(values: Mapping[str, str]) -> str:
    return "".join(
        f'<option value="{escape(value)}">{escape(label)}</option>' for value, label in values.items()
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


def _data(board: Board) -> dict[str, Any]:
    results, rows = board.results, board.rows
    rules = list(dict.fromkeys(row.rule for row in rows))
    backends = sorted({row.backend for row in rows})
    fronts: list[dict[str, bool]] = [{} for _ in rows]
    for group in board.groups.values():
        for column in columns.FRONTS:
            for row, on in zip(group, board.front(group, column.field), strict=True):
                fronts[rows.index(row)][column.field] = on
    profiles: dict[str, Any] = {}
    for group_key, group in board.groups.items():
        for cost in columns.COSTS:
            tau, rho = board.profile(group, cost)
            profiles.setdefault(" ".join(group_key), {})[cost] = [
                [rows.index(row), *map(list, zip(*_steps(tau, own), strict=True))]
                for row, own in zip(group, rho, strict=True)
                if own[-1] > 0
            ]
    return {
        "rules": rules,
        "colours": charts.colours(rules),
        "backends": backends,
        "rows": [
            {
                "rule": row.rule,
                "learner": row.learner,
                "backend": row.backend,
                "device": row.device,
                "iqm": _rounded(row.scores["iqm"]) if row.scores else None,
                **{name: _round(row.cost(column.field)) for name, column in charts.FRONTS.items()},
                "front": fronts[i],
                "tasks": {
                    task: [*_rounded((cell.scores.mean(), cell.scores.min(), cell.scores.max())), cell.status]
                    for task, cell in row.cells.items()
                    if len(cell.scores)
                },
            }
            for i, row in enumerate(rows)
        ],
        "curves": {task: _curves(board, task) for task in board.tasks},
        "profiles": profiles,
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
        "charts": charts.specifications(rules, backends),
    }


def _steps(tau: Any, rho: Any) -> list[tuple[float, float]]:
    """The corners of a step function."""
    keep = [i for i in range(len(tau)) if i in (0, len(tau) - 1) or rho[i] != rho[i - 1]]
    return [(_round(tau[i]), _round(rho[i])) for i in keep]


def _curves(board: Board, task: str) -> dict[str, Any]:
    """The curves of one task: for each row step, median second, and median, worst and best of its seeds."""
    lines: list[list[Any]] = []
    trivial: list[float] = []
    solved_at: list[float] = []
    first = None
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
        count = min(POINTS, len(steps))
        steps = [steps[round(k * (len(steps) - 1) / max(1, count - 1))] for k in range(count)]
        seconds = [plain.median(s for s, _ in at[step]) for step in steps]
        values = [sorted(v for _, v in at[step]) for step in steps]
        lines.append(
            [
                i,
                steps,
                _rounded(seconds),
                *map(
                    _rounded,
                    ((plain.median(v) for v in values), (v[0] for v in values), (v[-1] for v in values)),
                ),
            ]
        )
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


def _about(board: Board, folders: Sequence[Path]) -> str:
    trials = len(board.results.records)
    rules = len({row.rule for row in board.rows})
    made = text.again("leaderboard", folders, "--output", "DIR")
    return (
        f"<p>{rules} rules, {len(board.tasks)} tasks, {trials:,} trials; creditbench "
        f"{escape(creditbench.__version__)}. "
        f"Made by <code>{escape(made)}</code>.</p>"
        + "".join(f"<p>{escape(line)}</p>" for line in text.remarks(board))
    )


def _filters(board: Board) -> str:
    def select(name: str, label: str, values: Mapping[str, str], every: str = "all") -> str:
        options = f'<option value="">{every}</option>' + _options(values)
        return f'<label>{label} <select id="filter-{name}" data-filter="{name}">{options}</select></label>'

    def same(values: Iterable[str]) -> dict[str, str]:
        return {value: value for value in sorted(set(values))}

    return "".join(
        [
            '<label>Rule <input type="search" id="filter-text" data-filter="text" placeholder="name" '
            'autocomplete="off"></label>',
            select("backend", "Backend", same(row.backend for row in board.rows)),
            select("device", "Device", same(row.device for row in board.rows)),
            select("family", "Family", same(_family(board, row.learner) for row in board.rows)),
            select("claim", "Claims", _CLAIMS, "any"),
            select("task", "Task", {task: task for task in board.tasks}, "all"),
        ]
    )


#: Classes of heads that are not numbers.
_ALIGNED = {columns.RULE: "sticky", columns.BACKEND: "", columns.NOTE: ""}


def _ranking(board: Board) -> str:
    # The device stands beside the backend.
    shown = [column for column in columns.RANKING if column is not columns.DEVICE]
    head = "".join(
        f'<th scope="col" class="{_ALIGNED.get(column, "n")}" '
        f'aria-sort="{"ascending" if i == 0 else "none"}">'
        f'<button type="button" data-column="{i}" data-first="{"desc" if column.better == "max" else "asc"}" '
        f'title="{escape(column.help)}">{escape(column.heading)}</button></th>'
        for i, column in enumerate(shown)
    )
    rows = []
    for i, row in enumerate(board.rows):

        def cell(value: float | str | None, shown: str, kind: str = "n") -> str:
            # Missing values sort last.
            order = "" if value is None or (isinstance(value, float) and not math.isfinite(value)) else value
            return f'<td class="{kind}" data-value="{escape(order)}">{shown}</td>'

        name = f'<a href="#rule-{escape(row.learner)}">{escape(row.rule)}</a>'
        allowed = text.rank(row).removesuffix("q")
        quick = '<abbr title="fewer seeds, preset quick">q</abbr>' if row.quick else ""
        remarks = escape("; ".join(row.remarks))
        own = {
            "rank": cell(float(row.rank) if row.rank else None, f"{allowed}{quick}"),
            "rule": f'<th scope="row" class="sticky" data-value="{escape(row.rule)}">{name}</th>',
            "backend": cell(
                " ".join(row.key[1:]),
                escape(row.backend if row.device == "cpu" else f"{row.backend} {row.device}"),
                "t",
            ),
            "iqm": cell(aggregate(row, "iqm"), _whisker(row.scores.get("iqm")), "n score"),
            **{c.field: cell(v := aggregate(row, c.field), c.text(v)) for c in columns.MEANS},
            "improvement": cell(row.improvement.value if row.improvement else None, _improvement(row)),
            "solved": cell(float(text.solved(row)), f"{text.solved(row)} of {len(board.tasks)}"),
            "note": cell(
                "; ".join(row.remarks),
                f"<strong class=stale>{remarks}</strong>" if row.stale else remarks,
                "t note",
            ),
        }
        cells = [
            own[column.field]
            if column.field in own
            else cell(value := row.cost(column.field), column.text(value))
            for column in shown
        ]
        attributes = {
            "row": i,
            "backend": row.backend,
            "device": row.device,
            "family": _family(board, row.learner),
            "claims": " ".join(_claims(board, row.learner)),
            "text": f"{row.rule} {board.results.learners.get(row.learner, {}).get('name', '')}".lower(),
            "tasks": " ".join(task for task, own in row.cells.items() if len(own.scores)),
        }
        given = " ".join(f'data-{k}="{escape(v)}"' for k, v in attributes.items())
        rows.append(f"<tr {given}>{''.join(cells)}</tr>")
    return f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"


def _improvement(row: Standing) -> str:
    sign = mark(row.improvement)
    said = {"▲": "better", "▼": "worse"}.get(sign, "")
    return escape(interval(row.improvement)) + (
        f' <span role="img" aria-label="{said}">{sign}</span>' if sign else ""
    )


def _small(found: Interval, column: Column) -> str:
    """A figure, and its interval in small letters."""
    value, _, ends = interval(found, column.form).partition(" ")
    return f"{value} <small>{ends}</small>"


def _whisker(found: Interval | None) -> str:
    """A score, its interval, and a bar of both from −0.1 to 1.1."""
    if found is None:
        return MISSING

    def at(value: float) -> float:
        return round(100 * min(1.0, max(0.0, (value + 0.1) / 1.2)), 1)

    low, middle, high = at(found.low), at(found.value), at(found.high)
    return (
        f"{_small(found, columns.IQM)}"
        f'<span class="bar" aria-hidden="true"><i '
        f'style="left:{low}%;width:{max(0.5, high - low):.1f}%"></i><b style="left:{middle}%"></b></span>'
    )


def _heat(board: Board) -> str:
    head = "".join(f'<th scope="col"><span>{escape(task)}</span></th>' for task in board.tasks)
    body = []
    for i, row in enumerate(board.rows):
        cells = []
        for task in board.tasks:
            cell = row.cells.get(task)
            if cell is None or not len(cell.metrics):
                state = "missing" if cell is None else cell.status
                cells.append(
                    f'<td class="missing" title="{escape(task)}: '
                    f'{escape(state)}">{MISSING if cell is None else escape(state)}</td>'
                )
                continue
            stale = f"; stale: {cell.stale}" if cell.stale else ""
            dagger = "†" if cell.stale else "*" if cell.status != f"{len(cell.records)} ok" else ""
            hint = escape(f"{task}: {text.score(cell)}, {cell.status}{stale}")
            shown = text.score(cell).partition(" ")[0] + dagger
            if cell.normalises and len(cell.runs):
                # The colour's strength is the score's; below 0 another colour.
                middle = float(np.quantile(cell.scores, 0.5, method="lower"))
                share, sign = round(100 * min(1.0, abs(middle))), "bad" if middle < 0 else "good"
                cells.append(f'<td class="{sign}" style="--s:{share}%" title="{hint}">{shown}</td>')
            else:
                place = board.places(board.groups[row.key[1:]], task)[row.key]
                cells.append(f'<td class="good" style="--s:0%" title="{hint}; place {place}">{shown}</td>')
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
    # The last column says whether the claim held, and needs no head.
    heads = [*(column.heading for column in columns.EXPONENTS[:-1]), ""]
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    return f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody>"


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
    return (
        f'<details class="rule" id="rule-{escape(learner)}"><summary><h3>{escape(learner)}</h3> '
        f"{escape(about.get('name', ''))}</summary>"
        f"<p>{escape(about.get('family', 'unknown family'))}. {_paper(about.get('paper', ''))} Source "
        f"and equations: <code>{escape(source)}</code></p>"
        f'<div class="scroll" tabindex="0" role="region" aria-label="Claims of {escape(learner)}">'
        f"<table><thead><tr><th scope=col>Claim</th><th scope=col>claimed</th><th scope=col>outcome</th>"
        f"<th scope=col>measured</th></tr></thead><tbody>{promised}</tbody></table></div>"
        f"{''.join(made)}</details>"
    )


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
        shown = [
            own[column.field] if column.field in own else column.text(cell.median(column.field))
            for column in columns.BY_TASK
        ]
        return _line(*shown, last="command")

    metric = {task: cell.records[0] for task, cell in row.cells.items()}
    rows = "".join(
        line(f"{task} ({metric[task].metric} {'↓' if metric[task].metric_direction == 'min' else '↑'})", cell)
        for task, cell in sorted(row.cells.items())
    )
    head = "".join(f"<th scope=col>{column.short}</th>" for column in columns.BY_TASK)
    return (
        f'<h4>{escape(row.label)}</h4><div class="scroll" tabindex="0" role="region" '
        f'aria-label="{escape(row.label)} by task"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )
