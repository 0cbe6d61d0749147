"""The page of the committed results, on a screen and on paper."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path

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
    """The rows that the charts show as the page opens."""
    rules = list(dict.fromkeys(row.rule for row in board.rows))
    return [i for i, row in enumerate(board.rows) if row.rule in (*rules[:SHOWN], "bptt")]


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
    figures.curves(committed.results.records, tmp_path / "x.png")
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
def test_the_page_of_the_committed_results_in_aopen_browser(committed, tmp_path):
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
            seen = [(max(0.0, top), min(height, bottom)) for top, bottom in boxes]
            assert sum(top < height - 2 and bottom > 2 for top, bottom in seen) >= 0.75 * len(lines), task
            moved = max(min(1, max(line)) - max(0, min(line)) for line in lines)
            assert max(bottom - top for top, bottom in seen) > 0.6 * moved * height, task

        # On paper, 277 mm wide, every column has its head and none is cut off.
        wide = round(277 / 25.4 * 96)
        size = {"width": wide, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
        heads = [head.text.strip() for head in browser.find_elements(By.CSS_SELECTOR, "#board thead th")]
        assert len(heads) == 13 and all(heads) and heads[1] == "Rule"
        for table in ("board", "heat"):
            right = f"document.getElementById('{table}').getBoundingClientRect().right"
            assert browser.execute_script(f"return {right}") <= wide
    finally:
        browser.quit()
