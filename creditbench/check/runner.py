"""Starts the processes that run contributed code, one a backend, and makes one table of their results."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from creditbench.cells import CELLS
from creditbench.check import cell as cells
from creditbench.check import lists, parity
from creditbench.check.base import Broken, NotApplicable, Result
from creditbench.errors import UsageError, one_line, unknown
from creditbench.isolation import Confined, ConfinedError, Limits
from creditbench.isolation.folder import shown
from creditbench.machine.folders import shipped
from creditbench.plugins import contributed, registry
from creditbench.plugins.importing import KINDS, Kind, embedded, id_of, kind_of, source_sha256
from creditbench.trials.settings import by_owner
from creditbench.trials.trial import CELL, with_cell

#: Default wall-clock seconds of one process.
SECONDS = 300.0
#: Resident bytes of one process.
MEMORY = 4 << 30
_LONGEST_DETAIL = 1000
#: Values of fields: the id of a learner, task or cell -> field -> value, or its text.
Settings = Mapping[str, Mapping[str, Any]]


@dataclass
class CheckReport:
    """The results of checking one learner, task or cell."""

    subject: str  #: as it was named
    about: dict[str, Any] = field(default_factory=dict)  #: kind, id, sha256, cell
    results: list[Result] = field(default_factory=list)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> CheckReport:
        """From the values of `asdict`."""
        results = [Result(**result) for result in values["results"]]
        return cls(values["subject"], values["about"], results)

    @property
    def failures(self) -> list[Result]:
        return [result for result in self.results if result.held is False]


@dataclass
class _Sent:
    """The messages of one process."""

    about: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Result] = field(default_factory=dict)
    numbers: dict[str, Any] | None = None
    running: str = lists.IMPORT.name  #: the check that was started last
    done: bool = False  #: whether it reported its end
    died: str = ""  #: how it ended, if it did not end well


def resolve(item: str, kinds: Sequence[Kind] = KINDS) -> dict[str, Any]:
    """The order that names an id or a path, with the sha256 of its file. Raises `UsageError` for neither."""
    what = " or ".join(filter(None, (", ".join(kind[:-1] for kind in kinds[:-1]), kinds[-1][:-1])))
    if is_path(item):
        path = Path(item).expanduser().resolve()
        if not path.is_file():
            raise UsageError(f"no file {path}: name a Python file that holds a {what}")
        try:
            sha256 = source_sha256(path)
        except OSError as error:
            raise UsageError(
                f"{error.filename} cannot be read ({error.strerror}): name another file"
            ) from None
        data = embedded(path)
        return {"path": str(path), "sha256": sha256} | ({"data": str(data)} if data else {})
    known = {kind: registry.load(kind) for kind in kinds}
    for kind, plugins in known.items():
        if item in plugins:
            found = plugins[item]
            package = contributed.order_of_package(found.entry, str(found.path)) if found.entry else {}
            return {"kind": kind, "id": item, "sha256": found.sha256} | package
    names = [name for plugins in known.values() for name in plugins]
    raise registry.not_known(what, item, names, f"creditbench list {kinds[0]}")


def is_path(item: str) -> bool:
    """Whether it names a file or a folder, and not an id."""
    return item.endswith(".py") or "/" in item


def is_learner(item: str) -> bool:
    """Whether an id or a path names a learner. Raises `UsageError` for a name of nothing."""
    order = resolve(item)
    if "path" not in order:
        return order["kind"] == "learners"
    with contextlib.suppress(UsageError):
        return kind_of(Path(order["path"])) == "learners"
    return True  # a file that cannot be read as text is refused by its import, as a learner is


def settings_of(given: Mapping[str, str], items: Sequence[str], cells: Sequence[str]) -> Settings:
    """`{"lif.decay": "0.9"}` by the ids of what is checked, and of the cells with which learners are.

    Raises `UsageError` for an owner that is none of these, or a file whose id cannot be read.
    """
    if not given:
        return {}
    ids: dict[Kind, list[str]] = {kind: [] for kind in KINDS}
    learners = [item for item in items if is_learner(item)]
    for item in items:
        order = resolve(item)
        kind = order.get("kind") or ("learners" if item in learners else kind_of(Path(order["path"])))
        ids[kind].append(_id(order))
    ids["cells"] += [_id(resolve(name, ("cells",))) for name in cells if learners]
    return by_owner(given, ids["tasks"], ids["learners"], grid=False, cells=ids["cells"])


def _id(order: Mapping[str, Any]) -> str:
    return order["id"] if "id" in order else id_of(Path(order["path"]))


def require_names(only: Sequence[str]) -> None:
    """Raise `UsageError` for an unknown check."""
    for name in only:
        if name not in lists.order():
            raise unknown("check", name, lists.order(), f"one of {', '.join(lists.order())}")


#: `stream`, for `creditbench.executors.spread`.
ENTRY = "creditbench.check.runner:stream"


def run(item: str, backends: Sequence[str], only: Sequence[str] | None = None, **others: Any) -> CheckReport:
    """The report at the end of a `stream`, which has the other arguments. Raises as it does."""
    for message in stream(item, backends, only, **others):
        if "report" in message:
            return CheckReport.of(message["report"])
    raise AssertionError("a stream ends with its report")


def stream(
    item: str,
    backends: Sequence[str],
    only: Sequence[str] | None = None,
    seconds: float = SECONDS,
    cell: str = CELL,
    settings: Settings | None = None,
    slot: int | None = None,
) -> Iterator[dict[str, Any]]:
    """Check one learner, task or cell, a process a backend, in parallel.

    Yields `{"result": "jax online"}` for each result, and at the end `{"report": …}`, values of a
    `CheckReport`. `cell`: the id or path of the cell with which a learner is checked. `settings`: values of
    fields, by the id of their owner. `slot`: no cores are chosen. Raises `UsageError` for what cannot be
    found, and for settings that are refused.
    """
    network = resolve(cell, ("cells",))
    order = resolve(item) | {"only": None if only is None else list(only), "cell": network}
    order["settings"] = settings or {}
    if order.get("kind") == "tasks":
        backends = backends[:1]  # a task knows none
    sides = {backend: _Sent() for backend in backends}
    lock, stopped = threading.Lock(), threading.Event()
    inbox: queue.SimpleQueue[str | None] = queue.SimpleQueue()  #: names of results; None: a side has ended
    # Checks have only random data, so nothing is withheld; and a file's id may be that of a task.
    own = [Path(one[name]) for one in (order, network) for name in ("path", "place", "data") if name in one]
    readable = [shipped("tasks"), *own]
    running: list[Confined] = []

    def follow(backend: str, side: _Sent) -> None:
        told = order | {"backend": backend, "first": backend == backends[0]}
        confined = Confined(
            *("creditbench.check.child:main", told),
            readable=readable,
            limits=Limits(seconds=seconds, memory=MEMORY),
            withhold=False,
        )
        try:
            with confined as process:
                running.append(process)
                for message in process.messages() if not stopped.is_set() else ():
                    _take(side, message, order["sha256"])
                    if "about" in message:
                        with lock:
                            _require_described(order, side.about)
                    if "about" in message and "package" in order:
                        _require_unchanged(order)
                    if "result" in message:
                        inbox.put(f"{backend} {message['result']['name']}")
            if not side.done:
                side.died = "it ended before it was through, as if all were well (exit code 0)"
        except ConfinedError as error:
            if settings and error.usage:
                raise UsageError(error.detail) from None
            side.died = error.detail
        finally:
            inbox.put(None)

    with ThreadPoolExecutor(len(sides)) as pool:
        following = [pool.submit(follow, *pair) for pair in sides.items()]
        try:
            for _ in following:
                while (name := inbox.get()) is not None:
                    yield {"result": name}
            for one in following:
                one.result()
        except BaseException:
            stopped.set()
            for process in running:
                process.extend(0.0)
            raise
    yield {"report": asdict(merge(with_cell(item, cell), sides, only))}


def _take(side: _Sent, message: dict[str, Any], sha256: str) -> None:
    """Note one message. It comes from a process that runs contributed code, so it is validated first.

    Raises `ConfinedError` for a message that the harness's own code would not send.
    """
    known = lists.order()
    match message:
        case {"started": str(name)} if name in known:
            side.running = name
        case {"about": dict(about)} if _describes(about):
            if about["sha256"] != sha256:
                raise ConfinedError("invalid", "the file has changed since the check began: check again")
            side.about = about
        case {"numbers": dict(numbers)}:
            side.numbers = numbers
        case {"result": {"name": str(name), "held": bool() | None as held, "detail": str(detail)}} if (
            name in known
        ):
            side.results[name] = Result(name, held, shown(detail, _LONGEST_DETAIL))
        case {"done": True}:
            side.done = True
        case _:
            raise ConfinedError(
                "invalid", f"it sent something that is no result of a check: {message!s:.100}"
            )


def _require_described(order: dict[str, Any], about: dict[str, Any]) -> None:
    """Raise `ConfinedError` unless the imported plugin is the requested one, by the id that a run would use.

    Otherwise `about` describes the requested plugin. A learner's file that `run` refuses is refused with the
    same message, and `about` stays empty.
    """
    said = {name: about[name] for name in ("kind", "id")}
    wanted = {name: order.get(name, said[name]) for name in said}
    if "path" in order and said["kind"] == "learners":
        try:
            plugin = contributed.from_path(Path(order["path"]))
            contributed.make(plugin.cls, plugin.path)
            wanted["id"] = plugin.id
            taken = registry.builtin("learners").get(wanted["id"])
            if taken is not None and str(taken.path) != order["path"]:
                raise UsageError(registry.clash(wanted["id"], order["path"], taken.path))
        except UsageError as error:
            about.clear()
            raise ConfinedError("invalid", str(error)) from None
    about |= wanted
    network = order["cell"]
    # A cell in a file is known by the process alone; it may not pass for a shipped one.
    named = network.get("id")
    claims = about["cell"] in CELLS if named is None else about["cell"] != named
    if said["kind"] == "learners" and claims:
        raise ConfinedError("invalid", f"it says that its cell is {about['cell']!r}, and is not: check again")
    if said != wanted:
        raise ConfinedError(
            "invalid",
            f"it says that it is the {said['kind'][:-1]} {said['id']!r}, and is the {wanted['kind'][:-1]} "
            f"{wanted['id']!r}",
        )


def _require_unchanged(order: dict[str, Any]) -> None:
    """Raise `ConfinedError` if an installed package has changed since the order."""
    if contributed.package_sha256(order["package"], Path(order["shown"])) != order["sha256"]:
        raise ConfinedError("invalid", "the package has changed since the check began: check again")


def _describes(about: dict[str, Any]) -> bool:
    """Whether `about` describes a plugin in values of the right kind; the id becomes the name of a file."""
    match about:
        case {
            "kind": "learners" | "tasks" | "cells",
            "id": str(id),
            "sha256": str(),
            "cell": str(cell),
            "backends": [*names],
            "runs": bool(),
        }:
            return (
                id.isidentifier()
                and (not cell or cell.isidentifier())
                and all(isinstance(name, str) for name in names)
            )
    return False


def merge(item: str, sides: dict[str, _Sent], only: Sequence[str] | None = None) -> CheckReport:
    """One result a check from those of the processes: held if it held under every backend with a result."""
    about: dict[str, Any] = next((side.about for side in sides.values() if side.about), {})
    for side in sides.values():
        if side.died:
            side.results[side.running] = Result(side.running, False, side.died)
    # A backend that the rule is not written for gives no results, nor does the second process of a task.
    said = {b: s for b, s in sides.items() if not s.about or s.about["runs"]} or sides
    report = CheckReport(item, about)
    for name in lists.names(about.get("kind")):
        own = {b: s.results[name] for b, s in said.items() if name in s.results}
        if name == parity.NAME and not own:
            if only is None or name in only:
                report.results.append(_parity(said, about))
        elif own:
            report.results.append(_together(name, own))
        elif (only is None or name in only) and any(side.died for side in said.values()):
            report.results.append(Result(name, None, "not run: the process ended before"))
    return report


def _parity(sides: dict[str, _Sent], about: dict[str, Any]) -> Result:
    numbers = {backend: side.numbers for backend, side in sides.items() if side.numbers is not None}
    try:
        if about.get("kind") == "cells":
            return Result(parity.NAME, True, cells.compare(numbers))
        declared = frozenset(about.get("backends", ()))
        return Result(parity.NAME, True, parity.compare(numbers, declared))
    except NotApplicable as error:
        return Result(parity.NAME, None, str(error))
    except Broken as error:
        return Result(parity.NAME, False, str(error))
    except Exception as error:
        # They come from the processes, and may be anything.
        return Result(parity.NAME, False, f"what was sent are no numbers: {one_line(error)}")


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
