"""From results to a board: a row a rule, backend and device, with its scores, costs and ranks."""

from __future__ import annotations

import dataclasses
import math
import shlex
import statistics as plain
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from creditbench.leaderboard import statistics
from creditbench.leaderboard.statistics import Array, Estimate, Ranks
from creditbench.record import Record
from creditbench.store import Results, stale

#: Seeds that a ranked row has on every task; where all was run with the preset `quick`, `QUICK_SEEDS`, and marked so.
SEEDS, QUICK_SEEDS = 5, 3
#: Tasks from which ranks are tested.
TASKS = 5
REFERENCE = "bptt"
#: What a trial costs, by the field of a record; of the tasks that it solves, for a profile.
COSTS = {
    "steps": "steps_to_target",
    "seconds": "seconds_to_target",
    "bytes": "algorithm_bytes",
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """What one row did on one task: the records of one family of trials, a seed each."""

    records: tuple[Record, ...]
    stale: str  #: why the numbers may no longer hold; empty where they do
    others: int  #: families of other settings that were left out

    @cached_property
    def scores(self) -> Array:
        """Normalised scores [S]: 0 where a seed diverged; a seed that failed otherwise has none."""
        found = []
        for record in self.records:
            if record.status == "diverged":
                found.append(0.0)
            elif record.status == "ok" and record.normalised_score is not None:
                found.append(record.normalised_score)
        return np.array(found)

    def values(self, name: str) -> list[float]:
        """A figure of the records, of those that have it."""
        return [value for record in self.records if (value := getattr(record, name)) is not None]

    def median(self, name: str) -> float | None:
        """Its median over seeds; None where no seed has it."""
        values = self.values(name)
        return float(plain.median(values)) if values else None

    def target(self, name: str) -> float:
        """The median over seeds of steps or seconds to the target; inf where half of them or more never came there."""
        values = [
            math.inf if (value := getattr(record, name)) is None else float(value) for record in self.records
        ]
        return plain.median_high(values)

    @property
    def status(self) -> str:
        """How the seeds ended: `4 ok, 1 diverged`."""
        counts = Counter(record.status for record in self.records)
        return ", ".join(f"{n} {name}" for name, n in sorted(counts.items(), key=lambda c: c[0] != "ok"))

    @property
    def command(self) -> str:
        """The command that makes these numbers again."""
        return command(self.records)


@dataclasses.dataclass(frozen=True)
class Row:
    """One rule under one backend on one kind of device."""

    rule: str
    learner: str
    backend: str
    device: str
    cells: Mapping[str, Cell]  #: by task; a task that was not run is missing
    tasks: tuple[str, ...]  #: all tasks of the board
    scores: Mapping[
        str, Estimate
    ]  #: by the names of `statistics.AGGREGATES`; empty where no cell has a score
    improvement: Estimate | None  #: probability of improvement over `REFERENCE`
    unranked: str  #: why it has no rank; empty where it has one
    quick: bool  #: ranked with the seeds of the preset `quick`
    rank: int | None = None  #: among the rows of its backend and device

    @property
    def key(self) -> tuple[str, str, str]:
        return self.rule, self.backend, self.device

    @property
    def label(self) -> str:
        return " ".join([self.rule, self.backend, *([self.device] if self.device != "cpu" else [])])

    @property
    def stale(self) -> str:
        return next((cell.stale for cell in self.cells.values() if cell.stale), "")

    def cost(self, name: str) -> float | None:
        """The geometric mean over its tasks of a cost's median over seeds; None where it was not measured."""
        values = [v for cell in self.cells.values() if (v := cell.median(name)) is not None and v > 0]
        return float(np.exp(np.mean(np.log(values)))) if values else None


@dataclasses.dataclass(frozen=True)
class Board:
    """The rows, best first, and what holds between those of one backend and device."""

    results: Results
    tasks: tuple[str, ...]
    rows: tuple[Row, ...]
    left_out: tuple[str, ...] = ()  #: tasks that one rule alone was run on: they compare nothing

    @property
    def groups(self) -> dict[tuple[str, str], list[Row]]:
        """Rows by backend and device."""
        found: dict[tuple[str, str], list[Row]] = {}
        for row in self.rows:
            found.setdefault((row.backend, row.device), []).append(row)
        return dict(sorted(found.items()))

    def ranks(self, rows: Sequence[Row]) -> tuple[list[Row], Ranks] | None:
        """Friedman and Nemenyi over the ranked ones of `rows`; None with fewer than `TASKS` tasks or two rules."""
        ranked = [row for row in rows if row.rank is not None]
        if len(self.tasks) < TASKS or len(ranked) < 2:
            return None
        scores = [[row.cells[task].scores.mean() for row in ranked] for task in self.tasks]
        return ranked, statistics.friedman_nemenyi(scores)

    def profile(self, rows: Sequence[Row], cost: str) -> tuple[Array, Array]:
        """Performance profiles of rows: τ [K] up to the largest ratio, and ρ(τ) [R, K]. `cost` is one of `COSTS`."""
        costs = np.full((len(rows), len(self.tasks)), np.inf)
        for i, row in enumerate(rows):
            for j, task in enumerate(self.tasks):
                cell = row.cells.get(task)
                if cell is None or cell.stale or not math.isfinite(cell.target("steps_to_target")):
                    continue
                value = cell.median("algorithm_bytes") if cost == "bytes" else cell.target(COSTS[cost])
                # A target reached before the first step costs less than anything that can be measured.
                costs[i, j] = math.inf if value is None else max(value, 1e-9)
        best = costs.min(axis=0, initial=np.inf)
        ratios = (costs / np.where(np.isfinite(best), best, 1.0))[np.isfinite(costs)]
        tau = np.unique(np.concatenate([[1.0], ratios]))
        tau = np.append(tau, 1.2 * tau[-1])
        return tau, statistics.performance_profile(costs, tau * (1 + 1e-12))

    def front(self, rows: Sequence[Row], cost: str) -> list[bool]:
        """Which rows no other beats both in score and in `cost` (a field of a record).

        Rows that have a score on every task alone, none of them stale.
        """
        points = []
        for row in rows:
            whole = all(task in row.cells and len(row.cells[task].scores) for task in self.tasks)
            value = row.cost(cost) if whole and not row.stale else None
            score = row.scores["iqm"].value if row.scores else None
            points.append([np.nan if value is None else value, np.nan if score is None else -score])
        return statistics.pareto_front(np.array(points).reshape(-1, 2)).tolist()


def make_cells(results: Results) -> dict[tuple[str, str, str], dict[str, Cell]]:
    """What each rule did under each backend on each kind of device, by task.

    Of a rule's families of trials on one task (the same but for the seed) one counts: not stale, most seeds, best mean
    on *validation*. The others are counted, and stay in the tables.
    """
    cells: dict[tuple[str, str, str], dict[str, Cell]] = {}
    grouped: dict[tuple[str, str, str, str], dict[str, list[Record]]] = {}
    for record in results.records:
        trial = record.trial
        place = grouped.setdefault((trial.rule, trial.backend, trial.device, trial.task), {})
        place.setdefault(trial.family, []).append(record)
    for (rule, backend, device, task), families in grouped.items():
        best = max(families.values(), key=_preference)
        reason = stale(best[0])
        fresh = sum(not stale(family[0]) for family in families.values()) - (not reason)
        cells.setdefault((rule, backend, device), {})[task] = Cell(tuple(best), reason, fresh)
    return cells


def make_board(results: Results, draws: int = statistics.DRAWS) -> Board:
    """The board of `results`, of the cells of `make_cells`.

    Intervals are 95 %, from `draws` draws of a stratified bootstrap. A task that one learner alone was run on is
    left out, unless all are such tasks: nobody else could have a rank.
    """
    learners: dict[str, set[str]] = {}
    for record in results.records:
        learners.setdefault(record.trial.task, set()).add(record.trial.learner)
    shared = tuple(sorted(task for task, own in learners.items() if len(own) > 1))
    tasks = shared or tuple(sorted(learners))
    found = make_cells(results).items()
    cells = {key: {task: own[task] for task in sorted(own.keys() & set(tasks))} for key, own in found}
    cells = {key: own for key, own in cells.items() if own}
    rows = []
    for key, own in cells.items():
        scored = {task: cell.scores for task, cell in own.items() if len(cell.scores)}
        reference = cells.get((REFERENCE, *key[1:]), {})
        common = [task for task in scored if task in reference and len(reference[task].scores)]
        improvement = None
        if common and key[0] != REFERENCE:
            improvement = statistics.probability_of_improvement(
                [scored[task] for task in common], [reference[task].scores for task in common], draws
            )
        trial = next(iter(own.values())).records[0].trial
        unranked, quick = _unranked(own, tasks)
        scores = statistics.aggregates(list(scored.values()), draws) if scored else {}
        rows.append(
            Row(key[0], trial.learner, key[1], key[2], own, tasks, scores, improvement, unranked, quick)
        )
    rows.sort(
        key=lambda row: (bool(row.unranked), -row.scores["iqm"].value if row.scores else np.inf, row.key)
    )
    places: Counter[tuple[str, str]] = Counter()
    for i, row in enumerate(rows):
        if not row.unranked:
            places[row.key[1:]] += 1
            rows[i] = dataclasses.replace(row, rank=places[row.key[1:]])
    return Board(results, tasks, tuple(rows), tuple(sorted(learners.keys() - set(tasks))))


def _preference(family: Sequence[Record]) -> tuple[Any, ...]:
    sign = {"min": -1, "max": 1}[family[0].metric_direction]
    values = [r.validation_best for r in family if r.validation_best is not None]
    best = sign * plain.fmean(values) if values else -math.inf
    return not stale(family[0]), len(family), best, family[0].trial.family


def _unranked(cells: Mapping[str, Cell], tasks: Sequence[str]) -> tuple[str, bool]:
    """Why a row has no rank (empty: it has one), and whether it takes the mark of the preset `quick`."""
    missing = [task for task in tasks if task not in cells]
    if len(missing) > len(cells):
        return f"run on {', '.join(task for task in tasks if task in cells)} alone", False
    if missing:
        return f"not run on {', '.join(missing)}", False
    for task, cell in cells.items():
        if cell.stale:
            return f"stale: {cell.stale}", False
        if len(cell.scores) < len(cell.records):
            return f"{task}: {cell.status}", False
    seeds = min(len(cell.scores) for cell in cells.values())
    quick = all(record.trial.preset == "quick" for cell in cells.values() for record in cell.records)
    if seeds < (QUICK_SEEDS if quick else SEEDS):
        return (
            f"{seeds} {'seed' if seeds == 1 else 'seeds'}: a rank takes {QUICK_SEEDS if quick else SEEDS}",
            False,
        )
    return "", seeds < SEEDS


def command(records: Sequence[Record]) -> str:
    """The command that runs the trials of one family again, as one line for a shell."""
    trial = records[0].trial

    def source(name: str, path: str | None) -> str:
        # A user's file may have moved into the shipped folder since.
        return path if path is not None and Path(path).exists() else name

    rule = source(trial.learner, trial.learner_path) + trial.rule[len(trial.learner) :]
    words = ["creditbench", "run", "--task", source(trial.task, trial.task_path), "--learner", rule]
    words += ["--backend", trial.backend, "--device", trial.device]
    # A budget of one's own is no preset's.
    own = trial.preset == "custom"
    words += ["--budget", str(trial.budget_steps)] if own else ["--preset", trial.preset]
    words += ["--evaluations", str(trial.evaluations)]
    words += ["--hidden", str(trial.hidden), "--batch", str(trial.batch), "--alpha", repr(trial.alpha)]
    if trial.protocol == "stream":
        words += ["--segment", str(trial.segment)]
    if trial.bias:
        words += ["--bias"]
    words += ["--optimizer", trial.optimizer, "--lr", repr(trial.lr)]
    if trial.decorrelate != "none":
        words += ["--decorrelation-rate", repr(trial.decorrelation_rate)]
    for owner, fields in ((trial.learner, trial.hyperparameters), (trial.task, trial.task_parameters)):
        for name, value in fields.items():
            if name == "data":
                if value is not None:
                    words += ["--data", f"{trial.task}={value}"]
            elif value is not None:
                words += [
                    "--set",
                    f"{owner}.{name}={str(value).lower() if isinstance(value, bool) else value}",
                ]
    if trial.threads != 1:
        words += ["--threads", str(trial.threads)]
    words += ["--seed", ",".join(str(record.trial.seed) for record in records)]
    return shlex.join(words)


# -- claims ----------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Claim:
    """One claim of a rule, and what the tables say of it."""

    name: str
    claimed: str
    held: bool | None  #: None: not measured in these tables
    detail: str


def claims(results: Results, learner: str) -> list[Claim]:
    """The claims of a learner, held against scaling.csv and gradients.csv, and else against checks.csv."""
    from scipy.stats import binom

    said = dict(results.learners.get(learner, {}).get("claims", {}))
    checked = {row.name: row for row in results.checks if row.learner == learner}
    sources = {r.trial.learner_sha256 for r in results.records if r.trial.learner == learner}
    found = []

    def by_check(label: str, nothing: str) -> tuple[bool | None, str]:
        """What the check of that name found, unless it was of another source than the trials."""
        row = checked.get(label)
        if row is None:
            return None, nothing
        if sources and row.learner_sha256 not in sources:
            return (
                None,
                "checked, but the rule has another source since: run creditbench check --results again",
            )
        return row.held, f"creditbench check: {row.detail}"

    for name, label in (("unbiased", "unbiased"), ("online", "online"), ("forward_only", "forward only")):
        if not said.get(name):
            continue
        held, detail = by_check(label, "not checked: creditbench check --results")
        if name == "unbiased":
            own = [row for row in results.gradients if row.learner == learner]
            if own:
                # An exact estimate agrees to rounding. Of intervals from draws, 2.5 % lie above the truth.
                biased = sum(row.bias_low > 1e-3 for row in own)
                held = bool(biased <= binom.ppf(0.99, len(own), (1 - statistics.CONFIDENCE) / 2))
                worst = max(own, key=lambda row: row.bias_low)
                detail = (
                    f"a bias is shown in {biased} of {len(own)} places; the largest is "
                    f"{worst.bias:.2g} [{worst.bias_low:.2g}, {worst.bias_high:.2g}], {worst.task} {worst.backend}"
                )
        found.append(Claim(label, "yes", held, detail))
    axes = {
        ("algorithm_bytes", "T"): ("memory in T", "memory_in_T"),
        ("time", "n"): ("time of a step", "time"),
        ("algorithm_bytes", "n"): ("memory", "memory"),
    }
    for (quantity, axis), (label, field) in axes.items():
        if field not in said:
            continue
        fits = {
            p.backend: p
            for p in results.scaling
            if (p.learner, p.quantity, p.axis) == (learner, quantity, axis)
        }
        measured = [p for p in fits.values() if p.held is not None]
        detail = "; ".join(
            f"{p.backend}: {axis}^{p.exponent:.2f} [{p.low:.2f}, {p.high:.2f}]" for p in fits.values()
        )
        held = all(bool(p.held) for p in measured) if measured else None
        if held is None:
            held, checked_ = by_check(label.removesuffix(" of a step"), "" if detail else "not measured")
            detail = "; ".join(filter(None, (checked_, detail)))
        found.append(Claim(label, str(said[field]), held, detail))
    return found
