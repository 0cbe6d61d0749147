"""What the kernel has to confine a process: Landlock, seccomp, capabilities (Linux).

What this machine has of them, `confinement` says; what it lacks, `missing`.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import stat
import struct
import sys
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

_PACKAGE = Path(__file__).resolve().parents[1]  # creditbench

PR_SET_PDEATHSIG = 1
_PR_GET_DUMPABLE, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 3, 4, 38
_hidden = 0  # confined processes that are alive
_dumpable = 1  # what this process was before the first of them
_hiding = threading.Lock()  # `check` starts one from each of two threads


def hide(change: int) -> None:
    """Keep other processes of this user from reading this one while one that is not trusted lives (Linux)."""
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
    """The system's prctl(2)."""
    return ctypes.CDLL(None, use_errno=True).prctl(option, ctypes.c_ulong(value), 0, 0, 0)


def _syscall(number: int, *args: Any) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    return libc.syscall(ctypes.c_long(number), *(ctypes.c_long(x) if isinstance(x, int) else x for x in args))


def confinement() -> dict[str, Any]:
    """What this machine's kernel has: `landlock`, its version or 0; `seccomp`, whether it is there."""
    return {"landlock": landlock(), "seccomp": seccomp()}


def missing() -> str:
    """What confined code is not kept from here, in words; empty where nothing is missing."""
    found, lacks = confinement(), []
    if not found["landlock"]:
        lacks.append("reading and writing files of this user (no Landlock)")
    if not found["seccomp"]:
        lacks.append("starting processes, which is noticed soon after (no seccomp)")
        # Landlock knows of TCP alone, from its version 4.
        lacks.append("the network" if found["landlock"] < 4 else "the network other than TCP")
    return f"confined code is not kept from {', '.join(lacks)}" if lacks else ""


def confine(
    readable: Sequence[Path],
    writable: Path,
    withheld: Sequence[Path],
    *,
    processes: int = 0,
    device: str = "cpu",
) -> None:
    """Confine this process for good, with all that `confinement` names. `withheld`: not read, wherever it lies."""
    if sys.platform != "linux":
        return
    _require(prctl(_PR_SET_NO_NEW_PRIVS, 1), "prctl")
    _drop_capabilities()
    if landlock():
        _apply_landlock(readable, writable, withheld, programs=processes > 0, device=device)
    if seccomp():
        _apply_seccomp(processes > 0, device)


def _require(result: int, what: str) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")
    return result


# capabilities: <linux/capability.h>. The right of root to pass over the owners of files is left to Landlock.

_CAPSET = {"x86_64": 126, "aarch64": 91}
_CAP_DAC_OVERRIDE = 1


def _drop_capabilities() -> None:
    number = _CAPSET.get(platform.machine())
    if number is None or os.geteuid() != 0:
        return
    kept = 1 << _CAP_DAC_OVERRIDE if landlock() else 0
    header = struct.pack("=Ii", 0x20080522, 0)
    sets = struct.pack("=6I", kept, kept, 0, 0, 0, 0)  # effective, permitted, inheritable; low halves first
    _require(_syscall(number, ctypes.c_char_p(header), ctypes.c_char_p(sets)), "capset")


# Landlock: <linux/landlock.h>

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = (1 << i for i in range(4))
_TRUNCATE, _IOCTL_DEV = 1 << 14, 1 << 15
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_NO_DEVICES = ~(1 << 6 | 1 << 11)  # no device is made
#: What libraries look at as they start, beside themselves.
_SYSTEM = (
    *("/usr", "/lib", "/lib64", "/lib32", "/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat"),
    *("/proc/filesystems", "/proc/sys/kernel", "/proc/sys/vm", "/sys/devices/system", "/sys/fs/cgroup"),
    *("/sys/kernel/mm/transparent_hugepage", "/etc/ld.so.cache", "/etc/localtime", "/etc/nsswitch.conf"),
    *("/etc/passwd", "/dev/urandom", "/dev/random", "/dev/zero"),
)
_ACCELERATORS = (
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
    """The version that the kernel has, or 0."""
    if sys.platform != "linux":
        return 0
    return max(0, _syscall(_CREATE_RULESET, None, 0, 1))


def _apply_landlock(
    readable: Sequence[Path], writable: Path, withheld: Sequence[Path], *, programs: bool, device: str
) -> None:
    version = landlock()
    last_right = {1: 12, 2: 13, 3: 14, 4: 14}.get(version, 15)
    handled = (1 << last_right + 1) - 1
    attributes = struct.pack("=QQQ", handled, 3, 3)[: 8 if version < 4 else 16 if version < 6 else 24]
    rules = _require(
        _syscall(_CREATE_RULESET, ctypes.c_char_p(attributes), len(attributes), 0), "landlock_create_ruleset"
    )

    def allow(path: Path, rights: int) -> None:
        try:
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            return  # what is not there need not be opened
        try:
            if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
                rights &= _OF_FILES
            rule = struct.pack("=Qi", rights & handled, descriptor)
            _require(_syscall(_ADD_RULE, rules, 1, ctypes.c_char_p(rule), 0), f"landlock_add_rule {path}")
        finally:
            os.close(descriptor)

    def read(path: Path) -> None:
        """`path` and all below it, less what is withheld."""
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
    shipped = [_PACKAGE, _PACKAGE.parent / "learners"]
    python = [sys.base_prefix, sys.prefix, sys.exec_prefix]
    for path in [*shipped, *map(Path, (*python, *_SYSTEM)), *readable]:
        read(path.resolve())
    allow(_PACKAGE.parent, _READ_DIR)
    allow(Path("/dev/null"), _READ_FILE | _WRITE_FILE)
    allow(writable, handled & _NO_DEVICES)
    if device != "cpu":
        # Where threads have their names, which CUDA does not start without writing.
        allow(Path(f"/proc/{os.getpid()}/task"), _WRITE_FILE)
        for pattern in _ACCELERATORS:
            for path in Path("/").glob(pattern[1:]):
                own = _WRITE_FILE | _IOCTL_DEV if path.is_relative_to("/dev") else 0
                allow(path, _READ_FILE | _READ_DIR | own)
    _require(_syscall(_RESTRICT_SELF, rules, 0), "landlock_restrict_self")
    os.close(rules)


# seccomp: <linux/seccomp.h>, <linux/filter.h>, the system's table of calls

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
#: name -> (number on x86-64 or None, number on arm64 or None)
_CALLS: dict[str, tuple[int | None, int | None]] = {
    "seccomp": (317, 277),
    # new processes and programs
    "clone": (56, 220),
    "clone3": (435, 435),
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    # other processes
    "kill": (62, 129),
    "tkill": (200, 130),
    "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "pidfd_getfd": (438, 438),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "prlimit64": (302, 261),
    "prctl": (157, 167),
    # their turns, and those of the process that scores
    "sched_setaffinity": (203, 122),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "sched_setattr": (314, 274),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    # talk
    "socket": (41, 198),
    "socketpair": (53, 199),  # a datagram one sends to any socket that has a name
    "connect": (42, 203),
    "sendto": (44, 206),
    "sendmsg": (46, 211),
    "sendmmsg": (307, 269),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "memfd_create": (319, 279),
    # the kernel itself
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "open_by_handle_at": (304, 265),
}
_OF_PROCESSES = ("clone", "clone3", "fork", "vfork", "execve", "execveat")
_IN_PART = ("clone", "clone3", "kill", "tgkill", "prlimit64", "prctl", "seccomp", "socket")
_LOAD, _JUMP_EQUAL, _JUMP_NOT_LESS, _JUMP_BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_CLONE_THREAD = 0x10000
_AF_UNIX = 1


@cache
def seccomp() -> bool:
    """Whether the kernel takes filters, and the calls of this machine are known."""
    if sys.platform != "linux" or platform.machine() not in _ARCHITECTURES or sys.maxsize < 2**32:
        return False
    action = ctypes.c_uint32(_ERRNO)
    return _syscall(cast(int, _number("seccomp")), 2, 0, ctypes.byref(action)) == 0


def _number(call: str) -> int | None:
    return _CALLS[call][list(_ARCHITECTURES).index(platform.machine())]


def _filter(processes: bool, device: str = "cpu") -> bytes:
    """The filter: (operation, jump if true, jump if false, value) each; a block returns or falls through."""
    number, architecture, first, refuse = 0, 4, 16, _ERRNO | errno.EPERM
    own = os.getpid()
    program = [
        (_LOAD, 0, 0, architecture),
        (_JUMP_EQUAL, 1, 0, _ARCHITECTURES[platform.machine()]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, number),
        (_JUMP_NOT_LESS, 0, 1, 0x40000000),  # the second table of calls of x86-64
        (_RETURN, 0, 0, refuse),
    ]

    def add(call: str, *rest: tuple[int, int, int, int]) -> None:
        known = _number(call)
        if known is not None:
            program.extend([(_JUMP_EQUAL, 0, len(rest), known), *rest])

    yes, no = (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, refuse)
    argument = (_LOAD, 0, 0, first)
    for call in _CALLS:
        if call not in _IN_PART and not (processes and call in _OF_PROCESSES):
            add(call, no)
    if not processes:
        # Its flags lie in memory, where no filter looks: the C library takes clone.
        add("clone3", (_RETURN, 0, 0, _ERRNO | errno.ENOSYS))
        add("clone", argument, (_JUMP_BITS, 0, 1, _CLONE_THREAD), yes, no)
        for call in ("kill", "tgkill"):
            add(call, argument, (_JUMP_EQUAL, 0, 1, own), yes, no)
    if device == "cpu":
        add("socket", no)
    else:  # CUDA has one of its own, which is bound and connects to nothing
        add("socket", argument, (_JUMP_EQUAL, 0, 1, _AF_UNIX), yes, no)
    add("prlimit64", argument, (_JUMP_EQUAL, 2, 0, 0), (_JUMP_EQUAL, 1, 0, own), no, yes)
    add("prctl", argument, (_JUMP_EQUAL, 0, 1, PR_SET_PDEATHSIG), no, yes)
    program.append(yes)
    return b"".join(struct.pack("=HBBI", *line) for line in program)


def _apply_seccomp(processes: bool, device: str = "cpu") -> None:
    program = _filter(processes, device)
    buffer = ctypes.create_string_buffer(program)
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
    # All threads alike; and no slower branches, which older kernels would put on the process else.
    found = _syscall(cast(int, _number("seccomp")), 1, 1 | 4, ctypes.c_char_p(header))
    if found > 0:  # nothing is confined then
        raise OSError(errno.EBUSY, f"seccomp: thread {found} has filters of its own")
    _require(found, "seccomp")
