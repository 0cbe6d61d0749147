"""creditbench: a benchmark of temporal credit assignment in recurrent networks.

What is public is decided here. Importing this package imports neither torch nor jax.
"""

from creditbench.errors import UsageError
from creditbench.task import Sequences, Task

__version__ = "0.1.0.dev0"

__all__ = ["Sequences", "Task", "UsageError", "__version__"]
