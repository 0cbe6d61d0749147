"""Runs untrusted code in a process of its own that can do little else than compute.

`Confined` starts one child. The child calls a function of this package on an order and talks to its parent in
lines of JSON. It is confined, from the outside in, by:

- a new session, a scrubbed environment, a working folder that is removed afterwards, no standard input, and
  no inherited descriptors except its two pipes and the log; it is killed when its parent ends (Linux);
- system limits on processor time, on the size of a file and on open files; no core dumps;
- on Linux with cgroup v2, where this process may make one, a control group with limits on all memory that
  the kernel keeps for it, and on tasks;
- the parent's watch over wall-clock time, processes and threads, over memory (resident, swapped out, page
  tables) and over files: those in the folder, and open files without a name;
- on Linux, two confinements that need no privilege and cannot be removed again. *Landlock* (kernel 5.13; TCP
  from 6.7, signals and abstract sockets from 6.12) lets it read libraries and this package, and write its own
  folder. It gives no access to the tasks, their data or the cache. *seccomp* (x86-64, arm64) allows only the
  system calls that training needs: no new processes or programs, no sockets, no signals to others, no timers
  that wake it while it is stopped, no changes of a file's mode or owner, no locks, no leases, no shared
  memory, no access to other processes. The log names each refused call (kernel 5.7).

Other processes cannot read the parent's memory while a child lives (`PR_SET_DUMPABLE`). `confinement` says
what this machine has; `missing` says what it lacks.

- `confined`: the parent's side, a `creditbench.machine.child` and the watch over it; `child`: the start of
  the child, before the order
- `kernel`: Landlock, capabilities, and the confinements available here; `calls`: seccomp, with the list of
  calls
- `watch`: the resources that a process uses; `group`: its control group
- `folder`: files that a child has written, which cannot be trusted; `tryout`: tests that forbidden acts are
  refused
"""

from creditbench.errors import ConfinedError
from creditbench.isolation.confined import Confined, Limits
from creditbench.isolation.folder import read_arrays, read_bytes, remove_folder
from creditbench.isolation.kernel import confinement, missing
from creditbench.isolation.tryout import memory, probe
from creditbench.machine.child import Send

__all__ = [
    "Confined",
    "ConfinedError",
    "Limits",
    "Send",
    "confinement",
    "memory",
    "missing",
    "probe",
    "read_arrays",
    "read_bytes",
    "remove_folder",
]
