"""Options that several verbs share, each with one meaning, and functions that read their texts.

An option of a single verb is declared in that verb, and so is a default that differs between verbs.
"""

from __future__ import annotations

import contextlib
import glob
import math
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from creditbench.errors import UsageError, unknown
from creditbench.library import defaults

if TYPE_CHECKING:
    from creditbench.trials.shard import Shard

# -- what is run -----------------------------------------------------------------------------------------

_LEARNERS = "Learners: ids or paths of Python files, comma-separated"
#: Options whose value is a list with commas.
LISTS = (
    *("task", "learner", "cell", "decorrelate", "backend", "seed", "lr", "rule", "columns", "axis", "sizes"),
    *("quantity", "only", "parts", "log"),
)


def _ids(kind: Literal["tasks", "learners"]) -> Callable[[str], list[str]]:
    """What a shell completes: the ids of that kind, after the last comma."""

    def complete(incomplete: str) -> list[str]:
        from creditbench.machine.folders import shipped

        before, comma, last = incomplete.rpartition(",")
        # A shipped file has its id for a name: none is imported here.
        names = sorted(path.stem for path in shipped(kind).glob(f"{glob.escape(last)}*.py"))
        return [f"{before}{comma}{name}" for name in names]

    return complete


def complete_cells(incomplete: str) -> list[str]:
    """What a shell completes: the ids of cells, after the last comma."""
    from creditbench.cells import CELLS

    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in CELLS if name.startswith(last)]


complete_tasks, complete_learners = _ids("tasks"), _ids("learners")

Tasks = Annotated[
    str,
    typer.Option(help="Tasks: ids or paths of Python files, comma-separated.", autocompletion=complete_tasks),
]
Learners = Annotated[str, typer.Option(help=f"{_LEARNERS}.", autocompletion=complete_learners)]
#: Learners, each with or without the suffix of a decorrelated cell.
Rules = Annotated[
    str,
    typer.Option(
        help=f"{_LEARNERS}; the suffix +D decorrelates the hidden units, +DD the input too.",
        autocompletion=complete_learners,
    ),
]
Cells = Annotated[
    str,
    typer.Option(
        "--cell", help="Cells: ids or paths of Python files, comma-separated.", autocompletion=complete_cells
    ),
]
Backends = Annotated[str, typer.Option(help="jax, torch, or both with a comma between.")]
#: The same where all that are installed are meant if none is named.
InstalledBackends = Annotated[
    str,
    typer.Option(
        "--backend",
        help="jax, torch, or both with a comma between.  [default: those that are installed]",
        show_default=False,
    ),
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, gpu, tpu.")]
Preset = Annotated[str, typer.Option(help="Budget of each task: smoke, quick, full.")]
Budget = Annotated[int | None, typer.Option(help="Training time steps, in place of the preset's.")]
Evaluations = Annotated[int | None, typer.Option(help="Evaluations on validation.  [default: the preset's]")]
Hidden = Annotated[int, typer.Option(help="Hidden units of a layer.")]
Layers = Annotated[int, typer.Option(help="Layers of the cell, each of as many hidden units.")]
Bias = Annotated[bool, typer.Option("--bias", help="Give the cell biases.")]
Timeout = Annotated[float | None, typer.Option(help="Seconds that a trial may take.  [default: 3600]")]
Batch = Annotated[int | None, typer.Option(help="Rows trained together.  [default: the task's]")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="A field of a learner, task or cell, as in anp.sigma=1e-3 or adding.length=30. Repeatable.",
    ),
]
#: The same where rules are trained.
TrainingSettings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="A field of a learner, task or cell, as in anp.sigma=1e-3, adding.length=30 or lif.decay=0.9, "
        "or a learner's own learning rate, as in anp.lr=0.01. Repeatable.",
    ),
]
Data = Annotated[
    list[str] | None,
    typer.Option(
        help="Data of a task: weather=WTH.csv, or weather=hf:OWNER/NAME on the Hugging Face hub. Repeatable."
    ),
]

# -- sizes of a single update, for verbs that may sweep them ---------------------------------------------

StepsT = Annotated[int | None, typer.Option("--steps", help="Steps T of an update.  [default: 128]")]
HiddenN = Annotated[int | None, typer.Option("--hidden", help="Hidden units n.  [default: 128]")]
BatchB = Annotated[int | None, typer.Option("--batch", help="Sequences B of an update.  [default: 1]")]

# -- where it runs ---------------------------------------------------------------------------------------

Executor = Annotated[
    str,
    typer.Option(
        help="local: worker processes, and a confined one for a learner that is not shipped; dask: the same "
        "on the workers of a dask cluster; inline, for trials alone: this process, for debugging: code "
        "that it imports has all your rights."
    ),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        help="Address of a dask scheduler, as tcp://HOST:8786, or its scheduler file.  [default: a cluster "
        "on this machine]",
        show_default=False,
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        help="Processes at a time.  [default: cores / threads, on a GPU 1; for measurements and checks 1, "
        "since neighbours slow each other down]"
    ),
]
Threads = Annotated[int, typer.Option(help="Threads of a process.")]

ShardText = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Only a share, as 3/8: the third of eight runs that know nothing of each other and together are "
        "the whole.",
    ),
]

# -- results ---------------------------------------------------------------------------------------------

#: Folder of versions and of runs.
RESULTS = Path("results")
LOCAL = RESULTS / "local"
#: Folder of the trials of tuning, which are no results.
TUNING = RESULTS / "tuning"


def place(path: Path | None) -> Path | None:
    """The folder at that path; if there is none, that of this name in `results/`, as for v0.2."""
    if path is None or path.is_dir() or path.is_absolute() or not (RESULTS / path).is_dir():
        return path
    return RESULTS / path


def _places(paths: list[Path] | None) -> list[Path] | None:
    return None if paths is None else [place(path) or path for path in paths]


_BY_NAME = "or a name in results/, as v0.2"
#: Folders that are read.
Results = Annotated[
    list[Path] | None,
    typer.Option(
        callback=_places,
        help=f"Folder of records, or of a version's tables, {_BY_NAME}. Repeatable: for the same trial the "
        "later counts.  [default: the newest folder of runs in results/]",
        show_default=False,
    ),
]
#: A folder that records are written into.
Records = Annotated[
    Path, typer.Option("--results", callback=place, help=f"Folder of the records, {_BY_NAME}.")
]
Reuse = Annotated[
    list[Path] | None,
    typer.Option(
        callback=_places,
        help=f"Folder of records, or of a version's tables, {_BY_NAME}: its trials are not run again. "
        "Repeatable.",
    ),
]
ShownRules = Annotated[
    str,
    typer.Option(
        "--rule",
        help="Rules, comma-separated.  [default: all]",
        show_default=False,
        autocompletion=complete_learners,
    ),
]
ShownTasks = Annotated[
    str,
    typer.Option(
        "--task", help="Tasks, or columns of the table, likewise.  [default: all]", show_default=False
    ),
]
ShownBackends = Annotated[
    str, typer.Option("--backend", help="Backends, likewise.  [default: all]", show_default=False)
]
ShownCells = Annotated[
    str,
    typer.Option(
        "--cell",
        help="Cells, likewise.  [default: all; in a ranking that with most runs]",
        show_default=False,
        autocompletion=complete_cells,
    ),
]

# -- output ----------------------------------------------------------------------------------------------

Json = Annotated[bool, typer.Option("--json", help="One JSON array of objects on standard output.")]
PICTURE = "File to write; its suffix (png, pdf, svg) is the format."


def folders(results: Sequence[Path] | None) -> list[Path]:
    """The folders that are given, or the newest folder of runs in `results/`, with a note that says which."""
    if results:
        return list(results)
    written: dict[Path, float] = {}
    for records in RESULTS.glob("*/records"):
        with contextlib.suppress(OSError):
            written[records.parent] = records.stat().st_mtime
    written.pop(TUNING, None)
    newest = max(written, key=lambda folder: (written[folder], folder), default=LOCAL)
    if newest in written:
        print(f"results: {newest}, the newest folder of runs; --results names another", file=sys.stderr)
    return [newest]


def one_format(form: str, json: bool, known: Sequence[str], verb: str) -> str:
    """The format that `--format` and `--json` ask for. Raises `UsageError` if they ask for two."""
    if form not in known:
        raise unknown("format", form, known, f"creditbench {verb} --help")
    if json and form not in ("rich", "json"):
        raise UsageError(f"--format is {form} and --json is given: give one of them")
    return "json" if json else form


# -- texts -----------------------------------------------------------------------------------------------


def split(text: str) -> tuple[str, ...]:
    """The distinct names in a comma-separated text."""
    return defaults.names(text)


def names(option: str, text: str) -> list[str]:
    """As `split`. Raises `UsageError` if there is none."""
    found = list(split(text))
    if not found:
        raise UsageError(f"--{option} is left out: name one or more, with commas between")
    return found


def known_names(option: str, text: str, known: Collection[str], verb: str) -> list[str]:
    """As `names`. Also raises `UsageError` for an unknown name."""
    return defaults.known_names(option, split(text), known, verb)


def numbers(
    option: str, text: str, kind: type, example: str, low: float = -math.inf, high: float = math.inf
) -> tuple[Any, ...]:
    """The distinct numbers of that `kind` (int or float) in a comma-separated text. Raises `UsageError`."""
    return defaults.numbers(option, split(text), kind, example, low, high)


def backends(text: str, verb: str) -> list[str]:
    """The named backends, or those that are installed. Raises `UsageError` for an unknown one or none."""
    return defaults.backends(split(text), verb)


def pairs(option: str, items: Sequence[str] | None, example: str) -> dict[str, str]:
    """`name=value` items as a dict. Raises `UsageError` for an item of another form."""
    pairs = {}
    for item in items or ():
        name, equals, value = item.partition("=")
        if not (equals and name.strip() and value.strip()):
            raise UsageError(f"{option} is {item!r}: write it as {option} {example}")
        pairs[name.strip()] = value.strip()
    return pairs


def settings(items: Sequence[str] | None, example: str = "anp.sigma=1e-3") -> dict[str, str]:
    """The fields of `--set`. Raises `UsageError`."""
    return pairs("--set", items, example)


def data(items: Sequence[str] | None) -> dict[str, str]:
    """The files of `--data`. Raises `UsageError`."""
    return pairs("--data", items, "weather=WTH.csv")


def shard(text: str | None) -> Shard | None:
    """The share of `--shard`. Raises `UsageError`."""
    # Its module is not needed to answer --help.
    from creditbench.trials.shard import Shard

    return None if text is None else Shard.parse(text)


# -- a file of options -----------------------------------------------------------------------------------


def config_reader(others: Collection[str] = ()) -> Callable[[typer.Context, Path | None], Path | None]:
    """A callback of `--config`: the file's values are defaults, and the command line wins.

    `others`: options of other verbs that the file may have.
    """

    def read(context: typer.Context, path: Path | None) -> Path | None:
        if path is not None:
            context.default_map = {**(context.default_map or {}), **_read_config(context, path, others)}
        return path

    return read


def _read_config(context: typer.Context, path: Path, others: Collection[str]) -> dict[str, Any]:
    """The values of a file of options, by parameter. Raises `UsageError` for an unknown option."""
    from creditbench.machine.files import read_toml

    options: dict[str, Any] = {
        name.lstrip("-"): option for option in context.command.params for name in option.opts
    }
    del options["config"]
    found: dict[str, Any] = {}
    for key, value in read_toml(path).items():
        if key in others:
            continue
        option = options.get(key.replace("_", "-"))
        if option is None:
            raise unknown(f"option in {path}:", key, options, f"{context.command_path} --help")
        if option.multiple:
            value = _assignments(value)
        elif isinstance(value, list):
            value = ",".join(map(str, value))
        elif isinstance(value, dict):
            raise UsageError(f"option {key!r} in {path} is a table: give a value")
        elif (is_flag := getattr(option, "is_flag", False)) != isinstance(value, bool):
            raise UsageError(
                f"option {key!r} in {path} is {value!r}: give {'true or false' if is_flag else 'its value'}"
            )
        found[option.name] = value
    return found


def _assignments(value: Any) -> list[str]:
    """`["a.b=1"]`, or the tables `{"a.b" = 1}` and `{a = {b = 1}}`, as `["a.b=1"]`."""
    if isinstance(value, dict):
        flat = []
        for name, inner in value.items():
            flat += (
                [f"{name}.{rest}" for rest in _assignments(inner)]
                if isinstance(inner, dict)
                else [f"{name}={inner}"]
            )
        return flat
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]
