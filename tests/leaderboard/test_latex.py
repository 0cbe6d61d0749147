"""The table for print: what is in bold, and that LaTeX makes one page of it."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess

import pytest

from creditbench.leaderboard.board import make_board
from creditbench.leaderboard.equals import best_and_equals, mean
from creditbench.leaderboard.text import ranking_latex, scores_latex
from creditbench.leaderboard.versus import versus
from tests.synthetic import make


def compiled(tables: str, folder) -> tuple[int, str]:
    """(pages, what pdflatex said) of a document of the tables."""
    if shutil.which("pdflatex") is None:
        pytest.skip("there is no pdflatex")
    (folder / "d.tex").write_text(
        r"\documentclass[letterpaper]{article}\usepackage[margin=1in]{geometry}"
        rf"\usepackage{{booktabs,amssymb}}\begin{{document}}{tables}\end{{document}}",
        encoding="utf-8",
    )
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "d.tex"],
        cwd=folder,
        capture_output=True,
        text=True,
        errors="replace",
    )
    assert done.returncode == 0, done.stdout[-2000:]
    pages = re.search(r"\((\d+) pages?,", done.stdout)
    assert pages
    return int(pages[1]), done.stdout


@pytest.mark.parametrize(
    ("rules", "tasks", "backends"), [(4, 5, ("jax", "torch")), (25, 7, ("jax",)), (9, 14, ("jax", "torch"))]
)
def test_latex_makes_one_page_of_the_table(source, tmp_path, rules, tasks, backends):
    results = make(
        source,
        rules=rules,
        tasks=tasks,
        backends=backends,
        seeds=2,
        measured=False,
        status=lambda trial: "diverged" if trial.learner == "rule_02" and trial.seed else "ok",
    )
    text = scores_latex(make_board(results, 100))
    assert text.count(r"\begin{tabular}") == 1 and r"\label{tab:scores}" in text
    assert r"\toprule" in text and "some runs diverged" in text
    pages, said = compiled(text, tmp_path)
    assert pages == 1 and "Overfull" not in said and "Float too large" not in said


def test_latex_takes_the_ranking_too(source, tmp_path):
    results = make(source, measured=False)
    pages, _ = compiled(
        ranking_latex(make_board(results, 100), ["rank", "rule", "IQM", "P(> bptt)"]), tmp_path
    )
    assert pages == 1


def test_in_bold_are_the_best_and_what_versus_does_not_tell_from_it(source):
    """`versus` with the best as its reference has an interval that contains 0 for those, and for no other."""
    results = make(source, rules=8, studies=3, tuning=0.15, tasks=3, backends=("jax",), measured=False)
    board = make_board(results, 100)
    told = 0
    for task in board.tasks:
        cells = {row.rule: row.cells[task] for row in board.rows}
        best = max(cells, key=lambda rule: cells[rule].level)
        rows = {row.rule: row for row in versus(results, best, tasks=[task])}
        equal = {r for r, row in rows.items() if row.interval and row.interval[0] <= 0 <= row.interval[1]}
        assert best_and_equals(cells, True) == equal | {best}
        told += len(cells) - 1 - len(equal)
        lines = [line for line in scores_latex(board).splitlines() if r"\textbf" in line]
        assert {line.split("&")[0].strip().replace("\\", "") for line in lines} >= equal
    assert told


def test_bold_needs_a_test_and_runs_that_ended(source):
    def cells(**changes):
        found = make(source, rules=3, tasks=1, backends=("jax",), measured=False, jitter=0, **changes)
        return {row.rule: row.cells["task_00"] for row in make_board(found, 100).rows}

    one = cells(seeds=1)
    assert best_and_equals(one, True) == set(one)  # nothing tells them apart
    assert best_and_equals({"bptt": one["bptt"]}, True) == set()  # and nothing is beaten
    assert "rule_01" not in best_and_equals(
        cells(status=lambda t: "diverged" if t.learner == "rule_01" and t.seed == 0 else "ok"), True
    )
    assert best_and_equals(cells(status=lambda trial: "diverged"), True) == set()
    stale = {rule: dataclasses.replace(cell, stale="changed") for rule, cell in one.items()}
    assert best_and_equals(stale, True) == set()


def test_the_interval_is_students_over_units():
    value, half = mean([1.0, 2.0, 3.0])
    assert value == 2.0 and half == pytest.approx(4.302653 / 3**0.5, rel=1e-6)
    assert mean([1.0]) == (1.0, None) and mean([]) is None and mean([1.0, float("-inf")]) is None
