"""creditbench: a benchmark of temporal credit assignment in recurrent networks.

This module holds the public names. Importing it imports neither torch nor jax. NumPy is imported once a
name needs it, so that the command line answers `--help` quickly.

The subpackages, from the top down. Each imports only from those below it (`make lint` checks this).

    cli           the command line, one file per verb
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

from typing import TYPE_CHECKING, Any

from creditbench.errors import UsageError

if TYPE_CHECKING:
    from creditbench.task import Sequences, Task

__version__ = "0.1.0.dev0"

__all__ = ["Sequences", "Task", "UsageError", "__version__"]


def __getattr__(name: str) -> Any:
    if name in ("Sequences", "Task"):
        # It brings NumPy along.
        from creditbench import task

        return getattr(task, name)
    raise AttributeError(f"module 'creditbench' has no attribute {name!r}")
