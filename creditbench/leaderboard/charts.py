"""The page's charts as Vega-Lite specifications. The page has their data and the choice of rules.

Every chart reads the data set `data`. A colour is a rule, a dash or a shape a backend, the same everywhere.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import altair as alt

from creditbench.results import columns
from creditbench.results.columns import Column

#: Tableau's ten colours, distinct on white and on black.
COLOURS = (
    *("#4e79a7", "#f28e2b", "#e15759", "#76b7b2", "#59a14f"),
    *("#b58900", "#b07aa1", "#ff9da7", "#9c755f", "#8c8c8c"),
)
DASHES = ([1, 0], [5, 3], [1, 2], [8, 2, 1, 2])
SHAPES = ("circle", "square", "triangle-up", "diamond")
HEIGHT = 320
#: Costs that scores are drawn against, by their name in the page's script.
FRONTS = dict(zip(("forward", "bytes"), columns.FRONTS, strict=True))
#: Figures of gradients that are drawn on a logarithmic scale.
_LOGARITHMIC = (columns.DRAWS_TO_COSINE,)


def colours(rules: Sequence[str]) -> dict[str, str]:
    """A colour a rule; more than ten rules reuse colours."""
    return {rule: COLOURS[i % len(COLOURS)] for i, rule in enumerate(rules)}


def extent(
    medians: Sequence[Sequence[float]], trivial: float | None, solved: float | None, direction: str
) -> tuple[float, float]:
    """The axis of learning curves, each the medians over seeds of one row.

    It includes trivial, solved and the medians, but no value that is worse than trivial by more than trivial
    is worse than the best: untrained weights may start far off, and a diverging curve has no limit. If no
    curve ends as well as trivial, it includes the end of the best one. Nothing lies at its very edge.
    """
    sign = 1.0 if direction == "min" else -1.0
    lines = [[sign * value for value in line] for line in medians if line]
    known = [sign * value for value in (trivial, solved) if value is not None]
    values = [*known, *(value for line in lines for value in line)]
    if not values:
        return 0.0, 1.0
    ends, best = [line[-1] for line in lines], min(values)
    if trivial is not None:
        ends = [max(sign * trivial, min(ends, default=sign * trivial))]
    start = statistics.median(ends or known)
    worst = min(max(values), 2 * start - best)
    margin = 0.03 * (worst - best) or 0.05 * abs(best) or 1.0
    low, high = sorted((sign * (best - margin), sign * (worst + margin)))
    return low, high


def specifications(rules: Sequence[str], backends: Sequence[str]) -> dict[str, Any]:
    """Every chart's specification by its name."""
    painted = colours(rules)
    colour = alt.Color("rule:N", legend=None).scale(domain=list(painted), range=list(painted.values()))
    marks = [DASHES[i % len(DASHES)] for i in range(len(backends))]
    dash = alt.StrokeDash("backend:N", legend=None).scale(domain=list(backends), range=marks)
    shapes = [SHAPES[i % len(SHAPES)] for i in range(len(backends))]
    shape = alt.Shape("backend:N", legend=None).scale(domain=list(backends), range=shapes)
    detail = alt.Detail("row:N")
    who = [alt.Tooltip("rule:N"), alt.Tooltip("backend:N")]
    base = alt.Chart(alt.NamedData("data"))

    def sized(chart: Any, description: str) -> dict[str, Any]:
        chart = chart.properties(
            width="container",
            height=HEIGHT,
            description=description,
            autosize=alt.AutoSizeParams(type="fit-x", contains="padding"),
        )
        found: dict[str, Any] = chart.to_dict(validate=False)
        # The page has the data.
        found.pop("datasets", None)
        return found

    def curve(x: str, title: str) -> dict[str, Any]:
        at = alt.X(f"{x}:Q", title=title).scale(nice=False)
        tooltip = [*who, alt.Tooltip(f"{x}:Q", format=",.4~g"), alt.Tooltip("median:Q", format=".4~g"),
                   alt.Tooltip("low:Q", format=".4~g"), alt.Tooltip("high:Q", format=".4~g")]  # fmt: skip
        y = alt.Y("median:Q", title="metric on validation").scale(zero=False, domain={"expr": "domain"})
        # Values far outside the axis are drawn nearer to it.
        near = {
            name: f"clamp(datum.{field}, 2 * domain[0] - domain[1], 2 * domain[1] - domain[0])"
            for name, field in (("bottom", "low"), ("middle", "median"), ("top", "high"))
        }
        band = (
            base.transform_filter("isValid(datum.median)")
            .transform_calculate(**near)
            .mark_area(opacity=0.12, clip=True)
            .encode(at, alt.Y("bottom:Q"), alt.Y2("top:Q"), colour, detail)
        )
        line = (
            base.transform_filter("isValid(datum.median)")
            .transform_calculate(**near)
            .mark_line(strokeWidth=1.8, clip=True)
            .encode(at, alt.Y("middle:Q"), colour, dash, detail)
        )
        hover = base.mark_point(size=60, opacity=0, filled=True, clip=True).encode(
            at, y, colour, tooltip=tooltip
        )
        levels = [
            base.mark_rule(strokeDash=stroke, color="#888")
            .encode(alt.Y(f"mean({name}):Q"))
            .properties(name=name)
            for name, stroke in (("trivial", [4, 4]), ("solved", [2, 3]))
        ]
        return sized(
            alt.layer(band, *levels, line, hover).add_params(alt.param(name="domain", value=[0, 1])),
            f"Learning curves: metric on validation by {title}",
        )

    def pareto(x: str, title: str) -> dict[str, Any]:
        at = (
            alt.X(f"{x}:Q", title=title)
            .scale(type="log", nice=False, padding=30)
            .axis(format="~s", tickCount=6)
        )
        score = alt.Y("score:Q", title="score (IQM)").scale(zero=False)
        tooltip = [*who, alt.Tooltip(f"{x}:Q", format=".3~g", title=title),
                   alt.Tooltip("score:Q", format=".3f"), alt.Tooltip("low:Q", format=".3f"),
                   alt.Tooltip("high:Q", format=".3f"),
                   alt.Tooltip("front:N", title="on the front")]  # fmt: skip
        bars = base.mark_rule(opacity=0.5).encode(
            at, alt.Y("low:Q").title("score (IQM)"), alt.Y2("high:Q"), colour
        )
        points = base.mark_point(size=90, filled=True).encode(
            at,
            score,
            colour,
            shape,
            tooltip=tooltip,
            opacity=alt.condition("datum.front == 'yes'", alt.value(1), alt.value(0.45)),
        )
        names = (
            base.mark_text(align="left", dx=8, dy=-6, fontSize=11)
            .transform_filter("datum.front == 'yes'")
            .encode(at, score, alt.Text("rule:N"))
            .properties(name="front_names")
        )
        front = (
            base.transform_filter("datum.front == 'yes'")
            .mark_line(interpolate="step-after", color="#888", strokeWidth=1)
            .encode(at, score, alt.Order(f"{x}:Q"), alt.Detail("group:N"))
            .properties(name="front_line")
        )
        return sized(alt.layer(front, bars, points, names), f"Pareto front: score against {title}")

    def gradient(column: Column) -> dict[str, Any]:
        field, title = column.field, column.axis
        at = alt.X("rule:N", title=None, sort=list(rules)).axis(labelAngle=-45, labelOverlap=True)
        offset = alt.XOffset("place:N")
        over = alt.Scale(type="log") if column in _LOGARITHMIC else alt.Scale(zero=True)
        tooltip = [
            *who,
            alt.Tooltip("point:Q", title="part of the bptt run"),
            *(alt.Tooltip(f"{name}:Q", format=".3~g") for name in (field, "low", "high")),
            alt.Tooltip("draws:Q"),
        ]
        bars = base.mark_rule().encode(
            at, offset, alt.Y("low:Q", scale=over, title=title), alt.Y2("high:Q"), colour
        )
        points = base.mark_point(size=50, filled=True).encode(
            at, offset, alt.Y(f"{field}:Q", scale=over, title=title), colour, shape, tooltip=tooltip
        )
        return sized(alt.layer(bars, points), f"Quality of gradients: {title}, a place a rule")

    profile = base.mark_line(interpolate="step-after", strokeWidth=1.8).encode(
        alt.X("tau:Q", title="τ: times the cheapest rule's cost").scale(type="log", nice=False),
        alt.Y("rho:Q", title="share of tasks solved").scale(domain=[0, 1]),
        colour,
        dash,
        detail,
        tooltip=[*who, alt.Tooltip("tau:Q", format=".3~g"), alt.Tooltip("rho:Q", format=".2f")],
    )
    scaling = base.encode(
        alt.X("size:Q", title="size").scale(type="log", base=2, nice=False, padding=10).axis(format="d"),
        alt.Y("value:Q", title="cost of an update").scale(type="log").axis(format="~e", tickCount=6),
        colour,
        detail,
    )
    scaled = [
        *who,
        alt.Tooltip("size:Q"),
        alt.Tooltip("value:Q", format=".3~g"),
        alt.Tooltip("exponent:Q", format=".2f"),
        alt.Tooltip("claimed:Q", format=".2~f"),
    ]
    return {
        "curves_step": curve("step", "training time steps"),
        "curves_seconds": curve("seconds", "training seconds"),
        **{f"pareto_{name}": pareto(name, column.name) for name, column in FRONTS.items()},
        "profile": sized(
            profile, "Performance profiles: share of tasks solved within τ times the cheapest rule's cost"
        ),
        "scaling": sized(
            alt.layer(
                scaling.mark_line(strokeWidth=1.8).encode(dash),
                scaling.mark_point(filled=True, size=45).encode(shape, tooltip=scaled),
            ),
            "Scaling: cost of an update against size",
        ),
        **{f"gradient_{column.field}": gradient(column) for column in columns.GRADIENTS},
    }
