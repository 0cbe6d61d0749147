"""The page of the committed results, on a screen and on paper."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from creditbench.leaderboard import charts
from creditbench.leaderboard.board import Board, make_board
from creditbench.leaderboard.page import _curves, page
from creditbench.results.version import load
from tests.browser import DRAWN, wait
from tests.browser import browser as open_browser

ROOT = Path(__file__).parents[2]
NEWEST = max(
    (ROOT / "results").glob("v*/trials.csv"),
    key=lambda path: [int(part) for part in re.findall(r"\d+", path.parent.name)],
).parent
SHOWN = 8  #: rules that the page shows as it opens, beside bptt; as `best` in page.js


@pytest.fixture(scope="module")
def committed() -> Board:
    return make_board(load(NEWEST), 20)


def _shown(board: Board) -> list[int]:
    """The rows that the charts show as the page opens: of one backend."""
    rules = list(dict.fromkeys(row.rule for row in board.rows))
    return [
        i
        for i, row in enumerate(board.rows)
        if row.rule in (*rules[:SHOWN], "bptt") and row.backend == board.rows[0].backend
    ]


def _shares(found: dict, rows: list[int]) -> list[list[float]]:
    """Of each of the lines, where on the axis its points lie: 0 at its lower edge, 1 at its upper one."""
    low, high = found["domain"]
    return [[(value - low) / (high - low) for value in line[3]] for line in found["lines"] if line[0] in rows]


def test_every_line_that_the_page_shows_leaves_its_axis(committed):
    """Of every task: lines lie within, off the edges, and those that move are seen to."""
    assert committed.tasks
    for task in committed.tasks:
        found = _curves(committed, task)
        low, high = found["domain"]
        medians = [value for line in found["lines"] for value in line[3]]
        known = [found[name] for name in ("trivial", "solved") if found[name] is not None]
        best = (min if found["direction"] == "min" else max)(*medians, *known)
        way = abs(found["trivial"] - best)
        assert low < found["trivial"] < high and high - low < 2.5 * way, task
        lines = _shares(found, _shown(committed))
        ends = [line[-1] for line in lines if 0.01 < line[-1] < 0.99]
        assert len(ends) >= 0.75 * len(lines) > 0, task
        # What lies outside is worse than trivial by more than trivial is worse than the best.
        sign = 1 if found["direction"] == "min" else -1
        assert all(low < v < high or sign * (v - found["trivial"]) > way for v in medians), task


@pytest.mark.parametrize("sign", [1, -1])
def test_the_axis_of_curves_takes_no_note_of_what_runs_off(sign):
    def extent(medians, trivial, solved):
        values = [[sign * v for v in line] for line in medians]
        given = [None if v is None else sign * v for v in (trivial, solved)]
        found = charts.extent(values, *given, "min" if sign == 1 else "max")
        assert found[0] < found[1]
        return sorted(sign * v for v in found)

    good = [[3.0, 0.5, 0.2], [1.1, 0.9, 0.8]]
    low, high = extent(good, 1.0, 0.1)
    assert -0.1 < low < 0.1 and 1.85 < high < 2.0
    assert extent([*good, [1.0, 1e6, 1e15]], 1.0, 0.1) == [low, high]
    # Where none is as good as trivial, the best is seen to its end.
    low, high = extent([[1.5, 3.0, 7.0], [1.0, 1e9]], 1.0, 0.1)
    assert low < 0.1 and 7.0 < high < 20.0
    # Where nothing moves, where nothing is known, and where there is nothing.
    low, high = extent([[2.0, 2.0]], 2.0, 2.0)
    assert low < 2.0 < high
    low, high = extent([[5.0, 2.0], [5.0, 3.0], [5.0, 1e9]], None, None)
    assert low < 2.0 and 3.0 < high < 5.0
    assert charts.extent([[]], None, None, "min") == (0.0, 1.0)


def test_figures_for_print_have_the_axis_of_the_page(committed, tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    from creditbench.leaderboard import figures

    drawn, original = [], Axes.set_ylim

    def set_ylim(ax, *limits, **others):
        drawn.extend([limits] if len(limits) == 2 else [])
        return original(ax, *limits, **others)

    monkeypatch.setattr(Axes, "set_ylim", set_ylim)
    monkeypatch.setattr("creditbench.leaderboard.board.stale", lambda record: "")
    figures.curves(committed.results.records).savefig(tmp_path / "x.png")
    expected = [_curves(committed, task)["domain"] for task in committed.tasks]
    assert len(drawn) == len(expected)
    for found, page_s in zip(drawn, expected, strict=True):
        assert found == pytest.approx(page_s, rel=0.1, abs=0.02)  # the page leaves out points of long curves


def test_no_column_head_is_hidden_on_paper():
    style = (files("creditbench.leaderboard") / "static" / "page.css").read_text(encoding="utf-8")
    printed = style.partition("@media print")[2]
    (hidden,) = re.findall(r"([^{}]+)\{ display: none; \}", printed)
    assert {"nav", ".filters", ".controls"} <= set(map(str.strip, hidden.split(",")))
    assert not any(name.strip() in ("button", "th button", "thead button", "*") for name in hidden.split(","))


#: Upper and lower edge of each curve of the task that a description ends with, once it is drawn.
_BOXES = """(() => {
  const chart = [...document.querySelectorAll("#chart-curves [aria-label]")]
    .find((element) => element.getAttribute("aria-label").endsWith(%s));
  const paths = [...(chart?.querySelectorAll(".mark-line.role-mark path") ?? [])];
  const lines = paths.map((path) => path.getBBox());
  return lines.length ? lines.map((box) => [box.y, box.y + box.height]) : null;
})()"""


@pytest.mark.slow
def test_the_page_of_the_committed_results_in_a_browser(committed, tmp_path):
    """Every task's lines as they are drawn, and the tables as they are printed."""
    path = tmp_path / "index.html"
    path.write_text(page(committed, [NEWEST]), encoding="utf-8")
    browser = open_browser(1280, 900)
    try:
        from selenium.webdriver.common.by import By
        from selenium.webdriver.support.ui import Select

        browser.get(path.as_uri())
        wait(browser, DRAWN)
        tasks = Select(browser.find_element(By.ID, "curve-task"))
        assert [option.get_attribute("value") for option in tasks.options] == list(committed.tasks)
        for task in committed.tasks:
            tasks.select_by_value(task)
            height = charts.HEIGHT
            boxes = wait(browser, _BOXES % json.dumps(f": {task}"))
            lines = _shares(_curves(committed, task), _shown(committed))
            assert len(boxes) == len(lines)
            # Each line lies where its medians are, and off the axis unless it is said to be beyond it.
            near = [[min(2.0, max(-1.0, share)) for share in line] for line in lines]
            expected = sorted((height * (1 - max(line)), height * (1 - min(line))) for line in near)
            for found, known in zip(sorted(map(tuple, boxes)), expected, strict=True):
                assert found == pytest.approx(known, abs=2.0), task
            beyond = browser.find_element(By.ID, "curve-caption").text.partition("Worse than the axis shows")[
                2
            ]
            ends = [line[-1] for line in lines]
            assert sum(not 0 < end < 1 for end in ends) == len(beyond.split(",")) * bool(beyond), task
            seen = [(top, bottom) for top, bottom in boxes if top < height - 2 and bottom > 2]
            assert len(seen) >= 0.75 * len(lines), task

        # On paper, 277 mm wide, every column has its head and none is cut off.
        wide = round(277 / 25.4 * 96)
        size = {"width": wide, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
        heads = browser.find_elements(By.CSS_SELECTOR, "#board thead th")
        shown = [head.text.strip() for head in heads if head.is_displayed()]
        # All of one backend, the count above the table says which.
        assert len(shown) == len(heads) - 1 and all(shown) and shown[1] == "Rule"
        for table in ("board", "heat"):
            right = f"document.getElementById('{table}').getBoundingClientRect().right"
            assert browser.execute_script(f"return {right}") <= wide
    finally:
        browser.quit()


# -- colours -----------------------------------------------------------------------------------------------

#: What eyes without red and without green cones see of linear RGB (Machado, Oliveira & Fernandes 2009).
_PROTANOPIA = [
    [0.152286, 1.052583, -0.204868],
    [0.114503, 0.786281, 0.099216],
    [-0.003882, -0.048116, 1.051998],
]
_DEUTERANOPIA = [
    [0.367322, 0.860646, -0.227968],
    [0.280085, 0.672501, 0.047413],
    [-0.01182, 0.04294, 0.968881],
]


def _linear(colour: str) -> np.ndarray:
    parts = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def _contrast(one: str, other: str) -> float:
    low, high = sorted(float(_linear(c) @ [0.2126, 0.7152, 0.0722]) for c in (one, other))
    return (high + 0.05) / (low + 0.05)


def _lab(linear: np.ndarray) -> np.ndarray:
    """CIELAB of linear sRGB, D65."""
    to_xyz = [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.072175],
        [0.0193339, 0.119192, 0.9503041],
    ]
    xyz = np.array(to_xyz) @ linear / [0.95047, 1.0, 1.08883]
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def ciede2000(one: np.ndarray, other: np.ndarray) -> float:
    """The distance of two colours in CIELAB (Sharma, Wu & Dalal 2005)."""
    (L1, a1, b1), (L2, a2, b2) = one, other
    mean = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    G = 0.5 * (1 - np.sqrt(mean**7 / (mean**7 + 25.0**7)))
    a1, a2 = a1 * (1 + G), a2 * (1 + G)
    C1, C2 = np.hypot(a1, b1), np.hypot(a2, b2)
    h1, h2 = (np.degrees(np.arctan2(b, a)) % 360 for a, b in ((a1, b1), (a2, b2)))
    turn = (h2 - h1 + 180) % 360 - 180 if C1 * C2 else 0.0
    H = 2 * np.sqrt(C1 * C2) * np.sin(np.radians(turn / 2))
    L, C = (L1 + L2) / 2, (C1 + C2) / 2
    h = h1 + turn / 2 if C1 * C2 else h1 + h2
    T = 1 - 0.17 * np.cos(np.radians(h - 30)) + 0.24 * np.cos(np.radians(2 * h))
    T += 0.32 * np.cos(np.radians(3 * h + 6)) - 0.2 * np.cos(np.radians(4 * h - 63))
    S_L = 1 + 0.015 * (L - 50) ** 2 / np.sqrt(20 + (L - 50) ** 2)
    S_C, S_H = 1 + 0.045 * C, 1 + 0.015 * C * T
    R = (
        -2
        * np.sqrt(C**7 / (C**7 + 25.0**7))
        * np.sin(np.radians(60 * np.exp(-(((h % 360 - 275) / 25) ** 2))))
    )
    light, chroma, hue = (L2 - L1) / S_L, (C2 - C1) / S_C, H / S_H
    return float(np.sqrt(light**2 + chroma**2 + hue**2 + R * chroma * hue))


def test_the_distance_of_colours_is_that_of_its_paper():
    """Pairs 1, 7, 13 and 25 of Sharma, Wu & Dalal 2005, table 1."""
    for one, other, expected in (
        ((50.0, 2.6772, -79.7751), (50.0, 0.0, -82.7485), 2.0425),
        ((50.0, 0.0, 0.0), (50.0, -1.0, 2.0), 2.3669),
        ((50.0, -0.001, 2.49), (50.0, 0.0011, -2.49), 4.7461),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
    ):
        assert ciede2000(np.array(one), np.array(other)) == pytest.approx(expected, abs=1e-4)


def test_colours_of_rules_are_told_apart_by_every_eye():
    """Rules that share a colour have another dash; any ground shows each colour (WCAG 2.2, 1.4.11)."""
    style = (files("creditbench.leaderboard") / "static" / "page.css").read_text(encoding="utf-8")
    grounds = set(re.findall(r"--ground: (#\w+)", style))
    assert len(grounds) == 2
    for colour in charts.COLOURS:
        assert all(_contrast(colour, {"#fff": "#ffffff"}.get(g, g)) >= 3 for g in grounds), colour
    for eye in (np.eye(3), np.array(_PROTANOPIA), np.array(_DEUTERANOPIA)):
        seen = [_lab(np.clip(eye @ _linear(colour), 0, 1)) for colour in charts.COLOURS]
        assert min(ciede2000(a, b) for a, b in combinations(seen, 2)) >= 10
    rules = [f"rule_{i}" for i in range(len(charts.COLOURS) * len(charts.DASHES))]
    found = charts.strokes(rules)
    assert len({(colour, *dash) for colour, dash in found.values()}) == len(rules)
    assert len({found[rule][0] for rule in rules[: SHOWN + 1]}) == SHOWN + 1


@pytest.mark.slow
def test_a_board_whose_costs_were_not_measured_says_so(tmp_path):
    folder = NEWEST.parent / "cells"
    path = tmp_path / "index.html"
    path.write_text(page(make_board(load(folder), 100, "lru"), [folder]), encoding="utf-8")
    browser = open_browser(390, 844)
    try:
        from selenium.webdriver.common.by import By

        browser.get(path.as_uri())
        wait(browser, DRAWN)
        said = [item.text for item in browser.find_elements(By.CSS_SELECTOR, "#verdict li")]
        assert all(line.endswith("; its costs were not measured.") for line in said[1:]) and len(said) == 3
        assert browser.find_element(By.ID, "scatter-caption").text.startswith("No rule to draw")
    finally:
        browser.quit()
