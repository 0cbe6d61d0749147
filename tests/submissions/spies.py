"""It tries all forbidden acts, not through Python, reports which worked, and goes on as BPTT."""

import ctypes
import os
import struct

from creditbench.learner import Claims, Learner, backpropagate

libc = ctypes.CDLL(None, use_errno=True)


def opens(path, flags=os.O_RDONLY):
    return libc.open(os.fsencode(path), flags, 0o600) >= 0


def forks():
    number = libc.fork()
    if number == 0:
        os._exit(0)
    return number > 0


def connects():
    """To the discard port, with TCP."""
    number = libc.socket(2, 1, 0)
    return number >= 0 and libc.connect(number, struct.pack("=HH4s8x", 2, 9 << 8, b"\x7f\0\0\1"), 16) == 0


def closes_a_file():
    """The mode of what it may only read; no file of its own either."""
    return libc.chmod(os.fsencode(os.__file__), 0o644) == 0 or libc.fchmod(0, 0o600) == 0


def notes_a_file():
    value = b"1"
    return libc.setxattr(os.fsencode(os.__file__), b"user.spy", value, len(value), 0) == 0


def holds_a_file():
    """A lease, for which anyone who opens the file waits."""
    with open(os.__file__, "rb") as file:
        return libc.fcntl(file.fileno(), 1024, 0) == 0


def watches():
    return libc.inotify_add_watch(libc.inotify_init1(0), b"/var/tmp", 0xFFF) >= 0


def wakes_itself():
    """With a signal that goes on where it stands still: by a timer, or as a descriptor becomes ready."""
    event = struct.pack("=Qii48x", 0, 18, 0)
    timed = libc.timer_create(1, event, ctypes.create_string_buffer(8)) == 0
    return timed or libc.fcntl(0, 10, 18) == 0 or libc.fcntl(0, 8, os.getpid()) == 0


def shares_memory():
    libc.mmap.restype = ctypes.c_void_p
    made = libc.mmap(None, ctypes.c_size_t(4096), 3, 0x21, -1, ctypes.c_long(0))
    return made != ctypes.c_void_p(-1).value or libc.shmget(0, 4096, 0o1600) >= 0


def reads_memory():
    return libc.process_vm_readv(os.getppid(), None, 0, None, 0, 0) == 0


TRIES = {
    "memory by ptrace": lambda: libc.ptrace(16, os.getppid(), None, None) == 0,
    "memory by process_vm_readv": reads_memory,
    "memory by /proc": lambda: opens(f"/proc/{os.getppid()}/mem"),
    "environment of the parent": lambda: opens(f"/proc/{os.getppid()}/environ"),
    "a fork": forks,
    "a socket": connects,
    "a signal": lambda: libc.kill(os.getppid(), 0) == 0,
    "a pair of sockets": lambda: libc.socketpair(1, 2, 0, ctypes.create_string_buffer(8)) == 0,
    "a turn": lambda: libc.setpriority(0, os.getppid(), 0) == 0,
    "a queued signal": lambda: libc.sigqueue(os.getppid(), 0, None) == 0,
    "a file's mode": closes_a_file,
    "a file's times": lambda: libc.utimensat(-100, os.fsencode(os.__file__), None, 0) == 0,
    "a file's owner": lambda: libc.chown(os.fsencode(os.__file__), 0, 0) == 0,
    "a file's attributes": notes_a_file,
    "a lease": holds_a_file,
    "a lock": lambda: libc.flock(os.open(os.__file__, os.O_RDONLY), 2) == 0,
    "a watch": watches,
    "a timer": wakes_itself,
    "memory of nobody": shares_memory,
    "the password file": lambda: opens("/etc/shadow"),
    "a file in /var/tmp": lambda: opens("/var/tmp/creditbench-spy", os.O_CREAT | os.O_WRONLY),
    "shared memory": lambda: opens("/dev/shm/creditbench-spy", os.O_CREAT | os.O_WRONLY),
    "a way up": lambda: libc.chroot(b".") == 0 or libc.unshare(0x10000000) == 0,
}


class Rule(Learner):
    id = "spies"
    name = "spies"
    paper = "none"
    family = "test"
    claims = Claims()

    def init(self, ops, cell, params, batch_size):
        got = [name for name, attempt in TRIES.items() if attempt()]
        if got:
            raise RuntimeError(f"got at {', '.join(got)}")
        return super().init(ops, cell, params, batch_size)

    def segment(self, ops, cell, params, state, batch, key):
        estimate = backpropagate(ops, cell, params, state["cell"], batch)
        return estimate._replace(state={"cell": estimate.state})
