"""Give the rows of a version the ids of today, once it is shown that their numbers still hold.

    python benchmarks/migrate.py results/v0.2

A row is stale once its rule, its task or what the rule runs through has another sha256 than it was run with. Where
sources have only been moved or reworded, its numbers are still right. This trains one row of each rule, task, backend
and study anew, in today's code, and holds its curve and score against the row's. Where all of a rule's agree, each of
its rows gets today's sha256s, and with them its id; the rows of other rules stay as they are. What a row was run with
by its bytes is looked up in git's history.
"""

import argparse
import hashlib
import os
import subprocess
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path

from creditbench.executors import make_executor, make_jobs
from creditbench.machine.folders import PACKAGE, shipped
from creditbench.plugins import meaning, registry
from creditbench.plugins.importing import source_sha256
from creditbench.results.store import stale
from creditbench.results.version import Results, load, write_tables
from creditbench.trials.record import Record

ROOT = PACKAGE.parent


@cache
def known(kind: str, name: str) -> frozenset[str]:
    """The sha256s, by bytes and by meaning, that a shipped source has had in git and whose meaning is today's."""
    path = shipped(kind) / f"{name}.py"
    now = meaning.digest(path.read_bytes())
    found = {source_sha256(path)}
    relative = path.relative_to(ROOT)
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


def renewed(record: Record) -> Record | None:
    """The record as of today's sources; None where one of them has another meaning now, or is no shipped one."""
    trial = record.trial
    if trial.task_path or trial.learner_path:
        return None
    rule, task = registry.builtin("learners").get(trial.learner), registry.builtin("tasks").get(trial.task)
    if rule is None or task is None:
        return None
    if trial.learner_sha256 not in known("learners", rule.id) or trial.task_sha256 not in known(
        "tasks", task.id
    ):
        return None
    vocabulary = meaning.vocabulary(rule.path.read_bytes(), trial.backend, trial.decorrelate != "none")
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


def differs(one: Record, other: Record, tolerance: float) -> str:
    """What of the training of two records of one trial is not the same; empty where all is."""
    if one.status != other.status:
        return f"{one.status} is {other.status} now"
    pairs = [("test score", one.test_score, other.test_score)]
    pairs += [
        (f"validation at step {a.step}", a.validation, b.validation)
        for a, b in zip(one.curve, other.curve, strict=False)
    ]
    for name, a, b in pairs:
        if a != b and (a is None or b is None or abs(a - b) > tolerance * max(abs(a), abs(b))):
            return f"{name} was {a}, and is {b} now"
    return ""


def main() -> None:
    """Train, compare, and write the version anew."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("version", type=Path, help="folder of a version, as in results/v0.2")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=0.0,
        help="by which part a score or a point of a curve may differ; default: %(default)s, bit for bit",
    )
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count(), help="trials at a time; default: %(default)s"
    )
    given = parser.parse_args()
    results = load(given.version, whole=True)
    new = {id(record): renewed(record) for record in results.records}
    samples: dict[tuple[str, str, str, str | None], Record] = {}
    for record in results.records:
        renewal = new[id(record)]
        if renewal is not None and stale(record) and record.status == "ok":
            trial = record.trial
            samples.setdefault((trial.rule, trial.backend, trial.task, trial.study), record)
    wanted = {new[id(record)].trial.id: record for record in samples.values()}
    print(f"{len(results.records)} rows, of which {len(wanted)} are trained anew", flush=True)
    executor = make_executor("local", slots=given.jobs)
    trials = [new[id(record)].trial.model_copy(update={"measure": False}) for record in samples.values()]
    failed: dict[tuple[str, str], str] = {}
    agreed: dict[tuple[str, str], int] = defaultdict(int)
    for record in executor.run(make_jobs(trials, slots=given.jobs)):
        before = wanted[record.trial.id]
        rule = before.trial.rule, before.trial.backend
        if said := differs(before, record, given.tolerance):
            failed[rule] = f"{before.trial.task}, seed {before.trial.seed}: {said}"
            print(f"differs: {' '.join(rule)}, {failed[rule]}", flush=True)
        else:
            agreed[rule] += 1
    held = {rule for rule in agreed if rule not in failed}
    rows = tuple(
        new[id(r)] if new[id(r)] is not None and (r.trial.rule, r.trial.backend) in held else r
        for r in results.records
    )
    moved = sum(a.trial.id != b.trial.id for a, b in zip(rows, results.records, strict=True))
    print(
        f"{sum(agreed.values())} of {len(wanted)} agree; {moved} rows of {len(held)} rules have new ids, "
        f"{len(rows) - moved} stay as they are"
    )
    readme = given.version / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    write_tables(
        Results(rows, results.scaling, results.gradients, results.learners, results.tasks, results.checks),
        given.version,
        text,
    )
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
