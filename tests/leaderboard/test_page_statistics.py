"""The statistics that a reader's browser works out, beside those of Python."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from creditbench.leaderboard import statistics, text
from creditbench.leaderboard.board import Board, make_board
from creditbench.leaderboard.page import page
from creditbench.results import columns
from creditbench.results.conditions import columns_of
from creditbench.results.version import Results, load
from tests.browser import DRAWN, wait
from tests.browser import browser as open_browser
from tests.conftest import thorough
from tests.synthetic import make

NEWEST = max(
    (Path(__file__).parents[2] / "results").glob("v*/trials.csv"),
    key=lambda path: [int(part) for part in re.findall(r"\d+", path.parent.name)],
).parent
DRAWS = 20_000
#: Every row of the page's data on some tasks, from so many draws. Infinite ends are texts.
_STANDINGS = """
const { data, standing, rank } = window.creditbench;
const found = data.rows.map((row, i) => ({ i, row, ...standing(row, arguments[0], data, arguments[1]) }));
for (const group of new Set(data.rows.map((row) => row.group)))
  rank(found.filter((own) => own.row.group === group), data.costs);
return JSON.stringify(found.map(({ row, ...own }) => ({ ...own, key: [row.rule, row.backend, row.device] })),
  (_, value) => (value === Infinity || value === -Infinity ? String(value) : value));
"""


def _of(results: Results, tasks: list[str]) -> Results:
    column = columns_of(results.records)
    kept = tuple(record for record in results.records if column[record.trial.id] in tasks)
    return dataclasses.replace(results, records=kept)


def _close(
    found: list, expected: statistics.Interval, others: Callable[[], list[statistics.Interval]], what: object
) -> None:
    """The value to the digits of the page's data, the ends to what chance makes of so many draws.

    Few units have few means, and then an end may jump from one to the next: `others` are of other draws.
    """
    value, low, high = map(float, found)
    assert value == pytest.approx(expected.value, rel=1e-7, abs=1e-8), what
    if math.isinf(expected.low):
        assert (low, high) == (expected.low, expected.high), what
        return
    apart = 0.05 * (expected.high - expected.low) + 1e-6
    if abs(low - expected.low) < apart and abs(high - expected.high) < apart:
        return
    drawn = others()
    for end, ends in ((low, [o.low for o in drawn]), (high, [o.high for o in drawn])):
        assert min(ends) - apart < end < max(ends) + apart, (what, found, expected, drawn)


def _drawn(strata: list, name: str) -> list[statistics.Interval]:
    return [statistics.aggregates(strata, DRAWS // 4, seed=seed)[name] for seed in range(1, 21)]


def _agree(found: list[dict], board: Board) -> None:
    rows = {tuple(own["key"]): own for own in found}
    for row in board.rows:
        own = rows[row.key]
        assert (own["unranked"], own["remarks"]) == (row.unranked, row.remarks), row.key
        assert (own["rank"], own["solved"], own["quick"]) == (row.rank, text.solved(row), row.quick), row.key
        assert bool(own["scores"]) == bool(row.scores) and bool(own["improvement"]) == bool(row.improvement)
        strata = [units for task in board.scaled if task in row.cells and (units := row.cells[task].units)]

        for name, expected in row.scores.items():
            _close(own["scores"][name], expected, partial(_drawn, strata, name), (row.key, name))
        if row.improvement:
            _close(own["improvement"], row.improvement, list, (row.key, "improvement"))
        for name, value in own["costs"].items():
            expected = row.cost(name)
            assert value == (None if expected is None else pytest.approx(expected, rel=1e-7)), (row.key, name)
    for group in board.groups.values():
        ranked = [row for row in group if row.rank is not None]
        ends = [[float(x) for x in rows[row.key]["scores"]["iqm"]] for row in ranked]
        allowed = statistics.rank_ranges([e[1] for e in ends], [e[2] for e in ends]).tolist()
        assert [rows[row.key]["ranks"] for row in ranked] == allowed
        for column in columns.FRONTS:
            on = [rows[row.key]["front"][column.field] for row in group]
            assert on == board.front(group, column.field)


@pytest.mark.slow
def test_a_browser_finds_the_numbers_of_the_committed_board(tmp_path):
    """Of all tasks, and of some of them; what the table of the page then shows is the same."""
    results = load(NEWEST)
    board = make_board(results, DRAWS)
    (tmp_path / "index.html").write_text(page(board, [NEWEST]), encoding="utf-8")
    some = list(board.tasks[::2])
    fewer = make_board(_of(results, some), DRAWS)
    browser = open_browser(1280, 900)
    try:
        browser.get((tmp_path / "index.html").as_uri() + "#" + "&".join(f"task={task}" for task in some))
        wait(browser, DRAWN)
        for tasks, expected in ((list(board.tasks), board), (some, fewer)):
            _agree(json.loads(browser.execute_script(_STANDINGS, tasks, DRAWS)), expected)
        cells = "return [...document.querySelectorAll('#board tbody tr')].map(r => [...r.cells].map(c => %s))"
        shown = browser.execute_script(cells % "c.textContent")
        values = browser.execute_script(cells % "c.dataset.value")
        heads = [column for column in columns.RANKING if column is not columns.DEVICE]
        # Of one backend, as the page opens.
        backend = fewer.rows[0].backend
        at = columns.RANKING.index(columns.BACKEND)
        printed = {row[1]: row for row in text.ranking(fewer) if row[at] == backend}
        assert len(shown) == sum(row.backend == backend for row in fewer.rows)
        for line, own in zip(shown, values, strict=True):
            rule = own[heads.index(columns.RULE)]
            for column, cell in zip(heads, line, strict=True):
                expected = printed[rule][columns.RANKING.index(column)]
                if column in (columns.RANK, columns.RULE):
                    continue
                if column in (columns.IQM, columns.IMPROVEMENT):  # of fewer draws
                    cell, expected = cell.split(" ")[0], expected.split(" ")[0]
                assert cell == expected, (rule, column.field)
    finally:
        browser.quit()


@pytest.mark.slow
@pytest.mark.parametrize(("studies", "seeds"), thorough([(0, 5), (5, 2)], but=[(5, 2)]))
def test_a_browser_finds_the_numbers_of_rows_that_failed(source, tmp_path, studies, seeds):
    """Runs that diverged, crashed or are missing, two backends, and tasks that nobody can normalise."""

    def status(trial):
        if trial.learner == "rule_03" and trial.backend == "torch" and trial.task == "task_00":
            return "crashed"
        return "diverged" if trial.learner == "rule_02" and trial.seed == 1 else "ok"

    made = make(source, seeds=seeds, studies=studies, status=status, measured=False, redraw=True)
    records = [r for r in made.records if (r.trial.learner, r.trial.task) != ("rule_01", "task_01")]
    bare = {"normalised_score": None, "solved": None}
    records = [r.model_copy(update=bare) if r.trial.task == "task_04" else r for r in records]
    results = dataclasses.replace(made, records=tuple(records))
    board = make_board(results, DRAWS)
    (tmp_path / "index.html").write_text(page(board, [tmp_path]), encoding="utf-8")
    browser = open_browser(1280, 900)
    try:
        browser.get((tmp_path / "index.html").as_uri())
        wait(browser, DRAWN)
        for tasks in (list(board.tasks), ["task_00", "task_02"], ["task_02", "task_04"], ["task_04"]):
            expected = make_board(_of(results, tasks), DRAWS)
            _agree(json.loads(browser.execute_script(_STANDINGS, tasks, DRAWS)), expected)
        # Numbers are written as Python writes them.
        numbers = [
            0.0,
            1.0,
            -0.004,
            0.12345,
            0.00012345,
            0.000012345,
            12.3456,
            999.96,
            1234.56,
            123456.7,
            2e6,
        ]
        for form in (".2f", ".0f", ",.0f", ".3g", ",.4g", ".3e"):
            found = browser.execute_script(
                "return arguments[0].map(x => window.creditbench.written(x, arguments[1]))", numbers, form
            )
            assert found == [format(number, form) for number in numbers], form
        # Of all tasks it shows what Python found.
        whole = json.loads(browser.execute_script(_STANDINGS, list(board.tasks), None))
        for own, row in zip(whole, board.rows, strict=True):
            for name, found in row.scores.items():
                assert list(map(float, own["scores"][name])) == pytest.approx(list(found), rel=1e-8)
    finally:
        browser.quit()
