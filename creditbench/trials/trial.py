"""One trial: all settings that can change its numbers, as a frozen value with a hash."""

from __future__ import annotations

import hashlib
import json
import marshal
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from creditbench.machine.files import require_plain
from creditbench.machine.frameworks import FRAMEWORKS

if TYPE_CHECKING:
    # Not at run time: a process that forks has to import this module without NumPy.
    from creditbench.cells import Decorrelate

#: Goes up with every change of the harness that changes the numbers of a trial.
NUMERICS_VERSION = 3


#: The cell of trials that name none, and the fields that are left out of the hash of trials with it.
CELL = "tanh"
_CELL = ("cell", "cell_parameters", "cell_sha256")

#: Suffixes of the rule's name for a decorrelated cell.
SUFFIXES: dict[Decorrelate, str] = {"none": "", "hidden": "+D", "both": "+DD"}


def split_rule(rule: str) -> tuple[str, Decorrelate]:
    """The learner and the decorrelation of a rule's name.

    >>> split_rule("anp"), split_rule("anp+DD")
    (('anp', 'none'), ('anp', 'both'))
    """
    none: Decorrelate = "none"
    found = next((name for name, suffix in SUFFIXES.items() if suffix and rule.endswith(suffix)), none)
    return rule.removesuffix(SUFFIXES[found]), found


def with_cell(rule: str, cell: str) -> str:
    """A rule with its cell in words; the rule alone where the cell is the usual one.

    >>> with_cell("anp+D", "gru"), with_cell("anp", "tanh")
    ('anp+D with gru', 'anp')
    """
    return rule if cell == CELL else f"{rule} with {cell}"


#: Fields that change no number and are left out of a trial's hash.
_LABELS = ("task_path", "learner_path", "cell_path", "measure", "study", "beat_trivial")
#: What a trial keeps beside its fields once it is asked for; the first alone depends on the seed.
_CACHED = ("id", "family", "hashed")
#: Fields in which trials must agree to stand in one column, beside the parameters of task and cell.
_CONDITIONS = (
    *("cell", "task_version", "data_sha256", "budget_steps", "evaluations", "hidden", "layers", "batch"),
    *("alpha", "bias", "dtype", "numerics_version"),
)


def _require_backend(name: str) -> str:
    if name not in FRAMEWORKS:
        raise ValueError(f"no backend {name!r}: {', '.join(FRAMEWORKS)}")
    return name


#: Types that check the values in a file. Numbers are finite, and small enough in 64 bits that their sums and
#: means are finite too. Other values have a form in JSON.
Count = Annotated[int, Field(ge=0, lt=2**63)]
Size = Annotated[int, Field(ge=1, lt=2**63)]
Number = Annotated[float, Field(ge=-1e300, le=1e300, allow_inf_nan=False)]
Amount = Annotated[float, Field(ge=0, le=1e300, allow_inf_nan=False)]
Plain = Annotated[dict[str, Any], AfterValidator(require_plain)]
Backend = Annotated[str, AfterValidator(_require_backend)]
Name = Annotated[str, Field(pattern=r"\A[A-Za-z_][A-Za-z0-9_]*\z")]


class Trial(BaseModel):
    """(task, learner, hyper-parameters, cell, backend, device, sizes, seed, budget), fully resolved."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: Name  #: id of the task
    task_version: Count  #: goes up with every change of the task's numbers
    #: of the task's source without comments and docstrings, and of the data that it embeds
    task_sha256: str
    task_parameters: Plain  #: fields of the task
    data_sha256: str | None = None  #: of the user's data file
    learner: Name  #: id of the learner
    learner_sha256: str  #: of the learner's source, as of a task's; of all of an installed package
    hyperparameters: Plain  #: fields of the learner
    cell: Name = CELL  #: id of the cell
    cell_parameters: Plain = {}  #: fields of the cell's own
    cell_sha256: str | None = None  #: of the source of a cell that is not shipped
    decorrelate: Literal["none", "hidden", "both"]  #: both: the hidden units and the input
    decorrelation_rate: Number  #: learning rate of D; 0 without decorrelation
    backend: Backend  #: jax, torch
    device: str  #: cpu, cuda, gpu, tpu
    dtype: Literal["float32", "float64"] = "float32"  #: of all arrays
    threads: Size = 1  #: of the process that trains
    hidden: Size  #: n, units of each layer
    layers: Size = 1  #: of the network
    batch: Size  #: B, rows trained together
    segment: Size  #: K, steps between updates
    alpha: Number  #: leak of the cell, in (0, 1]; 1 is no leak
    bias: bool  #: whether the cell has biases
    protocol: Literal["stream", "episodes"]  #: one endless sequence a row, or whole sequences
    optimizer: str  #: sgd, momentum, adam
    #: Parameters of the optimiser that are not at their defaults.
    optimizer_parameters: Plain = {}
    lr: Number  #: learning rate
    seed: Count  #: of weights, data and draws
    preset: str  #: that named the budget
    budget_steps: Size  #: training time steps of one batch row
    evaluations: Size  #: on the validation split, evenly over the budget
    numerics_version: Count = NUMERICS_VERSION  #: of the harness, which goes up when it changes numbers
    #: sha256 of the code of this package that the learner runs through; None in older records
    vocabulary_sha256: str | None = None

    # They change no number and are not hashed.
    task_path: str | None = None  #: file of a task outside the shipped folders
    learner_path: str | None = None  #: of a learner
    cell_path: str | None = None  #: of a cell
    #: Whether the cost is measured after the training. It changes no number and is not hashed.
    measure: bool = False
    # The origin of the numbers. They are not hashed.
    study: str | None = None  #: of tuning, that chose the hyper-parameters, as "DRAW/STUDY"
    beat_trivial: bool | None = None  #: whether a point of that study beat the trivial score

    @cached_property
    def id(self) -> str:
        """Sixteen hexadecimal digits of the sha256 of all fields that can change the numbers."""
        before, after = self.hashed
        return _digest(f'{before}, "seed": {json.dumps(self.seed)}, {after}')

    @cached_property
    def family(self) -> str:
        """The id without the seed: equal for trials that differ only in the seed."""
        return _digest(", ".join(self.hashed))

    @cached_property
    def hashed(self) -> tuple[str, str]:
        """The JSON text whose sha256 is the id: what is before the seed, and what is after it."""
        left_out = {*_LABELS, *_CACHED, "seed"}
        if self.vocabulary_sha256 is None:
            left_out.add("vocabulary_sha256")
        if self.cell == CELL and not self.cell_parameters and self.cell_sha256 is None:
            left_out.update(_CELL)  # trials have the ids that they had before there were other cells
        if not self.optimizer_parameters:
            left_out.add("optimizer_parameters")
        if self.layers == 1:
            left_out.add("layers")
        values = {name: value for name, value in self.__dict__.items() if name not in left_out}
        if self.data_sha256 is not None:
            # The same file in another place is the same data.
            values["task_parameters"] = {k: v for k, v in self.task_parameters.items() if k != "data"}
        before, after = (
            json.dumps({k: v for k, v in values.items() if (k > "seed") == late}, sort_keys=True)
            for late in (False, True)
        )
        return before[:-1], after[1:]

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with those values. What is cached is kept where it holds: seeds of a family share a hash."""
        if update is not None and not deep and update.keys() == {"seed"}:
            return self._with_seed(update["seed"])
        copied = super().model_copy(update=update, deep=deep)
        for name in _CACHED if update else ():
            copied.__dict__.pop(name, None)
        return copied

    def _with_seed(self, seed: Any) -> Self:
        """As pydantic's copy, in a tenth of its time: grids and folders of results have many seeds."""
        self.family  # noqa: B018 - so that its copies have it
        copied = type(self).__new__(type(self))
        values = self.__dict__ | {"seed": seed}
        values.pop("id", None)
        object.__setattr__(copied, "__dict__", values)
        own = self.model_fields_set
        object.__setattr__(copied, "__pydantic_fields_set__", own if "seed" in own else own | {"seed"})
        for name in ("__pydantic_extra__", "__pydantic_private__"):
            object.__setattr__(copied, name, None)  # a trial has neither
        return copied

    @property
    def program(self) -> str:
        """The family's id without the numbers that a compiled program can take as arguments: `numbers`."""
        left_out = dict.fromkeys(self.numbers)
        own = self.hyperparameters | {name: None for name in left_out if name in self.hyperparameters}
        values = {"lr": 0.0, "decorrelation_rate": 0.0, "hyperparameters": own}
        return self.model_copy(update=values).family

    @property
    def rule(self) -> str:
        """The rule's name in tables: `anp`, or `anp+D` with decorrelation."""
        return self.learner + SUFFIXES[self.decorrelate]

    @property
    def numbers(self) -> dict[str, float]:
        """Learning rate, decorrelation rate and the float hyper-parameters, by name."""
        own = {name: value for name, value in self.hyperparameters.items() if isinstance(value, float)}
        return {"lr": self.lr, "decorrelation_rate": self.decorrelation_rate} | own

    @property
    def conditions(self) -> dict[str, Any]:
        """The settings of the comparison, not of a rule. Trials that differ in one are not compared.

        The choices of a rule or of tuning are left out (hyper-parameters, optimiser, rates, steps between
        updates), and so are seed, backend, device and names.
        """
        parameters = {f"{self.task}.{name}": value for name, value in self.task_parameters.items()}
        parameters |= {f"{self.cell}.{name}": value for name, value in self.cell_parameters.items()}
        if self.data_sha256 is not None:
            parameters.pop(f"{self.task}.data", None)
        return parameters | {name: getattr(self, name) for name in _CONDITIONS}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Families:
    """Trials that were read before: the next seed of a family shares all that does not depend on it.

    That is most of what a record takes in memory, and of the time that its trial takes to validate and hash.
    """

    def __init__(self) -> None:
        self.trials: dict[bytes, Trial] = {}

    def known(self, values: dict[str, Any]) -> Trial | dict[str, Any]:
        """The trial of these values if its family is known and it is one that could be; else the values."""
        seed, like = values.get("seed"), self.trials.get(self._key(values))
        if like is None or type(seed) is not int or not 0 <= seed < 2**63:
            return values
        return like.model_copy(update={"seed": seed})

    def keep(self, values: Any, trial: Trial) -> None:
        """Keep the trial that these values stand for."""
        self.trials.setdefault(self._key(values), trial)

    @staticmethod
    def _key(values: dict[str, Any]) -> bytes:
        """Equal for values that are equal in all but the seed, to the type and the bit."""
        return hashlib.sha256(marshal.dumps(values | {"seed": 0}, 2)).digest()


FAMILIES = Families()
