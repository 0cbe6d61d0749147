"""The parent's side of a confined process: start, messages, watch, end."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import shutil
import signal
import sysconfig
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from creditbench.errors import ConfinedError, FailureStatus, MachineError, tells_of_no_memory
from creditbench.isolation.calls import Refusals, seccomp
from creditbench.isolation.folder import remove_folder, shown, size_of
from creditbench.isolation.group import ControlGroup, place
from creditbench.isolation.kernel import hide
from creditbench.isolation.watch import out_of_memory, taken, unlinked
from creditbench.machine.child import Child, child_environment, ending
from creditbench.machine.environment import NUMERIC_VARIABLES
from creditbench.machine.folders import PACKAGE, cache_folder, shipped
from creditbench.machine.memory import show_bytes

_TICK = 0.05  # seconds between two checks of a silent child
_TREE_SECONDS = 0.25  # between two checks of its processes and its folder
_END_SECONDS = 5.0  # time limit for a child to end after it has closed its pipe
_LONGEST_LINE = 16 << 20
_LEAST_FREE = 1 << 20  # with fewer free bytes a disk is full
_MOST_THREADS = 512 + 16 * (os.cpu_count() or 1)  # libraries have pools with one thread per core
_WALL = 8  # times as many may be in its control group: the watch, which says why, comes first
_MARK = "CREDITBENCH_CONFINED"
#: Environment variables that the child inherits. Those of the thread pools are set anew.
_KEPT = (
    *("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH"),
    *("JAX_PLATFORMS", "CUDA_VISIBLE_DEVICES", "XLA_PYTHON_CLIENT_PREALLOCATE"),
    *NUMERIC_VARIABLES,
)
_BOOT = """
import sys
root = sys.argv.pop(1)
if root not in sys.path:
    sys.path.insert(0, root)
from creditbench.isolation.child import main
main(*map(int, sys.argv[1:4]))
"""


@dataclass(frozen=True)
class Limits:
    """Limits of one confined process and of all processes below it."""

    seconds: float = 60.0  #: of wall-clock time, from the start
    cpu_seconds: float = math.inf  #: of processor time, over all threads
    memory: int = 4 << 30  #: bytes; a control group ends it at `file_bytes` more, of any kind
    file_bytes: int = 256 << 20  #: of one file, and of all files in its folder
    processes: int = 0  #: the most that it may start; 0: a fork is refused


class Confined:
    """One child, as a context manager. Its process and its folder are removed at the end.

    `entry`: "package.module:function", called in the child as `function(order, send)`. `order`: JSON values.
    `send(**values)` sends a message to the parent; `send.receive()` waits for a message of `Confined.send`.
    `readable`: files and folders that it may read beside Python's own. `threads`: size of the libraries'
    pools. `device`: other than `cpu`, it may use the files of accelerators. `withhold`: whether the tasks and
    their data are hidden from it.

    Start it in a thread that outlives it: Linux treats the end of the thread as the end of the parent.
    """

    def __init__(
        self,
        entry: str,
        order: Mapping[str, Any],
        *,
        readable: Sequence[Path] = (),
        limits: Limits | None = None,
        threads: int = 1,
        device: str = "cpu",
        withhold: bool = True,
    ) -> None:
        self.limits, self.threads, self.device = limits or Limits(), threads, device
        self.refused: list[str] = []  #: names of system calls
        self._start = {
            "entry": entry,
            "order": dict(order),
            "readable": [str(Path(path).resolve()) for path in readable],
            "limits": {
                name: None if value == math.inf else value for name, value in asdict(self.limits).items()
            },
            "withheld": [str(path) for path in withheld()] if withhold else [],
            "parent": os.getpid(),
            "device": device,
        }

    def __enter__(self) -> Confined:
        self._folder = tempfile.mkdtemp(prefix="creditbench-")
        self.directory = Path(self._folder).resolve()
        self.given = 0  #: bytes that the parent has put into the folder; they do not count for the limit
        self._mark = uuid.uuid4().hex
        self._watched = self._looked = 0.0  #: times of the last check, and of the last full check
        self._refusals = Refusals()
        self._killed = out_of_memory()
        with contextlib.ExitStack() as opened:
            opened.callback(remove_folder, self._folder)
            self.group = self._make_group()  #: its control group; None: the watch alone counts
            if self.group is not None:
                opened.callback(self.group.remove)
            opened.callback(self._refusals.close)
            opened.callback(hide, -1)
            hide(+1)
            self._began = time.monotonic()
            asks = self._refusals.others.fileno()
            self._child = Child(
                *("-c", _BOOT, str(PACKAGE.parent)),
                arguments=(str(asks),),
                environment=self._environment(),
                isolated=True,
                folder=self.directory,
                passed=(asks,),
                longest=_LONGEST_LINE,
            )
            self._refusals.others.close()
            self.process = self._child.process
            opened.push(self._child)
            opened.callback(self._kill)
            self._join_group()  # before its order
            self._write(self._start | {"directory": str(self.directory)})
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    # -- talking ---------------------------------------------------------------------------------

    def messages(self) -> Iterator[dict[str, Any]]:
        """The child's messages until it ends well. Raises `ConfinedError` if it does not.

        The iteration can be left and resumed.
        """
        child = self._child
        while True:
            while child.lines:
                yield self._parse(child.lines.popleft())
            if child.ended:
                self._conclude()
                return
            self._wait()
            self._refuse()
            child.read()
            if child.endless:
                raise ConfinedError("invalid", "it sent a line without end")
            if not child.lines or time.monotonic() - self._watched > _TICK:
                self._look()

    def receive(self) -> dict[str, Any]:
        """The next message. Raises `ConfinedError` if none comes."""
        for message in self.messages():
            return message
        raise ConfinedError("crashed", "it ended before it had answered")

    def send(self, **values: Any) -> None:
        """Send a message to the child."""
        self._write(values)

    def stop(self) -> None:
        """Stop all its threads until `go`."""
        self._child.signal(signal.SIGSTOP)

    def go(self) -> None:
        """End a `stop`."""
        self._child.signal(signal.SIGCONT)

    def extend(self, seconds: float) -> None:
        """Set the deadline to `seconds` from now."""
        self._began = time.monotonic() + seconds - self.limits.seconds

    def fault(self) -> str:
        """A fault of the machine that a child cannot work with, in words; empty if there is none."""
        if not os.path.isdir(self._folder):
            return f"its folder {self._folder} was removed"
        if shutil.disk_usage(self._folder).free < _LEAST_FREE:
            return f"the disk of its folder {self._folder} is full"
        return ""

    def last_lines(self) -> str:
        """The last lines that it has printed, as one line."""
        return self._child.last_lines()

    def printed(self, start: int = 0) -> bytes:
        """Its output after the first `start` bytes, at most 16 MiB."""
        return self._child.printed(start, 16 << 20)

    def _write(self, values: Mapping[str, Any]) -> None:
        self._child.send(**values)
        while self._child.push():
            self._wait()
            self._look()

    def _wait(self) -> None:
        """Wait until there is something to do or to check."""
        asks = self._refusals.fileno()
        self._child.wait(min(_TICK, self._left()), *([asks] if asks >= 0 else []))

    def _parse(self, line: bytes) -> dict[str, Any]:
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            said = shown(line[:100].decode(errors="replace"), 60)
            raise ConfinedError("invalid", f"it sent something that is no message: {said!r}")
        if "failed" in message:
            status, detail = message["failed"], message.get("detail")
            if status in ("oom", "crashed", "invalid") and isinstance(detail, str):
                if self.refused and os.strerror(errno.EPERM) in detail:  # the error does not name the call
                    detail += f" (refused: {', '.join(self.refused)})"
                raise ConfinedError(status, shown(detail, 1000), usage=message.get("usage") is True)
            raise ConfinedError("invalid", "it sent a failure of no known kind")
        return message

    def _refuse(self) -> None:
        """Refuse the waiting system calls. The log names each call once."""
        for name in self._refusals.answer():
            self.refused.append(name)
            self._child.note(f"the system call {name} is refused: no code in a confined process needs it")

    # -- watching --------------------------------------------------------------------------------

    def _left(self) -> float:
        return self._began + self.limits.seconds - time.monotonic()

    def _look(self) -> None:
        """Raise `ConfinedError` if a limit is passed."""
        self._watched = time.monotonic()
        self._refuse()
        if self._left() < 0:
            raise ConfinedError("timeout", f"no result within {self.limits.seconds:g} s")
        full = time.monotonic() - self._looked >= _TREE_SECONDS
        members = [self.process.pid]
        if full and (self.limits.processes or not seccomp()):
            members += _below(self.process.pid) if self.group is None else self._others(self.group)
        memory, threads = (sum(figures) for figures in zip(*map(taken, members), strict=True))
        if memory > self.limits.memory:
            raise self._beyond(memory)
        if threads > _MOST_THREADS:
            raise ConfinedError("invalid", f"it has {threads} threads, over the limit of {_MOST_THREADS}")
        if not full:
            return
        self._looked = time.monotonic()
        if len(members) - 1 > self.limits.processes:
            raise ConfinedError(
                "invalid", f"it started {len(members) - 1} processes, and may start {self.limits.processes}"
            )
        written = size_of(self._folder) + unlinked(self.process.pid, str(self.directory)) - self.given
        if written > self.limits.file_bytes:
            raise ConfinedError(
                "invalid",
                f"{show_bytes(written)} in its working folder, over the limit of "
                f"{show_bytes(self.limits.file_bytes)}",
            )

    def _others(self, group: ControlGroup) -> list[int]:
        return [number for number in group.members() if number != self.process.pid]

    def _beyond(self, memory: int) -> ConfinedError:
        """The error for so many bytes of memory."""
        limit = show_bytes(self.limits.memory)
        return ConfinedError("oom", f"{show_bytes(memory)} of memory taken, over the limit of {limit}")

    def _conclude(self) -> None:
        """Raise `ConfinedError` unless the child ended well. It has closed its pipe."""
        deadline = time.monotonic() + _END_SECONDS
        while (code := self._child.code(0.002)) is None and time.monotonic() < deadline:
            self._look()
        if code == 0 and not self._child.rest:
            return
        if self.group is not None and (memory := self.group.exceeded()):
            raise self._beyond(memory)
        said = self.last_lines()
        if code is None:
            detail = "it closed its pipe and went on"
        elif code == 0:
            detail = "it ended in the middle of a message"
        elif -code == signal.SIGXCPU:
            raise ConfinedError("timeout", f"more than {self.limits.cpu_seconds:g} s of processor time taken")
        else:
            detail = ending(code)
            if -code == signal.SIGKILL and self.limits.cpu_seconds == math.inf:
                if not self._memory_ran_out():
                    raise MachineError("its process was killed from outside, by SIGKILL")
                raise ConfinedError("oom", "killed by SIGKILL as the system ran out of memory")
        status: FailureStatus = "oom" if code and tells_of_no_memory(said) else "crashed"
        raise ConfinedError(status, f"{detail}: {said}" if said else detail)

    def _memory_ran_out(self) -> bool:
        """Whether the system has killed it for lack of memory; without a group, whether it has killed any."""
        return out_of_memory() != self._killed if self.group is None else self.group.killed()

    # -- the end ---------------------------------------------------------------------------------

    def _make_group(self) -> ControlGroup | None:
        """A control group; None if it can have none. Files count in it too if their disk is memory."""
        folder = place()
        if folder is None:
            return None
        with contextlib.suppress(OSError):  # the place was lost since; the watch goes on
            tasks = _WALL * _MOST_THREADS + self.limits.processes
            return ControlGroup(folder, self.limits.memory + self.limits.file_bytes, tasks)
        return None

    def _join_group(self) -> None:
        if self.group is not None:
            try:
                self.group.add(self.process.pid)
            except OSError:
                self.group = None

    def _kill(self) -> None:
        self._child.kill()
        if self.group is None and (self.limits.processes or not seccomp()):
            _kill_marked(self._mark)

    def _environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        folder = str(self.directory)
        own = {"HOME": folder, "TMPDIR": folder, _MARK: self._mark}
        return child_environment(self.threads, self.device, kept) | own


def _below(number: int) -> list[int]:
    """All descendants of a process."""
    # The guard of a worker imports this package, and is to stay small.
    import psutil

    try:
        return [process.pid for process in psutil.Process(number).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def withheld() -> list[Path]:
    """The paths hidden from confined processes: tasks with their data, the cache, libraries' data sets."""
    libraries = {Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")}
    brought = [path for folder in libraries for path in folder.glob("*/datasets/data")]
    return [path.resolve() for path in (shipped("tasks"), cache_folder(), *brought)]


def _kill_marked(mark: str) -> None:
    """Kill marked processes that have left their session, and wait for their end.

    They exist only if the system does not refuse forks. A process that forks while it is killed leaves
    another one, so the search goes on until none is left.
    """
    # The guard of a worker imports this package, and is to stay small.
    import psutil

    deadline = time.monotonic() + _END_SECONDS
    while time.monotonic() < deadline:
        found = False
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):  # it has ended, or is another user's
                if process.environ().get(_MARK) == mark:
                    process.kill()
                    found = True
        if not found:
            return
        time.sleep(0.005)
