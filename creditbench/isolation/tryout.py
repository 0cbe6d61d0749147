"""What a confined process is refused, tried out."""

from __future__ import annotations

import ctypes
import os
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

from creditbench.isolation.child import Send
from creditbench.isolation.confined import Confined, Limits


def probe() -> dict[str, Any]:
    """What a confined process is in fact refused here: name -> True where it is. Raises `ConfinedError`."""
    with tempfile.NamedTemporaryFile() as file:
        order = {"file": file.name, "parent": os.getpid()}
        with Confined("creditbench.isolation.tryout:attempt", order, limits=Limits(seconds=30.0)) as child:
            return child.receive()


def attempt(order: Mapping[str, Any], send: Send) -> None:
    """In the child: attempt what it is to be refused, and say what was."""
    libc = ctypes.CDLL(None, use_errno=True)

    def refused(act: Callable[[], Any]) -> bool:
        try:
            return act() == -1
        except OSError:
            return True

    def fork() -> int:
        # Past Python, whose own answer would be no proof.
        number = libc.fork()
        if number == 0:
            os._exit(0)
        return number

    send(
        files=refused(lambda: os.close(os.open(order["file"], os.O_RDONLY))),
        processes=refused(fork),
        network=refused(lambda: libc.socket(2, 1, 0)),
        signals=refused(lambda: libc.kill(order["parent"], 0)),
    )
