"""Kill runs at random moments, and count the cost.

    python benchmarks/kills.py --kills 100

A grid of shipped rules and a user's rule, under both frameworks, runs again and again on one folder. Each
time processes are killed by SIGKILL: all at once, the command alone, or one that it has started. In the end
the grid runs undisturbed, and its records are compared with those of an undisturbed run. Ctrl-C ends it and
prints the counts so far.
"""

import argparse
import collections
import contextlib
import os
import random
import signal
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


def command(results: Path, rule: Path, seeds: int) -> list[str]:
    """The grid: 3 rules × 2 frameworks × `seeds` trials."""
    words = f"run --task mackey_glass --learner anp,readout_rls,{rule} --backend jax,torch --seeds {seeds}"
    words += f" --hidden 8 --budget 600 --evaluations 3 --no-measure --jobs 2 --results {results}"
    return [str(BIN), *words.split()]


def start(results: Path, rule: Path, seeds: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command(results, rule, seeds),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def strike(process: subprocess.Popen[bytes], how: str, rng: random.Random) -> int:
    """Kill the processes of a run that `how` selects. Returns their number."""
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
    given = parser.parse_args()
    rng, counts = random.Random(given.seed), collections.Counter()
    with (
        contextlib.suppress(KeyboardInterrupt),
        tempfile.TemporaryDirectory(prefix="creditbench-kills-") as name,
    ):
        folder = Path(name)
        rule = folder / "my_rule.py"
        rule.write_text((ROOT / "creditbench" / "plugins" / "templates" / "learner.py").read_text())
        whole = start(folder / "whole", rule, given.seeds)
        whole.wait()
        expected = records(folder / "whole")
        print(f"undisturbed: {len(expected)} records, exit {whole.returncode}", flush=True)
        results, before = folder / "struck", {}
        while counts["strikes"] < given.kills:
            process = start(results, rule, given.seeds)
            how = rng.choice(STRIKES)
            time.sleep(rng.uniform(0.5, 12.0))
            if process.poll() is None and (struck := strike(process, how, rng)):
                counts["strikes"] += 1
                counts[f"of {how}"] += 1
                counts["processes killed"] += struck
            # The run goes on without the process or fails with a reason. Then the whole run is killed.
            if how == "one":
                time.sleep(rng.uniform(0.5, 6.0))
                if process.poll() is None:
                    counts["strikes"] += 1
                    counts["of all"] += 1
                    counts["processes killed"] += strike(process, "all", rng)
            process.wait()
            # Guards end processes that outlive their run, and release the folder's locks.
            after = records(results)
            counts["records lost"] += len(before.keys() - after.keys())
            counts["records changed"] += sum(after[k] != before[k] for k in before.keys() & after.keys())
            before = after
            if len(after) == len(expected):
                counts["grids done"] += 1
                counts["failures that were stored"] += sum(one[0] != "ok" for one in after.values())
                counts["records that differ"] += sum(after[k] != expected[k] for k in expected)
                results, before = folder / f"struck-{counts['grids done']}", {}
        start(results, rule, given.seeds).wait()
        last = records(results)
        counts["failures that were stored"] += sum(one[0] != "ok" for one in last.values())
        counts["records that differ"] += sum(last.get(k) != expected[k] for k in expected)
        left = [
            p for p in psutil.process_iter(["cmdline"]) if str(folder) in " ".join(p.info["cmdline"] or ())
        ]
        counts["processes left"] = len(left)
    for what in ("records lost", "records changed", "records that differ", "failures that were stored"):
        counts[what] += 0
    for what, count in sorted(counts.items()):
        print(f"{what}: {count}")


if __name__ == "__main__":
    main()
