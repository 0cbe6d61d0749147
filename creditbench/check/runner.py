"""Starts the processes that hold contributed code, a backend each, and makes one table of what they send."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from creditbench import registry
from creditbench.check import lists, parity
from creditbench.check.base import Broken, NotApplicable, Result
from creditbench.errors import UsageError, unknown
from creditbench.isolation import Confined, ConfinedError, Limits

#: Wall-clock seconds of one process, unless the user says otherwise.
SECONDS = 300.0
#: Resident bytes of one process.
MEMORY = 4 << 30


@dataclass
class Report:
    """What came of checking one learner or task."""

    subject: str  #: as it was named
    about: dict[str, Any] = field(default_factory=dict)  #: kind, id, sha256
    results: list[Result] = field(default_factory=list)

    @property
    def failures(self) -> list[Result]:
        return [result for result in self.results if result.held is False]


@dataclass
class _Side:
    """What one process has sent."""

    about: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Result] = field(default_factory=dict)
    numbers: dict[str, Any] | None = None
    running: str = ""
    died: str = ""  #: how it ended, where it did not end well


def resolve(item: str) -> dict[str, Any]:
    """How a process is told of an id or of a path. Raises `UsageError` where there is no such thing."""
    if item.endswith(".py") or "/" in item:
        path = Path(item).expanduser().resolve()
        if not path.is_file():
            raise UsageError(f"no file {path}: name a Python file that holds a learner or a task")
        return {"path": str(path)}
    known = {kind: registry.load(kind) for kind in registry.KINDS}
    for kind, plugins in known.items():
        if item in plugins:
            return {"kind": kind, "id": item}
    raise unknown(
        "learner or task",
        item,
        [name for plugins in known.values() for name in plugins],
        "creditbench list learners",
    )


def require_names(only: Sequence[str]) -> None:
    """Raise `UsageError` for a name that is no check's."""
    for name in only:
        if name not in lists.order():
            raise unknown("check", name, lists.order(), f"one of {', '.join(lists.order())}")


def run(
    item: str,
    backends: Sequence[str],
    only: Sequence[str] | None = None,
    seconds: float = SECONDS,
    advance: Callable[[str], None] = lambda text: None,
) -> Report:
    """Check one learner or task, a process a backend, at the same time; `advance` is called with each result's name."""
    order = resolve(item) | {"only": None if only is None else list(only)}
    sides = {backend: _Side() for backend in backends}
    lock = threading.Lock()

    def follow(backend: str, side: _Side) -> None:
        own = order | {"backend": backend, "first": backend == backends[0]}
        readable = [Path(order["path"])] if "path" in order else []
        limits = Limits(seconds=seconds, memory=MEMORY)
        confined = Confined(
            # It sees random data alone: there is nothing to withhold, and a task needs its own files.
            *("creditbench.check.child:main", own),
            readable=readable,
            limits=limits,
            withhold=False,
        )
        try:
            with confined as process:
                for message in process.messages():
                    _take(side, message)
                    if "result" in message:
                        with lock:
                            advance(f"{backend} {message['result']['name']}")
        except ConfinedError as error:
            side.died = error.detail

    threads = [threading.Thread(target=follow, args=pair, daemon=True) for pair in sides.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return merge(item, sides, only)


def _take(side: _Side, message: dict[str, Any]) -> None:
    """Note one message. What it holds is a contributor's process's word: it is read as plain values."""
    if "started" in message:
        side.running = str(message["started"])
    elif "about" in message:
        side.about = dict(message["about"])
    elif "numbers" in message:
        side.numbers, side.running = dict(message["numbers"]), ""
    elif "result" in message:
        found = message["result"]
        side.results[str(found["name"])] = Result(str(found["name"]), found["held"], str(found["detail"]))
        side.running = ""


def merge(item: str, sides: dict[str, _Side], only: Sequence[str] | None = None) -> Report:
    """One result a check of what the processes sent: held where it held under every backend that said something."""
    about: dict[str, Any] = next((side.about for side in sides.values() if side.about), {})
    for side in sides.values():
        if side.died:
            name = side.running or lists.IMPORT.name
            side.results[name] = Result(name, False, side.died)
    # A process whose backend the rule is not written for has nothing to say, nor has the second one of a task.
    said = {b: s for b, s in sides.items() if not s.about or s.about["runs"]} or sides
    report = Report(item, about)
    names = [one.name for one in lists.TASK] if about.get("kind") == "tasks" else list(lists.order())
    names = [lists.IMPORT.name, *(name for name in names if name != lists.IMPORT.name)]
    if about.get("kind") == "learners":
        names = [name for name in names if name in {c.name for c in lists.LEARNER} | {"import", parity.NAME}]
    for name in names:
        own = {b: s.results[name] for b, s in said.items() if name in s.results}
        if name == parity.NAME and not any(result.held is False for result in own.values()):
            if only is None or name in only:
                report.results.append(_parity(said, frozenset(about.get("backends", ()))))
        elif own:
            report.results.append(_together(name, own))
        elif (only is None or name in only) and any(side.died for side in said.values()):
            report.results.append(Result(name, None, "not run: the process ended before"))
    return report


def _parity(sides: dict[str, _Side], declared: frozenset[str]) -> Result:
    numbers = {backend: side.numbers for backend, side in sides.items() if side.numbers is not None}
    try:
        return Result(parity.NAME, True, parity.compare(numbers, declared))
    except NotApplicable as error:
        return Result(parity.NAME, None, str(error))
    except Broken as error:
        return Result(parity.NAME, False, str(error))


def _together(name: str, own: dict[str, Result]) -> Result:
    """The results of one check under several backends as one."""
    told = {b: r for b, r in own.items() if r.held is not None} or own
    failed = {b: r for b, r in told.items() if r.held is False}
    shown = failed or told
    details = dict.fromkeys(result.detail for result in shown.values())
    if len(details) == 1 and (len(shown) > 1 or len(own) == 1):
        detail = next(iter(details))
    else:
        detail = "; ".join(f"{backend}: {result.detail}" for backend, result in shown.items())
    held = False if failed else True if any(r.held for r in told.values()) else None
    return Result(name, held, detail)
