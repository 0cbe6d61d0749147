"""The start of a child, before its order: its limits, and its confinement."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import resource
import signal
import socket
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

from creditbench.errors import UsageError, one_line, status_of
from creditbench.isolation.kernel import PR_SET_PDEATHSIG, confine, prctl
from creditbench.machine.child import Send

_OPEN_FILES = 256


def main(orders: int, reports: int, refusals: int) -> None:
    """Confine this process, then run the order. `refusals`: a socket to the parent's `Refusals`."""
    os.set_inheritable(refusals, False)
    send = Send(orders, reports)
    start = send.receive()
    if start is None:
        return
    if sys.platform == "linux":
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != start["parent"]:  # the parent ended before the signal was set
            os._exit(1)
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write("700")
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    limits = start["limits"]
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, _OPEN_FILES)
    _limit(resource.RLIMIT_FSIZE, limits["file_bytes"])
    if limits["cpu_seconds"] is not None:
        # The soft limit sends SIGXCPU, which names the cause. The hard limit kills without a cause.
        seconds = math.ceil(limits["cpu_seconds"])
        _limit(resource.RLIMIT_CPU, seconds, seconds + 1)
    with socket.socket(fileno=refusals) as tell:
        confine(
            [Path(path) for path in start["readable"]],
            Path(start["directory"]),
            [Path(path) for path in start["withheld"]],
            processes=limits["processes"],
            device=start["device"],
            tell=tell,
        )
    if not limits["processes"]:
        sys.addaudithook(_refuse)
    module, _, name = start["entry"].partition(":")
    try:
        getattr(import_module(module), name)(start["order"], send)
    except UsageError as error:
        send(failed="invalid", detail=str(error), usage=True)
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        send(failed=status_of(error), detail=one_line(error))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # skips a rule's exit handlers


def _limit(which: int, soft: int, hard: int | None = None) -> None:
    """Set a limit of the system, unless it is lower already. `hard`: the hard limit, `soft` if None."""
    most = resource.getrlimit(which)[1]
    hard = soft if hard is None else hard
    hard = hard if most == resource.RLIM_INFINITY else min(hard, most)
    resource.setrlimit(which, (min(soft, hard), hard))


#: Events that Python announces, with words for a message. The real refusal is the system's.
_WORDS = {
    "os.fork": "starts a process",
    "os.forkpty": "starts a process",
    "os.posix_spawn": "starts a process",
    "subprocess.Popen": "starts a process",
    "os.exec": "becomes another program",
    "os.system": "starts a process",
    "socket.__new__": "opens a socket",
    "socket.connect": "opens a connection",
    "socket.bind": "opens a socket",
    "socket.getaddrinfo": "asks the network",
}


def _refuse(event: str, args: Any) -> None:
    if event in _WORDS:
        raise PermissionError(
            errno.EPERM, f"{event} is refused: no code in a confined process {_WORDS[event]}"
        )
    if event == "os.kill" and args[0] != os.getpid():
        raise PermissionError(
            errno.EPERM, "os.kill is refused: no code in a confined process signals another"
        )
