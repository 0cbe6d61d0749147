"""creditbench: a benchmark of temporal credit assignment in recurrent networks.

What is public is decided here. Importing this package imports neither torch nor jax, and NumPy only once
a name that needs it is used: the command line answers `--help` without it.
"""

from typing import TYPE_CHECKING, Any

from creditbench.errors import UsageError

if TYPE_CHECKING:
    from creditbench.task import Sequences, Task

__version__ = "0.1.0.dev0"

__all__ = ["Sequences", "Task", "UsageError", "__version__"]


def __getattr__(name: str) -> Any:
    if name in ("Sequences", "Task"):
        from creditbench import task

        return getattr(task, name)
    raise AttributeError(f"module 'creditbench' has no attribute {name!r}")
