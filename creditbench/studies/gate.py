"""Whether a revision made rules slower or bigger: base and head measured in turn on the same machine.

The rules are those of a checkout of creditbench, or of a project (`creditbench.plugins.project`) that has
rules of its own. Their code runs with all rights of whoever calls this, as that of a repository's tests does.

Each side is a process of its own (`creditbench.studies.side`). The blocks of both alternate: base head head
base, and so on. Figures without a clock are compared exactly. Times, of the processor on one thread, are
compared as ratios head / base of neighbouring blocks:

    ratio       median over pairs
    interval    95 %, by the bootstrap over pairs

A rule is slower if the whole interval lies above the threshold, twice. Two processes that run the same code
may differ for as long as they live, by where their memory happens to lie. So a rule that looks slower is
measured anew, on more pairs, in fresh processes, and that verdict counts.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from creditbench.errors import UsageError, unknown
from creditbench.machine.child import Child, child_environment
from creditbench.ops import BACKENDS
from creditbench.plugins import project
from creditbench.studies.side import SEGMENTS

#: Relative growth that a figure may have.
TOLERANCE = {"flops": 0.01, "algorithm_bytes": 0.01, "operations": 0.0, "kernels": 0.0, "compilations": 0.0}
#: Ratio of times above which a rule is slower.
THRESHOLD = 1.1
#: Pairs of blocks, and how many times as many when they are measured anew.
PAIRS, AGAIN = 80, 3
#: Least seconds of a block, and the most that a side may take for an answer.
BLOCK_SECONDS, DEADLINE = 0.005, 180.0
#: Verdicts that fail the gate.
FAILURES = ("grown", "slower", "lost", "crashed")


class RatioInterval(NamedTuple):
    """A ratio and its 95 % interval."""

    ratio: float
    low: float
    high: float


class GateRow(NamedTuple):
    """The verdict on one figure of one rule, or on the whole rule if it crashed, is new or is gone."""

    learner: str
    backend: str
    figure: str | None
    base: float | None
    head: float | None
    ratio: float | None
    interval: tuple[float, float] | None
    verdict: str  #: same, less, grown, lost; faster, slower; crashed, new, gone, mended
    detail: str | None = None


@dataclass(frozen=True)
class Found:
    """The result of a comparison."""

    rows: tuple[GateRow, ...]
    measured_again: int = 0  #: number of times that looked slower at first

    @property
    def compared(self) -> int:
        """Figures that both sides have."""
        return sum(row.ratio is not None for row in self.rows)

    @property
    def failures(self) -> tuple[GateRow, ...]:
        return tuple(row for row in self.rows if row.verdict in FAILURES)

    @property
    def passed(self) -> bool:
        """Whether something was compared and nothing failed."""
        return self.compared > 0 and not self.failures


# -- verdicts: no clock and no process from here to the next line ------------------------------------------


def bootstrap(base: Sequence[float], head: Sequence[float], draws: int = 2000) -> RatioInterval:
    """The median of head / base over pairs, with the interval of 2,000 resamples of the pairs."""
    ratios: NDArray[Any] = np.asarray(head) / np.asarray(base)
    rng = np.random.default_rng(0)
    medians = np.median(ratios[rng.integers(len(ratios), size=(draws, len(ratios)))], axis=1)
    low, high = np.quantile(medians, (0.025, 0.975))
    return RatioInterval(float(np.median(ratios)), float(low), float(high))


def slower(found: RatioInterval, threshold: float = THRESHOLD) -> bool:
    """Whether the whole interval lies above the threshold."""
    return found.low > threshold


def exact_rows(
    learner: str, backend: str, base: Mapping[str, int], head: Mapping[str, int], uncounted: str | None = None
) -> list[GateRow]:
    """Verdicts on exact figures. One that only head lacks is lost; one that base lacks is left out."""
    rows = []
    for name, tolerance in TOLERANCE.items():
        a, b = base.get(name), head.get(name)
        if a is None:
            continue
        if b is None:
            rows.append(GateRow(learner, backend, name, a, None, None, None, "lost", uncounted))
            continue
        verdict = "grown" if b > a * (1 + tolerance) else "less" if b < a else "same"
        rows.append(
            GateRow(learner, backend, name, a, b, b / a if a else math.inf if b else 1.0, None, verdict)
        )
    return rows


def time_row(
    learner: str,
    backend: str,
    base: Sequence[float],
    head: Sequence[float],
    threshold: float = THRESHOLD,
    scale: float = 1.0,
) -> GateRow:
    """The verdict on paired seconds of blocks; `scale` makes them seconds of an update."""
    found = bootstrap(base, head)
    verdict = "slower" if slower(found, threshold) else "faster" if found.high < 1 / threshold else "same"
    seconds = (scale * float(np.median(base)), scale * float(np.median(head)))
    return GateRow(learner, backend, "seconds", *seconds, found.ratio, (found.low, found.high), verdict)


# -- measuring -------------------------------------------------------------------------------------------


class CrashError(Exception):
    """A side could not measure a rule; the message says why."""


class SideProcess:
    """The process of one side. It starts at the first request, and again after a request that ended it.

    `files`: of a project, relative to `root`; none for all of its entry points.
    """

    def __init__(self, name: str, root: Path, backend: str, files: Sequence[Path] = ()) -> None:
        self.name, self.root, self.backend, self.files = name, root, backend, files
        self._child: Child | None = None

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """The answer to a request. Raises `CrashError` if the process fails, ends or answers too late."""
        child = self._child = self._child or self._start()
        try:
            child.send(do=do, **request)
            answer = child.receive(DEADLINE)
        except TimeoutError:
            self.close()
            raise CrashError(f"{self.name}: no answer to {do!r} in {DEADLINE:g} s") from None
        if answer is None:
            raise CrashError(f"{self.name}: its process ended with {self._end(child)}")
        if "crashed" in answer:
            raise CrashError(f"{self.name}: {answer['crashed']}")
        return answer

    def _end(self, child: Child) -> str:
        """How a process with a closed pipe ended, and the last line that it printed."""
        code = child.code(10.0)
        if code is None:
            how = "its pipe closed, still running"
        else:
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
        last = (child.last_line() or "it printed nothing")[:300]
        self.close()
        return f"{how}: {last}"

    def _start(self) -> Child:
        environment, where = child_environment(1), [str(self.root), json.dumps([*map(str, self.files)])]
        if project.is_creditbench(self.root):
            path = os.pathsep.join(filter(None, (str(self.root), os.environ.get("PYTHONPATH"))))
            environment, where = environment | {"PYTHONPATH": path}, []
        script = str(Path(__file__).with_name("side.py"))
        return Child(script, arguments=(self.backend, "1", *where), environment=environment)

    def close(self) -> None:
        """End the process."""
        if self._child is not None:
            self._child.__exit__()
            self._child = None

    def __enter__(self) -> SideProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def pairs(base: SideProcess, head: SideProcess, count: int) -> tuple[list[float], list[float], int]:
    """Seconds of `count` blocks of each side's prepared program, in turn, and the calls in a block."""
    sides = {"base": base, "head": head}
    calls = max(
        1, math.ceil(BLOCK_SECONDS / min(s.ask("block", repeat=1)["seconds"] for s in (base, head) * 3))
    )
    found: dict[str, list[float]] = {"base": [], "head": []}
    order = ["base", "head"]
    for _ in range(count):
        for name in order:
            found[name].append(sides[name].ask("block", repeat=calls)["seconds"])
        order.reverse()
    return found["base"], found["head"], calls


def compare(
    base_root: Path,
    head_root: Path,
    learners: Sequence[str] | None = None,
    backends: Sequence[str] = BACKENDS,
    threshold: float = THRESHOLD,
    count: int = PAIRS,
    progress: Callable[[str], None] = lambda text: None,
    files: Sequence[Path] = (),
) -> Found:
    """Compare the rules of one checkout with those of another; all of them if `learners` is None.

    `files`: of a project, relative to both roots; their rules, in place of those of its entry points. Raises
    `UsageError` if a side cannot list its rules, and for a rule that neither has.
    """
    rows: list[GateRow] = []
    again = 0
    for backend in backends:
        with (
            SideProcess("base", base_root, backend, files) as base,
            SideProcess("head", head_root, backend, files) as head,
        ):
            known = _listed(base), _listed(head)
            for learner in _chosen(learners, *known):
                before, after = (backend in found.get(learner, ()) for found in known)
                if not before and not after:
                    continue
                progress(f"{learner} {backend}")
                try:
                    if not after:
                        rows.append(_whole(learner, backend, "gone"))
                    elif not before:
                        head.ask("prepare", learner=learner)
                        rows.append(_whole(learner, backend, "new"))
                    else:
                        found, twice = _compared(base, head, learner, threshold, count)
                        rows += found
                        again += twice
                except CrashError as error:
                    rows.append(_whole(learner, backend, "crashed", str(error)))
    return Found(tuple(rows), again)


def _compared(
    base: SideProcess, head: SideProcess, learner: str, threshold: float, count: int
) -> tuple[list[GateRow], bool]:
    """The rows of a rule of both sides, and whether its time was measured again. Raises `CrashError`."""
    backend = head.backend
    try:
        before = base.ask("prepare", learner=learner)
    except CrashError as error:
        head.ask("prepare", learner=learner)
        return [_whole(learner, backend, "mended", str(error))], False
    after = head.ask("prepare", learner=learner)

    def timed(base: SideProcess, head: SideProcess, count: int) -> GateRow:
        a, b, calls = pairs(base, head, count)
        return time_row(learner, backend, a, b, threshold, 1 / (calls * SEGMENTS))

    time = timed(base, head, count)
    again = time.verdict == "slower"
    if again:
        with (
            SideProcess("base", base.root, backend, base.files) as a,
            SideProcess("head", head.root, backend, head.files) as b,
        ):
            a.ask("prepare", learner=learner)
            b.ask("prepare", learner=learner)
            time = timed(a, b, AGAIN * count)
    exact = exact_rows(learner, backend, before["figures"], after["figures"], after["uncounted"])
    return [*exact, time], again


def _whole(learner: str, backend: str, verdict: str, detail: str | None = None) -> GateRow:
    return GateRow(learner, backend, None, None, None, None, None, verdict, detail)


def _listed(side: SideProcess) -> dict[str, list[str]]:
    try:
        return side.ask("list")["learners"]
    except CrashError as error:
        raise UsageError(
            f"the rules cannot be listed: {error}: mend that, or name a later base if this one is too old "
            "to be measured"
        ) from None


def _chosen(wanted: Sequence[str] | None, base: Mapping[str, Any], head: Mapping[str, Any]) -> Iterator[str]:
    """The wanted ids, or all of both sides. Raises `UsageError` for one that neither has."""
    both = sorted(base.keys() | head.keys())
    for learner in both if wanted is None else wanted:
        if learner not in both:
            raise unknown("learner", learner, both, "creditbench list learners")
        yield learner


# -- reports -----------------------------------------------------------------------------------------------


def sentence(row: GateRow) -> str:
    """One failure in a line."""
    who = f"{row.learner} {row.backend}"
    if row.verdict == "crashed":
        return f"{who}: crashed, not slower: {row.detail}"
    if row.verdict == "lost":
        return f"{who}: {row.figure} was {row.base:,.0f} and can no longer be counted: {row.detail}"
    if row.verdict == "slower":
        assert row.interval is not None
        return (
            f"{who}: slower, time × {row.ratio:.2f} (95 % interval "
            f"{row.interval[0]:.2f} to {row.interval[1]:.2f})"
        )
    return f"{who}: {row.figure} grew from {row.base:,.0f} to {row.head:,.0f}"


def summary(found: Found, base: str) -> str:
    """One line: how much was compared, and with what outcome."""
    rules = len({(row.learner, row.backend) for row in found.rows if row.ratio is not None})
    counted = f"{found.compared} figures of {rules} rules against {base}"
    if not found.compared and not found.failures:
        return f"FAILED: nothing was compared against {base}"
    slow = sum(row.verdict != "crashed" for row in found.failures)
    crashed = len(found.failures) - slow
    if found.passed:
        return f"passed: {counted}; {found.measured_again} times measured again"
    return f"FAILED: {counted}; {slow} worse, {crashed} crashed; {found.measured_again} times measured again"


def markdown(found: Found, base: str) -> str:
    """The comparison for a reader: verdict, failures, what was not compared, a row a rule."""
    notes = [f"- {sentence(row)}" for row in found.failures]
    notes += [
        f"- {row.learner} {row.backend}: {row.verdict}" + f", {row.detail}" * bool(row.detail)
        for row in found.rows
        if row.verdict in ("new", "gone", "mended")
    ]
    names = [*TOLERANCE, "seconds"]
    table: dict[tuple[str, str], dict[str, GateRow]] = {}
    for row in found.rows:
        if row.figure is not None:
            table.setdefault((row.learner, row.backend), {})[row.figure] = row
    lines = ["## Performance", "", summary(found, base), "", *notes, *[""] * bool(notes)]
    if table:
        lines += [
            "| rule | backend | " + " | ".join(names[:-1]) + " | time, head / base |",
            "| --- | --- |" + " ---: |" * len(names),
        ]
    for who, figures in table.items():
        lines.append(f"| {' | '.join((*who, *(_cell(figures.get(name)) for name in names)))} |")
    return "\n".join(lines) + "\n"


def _cell(row: GateRow | None) -> str:
    if row is None:
        return "–"
    if row.interval is not None:
        text = f"{row.ratio:.2f} ({row.interval[0]:.2f} … {row.interval[1]:.2f})"
    elif row.base == row.head:
        text = f"{row.head:,.0f}"
    else:
        text = f"{row.base:,.0f} → " + ("?" if row.head is None else f"{row.head:,.0f}")
    return f"**{text}**" if row.verdict in FAILURES else text
