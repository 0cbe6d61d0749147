"""The conditions in which the trials of one task differ."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from creditbench.trials.record import Record


def columns_of(records: Iterable[Record]) -> dict[str, str]:
    """The column of each record, by its trial's id: the task, with the conditions in which its runs differ.

    Records of one column were made under the same conditions, whatever the rule (`Trial.conditions`).
    """
    settings: dict[str, dict[str, Record]] = {}
    keys = {}
    of_family: dict[str, str] = {}
    for record in records:
        if (key := of_family.get(record.trial.family)) is None:
            key = of_family[record.trial.family] = json.dumps(record.trial.conditions, sort_keys=True)
        keys[record.trial.id] = record.trial.task, key
        settings.setdefault(record.trial.task, {}).setdefault(key, record)
    labels = {}
    for task, own in settings.items():
        known = [record.trial.conditions for record in own.values()]
        differing = [name for name in known[0] if _differs(name, known)]
        differing += sorted(
            {name for c in known for name in c if _differs(name, known, lacking=True)} - set(known[0])
        )
        for key, record in own.items():
            parts = [
                f"{name.removeprefix(task + '.')}={_short(name, record.trial.conditions[name])}"
                for name in differing
                if name in record.trial.conditions
            ]
            labels[task, key] = " ".join([task, *parts])
    return {trial: labels[place] for trial, place in keys.items()}


def _differs(name: str, known: Sequence[Mapping[str, Any]], lacking: bool = False) -> bool:
    """Whether conditions differ in one of that name. `lacking`: whether they do where some have none.

    The leak and the constants of a cell follow from the cell: they are compared with those of the same cell.
    """
    cells = {one["cell"] for one in known if name == "alpha" or name.startswith(f"{one['cell']}.")}
    groups = [[one for one in known if one["cell"] == cell] for cell in cells] or [list(known)]
    for group in groups:
        values = [one[name] for one in group if name in one]
        if any(value != values[0] for value in values) or (lacking and 0 < len(values) < len(group)):
            return True
    return False


def _short(name: str, value: Any) -> str:
    return ("embedded" if value is None else value[:8]) if name == "data_sha256" else str(value)
