"""Two results of the same rules, A before and B after: what got better, worse, faster, slower or broken.

Cells are compared that have the same rule, backend, device and column: the task with its conditions (budget,
sizes, parameters, data). A cell without a counterpart is new or gone. A test and its interval are one
construction: intervals are at the Bonferroni level alpha / k of the k figures that are tested together, and
exclude 0 (for a ratio, 1) exactly where p_corrected = min(1, k p) is below alpha.

- *Score*: the difference B − A of mean scores, averaged over strata; a run that diverged is at the floor of
  the scale. A permutation test relabels the runs within each stratum, and its inversion is the interval
  (`statistics.permutation_interval`). A stratum is a column, backend, device and tuning study, if both have
  the study with the same settings. If studies differ, their means are relabelled within the column; without
  studies, the runs are. k counts the rules. A column without a scale is tested by itself, in its metric,
  signed so that higher is better. If a rule differs, the columns that differ by themselves are named, with
  uncorrected p and interval.
- *Time*: the ratio B / A of `ratio_forward`; for a rule that lacks it, of `steps_per_second`, inverted, on
  one machine alone. A column's figure is the median over its runs; if no rule has two columns, each seed's
  figure is used. Logarithms of the ratios of a rule and backend have a centre and spread robust to outliers,
  the spread moderated by that of all (`statistics.moderated_intervals`); k counts rules and backends. Changes
  of `TOLERANCE` or more are reported. On one machine `steps_per_second`, measured at another time, may
  contradict a `ratio_forward`: if its own interval lies short of half of the change, both as it is and less
  what all rules share, the change is only a note. If that interval is too uncertain, the change stands.
- *Bytes and FLOPs* are counted, not sampled: any ratio further than `EXACT` from 1 is reported, as the median
  over columns if all of them changed alike, else column by column.
- *Order*: Kendall's τ of the two boards' orders, over the rules that ran the same columns. A board settles a
  pair of rules if their ranges of ranks do not overlap; the settled pairs that the other board reverses are
  counted.
"""

from __future__ import annotations

import dataclasses
import math
import statistics as plain
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from creditbench.errors import UsageError, unknown
from creditbench.leaderboard import statistics
from creditbench.leaderboard.board import Entry, Standing, make_board, make_cells
from creditbench.leaderboard.statistics import Array, Tested
from creditbench.leaderboard.versus import metrics, signed
from creditbench.results.columns import COUNTED
from creditbench.results.conditions import columns_of
from creditbench.results.selection import cells_of
from creditbench.results.version import Results

ALPHA = 0.05
#: Least relative change of time that is reported.
TOLERANCE = 0.1
#: Least relative change of a counted figure that is reported.
EXACT = 1e-3
#: Draws of the bootstrap whose intervals say which pairs of rules a board settles.
DRAWS = 4000
#: Kinds of changes for the worse.
REGRESSIONS = ("worse", "slower", *(column.changes[1] for column in COUNTED), "broken", "gone")

#: Fields of a trial in which A and B may differ and still have the same settings.
_NO_SETTINGS = {
    *("seed", "task_sha256", "learner_sha256", "cell_sha256", "task_path", "learner_path", "cell_path"),
    *("measure", "preset", "study"),
    "beat_trivial",
}

Place = tuple[str, str, str, str]  #: rule, backend, device, column
Key = tuple[str, str, str]  #: rule, backend, device


@dataclasses.dataclass(frozen=True)
class Change:
    """One thing that differs between A and B."""

    #: better, worse, faster, slower, smaller, bigger, less work, more work, mended, broken, new, gone
    kind: str
    rule: str
    backend: str  #: with the device if it is not the CPU; for a score, all that were compared
    task: str | None  #: the column; None: over all
    quantity: str
    before: float | str | None
    after: float | str | None
    difference: float | None = None  #: of scores, B − A
    ratio: float | None = None  #: of times and counts, B / A; above 1 is more time; None from 0
    low: float | None = None  #: interval of the difference or ratio, at the level alpha / k
    high: float | None = None
    p: float | None = None
    p_corrected: float | None = None  #: min(1, k p); None for a single column of a rule that differs


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Agreement of two boards of the same rules and columns on their order, by interquartile means."""

    rules: int  #: rows: a rule under one backend and device
    columns: int
    tau: float  #: Kendall's τ of the two orders
    settled: int  #: pairs whose ranges of ranks do not overlap, counted in each of the two boards
    turned: int  #: of these, pairs that the other board reverses


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What was compared, and what differs."""

    changes: tuple[Change, ...]
    compared: Mapping[str, int]  #: quantity -> number of figures that were compared
    notes: tuple[str, ...]
    agreement: Agreement | None = None  #: None if fewer than three rules ran the same columns in both

    @property
    def regressions(self) -> tuple[Change, ...]:
        return tuple(change for change in self.changes if change.kind in REGRESSIONS)


def compare(
    a: Results, b: Results, *, alpha: float = ALPHA, tolerance: float = TOLERANCE, cell: str | None = None
) -> Comparison:
    """The changes from `a` to `b`, where both ran the same rule in the same column, backend and device.

    `cell`: the one whose runs are compared; None for that of most runs. Raises `UsageError` if they have
    nothing in common, so that an empty comparison cannot pass.
    """
    there = cells_of(dataclasses.replace(a, records=(*a.records, *b.records)))
    both = {name for one in (a, b) for name in cells_of(one)}
    if cell is not None and cell not in both:
        raise unknown("cell in these results", cell, there, "creditbench table")
    others: list[str] = []
    if len(there) > 1:
        of_both = [name for name in there if all(name in cells_of(one) for one in (a, b))]
        cell = cell or next(iter(of_both or there))
        others = [name for name in there if name != cell]
        a, b = (
            dataclasses.replace(one, records=tuple(r for r in one.records if r.trial.cell == cell))
            for one in (a, b)
        )
    label = columns_of([*a.records, *b.records])
    before, after = _cells(a, label), _cells(b, label)
    common = sorted(before.keys() & after.keys())
    if not common:
        shared = {(*p[:3], c.records[0].trial.task) for p, c in before.items()}
        shared &= {(*p[:3], c.records[0].trial.task) for p, c in after.items()}
        if shared:
            task = min(shared)[3]
            one, other = (
                min(p[3] for p, c in cells.items() if c.records[0].trial.task == task)
                for cells in (before, after)
            )
            raise UsageError(
                f"the two results share no conditions: '{one}' stands against '{other}': "
                "name two that ran alike"
            )
        raise UsageError(
            "the two results share no rule, backend, device and task: name two that ran the same grid"
        )
    changes, notes = [], []
    if others:
        notes.append(f"runs with {cell} are compared, and not those with {', '.join(others)}: --cell")
    for place in sorted(after.keys() - before.keys()):
        changes.append(_presence("new", place, after[place]))
    for place in sorted(before.keys() - after.keys()):
        changes.append(_presence("gone", place, before[place]))
    settings = []
    for place in common:
        if changed := _settings(before[place], after[place]):
            settings.append(f"{' '.join(place[:2])} on {place[3]}: {', '.join(changed)}")
    if settings:
        shown = "; ".join(settings[:3]) + (f"; and {len(settings) - 3} more" if len(settings) > 3 else "")
        notes.append(f"settings differ: {shown}")
    for name, said in (
        ("versions", "versions differ, which may round or draw otherwise"),
        ("machine", "machines differ, and times may for that"),
    ):
        pairs = {tuple(getattr(c[place].records[0], name) for c in (before, after)) for place in common}
        unlike = sorted(pair for pair in pairs if pair[0] != pair[1])
        if unlike:
            shown = "; ".join(f"{x or 'unknown'} → {y or 'unknown'}" for x, y in unlike[:3])
            notes.append(f"{said}: {shown}")
    changes += _failures(before, after, common)
    scored, scores, score_notes = _scores(before, after, common, alpha)
    timed, times, time_notes = _times(before, after, common, alpha, tolerance)
    counted, counts = _counts(before, after, common)
    compared = {**scores, **times, **counts}
    return Comparison(
        (*changes, *scored, *timed, *counted), compared, (*notes, *score_notes, *time_notes), agreement(a, b)
    )


def agreement(a: Results, b: Results) -> Agreement | None:
    """The agreement of the boards of `a` and `b`, over the rules that ran the same columns in both.

    None for fewer than three such rules. Kendall 1938, doi:10.1093/biomet/30.1-2.81.
    """
    # SciPy is slow to import.
    from scipy.stats import kendalltau

    label = columns_of([*a.records, *b.records])

    def places(results: Results) -> dict[Key, set[str]]:
        found: dict[Key, set[str]] = {}
        for r in results.records:
            found.setdefault((r.trial.rule, r.trial.backend, r.trial.device), set()).add(label[r.trial.id])
        return found

    one, other = places(a), places(b)
    shared = {key: one[key] & other[key] for key in one.keys() & other.keys() if one[key] & other[key]}
    if not shared:
        return None
    columns = max(shared.values(), key=lambda own: (len(own), sorted(own)))
    rules = {key for key, own in shared.items() if own >= columns}
    if len(rules) < 3:
        return None

    def rows(results: Results) -> dict[Key, Standing]:
        kept = [
            r
            for r in results.records
            if (r.trial.rule, r.trial.backend, r.trial.device) in rules and label[r.trial.id] in columns
        ]
        found = make_board(dataclasses.replace(results, records=tuple(kept)), DRAWS).rows
        return {row.key: row for row in found if row.ranks is not None}

    boards = rows(a), rows(b)
    keys = sorted(boards[0].keys() & boards[1].keys())
    if len(keys) < 3:
        return None
    scores = [[own[key].scores["iqm"].value for key in keys] for own in boards]
    settled = turned = 0
    for i, x in enumerate(keys):
        for j, y in enumerate(keys[:i]):
            if x[1:] != y[1:]:
                continue  # ranks count within one backend and device
            ahead = [own[i] - own[j] for own in scores]
            for board in boards:
                first, second = board[x].ranks, board[y].ranks
                if first and second and (first[1] < second[0] or second[1] < first[0]):
                    settled += 1
                    turned += ahead[0] * ahead[1] < 0
    tau = float(kendalltau(*scores).statistic)
    return Agreement(len(keys), len(columns), tau, settled, int(turned))


def _cells(results: Results, label: Mapping[str, str]) -> dict[Place, Entry]:
    """The cell of each rule, backend, device and column, with the same names in both results.

    Stale trials count: the comparison is about changed sources.
    """
    return {
        (*key, label[cell.records[0].trial.id]): cell
        for key, own in make_cells(results).items()
        for cell in own.values()
    }


def _where(place: Sequence[str]) -> str:
    return place[1] if place[2] == "cpu" else f"{place[1]} {place[2]}"


def _presence(kind: str, place: Place, cell: Entry) -> Change:
    before, after = (None, cell.status) if kind == "new" else (cell.status, None)
    return Change(kind, place[0], _where(place), place[3], "trials", before, after)


def _settings(a: Entry, b: Entry) -> list[str]:
    """The settings in which two cells differ, without sources, seeds and studies."""
    one, other = a.records[0].trial, b.records[0].trial
    x, y = (trial.model_dump(exclude=_NO_SETTINGS) for trial in (one, other))
    return [f"{name} {x[name]} → {y[name]}" for name in x if x[name] != y[name]]


def _failures(before: Mapping[Any, Entry], after: Mapping[Any, Entry], common: Sequence[Any]) -> list[Change]:
    """Cells whose share of failed runs changed: crashed, timed out, invalid or out of memory."""
    found = []
    for place in common:
        a, b = before[place], after[place]
        shares = [sum(r.status not in ("ok", "diverged") for r in c.records) / len(c.records) for c in (a, b)]
        if shares[0] != shares[1]:
            kind = "broken" if shares[1] > shares[0] else "mended"
            found.append(Change(kind, place[0], _where(place), place[3], "trials", a.status, b.status))
    return found


def _tuned(cell: Entry) -> dict[str, str]:
    """The choice of each of its studies, by the study's name."""
    return {
        record.trial.study: record.trial.model_dump_json(exclude=_NO_SETTINGS)
        for record in cell.records
        if record.trial.study is not None
    }


def _strata(a: Entry, b: Entry, scaled: bool) -> list[tuple[Array, Array]]:
    """Values that may be relabelled between two cells: runs of each common study, else means of units."""
    one, other = (cell.units if scaled else metrics(cell) for cell in (a, b))
    mine, theirs = _tuned(a), _tuned(b)
    if mine and mine == theirs and len(mine) == len(one) == len(other):
        return list(zip(one, other, strict=True))
    x, y = (np.array([unit.mean() for unit in units]) for units in (one, other))
    return [(x, y)] if len(x) and len(y) else []


def _scores(
    before: Mapping[Place, Entry], after: Mapping[Place, Entry], common: Sequence[Place], alpha: float
) -> tuple[list[Change], dict[str, int], list[str]]:
    groups: dict[tuple[str, str | None], dict[Place, list[tuple[Array, Array]]]] = {}
    notes = []
    for place in common:
        a, b = before[place], after[place]
        scaled = a.normalises and b.normalises
        strata = _strata(a, b, scaled)
        if not all(np.isfinite(side).all() for pair in strata for side in pair):
            notes.append(f"{' '.join(place)}: not compared: runs diverged, and the metric has no floor")
        elif strata:
            groups.setdefault((place[0], None if scaled else place[3]), {})[place] = strata
    k = max(1, len(groups))
    draws = max(statistics.DRAWS, int(10 * k / alpha))

    def test(own: Sequence[tuple[Array, Array]], level: float) -> Tested:
        x, y = zip(*own, strict=True)
        return statistics.permutation_interval(x, y, level, draws)

    found = []
    for (rule, column), own in groups.items():
        tested = test([pair for strata in own.values() for pair in strata], alpha / k)
        corrected = min(1.0, k * tested.p)
        if not tested.low <= 0 <= tested.high:
            a = before[next(iter(own))]
            quantity = "normalised_score" if column is None else signed(a)
            backends = ",".join(sorted({_where(place) for place in own}))
            found.append(_scored(rule, backends, column, quantity, list(own.values()), tested, corrected))
            for place, strata in own.items() if column is None else ():
                alone = test(strata, alpha)
                if not alone.low <= 0 <= alone.high:
                    found.append(_scored(rule, _where(place), place[3], quantity, [strata], alone, None))
    counts = {"score": len({rule for rule, column in groups if column is None})}
    unscaled = sum(column is not None for _, column in groups)
    return found, counts | ({"metric": unscaled} if unscaled else {}), notes


def _scored(
    rule: str,
    backend: str,
    task: str | None,
    quantity: str,
    strata: Sequence[Sequence[tuple[Array, Array]]],
    tested: Tested,
    corrected: float | None,
) -> Change:
    pairs = [pair for own in strata for pair in own]
    before, after = (plain.fmean(float(pair[side].mean()) for pair in pairs) for side in (0, 1))
    kind = "better" if tested.value > 0 else "worse"
    return Change(
        kind,
        rule,
        backend,
        task,
        quantity,
        before,
        after,
        difference=tested.value,
        low=tested.low,
        high=tested.high,
        p=tested.p,
        p_corrected=corrected,
    )


def _times(
    before: Mapping[Place, Entry],
    after: Mapping[Place, Entry],
    common: Sequence[Place],
    alpha: float,
    tolerance: float,
) -> tuple[list[Change], dict[str, int], list[str]]:
    logs = {name: _logs(before, after, common, name) for name in ("ratio_forward", "steps_per_second")}
    chosen = {key: "ratio_forward" if key in logs["ratio_forward"] else "steps_per_second"
              for key in {**logs["ratio_forward"], **logs["steps_per_second"]}}  # fmt: skip
    if not chosen:
        return [], {}, ["no time was compared: ratio_forward is missing, and the machines differ"]
    compared: dict[str, int] = {}
    for quantity in chosen.values():
        compared[quantity] = compared.get(quantity, 0) + 1
    k = len(chosen)
    fits: dict[Key, Tested] = {}
    for quantity in compared:
        keys = [key for key in chosen if chosen[key] == quantity]
        found = statistics.moderated_intervals([logs[quantity][key] for key in keys], alpha / k)
        fits |= dict(zip(keys, found, strict=True))
    notes = [
        f"{quantity}: one measurement a rule says nothing of its spread, so no time was tested: "
        "run more tasks or seeds"
        for quantity in compared
        if not any(math.isfinite(fits[key].low) for key in chosen if chosen[key] == quantity)
    ]
    training = logs["steps_per_second"]
    speeds = dict(
        zip(training, statistics.moderated_intervals(list(training.values()), alpha / k), strict=True)
    )
    drift = plain.median(fit.value for fit in speeds.values()) if speeds else 0.0
    changes = []
    for key, quantity in chosen.items():
        fit = fits[key]
        ratio = _exp(fit.value)
        if fit.low <= 0 <= fit.high or abs(fit.value) < math.log1p(tolerance):
            continue
        if quantity == "ratio_forward" and key in speeds:
            own = speeds[key]
            most = own.high if ratio > 1 else -own.low
            shared = drift if ratio > 1 else -drift
            if max(most, most - shared) < abs(fit.value) / 2:
                notes.append(
                    f"ratio_forward of {key[0]} {_where(key)} is × {ratio:.2f}, and its steps a second did "
                    "not go along: measure again on a quieter machine"
                )
                continue
        old, new = (
            plain.median(v for place in common if place[:3] == key for v in cells[place].values(quantity))
            for cells in (before, after)
        )
        changes.append(
            Change(
                "slower" if ratio > 1 else "faster",
                key[0],
                _where(key),
                None,
                quantity,
                old,
                new,
                ratio=ratio,
                low=_exp(fit.low),
                high=_exp(fit.high),
                p=fit.p,
                p_corrected=min(1.0, k * fit.p),
            )
        )
    return changes, compared, notes


def _exp(value: float) -> float:
    """e to that power; infinite if it exceeds every float."""
    return math.exp(value) if value < 700 else math.inf


def _logs(
    before: Mapping[Place, Entry], after: Mapping[Place, Entry], common: Sequence[Place], quantity: str
) -> dict[Key, list[float]]:
    """log(B / A) of the time by rule, backend and device: one a column, or a seed if none has two."""
    sign = -1 if quantity == "steps_per_second" else 1  # more steps a second are less time
    by_column: dict[Key, list[float]] = {}
    by_seed: dict[Key, list[float]] = {}
    for place in common:
        a, b = before[place], after[place]
        if quantity == "steps_per_second" and a.machine != b.machine:
            continue
        x, y = a.median(quantity), b.median(quantity)
        if not x or not y:
            continue
        by_column.setdefault(place[:3], []).append(sign * (math.log(y) - math.log(x)))
        one, other = (
            {(r.trial.study, r.trial.seed): v for r in cell.records if (v := getattr(r, quantity))}
            for cell in (a, b)
        )
        pairs = {(one[seed], other[seed]) for seed in one.keys() & other.keys()} or {(x, y)}
        by_seed.setdefault(place[:3], []).extend(sign * (math.log(v) - math.log(u)) for u, v in sorted(pairs))
    return by_column if any(len(own) > 1 for own in by_column.values()) else by_seed


def _counts(
    before: Mapping[Place, Entry], after: Mapping[Place, Entry], common: Sequence[Place]
) -> tuple[list[Change], dict[str, int]]:
    changes, compared = [], {}
    for column in COUNTED:
        quantity = column.field
        units: dict[Key, dict[str, tuple[float, float]]] = {}
        for place in common:
            x, y = before[place].median(quantity), after[place].median(quantity)
            if x is not None and y is not None:
                units.setdefault(place[:3], {})[place[3]] = x, y
        if units:
            compared[quantity] = len(units)
        for key, own in units.items():
            ratios = {task: y / x if x else math.inf if y else 1.0 for task, (x, y) in own.items()}
            moved = {task: ratio for task, ratio in ratios.items() if abs(ratio - 1) > EXACT}
            ways = {ratio > 1 for ratio in moved.values()}
            if len(moved) == len(own) and len(ways) == 1:
                told: dict[str | None, list[str]] = {None: list(own)}
            else:
                told = {task: [task] for task in moved}
            for task, tasks in told.items():
                ratio = plain.median(ratios[name] for name in tasks)
                old, new = (plain.median(own[name][side] for name in tasks) for side in (0, 1))
                change = ratio if math.isfinite(ratio) else None
                kind = column.changes[ratio > 1]
                changes.append(Change(kind, key[0], _where(key), task, quantity, old, new, None, change))
    return changes, compared
