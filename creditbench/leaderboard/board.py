"""From results to a board: a row a rule, backend and device, with its scores, costs and ranks.

A board has a column for each task and set of conditions that it was run under (`Trial.conditions`: budget,
sizes, the task's parameters, data), so runs under different conditions stand in different columns. All runs
of a cell are from one machine and the same versions.
"""

from __future__ import annotations

import dataclasses
import math
import shlex
import statistics as plain
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from creditbench.leaderboard import statistics
from creditbench.leaderboard.statistics import Array, Interval, Ranks
from creditbench.results.columns import COSTS, REFERENCE, TARGETS
from creditbench.results.conditions import columns_of
from creditbench.results.selection import cells_of, select
from creditbench.results.store import stale
from creditbench.results.version import Results
from creditbench.trials.record import Record
from creditbench.trials.trial import CELL

#: Runs that a ranked row has on every task; `QUICK_SEEDS`, with a mark, if all ran with the preset `quick`.
SEEDS, QUICK_SEEDS = 5, 3
#: Tasks from which ranks are tested.
TASKS = 5
#: Bounds of a normalised score in a mean or an interquartile mean. A run that diverged counts as the lower
#: one. The bounds lie far out, so that they decide nothing among runs that ended. Tests, tuning and tables
#: use unbounded scores.
LOW, HIGH = -10.0, 10.0


@dataclasses.dataclass(frozen=True)
class Entry:
    """The results of one row on one task: runs that differ only in seed and tuning study."""

    records: tuple[Record, ...]
    stale: str  #: why the numbers may no longer hold; empty if they do
    others: int  #: sets of runs with other settings, machines or versions that were left out

    @cached_property
    def runs(self) -> Array:
        """Unbounded normalised scores [runs]: -inf for a diverged run, none for another failure."""
        return np.array([v for records in self.grouped for v in map(_normalised, records) if v is not None])

    @cached_property
    def scores(self) -> Array:
        """`runs` bounded to `LOW` … `HIGH`, for means and charts."""
        return np.clip(self.runs, LOW, HIGH)

    @cached_property
    def units(self) -> list[Array]:
        """`scores` by tuning study; without studies each run is a unit."""
        found = [
            np.array([v for v in map(_normalised, records) if v is not None]) for records in self.grouped
        ]
        return [np.clip(unit, LOW, HIGH) for unit in found if unit.size]

    @cached_property
    def metrics(self) -> Array:
        """Test metrics [runs], signed so that higher is better: -inf for a run that diverged."""
        sign = {"min": -1.0, "max": 1.0}[self.records[0].metric_direction]
        found = [
            sign * r.test_score if r.status == "ok" and r.test_score is not None else -math.inf
            for records in self.grouped
            for r in records
            if r.status == "diverged" or (r.status == "ok" and r.test_score is not None)
        ]
        return np.array(found)

    @property
    def grouped(self) -> list[list[Record]]:
        """Its records by tuning study; without studies each run stands alone."""
        units: dict[Any, list[Record]] = {}
        for record in self.records:
            units.setdefault(record.trial.study or record.trial.seed, []).append(record)
        return [units[name] for name in sorted(units, key=str)]

    @property
    def studies(self) -> int:
        """Tuning studies of its runs; 0 if none are named."""
        return len({r.trial.study for r in self.records if r.trial.study is not None})

    @property
    def untuned(self) -> int:
        """Studies in which no point beat the trivial score."""
        return len({r.trial.study for r in self.records if r.trial.beat_trivial is False})

    @property
    def bounded(self) -> int:
        """Runs that lie outside `LOW` … `HIGH`, those that diverged among them."""
        return int((self.runs != self.scores).sum())

    @property
    def normalises(self) -> bool:
        """Whether its runs have normalised scores."""
        return any(r.normalised_score is not None for r in self.records) or any(
            r.status == "diverged" and r.solved is not None for r in self.records
        )

    @property
    def level(self) -> float:
        """Its level for ranks within the task: the mean of `scores`, or of `metrics` without a scale."""
        if self.normalises:
            return float(self.scores.mean()) if len(self.scores) else -math.inf
        return float(self.metrics.mean()) if len(self.metrics) else -math.inf

    @property
    def machine(self) -> str:
        """The machine of its times."""
        return self.records[0].machine

    def values(self, name: str) -> list[float]:
        """A figure of the records that have it."""
        return [value for record in self.records if (value := getattr(record, name)) is not None]

    def median(self, name: str) -> float | None:
        """Its median over seeds; None if no seed has it."""
        values = self.values(name)
        return float(plain.median(values)) if values else None

    def target(self, name: str) -> float:
        """The median over seeds of steps or seconds to the target; inf if half or more never reach it."""
        values = [
            math.inf if (value := getattr(record, name)) is None else float(value) for record in self.records
        ]
        return plain.median_high(values)

    @property
    def status(self) -> str:
        """How the runs ended: `4 ok, 1 diverged`."""
        counts = Counter(record.status for record in self.records)
        return ", ".join(f"{n} {name}" for name, n in sorted(counts.items(), key=lambda c: c[0] != "ok"))

    @property
    def commands(self) -> list[str]:
        """The commands that reproduce these numbers, one for each set of hyper-parameters."""
        families: dict[str, list[Record]] = {}
        for record in self.records:
            families.setdefault(record.trial.family, []).append(record)
        return [command(records) for records in families.values()]


@dataclasses.dataclass(frozen=True)
class Standing:
    """One rule under one backend on one kind of device."""

    rule: str
    learner: str
    backend: str
    device: str
    cells: Mapping[str, Entry]  #: by task; a task that was not run is missing
    tasks: tuple[str, ...]  #: all tasks of the board
    scores: Mapping[str, Interval]  #: by the names of `statistics.AGGREGATES`; empty if no cell has a score
    improvement: Interval | None  #: probability of improvement over `REFERENCE`
    unranked: str  #: why it has no rank; empty if it has one
    quick: bool  #: ranked with the seeds of the preset `quick`
    rank: int | None = None  #: among the rows of its backend and device; rows of one score share it
    ranks: tuple[int, int] | None = (
        None  #: the best and the worst rank that the intervals of the scores allow
    )
    submission: str = ""  #: of a rule that is not shipped: submitted, or how `creditbench verify` found it

    @property
    def key(self) -> tuple[str, str, str]:
        return self.rule, self.backend, self.device

    @property
    def label(self) -> str:
        return " ".join([self.rule, self.backend, *([self.device] if self.device != "cpu" else [])])

    @property
    def stale(self) -> str:
        return next((cell.stale for cell in self.cells.values() if cell.stale), "")

    @property
    def remarks(self) -> list[str]:
        """Remarks on the row: who vouches for it, runs beyond the bounds, tuning without success, no rank."""
        diverged = sum(r.status == "diverged" for cell in self.cells.values() for r in cell.records)
        beyond = sum(cell.bounded for cell in self.cells.values() if cell.normalises) - diverged
        untuned = [task for task, cell in self.cells.items() if cell.untuned]
        found = [self.submission] if self.submission else []
        found += [f"{diverged} {'run' if diverged == 1 else 'runs'} diverged"] if diverged else []
        found += [f"{beyond} beyond ±{HIGH:g}"] if beyond > 0 else []
        found += [f"no point of tuning beat trivial on {', '.join(untuned)}"] if untuned else []
        return [*found, self.unranked] if self.unranked else found

    def cost(self, name: str) -> float | None:
        """The geometric mean over its tasks of a cost's median over seeds; None if it was not measured."""
        values = [v for cell in self.cells.values() if (v := cell.median(name)) is not None and v > 0]
        return float(np.exp(np.mean(np.log(values)))) if values else None


@dataclasses.dataclass(frozen=True)
class Board:
    """The rows, best first, and comparisons between those of one backend and device."""

    results: Results
    tasks: tuple[str, ...]  #: its columns
    rows: tuple[Standing, ...]
    left_out: tuple[str, ...] = ()  #: columns of a single rule: they compare nothing
    unscaled: tuple[str, ...] = ()  #: columns without normalised scores: each is ranked by its metric
    notes: tuple[str, ...] = ()  #: differences between its rows that a reader has to know
    cell: str = CELL  #: the one cell of its rows
    cells: tuple[str, ...] = (CELL,)  #: all cells that there are results of
    whole: Results | None = None  #: what the board is of, with all cells

    @property
    def of_cell(self) -> str:
        """A note on the one cell of the rows, if there are results of others; else empty."""
        others = [name for name in self.cells if name != self.cell]
        if not others:
            return ""
        return f"all rows have the cell {self.cell}; there are results with {', '.join(others)} too: --cell"

    @property
    def scaled(self) -> tuple[str, ...]:
        """The columns with normalised scores."""
        return tuple(task for task in self.tasks if task not in self.unscaled)

    @cached_property
    def groups(self) -> dict[tuple[str, str], list[Standing]]:
        """Rows by backend and device."""
        found: dict[tuple[str, str], list[Standing]] = {}
        for row in self.rows:
            found.setdefault((row.backend, row.device), []).append(row)
        return dict(sorted(found.items()))

    def ranks(self, rows: Sequence[Standing]) -> tuple[list[Standing], Ranks] | None:
        """Friedman and Nemenyi over the ranked `rows`; None for fewer than `TASKS` tasks or two rules."""
        ranked = [row for row in rows if row.rank is not None]
        if len(self.tasks) < TASKS or len(ranked) < 2:
            return None
        levels = [[row.cells[task].level for row in ranked] for task in self.tasks]
        return ranked, statistics.friedman_nemenyi(levels)

    def places(self, rows: Sequence[Standing], task: str) -> dict[tuple[str, str, str], int]:
        """The place of each of `rows` on one task, by its level there; equal levels share a place."""
        levels = {row.key: cell.level for row in rows if (cell := row.cells.get(task)) and len(cell.metrics)}
        return {key: 1 + sum(other > own for other in levels.values()) for key, own in levels.items()}

    @cached_property
    def machines(self) -> dict[str, str]:
        """The machine on which most cells were timed, by `BACKEND DEVICE`."""
        counts: dict[str, Counter[str]] = {}
        for row in self.rows:
            counts.setdefault(" ".join(row.key[1:]), Counter()).update(c.machine for c in row.cells.values())
        return {group: max(sorted(found), key=found.__getitem__) for group, found in counts.items()}

    def profile(self, rows: Sequence[Standing], cost: str) -> tuple[Array, Array]:
        """Performance profiles: τ [K] up to the largest ratio, and ρ(τ) [R, K]. `cost` is one of `COSTS`."""
        column = COSTS[cost]
        costs = np.full((len(rows), len(self.tasks)), np.inf)
        for i, row in enumerate(rows):
            for j, task in enumerate(self.tasks):
                cell = row.cells.get(task)
                if cell is None or cell.stale or not math.isfinite(cell.target("steps_to_target")):
                    continue
                if cost == "seconds" and cell.machine != self.machines[" ".join(row.key[1:])]:
                    continue  # seconds of another machine do not count
                value = cell.target(column.field) if column in TARGETS else cell.median(column.field)
                # A target that is reached before the first step costs less than can be measured.
                costs[i, j] = math.inf if value is None else max(value, 1e-9)
        best = costs.min(axis=0, initial=np.inf)
        ratios = (costs / np.where(np.isfinite(best), best, 1.0))[np.isfinite(costs)]
        tau = np.unique(np.concatenate([[1.0], ratios]))
        tau = np.append(tau, 1.2 * tau[-1])
        return tau, statistics.performance_profile(costs, tau * (1 + 1e-12))

    def complete(self, row: Standing) -> bool:
        """Whether a row has a score on every task, none of them stale."""
        return not row.stale and all(
            task in row.cells and len(row.cells[task].scores) for task in self.scaled
        )

    def front(self, rows: Sequence[Standing], cost: str) -> list[bool]:
        """Whether each row is on the front: no other is better in score and in `cost`, a record's field.

        Only rows count that are `complete`.
        """
        points = []
        for row in rows:
            value = row.cost(cost) if self.complete(row) else None
            score = row.scores["iqm"].value if row.scores else None
            points.append([np.nan if value is None else value, np.nan if score is None else -score])
        return statistics.pareto_front(np.array(points).reshape(-1, 2)).tolist()


def _normalised(record: Record) -> float | None:
    """Its normalised score, -inf if it diverged; None if it has none."""
    if record.status == "diverged":
        return -math.inf
    return record.normalised_score if record.status == "ok" else None


def make_cells(
    results: Results, column: Mapping[str, str] | None = None
) -> dict[tuple[str, str, str], dict[str, Entry]]:
    """The cells: results of each rule under each backend on each kind of device, by column.

    `column`: the column of each trial; None for that of `columns_of`. A cell is a set of runs that are alike
    (`Record.alike`). If there are several sets, one counts: not stale, most runs, best mean on *validation*.
    The number of the others is kept, and they stay in the tables.
    """
    cells: dict[tuple[str, str, str], dict[str, Entry]] = {}
    grouped: dict[tuple[str, str, str, str], dict[Any, list[Record]]] = {}
    column = columns_of(results.records) if column is None else column
    for record in results.records:
        trial = record.trial
        place = grouped.setdefault((trial.rule, trial.backend, trial.device, column[trial.id]), {})
        place.setdefault(record.alike, []).append(record)
    for (rule, backend, device, task), sets in grouped.items():
        best = max(sets.values(), key=_preference)
        reason = stale(best[0])
        fresh = sum(not stale(one[0]) for one in sets.values()) - (not reason)
        cells.setdefault((rule, backend, device), {})[task] = Entry(tuple(best), reason, fresh)
    return cells


def make_board(results: Results, draws: int = statistics.DRAWS, cell: str | None = None) -> Board:
    """The board of `results` with one cell of the network, from the entries of `make_cells`.

    `cell`: None for that of most records. No row of another stands on the board.

    Intervals are 95 %, from `draws` draws of a stratified bootstrap of studies and seeds. A column of a
    single learner is left out, since no other rule could have a rank, unless all columns are such.
    """
    whole, networks = results, tuple(cells_of(results)) or (CELL,)
    cell = networks[0] if cell is None else cell
    measured = {p.cell for p in results.scaling} | {g.cell for g in results.gradients}
    measured |= {c.cell for c in results.checks}
    if results.records and {*networks, *measured} != {cell}:
        results = select(results, cells=[cell])
    learners: dict[str, set[str]] = {}
    column = columns_of(results.records)
    for record in results.records:
        learners.setdefault(column[record.trial.id], set()).add(record.trial.learner)
    shared = tuple(sorted(task for task, own in learners.items() if len(own) > 1))
    tasks = shared or tuple(sorted(learners))
    found = make_cells(results, column)
    cells = {key: {task: own[task] for task in sorted(own.keys() & set(tasks))} for key, own in found.items()}
    unscaled = tuple(
        task for task in tasks if not any(own[task].normalises for own in cells.values() if task in own)
    )
    rows = []
    drawn = statistics.Draws(draws)
    for key, own in cells.items():
        scored = {task: cell.units for task, cell in own.items() if task not in unscaled and cell.units}
        reference = cells.get((REFERENCE, *key[1:]), {})
        common = [task for task in scored if task in reference and reference[task].units]
        improvement = None
        if common and key[0] != REFERENCE:
            improvement = statistics.probability_of_improvement(
                [_exact(own[task]) for task in common], [_exact(reference[task]) for task in common], drawn
            )
        trial = next(iter(found[key].values())).records[0].trial
        alone = f"run by itself alone: {', '.join(sorted(found[key]))}"
        unranked, quick = _unranked(own, tasks, unscaled) if own else (alone, False)
        scores = statistics.aggregates(list(scored.values()), drawn) if scored else {}
        row = Standing(
            key[0], trial.learner, key[1], key[2], own, tasks, scores, improvement, unranked, quick
        )
        rows.append(dataclasses.replace(row, submission=_submission(results, key, found[key])))
    rows.sort(
        key=lambda row: (bool(row.unranked), -row.scores["iqm"].value if row.scores else np.inf, row.key)
    )
    left_out = tuple(sorted(learners.keys() - set(tasks)))
    ranked = tuple(_with_ranks(rows))
    board = Board(results, tasks, ranked, left_out, unscaled, (), cell, networks, whole)
    return dataclasses.replace(board, notes=tuple(_unlike(board)))


def _submission(results: Results, key: tuple[str, str, str], cells: Mapping[str, Entry]) -> str:
    """`Standing.submission` of the row with that key, of whose tasks some may be verified."""
    records = [record for cell in cells.values() for record in cell.records]
    if all(record.learner_source == "builtin" for record in records):
        return ""
    sources = {record.trial.learner_sha256 for record in records}
    own = [v for v in results.verified if (v.learner, v.backend) == key[:2] and v.learner_sha256 in sources]
    if unlike := [v for v in own if v.verdict in ("differs", "failed")]:
        return f"not verified: on {', '.join(f'{v.task} it {_HOW[v.verdict]}' for v in unlike)}"
    tasks = {v.task for v in own if v.verdict == "verified"}
    if not tasks:
        return "submitted"
    every = {record.trial.task for record in records}
    return "verified" if tasks >= every else f"verified on {len(tasks & every)} of {len(every)} tasks"


_HOW = {"differs": "did worse when it was run again", "failed": "failed when it was run again"}


def _exact(cell: Entry) -> list[Array]:
    """The unbounded runs of a cell, by unit."""
    ends = np.cumsum([len(unit) for unit in cell.units])[:-1]
    return np.split(cell.runs, ends)


def _with_ranks(rows: Sequence[Standing]) -> list[Standing]:
    """The rows; those that may be ranked have their rank and the ranks that the intervals allow."""
    found = list(rows)
    for group in {row.key[1:] for row in rows}:
        places = [i for i, row in enumerate(rows) if row.key[1:] == group and not row.unranked]
        scores = [rows[i].scores["iqm"] for i in places]
        ranges = statistics.rank_ranges([s.low for s in scores], [s.high for s in scores])
        for i, score, allowed in zip(places, scores, ranges, strict=True):
            rank = 1 + sum(other.value > score.value for other in scores)
            found[i] = dataclasses.replace(rows[i], rank=rank, ranks=(int(allowed[0]), int(allowed[1])))
    return found


def _unlike(board: Board) -> Iterator[str]:
    """Notes on differences between cells that stand side by side, and their consequences."""
    if board.of_cell:
        yield board.of_cell
    asunder: dict[str, list[str]] = {}
    for task in board.tasks:
        asunder.setdefault(task.partition(" ")[0], []).append(task)
    for task, own in asunder.items():
        if len(own) > 1:
            yield f"{task} was run under {len(own)} sets of conditions, a column each: {'; '.join(own)}"
    for (backend, device), rows in board.groups.items():
        cells = [cell for row in rows for cell in row.cells.values()]
        machines = Counter(cell.machine for cell in cells)
        if len(machines) > 1:
            most = board.machines[f"{backend} {device}"]
            yield (
                f"{backend} {device}: times were taken on {len(machines)} machines "
                f"({'; '.join(sorted(machines))}): seconds are compared between the cells of {most} alone"
            )
        versions = {cell.records[0].versions for cell in cells}
        if len(versions) > 1:
            yield f"{backend} {device}: cells were made with other versions: {'; '.join(sorted(versions))}"
        together = sum(r.trained_together > 1 for cell in cells for r in cell.records)
        if 0 < together < sum(len(cell.records) for cell in cells):
            yield (
                f"{backend} {device}: {together} runs were trained as one program with others, which may "
                "round otherwise, and have no time of their own"
            )
    if board.unscaled:
        yield (
            f"no normalised score on {', '.join(board.unscaled)}: nobody knows there what counts as solved; "
            "the metric ranks within the task, and the scores are of the other tasks"
        )


def _preference(group: Sequence[Record]) -> tuple[Any, ...]:
    sign = {"min": -1, "max": 1}[group[0].metric_direction]
    values = [r.validation_best for r in group if r.validation_best is not None]
    best = sign * plain.fmean(values) if values else -math.inf
    return not stale(group[0]), len(group), best, group[0].trial.family


def _unranked(
    cells: Mapping[str, Entry], tasks: Sequence[str], unscaled: Collection[str]
) -> tuple[str, bool]:
    """Why a row has no rank (empty: it has one), and whether it is marked as preset `quick`."""
    missing = [task for task in tasks if task not in cells]
    if len(missing) > len(cells):
        return f"run on {', '.join(task for task in tasks if task in cells)} alone", False
    if missing:
        return f"not run on {', '.join(missing)}", False
    for task, cell in cells.items():
        if cell.stale:
            return f"stale: {cell.stale}", False
        if len(cell.metrics) < len(cell.records):
            return f"{task}: {cell.status}", False
    if set(cells) <= set(unscaled):
        return "no task here has a normalised score: see the places within the tasks", False
    seeds = min(len(cell.metrics) for cell in cells.values())
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
        # A user's file may since have moved into the shipped folder.
        return path if path is not None and Path(path).exists() else name

    rule = source(trial.learner, trial.learner_path) + trial.rule[len(trial.learner) :]
    words = ["creditbench", "run", "--task", source(trial.task, trial.task_path), "--learner", rule]
    words += ["--cell", source(trial.cell, trial.cell_path)] if trial.cell != CELL else []
    words += ["--backend", trial.backend, "--device", trial.device]
    # A custom budget has no preset.
    own = trial.preset == "custom"
    words += ["--budget", str(trial.budget_steps)] if own else ["--preset", trial.preset]
    words += ["--evaluations", str(trial.evaluations)]
    words += ["--layers", str(trial.layers)] if trial.layers > 1 else []
    words += ["--hidden", str(trial.hidden), "--batch", str(trial.batch), "--alpha", repr(trial.alpha)]
    if trial.protocol == "stream":
        words += ["--segment", str(trial.segment)]
    if trial.bias:
        words += ["--bias"]
    words += ["--optimizer", trial.optimizer, "--lr", repr(trial.lr)]
    if trial.decorrelate != "none":
        words += ["--decorrelation-rate", repr(trial.decorrelation_rate)]
    owners = {
        trial.learner: trial.hyperparameters,
        trial.task: trial.task_parameters,
        trial.cell: trial.cell_parameters,
        trial.optimizer: trial.optimizer_parameters,
    }
    for owner, fields in owners.items():
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
