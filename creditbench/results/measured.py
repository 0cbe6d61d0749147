"""Measurements beside training, as the verbs that take them leave them in a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from creditbench.machine import files


def write_tables(folder: Path, tables: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Write each table into a file of that name, which ends in .json or .csv. Raises `UsageError`."""
    with files.output("output", folder, "name another folder"):
        folder.mkdir(parents=True, exist_ok=True)
        with files.replacing(*(folder / name for name in tables)) as new:
            for path, (name, rows) in zip(new, tables.items(), strict=True):
                path.write_text(_as_json(rows) if name.endswith(".json") else _as_csv(rows), encoding="utf-8")


def _as_json(rows: Sequence[Mapping[str, Any]]) -> str:
    return json.dumps(rows, indent=1) + "\n"


def _as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    import pandas as pd

    flat = [{k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows]
    return pd.DataFrame(flat).to_csv(index=False, lineterminator="\n")
