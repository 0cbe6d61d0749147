"""Tests that forbidden acts are refused in a confined process, and that its memory is held."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

from creditbench.errors import ConfinedError
from creditbench.isolation.confined import Confined, Limits
from creditbench.machine.child import Send

_MEMORY = 128 << 20  # bytes, more than a Python without libraries takes
_LEASE, _SIGNAL, _SIGCONT = 1024, 10, 18


def probe() -> dict[str, Any]:
    """name of an act -> whether it is refused in a confined process here. Raises `ConfinedError`."""
    with tempfile.NamedTemporaryFile() as file:
        order = {"file": file.name, "parent": os.getpid()}
        with Confined("creditbench.isolation.tryout:attempt", order, limits=Limits(seconds=30.0)) as child:
            found = child.receive()
            child.send(hide=True)
            try:
                child.receive()
                return found | {"hidden files": False}
            except ConfinedError as error:
                return found | {"hidden files": error.status == "invalid"}


def memory() -> str:
    """What holds the memory of a confined process here, tried out, in words. Raises `ConfinedError`."""
    limits = Limits(seconds=30.0, memory=_MEMORY, file_bytes=1 << 20)
    with Confined("creditbench.isolation.tryout:allocate", {}, limits=limits) as child:
        held = "counted" if child.group is None else "control group v2"
        try:
            child.receive()
        except ConfinedError as error:
            if error.status != "oom":
                raise
            return held
    return "not held"


def allocate(order: Mapping[str, Any], send: Send) -> None:
    """In the child: take eight times the memory that it may, at once."""
    kept = b"x" * (8 * _MEMORY)
    time.sleep(2.0)  # the watch checks several times a second
    send(kept=len(kept))


def attempt(order: Mapping[str, Any], send: Send) -> None:
    """In the child: try each forbidden act and send which were refused. On an order, hide a file."""
    libc = ctypes.CDLL(None, use_errno=True)
    file = os.fsencode(order["file"])

    def refused(*acts: Callable[[], Any]) -> bool:
        return all(map(fails, acts))

    def fails(act: Callable[[], Any]) -> bool:
        try:
            return act() == -1
        except (OSError, AttributeError):  # the C library has no such call
            return True

    def fork() -> int:
        # Not through Python, whose own refusal would prove nothing.
        number = libc.fork()
        if number == 0:
            os._exit(0)
        return number

    own = os.open("own", os.O_RDWR | os.O_CREAT, 0o600)
    event = struct.pack("=Qii48x", 0, _SIGCONT, 0)
    send(
        files=refused(lambda: os.close(os.open(order["file"], os.O_RDONLY))),
        processes=refused(fork),
        network=refused(lambda: libc.socket(2, 1, 0)),
        signals=refused(lambda: libc.kill(order["parent"], 0)),
        modes=refused(
            lambda: libc.chmod(file, 0o600),
            lambda: libc.chown(file, -1, -1),
            lambda: libc.utimensat(-100, file, None, 0),
        ),
        attributes=refused(lambda: libc.setxattr(file, b"user.tried", b"", 0, 0)),
        leases=refused(lambda: libc.fcntl(own, _LEASE, 1)),
        watches=refused(lambda: libc.inotify_add_watch(libc.inotify_init1(0), file, 2)),
        timers=refused(
            lambda: libc.timer_create(1, event, ctypes.create_string_buffer(8)),
            lambda: libc.fcntl(own, _SIGNAL, _SIGCONT),
        ),
        **{"shared memory": refused(lambda: mmap.mmap(-1, mmap.PAGESIZE).close())},
    )
    if send.receive() is not None:
        os.write(own, b"hidden")
        libc.mmap(
            None, ctypes.c_size_t(mmap.PAGESIZE), mmap.PROT_READ, mmap.MAP_PRIVATE, own, ctypes.c_long(0)
        )
        os.close(own)
        os.unlink("own")
        time.sleep(2.0)  # the watch checks several times a second
        send(unseen=True)
