"""The page's charts as Vega-Lite specifications. The page has their data and the choice of rules.

Every chart reads the data set `data`. A colour with a dash is a rule, a width or a shape a backend, the same
everywhere. Score against cost is drawn by `static/scatter.js`, which keeps names apart.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import altair as alt

from creditbench.results import columns
from creditbench.results.columns import Column

#: Colours that differ by a CIEDE2000 distance of 10 or more, also to an eye without red or green cones, and
#: have a contrast of 3 : 1 or more with the light and the dark ground. The first ones differ most.
COLOURS = (
    *("#3388ff", "#bb8800", "#337766", "#994499", "#227733", "#5599bb", "#aa8888"),
    *("#cc0011", "#777788", "#cc7766", "#cc2266", "#ff44aa", "#8833ee"),
)
#: Dashes of rules that share a colour: of the first ones, of the next ones, and so on.
DASHES = ([1, 0], [6, 3], [2, 2], [9, 3, 2, 3])
#: Widths of lines and shapes of marks, a backend each.
WIDTHS = (2.2, 1.1, 0.7)
SHAPES = ("circle", "square", "triangle-up", "diamond")
HEIGHT = 320
#: Figures of gradients that are drawn on a logarithmic scale.
_LOGARITHMIC = (columns.DRAWS_TO_COSINE,)


def strokes(rules: Sequence[str]) -> dict[str, tuple[str, list[int]]]:
    """A colour and a dash a rule; more rules than there are pairs reuse them."""
    pairs = [(colour, dash) for dash in DASHES for colour in COLOURS]
    return {rule: pairs[i % len(pairs)] for i, rule in enumerate(rules)}


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


def specifications(backends: Sequence[str]) -> dict[str, Any]:
    """Every chart's specification by its name.

    The page puts the stroke of a rule and backend into the fields `colour`, `dash` and `width` of its data.
    """
    colour = alt.Color("colour:N", legend=None, scale=None)
    dash = alt.StrokeDash("dash:N", legend=None, scale=None)
    width = alt.StrokeWidth("width:Q", legend=None, scale=None)
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
        at = alt.X(f"{x}:Q", title=title).scale(nice=False).axis(format="~s", tickCount=8, labelFlush=False)
        tooltip = [*who, alt.Tooltip(f"{x}:Q", format=",.4~g"), alt.Tooltip("median:Q", format=".4~g"),
                   alt.Tooltip("low:Q", format=".4~g"), alt.Tooltip("high:Q", format=".4~g")]  # fmt: skip
        y = alt.Y("median:Q", title="metric on validation").scale(
            zero=False, nice=False, domain={"expr": "domain"}
        )
        # Values far outside the axis are drawn nearer to it.
        near = {
            name: f"clamp(datum.{field}, 2 * domain[0] - domain[1], 2 * domain[1] - domain[0])"
            for name, field in (("bottom", "low"), ("middle", "median"), ("top", "high"))
        }
        band = (
            base.transform_filter("isValid(datum.median)")
            .transform_calculate(**near)
            .mark_area(opacity=0.1, clip=True)
            .encode(at, alt.Y("bottom:Q"), alt.Y2("top:Q"), colour, detail)
        )
        line = (
            base.transform_filter("isValid(datum.median)")
            .transform_calculate(**near)
            .mark_line(clip=True)
            .encode(at, alt.Y("middle:Q"), colour, dash, width, detail)
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

    def gradient(column: Column) -> dict[str, Any]:
        field, title = column.field, column.axis
        at = alt.X("rule:N", title=None, sort=None).axis(labelAngle=-45, labelOverlap=True)
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

    profile = base.mark_line(interpolate="step-after").encode(
        alt.X("tau:Q", title="τ: times the cheapest rule's cost").scale(type="log", nice=False),
        alt.Y("rho:Q", title="share of tasks solved").scale(domain=[0, 1]),
        colour,
        dash,
        width,
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
        "curves_flops": curve("flops", "training FLOPs"),
        "profile": sized(
            profile, "Performance profiles: share of tasks solved within τ times the cheapest rule's cost"
        ),
        "scaling": sized(
            alt.layer(
                scaling.mark_line().encode(dash, width),
                scaling.mark_point(filled=True, size=45).encode(shape, tooltip=scaled),
            ),
            "Scaling: cost of an update against size",
        ),
        **{f"gradient_{column.field}": gradient(column) for column in columns.GRADIENTS},
    }
