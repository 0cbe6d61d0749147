"""The process of the contributed code: its import, and the checks under one backend."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from creditbench.check import cell, lists, parity
from creditbench.check.base import Check, Result, located, outcomes
from creditbench.check.cell import CellSubject
from creditbench.check.subject import Subject
from creditbench.check.task import TaskSubject
from creditbench.errors import UsageError
from creditbench.isolation import Send
from creditbench.ops import BACKENDS
from creditbench.plugins import contributed, registry
from creditbench.plugins.importing import Plugin
from creditbench.trials.settings import own_rate, with_defaults


def main(order: Mapping[str, Any], send: Send) -> None:
    """Check the plug-in that `order` names under its backend, and send each result once it is ready.

    order: `path` of a file, or `kind` and `id` of a shipped or installed plugin, with `package`, `shown` and
    `place` of an installed learner; `cell`, which names the cell of a learner in the same way; `backend`, and
    whether it is the `first`; `only`, the names of the checks to run, or null for all; `settings`, the values
    of fields by the id of their owner. Messages: `started` (name of a check), `result` (name, held, detail),
    `about` (kind, id, sha256, cell, backends, and whether anything runs), `numbers` (for `parity`), and at
    the end `done`. Raises `UsageError` for settings that are refused.
    """
    _check(order, send)
    send(done=True)


def _check(order: Mapping[str, Any], send: Send) -> None:
    only = order["only"]
    send(started=lists.IMPORT.name)
    try:
        plugin = open_plugin(order)
    except UsageError as error:
        send(result=dataclasses.asdict(Result(lists.IMPORT.name, False, str(error))))
        return
    backend, learner = order["backend"], plugin.kind == "learners"
    backends = sorted(plugin.cls.backends if learner else BACKENDS if plugin.kind == "cells" else ())
    runs = order["first"] if plugin.kind == "tasks" else backend in backends
    try:
        network = open_plugin(order["cell"]) if learner and order["cell"] else None
    except UsageError as error:
        send(result=dataclasses.asdict(Result(lists.IMPORT.name, False, str(error))))
        return
    plugin = _set(plugin, order["settings"])
    network = network and _set(network, order["settings"])
    send(
        about={
            "kind": plugin.kind,
            "id": plugin.id,
            "sha256": plugin.sha256,
            "cell": network.id if network else "",
            "backends": backends,
            "runs": runs,
        }
    )
    values = [
        f"{owner}.{name} = {value}"
        for owner in (plugin.id, *([network.id] if network else []))
        for name, value in order["settings"].get(owner, {}).items()
    ]
    said = "; ".join([f"{plugin.kind[:-1]} '{plugin.id}'", *values])
    send(result=dataclasses.asdict(Result(lists.IMPORT.name, True, said)))
    if not runs:
        return
    subject: Any
    if network is not None:
        subject, checks = Subject(plugin, backend, network.cls), lists.LEARNER
    elif plugin.kind == "cells":
        subject, checks = CellSubject(plugin, backend), lists.CELL
    else:
        subject, checks = TaskSubject(plugin), lists.TASK
    broken, unfit = False, ""
    wanted = chosen(checks, only)
    for found in outcomes(wanted, subject, plugin.path, lambda name: send(started=name)):
        broken |= found.held is False and _needed(checks, found.name)
        unfit = unfit or (found.detail if found.held is None and _needed(checks, found.name) else "")
        send(result=dataclasses.asdict(found))
    if plugin.kind != "tasks" and not broken and (only is None or parity.NAME in only):
        send(started=parity.NAME)
        if unfit:
            send(result=dataclasses.asdict(Result(parity.NAME, None, unfit)))
            return
        try:
            send(numbers=(cell if network is None else parity).numbers(subject))
        except Exception as error:
            send(result=dataclasses.asdict(Result(parity.NAME, False, located(error, plugin.path))))


def _set(plugin: Plugin, settings: Mapping[str, Mapping[str, Any]]) -> Plugin:
    """The plug-in with its part of `settings` for defaults. Raises `UsageError`."""
    own = settings.get(plugin.id, {})
    if plugin.kind == "learners":
        own, rate = own_rate(plugin, own)
        if rate is not None:
            raise UsageError(f"{plugin.id}.lr is set, and check takes the rule's own: leave it out")
    if plugin.kind == "tasks" and "data" in own and plugin.cls.reads_data:
        raise UsageError(f"{plugin.id}.data is set, and check takes the data that it embeds: leave it out")
    return with_defaults(plugin, own)


def chosen(checks: tuple[Check, ...], only: list[str] | None) -> list[Check]:
    """The checks of those names."""
    return [one for one in checks if only is None or one.name in only]


def _needed(checks: tuple[Check, ...], name: str) -> bool:
    return any(one.needed for one in checks if one.name == name)


def open_plugin(order: Mapping[str, Any]) -> Plugin:
    """The learner, task or cell that `order` names. Raises `UsageError`."""
    if "package" in order:
        # This process may not read all of the package; the parent checks that it has not changed.
        plugin = dataclasses.replace(contributed.import_placed(order["kind"], order), sha256=order["sha256"])
    elif "path" in order:
        plugin = registry.read(Path(order["path"]))
    else:
        return registry.find(order["kind"], order["id"], imports=True)
    taken = registry.builtin(plugin.kind).get(plugin.id)
    if taken is not None and taken.path != plugin.path:
        raise UsageError(registry.clash(plugin.id, plugin.path, taken.path))
    return plugin
