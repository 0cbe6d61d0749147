"""Hidden versions of a task, drawn from a secret: other parameters, and channels in another order and sign.

A rule that knows how to learn does as well on them as on the public task. One that knows the public task,
because it carries finished weights or the generator, does not.

*Channels.* Inputs and outputs are permuted, and their signs flipped: those of outputs where the loss is the
squared error. The first weights of a cell are as likely with either sign and in any order. So the results of
an honest rule have the same distribution on the hidden task as on the public one.

*Parameters.* Numbers among the parameters of a task that makes its data are changed by at most a quarter,
where the scores of the trivial predictor and of a solved task stay within a tenth of the scale between them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from pprint import pformat
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from creditbench.errors import UsageError
from creditbench.plugins.importing import Plugin, load_path
from creditbench.task import Sequences, Split, Task

#: The most by which a parameter is changed, as a part of it.
SPAN = 0.25
#: The most by which the trivial and the solved score may change, in parts of the scale between them.
CLOSE = 0.1
_TRIES = 40
#: Ends of names of parameters that say how much data there is, and not which.
_AMOUNTS = ("steps", "sequences", "warmup", "washout")
_COPIED = ("citation", "version", "protocol", "loss", "metric", "metric_direction", "trivial", "solved")


class Hidden(NamedTuple):
    """A draw. Channels are numbered from 1; a negative number is a channel with the other sign."""

    parameters: dict[str, Any]  #: all fields of the task
    changed: tuple[str, ...]  #: the fields that are not those of the public task
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def generator(secret: str, *place: object) -> np.random.Generator:
    """The random generator of a secret at that place. No draw tells anything of the secret."""
    text = "\0".join(map(str, (secret, *place)))
    return np.random.default_rng(np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint32))


def draw(task: Task, secret: str, generated: bool = True) -> Hidden:
    """The hidden version of `task` that belongs to `secret`. `generated`: it makes its data itself."""
    rng = generator(secret, "task", task.id)
    fields = {field.name: getattr(task, field.name) for field in dataclasses.fields(task)}
    tries = range(_TRIES if generated else 0)
    parameters = next((found for _ in tries if (found := _candidate(task, fields, rng))), fields)
    _, _, inputs, outputs = task.sizes()
    while True:
        channels = _channels(inputs, True, rng), _channels(outputs, task.loss == "mse", rng)
        usual = all([abs(n) for n in own] == sorted(abs(n) for n in own) for own in channels)
        # Not the public task, nor that with all signs the other way: networks without biases are odd.
        if not usual or len({n > 0 for own in channels for n in own}) > 1:
            break
    changed = tuple(name for name, value in parameters.items() if value != fields[name])
    return Hidden(parameters, changed, *channels)


def _channels(count: int, signed: bool, rng: np.random.Generator) -> tuple[int, ...]:
    signs = rng.choice((-1, 1), count) if signed else np.ones(count, int)
    return tuple(int(number) for number in signs * (rng.permutation(count) + 1))


def _candidate(task: Task, own: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any] | None:
    """Parameters that are not those of `task`; None if the draw is of another size or difficulty."""
    numbers = [
        name
        for name, value in own.items()
        if type(value) in (int, float) and value and not name.endswith(_AMOUNTS)
    ]
    if not numbers:
        return None
    chosen = [name for name in numbers if rng.random() < 0.5] or [str(rng.choice(numbers))]
    found = dict(own)
    for name in chosen:
        factor = 1 + rng.uniform(-SPAN, SPAN)
        found[name] = own[name] * factor
        if type(own[name]) is int:
            found[name] = round(found[name])
            if found[name] == own[name]:
                found[name] += 1 if factor > 1 else -1
    try:
        other = type(task)(**found)
        if other.sizes()[2:] != task.sizes()[2:] or not _differs(task, other):
            return None
        near, scale = _scores(task), _scores(other)
    except (UsageError, ValueError, ArithmeticError):
        return None
    if near is None or scale is None:
        return None
    most = CLOSE * abs(near[1] - near[0])
    return found if all(abs(a - b) <= most for a, b in zip(near, scale, strict=True)) else None


def _differs(task: Task, other: Task) -> bool:
    """Whether other sequences are made, and not only more or longer ones of the same."""
    one, two = (each.generate("train", 0, each.batch) for each in (task, other))
    steps, rows = (min(a, b) for a, b in zip(one.inputs.shape[:2], two.inputs.shape[:2], strict=True))
    return not all(
        np.array_equal(a[:steps, :rows], b[:steps, :rows])
        for a, b in ((one.inputs, two.inputs), (one.targets, two.targets))
    )


def _scores(task: Task) -> tuple[float, float] | None:
    """The trivial and the solved score on a test split; None without a scale."""
    test = task.generate("test", 0, task.batch)
    trivial, solved = task.trivial_score(test), task.solved_score(test)
    return None if solved is None or not task.better(solved, trivial) else (trivial, solved)


# -- as a task -------------------------------------------------------------------------------------------


class Recoded(Task):
    """A task whose channels are those of another one, in another order and sign: `Hidden`."""

    source: ClassVar[str]  #: path of the other one's file
    parameters: ClassVar[dict[str, Any]]  #: its fields
    inputs: ClassVar[tuple[int, ...]]
    outputs: ClassVar[tuple[int, ...]]

    def generate(self, split: Split, seed: int, batch: int) -> Sequences:
        found = self._inner.generate(split, seed, batch)
        return found._replace(
            inputs=_recoded(found.inputs, self.inputs), targets=_recoded(found.targets, self.outputs)
        )

    def score(self, outputs: NDArray[np.float32], sequences: Sequences) -> float:
        return self._inner.score(_decoded(outputs, self.outputs), self._plain(sequences))

    def trivial_score(self, sequences: Sequences) -> float:
        return self._inner.trivial_score(self._plain(sequences))

    def solved_score(self, sequences: Sequences) -> float | None:
        return self._inner.solved_score(self._plain(sequences))

    def stretches(self, batch: int) -> int:
        return self._inner.stretches(batch)

    def _plain(self, sequences: Sequences) -> Sequences:
        return sequences._replace(
            inputs=_decoded(sequences.inputs, self.inputs), targets=_decoded(sequences.targets, self.outputs)
        )

    @property
    def _inner(self) -> Task:
        return _made(self.source, json.dumps(self.parameters))


@lru_cache(maxsize=64)
def _made(source: str, parameters: str) -> Task:
    task: Task = load_path("tasks", Path(source)).cls(**json.loads(parameters))
    return task


def _recoded(x: NDArray[np.float32], channels: tuple[int, ...]) -> NDArray[np.float32]:
    order = np.abs(channels) - 1
    return x[..., order] * np.sign(channels).astype(x.dtype)


def _decoded(x: NDArray[np.float32], channels: tuple[int, ...]) -> NDArray[np.float32]:
    found = np.empty_like(x)
    found[..., np.abs(channels) - 1] = x * np.sign(channels).astype(x.dtype)
    return found


def as_file(plugin: Plugin, task: Task, hidden: Hidden) -> str:
    """The source of a task that is the hidden version of `task`, which is that of `plugin`."""
    copied = {name: getattr(task, name) for name in (*_COPIED, "budgets", "batch", "alpha")}
    values = {"id": f"{task.id}_hidden", "name": f"{task.name}, hidden"} | copied
    values |= {"source": str(plugin.path), "parameters": hidden.parameters}
    values |= {"inputs": hidden.inputs, "outputs": hidden.outputs}
    lines = [f"    {name} = {pformat(value, width=90)}" for name, value in values.items()]
    return "\n".join(
        (
            f'"""A hidden version of {task.id}, made by creditbench verify: no rule may see it."""',
            "",
            "from dataclasses import dataclass",
            "",
            "from creditbench.check.hidden import Recoded",
            "",
            "",
            "@dataclass(frozen=True, kw_only=True)",
            "class HiddenTask(Recoded):",
            *lines,
            "",
        )
    )
