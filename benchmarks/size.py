"""What each verb costs on a folder of many records: seconds, peak memory, and how fast both grow.

    python benchmarks/size.py                                       1,000, 3,000 and 10,000 records
    python benchmarks/size.py --sizes 10000,100000 --verbs run,table --keep /tmp/size

Trials are played: a record with a curve of 20 points comes at once. All else is the command's own. The grid
has two tasks, five rules and two backends, so 20 rows, with seeds in proportion to the size. With --shape
rates it has five seeds, and learning rates in proportion: as many rows as there are families. Each verb is a
process of its own, and the quickest of --repeats counts; files are in the system's cache. Seconds are of the
clock, then of the processor: on a busy machine trust these more. Exponents are of them. `store` is a run of
500 trials with nothing played down: its time is that of keeping records.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

TASKS, RULES, BACKENDS = "mackey_glass,copy_memory", "bptt,anp,eprop,rflo,wp", "jax,torch"
ROWS, POINTS, STORED = 20, 20, 500


def grid(size: int, shape: str) -> list[str]:
    """The options of a grid of `size` trials."""
    words = ["--task", TASKS, "--learner", RULES, "--backend", BACKENDS, "--preset", "smoke", "--no-measure"]
    if shape == "seeds":
        return [*words, "--seeds", str(size // ROWS)]
    rates = (f"{1e-3 * 1.0001**i:.9g}" for i in range(size // ROWS // 5))
    return [*words, "--seeds", "5", "--lr", ",".join(rates)]


def study(size: int) -> list[str]:
    """The options of tuning with about `size` trials."""
    words = ["--task", "mackey_glass", "--learner", "bptt,anp", "--studies", "5", "--confirm", "1"]
    return [*words, "--preset", "smoke", "--points", str(size // 10)]


def verbs(size: int, shape: str, folder: Path) -> dict[str, list[str]]:
    """The arguments of each verb by its name."""
    here = ["--results", str(folder / "runs")]
    out = folder / "out"
    done = ["--results", str(folder / "tuned"), "--output", str(out / "tuned.toml")]
    return {
        "run": ["run", *grid(size, shape), *here],
        "run --json": ["run", *grid(size, shape), *here, "--json"],
        "run --reuse": ["run", *grid(size, shape), *here, "--reuse", str(folder / "runs")],
        "table": ["table", *here],
        "table --json": ["table", *here, "--json"],
        "table --format csv": ["table", *here, "--format", "csv"],
        "table --format ranking": ["table", *here, "--format", "ranking"],
        "table --compact": ["table", *here, "--compact", str(out / "compact")],
        "table of tables": ["table", "--results", str(out / "compact")],
        "leaderboard": ["leaderboard", *here, "--output", str(out / "page")],
        "versus": ["versus", *here],
        "compare": ["compare", str(folder / "runs"), str(folder / "runs")],
        "figure curves": ["figure", "curves", *here, "--output", str(out / "curves.png")],
        "figure pareto": ["figure", "pareto", *here, "--output", str(out / "pareto.png")],
        "export": ["export", *here, "--hub-format", str(out / "hub")],
        "tune": ["tune", *study(size), *done],
        "list": ["list", "learners"],
    }


def measured(words: Sequence[str]) -> tuple[float, float, float]:
    """(seconds, seconds of the processor, peak bytes) of a command. Ends the benchmark if it fails."""
    with tempfile.TemporaryFile() as said:
        clock = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "creditbench", *words], stdout=subprocess.DEVNULL, stderr=said
        )
        _, status, used = os.wait4(process.pid, 0)  # this process is small: a child's peak begins with it
        seconds = time.perf_counter() - clock
        if os.waitstatus_to_exitcode(status) not in (0, 1):
            said.seek(0)
            raise SystemExit(f"creditbench {words[0]} failed: {said.read()[-2000:].decode()}")
    process.returncode = 0
    return seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024.0


def make(folder: Path, words: Sequence[str], durable: bool = False) -> str:
    """Play a run in a process of its own, which ends with the memory that it took; returns what it prints."""
    command = [sys.executable, __file__, "--play", str(int(durable)), *words, "--results", str(folder)]
    return subprocess.run(
        command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ).stdout.decode()


def exponent(sizes: Sequence[int], values: Sequence[float]) -> float:
    """The slope of log value in log size, by least squares."""
    x, y = ([math.log(v) for v in own] for own in (sizes, values))
    mean = sum(x) / len(x)
    return sum((a - mean) * b for a, b in zip(x, y, strict=True)) / sum((a - mean) ** 2 for a in x)


def main() -> None:
    """Make folders of each size, and print a table of the verbs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", default="1000,3000,10000", help="default: %(default)s")
    parser.add_argument("--verbs", default="", help="by their names; default: all")
    parser.add_argument("--shape", default="seeds", choices=("seeds", "rates"), help="default: %(default)s")
    parser.add_argument("--repeats", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--keep", type=Path, help="folder in which the records stay for another time")
    given = parser.parse_args()
    sizes = [int(size) for size in given.sizes.split(",")]
    wanted = given.verbs.split(",") if given.verbs else ["store", *verbs(1000, given.shape, Path())]
    with contextlib.ExitStack() as opened:
        root = given.keep or Path(opened.enter_context(tempfile.TemporaryDirectory()))
        folders = {size: root / f"{given.shape}-{size}" for size in sizes}
        for size, folder in folders.items():
            if not folder.exists():
                new = folder.with_suffix(".new")
                shutil.rmtree(new, ignore_errors=True)
                (new / "out").mkdir(parents=True)
                make(new / "runs", ["run", *grid(size, given.shape)])
                make(new / "tuned", ["tune", *study(size), "--output", str(new / "out" / "tuned.toml")])
                new.rename(folder)
        if "store" in wanted:
            stored = ["run", *grid(STORED, given.shape)]
            print(f"store: {make(opened.enter_context(_folder(root)), stored, durable=True)}", flush=True)
        print(
            f"verb | {' | '.join(f'{size:,}: s, of processor, MB' for size in sizes)} | exponent of s, of MB"
        )
        for verb in (verb for verb in wanted if verb != "store"):
            found = []
            for size, folder in folders.items():
                words = verbs(size, given.shape, folder)[verb]
                tries = [measured(words) for _ in range(given.repeats)]
                found.append([min(own) for own in zip(*tries, strict=True)])
            cells = (f"{clock:.1f}, {own:.1f}, {taken / 1e6:.0f}" for clock, own, taken in found)
            figures = list(zip(*found, strict=True))[1:] if len(sizes) > 1 else ()
            slopes = (exponent(sizes, own) for own in figures)
            print(
                f"{verb} | {' | '.join(cells)} | {', '.join(f'{slope:.2f}' for slope in slopes)}", flush=True
            )


@contextlib.contextmanager
def _folder(root: Path) -> Iterator[Path]:
    """A new folder on the disk of `root`."""
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root) as place:
        yield Path(place)


# -- in the process of a run that is played ----------------------------------------------------------------


def play(durable: bool, words: list[str]) -> None:
    """A verb whose trials are played, and prints what its store cost; `durable`: written through to disk."""
    from creditbench import executors
    from creditbench.cli import main
    from creditbench.executors.base import Executor, Job, Progress, failure
    from creditbench.machine import files
    from creditbench.trials.record import Point, Record

    count, own = 0, 0.0

    class Played(Executor):
        def run(self, jobs: Iterable[Job], progress: Progress | None = None) -> Generator[Record, None, None]:
            nonlocal count, own
            for job in jobs:
                for trial in job.trials:
                    clock = time.perf_counter()
                    rng = random.Random(trial.id)
                    level = 0.3 + 0.1 * len(trial.learner) + 0.05 * rng.gauss(0.0, 1.0)
                    curve = [
                        Point(
                            step=i,
                            seconds=i / 3,
                            loss=rng.random(),
                            validation=level + rng.random() / (i + 1),
                        )
                        for i in range(POINTS + 1)
                    ]
                    like = failure(trial, "ok", "", STARTED, rng.random())
                    values: dict[str, Any] = {"curve": tuple(curve), "test_score": level, "trivial": 1.0}
                    values |= {"solved": 0.1, "normalised_score": (1 - level) / 0.9, "train_seconds": 2.0}
                    values |= {"validation_best": level, "ratio_forward": 3.0, "algorithm_bytes": 10_000}
                    values |= {"steps_per_second": 1e4, "compile_seconds": 1.0, "compile_cached": False}
                    record = like.model_copy(update=values)
                    own += time.perf_counter() - clock
                    count += 1
                    yield record

    from datetime import UTC, datetime

    STARTED = datetime.now(UTC)
    executors.make_executor = lambda *_, **__: Played()  # type: ignore[assignment]
    if not durable:
        files.sync = lambda path: None  # type: ignore[assignment]
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - until the end
    out, sys.stdout = sys.stdout, sys.stderr
    clock = time.perf_counter()
    with contextlib.suppress(SystemExit):
        sys.argv = ["creditbench", *words]
        main()
    seconds = time.perf_counter() - clock - own
    print(f"{count} trials in {seconds:.2f} s, {1e3 * seconds / max(1, count):.2f} ms each", file=out)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--play"]:
        play(sys.argv[2] == "1", sys.argv[3:])
    else:
        main()
