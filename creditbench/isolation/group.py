"""A control group for each confined process: the kernel's own count of its memory and tasks (cgroup v2).

It counts what the watch cannot see: shared memory that is mapped nowhere, files in memory, the kernel's
tables. Its limits hold between two looks of the watch too. `place` says where groups can be made; where there
is no such place, the watch is all.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import uuid
from functools import cache
from pathlib import Path

_NAME = "creditbench-"
_MAIN = f"{_NAME}main"  # the group of the processes that are not confined
_END_SECONDS = 5.0  # time limit for the end of killed processes
_TRIES = 10


class ControlGroup:
    """A new group below `folder`, of at most `memory` bytes and `tasks` processes and threads.

    No page of it is swapped out. If its memory runs out, the kernel kills all its processes. Raises `OSError`
    if it cannot be made.
    """

    def __init__(self, folder: Path, memory: int, tasks: int) -> None:
        self.path = folder / f"{_NAME}{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.memory = memory
        self.path.mkdir()
        try:
            self._write("memory.max", memory)
            self._write("memory.oom.group", 1)
            self._write("pids.max", tasks)
            with contextlib.suppress(FileNotFoundError):  # the kernel has no swap
                self._write("memory.swap.max", 0)
        except OSError:
            self.path.rmdir()
            raise

    def add(self, number: int) -> None:
        """Put a process into the group. Raises `OSError` if that is not allowed."""
        self._write("cgroup.procs", number)

    def members(self) -> list[int]:
        """Its processes."""
        return [int(number) for number in _read(self.path / "cgroup.procs").split()]

    def killed(self) -> bool:
        """Whether processes of it were killed for lack of memory, be it the group's or the system's."""
        return self._events("oom_kill") > 0

    def exceeded(self) -> int:
        """Bytes that it held when its memory ran out and its processes were killed; 0 if they were not."""
        if not (self.killed() and self._events("oom")):
            return 0
        peak = _read(self.path / "memory.peak")  # from Linux 5.19
        return int(peak or self.memory)

    def remove(self) -> None:
        """Kill all processes in it, wait for their end, and remove it."""
        deadline = time.monotonic() + _END_SECONDS
        while True:
            try:
                self.path.rmdir()
                return
            except FileNotFoundError:
                return
            except OSError:
                if time.monotonic() > deadline:
                    print(f"note: the control group {self.path} could not be removed", file=sys.stderr)
                    return
            self._kill()
            time.sleep(0.002)

    def _kill(self) -> None:
        try:
            self._write("cgroup.kill", 1)  # from Linux 5.14
        except OSError:
            for number in self.members():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)

    def _events(self, name: str) -> int:
        lines = map(str.split, _read(self.path / "memory.events").splitlines())
        return sum(int(value) for key, value in lines if key == name)

    def _write(self, name: str, value: int) -> None:
        _write(self.path / name, str(value))


# -- where groups can be made ----------------------------------------------------------------------------


@cache
def place() -> Path | None:
    """The group in which this process makes others, tried out; None if it may make none.

    Empty groups that processes left there which have ended are removed.
    """
    if (here := own()) is None or (folder := find(*here)) is None:
        return None
    clear(folder)
    try:
        ControlGroup(folder, 1 << 30, 1).remove()
    except OSError:
        return None
    return folder


def own() -> tuple[Path, Path] | None:
    """(group of this process, highest group in sight) in the unified hierarchy; None without one."""
    mounts = [line.split() for line in _read(Path("/proc/self/mountinfo")).splitlines()]
    paths = [line[3:] for line in _read(Path("/proc/self/cgroup")).splitlines() if line.startswith("0::")]
    for _, _, _, root, top, *rest in mounts:
        if paths and rest[rest.index("-") + 1] == "cgroup2":
            group = Path(top, os.path.relpath(paths[0], root))
            if ".." not in group.parts and (group / "cgroup.controllers").exists():
                return group, Path(top)
    return None


def find(group: Path, top: Path) -> Path | None:
    """The group in which a process of `group` may make groups with limits; None if there is none.

    A group with processes cannot limit groups below it, unless it is the root of the hierarchy. So it is the
    root, if this process is there; or the group above, if that one limits the groups in it, as a user's
    session does; or `group`, if it is this user's or a container's, whose processes then move into a group
    below it. A group with a limit of memory of its own is not left.
    """
    if not (group / "cgroup.type").exists():
        return group if _limits(group) else None
    above = group.parent
    if (
        group != top
        and _read(group / "memory.max").strip() in ("", "max")
        and _names_both(above / "cgroup.subtree_control")
        and all(os.access(path, os.W_OK) for path in (above, above / "cgroup.procs"))
    ):
        return above
    is_ours = group == top or group.stat().st_uid == os.geteuid() != 0
    return group if is_ours and os.access(group, os.W_OK) and _emptied(group) else None


def clear(folder: Path) -> None:
    """Remove the empty groups in `folder` whose makers have ended."""
    for path in folder.glob(f"{_NAME}*-*"):
        maker = path.name.split("-")[1]
        if maker.isdigit() and not Path("/proc", maker).exists():
            with contextlib.suppress(OSError):  # it is not empty, or is gone
                path.rmdir()


def _emptied(group: Path) -> bool:
    """Move the processes of a group into one below it, and let it limit groups. Returns whether it does."""
    if not _names_both(group / "cgroup.controllers"):
        return False
    for _ in range(_TRIES):  # others may start in the meantime
        numbers = _read(group / "cgroup.procs").split()
        if "0" in numbers:  # a process out of sight
            return False
        try:
            (group / _MAIN).mkdir(exist_ok=True)
            for number in numbers:
                with contextlib.suppress(ProcessLookupError):
                    _write(group / _MAIN / "cgroup.procs", number)
        except OSError:
            return False
        if _limits(group):
            return True
    return False


def _limits(group: Path) -> bool:
    """Let a group limit memory and tasks of the groups in it. Returns whether it does."""
    if _names_both(group / "cgroup.subtree_control"):
        return True
    if not _names_both(group / "cgroup.controllers"):
        return False
    try:
        _write(group / "cgroup.subtree_control", "+memory +pids")
    except OSError:
        return False
    return True


def _names_both(path: Path) -> bool:
    """Whether a list of controllers has those of memory and of tasks."""
    return set(_read(path).split()) >= {"memory", "pids"}


def _read(path: Path) -> str:
    """The text of a file of the kernel; empty if there is none."""
    try:
        return path.read_text()
    except OSError:
        return ""


def _write(path: Path, text: str) -> None:
    """Write to a file that is there, in one call. Raises `OSError`."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
