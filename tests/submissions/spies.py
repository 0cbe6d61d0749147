"""It tries, past Python, for everything it should not have, says what it got, and goes on as BPTT."""

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
