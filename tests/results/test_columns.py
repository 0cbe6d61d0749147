"""What is shown of results: a definition each, which every view walks."""

from __future__ import annotations

import dataclasses
import math

import pytest

from creditbench.leaderboard import page, text
from creditbench.leaderboard.board import make_board
from creditbench.leaderboard.versus import Versus
from creditbench.results import columns
from creditbench.results.columns import Column
from creditbench.results.measured import GradientQuality, ScalingPoint
from creditbench.results.table import render
from creditbench.trials.record import Record
from tests.synthetic import make

#: What the views compute by themselves.
COMPUTED = {
    *(
        "task",
        "rule",
        "cell",
        "backend",
        "device",
        "seeds",
        "status",
        "segment",
        "batch",
        "machine",
        "commands",
    ),
    *("rank", "improvement", "solved", "note", "iqm", "median", "mean", "optimality_gap"),
}


def everything() -> list[Column]:
    shown = (columns.SUMMARY, columns.BY_TASK, columns.RANKING, columns.VERSUS)
    shown += (columns.EXPONENTS, columns.QUALITY, tuple(columns.QUANTITIES.values()))
    return list(dict.fromkeys(column for one in shown for column in one))


@pytest.mark.parametrize(
    ("shown", "known"),
    [
        ((*columns.SUMMARY, *columns.RANKING, *columns.BY_TASK, *columns.COSTS.values()), Record),
        (columns.VERSUS, Versus),
        (columns.EXPONENTS, ScalingPoint),
        (columns.QUALITY, GradientQuality),
    ],
)
def test_what_is_shown_is_there(shown, known):
    fields = {*getattr(known, "model_fields", ()), *getattr(known, "__dataclass_fields__", ()), *dir(known)}
    assert {column.field for column in shown} <= fields | COMPUTED


@pytest.mark.parametrize("column", everything(), ids=lambda column: column.label)
def test_a_head_names_the_unit(column):
    assert column.unit in column.label and column.unit in column.short
    assert (column.scale == 1.0) or column.unit


def test_no_view_has_two_columns_of_one_head():
    for shown in (columns.SUMMARY, columns.BY_TASK, columns.RANKING, columns.VERSUS, columns.QUALITY):
        for heads in ([c.label for c in shown], [c.short for c in shown], [c.heading for c in shown]):
            assert len(set(heads)) == len(heads)


def test_a_number_is_scaled_and_what_is_none_is_marked():
    column = Column("bytes", "kB", ",.1f", "kB", 1e-3)
    assert [column.text(value) for value in (1_234_567, None, math.nan, math.inf)] == [
        "1,234.6",
        "–",
        "–",
        "–",
    ]
    assert dataclasses.replace(column, infinite="∞").text(math.inf) == "∞"


def test_a_new_column_is_shown_by_every_view_that_lists_it(source, tmp_path, monkeypatch):
    new = Column("duration_seconds", "whole µs", ".3e", "µs", 1e6, "max", "of the trial & its evaluations")
    for name in ("SUMMARY", "RANKING", "BY_TASK"):
        monkeypatch.setattr(columns, name, (*getattr(columns, name), new))
    results = make(source)
    results = dataclasses.replace(
        results, records=tuple(r.model_copy(update={"duration_seconds": 2.0}) for r in results.records)
    )
    board = make_board(results, 100)
    for shown in (
        render(results.records, "markdown"),
        render(results.records, "rich"),
        text.ranking_markdown(board),
    ):
        assert "whole µs" in shown and "2.000e+06" in shown
    written = page.page(board, [tmp_path])
    assert 'data-column="duration_seconds" data-first="desc">whole µs<' in written
    assert 'data-help="of the trial &amp; its evaluations"' in written
    data = page._data(board, ())
    assert "duration_seconds" in data["ranking"] and data["forms"]["duration_seconds"]["form"] == ".3e"
    place = data["costs"].index("duration_seconds")
    assert {cell[-1][place] for row in data["rows"] for cell in row["cells"].values()} == {2.0}
    section = data["sections"]["bptt"].replace(' class="command"', "")
    assert "<th scope=col>whole µs</th>" in section and "<td>2.000e+06</td>" in section
