"""Figures for print, made from records and from measurements.

Every figure is as wide as a column or a page (`WIDTHS`), has fonts that journals take (Type 42), and names
each mark, beside it or in a legend. A figure that leaves rows out says which.
"""

from __future__ import annotations

import functools
import io
import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, ParamSpec, TypeVar

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, LogFormatterSciNotation, LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import Bbox

from creditbench.errors import UsageError, unknown
from creditbench.leaderboard.board import Board, make_board, make_cells
from creditbench.leaderboard.charts import extent
from creditbench.machine import files
from creditbench.ops import BACKENDS
from creditbench.results import columns
from creditbench.results.store import stale
from creditbench.results.version import Results
from creditbench.trials.record import Record
from creditbench.trials.trial import with_cell

#: Widths of figures, in inches.
WIDTHS = {"column": 3.35, "page": 7.0}
Width = Literal["column", "page"]
#: The most lines of a panel that can be told apart.
MOST_LINES = 6
_TALLEST = 9.3  # inches of a page
_DPI = 200
_PRINT: Any = {
    # Type 42 keeps text as text; Type 3, the default, is refused by journals.
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "lines.linewidth": 1.2,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.constrained_layout.w_pad": 0.03,
    "figure.constrained_layout.h_pad": 0.03,
}
#: Colours that stay apart without red and green (Okabe & Ito 2008); their yellow is too light for print.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000000", "#e69f00", "#56b4e9")
#: Marks that go round with the colours.
_MARKS = "osD^vPX"


class _Style(NamedTuple):
    """How a backend is drawn."""

    line: Any
    colour: str
    mark: str
    filled: bool

    @property
    def size(self) -> float:
        return 2.5 if self.filled else 4

    @property
    def face(self) -> str:
        return self.colour if self.filled else "none"


_BACKENDS = dict(
    zip(
        BACKENDS,
        itertools.cycle((_Style("-", "#0072b2", "o", True), _Style(":", "#d55e00", "s", False))),
        strict=False,
    )
)


P = ParamSpec("P")
R = TypeVar("R")


def _for_print(draw: Callable[P, R]) -> Callable[P, R]:
    """A function that draws with the fonts and lines of print."""

    @functools.wraps(draw)
    def drawn(*arguments: P.args, **given: P.kwargs) -> R:
        with matplotlib.rc_context(_PRINT):
            return draw(*arguments, **given)

    return drawn


class PrintFigure(Figure):
    """A figure for print: it is written with fonts that journals take, and a notebook shows it.

    It is none of pyplot's, which keeps figures alive, and has a backend of the user's.
    """

    notes: Sequence[str] = ()  #: what is left out, and why

    def savefig(self, *arguments: Any, **given: Any) -> None:
        """As of any figure, with the fonts of print. The suffix of a file names its format."""
        with matplotlib.rc_context(_PRINT):
            super().savefig(*arguments, **{"dpi": _DPI, **given})

    def _repr_png_(self) -> bytes:
        picture = io.BytesIO()
        self.savefig(picture, format="png", dpi=110)
        return picture.getvalue()


def _subplots(rows: int, across: int, width: Width, height: float, **shared: Any) -> tuple[PrintFigure, Any]:
    """A figure of a height in inches and its panels [rows, across]."""
    figure = PrintFigure(figsize=(WIDTHS[width], height), layout="constrained")
    return figure, figure.subplots(rows, across, squeeze=False, **shared)


def _wrapped(count: int, most: int) -> tuple[int, int]:
    """Rows and columns of `count` panels, at most `most` side by side, with as few empty places as can be."""
    rows = -(-count // most)
    return rows, -(-count // rows)


def _legend(figure: Figure, marks: Sequence[Line2D]) -> float:
    """A legend below the panels, in as many columns as fit; returns the inches that its lines take."""
    longest = max(len(str(mark.get_label())) for mark in marks)
    across = max(1, min(len(marks), int(figure.get_figwidth() / (0.38 + 0.055 * longest))))
    figure.legend(
        handles=marks,
        loc="outside lower center",
        ncols=across,
        frameon=False,
        columnspacing=1.0,
        handlelength=1.8,
    )
    return 0.16 * -(-len(marks) // across)


def _grow(figure: Figure, inches: float) -> None:
    """Make a figure taller."""
    figure.set_figheight(figure.get_figheight() + inches)


def _styles(rules: Sequence[str]) -> dict[str, tuple[str, str]]:
    """A colour and a mark a rule; no two of 49 rules have both in common."""
    count = len(_COLOURS)
    return {
        rule: (_COLOURS[i % count], _MARKS[(i + i // count) % len(_MARKS)]) for i, rule in enumerate(rules)
    }


def _of_backends(backends: Sequence[str]) -> list[Line2D]:
    """Entries of a legend for the lines of backends; none if there is one."""
    return [
        Line2D([], [], color="0.2", linestyle=_BACKENDS[name].line, label=name)
        for name in (backends if len(backends) > 1 else ())
    ]


class _Few(NamedTuple):
    """Rules and backends whose lines a panel has room for, and those that are left out."""

    rules: list[str]
    backends: list[str]
    note: str

    @classmethod
    def of(cls, ordered: Sequence[str], backends: Sequence[str]) -> _Few:
        """The first of the `ordered` rules under one backend, and under others if there is room for all."""
        rules, known = list(ordered[:MOST_LINES]), [name for name in _BACKENDS if name in backends]
        kept = known[: max(1, MOST_LINES // max(1, len(rules)))]
        left_out = [*sorted(ordered[len(rules) :]), *known[len(kept) :]]
        note = (
            f"left out, since a panel has room for {MOST_LINES} lines: {', '.join(left_out)}; "
            "--rule and --backend name others"
        )
        return cls(rules, kept, note if left_out else "")


# -- curves ----------------------------------------------------------------------------------------------


@_for_print
def curves(records: Sequence[Record], width: Width = "page") -> PrintFigure:
    """Draw the validation metric against training steps: a panel a task, a colour a rule, a line a backend.

    Lines are medians over seeds, bands reach from the lower to the upper quartile; a dashed line marks the
    trivial predictor. Axes are those of the page (`extent`). If a rule has several settings, those of the
    leaderboard are drawn (`make_cells`). Stale records are left out, and diverged seeds end where they
    diverged.

    A panel has at most `MOST_LINES` lines: of the rules whose curves end best, by their mean place over the
    tasks. Raises `UsageError` without anything to draw.
    """
    drawn: dict[str, dict[tuple[str, str], list[Record]]] = {}
    for (rule, backend, _), cells in sorted(make_cells(Results(tuple(records))).items()):
        for task, cell in cells.items():
            seeds = [r for r in cell.records if any(p.validation is not None for p in r.curve)]
            if seeds and not cell.stale:
                drawn.setdefault(task, {})[rule, backend] = seeds
    if not drawn:
        raise UsageError("there are no curves to draw, or all are stale: make some with creditbench run")
    few = _Few.of(_by_end(drawn), sorted({backend for lines in drawn.values() for _, backend in lines}))
    tasks, styles = sorted(drawn), _styles(few.rules)
    rows, across = _wrapped(
        len(tasks), (2 if len(tasks) in (2, 4) else 3) if width == "page" else 1 + (len(tasks) > 4)
    )
    figure, axes = _subplots(rows, across, width, 0.3 + 1.7 * rows)
    for place, (ax, task) in enumerate(zip(axes.flat, tasks, strict=False)):
        own = [record for seeds in drawn[task].values() for record in seeds]
        bands = {key: _band(seeds) for key, seeds in drawn[task].items()}
        for rule, backend in itertools.product(few.rules, few.backends):
            if (rule, backend) not in bands:
                continue
            steps, low, middle, high = bands[rule, backend]
            colour, _ = styles[rule]
            ax.plot(steps, middle, _BACKENDS[backend].line, color=colour)
            ax.fill_between(steps, low, high, color=colour, alpha=0.12, linewidth=0)
        trivials = [r.trivial for r in own if r.trivial is not None]
        trivial = float(np.mean(trivials)) if trivials else None
        if trivial is not None:
            ax.axhline(trivial, color="0.4", linestyle="--", linewidth=0.8)
        known = [r.solved for r in own if r.solved is not None]
        solved = float(np.mean(known)) if known else None
        medians = [middle.tolist() for _, _, middle, _ in bands.values()]
        ax.set_ylim(*extent(medians, trivial, solved, own[0].metric_direction))
        ax.set(title=task, ylabel=own[0].metric)
        if place + across >= len(tasks):
            ax.set_xlabel("training time steps")
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    for ax in list(axes.flat)[len(tasks) :]:
        ax.set_visible(False)
    marks = [Line2D([], [], color=styles[rule][0], label=rule) for rule in few.rules]
    marks += _of_backends(few.backends)
    marks.append(Line2D([], [], color="0.4", linestyle="--", linewidth=0.8, label="trivial"))
    _grow(figure, _legend(figure, marks))
    figure.notes = [few.note] if few.note else []
    return figure


def _by_end(drawn: Mapping[str, Mapping[tuple[str, str], Sequence[Record]]]) -> list[str]:
    """The rules, best first, by the mean over tasks of the place at which their curves end."""
    rules = sorted({rule for lines in drawn.values() for rule, _ in lines})
    places: dict[str, list[int]] = {rule: [] for rule in rules}
    for lines in drawn.values():
        ends: dict[str, float] = {}
        for (rule, _), seeds in lines.items():
            sign = 1.0 if seeds[0].metric_direction == "min" else -1.0
            # A seed that diverged has no end.
            last = [_last(seed) if seed.status == "ok" else np.inf for seed in seeds]
            ends.setdefault(rule, float(np.median([sign * value for value in last])))
        for rule in rules:
            own = ends.get(rule, np.inf)
            places[rule].append(sum(other < own for other in ends.values()))
    return sorted(rules, key=lambda rule: (float(np.mean(places[rule])), rule))


def _last(record: Record) -> float:
    """The last score on validation of a curve."""
    return next(p.validation for p in reversed(record.curve) if p.validation is not None)


def _band(seeds: Sequence[Record]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Steps, and the quartiles of the seeds that have a finite score there."""
    at: dict[int, list[float]] = {}
    for record in seeds:
        for point in record.curve:
            if point.validation is not None:
                at.setdefault(point.step, []).append(point.validation)
    steps = np.array(sorted(at))
    low, middle, high = np.array([np.quantile(at[step], (0.25, 0.5, 0.75)) for step in steps]).T
    return steps, low, middle, high


# -- measurements ----------------------------------------------------------------------------------------


@_for_print
def scaling(
    points: Sequence[Mapping[str, Any]], fits: Sequence[Mapping[str, Any]], width: Width = "page"
) -> PrintFigure:
    """Draw cost against one size: a panel a learner in a block a quantity, a colour and mark a backend.

    Points are medians of blocks, their bars quartiles; the number beside a backend's mark is its fitted
    exponent. A dashed line through the last point has the slope that the rule claims. The panels of a block
    have one scale.
    """
    learners, quantities = (list(dict.fromkeys(p[k] for p in points)) for k in ("learner", "quantity"))
    axis = points[0]["axis"]
    most = 3 if width == "column" else 6 if len(learners) <= 18 else 8
    rows, across = _wrapped(len(learners), most)
    fitted = {(f["learner"], f["quantity"], f["backend"]): f for f in fits if f["axis"] == axis}
    high = min(1.15, max(0.7, (_TALLEST - 0.6) / (rows * len(quantities)) - 0.1))
    figure, axes = _subplots(
        rows * len(quantities), across, width, 0.5 + (high + 0.1) * rows * len(quantities), sharex=True
    )
    room_of_a_title = 72 * WIDTHS[width] / across / 0.65  # points, over the width of a letter
    used = [name for name in _BACKENDS if any(p["backend"] == name for p in points)]
    shown = sorted({p["size"] for p in points})
    for number, quantity in enumerate(quantities):
        block = axes[number * rows : (number + 1) * rows]
        sweeps = {
            (learner, backend): own
            for learner, backend in itertools.product(learners, used)
            if (
                own := sorted(
                    (
                        p
                        for p in points
                        if (p["learner"], p["quantity"], p["backend"]) == (learner, quantity, backend)
                    ),
                    key=lambda p: p["size"],
                )
            )
        }
        values = [v for own in sweeps.values() for p in own for v in p["values"]]
        for (learner, backend), own in sweeps.items():
            values += _claimed(own, fitted[learner, quantity, backend])[1].tolist()
        values = [v for v in values if v > 0]
        low, top = min(values, default=1.0), max(values, default=1.0)
        room = max(10.0, top / low) ** 0.1
        for place, ax in enumerate(block.flat):
            if place >= len(learners):
                ax.set_visible(False)
                continue
            learner = learners[place]
            ax.set(xscale="log", yscale="log", ylim=(low / room, top * room**4))  # room for the exponents
            for line, backend in enumerate(name for name in used if (learner, name) in sweeps):
                own, fit = sweeps[learner, backend], fitted[learner, quantity, backend]
                _sweep(ax, own, fit, _BACKENDS[backend], line)
            ax.set_title(learner, fontsize=min(7.0, room_of_a_title / len(learner)), pad=2)
            ax.tick_params(which="both", labelsize=6, labelleft=place % across == 0, pad=1.5)
            ax.yaxis.set_major_locator(LogLocator(numticks=4, subs=(1, 2, 5) if top < 10 * low else (1,)))
            ax.yaxis.set_major_formatter(LogFormatterSciNotation(minor_thresholds=(np.inf, np.inf)))
            ax.yaxis.set_minor_locator(NullLocator())
            ax.set_xticks(shown[:: max(1, -(-len(shown) // 3))], minor=False)
            ax.xaxis.set_major_formatter("{x:g}")
            ax.xaxis.set_minor_locator(NullLocator())
        block[rows // 2][0].set_ylabel(columns.QUANTITIES[quantity].axis)
    lowest = [ax for ax in axes[-1] if ax.get_visible()]
    for ax in lowest if across <= 3 else [lowest[len(lowest) // 2]]:
        ax.set_xlabel(columns.AXES[axis])
    marks = [
        Line2D(
            *([], []),
            color=style.colour,
            marker=style.mark,
            markersize=style.size,
            markerfacecolor=style.face,
            linewidth=1,
            label=f"{name}, with its fitted exponent",
        )
        for name, style in _BACKENDS.items()
        if name in used
    ]
    marks.append(Line2D([], [], color="0.35", linestyle="--", linewidth=0.8, label="slope claimed"))
    _grow(figure, _legend(figure, marks))
    return figure


def _sweep(
    ax: Any, points: Sequence[Mapping[str, Any]], fit: Mapping[str, Any], style: _Style, line: int
) -> None:
    """The points of one sweep in a panel, the slope that is claimed, and the exponent number `line`."""
    sizes = np.array([p["size"] for p in points])
    low, middle, high = np.array([np.quantile(p["values"], (0.25, 0.5, 0.75)) for p in points]).T
    ax.errorbar(
        sizes,
        middle,
        yerr=(middle - low, high - middle),
        color=style.colour,
        marker=style.mark,
        markersize=style.size,
        markerfacecolor=style.face,
        linewidth=0.9,
        elinewidth=0.6,
    )
    ax.plot(*_claimed(points, fit), "--", color="0.35", linewidth=0.8, zorder=3)
    ax.text(
        0.05 + 0.32 * line,
        0.97,
        f"{fit['exponent']:z.2f}".replace("-", "−"),
        color=style.colour,
        transform=ax.transAxes,
        va="top",
        fontsize=6.5,
    )


def _claimed(points: Sequence[Mapping[str, Any]], fit: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """The upper half of the sizes, and the claimed slope through the last point; empty without a claim."""
    if fit["claimed"] is None:
        return np.array([]), np.array([])
    sizes = np.array([p["size"] for p in points])
    upper = sizes[sizes >= np.sqrt(sizes[0] * sizes[-1])]
    return upper, np.median(points[-1]["values"]) * (upper / sizes[-1]) ** fit["claimed"]


@_for_print
def gradients(rows: Sequence[Mapping[str, Any]], width: Width = "page") -> PrintFigure:
    """Draw the quality of gradients: a block a task, a line a rule, a panel a figure, a shade a point.

    Bars are 95 % intervals. A rule whose mean never reaches the cosine has a hollow mark at the right edge of
    its panel. A variance of 0 is not drawn.
    """
    shown = {column.field: column.axis for column in columns.GRADIENTS}
    tasks, learners, points = (list(dict.fromkeys(r[k] for r in rows)) for k in ("task", "learner", "point"))
    backends = [b for b in _BACKENDS if any(r["backend"] == b for r in rows)]
    shades = dict(
        zip(points, matplotlib.colormaps["viridis"](np.linspace(0.0, 0.85, len(points))), strict=True)
    )
    places = len(points) * len(backends)
    lines, across = _wrapped(len(shown), 4 if width == "page" else 2)
    blocks = len(tasks) * lines
    # As high as is good to read; less, down to the height of a name, if a page would not have room.
    high = len(learners) * max(0.115, min(0.1 + 0.035 * places, (_TALLEST / blocks - 0.5) / len(learners)))
    size = min(2.5, 72 * 0.8 * high / len(learners) / places)
    figure, axes = _subplots(blocks, across, width, 0.2 + (high + 0.5) * blocks, sharey=True)
    for name, panels in zip(shown, axes.reshape(len(tasks), -1).T, strict=False):
        known = [v for r in rows for v in (r[name], *r[f"{name}_interval"]) if v is not None and v > 0]
        end = 3 * max(known, default=1.0)
        for ax, task in zip(panels, tasks, strict=True):
            if name == "bias":
                ax.set_xscale("symlog", linthresh=1.0)
            elif name != "cosine":
                ax.set_xscale("log")
            for row in (r for r in rows if r["task"] == task):
                place = points.index(row["point"]) * len(backends) + backends.index(row["backend"])
                y = learners.index(row["learner"]) + 0.8 * ((place + 0.5) / places - 0.5)
                _quality(ax, row, name, y, end, shades[row["point"]], size)
            ax.set_title(shown[name], fontsize=7, pad=3)
            ax.set_yticks(range(len(learners)), learners)
            ax.set_ylim(len(learners) - 0.4, -0.6)
            ax.tick_params(axis="both", which="both", labelsize=6.5)
            ax.tick_params(axis="y", length=0)
            ax.grid(axis="x", linewidth=0.3, color="0.85")
            for line in range(1, len(learners)):
                ax.axhline(line - 0.5, linewidth=0.3, color="0.85", zorder=0)
            if name in ("variance", "draws_to_cosine"):
                _few_ticks(ax)
            elif name == "bias":
                _few_of_symlog(ax, end / 3)
    for number, panels in enumerate(axes):
        panels[0].set_ylabel(tasks[number // lines])
    marks = [
        Line2D(
            *([], []),
            color=shade,
            marker="o",
            markersize=4,
            linestyle="",
            label=f"after {point:g} of a bptt run",
        )
        for point, shade in shades.items()
    ]
    if len(backends) > 1:
        marks += [
            Line2D([], [], color="0.3", marker=_BACKENDS[b].mark, markersize=4, linestyle="", label=b)
            for b in backends
        ]
    if any(row[name] is None for row in rows for name in shown):
        hollow = {"marker": "o", "markerfacecolor": "none", "markersize": 4, "linestyle": ""}
        marks.append(Line2D([], [], color="0.3", label="never", **hollow))  # type: ignore[arg-type]
    _grow(figure, _legend(figure, marks))
    return figure


def _few_of_symlog(ax: Any, greatest: float) -> None:
    """Ticks at 0 and at some powers of ten of an axis that is linear up to 1."""
    powers = range(max(1, int(np.ceil(np.log10(max(greatest, 1.0)))) + 1))
    ax.set_xticks([0.0, *(10.0**power for power in list(powers)[:: max(1, len(powers) // 3)])])
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_locator(NullLocator())


def _quality(
    ax: Any, row: Mapping[str, Any], name: str, y: float, end: float, colour: Any, size: float
) -> None:
    """One figure of one rule, with its interval, at the height `y`."""
    marker, value = _BACKENDS[row["backend"]].mark, row[name]
    if value is None:
        ax.plot(end, y, marker, markersize=size, markerfacecolor="none", color=colour)
        return
    if name in ("variance", "draws_to_cosine") and not value > 0:
        return
    low, high = row[f"{name}_interval"]
    low = value if low is None or (name == "variance" and low <= 0) else low
    high = end if high is None else high
    bars = [[value - min(low, value)], [max(high, value) - value]]
    ax.errorbar(value, y, xerr=bars, fmt=marker, markersize=size, color=colour, elinewidth=0.7)


# -- boards ----------------------------------------------------------------------------------------------


def _few_ticks(ax: Any) -> None:
    """About four plain numbers on a logarithmic x axis of any length."""
    low, high = ax.get_xlim()
    few = MaxNLocator(3) if high < 3 * low else LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,))
    ax.xaxis.set_major_locator(few)
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))


@_for_print
def pareto(board: Board, width: Width = "page") -> PrintFigure:
    """Draw each rule's score against × forward and against algorithm bytes, with a line on each front.

    Each backend has a front. Bars are 95 % intervals of the interquartile mean. Each rule has a colour and a
    mark; rules on a front are filled, and named where there is room; those of a second backend have
    a dot within. Scores far below all others are at the lower edge, with their number. Rows that lack a task
    are left out if there are others.
    """
    groups = {key: [row for row in rows if board.complete(row)] for key, rows in board.groups.items()}
    groups = {key: rows for key, rows in groups.items() if rows} or board.groups
    every = [row for rows in groups.values() for row in rows]
    left_out = [f"{row.rule} {row.backend}" for row in board.rows if row not in every]
    styles = _styles(list(dict.fromkeys(row.rule for row in every)))
    used = [name for name in _BACKENDS if any(name == backend for backend, _ in groups)]
    rows, across = (1, len(columns.FRONTS)) if width == "page" else (len(columns.FRONTS), 1)
    figure, axes = _subplots(rows, across, width, 2.6 * rows, sharey=True)
    floor = _floor([row.scores["iqm"].value for row in every if row.scores])
    seen, named, points = set(), [], []
    for ax, column in zip(axes.flat, columns.FRONTS, strict=True):
        for (backend, _), group in groups.items():
            placed = []
            for row, on in zip(group, board.front(group, column.field), strict=True):
                value = row.cost(column.field)
                if value is None or not row.scores:
                    continue
                seen.add(row.rule)
                score = row.scores["iqm"]
                colour, mark = styles[row.rule]
                points.append((ax, (value, max(score.value, floor))))
                if backend in used[1:]:
                    dot = "white" if on else colour
                    ax.plot(value, max(score.value, floor), ".", color=dot, markersize=2, zorder=3)
                if score.value < floor:
                    ax.plot(value, floor, mark, color=colour, markerfacecolor="none", markersize=4)
                    named.append((ax, f"{score.value:.1f} ↓".replace("-", "−"), (value, floor), True))
                    continue
                ax.errorbar(
                    value,
                    score.value,
                    # An interval of percentiles need not contain the value.
                    [[max(0.0, score.value - score.low)], [max(0.0, score.high - score.value)]],
                    fmt=mark,
                    color=colour,
                    markerfacecolor=colour if on else "none",
                    markersize=4.5 if on else 4,
                    elinewidth=0.6,
                )
                if on:
                    placed.append((value, score.value))
                    name = row.rule if len(used) == 1 else f"{row.rule} {backend}"
                    named.append((ax, name, (value, score.value), False))
            if placed:
                ax.step(
                    *zip(*sorted(placed), strict=True), where="post", color="0.6", linewidth=0.7, zorder=0
                )
        ax.set(xscale="log", xlabel=column.axis)
        ax.margins(x=0.12)
        _few_ticks(ax)
        ax.set_ylabel("normalised score (IQM)" if across == 1 or ax is axes[0][0] else "")
    if np.isfinite(floor):
        high = axes[0][0].get_ylim()[1]
        axes[0][0].set_ylim(floor - 0.05 * (high - floor), high)
    marks = [
        Line2D([], [], color=c, marker=m, linestyle="", markersize=4, markerfacecolor="none", label=rule)
        for rule, (c, m) in styles.items()
        if rule in seen
    ]
    marks += [
        Line2D([], [], color="0.2", marker=mark, linestyle="", markersize=5, mew=0.2, label=backend)
        for mark, backend in (zip((r"$\circ$", r"$\odot$"), used, strict=False) if len(used) > 1 else ())
    ]
    marks.append(Line2D([], [], color="0.6", linewidth=0.7, label="front (filled)"))
    _grow(figure, _legend(figure, marks))
    _name(figure, named, points)
    if left_out:
        figure.notes = [f"left out, since they lack a score on some task: {', '.join(left_out)}"]
    return figure


def _floor(scores: Sequence[float]) -> float:
    """The score below which others would press all the rest together; -inf if there is none."""
    if not scores:
        return -np.inf
    low, high = np.quantile(scores, (0.25, 0.75))
    floor = float(min(low - 1.5 * (high - low), 0.0) - 0.1)
    return floor if min(scores) < floor else -np.inf


def _name(
    figure: Figure,
    named: Sequence[tuple[Any, str, tuple[float, float], bool]],
    points: Sequence[tuple[Any, tuple[float, float]]],
) -> None:
    """Write texts beside points, each where it hides no other; without such a place, only if it must be."""
    figure.canvas.draw()
    half = 3 / 72 * figure.dpi  # of a mark
    taken: list[Any] = []
    for ax, point in points:
        x, y = ax.transData.transform(point)
        taken.append(Bbox([[x - half, y - half], [x + half, y + half]]))
    for ax, text, point, needed in named:
        for right, up, side in (
            (4, 4, "left"),
            (4, -9, "left"),
            (-4, 4, "right"),
            (-4, -9, "right"),
            (4, 12, "left"),
        ):
            note = ax.annotate(
                text,
                point,
                xytext=(right, up),
                textcoords="offset points",
                ha=side,
                fontsize=6.5,
                annotation_clip=True,
            )
            note.set_in_layout(False)
            box, panel = note.get_window_extent(), ax.get_window_extent()
            inside = panel.x0 <= box.x0 and box.x1 <= panel.x1 + 6 and box.y1 <= panel.y1
            if inside and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            note.remove()
        else:
            if needed:
                ax.annotate(text, point, xytext=(4, 4), textcoords="offset points", fontsize=6.5)


@_for_print
def profiles(board: Board, width: Width = "page") -> PrintFigure:
    """Draw the performance profiles: a panel a cost, a colour a rule, a line a backend.

    ρ(τ) is the share of tasks that a rule brings to its target within τ × the cost of the cheapest rule of
    its backend. A panel has at most `MOST_LINES` lines: of the rules with the highest profiles, on average
    over log τ and the costs.
    """
    found: dict[str, dict[tuple[str, str], tuple[Any, Any]]] = {cost: {} for cost in columns.COSTS}
    heights: dict[str, list[float]] = {}
    for cost in columns.COSTS:
        for (backend, _), rows in board.groups.items():
            tau, rho = board.profile(rows, cost)
            for row, own in zip(rows, rho, strict=True):
                if own[-1] > 0:
                    found[cost][row.rule, backend] = tau, own
                    steps = np.diff(np.log(tau))
                    heights.setdefault(row.rule, []).append(float((own[:-1] * steps).sum() / steps.sum()))
    ordered = sorted(heights, key=lambda rule: (-float(np.mean(heights[rule])), rule))
    few = _Few.of(ordered, [backend for backend, _ in board.groups])
    styles = _styles(few.rules)
    lines, across = _wrapped(len(columns.COSTS), 3 if width == "page" else 1)
    figure, axes = _subplots(lines, across, width, 0.2 + 2.0 * lines, sharey=True)
    for ax, (cost, column) in zip(axes.flat, columns.COSTS.items(), strict=True):
        for shift, (rule, backend) in enumerate(itertools.product(few.rules, few.backends)):
            if (rule, backend) in found[cost]:
                tau, own = found[cost][rule, backend]
                # Shifted a little, so that no line hides another.
                height = np.where(own > 0, own + 0.008 * (shift - (len(few.rules) - 1) / 2), 0)
                ax.step(tau, height, _BACKENDS[backend].line, where="post", color=styles[rule][0])
        ax.set(xscale="log", xlabel=f"τ, × least {column.name}", ylim=(0, 1.03))
        _few_ticks(ax)
        ax.set_ylabel("ρ(τ), share of tasks" if across == 1 or ax is axes[0][0] else "")
    marks = [Line2D([], [], color=styles[rule][0], label=rule) for rule in few.rules]
    if marks := [*marks, *_of_backends(few.backends)]:
        _grow(figure, _legend(figure, marks))
    figure.notes = [few.note] if few.note else []
    return figure


@_for_print
def units(records: Sequence[Record], width: Width = "page") -> PrintFigure:
    """Draw the normalised test score against hidden units: a panel a task, a colour a rule, a line a backend.

    Lines are medians over runs; bars reach from the worst to the best. A run that diverged lies below all
    others, on the lower edge of the panel, which is labelled so. Stale records are left out. Raises
    `UsageError` if all have the same number of units.
    """
    scores: dict[tuple[str, str, str], dict[int, list[float]]] = {}
    for r in records:
        score = -np.inf if r.status == "diverged" else r.normalised_score
        if not stale(r) and score is not None:
            at = scores.setdefault((r.trial.task, r.trial.rule, r.trial.backend), {})
            at.setdefault(r.trial.hidden, []).append(score)
    sizes = sorted({size for at in scores.values() for size in at})
    if len(sizes) < 2:
        raise UsageError("there are not two numbers of units: run the same grid with another --hidden beside")
    tasks, rules, backends = (sorted({key[i] for key in scores}) for i in range(3))
    lines, across = _wrapped(len(tasks), 3 if width == "page" else 1)
    figure, axes = _subplots(lines, across, width, 0.3 + 2.2 * lines, sharey=True)
    styles = _styles(rules)
    finite = [v for at in scores.values() for own in at.values() for v in own if np.isfinite(v)]
    lost = any(not np.isfinite(v) for at in scores.values() for own in at.values() for v in own)
    low_end, high_end = min([0.0, *finite]), max([1.0, *finite])
    floor = low_end - 0.15 * (high_end - low_end)
    for ax, task in zip(axes.flat, tasks, strict=False):
        for (of, rule, backend), at in sorted(scores.items()):
            if of != task:
                continue
            # Shifted, so that the bars of one rule do not hide those of another.
            shift = 1.03 ** (rules.index(rule) - (len(rules) - 1) / 2)
            x = np.array(sorted(at))
            ends = [np.maximum(np.sort(at[size]), floor) for size in x]
            low, middle, high = np.array([(v[0], v[(len(v) - 1) // 2], v[-1]) for v in ends]).T
            ax.errorbar(
                x * shift,
                middle,
                (middle - low, high - middle),
                color=styles[rule][0],
                linestyle=_BACKENDS[backend].line,
                marker=styles[rule][1],
                markersize=3,
                elinewidth=0.6,
            )
        ax.set(xscale="log", title=task, xlabel=columns.AXES["n"])
        ax.set_xticks(sizes)
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_locator(NullLocator())
        for level in (0.0, 1.0):
            ax.axhline(level, color="0.4", linestyle="--", linewidth=0.8, zorder=0)
        if lost:
            ax.axhline(floor, color="0.6", linewidth=0.8, zorder=0)
            ax.text(
                0.02,
                floor,
                "diverged",
                transform=ax.get_yaxis_transform(),
                va="bottom",
                fontsize=7,
                color="0.4",
            )
    for ax in list(axes.flat)[len(tasks) :]:
        ax.set_visible(False)
    axes[0][0].set_ylabel("normalised test score")
    marks = [Line2D([], [], color=c, marker=m, markersize=3, label=rule) for rule, (c, m) in styles.items()]
    marks += _of_backends(backends)
    marks.append(Line2D([], [], color="0.4", linestyle="--", linewidth=0.8, label="trivial, solved"))
    _grow(figure, _legend(figure, marks))
    return figure


def _by_name(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Measurements whose learners are named with their cell, if there are several cells."""
    if len({row["cell"] for row in rows}) < 2:
        return list(rows)
    return [{**row, "learner": with_cell(row["learner"], row["cell"])} for row in rows]


def _measured_scaling(results: Results, axis: str, width: Width) -> PrintFigure:
    points = [p for p in results.scaling if p.axis == axis]
    if not points:
        known = ", ".join(sorted({p.axis for p in results.scaling})) or "none"
        raise UsageError(
            f"there is no scaling in {axis} (known: {known}): measure it with creditbench scale, "
            "with the folder scaling in the results as --output"
        )
    fits = {
        (p.learner, p.cell, p.backend, p.quantity): p.model_dump() | {"interval": [p.low, p.high]}
        for p in points
    }
    values = [p.model_dump() | {"values": [p.value]} for p in points]
    return scaling(_by_name(values), _by_name(list(fits.values())), width)


def _measured_gradients(results: Results, width: Width) -> PrintFigure:
    if not results.gradients:
        raise UsageError(
            "there are no gradients: measure them with creditbench gradients, "
            "with the folder gradients in the results as --output"
        )
    names = [column.field for column in columns.GRADIENTS]
    rows = []
    for found in results.gradients:
        values = found.model_dump()
        rows.append(
            values | {f"{name}_interval": [values[f"{name}_low"], values[f"{name}_high"]] for name in names}
        )
    return gradients(_by_name(rows), width)


def draw_scaling(
    points: Sequence[Mapping[str, Any]], fits: Sequence[Mapping[str, Any]], folder: Path
) -> None:
    """Draw `scaling` for each axis as PDF and PNG into a folder. Raises `UsageError` if that fails."""
    for axis in dict.fromkeys(point["axis"] for point in points):
        own = [point for point in _by_name(points) if point["axis"] == axis]
        _draw_both(folder, f"scaling_{axis}", partial(scaling, own, _by_name(fits)))


def draw_gradients(rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Draw `gradients` as PDF and PNG into a folder. Raises `UsageError` if that fails."""
    _draw_both(folder, "gradients", partial(gradients, _by_name(rows)))


def _draw_both(folder: Path, name: str, make: Callable[[], PrintFigure]) -> None:
    with files.output("output", folder, "name another folder"):
        figure = make()
        for suffix in ("pdf", "png"):
            with files.replacing(folder / f"{name}.{suffix}") as (new,):
                figure.savefig(new)


FIGURES = ("curves", "units", "scaling", "gradients", "pareto", "profiles")


def draw(name: str, results: Results, axis: str = "T", width: Width = "page") -> PrintFigure:
    """One of `FIGURES`, with notes on what it leaves out; `axis` is for `scaling`.

    Raises `UsageError` if there are no data for it, and for a name that is none.
    """
    if name not in FIGURES:
        raise unknown("figure", name, FIGURES, "creditbench figure --help")
    if width not in WIDTHS:
        raise UsageError(f"--width is {width}: give column or page")
    if name == "curves":
        return curves(results.records, width)
    if name == "units":
        return units(results.records, width)
    if name == "scaling":
        return _measured_scaling(results, axis, width)
    if name == "gradients":
        return _measured_gradients(results, width)
    board = make_board(results)
    figure = {"pareto": pareto, "profiles": profiles}[name](board, width)
    figure.notes = [*filter(None, [board.of_cell]), *figure.notes]
    return figure
