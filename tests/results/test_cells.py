"""Results with several cells: columns, filters, one board for each, their firing rates."""

from __future__ import annotations

import dataclasses
import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from creditbench.cells import cell_class
from creditbench.cli import main
from creditbench.errors import UsageError
from creditbench.leaderboard.board import make_board
from creditbench.leaderboard.compare import compare
from creditbench.leaderboard.versus import versus
from creditbench.ops import make_ops
from creditbench.plugins import meaning
from creditbench.results.selection import cells_of, select
from creditbench.results.store import Store
from creditbench.results.table import render
from creditbench.results.version import Results, load, write_tables
from creditbench.trials.network import firing_rate
from creditbench.trials.record import Record
from creditbench.trials.trial import Trial
from tests.browser import unpacked
from tests.synthetic import make

DRAWS = 100


def with_network(record: Record, cell: str, source: Path) -> Record:
    """The record as if it had been made with that cell."""
    vocabulary = meaning.vocabulary(source.read_bytes(), record.trial.backend, False, cell)
    own = {"cell": cell, "cell_parameters": {"decay": 0.9}, "vocabulary_sha256": vocabulary}
    trial = record.trial.model_copy(update=own)
    return record.model_copy(update={"trial": trial, "firing_rate": 0.125})


@pytest.fixture(scope="module")
def results(source) -> Results:
    """Four rules with tanh, and three of them with lif too."""
    made = make(source, backends=("jax",), seeds=5)
    others = [with_network(r, "lif", source) for r in made.records if r.trial.rule != "rule_03"]
    scaling = [point.model_copy(update={"cell": "lif"}) for point in made.scaling]
    return dataclasses.replace(made, records=(*made.records, *others), scaling=(*made.scaling, *scaling))


def test_a_board_has_one_cell(results):
    """The one with most rows, or the one that is asked for: nothing of another changes its ranks."""
    assert cells_of(results) == ["tanh", "lif"]
    board, other = make_board(results, DRAWS), make_board(results, DRAWS, "lif")
    alone = make_board(select(results, cells=["tanh"]), DRAWS)
    assert (board.cell, other.cell, board.cells) == ("tanh", "lif", ("tanh", "lif"))
    assert board.rows == alone.rows and board.tasks == alone.tasks and not alone.of_cell
    assert {row.rule for row in other.rows} == {"bptt", "rule_01", "rule_02"}
    assert all(row.rank is not None for row in (*board.rows, *other.rows))
    assert {r.trial.cell for row in other.rows for e in row.cells.values() for r in e.records} == {"lif"}
    assert {p.cell for p in board.results.scaling} == {"tanh"}
    assert board.notes[0] == "all rows have the cell tanh; there are results with lif too: --cell"


def test_of_equally_many_rows_tanh_comes_first(results):
    lif = [r for r in results.records if r.trial.cell == "lif"]
    tanh = [r for r in results.records if r.trial.cell == "tanh"][: len(lif)]
    assert cells_of(Results((*lif, *tanh))) == ["tanh", "lif"]
    assert cells_of(Results((*lif, *tanh[1:]))) == ["lif", "tanh"]


def test_cells_are_chosen(results):
    found = select(results, ["bptt"], cells=["lif"])
    assert {(r.trial.rule, r.trial.cell) for r in found.records} == {("bptt", "lif")}
    with pytest.raises(UsageError, match="unknown cell in these results 'lyf': did you mean 'lif'"):
        select(results, cells=["lyf"])


def test_a_rule_is_compared_with_the_reference_of_its_own_cell(results):
    rows = versus(results)
    assert {row.cell for row in rows} == {"tanh", "lif"}
    for row in rows:
        assert f"cell={row.cell}" in row.task
    alone = {(row.task, row.rule): row.difference for row in versus(select(results, cells=["lif"]))}
    for row in rows:
        if row.cell == "lif":
            task = row.task.partition(" ")[0]
            assert alone[task, row.rule] == row.difference


def test_runs_of_one_cell_are_compared(results):
    worse = [
        r.model_copy(update={"normalised_score": -1.0}) if r.trial.cell == "lif" else r
        for r in results.records
    ]
    after = dataclasses.replace(results, records=tuple(worse))
    usual = compare(results, after)
    assert not usual.changes
    assert "runs with tanh are compared, and not those with lif: --cell" in usual.notes
    assert any(change.kind == "worse" for change in compare(results, after, cell="lif").changes)
    with pytest.raises(UsageError, match="unknown cell in these results 'gru'"):
        compare(results, after, cell="gru")


def test_tables_name_the_cell_where_there_are_others(results):
    """And have a column of firing rates where any row has one."""
    both, usual = (
        render([r for r in results.records if r.trial.cell in cells], "markdown")
        for cells in (("tanh", "lif"), ("tanh",))
    )
    assert "| rule | cell | backend |" in both and "firing rate |" in both and "0.125" in both
    assert "| rule | backend |" in usual and "firing rate" not in usual and "cell" not in usual
    scores = render(results.records, "scores")
    assert "| bptt | jax |" in scores and "| bptt with lif | jax |" in scores
    rows = json.loads(render(results.records, "json"))
    assert {row["cell"] for row in rows} == {"tanh", "lif"}


def test_a_version_keeps_cells_and_reads_older_tables(results, tmp_path):
    write_tables(results, tmp_path / "v", "")
    found = load(tmp_path / "v")
    assert {r.trial.id: r.trial for r in found.records} == {r.trial.id: r.trial for r in results.records}
    assert {r.firing_rate for r in found.records if r.trial.cell == "lif"} == {0.125}
    assert {p.cell for p in found.scaling} == {"tanh", "lif"}
    older = {k: v for k, v in results.records[0].row().items() if not k.startswith("cell")}
    older.pop("firing_rate")
    first = results.records[0]
    assert Record.from_row(older, first.curve, first.environment).trial == first.trial


def test_each_cell_has_a_page_that_the_others_name(results, tmp_path, capsys):
    store = Store(tmp_path / "r")
    for record in results.records:
        store.put(record)
    words = ["leaderboard", "--results", str(tmp_path / "r"), "--draws", "100"]
    assert main([*words, "--output", str(tmp_path / "page")]) == 0
    first, other = (
        (tmp_path / "page" / place / "index.html").read_text(encoding="utf-8") for place in (".", "cells/lif")
    )
    assert '<option value="index.html" selected>tanh</option>' in first
    assert '<option value="cells/lif/index.html">lif</option>' in first
    assert '<option value="../../index.html">tanh</option>' in other
    assert "cell lif; " in other and "There are results" not in other
    assert {row["rule"] for row in unpacked(first)["rows"]} > {row["rule"] for row in unpacked(other)["rows"]}
    assert main([*words, "--output", str(tmp_path / "lif"), "--cell", "lif"]) == 0
    alone = (tmp_path / "lif" / "index.html").read_text(encoding="utf-8")
    assert re.search(r"<label hidden>Cell", alone) and not (tmp_path / "lif" / "cells").exists()
    assert main([*words, "--output", str(tmp_path / "x"), "--cell", "gru"]) == 2
    assert "unknown cell in these results 'gru'" in capsys.readouterr().err
    for verb in (["table", "--format", "ranking"], ["versus"], ["table"]):
        assert main([*verb, "--results", str(tmp_path / "r"), "--cell", "lif"]) == 0
        assert "rule_03" not in capsys.readouterr().out
    assert main(["table", "--format", "ranking", "--results", str(tmp_path / "r")]) == 0
    assert "note: all rows have the cell tanh; there are results with lif too" in capsys.readouterr().err


@pytest.mark.parametrize("id", ["lif", "alif"])
def test_the_firing_rate_is_the_mean_of_the_spikes(id):
    """Decorrelated activity is none; and the rate does not depend on how a sequence is cut."""
    cell = cell_class(id)(2, 5, 1, decorrelate="both")
    drawn = cell.init(0)
    drawn["W_in"] *= 4.0
    drawn["D"] = np.random.default_rng(0).standard_normal(drawn["D"].shape)
    x = np.random.default_rng(1).standard_normal((70, 3, 2))
    rates = []
    for backend in ("jax", "torch"):
        ops = make_ops(backend, dtype="float64")
        params, inputs = ops.from_numpy(drawn), ops.from_numpy(x)
        compiled = ops.compile(partial(firing_rate, ops, cell), params, inputs)
        rates.append(float(ops.to_numpy(compiled(params, inputs))))
        state, spikes = cell.start(ops, 3), []
        for step in inputs:
            drive = cell.drive(ops, params, cell.encode(params, step))
            _, state = cell.step(ops, params, state, drive)
            spikes.append(ops.to_numpy(cell.o(ops, state.s)[0]))
        assert rates[-1] == pytest.approx(np.mean(spikes), rel=1e-12) and 0.01 < rates[-1] < 0.9
    assert rates[0] == pytest.approx(rates[1], rel=1e-12)
    assert Trial.model_fields["cell"].default == "tanh"
