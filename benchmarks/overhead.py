"""Where the time of a board goes: the share of training, and of everything else.

    python benchmarks/overhead.py                                   200 JAX trials, cold and warm cache
    python benchmarks/overhead.py --backend torch --learner bptt,anp --seeds 3

The board is that of `creditbench run`, one trial at a time, with a cache folder and a results folder of its
own in a temporary folder. It runs twice: with an empty cache, then with the cache that the first run left.
Every second of the run belongs to one phase: its worker is timed from inside, and what it calls is timed
apart from its caller. Seconds of the processor are beside those of the clock. On a busy machine trust them
more.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

#: The folder into which workers write their seconds; set for the processes of a board.
_SPANS = "CREDITBENCH_OVERHEAD"
RULES = (
    "anp,bptt,bptt_checkpointed,dni,eprop,es,es_lowrank,feedback_alignment,forward_gradient,np,"
    "oua,pes,readout_ridge,readout_rls,reward_hebbian,rflo,snap1,spsa,tbptt,wp"
)
TASKS = "mackey_glass,copy_memory"
#: Phases in the order of the table, each with its meaning.
PHASES = {
    "run": "the command's own start and end, while it has no worker",
    "start": "of workers: Python, imports, the framework's first use",
    "data": "splits made or read, and cut into segments",
    "building": "task, rule, cell, weights, keys",
    "compiling": "tracing and compiling, or recording, what trains and evaluates",
    "training": "",
    "evaluating": "on the validation and the test split",
    "measuring work": "FLOPs and bytes of an update",
    "measuring memory": "algorithm bytes of an update, peaks of the process",
    "measuring programs": "compiling what is timed for the ratios",
    "measuring time": "timing it",
    "writing": "records, as text and to the command",
    "waiting": "of the worker, for orders: the command writes and hands out",
    "other": "",
}


class Spans:
    """Seconds by phase, of the clock and of the processor. What is called is timed apart from its caller."""

    def __init__(self, first: str) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        self._phases = [first]
        self._last = self._now()

    @staticmethod
    def _now() -> tuple[float, float]:
        return time.perf_counter(), time.process_time()

    def _account(self) -> None:
        now = self._now()
        for i in (0, 1):
            self.seconds[self._phases[-1]][i] += now[i] - self._last[i]
        self._last = now

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """What runs in this context belongs to that phase."""
        self._account()
        self._phases.append(name)
        try:
            yield
        finally:
            self._account()
            self._phases.pop()

    def turn(self, name: str) -> None:
        """From now on, what has no phase of its own belongs to that one."""
        self._account()
        self._phases[0] = name

    def wrap(self, owner: Any, name: str, phase: str) -> None:
        """Let calls of `owner.name` belong to `phase`."""
        plain: Callable[..., Any] = getattr(owner, name)

        @functools.wraps(plain)
        def timed(*arguments: Any, **named: Any) -> Any:
            with self.phase(phase):
                return plain(*arguments, **named)

        setattr(owner, name, timed)


# -- in a worker -----------------------------------------------------------------------------------------


def work() -> None:
    """Be the worker of `creditbench.executors.local`, and leave the seconds of its phases in a file."""
    folder = Path(os.environ[_SPANS])
    # By its path, as the executor runs it: its guard imports nothing of the package.
    (found,) = (
        Path(place) / "executors" / "worker.py"
        for place in importlib.util.find_spec("creditbench").submodule_search_locations  # type: ignore[union-attr]
    )
    spec = importlib.util.spec_from_file_location("worker", found)
    assert spec is not None and spec.loader is not None
    worker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(worker)
    plain = worker._work

    def timed(send: Any) -> None:
        spans = Spans("start")
        # After the fork, as in the worker itself.
        import psutil

        begin = psutil.Process(os.getppid()).create_time()  # of Python itself, as the guard

        def keep() -> None:  # after each job: a worker without further jobs is killed
            spans.turn("other")
            values = {"seconds": time.time() - begin, "phases": spans.seconds}
            (folder / f"{os.getpid()}.json").write_text(json.dumps(values))

        _wrap(spans, worker, keep)
        plain(send)

    worker._work = timed
    worker.main()


def _wrap(spans: Spans, worker: Any, keep: Callable[[], None]) -> None:
    # After the fork, as in the worker itself.
    from creditbench.executors import confined  # noqa: F401 - with all that trains
    from creditbench.machine.child import Send
    from creditbench.measure import clock, memory, update, work
    from creditbench.ops.base import Ops  # noqa: F401 - before its frameworks
    from creditbench.trials import blocks, trainer
    from creditbench.trials.record import Record

    call = Send.__call__

    def sending(self: Any, **values: Any) -> None:
        with spans.phase("writing"):
            call(self, **values)
        if "ready" in values or "done" in values:
            keep()

    Send.__call__ = sending  # type: ignore[method-assign]
    parts: dict[str, list[tuple[Any, str]]] = {
        "waiting": [(Send, "receive")],
        "writing": [(Send, "line"), (Record, "model_dump_json")],
        "data": [(trainer._Run, "__init__"), (trainer._Run, "data"), (trainer._Run, "segments_from")],
        "building": [
            (trainer.Trainer, "__init__"),
            (trainer.Trainer, "keys"),
            (trainer.Trainer, "record"),
            (trainer, "fingerprint"),
            (blocks.OwnBlocks, "start"),
        ],
        "evaluating": [
            (trainer.Trainer, "evaluate"),
            (trainer.Trainer, "firing_rate"),
            (trainer._Run, "check"),
            (trainer._Run, "evaluate"),
            (trainer._Run, "outcome"),
        ],
        "training": [(trainer.Trainer, "_train"), (blocks.OwnBlocks, "restart"), (blocks.OwnBlocks, "train")],
        "compiling": [(blocks.Programs, "compiled")],
        "measuring memory": [(blocks.OwnBlocks, "peaks"), (memory, "algorithm_bytes"), (worker, "_tidy")],
        "measuring time": [(blocks.OwnBlocks, "cost"), (clock, "interleaved")],
        "measuring programs": [(update.Prepared, "__init__")],
        "measuring work": [(work, "count")],
    }
    for phase, functions in parts.items():
        for owner, name in functions:
            spans.wrap(owner, name, phase)


# -- the board -------------------------------------------------------------------------------------------


def board(arguments: list[str]) -> None:
    """`creditbench run`, with workers that are timed."""
    from creditbench.cli import main
    from creditbench.executors import local

    local._WORKER = Path(__file__).resolve()
    sys.argv = ["creditbench", "run", *arguments]
    main()


def measured(folder: Path, name: str, arguments: list[str]) -> dict[str, Any]:
    """Run the board: its records' figures, and the seconds of each phase by the clock and the processor."""
    results, spans = folder / f"results-{name}", folder / f"spans-{name}"
    spans.mkdir()
    environment = os.environ | {"CREDITBENCH_CACHE": str(folder / "cache"), _SPANS: str(spans)}
    for own in ("JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE"):
        environment.pop(own, None)
    before, clock = os.times(), time.perf_counter()
    run = subprocess.run(
        [sys.executable, "-P", __file__, "--board", *arguments, "--results", str(results)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wall, after = time.perf_counter() - clock, os.times()
    records = [json.loads(path.read_text()) for path in sorted((results / "records").glob("*.json"))]
    if run.returncode not in (0, 1) or not records:  # 1: a trial failed
        sys.exit(f"the board failed with {run.returncode}: {run.stderr[-2000:]}")
    workers = [json.loads(path.read_text()) for path in spans.iterdir()]
    phases: dict[str, list[float]] = {phase: [0.0, 0.0] for phase in PHASES}
    for worker in workers:
        for phase, seconds in worker["phases"].items():
            for i in (0, 1):
                phases[phase][i] += seconds[i]
        # What was before its first line is the start of Python, as the guard.
        phases["start"][0] += worker["seconds"] - sum(seconds[0] for seconds in worker["phases"].values())
    processor = sum(after[i] - before[i] for i in (2, 3))
    phases["run"] = [
        wall - sum(seconds[0] for seconds in phases.values()),
        processor - sum(seconds[1] for seconds in phases.values()),
    ]
    shares: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for record in records:
        share = shares[record["trial"]["task"], record["trial"]["learner"]]
        share[0] += record["train_seconds"] or 0.0
        share[1] += record["duration_seconds"]
    return {
        "cache": name,
        "trials": len(records),
        "failed": sum(record["status"] not in ("ok", "diverged") for record in records),
        "workers": len(workers),
        "wall_seconds": wall,
        "processor_seconds": processor,
        "train_seconds": sum(record["train_seconds"] or 0.0 for record in records),
        "shares": {" ".join(names): train / whole for names, (train, whole) in sorted(shares.items())},
        "phases": phases,
    }


def show(found: dict[str, Any]) -> None:
    """Print one run as a table."""
    wall, processor = found["wall_seconds"], found["processor_seconds"]
    print(
        f"{found['cache']} cache: {found['trials']} trials ({found['failed']} failed), {found['workers']} "
        f"workers, {wall:.1f} s, {processor:.1f} s of the processor; training, as the records have it, "
        f"{found['train_seconds']:.1f} s: {found['train_seconds'] / wall:.1%} of the time"
    )
    for task in dict.fromkeys(name.split()[0] for name in found["shares"]):
        own = [share for name, share in found["shares"].items() if name.split()[0] == task]
        middle = statistics.median(own)
        print(f"  training of a rule on {task}: median {middle:.1%}, {min(own):.1%} to {max(own):.1%}")
    print(f"  {'phase':20}{'s':>9}{'share':>9}{'CPU s':>9}{'share':>9}")
    for phase, (clock, cpu) in found["phases"].items():
        print(f"  {phase:20}{clock:9.2f}{clock / wall:9.1%}{cpu:9.2f}{cpu / processor:9.1%}  {PHASES[phase]}")


def main() -> None:
    """Measure the board with a cold and with a warm cache."""
    parser = argparse.ArgumentParser(
        description="Where the time of a board goes, with a cold and a warm cache."
    )
    parser.add_argument("--learner", default=RULES, help="comma-separated")
    parser.add_argument("--task", default=TASKS, help="comma-separated")
    parser.add_argument("--backend", default="jax", choices=("jax", "torch"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--preset", default="quick")
    parser.add_argument(
        "--option", action="append", default=[], help="of creditbench run, as in --option=--no-measure"
    )
    parser.add_argument("--output", type=Path, help="JSON file of the figures")
    given = parser.parse_args()
    arguments = ["--learner", given.learner, "--task", given.task, "--backend", given.backend]
    arguments += ["--seeds", str(given.seeds), "--preset", given.preset, "--jobs", "1", *given.option]
    runs = []
    with tempfile.TemporaryDirectory(prefix="creditbench-overhead-") as folder:
        for name in ("cold", "warm"):
            runs.append(measured(Path(folder), name, arguments))
            show(runs[-1])
    if given.output:
        given.output.write_text(json.dumps({"arguments": arguments, "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    if _SPANS not in os.environ:
        main()
    elif "--board" in sys.argv:
        board(sys.argv[2:])
    else:
        work()
