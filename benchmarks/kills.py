"""Kill runs at random moments, and count the cost.

    python benchmarks/kills.py --kills 100
    python benchmarks/kills.py --kills 50 --cluster --seeds 5

A grid of shipped rules and a user's rule, under both frameworks, runs again and again on one folder. Each
time processes are killed by SIGKILL: all at once, the command alone, or one that it has started. With
--cluster it runs on a dask cluster of two workers, and one of these is killed: the command, the scheduler, a
worker, its nanny, or a process that a worker has started; what is dead is started again before the next run.
In the end the grid runs undisturbed, and its records are compared with those of an undisturbed run by the
executor `local`. Ctrl-C ends it and prints the counts so far.
"""

import argparse
import collections
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from creditbench.results.store import Store

BIN = Path(sys.executable).with_name("creditbench")
ROOT = Path(__file__).parents[1]
STRIKES = ("all", "command", "one")


def command(results: Path, rule: Path, seeds: int, *how: str) -> list[str]:
    """The grid: 3 rules × 2 frameworks × `seeds` trials."""
    words = f"run --task mackey_glass --learner anp,readout_rls,{rule} --backend jax,torch --seeds {seeds}"
    words += f" --hidden 8 --budget 600 --evaluations 3 --no-measure --checkpoint 0 --results {results}"
    return [str(BIN), *words.split(), *how]


def begin(words: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


class Cluster:
    """A scheduler and two workers, each with its nanny, on this machine."""

    strikes = ("command", "scheduler", "worker", "nanny", "below")

    def __init__(self, folder: Path) -> None:
        self.folder, self.processes = folder, {}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.how = "--executor", "dask", "--scheduler", f"tcp://127.0.0.1:{self.port}"

    def heal(self) -> None:
        """Start what is not running."""
        dask = str(BIN.with_name("dask"))
        if "scheduler" not in self.processes or self.processes["scheduler"].poll() is not None:
            self.close()
            words = [dask, "scheduler", "--host", "127.0.0.1", "--port", str(self.port), "--no-dashboard"]
            self.processes["scheduler"] = begin(words)
            while socket.socket().connect_ex(("127.0.0.1", self.port)):
                time.sleep(0.1)
        for name in ("one", "two"):
            if name not in self.processes or self.processes[name].poll() is not None:
                words = [dask, "worker", self.how[-1], "--nthreads", "1", "--no-dashboard", "--name", name]
                words += ["--local-directory", str(self.folder / name)]
                self.processes[name] = begin(words)

    def victims(self, how: str) -> list[int]:
        """The processes of that kind."""
        if how == "scheduler":
            return [self.processes[how].pid]
        nannies = [psutil.Process(self.processes[name].pid) for name in ("one", "two")]
        if how == "nanny":
            return [nanny.pid for nanny in nannies]
        below = [
            [
                process.pid
                for process in nanny.children(recursive=True)
                if (how == "below") == is_ours(process)
            ]
            for nanny in nannies
        ]
        return [number for numbers in below for number in numbers]

    def close(self) -> None:
        for process in self.processes.values():
            with contextlib.suppress(psutil.NoSuchProcess):
                for below in [*psutil.Process(process.pid).children(recursive=True), process]:
                    below.kill()
            process.wait()
        self.processes = {}


def is_ours(process: psutil.Process) -> bool:
    """Whether it is a process of creditbench, and none of dask."""
    words = " ".join(process.cmdline())
    return "creditbench" in words and "multiprocessing" not in words


def strike(process: subprocess.Popen[bytes], how: str, rng: random.Random, cluster: Cluster | None) -> int:
    """Kill the processes of a run that `how` selects. Returns their number."""
    if cluster is not None and how != "command":
        try:
            chosen = cluster.victims(how)
            os.kill(rng.choice(chosen), signal.SIGKILL)
        except (psutil.Error, ProcessLookupError, IndexError):
            return 0
        return 1
    try:
        below = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return 0
    chosen = {"all": [process.pid, *(p.pid for p in below)], "command": [process.pid]}.get(how)
    if chosen is None:
        chosen = [rng.choice(below).pid] if below else []
    struck = 0
    for number in chosen:
        try:
            os.kill(number, signal.SIGKILL)
            struck += 1
        except ProcessLookupError:
            continue  # it ended with another
    return struck


def records(results: Path) -> dict[str, tuple]:
    """trial -> the fields that training decided. Raises for a broken record."""
    return {
        record.trial.id: (
            record.status,
            record.test_score,
            tuple((p.step, p.loss, p.validation) for p in record.curve),
        )
        for record in Store(results).all()
    }


def written(results: Path) -> dict[str, tuple[int, int]]:
    """trial -> which file its record is, and when it was written."""
    return {
        path.stem: (path.stat().st_ino, path.stat().st_mtime_ns) for path in results.glob("records/*.json")
    }


def main() -> None:
    """Kill as often as asked, and print the counts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100, help="strikes; default: %(default)s")
    parser.add_argument(
        "--seeds", type=int, default=20, help="of each rule and framework; default: %(default)s"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the moments; default: %(default)s")
    parser.add_argument("--executor", default="local", help="default: %(default)s")
    parser.add_argument("--cluster", action="store_true", help="on a dask cluster of two workers")
    given = parser.parse_args()
    rng, counts = random.Random(given.seed), collections.Counter()
    with (
        contextlib.suppress(KeyboardInterrupt),
        tempfile.TemporaryDirectory(prefix="creditbench-kills-", ignore_cleanup_errors=True) as name,
        contextlib.ExitStack() as stack,
    ):
        folder = Path(name)
        rule = folder / "my_rule.py"
        rule.write_text((ROOT / "creditbench" / "plugins" / "templates" / "learner.py").read_text())
        whole = begin(command(folder / "whole", rule, given.seeds, "--jobs", "2"))
        whole.wait()
        cluster = stack.enter_context(contextlib.closing(Cluster(folder))) if given.cluster else None

        def start() -> subprocess.Popen[bytes]:
            if cluster is not None:
                cluster.heal()
            how = cluster.how if cluster else ("--jobs", "2", "--executor", given.executor)
            return begin(command(results, rule, given.seeds, *how))

        expected = records(folder / "whole")
        print(f"undisturbed: {len(expected)} records, exit {whole.returncode}", flush=True)
        results, before, files_before = folder / "struck", {}, {}
        while counts["strikes"] < given.kills:
            process = start()
            how = rng.choice(STRIKES)
            while process.poll() is None and counts["strikes"] < given.kills:
                if cluster is not None:
                    how = rng.choice(cluster.strikes)
                time.sleep(rng.uniform(0.5, 12.0))
                if process.poll() is None and (struck := strike(process, how, rng, cluster)):
                    counts["strikes"] += 1
                    counts[f"of {how}"] += 1
                    counts["processes killed"] += struck
                if cluster is not None:
                    cluster.heal()
                # The run goes on without the process or fails with a reason. Then the whole run is killed.
                how = "all"
            process.wait()
            # Guards end processes that outlive their run, and release the folder's locks.
            after, files = records(results), written(results)
            counts["records written twice"] += sum(files.get(k) != files_before[k] for k in files_before)
            files_before = files
            counts["records lost"] += len(before.keys() - after.keys())
            counts["records changed"] += sum(after[k] != before[k] for k in before.keys() & after.keys())
            before = after
            if len(after) == len(expected):
                counts["grids done"] += 1
                counts["failures that were stored"] += sum(one[0] != "ok" for one in after.values())
                counts["records that differ"] += sum(after[k] != expected[k] for k in expected)
                results, before, files_before = folder / f"struck-{counts['grids done']}", {}, {}
        start().wait()
        last = records(results)
        counts["failures that were stored"] += sum(one[0] != "ok" for one in last.values())
        made = [record for one in folder.glob("struck*") for record in Store(one).all()]
        counts["records of trials that went on from a checkpoint"] = sum(one.resumed > 0 for one in made)
        counts["records that differ"] += sum(last.get(k) != expected[k] for k in expected)
        if cluster is not None:
            cluster.close()
        left = [
            p for p in psutil.process_iter(["cmdline"]) if str(folder) in " ".join(p.info["cmdline"] or ())
        ]
        counts["processes left"] = len(left)
    for what in (
        *("records lost", "records changed", "records that differ", "records written twice"),
        "failures that were stored",
    ):
        counts[what] += 0
    for what, count in sorted(counts.items()):
        print(f"{what}: {count}")


if __name__ == "__main__":
    main()
