"""What a process takes: memory, threads, and files that have no name any more."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from creditbench.errors import ConfinedError

#: Beside resident pages: those that were swapped out, tables of pages (of zeros too, which count nowhere),
#: huge pages.
_MEMORY = ("VmRSS", "VmSwap", "VmPTE", "HugetlbPages")
_DELETED = " (deleted)"


def taken(number: int) -> tuple[int, int]:
    """Bytes of memory and threads of a process; (0, 0) where it has ended."""
    try:
        lines = Path(f"/proc/{number}/status").read_text().splitlines()
    except ProcessLookupError:
        return 0, 0
    except FileNotFoundError:
        return _elsewhere(number)
    found = {name: value for name, _, value in (line.partition(":") for line in lines)}
    return sum(int(found[name].split()[0]) << 10 for name in _MEMORY if name in found), int(found["Threads"])


def out_of_memory() -> int:
    """How many processes the system has killed because memory ran out (Linux; elsewhere 0)."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def _elsewhere(number: int) -> tuple[int, int]:
    # The guard of a worker imports this package, and is to stay small.
    import psutil

    try:
        process = psutil.Process(number)
        return process.memory_info().rss, process.num_threads()
    except psutil.Error:
        return 0, 0


def unlinked(number: int, folder: str) -> int:
    """Bytes of files that a process holds open and that have no name any more (Linux).

    Raises `ConfinedError` ("invalid") where it keeps such a file of `folder` by a mapping alone: of that
    nobody can see how long it is.
    """
    files = {}  # one may be open under several numbers
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{number}/fd"):
            with contextlib.suppress(OSError):
                found = os.stat(f"/proc/{number}/fd/{name}")
                if stat.S_ISREG(found.st_mode) and found.st_nlink == 0:
                    files[found.st_ino] = found.st_blocks * 512  # in a folder that lies in one file system
    if any(inode not in files for path, inode in _mapped(number) if path.startswith(f"{folder}/")):
        raise ConfinedError("invalid", "it keeps a file without name and descriptor by a mapping alone")
    return sum(files.values())


def _mapped(number: int) -> Iterator[tuple[str, int]]:
    """(path, inode) of the mappings of files that have no name any more."""
    with contextlib.suppress(OSError):  # it has ended, or this is no Linux
        for line in os.fsdecode(Path(f"/proc/{number}/maps").read_bytes()).split("\n"):
            if line.endswith(_DELETED):
                *_, inode, path = line.removesuffix(_DELETED).split(maxsplit=5)
                yield path, int(inode)
