"""Give the rows of a version today's ids, after a proof that their numbers still hold.

    python benchmarks/migrate.py results/v0.2 --base REVISION

A row is stale once its rule, its task or the code that the rule runs through has another sha256 than in its
run. If sources were moved or rewritten to the same effect, the numbers are still right. This script trains
one row of each rule, backend and task twice on this machine, by the code of REVISION and by this checkout.
The two must agree bit for bit. (The row's own numbers may come from another processor, whose rounding a long
training magnifies.) If all trainings of a rule agree, each of its rows gets today's sha256s, and with them
its id. The rows of other rules stay as they are. For rows with the sha256 of a file's bytes, git's history
gives the source.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

from creditbench.cells import CELLS
from creditbench.machine.folders import PACKAGE, shipped
from creditbench.machine.threads import thread_environment
from creditbench.plugins import meaning, registry
from creditbench.plugins.importing import source_sha256
from creditbench.results.store import stale
from creditbench.results.version import load, write_tables
from creditbench.trials.record import Record
from creditbench.trials.trial import CELL, Trial

ROOT = PACKAGE.parent


@cache
def known(kind: str, name: str, base: str) -> frozenset[str]:
    """The sha256s, by bytes and by meaning, of the versions in git that mean what that of `base` does."""
    path = shipped(kind) / f"{name}.py"
    relative = path.relative_to(ROOT)
    then = subprocess.run(
        ["git", "-C", str(ROOT), "show", f"{base}:{relative}"], capture_output=True, check=True
    ).stdout
    now = meaning.digest(then)
    found = {now}
    if meaning.digest(path.read_bytes()) == now:
        found.add(source_sha256(path))
    commits = subprocess.run(
        ["git", "-C", str(ROOT), "log", "--format=%H", "--", str(relative)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    data = registry.find(kind, name).path.parent / "data" if kind == "tasks" else None
    embedded = [p for p in data.glob("*") if p.is_file()] if data and data.is_dir() else []
    for commit in commits:
        content = subprocess.run(
            ["git", "-C", str(ROOT), "show", f"{commit}:{relative}"], capture_output=True, check=False
        ).stdout
        if content and meaning.digest(content) == now:
            plain = hashlib.sha256(content)
            found.add(plain.hexdigest())
            for file in embedded:
                both = plain.copy()
                both.update(hashlib.sha256(file.read_bytes()).digest())
                found.add(both.hexdigest())
    return frozenset(found)


def renewed(record: Record, base: str) -> Record | None:
    """The record with today's sources; None if they had another meaning in `base`, or are not shipped."""
    trial = record.trial
    if trial.task_path or trial.learner_path or trial.cell_sha256 or trial.cell not in CELLS:
        return None
    rule, task = registry.builtin("learners").get(trial.learner), registry.builtin("tasks").get(trial.task)
    if rule is None or task is None:
        return None
    sources = (("learners", rule.id, trial.learner_sha256), ("tasks", task.id, trial.task_sha256))
    if any(sha256 not in known(kind, id, base) for kind, id, sha256 in sources):
        return None
    decorrelates = trial.decorrelate != "none"
    vocabulary = meaning.vocabulary(
        rule.path.read_bytes(), trial.backend, decorrelates, trial.cell, trial.layers
    )
    return record.model_copy(
        update={
            "trial": trial.model_copy(
                update={
                    "learner_sha256": rule.sha256,
                    "task_sha256": task.sha256,
                    "vocabulary_sha256": vocabulary,
                }
            )
        }
    )


#: Trains trials, one line of JSON each, in older and newer checkouts, whose modules have different places.
_TRAIN = """
import sys
try:
    from creditbench.trials.trainer import run_trials
    from creditbench.trials.trial import Trial
except ImportError:
    from creditbench.trainer import run_trials
    from creditbench.trial import Trial
for line in sys.stdin:
    (record,) = run_trials([Trial.model_validate_json(line)])
    print(record.model_dump_json(), flush=True)
"""


def train(root: Path, trials: Sequence[Trial], jobs: int) -> Iterator[dict[str, Any]]:
    """The records of trials trained by the checkout at `root`, in their order."""
    environment = os.environ | thread_environment(1) | {"PYTHONPATH": str(root), "JAX_PLATFORMS": "cpu"}
    # An older checkout knows one cell, and a trial with it needs no such fields.
    cell = {name for name in Trial.model_fields if name.startswith("cell") or name == "layers"}
    lines = [
        trial.model_copy(update={"measure": False}).model_dump_json(
            exclude={"vocabulary_sha256"} | (cell if trial.cell == CELL else set())
        )
        for trial in trials
    ]

    def part(number: int) -> list[dict[str, Any]]:
        given = "\n".join(lines[number::jobs])
        done = subprocess.run(
            [sys.executable, "-P", "-c", _TRAIN],
            input=given,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return [json.loads(line) for line in done.stdout.splitlines()]

    with ThreadPoolExecutor(jobs) as pool:
        parts = list(pool.map(part, range(jobs)))
    for number in range(len(lines)):
        yield parts[number % jobs][number // jobs]


def differs(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """The differences between the trainings of two records of one trial; empty if there are none."""
    for name in ("status", "test_score", "validation_best"):
        if one[name] != other[name]:
            return f"{name} was {one[name]}, and is {other[name]} now"
    for a, b in zip(one["curve"], other["curve"], strict=True):
        for name in ("loss", "validation"):
            if a[name] != b[name]:
                return f"{name} at step {a['step']} was {a[name]}, and is {b[name]} now"
    return ""


def main() -> None:
    """Train, compare, and write the version again."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("versions", type=Path, nargs="+", help="folders of versions, as in results/v0.2")
    parser.add_argument("--base", required=True, help="a commit in whose code the rows are right")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count(), help="processes at a time; default: %(default)s"
    )
    given = parser.parse_args()
    versions = {version: load(version, whole=True) for version in given.versions}
    new = {
        id(record): renewed(record, given.base)
        for results in versions.values()
        for record in results.records
        if stale(record)
    }
    samples: dict[tuple[str, str, str], Trial] = {}
    for results in versions.values():
        for record in results.records:
            if new.get(id(record)) is not None and record.status == "ok":
                samples.setdefault((record.trial.rule, record.trial.backend, record.trial.task), record.trial)
    print(f"{len(samples)} trials are trained in {given.base} and here", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base"
        subprocess.run(
            ["git", "-C", str(ROOT), "worktree", "add", "--detach", str(base), given.base], check=True
        )
        try:
            before = train(base, list(samples.values()), given.jobs)
            after = train(ROOT, list(samples.values()), given.jobs)
            said = {key: differs(a, b) for key, a, b in zip(samples, before, after, strict=True)}
        finally:
            subprocess.run(["git", "-C", str(ROOT), "worktree", "remove", "--force", str(base)], check=True)
    for key, what in said.items():
        if what:
            print(f"differs: {' '.join(key)}: {what}")
    bad = {key[:2] for key, what in said.items() if what}
    held = {key[:2] for key in samples} - bad
    print(f"{sum(not what for what in said.values())} of {len(samples)} agree in every bit")
    for version, results in versions.items():
        rows = tuple(
            renewal
            if (renewal := new.get(id(r))) is not None and (r.trial.rule, r.trial.backend) in held
            else r
            for r in results.records
        )
        moved = sum(a.trial.id != b.trial.id for a, b in zip(rows, results.records, strict=True))
        print(f"{version}: {moved} rows have new ids, {len(rows) - moved} stay as they are")
        readme = version / "README.md"
        text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
        write_tables(dataclasses.replace(results, records=rows), version, text)
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
