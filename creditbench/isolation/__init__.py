"""Code that is not trusted, in a process of its own that can do little else than compute.

`Confined` starts one child, which calls a function of this package on an order and talks to its parent in
lines of JSON. What holds it, from the outside in:

- a new session, a scrubbed environment, a working folder that is removed afterwards, no standard input, no
  inherited descriptor but its two pipes and the log; it is killed when its parent ends (Linux);
- limits of the system on processor time, on the size of a file and on open files; no core dumps;
- a watch kept by the parent over wall-clock time, processes and threads, over memory (resident, swapped out,
  in tables of pages) and over files: those of the folder, and those without a name that it keeps open;
- on Linux, two confinements that need no privilege and cannot be taken off again. *Landlock* (kernel 5.13;
  TCP from 6.7, signals and abstract sockets from 6.12) opens files to it: libraries and this package to read,
  its own folder to write, nothing else; the tasks, their data and the cache are not among them. *seccomp*
  (x86-64, arm64) allows the system calls that training needs, and no others: no new processes and programs,
  sockets, signals to others, timers that wake it where it is to stand still, changes of a file's mode or
  owner, locks, leases, shared memory, or looks into other processes. What is refused is named in what the
  process has printed (kernel 5.7).

The parent cannot be looked into while a child lives (`PR_SET_DUMPABLE`). `confinement` says what this machine
has; `missing` what it lacks.

- `confined`: the parent's side, a `creditbench.machine.child` and the watch over it; `child`: what runs in
  the child before the order does
- `kernel`: Landlock, capabilities, and what of the confinements there is here; `calls`: seccomp, with the
  list of calls
- `watch`: what a process takes
- `folder`: the files that a child may have written, which may be anything; `tryout`: what it is in fact
  refused
"""

from creditbench.errors import ConfinedError
from creditbench.isolation.confined import Confined, Limits
from creditbench.isolation.folder import read_arrays, remove_folder
from creditbench.isolation.kernel import confinement, missing
from creditbench.isolation.tryout import probe
from creditbench.machine.child import Send

__all__ = [
    "Confined",
    "ConfinedError",
    "Limits",
    "Send",
    "confinement",
    "missing",
    "probe",
    "read_arrays",
    "remove_folder",
]
