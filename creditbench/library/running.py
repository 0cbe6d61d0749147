"""`creditbench.run`: a grid of trials, from Python."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from creditbench.library import defaults, progress
from creditbench.library.asked import Asked, Cells, Learners, Path_, Tasks, several
from creditbench.library.messages import says_arguments
from creditbench.library.resultset import ResultSet
from creditbench.machine.frameworks import DEFAULT
from creditbench.machine.memory import read_bytes
from creditbench.machine.posix import require_posix
from creditbench.results import store
from creditbench.results.runs import Reporter, Where, run_grid
from creditbench.results.version import described
from creditbench.trials.grid import Options
from creditbench.trials.shard import Shard
from creditbench.trials.trial import CELL, Trial


@says_arguments
def run(
    tasks: Tasks,
    learners: Learners,
    cells: Cells = CELL,
    *,
    backend: str | Sequence[str] = DEFAULT,
    seeds: int | Sequence[int] = defaults.SEEDS,
    preset: str = "quick",
    decorrelate: str | Sequence[str] = "none",
    device: str = "cpu",
    hidden: int = 128,
    layers: int = 1,
    bias: bool = False,
    alpha: float | None = None,
    batch: int | None = None,
    segment: int | None = None,
    budget: int | None = None,
    evaluations: int | None = None,
    lr: float | Sequence[float] = (),
    optimizer: str | None = None,
    decorrelation_rate: float | None = None,
    settings: Mapping[str, Any] | None = None,
    data: Mapping[str, Path_] | None = None,
    tuned: Path_ | None = None,
    results: Path_ | None = None,
    reuse: Path_ | Sequence[Path_] = (),
    executor: str = "local",
    scheduler: str | None = None,
    jobs: int | None = None,
    shard: str | None = None,
    threads: int = 1,
    timeout: float | None = None,
    memory_limit: float | str | None = None,
    together: bool = False,
    measure: bool = True,
    force: bool = False,
    retry: bool = False,
    checkpoint: float | None = None,
    log: str | Sequence[str] = (),
    show_progress: bool = True,
) -> ResultSet:
    """Run tasks × cells × rules × backends × seeds; the same as `creditbench run`, and the same trials.

    A task, rule or cell is given by its id (see `list_tasks`, `list_learners`, `list_cells`), by the path of
    a Python file, as a class, or as an instance, whose fields are taken in place of the defaults. A class may
    be defined in a notebook: its source is written to a file, with what it names beside it, and the trials
    import that file in processes of their own. A rule's id may end in `+D` or `+DD` for a decorrelated cell.

    Args:
        tasks: one, or several. `learners`, `cells`: likewise.
        backend: "jax", "torch", or both; left out: "jax" if it is installed.
        seeds: their number, from 0 on, or the seeds. With `tuned` a number is that of each study's seeds.
        preset: the budget of each task: "smoke" takes seconds, "quick" minutes, "full" is for results.
        decorrelate: "none", "hidden", "both", of each rule without a suffix.
        device: "cpu", "cuda", "cuda:1", "gpu", "tpu".
        hidden: units of a layer; `layers`: of the cell; `bias`: whether it has biases; `alpha`: its leak.
        batch: rows trained together. `segment`: steps between updates on a stream.
        budget: training time steps, in place of the preset's. `evaluations`: on validation.
        lr: one learning rate or several. `optimizer`: "sgd", "momentum", "adam".
        settings: fields of rules, tasks, cells and optimisers: {"anp.sigma": 1e-3, "anp.lr": 0.01}.
        data: a task's file: {"weather": "WTH.csv"}. `tuned`: a file that `creditbench tune` wrote.
        results: folder of the records: a trial that has one is not run again, so the same call resumes what
            was interrupted. None: a temporary folder that lives as long as what is returned; `save` keeps it.
        reuse: folders of results whose records are taken over first.
        executor: "local", "dask" or "inline". `jobs`: processes at a time. `threads`: of each.
        shard: a share of the grid, as "3/8". `timeout`: seconds that a trial may take.
        memory_limit: bytes that a trial may take, or a text as "4GB".
        together: train seeds as one program (JAX). `measure`: also measure the cost of an update.
        force: run trials again that have a record; `retry`: those of them that failed.
        checkpoint: seconds between two checkpoints of a trial; None: a minute. `log`: "jsonl", "tensorboard",
            "wandb": curves while trials run, in the folder of results.
        show_progress: a bar in a notebook and in a terminal, elsewhere a line for each trial.

    Returns:
        The results of these trials. Those that failed are among them, see `ResultSet.failed`.

    Raises `UsageError` for what cannot be run, before anything runs.

    >>> import creditbench as cb
    >>> found = cb.run("adding", "readout_ridge", seeds=1, budget=400, hidden=8, measure=False,
    ...                executor="inline", show_progress=False)
    >>> found
    ResultSet of 1 trial: 1 task, 1 rule
    >>> found.trials[["task", "rule", "backend", "seed", "status"]].values.tolist()
    [['adding', 'readout_ridge', 'jax', 0, 'ok']]
    """
    require_posix("creditbench.run")
    # A process may live for days, as that of a notebook: sources change meanwhile.
    store.forget()
    own = tempfile.TemporaryDirectory(prefix="creditbench-") if results is None else None
    place = Path(own.name if own is not None else os.fspath(results or "")).expanduser()
    asked = Asked(place, settings or {})
    options = Options(
        **asked.grid(tasks, learners, cells, data, hidden=hidden, bias=bias, alpha=alpha),
        decorrelate=defaults.names(decorrelate),
        backends=defaults.names(backend),
        device=device,
        seeds=_seeds(seeds),
        seeds_apart=isinstance(seeds, int),
        hidden=hidden,
        layers=layers,
        bias=bias,
        alpha=alpha,
        batch=batch,
        segment=segment,
        lrs=tuple(map(float, several(lr))),
        optimizer=optimizer,
        decorrelation_rate=decorrelation_rate,
        preset=preset,
        budget=budget,
        evaluations=evaluations,
        tuned=None if tuned is None else os.fspath(tuned),
        threads=threads,
        measure=measure,
        timeout=timeout,
    )
    where = Where(
        results=place,
        executor=executor,
        jobs=jobs,
        scheduler=scheduler,
        memory_limit=read_bytes(memory_limit) if isinstance(memory_limit, str) else memory_limit,
        checkpoint=checkpoint,
    )
    outcome = run_grid(
        *(options, where, _reporter(show_progress), progress.say),
        together=together,
        force=force,
        retry=retry,
        reuse=[Path(folder).expanduser() for folder in several(reuse)],
        shard=None if shard is None else Shard.parse(shard),
        logs=several(log),
    )
    for line in progress.failures(outcome, place):
        progress.say(line)
    return ResultSet(described(outcome.records), [place], lost=outcome.lost, holds=own)


def _reporter(shown: bool) -> Callable[[Sequence[Trial]], Reporter]:
    if not shown:
        return progress.Silent
    return progress.NotebookBar if progress.in_notebook() else progress.TrialBars


def _seeds(seeds: int | Sequence[int]) -> tuple[int, ...]:
    return defaults.first_seeds(seeds) if isinstance(seeds, int) else tuple(dict.fromkeys(map(int, seeds)))
