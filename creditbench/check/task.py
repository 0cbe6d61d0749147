"""The checks of a task: its arrays, its seeds, its splits, its scores."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
import time
from functools import cached_property
from typing import Any, get_args

import numpy as np

from creditbench.check import leaks
from creditbench.check.base import Broken, Check, NotApplicable, check
from creditbench.check.still import other_seed, stopped_clock
from creditbench.plugins.importing import Plugin
from creditbench.task import Sequences, Split

CHECKS: list[Check] = []
_SPLITS: tuple[Split, ...] = get_args(Split)
_PRESETS = ("smoke", "quick", "full")
#: Processor seconds that generating the train split may take.
_SECONDS = 0.5
_SEEDS = 8
#: Consecutive steps that identify a stretch: in data that are cut, and in data that are drawn for each seed.
_OVERLAP, _STRETCH = 200, 500
#: Past inputs of the ridge regression that looks for something to learn.
_LAGS = 50
#: Chance may reach a score within so many standard deviations over seeds of the trivial score.
_BY_CHANCE = 4.0


@dataclasses.dataclass(frozen=True)
class TaskSubject:
    """A task, the subject of the checks."""

    plugin: Plugin

    @cached_property
    def task(self) -> Any:
        """The task at its default parameters."""
        return self.plugin.cls()

    @cached_property
    def splits(self) -> dict[Split, Sequences]:
        """Every split of seed 0, of 2 rows if it is a stream. Not to be changed."""
        return {split: self.task.generate(split, 0, 2) for split in _SPLITS}

    @cached_property
    def train(self) -> Sequences:
        """The train split of seed 0 at the task's own batch. Not to be changed."""
        return self.task.generate("train", 0, self.task.batch)

    @cached_property
    def tests(self) -> list[Sequences]:
        """The test splits of several seeds. Not to be changed."""
        return [self.task.generate("test", seed, self.task.batch) for seed in range(_SEEDS)]

    @cached_property
    def trivials(self) -> np.ndarray:
        """The score of the trivial predictor on each of `tests`."""
        return np.array([self.task.trivial_score(test) for test in self.tests])

    def beats_trivial(self, score: float) -> bool:
        """Whether a score on the first of `tests` is better than trivial by more than chance."""
        trivial, chance = self.trivials[0], _BY_CHANCE * self.trivials.std(ddof=1)
        return self.task.better(score, trivial) and abs(score - trivial) > chance


def digest(sequences: Sequences) -> str:
    """A hash of the content of the sequences."""
    return hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in sequences)).hexdigest()


def rows(sequences: Sequences) -> set[bytes]:
    """Each sequence's inputs and targets, as bytes."""
    both = np.concatenate([sequences.inputs, sequences.targets], axis=-1)
    return {both[:, row].tobytes() for row in range(both.shape[1])}


@check(CHECKS, "metadata", "set the class attributes as creditbench/task.py describes them", needed=True)
def metadata(subject: TaskSubject) -> str:
    """Names, protocol, loss, version, citation and budgets are of the right kind."""
    cls = subject.plugin.cls
    for name in ("id", "name", "citation", "metric"):
        if not isinstance(getattr(cls, name), str) or not getattr(cls, name).strip():
            raise Broken(f"{name} is {getattr(cls, name)!r}, and must be text")
    for name, allowed in {
        "protocol": ("stream", "episodes"),
        "loss": ("mse", "cross_entropy"),
        "metric_direction": ("min", "max"),
    }.items():
        if getattr(cls, name) not in allowed:
            raise Broken(f"{name} is {getattr(cls, name)!r}, and must be {' or '.join(allowed)}")
    for name in ("version", "batch"):
        if type(getattr(cls, name)) is not int or getattr(cls, name) < 1:
            raise Broken(f"{name} is {getattr(cls, name)!r}, and must be a whole number from 1")
    if not 0 < cls.alpha <= 1:
        raise Broken(f"alpha is {cls.alpha!r}, and must lie in (0, 1]")
    budgets = [cls.budgets.get(preset, 0) for preset in _PRESETS]
    if not 0 < budgets[0] < budgets[1] < budgets[2]:
        raise Broken(f"budgets are {cls.budgets!r}, and must grow from smoke to quick to full")
    if cls.reads_data != ("data" in {field.name for field in dataclasses.fields(cls)}):
        raise Broken("reads_data and a field `data` go together")
    hash(subject.task)
    if subject.task != cls():
        raise Broken("two tasks with the same parameters are not equal: let it be a frozen dataclass")
    return f"{cls.protocol}, {cls.loss}, version {cls.version}"


@check(
    CHECKS,
    "arrays",
    "return Sequences of float32: inputs [T, N, I], targets [T, N, O], weights [T, N]",
    needed=True,
)
def arrays(subject: TaskSubject) -> str:
    """Every split is float32, time first and finite; weights are at least 0, some of each row above."""
    for split, found in subject.splits.items():
        if not isinstance(found, Sequences):
            raise Broken(f"{split} is {type(found).__name__}, and must be Sequences")
        for name, array in zip(Sequences._fields, found, strict=True):
            if getattr(array, "dtype", None) != np.float32:
                raise Broken(
                    f"{name} of {split} are {getattr(array, 'dtype', type(array).__name__)}, not float32"
                )
            if array.ndim != (2 if name == "weights" else 3):
                raise Broken(f"{name} of {split} have {array.ndim} axes: they go time, row, channel")
            if not np.isfinite(array).all():
                raise Broken(f"{name} of {split} are not finite")
        inputs, targets, weights = found
        if not inputs.shape[:2] == targets.shape[:2] == weights.shape:
            raise Broken(
                f"{split} has inputs {inputs.shape}, targets {targets.shape}, weights {weights.shape}: the "
                "first two axes must agree"
            )
        if min(inputs.shape + targets.shape) < 1:
            raise Broken(f"{split} is empty: inputs {inputs.shape}, targets {targets.shape}")
        if weights.min() < 0:
            raise Broken(f"a weight of {split} is {weights.min():g}, and must not be negative")
        if not weights.any(axis=0).all():
            raise Broken(f"a row of {split} has no weight above 0: no step of it is scored")
        if subject.task.loss == "cross_entropy":
            scored = targets[weights > 0]
            if scored.min() < 0 or np.abs(scored.sum(-1) - 1).max() > 1e-3:
                raise Broken(f"targets of {split} are no probabilities: with cross_entropy they sum to 1")
    return "float32, time first, finite; weights from 0, some above"


@check(CHECKS, "rows", "a stream's train split has exactly `batch` rows, that of episodes at least one batch")
def train_rows(subject: TaskSubject) -> str:
    """The train split has as many rows as requested."""
    task = subject.task
    for batch in (1, 2):
        count = task.generate("train", 0, batch).inputs.shape[1]
        if task.protocol == "stream" and count != batch:
            raise Broken(f"{count} rows in train where {batch} were asked for")
        if task.protocol == "episodes" and count < max(task.batch, batch):
            raise Broken(f"{count} rows in train are less than a batch of {max(task.batch, batch)}")
    return "as asked for"


@check(
    CHECKS,
    "determinism",
    "draw from self.rng(split, seed) alone, look at no clock, and give out copies of what is cached",
    needed=True,
)
def determinism(subject: TaskSubject) -> str:
    """The same seed yields the same bytes: again, after changed arrays, at another time, after draws."""
    for split in _SPLITS:
        with stopped_clock(subject.plugin.cls.__module__, 1e9), other_seed(0):
            found = subject.plugin.cls().generate(split, 3, 2)
        first = digest(found)
        for array in found:
            if array.flags.writeable:
                array += 1
        with stopped_clock(subject.plugin.cls.__module__, 1e9), other_seed(0):
            if digest(subject.plugin.cls().generate(split, 3, 2)) != first:
                raise Broken(f"{split} of the same seed is another one the second time")
        with stopped_clock(subject.plugin.cls.__module__, 1.5e9), other_seed(7):
            if digest(subject.plugin.cls().generate(split, 3, 2)) != first:
                raise Broken(f"{split} depends on the clock or on a global random state")
    return "the same seed yields the same bytes"


@check(CHECKS, "seeds", "let the seed reach the generator: self.rng(split, seed)")
def seeds(subject: TaskSubject) -> str:
    """Another seed yields other training data, unless no split depends on it."""
    same = [
        split
        for split, found in subject.splits.items()
        if digest(found) == digest(subject.task.generate(split, 1, 2))
    ]
    if len(same) == len(_SPLITS):
        raise NotApplicable("the data are the same for every seed")
    if "train" in same:
        raise Broken(f"train is the same for every seed, where {_others(same)} are not")
    return "another seed, other data" + (f"; {' and '.join(same)} fixed" if same else "")


def _others(same: list[Any]) -> str:
    return " and ".join(split for split in _SPLITS if split not in same)


@check(
    CHECKS, "splits", "draw each split from its own generator, or cut data into stretches that do not overlap"
)
def splits(subject: TaskSubject) -> str:
    """No sequence is in two splits, or twice in one; no stretch of validation or test is in train."""
    sets = {split: rows(part) for split, part in subject.splits.items()}
    for split, part in subject.splits.items():
        if len(sets[split]) < part.inputs.shape[1]:
            raise Broken(f"{part.inputs.shape[1] - len(sets[split])} sequences are twice in {split}")
    for one, other in itertools.combinations(_SPLITS, 2):
        if shared := len(sets[one] & sets[other]):
            raise Broken(f"{shared} sequences of {one} are in {other} too")
    train = subject.splits["train"]
    scale = leaks.scale_of(train)
    # A stretch that is also in the train split of another seed is alike by chance.
    others = [subject.task.generate("train", seed, 2) for seed in (1, 2)]
    fixed = any(rows(other) == sets["train"] for other in others)
    others = [] if fixed else others
    # Whole episodes, if the data are the same for every seed: parts of them may well be alike.
    lengths = {split: len(part.inputs) for split, part in subject.splits.items()}
    if fixed:
        steps = lengths if subject.task.protocol == "episodes" else dict.fromkeys(_SPLITS, _OVERLAP)
    else:
        steps = {split: min(_STRETCH, max(2, length // 2)) for split, length in lengths.items()}
    for split in ("validation", "test"):
        part = subject.splits[split]
        sought = leaks.stretches(part, leaks.count_for(train), steps[split], scale)
        bound = np.full(len(sought), leaks.SAME)
        if others:
            bound = leaks.NEAR * np.min([leaks.nearest(sought, other, scale) for other in others], axis=0)
        near = leaks.nearest(sought, train, scale)
        # In a smooth series one stretch may follow another for a while.
        if (found := int((near < bound).sum())) > (0 if fixed else 1):
            worst = float(near[near < bound].max())
            raise Broken(
                f"{found} of {len(sought)} stretches of {split} ({sought.shape[1]} steps) are in train too, "
                f"at another place perhaps, to within {worst:.1g} standard deviations"
            )
    return "share no sequence and no stretch"


@check(
    CHECKS,
    "target in input",
    "leave what is asked for out of the inputs of the same step, or ask for what is known only from steps "
    "before",
)
def target_in_input(subject: TaskSubject) -> str:
    """No linear function of the same step's inputs equals a target, or scores as well as solved."""
    task, test = subject.task, subject.tests[0]
    said = leaks.ridge(task, subject.train, test, 1)
    if leaks.given(test, said):
        raise Broken(
            "the target is a linear function of the same step's inputs: nothing has to be remembered"
        )
    found, solved = leaks.best_score(task, said, test), task.solved_score(test)
    if solved is not None and not task.better(solved, found) and subject.beats_trivial(found):
        raise Broken(
            f"a linear function of the same step's inputs scores {found:.4g}, and solved is {solved:.4g}: "
            "nothing has to be remembered"
        )
    return f"a linear function of the same step's inputs scores {found:.4g}"


@check(CHECKS, "learnable", "let the targets follow from the inputs so far")
def learnable(subject: TaskSubject) -> str:
    """A ridge regression from the inputs so far is better than trivial; only reported if it is not."""
    task, test = subject.task, subject.tests[0]
    found = leaks.best_score(task, leaks.ridge(task, subject.train, test, _LAGS), test)
    said = (
        f"a ridge regression from the last inputs, {_LAGS} at most, scores {found:.4g}, and trivial is "
        f"{subject.trivials[0]:.4g}"
    )
    if not subject.beats_trivial(found):
        raise NotApplicable(
            f"nothing was found to learn: {said}; that is no fault where targets follow from the inputs in "
            "another way"
        )
    return said


@check(
    CHECKS,
    "direction",
    "set `solved` to what a task that is solved scores, on the better side of `trivial`, and let "
    "`solved_score` return None where it is not",
)
def direction(subject: TaskSubject) -> str:
    """Solved is better than trivial by the metric's direction; on each test split too, if known."""
    cls = subject.plugin.cls
    better = "below" if cls.metric_direction == "min" else "above"
    if not all(map(math.isfinite, (cls.trivial, cls.solved))):
        raise Broken(f"trivial is {cls.trivial!r} and solved {cls.solved!r}: both must be finite")
    if not (cls.solved < cls.trivial if cls.metric_direction == "min" else cls.solved > cls.trivial):
        raise Broken(f"solved is {cls.solved:g}, and must lie {better} trivial, {cls.trivial:g}")
    trivials = subject.trivials
    if abs(cls.trivial - cls.solved) <= _BY_CHANCE * trivials.std(ddof=1):
        raise Broken(
            f"solved is {cls.solved:g}, and the trivial predictor scores {trivials.min():.4g} to "
            f"{trivials.max():.4g} over {_SEEDS} seeds: chance reaches it"
        )
    for test, trivial in zip(subject.tests, trivials, strict=True):
        solved = subject.task.solved_score(test)
        if solved is None:
            continue
        if not isinstance(solved, float) or not math.isfinite(solved):
            raise Broken(f"solved_score returns {solved!r}, and must return a finite float, or None")
        if subject.task.normalise(solved, trivial, solved) is None:
            raise Broken(
                f"solved_score is {solved:g} where trivial_score is {trivial:g}, and must lie {better} it"
            )
    return f"solved {cls.solved:g} {better} trivial {cls.trivial:g}"


@check(
    CHECKS, "trivial score", "set `trivial` to the mean of trivial_score over seeds, at default parameters"
)
def trivial(subject: TaskSubject) -> str:
    """The constant `trivial` is the trivial predictor's score on the test split, within 4 standard errors."""
    cls = subject.plugin.cls
    scores = subject.trivials
    error = scores.std(ddof=1) / np.sqrt(_SEEDS)
    said = f"{scores.mean():.5g} ± {error:.1g} over {_SEEDS} seeds, and trivial is {cls.trivial:g}"
    if not abs(scores.mean() - cls.trivial) <= 4 * error + 0.01 * abs(cls.trivial - cls.solved):
        raise Broken(said)
    return said


@check(
    CHECKS,
    "score",
    "score the steps whose weight is above 0, those alone, and return not a number for such outputs",
)
def score(subject: TaskSubject) -> str:
    """Noise does not solve the task, unscored steps do not count, and non-finite outputs have no score."""
    task, test = subject.task, subject.tests[0]
    noise = np.random.default_rng(0).normal(size=test.targets.shape).astype(np.float32)
    found = task.score(noise, test)
    if not isinstance(found, float) or not math.isfinite(found):
        raise Broken(f"random outputs score {found!r}, and must score a finite float")
    if found < task.solved if task.metric_direction == "min" else found > task.solved:
        raise Broken(f"random outputs score {found:g}, better than solved, {task.solved:g}")
    at = test.weights > 0
    shuffled = np.zeros_like(test.targets)
    shuffled[at] = np.random.default_rng(0).permutation(test.targets[at])
    if not task.better(solved := task.solved_score(test) or task.solved, task.score(shuffled, test)):
        raise Broken(
            f"the targets in another order score {task.score(shuffled, test):.4g}, and solved is "
            f"{solved:.4g}: chance reaches it"
        )
    hidden = noise.copy()
    hidden[test.weights == 0] = 1e6
    if task.score(hidden, test) != found:
        raise Broken("outputs at steps of weight 0 change the score")
    if not math.isnan(task.score(np.full_like(noise, np.nan), test)):
        raise Broken("outputs that are not a number have a score: return nan for them")
    return f"random outputs score {found:.4g}"


@check(
    CHECKS,
    "generating",
    f"vectorise the generator over rows and steps: it has {_SECONDS} s of processor time",
)
def generating(subject: TaskSubject) -> str:
    """Processor time of generating the train split at default parameters, the best of three."""
    times = []
    for _ in range(3):
        began = time.process_time()
        subject.task.generate("train", 0, subject.task.batch)
        times.append(time.process_time() - began)
    if min(times) > _SECONDS:
        raise Broken(f"the train split takes {min(times):.2f} s")
    return f"the train split takes {min(times):.2g} s"
