"""The board as text: Markdown for people and repositories, LaTeX for papers."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from creditbench.leaderboard.board import HIGH, LOW, SEEDS, Board, Entry, Standing
from creditbench.leaderboard.claims import claims
from creditbench.leaderboard.equals import best_and_equals, mean, unit_means
from creditbench.leaderboard.statistics import Interval
from creditbench.leaderboard.versus import Versus, described
from creditbench.results import columns
from creditbench.results.columns import MISSING, REFERENCE, Column
from creditbench.results.table import Markup, choose, escaped, latex_table, markdown_table, plain, ranged
from creditbench.trials.trial import CELL, with_cell

SIGNS = {True: "held", False: "did not hold", None: "not settled"}

NOTES = (
    "Scores are normalised: 0 is the trivial predictor, 1 is solved, both at the task's own parameters and "
    f"data. Nothing bounds them, but means and IQM take them from {LOW:g} to {HIGH:g}, a run that diverged "
    f"as {LOW:g}, and the note says how many. IQM is the mean of the middle half of all runs (task × study × "
    "seed). Intervals are 95 %, from a bootstrap of tuning studies with their seeds, within tasks (after "
    "Agarwal et al. 2021).",
    "Ranks are ranges: the best and the worst that the intervals of the scores allow.",
    f"P(> {REFERENCE}) is the probability that a run of the rule beats one of {REFERENCE} on the "
    f"same task, Mann–Whitney's U / mn, mean over tasks; "
    "▲ and ▼ mark an interval that leaves ½ out.",
    "Costs are geometric means over tasks of medians over seeds: × forward and × bptt are the time "
    "of a training step over that of the "
    "cell's forward pass and of bptt's step, in paired blocks; kB is what an update needs beyond weights "
    "and data.",
    f"A rank takes every task and {SEEDS} runs or more; q marks fewer with the preset quick. "
    f"Ranks count within one backend and device.",
)


def rank(row: Standing) -> str:
    """The ranks that a row may have, `2–5`, with the mark of the preset quick; a dash if it has none."""
    if row.ranks is None:
        return MISSING
    low, high = row.ranks
    return f"{low if low == high else f'{low}–{high}'}{'q' if row.quick else ''}"


def interval(found: Interval | None, form: str = columns.IQM.form) -> str:
    """`0.50 [0.40, 0.60]`."""
    if found is None:
        return MISSING
    return f"{found.value:{form}} [{found.low:{form}}, {found.high:{form}}]"


def mark(found: Interval | None) -> str:
    """▲ if the interval of a probability of improvement lies above ½, ▼ if below, else nothing."""
    if found is None:
        return ""
    return "▲" if found.low > 0.5 else "▼" if found.high < 0.5 else ""


def left_out(board: Board) -> str:
    """The note on tasks that are left out; empty if there are none."""
    names = ", ".join(board.left_out)
    return f"Left out, since one rule alone was run there: {names}." if names else ""


def remarks(board: Board) -> list[str]:
    """Remarks on the board: columns left out, and differences between its cells."""
    return [*filter(None, [left_out(board)]), *(f"{note[:1].upper()}{note[1:]}." for note in board.notes)]


def _remarks(board: Board) -> list[str]:
    """`remarks` for Markdown, a paragraph each."""
    return [f"{plain(line)}\n" for line in remarks(board)]


def solved(row: Standing) -> int:
    """Tasks that more than half of the seeds bring to their target."""
    return sum(math.isfinite(cell.target("steps_to_target")) for cell in row.cells.values())


def aggregate(row: Standing, name: str) -> float | None:
    """A score of a row over all tasks; None if it has none."""
    return row.scores[name].value if name in row.scores else None


def ranking(board: Board, shown: Sequence[Column] | None = None) -> list[tuple[str, ...]]:
    """The rows of the ranking, in the order of `shown`; None for that of `columns.RANKING`."""
    found = []
    for row in board.rows:
        own = {
            "rank": rank(row),
            "rule": row.rule,
            "backend": row.backend,
            "device": row.device,
            "iqm": interval(row.scores.get("iqm")),
            **{c.field: c.text(aggregate(row, c.field)) for c in columns.MEANS},
            "improvement": " ".join(filter(None, (interval(row.improvement), mark(row.improvement)))),
            "solved": f"{solved(row)} of {len(board.tasks)}",
            "note": "; ".join(row.remarks),
        }
        found.append(
            tuple(
                own[column.field] if column.field in own else column.text(row.cost(column.field))
                for column in shown or columns.RANKING
            )
        )
    return found


def _ranking(board: Board, chosen: Sequence[str]) -> tuple[list[str], list[tuple[str, ...]], list[str]]:
    """The heads of the ranking, its rows, and the heads that are aligned to the left."""
    shown = choose(chosen, columns.RANKING) or columns.RANKING
    heads = [column.short for column in shown]
    return heads, ranking(board, shown), [column.short for column in shown if column.left]


def ranking_markdown(board: Board, chosen: Sequence[str] = ()) -> str:
    """The ranking and what its columns mean.

    `chosen`: its columns, by head or field; none for all. Raises `UsageError` for an unknown one.
    """
    rows = markdown_table(*_ranking(board, chosen))
    return rows + "\n" + "\n".join(f"- {note}" for note in NOTES) + "\n"


def ranking_latex(board: Board, chosen: Sequence[str] = ()) -> str:
    """The ranking as a booktabs table that fits a page; `chosen` as in `ranking_markdown`."""
    heads, rows, left = _ranking(board, chosen)
    caption = (
        "Normalised scores with 95\u202f% intervals, the ranks that they allow, and costs. ▲, ▼: the "
        f"interval of the probability of improvement over {REFERENCE} leaves ½ out"
    )
    return latex_table(caption, "tab:ranking", heads, [rows], left)


#: Letters of LaTeX's scriptsize that a line of 6.5 inches has room for, with the spaces between columns.
_LETTERS_OF_A_LINE = 112
#: Marks of cells, and what the caption says of those that occur.
_MARKS = {
    "†": f"some runs diverged: they count as −{-LOW:g}, and the rule equals no other",
    "‡": "stale: not compared",
}


def scores_latex(board: Board) -> str:
    """Rules × tasks as one booktabs table that fits a page: means ± half of their 95 % intervals.

    The best of each task and backend is in bold, and so is each rule that the test of `versus` does not tell
    from it (`best_and_equals`). Tasks that a page has no room for side by side stand below the others. Raises
    `UsageError` if there are more rows than a page has room for.
    """
    several = len(board.groups) > 1
    cells = {(row.key, task): _latex_cell(board, row, task) for row in board.rows for task in board.tasks}
    names = {
        row.key: [row.rule, *([row.label.removeprefix(f"{row.rule} ")] if several else [])]
        for row in board.rows
    }
    room = _LETTERS_OF_A_LINE - max(2 * len(name) + sum(map(len, name)) for name in names.values())
    across = min(len(board.tasks), max(1, room // (2 + max(map(len, cells.values())))))
    left = [columns.RULE.label, *([columns.BACKEND.label] if several else [])]
    lines: list[list[list[str]]] = []
    for start in range(0, len(board.tasks), across):
        tasks = board.tasks[start : start + across]
        blank = [""] * (across - len(tasks))
        lines.append([[*left, *(_latex_head(board, task) for task in tasks), *blank]])
        for rows in board.groups.values():
            bold = {(key, task) for task in tasks for key in _best(board, rows, task)}
            lines.append(
                [
                    [
                        *names[row.key],
                        *(_in_bold(cells[row.key, task], (row.key, task) in bold) for task in tasks),
                        *blank,
                    ]
                    for row in rows
                ]
            )
    (heads,), *blocks = lines
    notes = [
        "Scores on the test split: means, with 95\u202f% intervals over tuning studies or runs; 0 is the "
        "trivial predictor, 1 is solved",
        *([f"On {', '.join(board.unscaled)}, the task's metric"] if board.unscaled else []),
        "Bold: the best, and those whose difference from it has a 95\u202f% interval (Welch) that contains 0",
    ]
    shown = "".join(cells.values())
    notes += [f"{sign}: {text}" for sign, text in _MARKS.items() if sign in shown]
    return latex_table(". ".join(notes), "tab:scores", heads, blocks, left)


def _best(board: Board, rows: Sequence[Standing], task: str) -> set[tuple[str, str, str]]:
    """The keys of the best of `rows` on one task, and of its equals."""
    cells = {row.key: row.cells[task] for row in rows if task in row.cells}
    return best_and_equals(cells, task not in board.unscaled)


def _in_bold(cell: str, bold: bool) -> str:
    return Markup(rf"\textbf{{{escaped(cell)}}}") if bold else cell


def _latex_head(board: Board, task: str) -> Markup:
    """A column's name in lines of few letters, with the metric where the scores are not normalised."""
    lines = [part for word in task.split() for part in re.findall(r"[^_]*_?", word) if part]
    if task in board.unscaled:
        first = next(row.cells[task] for row in board.rows if task in row.cells).records[0]
        lines.append(f"{first.metric} {'↓' if first.metric_direction == 'min' else '↑'}")
    return Markup(r"\shortstack[r]{" + r"\\".join(map(escaped, lines)) + "}")


def _latex_cell(board: Board, row: Standing, task: str) -> str:
    """A mean ± half of its interval, with the marks of the cell; how its runs ended if it has no mean."""
    cell = row.cells.get(task)
    if cell is None:
        return MISSING
    scaled = task not in board.unscaled
    found = mean(unit_means(cell, scaled))
    if found is None or all(r.status == "diverged" for r in cell.records):
        return cell.status
    sign = -1.0 if not scaled and cell.records[0].metric_direction == "min" else 1.0
    form, spread = (columns.IQM.form, columns.IQM.form) if scaled else (columns.TEST_SCORE.form, ".2g")
    text = format(sign * found.value, f"z{form}").replace("-", "−")
    text += f" ± {found.half:{spread}}" if found.half is not None else ""
    return text + "†" * any(r.status == "diverged" for r in cell.records) + "‡" * bool(cell.stale)


def score(cell: Entry) -> str:
    """The unbounded scores of a cell, or its metrics: `0.50 (0.40 … 0.60)`, median, worst and best."""
    values = cell.runs if cell.normalises else cell.metrics
    if not len(values):
        return cell.status
    if cell.normalises:
        return ranged(values.tolist(), columns.IQM.form)
    # Metrics are signed so that higher is better. The worst comes first, with its own sign.
    return ranged(
        values.tolist(), columns.TEST_SCORE.form, -1.0 if cell.records[0].metric_direction == "min" else 1.0
    )


def tasks_markdown(board: Board) -> str:
    """Normalised score of each row on each task, else its metric: median and range of the runs."""

    def cell(row: Standing, task: str) -> str:
        found = row.cells.get(task)
        if found is None:
            return "missing"
        if not len(found.metrics):
            return found.status
        notes = [] if found.status == f"{len(found.records)} ok" else [found.status]
        notes += ["stale"] if found.stale else []
        if task in board.unscaled and not found.stale:
            notes.append(f"place {board.places(board.groups[row.key[1:]], task)[row.key]}")
        return "; ".join([score(found), *notes])

    left = columns.RULE.label, columns.BACKEND.label
    rows = [
        (row.rule, " ".join(row.key[1:]), *(cell(row, task) for task in board.tasks)) for row in board.rows
    ]
    return markdown_table((*left, *board.tasks), rows, left)


def differences(board: Board) -> str:
    """Friedman's test and Nemenyi's critical difference, a line a backend and device."""
    lines = []
    for (backend, device), rows in board.groups.items():
        found = board.ranks(rows)
        if found is None:
            lines.append(
                f"- {plain(f'{backend} {device}')}: too few tasks or ranked rules for a test of ranks"
            )
            continue
        ranked, ranks = found
        order = ", ".join(
            f"{row.rule} {rank:.2f}"
            for rank, row in sorted(zip(ranks.mean_ranks, ranked, strict=True), key=lambda pair: pair[0])
        )
        lines.append(
            f"- {plain(f'{backend} {device}')}: Friedman χ² = {ranks.statistic:.3g}, p = {ranks.p:.2g}; "
            f"mean ranks that lie {ranks.critical_difference:.2f} or more apart differ (Nemenyi, 5 %): "
            f"{order}"
        )
    return "\n".join(lines) + "\n"


def versus_markdown(rows: Sequence[Versus]) -> str:
    """Rules beside their reference, a row each, with notes.

    ∞: half of the seeds or more never reached the level.
    """

    usual = all(row.cell == CELL for row in rows)
    shown = [column for column in columns.VERSUS if column is not columns.CELL or not usual]
    body = []
    for row in rows:
        difference = None
        if row.difference is not None:
            form = columns.DIFFERENCE.form
            difference = format(row.difference, form)
            if row.interval:
                difference += f" [{row.interval[0]:{form}}, {row.interval[1]:{form}}]"
            if row.scale != "normalised":
                difference += f" {row.scale}"
        own = {
            "task": row.task,
            "cell": row.cell,
            "backend": row.backend if row.device == "cpu" else f"{row.backend} {row.device}",
            "rule": row.rule,
            "studies": str(row.studies or MISSING),
            "difference": difference or MISSING,
            "verdict": f"{row.verdict}; stale: {row.stale}" if row.stale else row.verdict,
            "reached": row.reached or MISSING,
        }
        body.append([own[c.field] if c.field in own else c.text(getattr(row, c.field)) for c in shown])
    heads = [column.label for column in shown]
    table = markdown_table(heads, body, left=[column.label for column in shown if column.left])
    notes = "\n".join(f"- {plain(f'{note[:1].upper()}{note[1:]}.')}" for note in described(rows))
    return f"{table}\n{notes}" if rows else table


def exponents_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """A row a rule and backend, a column a quantity and axis: `1.98 (2)` is the exponent and the claimed one.

    ✓: held, ✗: not held; times are not judged. * marks a sweep whose largest sizes were left out. Rules are
    named with their cell unless this is the usual one.
    """
    swept = list(dict.fromkeys((row["quantity"], row["axis"]) for row in rows))
    cells: dict[tuple[str, str], dict[tuple[str, str], str]] = {}
    for row in rows:
        text = columns.EXPONENT.text(row["exponent"])
        text += "" if row["claimed"] is None else f" ({row['claimed']:g})"
        text += {True: " ✓", False: " ✗", None: ""}[row["held"]] + ("*" if row["left_out"] else "")
        rule = with_cell(row["learner"], row["cell"])
        cells.setdefault((rule, row["backend"]), {})[row["quantity"], row["axis"]] = text
    head = [
        columns.RULE.label,
        columns.BACKEND.label,
        *(f"{quantity.replace('_', ' ')} in {axis}" for quantity, axis in swept),
    ]
    lines = [head, ["---", "---", *["---:"] * len(swept)]]
    lines += [
        [*who, *(own.get(place, MISSING) for place in swept)]
        for who, own in sorted(cells.items(), key=lambda item: item[0])
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def again(verb: str, folders: Sequence[Path], *rest: str) -> str:
    """The command that makes something again from these results."""
    words = ["creditbench", *verb.split()]
    for folder in folders:
        words += ["--results", folder.as_posix()]
    return shlex.join([*words, *rest])


def code(command: str) -> str:
    """A command as code in a line of Markdown, safe for any name in it."""
    line = " ".join(command.splitlines())
    fence = "`" * (1 + max([0, *map(len, re.findall("`+", line))]))
    return f"{fence} {line} {fence}" if "`" in line else f"`{line}`"


def markdown(board: Board, folders: Sequence[Path]) -> str:
    """The page's twin."""
    results = board.results
    parts = ["# Leaderboard\n", f"Made by {code(again('leaderboard', folders, '--output', 'DIR'))}.\n"]
    parts += _remarks(board)
    parts += ["## Ranking\n", ranking_markdown(board), "## Score by task\n", tasks_markdown(board)]
    parts += ["## Ranks\n", differences(board)]
    for cost in columns.COSTS:
        lines = []
        for key, rows in board.groups.items():
            _, rho = board.profile(rows, cost)
            shares = [
                f"{row.rule} {own[0]:.2f}, {own[-1]:.2f}"
                for row, own in zip(rows, rho, strict=True)
                if own[-1] > 0
            ]
            lines.append(f"- {plain(' '.join(key))}: {'; '.join(shares) or 'no rule reaches a target'}")
        parts += [
            f"## Performance profile: {cost}\n",
            "Share of tasks on which the rule is the cheapest, and share that it solves at any cost.\n",
            "\n".join(lines) + "\n",
        ]
    if results.scaling:
        fits = {(p.learner, p.backend, p.axis, p.quantity): p for p in results.scaling}
        exponents = [
            (
                *key,
                interval(Interval(p.exponent, p.low, p.high), columns.EXPONENT.form),
                columns.CLAIMED.text(p.claimed),
                SIGNS[p.held],
            )
            for key, p in fits.items()
        ]
        heads = [column.label for column in columns.EXPONENTS]
        left = [column.label for column in columns.EXPONENTS if column.left]
        parts += ["## Scaling\n", markdown_table(heads, exponents, left)]
    if results.gradients:
        quality = []
        for g in results.gradients:
            place = (g.learner, g.backend, g.task, f"{g.point:g}")
            figures = (
                Interval(*(getattr(g, f"{c.field}{end}") for end in ("", "_low", "_high")))
                for c in columns.GRADIENTS
                if c is not columns.DRAWS_TO_COSINE
            )
            reached = "never" if g.draws_to_cosine is None else str(g.draws_to_cosine)
            quality.append((*place, *(interval(figure, ".3g") for figure in figures), reached))
        heads = [column.label for column in columns.QUALITY]
        left = [column.label for column in columns.QUALITY if column.left]
        parts += ["## Quality of gradients\n", markdown_table(heads, quality, left)]
    parts.append("## Rules\n")
    for learner, about in sorted(results.learners.items()):
        lines = [
            f"- {c.name}: {plain(c.claimed)}: {SIGNS[c.held]} ({plain(c.detail)})"
            for c in claims(results, learner)
        ]
        parts += [
            f"### {plain(learner)}: {plain(about['name'])}\n",
            f"{plain(about['family'])}; {plain(about['paper'])}\n",
            "\n".join(lines) + "\n",
        ]
    commands = [line for row in board.rows for cell in row.cells.values() for line in cell.commands]
    fence = "`" * max(3, *(1 + len(run) for line in commands for run in re.findall("`+", line)), 3)
    parts += ["## Hardware\n", hardware(board), "## Commands\n", f"{fence}sh", *commands, f"{fence}\n"]
    return "\n".join(parts)


def hardware(board: Board) -> str:
    """A line an environment, with the number of records made on it."""
    counts: dict[str, int] = {}
    known = {}
    for record in board.results.records:
        counts[record.environment_id] = counts.get(record.environment_id, 0) + 1
        known[record.environment_id] = record.environment
    lines = []
    for name, count in sorted(counts.items()):
        about = known[name]
        packages = ", ".join(f"{k} {v}" for k, v in sorted(about.get("packages", {}).items()))
        parts = [str(about.get("cpu", "unknown processor")), f"{about.get('cores', '?')} cores"]
        parts += [str(about[key]) for key in ("device_name", "system") if about.get(key)]
        parts += [f"Python {about['python']}"] if "python" in about else []
        commit = f"commit {about['commit'][:12]}" if about.get("commit") else ""
        dirty = "with changes" if about.get("dirty") else ""
        lines.append(
            f"- `{name}` ({count} trials): "
            f"{plain('; '.join(filter(None, [*parts, packages, commit, dirty])))}"
        )
    return "\n".join(lines) + "\n"


def readme(board: Board, target: Path, folders: Sequence[Path]) -> str:
    """The README of a version: the command that made it, and each table with the command that prints it."""
    results, here = board.whole or board.results, [target]
    points = sum(len(r.curve) for r in results.records) if results.points is None else results.points
    counts = {
        "trials.csv": (len(results.records), "a row a trial"),
        "curves.parquet": (points, "a row a point of a trial's curve"),
        "scaling.csv": (len(results.scaling), "a row a size, with the exponent of its sweep"),
        "gradients.csv": (len(results.gradients), "a row a rule, task and point of a BPTT run"),
        "checks.csv": (len(results.checks), "a row a check of a rule's source"),
        "verified.csv": (len(results.verified), "a row a submitted rule and task that were run again"),
    }
    files = [f"| `{name}` | {count} | {text} |" for name, (count, text) in counts.items() if count]
    return "\n".join(
        [
            f"# Results {plain(target.name)}\n",
            f"Made by {code(again('table', folders, '--compact', target.as_posix()))}; "
            f"as a page: {code(again('leaderboard', here, '--output', 'DIR'))}.\n",
            "| file | rows | |\n| --- | ---: | --- |\n" + "\n".join(files) + "\n",
            "`environments.json`: what the trials ran on; `manifest.json`: the rows that each file must "
            "hold, and the metadata of rules and tasks.\n",
            "## Ranking\n",
            f"{code(again('table', here, '--format', 'ranking'))}\n",
            *_remarks(board),
            ranking_markdown(board),
            "## Scores\n",
            f"{code(again('table', here, '--format', 'tasks'))}\n",
            tasks_markdown(board),
            "## Hardware\n",
            hardware(board),
        ]
    )
