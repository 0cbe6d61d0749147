"""creditbench: a benchmark of temporal credit assignment in recurrent networks.

What is public is decided here. Importing this package imports neither torch nor jax, and NumPy only once
a name that needs it is used: the command line answers `--help` without it.

The rooms, from the top down. Each imports from those below it, never from one above (`make lint` checks it).

    cli           the command line, a file a verb
    leaderboard   scores, statistics, page and figures, made from tables
    results       grids run into a folder, records on disk, the tables of a version, what is shown of them
    check         is a learner, a task, a machine fit?
    studies       scaling, quality of gradients, one revision against another
    executors     where trials run: this process, or processes of their own
    trials        from options to trials, from trials to records: grid, tuning, trainer
    measure       what one update costs: time, memory, work
    plugins       what tasks and learners there are, and how a file becomes one
    isolation     a process that can do little else than compute

What a contributed file may import lies below:

    learner       the contract of a rule, and what rules share
    cells         the networks (`cell`: the name that rules import)
    data, task    what tasks are made of
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
