"""Tables of records: averages, separate columns, and each format."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest
from rich.console import Console

from creditbench.errors import UsageError
from creditbench.results import columns
from creditbench.results.selection import select
from creditbench.results.table import (
    FORMATS,
    choose,
    fit,
    frame,
    latex_table,
    markdown_table,
    plain,
    print_rich,
    render,
    rows,
    summarise,
)
from creditbench.results.version import Results
from creditbench.trials.grid import Options, make_grid
from creditbench.trials.record import Record
from tests.records import record, trials


@pytest.fixture(scope="module")
def records() -> list[Record]:
    a, b, c = trials("bptt", seeds=(0, 1, 2))
    (anp,) = trials("anp")
    (elsewhere,) = trials("bptt", task="adding")
    stale = a.model_copy(update={"learner_sha256": "0" * 64})
    return [
        record(
            a,
            test_score=0.25,
            normalised_score=0.5,
            solved=0.1,
            trivial=1.0,
            steps_per_second=1000.0,
            steps_to_target=100,
        ),
        record(b, test_score=0.75, normalised_score=0.7, trivial=1.0, solved=0.1, steps_per_second=3000.0),
        record(c, status="diverged", status_detail="step 3", trivial=1.0, solved=0.1),
        record(anp, status="crashed", status_detail="exit code 3"),
        record(elsewhere, test_score=0.1, trivial=0.2),
        record(stale, test_score=99.0),
    ]


def section(records, task="mackey_glass"):
    found = next(section for section in summarise(records) if section.task == task)
    return found, [dict(zip(found.heads, row, strict=True)) for row in found.rows]


def test_seeds_are_averaged_and_a_diverged_one_counts_as_trivial(records):
    found, table = section(records)
    bptt = next(row for row in table if row["rule"] == "bptt" and "stale" not in row["status"])
    assert bptt["test score"] == "0.5 ± 0.35"  # of 0.25 and 0.75
    assert bptt["normalised"] == "0.500 (diverged … 0.700)"
    assert bptt["steps/s"] == "2,000"
    assert bptt["status"] == "2 ok, 1 diverged"
    assert bptt["seeds"] == "3"
    assert "trivial 1" in found.title and "lower is better" in found.title
    assert found.caption == "times taken on one"


def test_stale_failed_and_missing_are_shown_as_such(records):
    _, table = section(records)
    stale = [row for row in table if "stale" in row["status"]]
    assert [(row["test score"], row["status"]) for row in stale] == [
        ("99", "stale (learner bptt has changed): 1 ok")
    ]
    (anp,) = [row for row in table if row["rule"] == "anp"]
    assert (anp["test score"], anp["status"], anp["seeds"]) == ("–", "1 crashed", "1 of 3")
    _, adding = section(records, "adding")
    assert [(row["rule"], row["status"]) for row in adding] == [("anp", "missing"), ("bptt", "1 ok")]


def test_different_settings_are_never_averaged():
    made = [record(trial, test_score=trial.lr) for trial in trials("anp", lrs=(0.1, 0.2), seeds=(0, 1))]
    _, table = section(made)
    assert [(row["rule"], row["test score"]) for row in table] == [
        ("anp lr=0.1", "0.1 ± 0"),
        ("anp lr=0.2", "0.2 ± 0"),
    ]
    two = [record(trials("anp", settings={"anp.sigma": sigma})[0]) for sigma in ("0.5", "0.25")]
    assert {row["rule"] for row in section(two)[1]} == {"anp sigma=0.5", "anp sigma=0.25"}


def test_times_of_two_machines_are_marked(records):
    other = records[1].model_copy(update={"environment": {"cpu": "two"}})
    assert section([records[0], other])[0].caption == "times taken on one; two: not to be compared"


def test_json_and_csv_have_a_row_a_trial_with_the_columns_of_a_record(records):
    found = json.loads(render(records, "json"))
    assert [set(row) for row in found] == [set(records[0].row()) | {"stale"}] * len(records)
    assert found[3]["test_score"] is None and found[0]["stale"] == ""
    read = list(csv.DictReader(io.StringIO(render(records, "csv"))))
    assert [row["trial"] for row in read] == [r.trial.id for r in records]
    assert (read[0]["steps_to_target"], read[1]["steps_to_target"]) == ("100", "")
    assert list(frame(records).columns) == list(rows(records)[0])


def test_markdown_rows_have_as_many_cells_as_columns(records):
    lines = [line for line in render(records, "markdown").splitlines() if line.startswith("|")]
    assert len(lines) == 2 * 2 + 3 + 2
    assert len({line.count("|") for line in lines}) == 1


def test_no_cell_breaks_a_markdown_table():
    assert markdown_table(("a", "b"), [("x|y", "two\nlines")], ("a",)).splitlines() == [
        "| a | b |",
        "| --- | ---: |",
        r"| x\|y | two lines |",
    ]


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("<script>alert(1)</script>", "&lt;script>alert(1)&lt;/script>"),
        ("# a heading\n\n- a list", r"\# a heading - a list"),
        ("1. first", r"\1. first"),
        ("[x](javascript:alert(1)) ![i](j)", r"[x\](javascript:alert(1)) ![i\](j)"),
        ("a | b `c` *d* ~~e~~ \\", r"a \| b \`c\` \*d\* \~\~e\~\~ \\"),
        ("_x_ mackey_glass __init__", r"\_x\_ mackey_glass \_\_init\_\_"),
        ("&lt;b> & co", "&amp;lt;b> & co"),
        ("0.50 [0.40, 0.60] ± 0.1, -1", "0.50 [0.40, 0.60] ± 0.1, -1"),
    ],
)
def test_what_a_record_says_is_no_markup(said, written):
    assert plain(said) == written
    assert markdown_table(("a",), [(said,)]).splitlines()[2] == f"| {written} |"


def test_no_table_or_twin_takes_markup_from_a_record(tmp_path, records):
    """Whatever free text a record has: of its settings, its machine, its task's metric."""
    from creditbench.leaderboard import text
    from creditbench.leaderboard.board import make_board
    from creditbench.results.version import Results

    bad = "<img src=x>|`\n# h\n[a](b)"
    changed = []
    for number, one in enumerate(records):
        parameters = {
            "hyperparameters": {"x": f"{bad}{number % 2}"},
            "task_parameters": {"y": f"{bad}{number % 3}"},
        }
        own = one.trial.model_copy(update=parameters | {"device": bad, "optimizer": bad})
        machine = {"cpu": bad, "commit": bad, "packages": {bad: bad}, "system": bad}
        given = {"trial": own, "metric": bad, "environment": machine, "status_detail": bad}
        changed.append(one.model_copy(update=given))
    about = {"bptt": {"name": bad, "paper": bad, "family": bad, "claims": {"time": bad}}}
    board = make_board(Results(tuple(changed), learners=about), 100)
    written = [render(changed, "markdown"), render(changed, "scores"), text.markdown(board, [tmp_path / bad])]
    written.append(text.readme(board, tmp_path / bad, [tmp_path / bad]))
    for twin in written:
        prose = re.sub(r"(`{2,})(?:sh\n)?.*?\1", "", twin, flags=re.DOTALL)  # code is code
        assert "<img" not in prose and not re.search(r"(?<!\\)\]\(b", prose) and "\n# h" not in prose
        assert "&lt;img" in prose


def test_latex_is_escaped():
    text = latex_table("a < b", "tab:x", ("rule",), [[("< | >",), ("bptt_x ± –",)]], ("rule",))
    assert r"$<$ $|$ $>$" in text and r"bptt\_x $\pm$ --" in text
    assert r"\caption{a $<$ b.}" in text and r"\label{tab:x}" in text
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 1


def test_a_table_that_fits_no_page_is_refused():
    with pytest.raises(UsageError, match="61 rows, and a page has room for 60: choose some with --rule"):
        latex_table("", "tab:x", ("rule",), [[("bptt",)] * 61])


def test_a_narrow_terminal_breaks_no_number_and_says_what_it_left_out(records):
    for width in (72, 80, 200):
        text = io.StringIO()
        print_rich(records, Console(file=text, width=width))
        assert "2,000" in text.getvalue() and "diverged" in text.getvalue()
        assert ("compile s │" in text.getvalue().replace("┃", "│")) == (width == 200)
        said = " ".join(text.getvalue().split())
        assert (f"since {width} characters have no room for them: " in said) == (width < 200)
        assert (width == 200) or ("compile s" in said.partition("for them: ")[2] and "--columns" in said)
        assert max(map(len, text.getvalue().splitlines())) <= width


def test_a_narrow_terminal_breaks_no_name():
    texts = {"rule": ["bptt_checkpointed"], "seeds": ["15 in 3 studies"], "score": ["0.477 ± 0.003"]}
    assert fit(texts, (), 39) == {"rule": 17, "seeds": 7, "score": 5}
    assert fit(texts, (), 38, ["score"]) == {"rule": 17, "seeds": 14}
    assert sum(fit(texts, (), 25).values()) == 25 - 1 - 3 * 3


def test_columns_are_chosen_by_head_or_field_in_any_order(records):
    names = ["test score", "rule", "ratio_bptt"]
    assert summarise(records, choose(names, columns.SUMMARY))[0].heads == ["test score", "rule", "× bptt"]
    assert "| test score | rule | × bptt |" in render(records, "markdown", names)
    assert render(records, "csv", ["trial", "seed"]).splitlines()[0] == "trial,seed"
    assert [set(row) for row in json.loads(render(records, "json", ["seed"]))] == [{"seed"}] * len(records)
    text = io.StringIO()
    print_rich(records, Console(file=text, width=60), choose(["rule", "compile s"], columns.SUMMARY))
    assert "compile s" in text.getvalue() and "left out" not in text.getvalue()
    with pytest.raises(UsageError, match="unknown column 'tst score': did you mean 'test score'"):
        render(records, "markdown", ["tst score"])
    with pytest.raises(UsageError, match="--columns is rule and --format is scores"):
        render(records, "scores", ["rule"])


def test_results_are_chosen_by_rule_task_and_backend(records):
    results = Results(tuple(records))
    assert {r.trial.rule for r in select(results, rules=["anp"]).records} == {"anp"}
    assert {r.trial.task for r in select(results, ["bptt"], ["adding"]).records} == {"adding"}
    assert select(results, backends=["jax"]).records == results.records
    for asked, said in (
        (dict(rules=["anpp"]), "unknown rule in these results 'anpp': did you mean 'anp'"),
        (dict(tasks=["addin"]), "unknown task in these results 'addin'"),
        (dict(backends=["torch"]), "unknown backend in these results 'torch'"),
        (dict(rules=["anp"], tasks=["adding"]), "no results of anp and adding together"),
    ):
        with pytest.raises(UsageError, match=said):
            select(results, **asked)


def test_an_unknown_format_is_refused(records):
    assert all(render(records, form) for form in FORMATS)
    with pytest.raises(UsageError, match="did you mean 'markdown'"):
        render(records, "markdwn")


def test_scores_have_a_column_a_task_and_figures_are_drawn(tmp_path):
    import matplotlib.image

    from creditbench.results.table import render
    from creditbench.trials.trainer import run_trials

    options = Options(
        tasks=("mackey_glass", "adding"), learners=("bptt",), hidden=4, preset="smoke", backends=("torch",)
    )
    records = [record for trial in make_grid(options).trials for record in run_trials([trial])]
    lines = render(records, "scores").splitlines()
    assert lines[0] == "| rule | backend | adding<br>mse ↓ | mackey_glass<br>nrmse ↓ |"
    scores = [format(record.test_score, ".4g") for record in reversed(records)]
    assert lines[3] == f"| bptt | torch | {' | '.join(scores)} |"
    from creditbench.leaderboard.figures import curves

    curves(records).savefig(tmp_path / "curves.png")
    image = matplotlib.image.imread(tmp_path / "curves.png")
    assert image.shape[1] > 500
    assert len(set(map(tuple, image.reshape(-1, image.shape[2])))) > 20
