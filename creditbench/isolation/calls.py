"""The system calls that a confined process may make, as filters of seccomp (Linux: x86-64, arm64).

Only the calls that training needs are allowed. They were recorded from rules that train under both
frameworks. A process works on its own memory, threads, descriptors and clocks. It opens, reads, names and
removes files, within the limits of Landlock. Some calls are allowed only with certain arguments. The driver
of an accelerator needs more calls.

Any other call fails with EPERM. A call newer than `calls.csv` fails with ENOSYS, for which C libraries have
an older call. If the kernel can ask the parent (5.7), the parent answers and so learns the call's name:
`Refusals`.
"""

from __future__ import annotations

import contextlib
import csv
import ctypes
import errno
import os
import platform
import select
import signal
import socket
import struct
import sys
from functools import cache
from pathlib import Path
from typing import Any

with contextlib.suppress(ImportError):  # Windows has none, and no trial runs there
    import fcntl

#: Calls that are allowed in part are in `_part`. The kernel runs the filter at every call, and in this order:
#: the most frequent calls come first.
_NEEDED = """
futex madvise mmap munmap mprotect read write clock_gettime sched_yield lseek newfstatat gettid openat close
ioctl brk fstat getdents64 rt_sigprocmask rt_sigaction rt_sigreturn fcntl
mremap mincore mbind membarrier arch_prctl
exit exit_group set_robust_list rseq set_tid_address futex_waitv futex_wake futex_wait futex_requeue getpid
getppid clone kill tgkill prctl prlimit64 getrlimit getrusage times
sched_getaffinity sched_getparam sched_getscheduler sched_get_priority_max sched_get_priority_min getcpu
get_mempolicy rt_sigpending sigaltstack restart_syscall setitimer getitimer
clock_getres clock_nanosleep gettimeofday time nanosleep
readv writev pread64 pwrite64 sendfile copy_file_range dup dup2 dup3 pipe pipe2 ftruncate fadvise64
poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait eventfd eventfd2
open stat lstat statx access faccessat faccessat2 readlink readlinkat getcwd getdents statfs fstatfs
mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2
getuid geteuid getgid getegid getgroups uname sysinfo getrandom
"""
#: Further calls of the driver of an accelerator, as far as they are known. It binds a socket that connects to
#: nothing.
_OF_ACCELERATORS = """
bind listen accept4 getsockname getsockopt setsockopt recvmsg recvfrom shutdown
mlock munlock set_mempolicy flock fallocate fsync msync umask
"""
_OF_PROCESSES = "clone fork vfork execve execveat wait4 waitid setsid setpgid"
#: Calls that a framework or the C library tries at its start and can do without: refused without a message.
_IN_VAIN = ("sched_setaffinity", "socket")

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_SET_FILTER, _GET_ACTION = 1, 2
_ALL_THREADS, _NO_SLOWER_BRANCHES, _LISTENER, _OR_ESRCH = 1, 4, 8, 16
_LOAD, _AND, _JUMP_EQUAL, _JUMP_NOT_LESS, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
_ALLOW, _ERRNO, _ASK, _KILL = 0x7FFF0000, 0x00050000, 0x7FC00000, 0x80000000
_SECOND_TABLE = 0x40000000  # of x86-64
_PTHREAD = (0x3D0F00, 0x7D0F00)  # flags of C libraries for a thread, which shares all but its stack
_AF_UNIX = 1
_SHARED_ANONYMOUS = 0x21  # MAP_SHARED | MAP_ANONYMOUS: such memory may be resident in no process
# F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC: no leases, no signals, no notices, no locks
_FCNTL, _LOCKS = (0, 1, 2, 3, 4, 1030), (5, 6, 7)
_IOCTL = (0x5401, 0x802C542A, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)  # TCGETS(2), TIOCGWINSZ, FIO*
_PRCTL = (15, 16, 0x53564D41, 3, 21, 39)  # PR_*_NAME, PR_SET_VMA, PR_GET_DUMPABLE, _SECCOMP, _NO_NEW_PRIVS

Line = tuple[int, int, int, int]  #: operation, jump if true, jump if false, value


def syscall(number: int, *args: Any) -> int:
    """syscall(2) of the C library."""
    libc = ctypes.CDLL(None, use_errno=True)
    return libc.syscall(ctypes.c_long(number), *(ctypes.c_long(x) if isinstance(x, int) else x for x in args))


def require(result: int, what: str) -> int:
    """Raise `OSError` for a result below 0."""
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")
    return result


@cache
def numbers(machine: str) -> dict[str, int]:
    """name -> number of every call of x86_64 or aarch64."""
    with (Path(__file__).parent / "calls.csv").open(newline="", encoding="ascii") as file:
        return {row["name"]: int(row[machine]) for row in csv.DictReader(file) if row[machine]}


@cache
def seccomp() -> bool:
    """Whether the kernel supports filters, and the calls of this machine are known."""
    if sys.platform != "linux" or platform.machine() not in _ARCHITECTURES or sys.maxsize < 2**32:
        return False
    action = ctypes.c_uint32(_ERRNO)
    return syscall(numbers(platform.machine())["seccomp"], _GET_ACTION, 0, ctypes.byref(action)) == 0


# -- the filter ------------------------------------------------------------------------------------------


def _part(device: str, yes: Line, no: Line) -> dict[str, list[Line]]:
    """The lines for the calls that are allowed in part. Each list ends in a return."""

    def argument(place: int) -> Line:
        return _LOAD, 0, 0, 16 + 8 * place  # its low half, first on both architectures

    def one_of(place: int, values: tuple[int, ...]) -> list[Line]:
        tests = [(_JUMP_EQUAL, len(values) - i, 0, value) for i, value in enumerate(values)]
        return [argument(place), *tests, no, yes]

    def to_itself(signal_at: int) -> list[Line]:
        """A signal to itself, except SIGKILL: so a death by SIGKILL always comes from outside."""
        mine = [argument(0), (_JUMP_EQUAL, 1, 0, own), no]
        return [*mine, argument(signal_at), (_JUMP_EQUAL, 0, 1, signal.SIGKILL), no, yes]

    own = os.getpid()
    parts = {
        "clone": one_of(0, _PTHREAD),
        "clone3": [(_RETURN, 0, 0, _ERRNO | errno.ENOSYS)],  # its flags lie in memory; filters cannot read it
        "kill": to_itself(1),
        "tgkill": to_itself(2),
        "prlimit64": one_of(0, (0, own)),
        "prctl": one_of(0, _PRCTL),
        "fcntl": one_of(1, _FCNTL if device == "cpu" else _FCNTL + _LOCKS),
    }
    if device == "cpu":
        shared = [(_AND, 0, 0, _SHARED_ANONYMOUS), (_JUMP_EQUAL, 0, 1, _SHARED_ANONYMOUS), no, yes]
        return parts | {"ioctl": one_of(1, _IOCTL), "mmap": [argument(3), *shared]}
    return parts | {"socket": one_of(0, (_AF_UNIX,))}


def make_filter(*, processes: bool = False, device: str = "cpu", asks: bool = False) -> bytes:
    """The first filter. It still allows the two calls that install the second one.

    `asks`: whether the kernel asks a listener about refused calls.
    """
    machine = platform.machine()
    known = numbers(machine)
    yes, refuse = (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _ERRNO | errno.EPERM)
    no = (_RETURN, 0, 0, _ASK) if asks else refuse
    program = _head(machine)
    program += [(_JUMP_NOT_LESS, 0, 1, _SECOND_TABLE), refuse]
    needed = [*_NEEDED.split(), "seccomp", "sendmsg"] + (_OF_ACCELERATORS.split() if device != "cpu" else [])
    calls = {name: [yes] for name in needed} | {name: [refuse] for name in _IN_VAIN}
    calls |= _part(device, yes, no)
    if processes:
        calls |= {name: [yes] for name in _OF_PROCESSES.split()}
    for name, lines in calls.items():
        if name in known:
            program += [(_JUMP_EQUAL, 0, len(lines), known[name]), *lines]
    if not asks:
        program += [(_JUMP_NOT_LESS, 0, 1, max(known.values()) + 1), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]
    return _packed([*program, no])


def _last_filter() -> bytes:
    """The second filter. It refuses the two calls that the first one still allowed."""
    machine = platform.machine()
    lines = _head(machine)
    for name in ("sendmsg", "seccomp"):
        lines += [(_JUMP_EQUAL, 0, 1, numbers(machine)[name]), (_RETURN, 0, 0, _ERRNO | errno.EPERM)]
    return _packed([*lines, (_RETURN, 0, 0, _ALLOW)])


def _head(machine: str) -> list[Line]:
    """The head of a filter: calls of another architecture end the process; then the number is loaded."""
    architecture = [(_LOAD, 0, 0, 4), (_JUMP_EQUAL, 1, 0, _ARCHITECTURES[machine]), (_RETURN, 0, 0, _KILL)]
    return [*architecture, (_LOAD, 0, 0, 0)]


def _packed(lines: list[Line]) -> bytes:
    return b"".join(struct.pack("=HBBI", *line) for line in lines)


def apply_seccomp(*, processes: bool = False, device: str = "cpu", tell: socket.socket | None = None) -> None:
    """Put this process under the filters for good. `tell`: the socket to the parent's `Refusals`."""
    listener = -1
    if tell is not None:
        program = make_filter(processes=processes, device=device, asks=True)
        with contextlib.suppress(OSError):  # the kernel is older, or there is another listener already
            listener = _install(program, _LISTENER | _OR_ESRCH)
    if tell is not None and listener >= 0:
        socket.send_fds(tell, [b"."], [listener])
        os.close(listener)
    else:
        _require_all(_install(make_filter(processes=processes, device=device)))
    _require_all(_install(_last_filter()))


def _install(program: bytes, flags: int = 0) -> int:
    buffer = ctypes.create_string_buffer(program)
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
    # For all threads. The second flag keeps older kernels from slowing the process's branches down.
    flags |= _ALL_THREADS | _NO_SLOWER_BRANCHES
    number = numbers(platform.machine())["seccomp"]
    return require(syscall(number, _SET_FILTER, flags, ctypes.c_char_p(header)), "seccomp")


def _require_all(found: int) -> None:
    if found > 0:  # then no thread is confined
        raise OSError(errno.EBUSY, f"seccomp: thread {found} has filters of its own")


# -- refused calls ---------------------------------------------------------------------------------------

_RECEIVE, _ANSWER = 0xC0502100, 0xC0182101  # SECCOMP_IOCTL_NOTIF_RECV, _SEND
_AT_ONCE = 100  # a limit, so that a child cannot keep the parent from its watch


class Refusals:
    """The parent's side: it answers the kernel's question about each call with a refusal."""

    def __init__(self) -> None:
        self._own, self.others = socket.socketpair()  #: `others`: the child's end
        self._own.setblocking(False)
        self._listener: int | None = None
        self._seen: set[int] = set()

    def fileno(self) -> int:
        """The descriptor to wait for; -1 once no more questions can come."""
        return self._own.fileno() if self._listener is None else self._listener

    def answer(self) -> list[str]:
        """Refuse the waiting calls. Returns the names of calls that are new."""
        names = []
        for _ in range(_AT_ONCE):
            if self.fileno() < 0:
                break
            waits = select.poll()
            waits.register(self.fileno(), select.POLLIN)
            events = dict(waits.poll(0)).get(self.fileno(), 0)
            if not events:
                break
            if not events & select.POLLIN:
                self.close()
            elif self._listener is None:
                self._take()
            else:
                name = self._refuse(self._listener)
                names += [name] if name else []
        return names

    def close(self) -> None:
        """Stop answering. From now on such calls fail with ENOSYS."""
        self._own.close()
        self.others.close()
        if self._listener is not None and self._listener >= 0:
            os.close(self._listener)
        self._listener = -1

    def _take(self) -> None:
        try:
            _, found, _, _ = socket.recv_fds(self._own, 1, 1)
        except OSError:
            found = []
        if found:
            self._listener = found[0]
        else:
            self.close()

    def _refuse(self, listener: int) -> str | None:
        asked = bytearray(80)
        known = {number: name for name, number in numbers(platform.machine()).items()}
        try:
            fcntl.ioctl(listener, _RECEIVE, asked, True)
            which, _, _, number = struct.unpack_from("=QIIi", asked)
            error = errno.EPERM if number <= max(known) else errno.ENOSYS
            fcntl.ioctl(listener, _ANSWER, struct.pack("=Qqii", which, 0, -error, 0))
        except OSError:  # the child has ended, or was stopped and will ask again
            return None
        if number in self._seen:
            return None
        self._seen.add(number)
        return known.get(number, f"number {number}")
