"""What holds for every task."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
import subprocess
import sys
import time
import typing
from pathlib import Path

import numpy as np
import pytest

from creditbench.errors import UsageError
from creditbench.task import Sequences, Task

SPLITS = ("train", "validation", "test")

#: `fingerprint` of each task at seed 7. A change here is a change of the task's numbers: raise its
#: `version`.
FINGERPRINTS = {
    "add_stream": "02f8cc4c001facc7",
    "adding": "01bc5cebae6e98e1",
    "copy_memory": "b3eb074e2b9d01da",
    "delayed_match": "53c2f412a16c86b6",
    "dyck": "6b9f7df7077af6f3",
    "evidence": "1ff1534bf4cc9928",
    "flip_flop": "35c2be272596c105",
    "lorenz": "0df077aa0ce91cb0",
    "mackey_glass": "68cc565a45a27d4b",
    "mimic": "5774e018d1d40379",
    "narma10": "37fdd5cf712d361d",
    "parity": "b7d104455fc496d1",
    "selective_copy": "a3e229a3c6d284cf",
    "sequential_digits": "a26754ee80b7d310",
    "speech_vowels": "745496ac1636bd3b",
    "text8_chars": "a718060844dcc9a8",
    "weather": "e891d736050be0e9",
}

#: How far the trivial score of the test split at seed 0 may lie from the class's constant: about
#: nothing where it is exact or the data do not depend on the seed, else about 4 standard errors.
TOLERANCES = {"adding": 0.02, "mimic": 0.01, "text8_chars": 1e-4, "weather": 1e-4}
EXACT = 1e-6
SEEDLESS = {
    "weather": SPLITS,
    "text8_chars": SPLITS,
    "sequential_digits": ("validation", "test"),
    "speech_vowels": ("validation", "test"),
}


def log_probabilities(targets: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(targets, np.float32(1e-30)))


#: The outputs that score best, where those are not the targets themselves, and what they score, where that is
#: neither 0 nor 1: of random targets the mean entropy over those drawn.
PERFECT = {"add_stream": log_probabilities, "text8_chars": log_probabilities}
BEST = {"add_stream": pytest.approx(0.4545, abs=0.01)}


#: Settings at which a task is degenerate, or of which nobody knows what counts as solved.
UNKNOWN = {
    ("dyck", "kinds", 1),  # the kind of a bracket is known
    ("dyck", "depth", 1),  # the bracket to be closed has just been opened
    ("mackey_glass", "gamma", 0.4),  # the series becomes constant
    ("weather", "warmup", 96),  # on the other 48 hours of a week the ridge is no better than persistence
}


def settings(cls: type[Task]) -> list[dict[str, object]]:
    """The defaults with one change: a number halved, doubled or times four, a flag flipped, a new choice."""
    found: list[dict[str, object]] = [{}]
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        value, kind = field.default, type(field.default)
        if typing.get_origin(hints[field.name]) is typing.Literal:
            others = [other for other in typing.get_args(hints[field.name]) if other != value]
        elif kind is bool:
            others = [not value]
        else:
            others = [kind(value * factor) for factor in (0.5, 2, 4)] if kind in (int, float) else []
        found += [{field.name: other} for other in others]
    extra = {"dyck": [{"depth": 1}], "lorenz": [{"horizons": (0.05,)}, {"horizons": (5.0,)}]}
    return found + extra.get(cls.id, []) + ([{"horizon": 1}] if cls.id == "mackey_glass" else [])


def digest(sequences: Sequences) -> str:
    return hashlib.sha256(b"".join(array.tobytes() for array in sequences)).hexdigest()


def fingerprint(task: Task) -> str:
    """A hash of about 50 elements of each array of each split, at seed 7."""
    few = hashlib.sha256()
    for split, array in itertools.product(SPLITS, range(3)):
        flat = task.generate(split, 7, 2)[array].ravel()
        few.update(flat[:: max(1, flat.size // 50)].tobytes())
    return few.hexdigest()[:16]


def rows(sequences: Sequences) -> set[bytes]:
    """Each sequence's inputs and targets, as bytes."""
    both = np.concatenate([sequences.inputs, sequences.targets], axis=-1)
    return {both[:, row].tobytes() for row in range(both.shape[1])}


def test_metadata_is_complete(any_task: type[Task]) -> None:
    module = Path(sys.modules[any_task.__module__].__file__)
    assert module.stem == any_task.id
    assert any_task.name and any_task.citation and any_task.metric
    assert any_task.version >= 1 and any_task.batch >= 1 and 0 < any_task.alpha <= 1
    assert any_task.protocol in ("stream", "episodes")
    assert any_task.loss in ("mse", "cross_entropy")
    assert any_task.metric_direction in ("min", "max")
    assert 0 < any_task.budgets["smoke"] < any_task.budgets["quick"] < any_task.budgets["full"]
    assert any_task.reads_data == ("data" in {field.name for field in dataclasses.fields(any_task)})


def test_solved_is_better_than_trivial(any_task: type[Task]) -> None:
    trivial, solved = any_task.trivial, any_task.solved
    assert any_task().better(solved, trivial)
    assert any_task().normalise(trivial, trivial, solved) == 0
    assert any_task().normalise(solved, trivial, solved) == pytest.approx(1)


@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")  # of a series that stands still
def test_no_setting_turns_the_scale_upside_down(any_task: type[Task]) -> None:
    """Solved is strictly better than trivial, or not known. A better metric never scores lower."""
    known = refused = 0
    for changed in settings(any_task):
        try:
            task = any_task(**changed)
            test = task.generate("test", 0, any_task.batch)
        except UsageError:
            refused += 1
            continue
        trivial, solved = task.trivial_score(test), task.solved_score(test)
        ((name, value),) = changed.items() or [("", None)]
        assert (solved is None) == ((any_task.id, name, value) in UNKNOWN), changed
        if solved is None:
            assert task.normalise(trivial, trivial, solved) is None
            continue
        known += 1
        assert isinstance(solved, float) and task.better(solved, trivial), (changed, solved, trivial)
        worse = sorted((0.0, solved / 2, solved, (solved + trivial) / 2, trivial, 2 * trivial))
        scores = [task.normalise(metric, trivial, solved) for metric in worse]
        assert scores == sorted(scores, reverse=task.metric_direction == "min") and len(set(scores)) > 3
    assert known > refused


def test_the_constant_is_what_is_solved_by_default(any_task: type[Task]) -> None:
    task = any_task()
    found = task.solved_score(task.generate("test", 0, any_task.batch))
    assert found == pytest.approx(any_task.solved, rel=1e-4)
    # Ranks do not depend on the seed.
    assert task.solved_score(task.generate("test", 1, any_task.batch)) == found


def test_asking_what_is_solved_again_is_quick(any_task: type[Task]) -> None:
    task = any_task()
    test = task.generate("test", 0, any_task.batch)
    task.solved_score(test)
    times = []
    for _ in range(3):
        began = time.process_time()
        task.solved_score(test)
        times.append(time.process_time() - began)
    assert min(times) < 0.1


@pytest.mark.parametrize("split", SPLITS)
def test_arrays_are_time_first_float32(any_task: type[Task], split: str) -> None:
    sequences = any_task().generate(split, 0, 2)
    inputs, targets, weights = sequences
    assert inputs.ndim == targets.ndim == 3 and weights.ndim == 2
    assert inputs.shape[:2] == targets.shape[:2] == weights.shape
    assert min(inputs.shape + targets.shape) >= 1
    for array in sequences:
        assert array.dtype == np.float32
        assert array.flags.c_contiguous
        assert np.isfinite(array).all()
    assert set(np.unique(weights)) <= {0.0, 1.0}
    assert weights.any(axis=0).all()
    assert np.abs(inputs).max() <= 2  # in reach of a tanh


@pytest.mark.parametrize("batch", [1, 2])
def test_a_stream_trains_as_many_rows_as_asked_for(any_task: type[Task], batch: int) -> None:
    count = any_task().generate("train", 0, batch).inputs.shape[1]
    if any_task.protocol == "stream":
        assert count == batch
    else:
        assert count >= any_task.batch


def test_the_same_seed_yields_the_same_bytes(any_task: type[Task]) -> None:
    for split in SPLITS:
        first = digest(any_task().generate(split, 3, 2))
        assert first == digest(any_task().generate(split, 3, 2))


def test_changing_the_arrays_changes_nothing_generated_later(any_task: type[Task]) -> None:
    task = any_task()
    for split in SPLITS:
        sequences = task.generate(split, 0, 1)
        first = digest(sequences)
        for array in sequences:
            array += 1
        assert digest(task.generate(split, 0, 1)) == first


@pytest.mark.parametrize("threads", [1, 3])
def test_another_process_with_other_threads_yields_the_same_bytes(
    tasks: dict[str, type[Task]], there: list[str], threads: int
) -> None:
    code = (
        "import json, sys; sys.path[:0] = sys.argv[1:3]\n"
        "from conftest import load_tasks; from test_every_task import digest\n"
        "print(json.dumps({id: digest(load_tasks()[id]().generate('train', 3, 2)) for id in sys.argv[3:]}))"
    )
    here = Path(__file__).parent
    command = [sys.executable, "-c", code, str(here), str(here.parents[1]), *there]
    pools = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    done = subprocess.run(command, check=True, capture_output=True, env=os.environ | pools)
    assert json.loads(done.stdout) == {id: digest(tasks[id]().generate("train", 3, 2)) for id in there}


def test_the_numbers_are_those_of_the_version(any_task: type[Task]) -> None:
    assert fingerprint(any_task()) == FINGERPRINTS[any_task.id]


def test_seeds_differ(any_task: type[Task]) -> None:
    for split in SPLITS:
        same = digest(any_task().generate(split, 0, 2)) == digest(any_task().generate(split, 1, 2))
        assert same == (split in SEEDLESS.get(any_task.id, ()))


def test_splits_share_no_sequence(any_task: type[Task]) -> None:
    parts = {split: any_task().generate(split, 0, 2) for split in SPLITS}
    sets = {split: rows(part) for split, part in parts.items()}
    for split, part in parts.items():
        assert len(sets[split]) == part.inputs.shape[1]
    for one, other in itertools.combinations(SPLITS, 2):
        assert not sets[one] & sets[other]


def test_trivial_is_what_the_trivial_predictor_scores(any_task: type[Task]) -> None:
    task = any_task()
    computed = task.trivial_score(task.generate("test", 0, any_task.batch))
    assert computed == pytest.approx(any_task.trivial, abs=TOLERANCES.get(any_task.id, EXACT))


def test_the_targets_score_best_and_noise_worse(any_task: type[Task]) -> None:
    task = any_task()
    test = task.generate("test", 0, any_task.batch)
    best = 1.0 if any_task.metric_direction == "max" else 0.0
    outputs = PERFECT.get(any_task.id, np.copy)(test.targets)
    assert task.score(outputs, test) == BEST.get(any_task.id, best)
    noise = np.random.default_rng(0).normal(size=test.targets.shape).astype(np.float32)
    worse = task.score(noise, test) - any_task.solved
    assert worse < 0 if any_task.metric_direction == "max" else worse > 0


def test_steps_of_weight_zero_are_not_scored(any_task: type[Task]) -> None:
    task = any_task()
    test = task.generate("test", 0, any_task.batch)
    outputs = test.targets.copy()
    assert np.isfinite(task.score(outputs, test))
    outputs[test.weights == 0] = np.nan
    assert task.score(outputs, test) == task.score(test.targets, test)


def test_an_output_that_is_not_finite_scores_no_number(any_task: type[Task]) -> None:
    task = any_task()
    test = task.generate("test", 0, any_task.batch)
    assert np.isnan(task.score(np.full_like(test.targets, np.nan), test))


def test_sizes_are_those_of_the_train_split(any_task: type[Task]) -> None:
    train = any_task().generate("train", 0, any_task.batch)
    assert any_task().sizes() == (*train.inputs.shape, train.targets.shape[-1])


def test_generating_is_quick(any_task: type[Task]) -> None:
    """Processor time, the best of three, so that a busy machine passes too."""
    any_task().generate("test", 0, any_task.batch)  # fills the cache
    times = []
    for _ in range(3):
        began = time.process_time()
        any_task().generate("train", 0, any_task.batch)
        times.append(time.process_time() - began)
    assert min(times) < 0.5


def test_a_task_is_a_value(any_task: type[Task]) -> None:
    task = any_task()
    task.score((test := task.generate("test", 0, 1)).targets, test)
    assert task == any_task() and hash(task) == hash(any_task())
    assert dataclasses.replace(task) == task
    for field in dataclasses.fields(task):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(task, field.name, 0)
