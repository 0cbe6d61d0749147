"""Records that no run has made: as many as a test asks for, with effects that it plants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from creditbench.plugins import meaning
from creditbench.plugins.importing import source_sha256
from creditbench.results.measured import GradientQuality, ScalingPoint
from creditbench.results.version import Results
from creditbench.trials.record import Point, Record
from creditbench.trials.trial import Trial

FAMILIES = ("reverse mode", "forward mode", "perturbation", "eligibility traces", "local")
CPU = {
    "cpu": "An imagined processor",
    "cores": 2,
    "packages": {"jax": "0.0.1", "torch": "0.0.2"},
    "commit": "0" * 40,
}


def names(rules: int, tasks: int) -> tuple[list[str], list[str]]:
    """Names of rules, `bptt` first, and of tasks."""
    return ["bptt", *(f"rule_{i:02}" for i in range(1, rules))], [f"task_{i:02}" for i in range(tasks)]


def make(
    source: Path,
    *,
    rules: int = 4,
    tasks: int = 5,
    backends: Sequence[str] = ("jax", "torch"),
    seeds: int = 5,
    points: int = 6,
    noise: int = 0,
    slower: Callable[[Trial], float] = lambda trial: 1.0,
    worse: Callable[[Trial], float] = lambda trial: 0.0,
    status: Callable[[Trial], str] = lambda trial: "ok",
    preset: str = "full",
    measured: bool = True,
    redraw: bool = False,
    jitter: float = 0.04,
    studies: int = 0,
    tuning: float = 0.05,
) -> Results:
    """Results of imagined rules, some of which are better than others, on imagined tasks.

    `source` is a file that stands for the source of every rule and task. Times are drawn anew with `noise`,
    as two runs of one commit would; scores are those of the seed, unless `redraw`. `slower` multiplies a
    trial's times, `worse` is taken from its score. With `studies`, each has `seeds` seeds of its own, and
    chance in tuning, of the spread `tuning`, is in the scores of all runs of a rule, task and study.
    """
    sha256 = source_sha256(source)
    vocabulary = {backend: meaning.vocabulary(source.read_bytes(), backend) for backend in backends}
    learners, problems = names(rules, tasks)
    metadata = {
        name: {
            "name": f"Imagined rule {i}",
            "paper": f"Nobody {2000 + i}, doi:10.0/{i}",
            "family": FAMILIES[i % len(FAMILIES)],
            "claims": {
                "unbiased": i % 2 == 0,
                "online": i % 3 == 1,
                "forward_only": i > 0,
                "memory_in_T": "O(T)" if i == 0 else "O(1)",
                "time": "O(n²)",
                "memory": "O(p)",
            },
        }
        for i, name in enumerate(learners)
    }
    about = {
        name: {
            "name": f"Imagined task {i}",
            "citation": "Nobody 1999",
            "version": 1,
            "protocol": "stream" if i % 2 else "episodes",
            "metric": "nrmse",
            "metric_direction": "min",
            "trivial": 1.0,
            "solved": 0.1,
        }
        for i, name in enumerate(problems)
    }
    records = []
    for i, learner in enumerate(learners):
        for j, task in enumerate(problems):
            for b, backend in enumerate(backends):
                own = np.random.default_rng([i, j, b, noise, 1])
                ratio = (3 + 0.5 * i) * np.exp(jitter * own.normal())
                for seed in range(seeds * max(1, studies)):
                    trial = _trial(
                        source, sha256, learner, task, backend, seed, preset, about[task]["protocol"]
                    )
                    trial = trial.model_copy(update={"vocabulary_sha256": vocabulary[backend]})
                    chance = 0.0
                    if studies:
                        study = seed // seeds
                        named = {"study": f"0/{study}", "lr": 0.1 * (1 + study), "beat_trivial": True}
                        trial = trial.model_copy(update=named)
                        chance = tuning * np.random.default_rng([i, j, study, 2]).normal()
                    rng = np.random.default_rng([i, j, b, seed, *([noise] if redraw else [])])
                    good = (
                        0.95 - 0.8 * i / rules - 0.05 * (j % 3) + 0.04 * rng.normal() + chance - worse(trial)
                    )
                    factor = slower(trial)
                    times = (3 + 0.5 * i) * factor * np.exp(jitter * own.normal())
                    records.append(_record(trial, good, times, ratio * factor, status(trial), points, i, rng))
    scaling: list[ScalingPoint] = []
    gradients: list[GradientQuality] = []
    if measured:
        for i, learner in enumerate(learners):
            for backend in backends:
                scaling += _scaling(learner, backend, i)
                gradients += [
                    _gradient(learner, backend, task, point, i)
                    for task in problems[:3]
                    for point in (0.0, 1.0)
                ]
    return Results(tuple(records), tuple(scaling), tuple(gradients), metadata, about)


def _trial(
    source: Path, sha256: str, learner: str, task: str, backend: str, seed: int, preset: str, protocol: str
) -> Trial:
    values: dict[str, Any] = dict(
        task=task,
        task_version=1,
        task_sha256=sha256,
        task_parameters={"length": 10},
        learner=learner,
        learner_sha256=sha256,
        hyperparameters={"sigma": 0.001},
        decorrelate="none",
        decorrelation_rate=0.001,
        backend=backend,
        device="cpu",
        hidden=128,
        batch=1,
        segment=50,
        alpha=1.0,
        bias=False,
        protocol=protocol,
        optimizer="sgd",
        lr=0.1 + 0.2,
        seed=seed,
        preset=preset,
        budget_steps=100_000,
        evaluations=5,
        task_path=str(source),
        learner_path=str(source),
    )
    return Trial(**values)


def _record(
    trial: Trial, good: float, ratio: float, ratio_forward: float, status: str, points: int, i: int, rng: Any
) -> Record:
    if status not in ("ok", "diverged"):
        return Record(
            suite_version="0",
            trial=trial,
            learner_source="synthetic",
            status=status,
            status_detail="planted",
            metric="nrmse",
            metric_direction="min",
            environment=CPU,
        )
    good = float(good)
    metric = 1 - 0.9 * good
    seconds = 1e-5 * ratio * trial.budget_steps
    curve = tuple(
        Point(
            step=round(part * trial.budget_steps),
            seconds=part * seconds,
            loss=float(1.2 - good * part),
            validation=float(1 - 0.9 * good * (1 - np.exp(-4 * part)) + 0.01 * rng.normal()),
        )
        for part in np.linspace(0, 1, points)
    )
    reached = good >= 0.7 and status == "ok"
    ok = status == "ok"
    return Record(
        suite_version="0",
        trial=trial,
        learner_source="synthetic",
        status=status,
        status_detail="" if ok else "step 12",
        metric="nrmse",
        metric_direction="min",
        trivial=1.0,
        solved=0.1,
        validation_best=metric,
        test_score=metric if ok else None,
        normalised_score=good if ok else None,
        steps_to_target=trial.budget_steps // 2 + 1000 * i if reached else None,
        seconds_to_target=seconds / 2 if reached else None,
        train_seconds=seconds,
        compile_seconds=1.25,
        steps_per_second=1e5 / ratio,
        ratio_forward=ratio_forward,
        ratio_bptt=ratio_forward / 3,
        flops_per_step=1e5 * (i + 1),
        algorithm_bytes=70_000 * (i + 1) if i else 900_000,
        process_peak_bytes=12_345_678,
        process_peak_source="VmHWM",
        curve=curve,
        environment=CPU,
        started_at="2000-01-01T00:00:00+00:00",
        duration_seconds=seconds + 2,
    )


def _scaling(learner: str, backend: str, i: int) -> list[ScalingPoint]:
    found = []
    for axis, sizes in {"T": (32, 128, 512), "n": (16, 64, 256)}.items():
        for quantity in ("time", "algorithm_bytes"):
            exponent = (1.0 if axis == "T" else 2.0) if quantity == "time" or i == 0 else 0.0
            found += [
                ScalingPoint(
                    learner=learner,
                    backend=backend,
                    axis=axis,
                    quantity=quantity,
                    size=size,
                    value=(1e-6 if quantity == "time" else 100.0) * (i + 1) * size**exponent,
                    blocks=7,
                    exponent=exponent,
                    low=exponent - 0.05,
                    high=exponent + 0.05,
                    claimed=exponent,
                    held=True,
                )
                for size in sizes
            ]
    return found


def _gradient(learner: str, backend: str, task: str, point: float, i: int) -> GradientQuality:
    cosine = 1.0 / (1 + i)
    return GradientQuality(
        learner=learner,
        backend=backend,
        task=task,
        point=point,
        draws=256 if i else 1,
        cosine=cosine,
        cosine_low=cosine - 0.02 * (i > 0),
        cosine_high=cosine + 0.02 * (i > 0),
        bias=0.1 * i,
        bias_low=0.05 * i if i % 2 else 0.0,
        bias_high=0.2 * i,
        variance=2.0 * i,
        variance_low=1.5 * i,
        variance_high=3.0 * i,
        draws_to_cosine=None if i == 3 else 1 + 10 * i,
        draws_to_cosine_low=1 + 5 * i,
        draws_to_cosine_high=None if i == 3 else 1 + 20 * i,
    )
