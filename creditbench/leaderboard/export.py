"""Results as a data set for the Hugging Face hub: tables in Parquet, and a card that names them."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path

from creditbench.leaderboard.text import again, code
from creditbench.machine import files
from creditbench.results.version import Results, write_tables


def write_hub(results: Results, directory: Path, folders: Sequence[Path]) -> None:
    """Write `data/*.parquet`, environments.json, and the card README.md: a configuration a table.

    `datasets.load_dataset(directory, "trials")` reads it. Raises `UsageError` if the folder cannot be
    written.
    """
    # pandas is slow to import.
    import pandas as pd

    text = {
        "hyperparameters",
        "task_parameters",
        "optimizer_parameters",
        "status_detail",
        "task_path",
        "learner_path",
        "cell_parameters",
        "cell_path",
        "detail",
    }
    frames = {}
    with tempfile.TemporaryDirectory() as temporary:
        # The same rows as those of a version, so that the two never differ.
        write_tables(results, Path(temporary), "")
        for name in ("trials", "scaling", "gradients", "checks", "verified"):
            path = Path(temporary) / f"{name}.csv"
            if path.exists():
                content = path.read_text(encoding="utf-8")
                columns = next(csv.reader(io.StringIO(content)))
                kinds = {
                    column: "string" for column in columns if column in text or column.endswith("sha256")
                }
                kinds |= {column: "string" for column in ("trial", "environment") if column in columns}
                # A text such as `None` is a text; a missing value is an empty cell.
                frame = pd.read_csv(io.StringIO(content), dtype=kinds, keep_default_na=False, na_values=[""])
                frames[name] = frame.convert_dtypes()
        environments = (Path(temporary) / "environments.json").read_bytes()
        frames["curves"] = pd.read_parquet(Path(temporary) / "curves.parquet")
    names = [*(f"data/{name}.parquet" for name in frames), "environments.json", "README.md"]
    with files.output("data set", directory, "name another folder"):
        (directory / "data").mkdir(parents=True, exist_ok=True)
        with files.replacing(*(directory / name for name in names)) as (*tables, about, card):
            for frame, path in zip(frames.values(), tables, strict=True):
                frame.to_parquet(path, index=False)
            about.write_bytes(environments)
            card.write_bytes(files.as_bytes(_card(results, list(frames), folders)))


def _card(results: Results, tables: Sequence[str], folders: Sequence[Path]) -> str:
    configurations = "".join(
        f"- config_name: {name}\n  data_files: data/{name}.parquet\n"
        + ("  default: true\n" if name == "trials" else "")
        for name in tables
    )
    rules = sorted({record.trial.rule for record in results.records})
    tasks = sorted({record.trial.task for record in results.records})
    contents = {
        "trials": "one row a trial: settings, scores, times, memory, environment",
        "curves": "training loss and validation metric of each trial by step and second",
        "scaling": "cost against length, width and batch, with fitted and claimed exponents",
        "gradients": "cosine, bias and variance of each rule's estimate against backpropagation through time",
        "checks": "whether each check of a rule's source held, and the details",
        "verified": "submitted rules run again on other seeds and hidden tasks",
    }
    listed = "\n".join(f"- `{name}`: {contents[name]}" for name in tables)
    return f"""---
license: apache-2.0
pretty_name: creditbench results
tags:
- benchmark
- recurrent-neural-networks
- temporal-credit-assignment
configs:
{configurations}---

# creditbench results

Learning rules for recurrent networks, with and without backpropagation through time, on {len(tasks)} tasks.

{listed}

Rules: {", ".join(rules)}. Tasks: {", ".join(tasks)}.

Times can be compared within one `environment` only; `environments.json` describes each.
A trial that diverged has the status `diverged` and no normalised score.
Made by {code(again("export", folders, "--hub-format", "DIR"))}.
"""
