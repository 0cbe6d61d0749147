"""The resources that a process uses: memory, threads, and files without a name."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from creditbench.errors import ConfinedError

#: Resident pages, swapped-out pages, page tables (those of zero pages too, which count nowhere else), huge
#: pages.
_MEMORY = ("VmRSS", "VmSwap", "VmPTE", "HugetlbPages")
_DELETED = " (deleted)"


def taken(number: int) -> tuple[int, int]:
    """(bytes of memory, threads) of a process; (0, 0) if it has ended."""
    try:
        lines = Path(f"/proc/{number}/status").read_text().splitlines()
    except ProcessLookupError:
        return 0, 0
    except FileNotFoundError:
        return _elsewhere(number)
    found = {name: value for name, _, value in (line.partition(":") for line in lines)}
    return sum(int(found[name].split()[0]) << 10 for name in _MEMORY if name in found), int(found["Threads"])


def out_of_memory() -> int:
    """The number of processes that the system has killed for lack of memory (Linux; elsewhere 0)."""
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
    """Bytes of a process's open files that have no name any more (Linux).

    Raises `ConfinedError` ("invalid") if it keeps such a file of `folder` by a mapping alone: its length
    cannot be seen.
    """
    files = {}  # one may be open under several numbers
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{number}/fd"):
            with contextlib.suppress(OSError):
                found = os.stat(f"/proc/{number}/fd/{name}")
                if stat.S_ISREG(found.st_mode) and found.st_nlink == 0:
                    files[found.st_ino] = found.st_blocks * 512  # its folder lies in one file system
    if any(inode not in files for path, inode in _mapped(number) if path.startswith(f"{folder}/")):
        raise ConfinedError("invalid", "it keeps a file without name and descriptor by a mapping alone")
    return sum(files.values())


def _mapped(number: int) -> Iterator[tuple[str, int]]:
    """(path, inode) of the mappings of files that have no name any more."""
    with contextlib.suppress(OSError):  # it has ended, or this is not Linux
        for line in os.fsdecode(Path(f"/proc/{number}/maps").read_bytes()).split("\n"):
            if line.endswith(_DELETED):
                *_, inode, path = line.removesuffix(_DELETED).split(maxsplit=5)
                yield path, int(inode)
