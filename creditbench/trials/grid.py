"""From a user's options to fully resolved trials.

Each setting comes from the first of these that has it:

1. the options: `--set anp.lr=0.01` before `--lr`, `--segment`, `--set anp.sigma=1e-3`, ...
2. the tuned file's table `[TASK.RULE]`, or each of its tables `[[TASK.RULE]]`, one per study
3. the tuned file's table `[default.RULE]`
4. the task's own default (batch, alpha, budget) or the learner's (optimiser, lr, segment, hyper-parameters)

RULE is the name in tables: `anp`, `"anp+D"`. Of the tuned file's tables only those of the trial's cell count:
those with `cell = "gru"`, or for the cell `tanh` those without. They must have been tuned with the trial's
constants of the cell: `cell_parameters = {decay = 0.9}` says which were not the default. Nothing here imports
torch or jax.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import math
import os
import re
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from creditbench.cells import DECORRELATE, Decorrelate
from creditbench.data import Seen, absolute, noting
from creditbench.errors import UsageError, not_installed, reason, suggestion, unknown
from creditbench.learner import Learner
from creditbench.machine import files
from creditbench.machine.frameworks import DEFAULT
from creditbench.ops import BACKENDS
from creditbench.optimizers import OPTIMIZERS, make_optimizer
from creditbench.plugins import meaning, registry
from creditbench.plugins.importing import Kind, Plugin, TooLongError, deadline
from creditbench.task import Sequences, Split, Task
from creditbench.trials.network import make_network
from creditbench.trials.settings import (
    STUDY,
    TUNABLE,
    by_owner,
    constants,
    convert,
    converted,
    fields_of,
    is_tuned_with,
    make,
    not_default,
    optimizer_parameters,
    own_rate,
    read_tuned,
    require_finite,
    require_in_grid,
)
from creditbench.trials.trial import CELL, SUFFIXES, Trial, split_rule, with_cell

#: Preset -> number of evaluations on the validation split, evenly over the budget.
EVALUATIONS = {"smoke": 2, "quick": 10, "full": 50}
DECORRELATION_RATE = 1e-3
#: Every seed is less than this: under JAX a larger seed would have the same key as a smaller one.
SEEDS = 2**32
#: The default time limit for a task to make a split.
DATA_SECONDS = 3600.0
#: The upper limit of every size in a grid.
MOST = 10**12

#: The seeds of results with draw D of tuning start at D times this number. Tuning's own seeds are larger than
#: all of them.
SEEDS_OF_A_DRAW = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """A user's options. None: the setting comes from the tuned file, the task or the learner."""

    tasks: tuple[str, ...]  #: ids, or paths of Python files
    learners: tuple[str, ...]  #: ids or paths, with the suffix +D or +DD for a decorrelated cell
    cells: tuple[str, ...] = (CELL,)  #: ids or paths
    decorrelate: tuple[str, ...] = ("none",)  #: of the learners without a suffix, each with all of these
    backends: tuple[str, ...] = (DEFAULT,)
    device: str = "cpu"
    seeds: tuple[int, ...] = (0,)
    seeds_apart: bool = False  #: whether each study of the tuned file has its own seeds, as many as `seeds`
    hidden: int = 128
    layers: int = 1
    bias: bool = False
    alpha: float | None = None
    batch: int | None = None
    segment: int | None = None
    lrs: tuple[float, ...] = ()
    optimizer: str | None = None
    decorrelation_rate: float | None = None
    preset: str = "quick"
    budget: int | None = None
    evaluations: int | None = None
    #: "anp.sigma" -> value, or its text
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    data: Mapping[str, str] = dataclasses.field(default_factory=dict)  #: task -> a user's file
    tuned: str | None = None  #: path of a TOML file
    threads: int = 1
    measure: bool = False  #: whether to measure the cost of an update after the training
    timeout: float | None = None  #: time limit in seconds for a task to make a split; None for an hour

    def __post_init__(self) -> None:
        if not self.tasks:
            raise UsageError(
                "no task is named: add one, as in --task mackey_glass; see: creditbench list tasks"
            )
        if not self.learners:
            raise UsageError(
                "no learner is named: add one, as in --learner bptt,anp; see: creditbench list learners"
            )
        if not self.cells:
            raise UsageError("no cell is named: add one, as in --cell gru; see: creditbench list cells")
        for name, least in {
            "hidden": 1,
            "layers": 1,
            "batch": 1,
            "segment": 1,
            "budget": 1,
            "evaluations": 1,
            "threads": 1,
        }.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= MOST:
                raise UsageError(f"{name} is {value:.40g}: give a whole number from {least} to {MOST:,}")
        if self.timeout is not None and not self.timeout > 0:
            raise UsageError(f"timeout is {self.timeout}: give a number above 0")
        if not self.seeds or min(self.seeds) < 0 or max(self.seeds) >= SEEDS:
            outside = [str(seed) for seed in self.seeds if not 0 <= seed < SEEDS]
            raise UsageError(
                f"seed is {', '.join(outside) or 'left out'}: give whole numbers from 0 to {SEEDS - 1}"
            )
        for backend in self.backends:
            if backend not in BACKENDS:
                raise unknown("backend", backend, BACKENDS, "creditbench list backends")
        for decorrelate in self.decorrelate:
            if decorrelate not in DECORRELATE:
                raise unknown("decorrelation", decorrelate, DECORRELATE, "creditbench run --help")


@dataclasses.dataclass(frozen=True)
class Grid:
    """Trials in the order of the run, and notes on what was left out and why."""

    trials: tuple[Trial, ...]
    notes: tuple[str, ...]
    #: Parameters of optimisers that are set, by the optimiser's name, whether or not a trial has it.
    optimizers: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    #: Fields of learners that are set, by the learner's id; `lr` among them is its learning rate.
    fixed: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)


def make_grid(options: Options) -> Grid:
    """The trials of `options`: tasks x cells x rules x backends x learning rates x seeds.

    The train split of every task is made once, so that bad data show before anything runs. Combinations that
    a learner does not support (a backend, a cell, a decorrelated cell) are left out with a note. Raises
    `UsageError` for settings that cannot run.
    """
    tasks = _by_id(resolve("tasks", item) for item in options.tasks)
    rules = list(_rules(options))
    learners = _by_id(plugin for plugin, _, _ in rules)
    cells = resolve_cells(options.cells)
    for plugin in cells.values():
        _require_leak(options, plugin)
    settings = by_owner(options.settings, tasks, learners, OPTIMIZERS, cells=cells)
    optimizers = {
        name: optimizer_parameters(name, settings[name])
        for name in OPTIMIZERS
        if name in settings and name not in {**tasks, **learners, **cells}
    }
    for name in options.data:
        if name not in tasks:
            require_in_grid(f"--data {name}={options.data[name]}", name, tasks)
            raise unknown("task in --data", name, tasks, "creditbench run --help")
    tuned, notes = read_tuned(options.tuned, tasks, learners, cells)
    untuned: dict[str, list[str]] = {}
    if options.decorrelation_rate is not None and all(how == "none" for _, how, _ in rules):
        notes.append(
            f"decorrelation_rate is {options.decorrelation_rate} and nothing is decorrelated: name anp+D, say"
        )
    trials: dict[str, Trial] = {}
    for task_plugin in tasks.values():
        own_settings, file = settings.get(task_plugin.id, {}), options.data.get(task_plugin.id)
        source = _Source(task_plugin, own_settings, file, options.timeout)
        for network, (plugin, decorrelate, explicit) in itertools.product(cells.values(), rules):
            if decorrelate != "none" and not plugin.cls.decorrelates:
                if explicit:
                    raise UsageError(
                        f"learner {plugin.id!r} does not go with a decorrelated cell: leave out its suffix"
                    )
                notes.append(f"{plugin.id} does not go with a decorrelated cell: {decorrelate} is left out")
                continue
            backends = [backend for backend in options.backends if backend in plugin.cls.backends]
            if not backends:
                raise UsageError(
                    f"learner {plugin.id!r} runs on {' and '.join(sorted(plugin.cls.backends))} alone, "
                    f"not on {', '.join(options.backends)}: choose its backend"
                )
            notes += [
                f"{plugin.id} does not run on {backend}: left out"
                for backend in options.backends
                if backend not in backends
            ]
            rule = plugin.id + SUFFIXES[decorrelate]
            own = settings.get(network.id, {})
            values = constants(network, own) if tuned else {}
            defaults, studies = (
                [
                    study
                    for study in tuned.get(place, {}).get(rule, ())
                    if is_tuned_with(study, network, values)
                ]
                for place in ("default", task_plugin.id)
            )
            default = next(iter(defaults), {})
            given, rate = own_rate(plugin, settings.get(plugin.id, {}))
            try:
                made = [
                    (frozen, _trial_values(options, source, plugin, network, own, decorrelate, given, frozen))
                    for frozen in ({**default, **study} for study in studies or [{}])
                ]
            except _UnfitError as error:
                said = f"{plugin.id} does not go with {network.id}: {error}"
                if len(learners) == len(cells) == 1:
                    raise UsageError(f"{said}; name another cell or learner") from None
                notes.append(f"{said}; it is left out")
                continue
            if options.tuned and not (defaults or studies):
                changed = [f"{name}={value}" for name, value in not_default(network, values).items()]
                name = with_cell(rule, " ".join([network.id, *changed]))
                untuned.setdefault(name, []).append(task_plugin.id)
            content = network.id if network.source == "builtin" else network.path.read_bytes()
            vocabulary = {
                backend: meaning.vocabulary(
                    plugin.path.read_bytes(), backend, decorrelate != "none", content, options.layers
                )
                for backend in backends
            }
            for number, (frozen, common) in enumerate(made):
                lrs = options.lrs or (common["lr"],)
                if rate is not None:
                    lrs = (rate,)
                shift = _shift(frozen.get("study"), number, len(options.seeds)) if options.seeds_apart else 0
                for backend, lr in itertools.product(backends, lrs):
                    require_finite("lr", lr)
                    make_optimizer(common["optimizer"], lr)
                    values = {"backend": backend, "lr": lr, "vocabulary_sha256": vocabulary[backend]}
                    values["optimizer_parameters"] = optimizers.get(common["optimizer"], {})
                    # The other seeds lie between these two.
                    ends = (seed(options.seeds) + shift for seed in (min, max))
                    _, like = (_trial(**common | values | {"seed": end}) for end in ends)
                    for seed in options.seeds:
                        trial = like.model_copy(update={"seed": seed + shift})
                        trials.setdefault(trial.id, trial)
        notes += source.notes
    notes += [
        f"{options.tuned} has nothing for {rule} on {', '.join(names)}: its defaults are run; see: "
        "creditbench tune"
        for rule, names in untuned.items()
    ]
    if not trials:
        raise UsageError(f"nothing is left to run: {'; '.join(dict.fromkeys(notes))}")
    fixed = {name: settings[name] for name in learners if name in settings}
    return Grid(tuple(trials.values()), tuple(dict.fromkeys(notes)), optimizers, fixed)


class _UnfitError(Exception):
    """A rule does not go with a cell; the message says why."""


def _require_leak(options: Options, cell: Plugin) -> None:
    """Raise `UsageError` if a leak is asked for that the cell has not."""
    if options.alpha not in (None, 1.0) and not cell.cls.leaky:
        raise UsageError(
            f"alpha is {options.alpha} and the cell {cell.id} has no leak: leave --alpha out, or name a cell "
            "with one, as in --cell tanh"
        )


def _trial(**values: Any) -> Trial:
    """The trial of these settings. Raises `UsageError` for values that no record could hold."""
    try:
        return Trial(**values)
    except ValidationError as error:
        raise UsageError(
            f"{values['learner']} on {values['task']} cannot be run ({reason(error)}): give another value"
        ) from None


def _by_id(plugins: Iterable[Plugin]) -> dict[str, Plugin]:
    """The plug-ins by id. Raises `UsageError` if two files have the same id."""
    found: dict[str, Plugin] = {}
    for plugin in plugins:
        other = found.setdefault(plugin.id, plugin)
        if other.path != plugin.path:
            raise UsageError(
                f"the id {plugin.id!r} of {plugin.path} is that of {other.path} too: give each an id of its "
                "own"
            )
    return found


def make_task(item: str, settings: Mapping[str, Any], data: Mapping[str, str]) -> Task:
    """The task of an id or a path; `settings` and `data` as in `Options`. Raises `UsageError`."""
    plugin = resolve("tasks", item)
    for name in data:
        if name != plugin.id:
            raise unknown("task in --data", name, [plugin.id], "creditbench show task --help")
    own = by_owner(settings, {plugin.id: plugin}, {}, grid=False).get(plugin.id, {})
    return _Source(plugin, own, data.get(plugin.id)).task


def _rules(options: Options) -> Iterable[tuple[Plugin, Decorrelate, bool]]:
    """(learner, decorrelation, whether a suffix asked for it)."""
    for item in options.learners:
        name, decorrelate = split_rule(item)
        plugin = resolve("learners", name)
        if decorrelate != "none":
            yield plugin, decorrelate, True
        else:
            for each in options.decorrelate:
                yield plugin, typing.cast(Decorrelate, each), False


def resolve_cells(items: Iterable[str]) -> dict[str, Plugin]:
    """The cells of ids or paths, by id. Raises `UsageError`."""
    return _by_id(resolve("cells", item) for item in items)


def resolve_learners(
    items: Iterable[str], settings: Mapping[str, Any], cells: Mapping[str, Plugin] | None = None
) -> dict[str, tuple[Plugin, dict[str, Any]]]:
    """item -> (learner, its hyper-parameters after `settings`). An item is an id or a path.

    `cells`: the owners of other settings; None where there is no choice of cells.
    """
    found = {item: resolve("learners", item) for item in items}
    own = by_owner(settings, {}, _by_id(found.values()), cells=cells)
    resolved = {}
    for item, plugin in found.items():
        given, rate = own_rate(plugin, own.get(plugin.id, {}))
        if rate is not None:
            raise UsageError(f"{plugin.id}.lr is set, and nothing is trained here: leave it out")
        resolved[item] = plugin, fields_of(plugin, make(plugin, given))
    return resolved


def is_path(item: str) -> bool:
    """Whether a task, learner or cell is named by a path, which ends in .py or contains a separator."""
    return item.endswith(".py") or os.sep in item


def resolve(kind: Kind, item: str) -> Plugin:
    """The plug-in of an id or a path. Raises `UsageError`."""
    if not is_path(item):
        return registry.find(kind, item)
    path = Path(item).expanduser().resolve()
    known = {plugin.path: plugin for plugin in registry.load(kind).values()}
    if path in known:
        return known[path]
    return next(plugin for plugin in registry.load(kind, [path]).values() if plugin.path == path)


class _Source:
    """A task with its parameters, and its train split."""

    def __init__(
        self, plugin: Plugin, settings: Mapping[str, Any], data: str | None, timeout: float | None = None
    ) -> None:
        self.plugin, self.seconds = plugin, DATA_SECONDS if timeout is None else timeout
        if "data" in settings and plugin.cls.reads_data:
            raise UsageError(f"{plugin.id}.data is set: name the file as --data {plugin.id}=PATH")
        if data is not None:
            if not plugin.cls.reads_data:
                raise UsageError(f"task {plugin.id!r} reads no data: leave out --data {plugin.id}=...")
            # Workers and later runs may start in other folders.
            settings = {**settings, "data": absolute(data)}
        self.data = data
        self._seen = Seen()
        self._sha256: str | None = None
        with self._in_time("be made"), noting(self._seen):
            self.task: Task = make(plugin, settings)
        self._trains: dict[int, Sequences] = {}

    @property
    def notes(self) -> list[str]:
        """Remarks on the data that were read."""
        return self._seen.notes

    def train(self, batch: int, seed: int) -> Sequences:
        """The train split for `batch` rows. Raises `UsageError` if the task cannot make it."""
        if batch not in self._trains:
            self._trains[batch] = self._generate("train", seed, batch)
        return self._trains[batch]

    def _generate(self, split: Split, seed: int, batch: int) -> Sequences:
        try:
            with self._in_time(f"make its {split} split"), noting(self._seen):
                return self.task.generate(split, seed, batch)
        except UsageError:
            raise
        except ModuleNotFoundError as error:
            raise not_installed(f"task {self.plugin.id!r}", (error.name or "").partition(".")[0]) from None
        except Exception as error:
            raise UsageError(
                f"task {self.plugin.id!r} cannot make its {split} split ({type(error).__name__}: {error}): "
                f"mend {self.plugin.path}"
            ) from error

    @contextlib.contextmanager
    def _in_time(self, what: str) -> Iterator[None]:
        """End a task that takes longer than a trial may: it would hang in the trial too."""
        late = (
            f"task {self.plugin.id!r} did not {what} within {self.seconds:g} s: "
            f"mend {self.plugin.path}, or give it longer with --timeout"
        )
        try:
            # A timer cannot take years. A shipped task does not hang in code in C.
            with deadline(min(self.seconds, 1e8), None if self.plugin.source == "builtin" else late):
                yield
        except TooLongError:
            raise UsageError(late) from None

    def data_sha256(self, batch: int, seed: int) -> str | None:
        """The sha256 of the user's file. A hub data set has no file: that of the values in all its splits."""
        if self.data is None:
            return None
        if self.data.startswith("hf:"):
            if self._sha256 is None:
                for split in typing.get_args(Split):
                    if split != "train" or not self._trains:
                        self._generate(split, seed, batch)
                self._sha256 = hashlib.sha256(" ".join(sorted(self._seen.sha256)).encode()).hexdigest()
            return self._sha256
        try:
            return hashlib.sha256(files.read(Path(self.data).expanduser())).hexdigest()
        except (OSError, files.NotAFileError) as error:
            raise UsageError(
                f"data file '{self.data}' cannot be read ({reason(error)}): name another"
            ) from None


def _trial_values(
    options: Options,
    source: _Source,
    plugin: Plugin,
    network: Plugin,
    parameters: Mapping[str, Any],
    decorrelate: Decorrelate,
    settings: Mapping[str, Any],
    frozen: Mapping[str, Any],
) -> dict[str, Any]:
    """The fields of a trial, except backend and seed.

    `network`: the cell, with the settings `parameters`. `settings`: of the learner. `frozen`: the trial's
    settings in the tuned file. Raises `_UnfitError` if the rule does not go with the cell.
    """
    task, task_class = source.task, type(source.task)
    rule = plugin.id + SUFFIXES[decorrelate]
    hyperparameters = {name: value for name, value in frozen.items() if name not in (*TUNABLE, *STUDY)}
    learner: Learner = make(plugin, hyperparameters | dict(settings))

    def choose(option: Any, name: str, default: Any) -> Any:
        if option is not None:
            return option
        return (
            convert(f"{rule}.{name} in {options.tuned}", frozen[name], type(default))
            if name in frozen
            else default
        )

    batch = choose(options.batch, "batch", task_class.batch)
    rate = choose(options.decorrelation_rate, "decorrelation_rate", DECORRELATION_RATE)
    for name, value in (("batch", batch), ("decorrelation_rate", rate)):
        if not (value > 0 and math.isfinite(value)):
            raise UsageError(f"{name} is {value}: give a number above 0")
    seed = options.seeds[0]
    train = source.train(batch, seed)
    steps = train.inputs.shape[0]
    if task_class.protocol == "episodes":
        if options.segment not in (None, steps):
            raise UsageError(
                f"segment is {options.segment}: {task_class.id} has episodes of {steps} steps, and one is a "
                "segment; leave out --segment"
            )
        segment = steps
    else:
        segment = choose(options.segment, "segment", learner.stream_segment)
        if not 0 < segment <= steps:
            raise UsageError(
                f"segment is {segment}: a stream of {task_class.id} has {steps} steps; give 1 to {steps}"
            )
    budget, evaluations = _budget(options, task_class, segment)
    alpha = task_class.alpha if network.cls.leaky else 1.0
    cell = make_network(
        network.cls,
        inputs=train.inputs.shape[-1],
        hidden=options.hidden,
        layers=options.layers,
        outputs=train.targets.shape[-1],
        alpha=alpha if options.alpha is None else options.alpha,
        bias=options.bias,
        decorrelate=decorrelate,
        loss=task_class.loss,
        **converted(network, parameters),
    )
    if why := learner.fits(cell):
        raise _UnfitError(why)
    return {
        "task": task_class.id,
        "task_version": task_class.version,
        "task_sha256": source.plugin.sha256,
        "task_parameters": fields_of(source.plugin, task),
        "task_path": user_path(source.plugin),
        "data_sha256": source.data_sha256(batch, seed),
        "learner": plugin.id,
        "learner_sha256": plugin.sha256,
        "learner_path": user_path(plugin),
        "hyperparameters": fields_of(plugin, learner),
        "cell": network.id,
        "cell_parameters": fields_of(network, cell.layers[0]),
        "cell_sha256": None if network.source == "builtin" else network.sha256,
        "cell_path": user_path(network),
        "decorrelate": decorrelate,
        "decorrelation_rate": rate if decorrelate != "none" else 0.0,
        "device": options.device,
        "threads": options.threads,
        "measure": options.measure,
        "study": _text_or_none(f"{rule}.study in {options.tuned}", frozen.get("study")),
        "beat_trivial": choose(None, "beat_trivial", True) if "study" in frozen else None,
        "hidden": cell.hidden,
        "layers": options.layers,
        "batch": batch,
        "segment": segment,
        "alpha": cell.alpha,
        "bias": cell.bias,
        "protocol": task_class.protocol,
        "optimizer": choose(options.optimizer, "optimizer", plugin.cls.optimizer),
        "lr": choose(None, "lr", float(plugin.cls.lr)),
        "preset": options.preset if options.budget is None else "custom",
        "budget_steps": budget,
        "evaluations": evaluations,
    }


def _shift(study: Any, number: int, count: int) -> int:
    """The number added to `count` seeds so that no two studies or draws share a seed.

    So their results are independent. A study's number comes from its name, DRAW/STUDY. A study with another
    name has `number`, its place among the others.
    """
    if isinstance(study, str) and (parts := re.fullmatch(r"(\d{1,3})/(\d{1,2})", study)):
        return SEEDS_OF_A_DRAW * int(parts[1]) + count * int(parts[2])
    return number * count


def _text_or_none(name: str, value: Any) -> str | None:
    if value is None or (isinstance(value, str) and value):
        return value
    raise UsageError(f'{name} is {value!r}: give it as text, as in study = "0/1"')


def _budget(options: Options, task: type[Task], segment: int) -> tuple[int, int]:
    """(training time steps of one row, number of evaluations on the validation split)."""
    if options.preset not in task.budgets:
        raise UsageError(
            f"unknown preset {options.preset!r}: {suggestion(options.preset, task.budgets)}{task.id} has "
            f"{', '.join(task.budgets)}"
        )
    budget = task.budgets[options.preset] if options.budget is None else options.budget
    if budget < segment:
        raise UsageError(
            f"budget is {budget} steps: one segment of {task.id} has {segment}; give more or a shorter "
            "segment"
        )
    most = budget // segment
    if options.evaluations is None:
        return budget, min(most, EVALUATIONS.get(options.preset, EVALUATIONS["quick"]))
    if options.evaluations > most:
        raise UsageError(
            f"evaluations is {options.evaluations}: a budget of {budget} steps in segments of {segment} "
            f"has room for {most} on {task.id}"
        )
    return budget, options.evaluations


def user_path(plugin: Plugin) -> str | None:
    """The path of a plug-in that cannot be found by its id; None if it can."""
    return str(plugin.path) if plugin.source == str(plugin.path) else None
