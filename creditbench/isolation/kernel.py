"""The kernel's means to confine a process: Landlock, capabilities, and the filters of `calls` (Linux).

`confinement` says which of them this machine has; `missing` says what it lacks.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import socket
import stat
import struct
import sys
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from creditbench.isolation.calls import apply_seccomp, require, seccomp, syscall
from creditbench.machine.folders import PACKAGE

PR_SET_PDEATHSIG = 1
_PR_GET_DUMPABLE, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 3, 4, 38
_hidden = 0  # number of live confined processes
_dumpable = 1  # the state of this process before the first of them
_hiding = threading.Lock()  # `check` starts one from each of two threads


def hide(change: int) -> None:
    """Keep other processes of this user from reading this one while a confined one lives (Linux)."""
    global _hidden, _dumpable
    if sys.platform != "linux":
        return
    with _hiding:
        if _hidden == 0 and change > 0:
            _dumpable = prctl(_PR_GET_DUMPABLE, 0)
            prctl(_PR_SET_DUMPABLE, 0)
        _hidden += change
        if _hidden == 0 and change < 0:
            prctl(_PR_SET_DUMPABLE, _dumpable)


def prctl(option: int, value: int) -> int:
    """prctl(2) of the C library."""
    return ctypes.CDLL(None, use_errno=True).prctl(option, ctypes.c_ulong(value), 0, 0, 0)


def confinement() -> dict[str, Any]:
    """The means of this machine's kernel: `landlock`, its version or 0; `seccomp`, whether it is there."""
    return {"landlock": landlock(), "seccomp": seccomp()}


def missing() -> str:
    """The acts that confined code is not kept from here, in words; empty if nothing is missing."""
    found, lacks = confinement(), []
    if not found["landlock"]:
        lacks.append("reading and writing files of this user (no Landlock)")
    if not found["seccomp"]:
        lacks.append("starting processes, which is noticed soon after (no seccomp)")
        # Landlock controls TCP alone, from its version 4.
        lacks.append("the network" if found["landlock"] < 4 else "the network other than TCP")
    return f"confined code is not kept from {', '.join(lacks)}" if lacks else ""


def confine(
    readable: Sequence[Path],
    writable: Path,
    withheld: Sequence[Path],
    *,
    processes: int = 0,
    device: str = "cpu",
    tell: socket.socket | None = None,
) -> None:
    """Confine this process for good, by all means of `confinement`.

    `withheld`: paths that it may never read. `tell`: the socket to the parent's `Refusals`.
    """
    if sys.platform != "linux":
        return
    require(prctl(_PR_SET_NO_NEW_PRIVS, 1), "prctl")
    _drop_capabilities()
    if landlock():
        _apply_landlock(readable, writable, withheld, programs=processes > 0, device=device)
    if seccomp():
        apply_seccomp(processes=processes > 0, device=device, tell=tell)


# capabilities: <linux/capability.h>. Root keeps the right to ignore the owners of files; Landlock limits it.

_CAPSET = {"x86_64": 126, "aarch64": 91}
_CAP_DAC_OVERRIDE = 1


def _drop_capabilities() -> None:
    number = _CAPSET.get(platform.machine())
    if number is None or os.geteuid() != 0:
        return
    kept = 1 << _CAP_DAC_OVERRIDE if landlock() else 0
    header = struct.pack("=Ii", 0x20080522, 0)
    sets = struct.pack("=6I", kept, kept, 0, 0, 0, 0)  # effective, permitted, inheritable; low halves first
    require(syscall(number, ctypes.c_char_p(header), ctypes.c_char_p(sets)), "capset")


# Landlock: <linux/landlock.h>

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = (1 << i for i in range(4))
_TRUNCATE, _IOCTL_DEV = 1 << 14, 1 << 15
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_NO_DEVICES = ~(1 << 6 | 1 << 11)  # without the rights to make devices
#: Paths that libraries read at their start, beside their own.
_SYSTEM = (
    *("/usr", "/lib", "/lib64", "/lib32", "/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat"),
    *("/proc/filesystems", "/proc/sys/kernel", "/proc/sys/vm", "/sys/devices/system", "/sys/fs/cgroup"),
    *("/sys/kernel/mm/transparent_hugepage", "/etc/ld.so.cache", "/etc/localtime", "/etc/nsswitch.conf"),
    *("/etc/passwd", "/dev/urandom", "/dev/random"),
)
_ACCELERATORS = (
    "/dev/zero",  # a shared mapping of it is memory that may be resident in no process
    "/dev/nvidia*",
    "/dev/dri",
    "/dev/kfd",
    "/dev/accel*",
    "/proc/driver",
    "/sys/module",
    "/sys/bus",
)


@cache
def landlock() -> int:
    """The kernel's version of Landlock, or 0."""
    if sys.platform != "linux":
        return 0
    return max(0, syscall(_CREATE_RULESET, None, 0, 1))


def _apply_landlock(
    readable: Sequence[Path], writable: Path, withheld: Sequence[Path], *, programs: bool, device: str
) -> None:
    version = landlock()
    last_right = {1: 12, 2: 13, 3: 14, 4: 14}.get(version, 15)
    handled = (1 << last_right + 1) - 1
    attributes = struct.pack("=QQQ", handled, 3, 3)[: 8 if version < 4 else 16 if version < 6 else 24]
    rules = require(
        syscall(_CREATE_RULESET, ctypes.c_char_p(attributes), len(attributes), 0), "landlock_create_ruleset"
    )

    def allow(path: Path, rights: int) -> None:
        try:
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            return  # there is no such path
        try:
            if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
                rights &= _OF_FILES
            rule = struct.pack("=Qi", rights & handled, descriptor)
            require(syscall(_ADD_RULE, rules, 1, ctypes.c_char_p(rule), 0), f"landlock_add_rule {path}")
        finally:
            os.close(descriptor)

    def read(path: Path) -> None:
        """Allow `path` and all below it, without the withheld paths."""
        if any(path == closed or closed in path.parents for closed in withheld):
            return
        if any(path in closed.parents for closed in withheld):
            allow(path, _READ_DIR)  # names alone
            with contextlib.suppress(OSError):
                for entry in path.iterdir():
                    if not entry.is_symlink():
                        read(entry)
        else:
            allow(path, rights)

    rights = _READ_FILE | _READ_DIR | (_EXECUTE if programs else 0)
    shipped = [PACKAGE, PACKAGE.parent / "learners"]
    python = [sys.base_prefix, sys.prefix, sys.exec_prefix]
    for path in [*shipped, *map(Path, (*python, *_SYSTEM)), *readable]:
        read(path.resolve())
    allow(PACKAGE.parent, _READ_DIR)
    allow(Path("/dev/null"), _READ_FILE | _WRITE_FILE)
    allow(writable, handled & _NO_DEVICES)
    if device != "cpu":
        # CUDA does not start unless it can write the names of threads here.
        allow(Path(f"/proc/{os.getpid()}/task"), _WRITE_FILE)
        for pattern in _ACCELERATORS:
            for path in Path("/").glob(pattern[1:]):
                own = _WRITE_FILE | _IOCTL_DEV if path.is_relative_to("/dev") else 0
                allow(path, _READ_FILE | _READ_DIR | own)
    require(syscall(_RESTRICT_SELF, rules, 0), "landlock_restrict_self")
    os.close(rules)
