"""From a user's options to fully resolved trials.

A setting is taken from the first of these that has it:

1. the options: `--lr`, `--segment`, `--set anp.sigma=1e-3`, ...
2. the tuned file's table `[TASK.RULE]`, or each of its tables `[[TASK.RULE]]`, one a study
3. the tuned file's table `[default.RULE]`
4. the task's own default (batch, alpha, budget) or the learner's (optimiser, lr, segment, hyper-parameters)

RULE is the name that tables show: `anp`, `"anp+D"`. Nothing here imports torch or jax.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
import math
import os
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from creditbench.cells import DECORRELATE, Cell, Decorrelate
from creditbench.data import Seen, absolute, noting
from creditbench.errors import UsageError, reason, unknown
from creditbench.learner import Learner
from creditbench.machine import files
from creditbench.ops import BACKENDS
from creditbench.optimizers import make_optimizer
from creditbench.plugins import registry
from creditbench.plugins.importing import Kind, Plugin, TooLongError, deadline
from creditbench.task import Sequences, Split, Task
from creditbench.trials.trial import SUFFIXES, Trial, split_rule

#: Preset -> how often the validation split is looked at, evenly over the budget.
EVALUATIONS = {"smoke": 2, "quick": 10, "full": 50}
DECORRELATION_RATE = 1e-3
#: Every seed is below: under JAX a greater one would have the key of one that is.
SEEDS = 2**32
#: That a task may take to make a split, where nobody says how many.
DATA_SECONDS = 3600.0
#: No grid is as large in any of its sizes.
MOST = 10**12
#: What a table of the tuned file may hold beside hyper-parameters: settings, and where they are from.
_TUNABLE = ("lr", "optimizer", "segment", "batch", "decorrelation_rate")
_STUDY = ("study", "beat_trivial")
Tuned = Mapping[
    str, Mapping[str, Sequence[Mapping[str, Any]]]
]  #: task or "default" -> rule -> a table a study


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What a user asks for. None: as the tuned file, the task or the learner has it."""

    tasks: tuple[str, ...]  #: ids, or paths of Python files
    learners: tuple[str, ...]  #: ids or paths, with the suffix +D or +DD for a decorrelated cell
    decorrelate: tuple[str, ...] = ("none",)  #: multiplies the learners that have no suffix
    backends: tuple[str, ...] = ("jax",)
    device: str = "cpu"
    seeds: tuple[int, ...] = (0,)
    seeds_apart: bool = False  #: whether each study of the tuned file has as many seeds of its own
    hidden: int = 128
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
    settings: Mapping[str, Any] = dataclasses.field(
        default_factory=dict
    )  #: "anp.sigma" -> value, or its text
    data: Mapping[str, str] = dataclasses.field(default_factory=dict)  #: task -> a user's file
    tuned: str | None = None  #: path of a TOML file
    threads: int = 1
    measure: bool = False  #: take the cost of an update beside the training
    timeout: float | None = None  #: seconds that a task may take to make a split; None for an hour

    def __post_init__(self) -> None:
        if not self.tasks:
            raise UsageError(
                "no task is named: add one, as in --task mackey_glass; see: creditbench list tasks"
            )
        if not self.learners:
            raise UsageError(
                "no learner is named: add one, as in --learner bptt,anp; see: creditbench list learners"
            )
        for name, least in {
            "hidden": 1,
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
    """Trials in the order in which they are to run, and what was left out of them and why."""

    trials: tuple[Trial, ...]
    notes: tuple[str, ...]


def make_grid(options: Options) -> Grid:
    """The trials that `options` ask for: tasks x rules x backends x learning rates x seeds.

    The train split of every task is made once, so that bad data are found before anything runs. Combinations that
    a learner rules out (a backend, a decorrelated cell) are left out with a note. Raises `UsageError` for anything
    that cannot be run.
    """
    tasks = _by_id(_resolve("tasks", item) for item in options.tasks)
    rules = list(_rules(options))
    learners = _by_id(plugin for plugin, _, _ in rules)
    settings = _settings(options.settings, tasks, learners)
    for name in options.data:
        if name not in tasks:
            raise unknown("task in --data", name, tasks, "creditbench run --help")
    tuned, notes = _read_tuned(options.tuned, tasks, learners)
    untuned: dict[str, list[str]] = {}
    if options.decorrelation_rate is not None and all(how == "none" for _, how, _ in rules):
        notes.append(
            f"decorrelation_rate is {options.decorrelation_rate} and nothing is decorrelated: name anp+D, say"
        )
    trials: dict[str, Trial] = {}
    for task_plugin in tasks.values():
        own_settings, file = settings.get(task_plugin.id, {}), options.data.get(task_plugin.id)
        source = _Source(task_plugin, own_settings, file, options.timeout)
        for plugin, decorrelate, explicit in rules:
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
            if options.tuned and not any(rule in tuned.get(name, {}) for name in ("default", task_plugin.id)):
                untuned.setdefault(rule, []).append(task_plugin.id)
            default = next(iter(tuned.get("default", {}).get(rule, ())), {})
            studies = tuned.get(task_plugin.id, {}).get(rule, ({},))
            for number, own in enumerate(studies):
                frozen = {**default, **own}
                common = _trial_values(
                    options, source, plugin, decorrelate, settings.get(plugin.id, {}), frozen
                )
                lrs = options.lrs or (common.pop("lr"),)
                shift = number * len(options.seeds) if options.seeds_apart else 0
                for backend, lr, seed in itertools.product(backends, lrs, options.seeds):
                    _finite("lr", lr)
                    make_optimizer(common["optimizer"], lr)
                    trial = _trial(**common | {"backend": backend, "lr": lr, "seed": seed + shift})
                    trials.setdefault(trial.id, trial)
        notes += source.notes
    notes += [
        f"{options.tuned} has nothing for {rule} on {', '.join(names)}: its defaults are run; see: creditbench tune"
        for rule, names in untuned.items()
    ]
    if not trials:
        raise UsageError(f"nothing is left to run: {'; '.join(dict.fromkeys(notes))}")
    return Grid(tuple(trials.values()), tuple(dict.fromkeys(notes)))


def _trial(**values: Any) -> Trial:
    """The trial of these settings. Raises `UsageError` for one that no record could hold."""
    try:
        return Trial(**values)
    except ValidationError as error:
        raise UsageError(
            f"{values['learner']} on {values['task']} cannot be run ({reason(error)}): give another value"
        ) from None


def _by_id(plugins: Iterable[Plugin]) -> dict[str, Plugin]:
    """The plug-ins by their ids. Raises `UsageError` where two files have the same one."""
    found: dict[str, Plugin] = {}
    for plugin in plugins:
        other = found.setdefault(plugin.id, plugin)
        if other.path != plugin.path:
            raise UsageError(
                f"the id {plugin.id!r} of {plugin.path} is that of {other.path} too: give each an id of its own"
            )
    return found


def make_task(item: str, settings: Mapping[str, Any], data: Mapping[str, str]) -> Task:
    """The task of an id or of a path; `settings` and `data` as in `Options`. Raises `UsageError`."""
    plugin = _resolve("tasks", item)
    for name in data:
        if name != plugin.id:
            raise unknown("task in --data", name, [plugin.id], "creditbench show task --help")
    own = _settings(settings, {plugin.id: plugin}, {}).get(plugin.id, {})
    return _Source(plugin, own, data.get(plugin.id)).task


def _rules(options: Options) -> Iterable[tuple[Plugin, Decorrelate, bool]]:
    """(learner, decorrelation, whether a suffix asked for it)."""
    for item in options.learners:
        name, decorrelate = split_rule(item)
        plugin = _resolve("learners", name)
        if decorrelate != "none":
            yield plugin, decorrelate, True
        else:
            for each in options.decorrelate:
                yield plugin, typing.cast(Decorrelate, each), False


def resolve_learners(
    items: Iterable[str], settings: Mapping[str, Any]
) -> dict[str, tuple[Plugin, dict[str, Any]]]:
    """The learner of each item, an id or a path, and its hyper-parameters with `settings` put in, as in `Options`."""
    found = {item: _resolve("learners", item) for item in items}
    own = _settings(settings, {}, _by_id(found.values()))
    return {
        item: (plugin, _fields(plugin, _make(plugin, own.get(plugin.id, {}))))
        for item, plugin in found.items()
    }


def _resolve(kind: Kind, item: str) -> Plugin:
    """The plug-in of an id or of a path; a path ends in .py or has a separator in it."""
    if not (item.endswith(".py") or os.sep in item):
        return registry.find(kind, item)
    path = Path(item).expanduser().resolve()
    known = {plugin.path: plugin for plugin in registry.load(kind).values()}
    if path in known:
        return known[path]
    return next(plugin for plugin in registry.load(kind, [path]).values() if plugin.path == path)


class _Source:
    """A task with its parameters, and what its train split is like."""

    def __init__(
        self, plugin: Plugin, settings: Mapping[str, Any], data: str | None, timeout: float | None = None
    ) -> None:
        self.plugin, self.seconds = plugin, DATA_SECONDS if timeout is None else timeout
        if "data" in settings and plugin.cls.reads_data:
            raise UsageError(f"{plugin.id}.data is set: name the file as --data {plugin.id}=PATH")
        if data is not None:
            if not plugin.cls.reads_data:
                raise UsageError(f"task {plugin.id!r} reads no data: leave out --data {plugin.id}=...")
            # Workers, and later runs, must find the file wherever they start.
            settings = {
                **settings,
                "data": absolute(data),
            }
        self.data = data
        self._seen = Seen()
        self._sha256: str | None = None
        with self._in_time("be made"), noting(self._seen):
            self.task: Task = _make(plugin, settings)
        self._trains: dict[int, Sequences] = {}

    @property
    def notes(self) -> list[str]:
        """What is to be told of the data that were read."""
        return self._seen.notes

    def train(self, batch: int, seed: int) -> Sequences:
        """The train split for that many rows. Raises `UsageError` where the task cannot make it."""
        if batch not in self._trains:
            self._trains[batch] = self._generate("train", seed, batch)
        return self._trains[batch]

    def _generate(self, split: Split, seed: int, batch: int) -> Sequences:
        try:
            with self._in_time(f"make its {split} split"), noting(self._seen):
                return self.task.generate(split, seed, batch)
        except UsageError:
            raise
        except Exception as error:
            raise UsageError(
                f"task {self.plugin.id!r} cannot make its {split} split ({type(error).__name__}: {error}): "
                f"mend {self.plugin.path}"
            ) from error

    @contextlib.contextmanager
    def _in_time(self, what: str) -> Iterator[None]:
        """End what a task does here that takes longer than a trial may: it would hang in the trial alike."""
        try:
            with deadline(min(self.seconds, 1e8)):  # of years, which a timer cannot take
                yield
        except TooLongError:
            raise UsageError(
                f"task {self.plugin.id!r} did not {what} within {self.seconds:g} s: "
                f"mend {self.plugin.path}, or give it longer with --timeout"
            ) from None

    def data_sha256(self, batch: int, seed: int) -> str | None:
        """Of the user's file; of a hub data set, which has no file, of the values that all splits are made of."""
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
    decorrelate: Decorrelate,
    settings: Mapping[str, Any],
    frozen: Mapping[str, Any],
) -> dict[str, Any]:
    """The fields of a trial, less backend and seed. `frozen`: what the tuned file has for it."""
    task, task_class = source.task, type(source.task)
    rule = plugin.id + SUFFIXES[decorrelate]
    hyperparameters = {name: value for name, value in frozen.items() if name not in (*_TUNABLE, *_STUDY)}
    learner: Learner = _make(plugin, hyperparameters | dict(settings))

    def choose(option: Any, name: str, default: Any) -> Any:
        if option is not None:
            return option
        return (
            _convert(f"{rule}.{name} in {options.tuned}", frozen[name], type(default))
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
                f"segment is {options.segment}: {task_class.id} has episodes of {steps} steps, and one is a segment; "
                "leave out --segment"
            )
        segment = steps
    else:
        segment = choose(options.segment, "segment", learner.stream_segment)
        if not 0 < segment <= steps:
            raise UsageError(
                f"segment is {segment}: a stream of {task_class.id} has {steps} steps; give 1 to {steps}"
            )
    budget, evaluations = _budget(options, task_class, segment)
    cell = Cell(  # for its checks alone
        train.inputs.shape[-1],
        options.hidden,
        train.targets.shape[-1],
        task_class.alpha if options.alpha is None else options.alpha,
        options.bias,
        decorrelate,
        task_class.loss,
    )
    return {
        "task": task_class.id,
        "task_version": task_class.version,
        "task_sha256": source.plugin.sha256,
        "task_parameters": _fields(source.plugin, task),
        "task_path": user_path(source.plugin),
        "data_sha256": source.data_sha256(batch, seed),
        "learner": plugin.id,
        "learner_sha256": plugin.sha256,
        "learner_path": user_path(plugin),
        "hyperparameters": _fields(plugin, learner),
        "decorrelate": decorrelate,
        "decorrelation_rate": rate if decorrelate != "none" else 0.0,
        "device": options.device,
        "threads": options.threads,
        "measure": options.measure,
        "study": _text_or_none(f"{rule}.study in {options.tuned}", frozen.get("study")),
        "beat_trivial": choose(None, "beat_trivial", True) if "study" in frozen else None,
        "hidden": cell.hidden,
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


def _text_or_none(name: str, value: Any) -> str | None:
    if value is None or (isinstance(value, str) and value):
        return value
    raise UsageError(f'{name} is {value!r}: give it as text, as in study = "0/1"')


def _budget(options: Options, task: type[Task], segment: int) -> tuple[int, int]:
    """(training time steps of one row, how often the validation split is looked at)."""
    if options.preset not in task.budgets:
        raise unknown(f"preset of {task.id}", options.preset, task.budgets, "creditbench list tasks")
    budget = task.budgets[options.preset] if options.budget is None else options.budget
    if budget < segment:
        raise UsageError(
            f"budget is {budget} steps: one segment of {task.id} has {segment}; give more or a shorter segment"
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
    """Where the file of a plug-in lies that is not found by its id alone."""
    return str(plugin.path) if plugin.source == str(plugin.path) else None


# -- parameters ------------------------------------------------------------------------------------------


def _make(plugin: Plugin, settings: Mapping[str, Any]) -> Any:
    """The task or learner with those fields set. Raises `UsageError` for an unknown field or a bad value."""
    what = "parameter" if plugin.kind == "tasks" else "hyper-parameter"
    fields = {field.name: field for field in dataclasses.fields(plugin.cls)}
    hints = typing.get_type_hints(plugin.cls)
    values = {}
    for name, value in settings.items():
        if name not in fields:
            if not fields:
                raise UsageError(f"unknown {what} {plugin.id}.{name}: {plugin.id} has none")
            raise unknown(f"{what} of {plugin.id}", name, fields, f"creditbench list {plugin.kind} --json")
        values[name] = _convert(f"{plugin.id}.{name}", value, hints[name])
    try:
        return plugin.cls(**values)
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(
            f"{plugin.cls.__name__} in {plugin.path} cannot be made: {type(error).__name__}: {error}"
        ) from error


def _fields(plugin: Plugin, instance: Any) -> dict[str, Any]:
    """The fields of a task or learner as plain values, those of a float field as floats."""
    hints = typing.get_type_hints(plugin.cls)
    values = dataclasses.asdict(instance)
    try:
        plain = json.loads(json.dumps(values, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"a field of {plugin.cls.__name__} in {plugin.path} has no JSON form: {error}"
        ) from None
    return {
        name: float(v) if hints.get(name) is float and isinstance(v, int) else v for name, v in plain.items()
    }


def _convert(name: str, value: Any, kind: Any) -> Any:
    """`value`, or what its text stands for, as `kind`; raises `UsageError` where it is none."""
    candidates = [value]
    if isinstance(value, list):
        candidates.append(tuple(value))
    elif isinstance(value, str):
        literals = {"true": True, "false": False, "none": None}
        if value.lower() in literals:
            candidates.insert(0, literals[value.lower()])
        with contextlib.suppress(ValueError, OverflowError):
            number = float(value)
            candidates.insert(0, int(number) if number.is_integer() and abs(number) < 2**53 else number)
    adapter = TypeAdapter(kind, config=ConfigDict(strict=True))
    for candidate in candidates:
        try:
            converted = adapter.validate_python(candidate)
        except ValidationError:
            continue
        if isinstance(converted, float):
            _finite(name, converted)
        return converted
    wanted = (
        getattr(kind, "__name__", str(kind)) if isinstance(kind, type) else str(kind).replace("typing.", "")
    )
    raise UsageError(f"{name} is {value!r}: give a value of the type {wanted}")


def _finite(name: str, value: float) -> None:
    if not math.isfinite(value):
        raise UsageError(f"{name} is {value}: give a finite number")


def _settings(
    given: Mapping[str, Any], tasks: Mapping[str, Plugin], learners: Mapping[str, Plugin]
) -> dict[str, dict[str, Any]]:
    """`{"anp.sigma": "1e-3"}` as `{"anp": {"sigma": "1e-3"}}`; each must name a task or learner of the run."""
    settings: dict[str, dict[str, Any]] = {}
    for name, value in given.items():
        owner, dot, field = name.partition(".")
        if not (dot and owner and field):
            raise UsageError(f"setting {name!r} names no field: write it as --set anp.sigma=1e-3")
        if owner not in {**tasks, **learners}:
            raise unknown("task or learner in --set", owner, [*tasks, *learners], "creditbench run --help")
        settings.setdefault(owner, {})[field] = value
    return settings


def _read_tuned(
    path: str | None, tasks: Mapping[str, Plugin], learners: Mapping[str, Plugin]
) -> tuple[Tuned, list[str]]:
    """The tables of a tuned file, a list for each task and rule; and notes on tables that nothing is known of.

    A file may hold more than a run needs, so a task or rule that this run does not have is no error.
    """
    if path is None:
        return {}, []
    tuned = read_studies(path)
    notes = []
    known_tasks = {"default", *tasks, *registry.load("tasks")}
    known_learners = {*learners, *registry.load("learners")}
    for task, rules in tuned.items():
        if task not in known_tasks:
            notes.append(f"{path}: {unknown('task', task, known_tasks, 'creditbench list tasks')}")
        for rule, studies in rules.items():
            name, _ = split_rule(rule)
            if name not in known_learners:
                notes.append(
                    f"{path}: {unknown('learner', name, known_learners, 'creditbench list learners')}"
                )
            if name in learners:
                fields = (field.name for field in dataclasses.fields(learners[name].cls))
                names = [*_TUNABLE, *_STUDY, *fields]
                for key in (key for study in studies for key in study):
                    if key not in names:
                        raise unknown(
                            f"key in [{task}.{rule}] of {path}",
                            key,
                            names,
                            "creditbench list learners --json",
                        )
    return tuned, notes


def read_studies(path: str | os.PathLike[str]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """The tables of a tuned file: task or "default" -> rule -> a table a study. Raises `UsageError`."""
    tuned: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for task, rules in read_toml(path).items():
        if not isinstance(rules, dict):
            raise UsageError(
                f"{path}: {task!r} is no table of tables: write [{task}.RULE] and then lr = 0.01"
            )
        for rule, values in rules.items():
            studies = values if isinstance(values, list) else [values]
            if not studies or not all(isinstance(study, dict) for study in studies):
                raise UsageError(
                    f"{path}: {task}.{rule} is no table: write [{task}.{rule}], or [[{task}.{rule}]] for each study, "
                    "and then lr = 0.01"
                )
            tuned.setdefault(task, {})[rule] = studies
    return tuned


def read_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The tables of a TOML file. Raises `UsageError` where it cannot be read."""
    try:
        return files.parse_toml(files.read(Path(path).expanduser(), files.MOST_TEXT))
    except (OSError, files.NotAFileError) as error:
        raise UsageError(f"file '{path}' cannot be read ({reason(error)}): check the path") from None
    except ValueError as error:
        raise UsageError(f"file '{path}' is not TOML ({reason(error)}): mend it") from None
