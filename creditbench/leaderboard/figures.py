"""Figures for print, made from records and from measurements."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullLocator

from creditbench.errors import UsageError
from creditbench.leaderboard.board import Board, make_board, make_cells
from creditbench.leaderboard.charts import extent
from creditbench.machine import files
from creditbench.ops import BACKENDS
from creditbench.results import columns
from creditbench.results.store import stale
from creditbench.results.version import Results
from creditbench.trials.record import Record


class _Style(NamedTuple):
    """How a backend is drawn."""

    line: Any
    colour: str
    mark: str
    filled: bool

    @property
    def size(self) -> int:
        return 3 if self.filled else 5

    @property
    def face(self) -> str:
        return self.colour if self.filled else "none"


_BACKENDS = dict(
    zip(
        BACKENDS,
        itertools.cycle((_Style("-", "tab:blue", "o", True), _Style(":", "tab:orange", "s", False))),
        strict=False,
    )
)


def curves(records: Sequence[Record], output: Path) -> None:
    """Draw the validation metric against training steps: a panel a task, a colour a rule, a line a backend.

    Lines are medians over seeds, bands reach from the worst to the best seed; a dashed line marks the trivial
    predictor. Axes are those of the page (`extent`). If a rule has several settings, those of the leaderboard
    are drawn (`make_cells`). Stale records are left out, and diverged seeds end where they diverged. The
    suffix of `output` names the format (png, pdf, svg). Raises `UsageError` if there is nothing to draw.
    """

    drawn: dict[str, list[tuple[str, str, list[Record]]]] = {}
    for (rule, backend, _), cells in sorted(make_cells(Results(tuple(records))).items()):
        for task, cell in cells.items():
            seeds = [r for r in cell.records if any(p.validation is not None for p in r.curve)]
            if seeds and not cell.stale:
                drawn.setdefault(task, []).append((rule, backend, seeds))
    if not drawn:
        raise UsageError("there are no curves to draw, or all are stale: make some with creditbench run")
    tasks, rules = sorted(drawn), sorted({rule for lines in drawn.values() for rule, *_ in lines})
    across = min(2, len(tasks))
    lines = -(-len(tasks) // across)
    figure, axes = _subplots(lines, across, figsize=(4.2 * across, 2.7 * lines + 0.5), squeeze=False)
    colours = _colours(rules)
    for ax, task in zip(axes.flat, tasks, strict=False):
        own = [record for *_, seeds in drawn[task] for record in seeds]
        medians: list[list[float]] = []
        for rule, backend, seeds in drawn[task]:
            steps, low, middle, high = _band(seeds)
            medians.append(middle.tolist())
            ax.plot(steps, middle, _BACKENDS[backend].line, color=colours[rule], linewidth=1.3)
            ax.fill_between(steps, low, high, color=colours[rule], alpha=0.1, linewidth=0)
        trivials = [r.trivial for r in own if r.trivial is not None]
        trivial = float(np.mean(trivials)) if trivials else None
        if trivial is not None:
            ax.axhline(trivial, color="0.4", linestyle="--", linewidth=0.8)
        known = [r.solved for r in own if r.solved is not None]
        solved = float(np.mean(known)) if known else None
        ax.set_ylim(*extent(medians, trivial, solved, own[0].metric_direction))
        ax.set(title=task, xlabel="training time steps", ylabel=own[0].metric)
        ax.spines[["top", "right"]].set_visible(False)
    for ax in list(axes.flat)[len(tasks) :]:
        ax.set_visible(False)
    marks = [Line2D([], [], color=colours[rule], label=rule) for rule in rules]
    marks += [Line2D([], [], color="0.2", linestyle=s.line, label=b) for b, s in _BACKENDS.items()]
    marks.append(Line2D([], [], color="0.4", linestyle="--", linewidth=0.8, label="trivial"))
    figure.legend(
        handles=marks, loc="outside lower center", ncols=min(5, len(marks)), frameon=False, fontsize=8
    )
    figure.savefig(output, dpi=110)


def _subplots(rows: int, across: int, *, figsize: tuple[float, float], **shared: Any) -> tuple[Figure, Any]:
    """A figure and its panels, without pyplot: that keeps figures alive, and has a backend of the user's."""
    figure = Figure(figsize=figsize, layout="constrained")
    return figure, figure.subplots(rows, across, **shared)


def _colours(rules: Sequence[str]) -> dict[str, Any]:
    """A colour a rule; more than twenty rules reuse colours."""
    known = matplotlib.color_sequences["tab10" if len(rules) <= 10 else "tab20"]
    return {rule: known[i % len(known)] for i, rule in enumerate(rules)}


def _band(seeds: Sequence[Record]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Steps, and worst-to-best band about the median of the seeds that have a finite score there."""
    at: dict[int, list[float]] = {}
    for record in seeds:
        for point in record.curve:
            if point.validation is not None:
                at.setdefault(point.step, []).append(point.validation)
    steps = np.array(sorted(at))
    values = [np.array(at[step]) for step in steps]
    low, middle, high = (np.array([f(v) for v in values]) for f in (np.min, np.median, np.max))
    return steps, low, middle, high


def scaling(points: Sequence[Mapping[str, Any]], fits: Sequence[Mapping[str, Any]], output: Path) -> None:
    """Draw cost against one size: a column of panels a learner, a row a quantity, a colour a backend.

    Points are medians of blocks, their bars quartiles; the number beside a backend's mark is its fitted
    exponent. A dashed line through the last point has the slope that the rule claims.
    """

    learners, quantities = (list(dict.fromkeys(p[k] for p in points)) for k in ("learner", "quantity"))
    axis = points[0]["axis"]
    figure, axes = _subplots(
        len(quantities),
        len(learners),
        figsize=(1.2 + 1.75 * len(learners), 0.7 + 1.75 * len(quantities)),
        squeeze=False,
        sharex=True,
        sharey="row",
    )
    fitted = {(f["learner"], f["quantity"], f["backend"]): f for f in fits if f["axis"] == axis}
    for row, quantity in zip(axes, quantities, strict=True):
        for ax, learner in zip(row, learners, strict=True):
            ax.set(xscale="log", yscale="log")
            line = 0
            for backend, style in _BACKENDS.items():
                own = sorted(
                    (
                        p
                        for p in points
                        if (p["learner"], p["quantity"], p["backend"]) == (learner, quantity, backend)
                    ),
                    key=lambda p: p["size"],
                )
                if not own:
                    continue
                sizes = np.array([p["size"] for p in own])
                low, middle, high = np.array([np.quantile(p["values"], (0.25, 0.5, 0.75)) for p in own]).T
                ax.errorbar(
                    sizes,
                    middle,
                    yerr=(middle - low, high - middle),
                    color=style.colour,
                    marker=style.mark,
                    markersize=style.size,
                    markerfacecolor=style.face,
                    linewidth=1,
                    elinewidth=0.7,
                )
                found = fitted[learner, quantity, backend]
                if found["claimed"] is not None:
                    upper = sizes[sizes >= np.sqrt(sizes[0] * sizes[-1])]
                    guide = middle[-1] * (upper / sizes[-1]) ** found["claimed"]
                    ax.plot(upper, guide, "--", color="0.35", linewidth=0.8, zorder=3)
                ax.text(
                    0.05,
                    0.95 - 0.13 * line,
                    f"{found['exponent']:.2f}",
                    color=style.colour,
                    transform=ax.transAxes,
                    va="top",
                    fontsize=8,
                )
                line += 1
            ax.spines[["top", "right"]].set_visible(False)
            ax.tick_params(labelsize=7)
            ax.margins(x=0.08, y=0.25)
            shown = sorted({p["size"] for p in points})
            ax.set_xticks(shown[:: max(1, -(-len(shown) // 3))], minor=False)
            ax.xaxis.set_major_formatter("{x:g}")
            ax.xaxis.set_minor_locator(NullLocator())
        row[0].set_ylabel(columns.QUANTITIES[quantity].axis, fontsize=8)
        low, high = row[0].get_ylim()
        row[0].set_ylim(low, high * (high / low) ** 0.15)  # room for the exponents
    for ax, learner in zip(axes[0], learners, strict=True):
        ax.set_title(learner, fontsize=9)
    figure.supxlabel(columns.AXES[axis], fontsize=8)
    used = {p["backend"] for p in points}
    marks = [
        Line2D(
            [],
            [],
            color=style.colour,
            marker=style.mark,
            markersize=style.size,
            markerfacecolor=style.face,
            linewidth=1,
            label=f"{b}, fitted exponent",
        )
        for b, style in _BACKENDS.items()
        if b in used
    ]
    marks.append(Line2D([], [], color="0.35", linestyle="--", linewidth=0.8, label="claimed"))
    figure.legend(handles=marks, loc="outside upper right", ncols=len(marks), frameon=False, fontsize=8)
    figure.savefig(output, dpi=150)


def gradients(rows: Sequence[Mapping[str, Any]], output: Path) -> None:
    """Draw the quality of gradients: a column of panels a task, a row a figure, a shade a point.

    Each rule has a place on the x axis. Bars are 95 % intervals. A rule whose mean never reaches the cosine
    has a hollow mark at the top of its panel. A variance of 0 is not drawn.
    """

    figures = {column.field: column.axis for column in columns.GRADIENTS}
    tasks, learners, points = (list(dict.fromkeys(r[k] for r in rows)) for k in ("task", "learner", "point"))
    backends = [b for b in _BACKENDS if any(r["backend"] == b for r in rows)]
    shades = dict(
        zip(points, matplotlib.colormaps["viridis"](np.linspace(0.0, 0.85, len(points))), strict=True)
    )
    figure, axes = _subplots(
        len(figures),
        len(tasks),
        figsize=(1.4 + max(2.2, 0.6 * len(learners)) * len(tasks), 1.0 + 1.5 * len(figures)),
        squeeze=False,
        sharex=True,
        sharey="row",
    )
    places = len(points) * len(backends)
    for line, (name, label) in zip(axes, figures.items(), strict=True):
        known = [v for r in rows for v in (r[name], *r[f"{name}_interval"]) if v is not None and v > 0]
        top = 3 * max(known, default=1.0)
        for ax, task in zip(line, tasks, strict=True):
            if name == "bias":
                ax.set_yscale("symlog", linthresh=1.0)
            elif name != "cosine":
                ax.set_yscale("log")
            for row in (r for r in rows if r["task"] == task):
                place = points.index(row["point"]) * len(backends) + backends.index(row["backend"])
                x = learners.index(row["learner"]) + 0.7 * ((place + 0.5) / places - 0.5)
                marker = _BACKENDS[row["backend"]].mark
                colour, value = shades[row["point"]], row[name]
                if value is None:
                    ax.plot(x, top, marker, markersize=4, markerfacecolor="none", color=colour)
                    continue
                if name in ("variance", "draws_to_cosine") and not value > 0:
                    continue
                low, high = row[f"{name}_interval"]
                low = value if low is None or (name == "variance" and low <= 0) else low
                high = top if high is None else high
                ax.errorbar(
                    x,
                    value,
                    [[value - min(low, value)], [max(high, value) - value]],
                    fmt=marker,
                    markersize=3.5,
                    color=colour,
                    elinewidth=0.8,
                )
            ax.set_xticks(range(len(learners)), learners, rotation=45, ha="right", fontsize=8)
            ax.set_xlim(-0.6, len(learners) - 0.4)
            ax.tick_params(axis="y", which="both", labelsize=7)
            ax.spines[["top", "right"]].set_visible(False)
            ax.grid(axis="y", linewidth=0.3, color="0.85")
        line[0].set_ylabel(label, fontsize=8)
    for ax, task in zip(axes[0], tasks, strict=True):
        ax.set_title(task, fontsize=9)
    marks = [
        Line2D(
            [],
            [],
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
    marks.append(
        Line2D(
            [], [], color="0.3", marker="o", markerfacecolor="none", markersize=4, linestyle="", label="never"
        )
    )
    figure.legend(
        handles=marks, loc="outside lower center", ncols=min(2, len(tasks)) + 1, frameon=False, fontsize=8
    )
    figure.savefig(output, dpi=150)


def _few_ticks(ax: Any) -> None:
    """About four plain numbers on a logarithmic x axis of any length."""

    low, high = ax.get_xlim()
    few = MaxNLocator(3) if high < 3 * low else LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,))
    ax.xaxis.set_major_locator(few)
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    ax.tick_params(labelsize=8)


def pareto(board: Board, output: Path) -> None:
    """Draw each rule's score against × forward and against algorithm bytes, with a line on each front.

    Each backend has a front. Bars are 95 % intervals of the interquartile mean. Rules on a front are filled
    and named.
    """

    figure, axes = _subplots(1, len(columns.FRONTS), figsize=(7.2, 3.2), sharey=True)
    colours = _colours(sorted({row.rule for row in board.rows}))
    for ax, column in zip(axes, columns.FRONTS, strict=True):
        for (backend, _), rows in board.groups.items():
            front = board.front(rows, column.field)
            placed = []
            for row, on in zip(rows, front, strict=True):
                value = row.cost(column.field)
                if value is None or not row.scores:
                    continue
                score = row.scores["iqm"]
                ax.errorbar(
                    value,
                    score.value,
                    # An interval of percentiles need not contain the value.
                    [[max(0.0, score.value - score.low)], [max(0.0, score.high - score.value)]],
                    fmt=_BACKENDS[backend].mark,
                    color=colours[row.rule],
                    alpha=1.0 if on else 0.4,
                    markersize=4.5,
                    elinewidth=0.8,
                )
                if on:
                    placed.append((value, score.value))
                    ax.annotate(
                        row.rule, (value, score.value), xytext=(4, 4), textcoords="offset points", fontsize=7
                    )
            if placed:
                ax.step(
                    *zip(*sorted(placed), strict=True), where="post", color="0.6", linewidth=0.7, zorder=0
                )
        ax.set(xscale="log", xlabel=column.axis)
        ax.margins(x=0.12)
        _few_ticks(ax)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("normalised score (IQM)")
    used = {backend for backend, _ in board.groups}
    marks = [
        Line2D([], [], color="0.3", marker=style.mark, linestyle="", markersize=4.5, label=backend)
        for backend, style in _BACKENDS.items()
        if backend in used
    ]
    marks.append(Line2D([], [], color="0.6", linewidth=0.7, label="Pareto front"))
    figure.legend(handles=marks, loc="outside upper right", ncols=len(marks), frameon=False, fontsize=8)
    figure.savefig(output, dpi=150)


def profiles(board: Board, output: Path) -> None:
    """Draw the performance profiles: a panel a cost, a colour a rule, a line a backend.

    ρ(τ) is the share of tasks that a rule brings to its target within τ × the cost of the cheapest rule of
    its backend.
    """

    figure, axes = _subplots(1, len(columns.COSTS), figsize=(7.2, 2.7), sharey=True)
    colours = _colours(sorted({row.rule for row in board.rows}))
    drawn = set()
    for ax, (cost, column) in zip(axes, columns.COSTS.items(), strict=True):
        for (backend, _), rows in board.groups.items():
            tau, rho = board.profile(rows, cost)
            for row, own in zip(rows, rho, strict=True):
                if own[-1] > 0:
                    drawn.add(row.rule)
                    ax.step(
                        tau,
                        own,
                        _BACKENDS[backend].line,
                        where="post",
                        color=colours[row.rule],
                        linewidth=1.3,
                    )
        ax.set(xscale="log", xlabel=f"τ, × least {column.name}", ylim=(0, 1.03))
        _few_ticks(ax)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("ρ(τ), share of tasks")
    used = {backend for backend, _ in board.groups}
    marks = [Line2D([], [], color=colours[rule], label=rule) for rule in sorted(drawn)]
    marks += [
        Line2D([], [], color="0.2", linestyle=s.line, label=b) for b, s in _BACKENDS.items() if b in used
    ]
    figure.legend(
        handles=marks, loc="outside lower center", ncols=min(6, len(marks)), frameon=False, fontsize=8
    )
    figure.savefig(output, dpi=150)


def units(records: Sequence[Record], output: Path) -> None:
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
    figure, axes = _subplots(1, len(tasks), figsize=(1.0 + 3.4 * len(tasks), 3.2), squeeze=False, sharey=True)
    colours = _colours(rules)
    finite = [v for at in scores.values() for own in at.values() for v in own if np.isfinite(v)]
    lost = any(not np.isfinite(v) for at in scores.values() for own in at.values() for v in own)
    low_end, high_end = min([0.0, *finite]), max([1.0, *finite])
    floor = low_end - 0.15 * (high_end - low_end)
    for ax, task in zip(axes[0], tasks, strict=True):
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
                color=colours[rule],
                linestyle=_BACKENDS[backend].line,
                marker="o",
                markersize=3.5,
                linewidth=1.2,
                elinewidth=0.8,
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
        ax.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("normalised test score")
    marks = [Line2D([], [], color=colours[rule], label=rule) for rule in rules]
    if len(backends) > 1:
        marks += [Line2D([], [], color="0.2", linestyle=_BACKENDS[b].line, label=b) for b in backends]
    marks.append(Line2D([], [], color="0.4", linestyle="--", linewidth=0.8, label="trivial, solved"))
    figure.legend(handles=marks, loc="outside right upper", frameon=False, fontsize=8)
    figure.savefig(output, dpi=150)


def _measured_scaling(results: Results, output: Path, axis: str) -> None:
    points = [p for p in results.scaling if p.axis == axis]
    if not points:
        known = ", ".join(sorted({p.axis for p in results.scaling})) or "none"
        raise UsageError(
            f"there is no scaling in {axis} (known: {known}): measure it with creditbench scale, "
            "with the folder scaling in the results as --output"
        )
    fits = {
        (p.learner, p.backend, p.quantity): p.model_dump() | {"interval": [p.low, p.high]} for p in points
    }
    scaling([p.model_dump() | {"values": [p.value]} for p in points], list(fits.values()), output)


def _measured_gradients(results: Results, output: Path) -> None:
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
    gradients(rows, output)


def draw_scaling(
    points: Sequence[Mapping[str, Any]], fits: Sequence[Mapping[str, Any]], folder: Path
) -> None:
    """Draw `scaling` for each axis as PDF and PNG into a folder. Raises `UsageError` if that fails."""
    for axis in dict.fromkeys(point["axis"] for point in points):
        own = [point for point in points if point["axis"] == axis]
        _draw_both(folder, f"scaling_{axis}", partial(scaling, own, fits))


def draw_gradients(rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Draw `gradients` as PDF and PNG into a folder. Raises `UsageError` if that fails."""
    _draw_both(folder, "gradients", partial(gradients, rows))


def _draw_both(folder: Path, name: str, make: Callable[[Path], None]) -> None:
    with files.output("output", folder, "name another folder"):
        for suffix in ("pdf", "png"):
            with files.replacing(folder / f"{name}.{suffix}") as (new,):
                make(new)


FIGURES = ("curves", "units", "scaling", "gradients", "pareto", "profiles")


def draw(name: str, results: Results, output: Path, axis: str = "T") -> None:
    """Draw one of `FIGURES`; `axis` is for `scaling`. Raises `UsageError` if there are no data for it."""
    if name == "curves":
        curves(results.records, output)
    elif name == "units":
        units(results.records, output)
    elif name == "scaling":
        _measured_scaling(results, output, axis)
    elif name == "gradients":
        _measured_gradients(results, output)
    else:
        {"pareto": pareto, "profiles": profiles}[name](make_board(results), output)
