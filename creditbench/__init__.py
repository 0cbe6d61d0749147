"""creditbench: a benchmark of temporal credit assignment in recurrent networks.

    >>> import creditbench as cb

- `run` trains rules on tasks; `load` reads results; both return a `ResultSet`: frames, figures, a page
- `run_checks`, `tune`, `measure_scaling`, `measure_gradients`: what the verbs check, tune, scale and
  gradients do
- `list_tasks`, `list_learners`, `list_cells`: what there is
- `training_step` is a rule in a loop of one's own, with `make_ops`, `make_cell`, `make_learner`,
  `make_optimizer` and `make_batch`; `make_task` makes data

Importing it imports neither torch nor jax, nor pandas nor NumPy: those come once a name needs them, so that
the command line answers `--help` quickly.

The subpackages, from the top down. Each imports only from those below it (`make lint` checks this).

    cli           the command line, one file per verb
    library       the same from Python: the public names of this module
    leaderboard   scores, statistics, page and figures, made from tables
    results       grids run into a folder, records on disk, the tables of a version
    check         is a learner, a task, a machine fit?
    studies       scaling, quality of gradients, one revision against another
    executors     where trials run: this process, or processes of their own, here or on a cluster
    trials        from options to trials, from trials to records: grid, tuning, trainer
    measure       the cost of one update: time, memory, work
    plugins       the known tasks and learners, and how a file becomes one
    isolation     a process that can do little else than compute

A contributed file may import from these:

    learner       the contract of a rule, and code that rules share
    cells         the networks (`cell`: the name that rules import)
    data, task    the building blocks of tasks
    optimizers
    ops           one vocabulary over JAX and PyTorch
    machine       this machine, its folders and files
    errors
"""

import importlib
from typing import TYPE_CHECKING, Any

from creditbench.errors import UsageError

if TYPE_CHECKING:
    from creditbench.library.catalogue import list_cells, list_learners, list_tasks
    from creditbench.library.checking import run_checks
    from creditbench.library.loop import (
        make_batch,
        make_cell,
        make_learner,
        make_optimizer,
        make_task,
        training_step,
    )
    from creditbench.library.measuring import measure_gradients, measure_scaling
    from creditbench.library.resultset import ResultSet, load
    from creditbench.library.running import run
    from creditbench.library.tuning import tune
    from creditbench.ops import make_ops
    from creditbench.task import Sequences, Task

__version__ = "0.1.0.dev0"

__all__ = [
    "ResultSet",
    "Sequences",
    "Task",
    "UsageError",
    "__version__",
    "list_cells",
    "list_learners",
    "list_tasks",
    "load",
    "make_batch",
    "make_cell",
    "make_learner",
    "make_ops",
    "make_optimizer",
    "make_task",
    "measure_gradients",
    "measure_scaling",
    "run",
    "run_checks",
    "training_step",
    "tune",
]

#: The module of each public name that is imported once it is needed.
_HOMES = {
    "library.catalogue": ("list_cells", "list_learners", "list_tasks"),
    "library.checking": ("run_checks",),
    "library.loop": (
        *("make_batch", "make_cell", "make_learner", "make_optimizer", "make_task", "training_step"),
    ),
    "library.measuring": ("measure_gradients", "measure_scaling"),
    "library.resultset": ("ResultSet", "load"),
    "library.running": ("run",),
    "library.tuning": ("tune",),
    "ops": ("make_ops",),
    "task": ("Sequences", "Task"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"creditbench.{module}"), name)
    raise AttributeError(f"module 'creditbench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
