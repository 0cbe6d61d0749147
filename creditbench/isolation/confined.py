"""The parent's side of a confined process: its start, what it says, the watch over it, its end."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from creditbench.errors import ConfinedError, FailureStatus, MachineError, tells_of_no_memory
from creditbench.isolation.calls import Refusals, seccomp
from creditbench.isolation.folder import remove_folder, shown, size_of
from creditbench.isolation.kernel import hide
from creditbench.isolation.watch import out_of_memory, taken, unlinked
from creditbench.machine.environment import NUMERIC_VARIABLES
from creditbench.machine.folders import PACKAGE, cache_folder, shipped
from creditbench.machine.memory import show_bytes
from creditbench.machine.threads import thread_environment

_TICK = 0.05  # seconds between two looks at a child that says nothing
_TREE_SECONDS = 0.25  # between two looks at its processes and its folder
_END_SECONDS = 5.0  # that it may take to end once it has closed its pipe
_LONGEST_LINE = 16 << 20
_LEAST_FREE = 1 << 20  # bytes on a disk that is not full
_MOST_THREADS = 512 + 16 * (os.cpu_count() or 1)  # libraries have pools of as many as there are cores
_LAST_LINES, _LONGEST_DETAIL = 3, 300
_MARK = "CREDITBENCH_CONFINED"
#: What the child keeps of the environment. The thread pools' variables are set anew.
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
    """Of one confined process and all below it."""

    seconds: float = 60.0  #: of wall-clock time, from the start
    cpu_seconds: float = math.inf  #: of processor time, its threads added up
    memory: int = 4 << 30  #: bytes resident
    file_bytes: int = 256 << 20  #: of one file, and of all that its folder holds
    processes: int = 0  #: that it may start; 0: a fork is refused


class Confined:
    """One child, as a context manager; its process and its folder are gone at the end.

    `entry`: "package.module:function", called in the child as `function(order, send)`. `order`: what JSON can say.
    `send(**values)` sends a message to the parent, `send.receive()` waits for what `Confined.send` sends. `readable`:
    files and folders that it may read beside Python's own. `threads`: of the libraries' pools. `device`: another than
    `cpu` opens the files of accelerators to it. `withhold`: whether the tasks and their data are out of its reach.

    Start it in a thread that outlives it: Linux takes the end of the thread for the end of the parent.
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
        self.given = 0  #: bytes that the parent has put into the folder, which are no part of its limit
        self._mark = uuid.uuid4().hex
        self._log: IO[bytes] = tempfile.TemporaryFile(buffering=0)
        self._buffer, self._ended = b"", False
        self._watched = self._looked = 0.0  #: when it was last watched, and when with all that it has
        self._lines: deque[bytes] = deque()
        self._refusals = Refusals()
        self._killed = out_of_memory()
        orders, self._to = os.pipe()
        self._from, reports = os.pipe()
        passed = orders, reports, self._refusals.others.fileno()
        try:
            hide(+1)
            self._began = time.monotonic()
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-B", "-c", _BOOT, str(PACKAGE.parent), *map(str, passed)],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                cwd=self.directory,
                env=self._environment(),
                pass_fds=passed,
                start_new_session=True,
            )
        except BaseException:
            self._clean()
            raise
        finally:
            os.close(orders)
            os.close(reports)
            self._refusals.others.close()
        for descriptor in (self._to, self._from):
            os.set_blocking(descriptor, False)
        try:
            self._write(self._start | {"directory": str(self.directory)})
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._kill()
        finally:
            self._clean()

    # -- talking ---------------------------------------------------------------------------------

    def messages(self) -> Iterator[dict[str, Any]]:
        """What the child sends, until it ends well. Raises `ConfinedError` where it does not.

        The iteration may be left and taken up again.
        """
        while True:
            while self._lines:
                yield self._parse(self._lines.popleft())
            if self._ended:
                self._conclude()
                return
            where = [self._from, self._refusals.fileno()]
            select.select([x for x in where if x >= 0], [], [], max(0.0, min(_TICK, self._left())))
            self._refuse()
            self._read()
            if not self._lines or time.monotonic() - self._watched > _TICK:
                self._look()

    def receive(self) -> dict[str, Any]:
        """The next message. Raises `ConfinedError` where none comes."""
        for message in self.messages():
            return message
        raise ConfinedError("crashed", "it ended before it had answered")

    def send(self, **values: Any) -> None:
        """Send a message to the child."""
        self._write(values)

    def stop(self) -> None:
        """Have all its threads stand still, until `go`."""
        self._signal(signal.SIGSTOP)

    def go(self) -> None:
        """End a `stop`."""
        self._signal(signal.SIGCONT)

    def extend(self, seconds: float) -> None:
        """Let the deadline be `seconds` from now."""
        self._began = time.monotonic() + seconds - self.limits.seconds

    def fault(self) -> str:
        """What the machine lacks that a child needs, in words; empty where there is nothing."""
        if not os.path.isdir(self._folder):
            return f"its folder {self._folder} was removed"
        if shutil.disk_usage(self._folder).free < _LEAST_FREE:
            return f"the disk of its folder {self._folder} is full"
        return ""

    def last_lines(self) -> str:
        """The last lines that it has printed, in one."""
        size = os.fstat(self._log.fileno()).st_size
        text = os.pread(self._log.fileno(), 8192, max(0, size - 8192)).decode(errors="replace")
        lines = ["".join(c for c in line if c.isprintable()).strip() for line in text.splitlines()]
        last = " | ".join([line for line in lines if line][-_LAST_LINES:])
        return last if len(last) <= _LONGEST_DETAIL else "…" + last[-_LONGEST_DETAIL:]

    def printed(self, start: int = 0) -> bytes:
        """What it has printed after its first `start` bytes, 16 MiB at most."""
        return os.pread(self._log.fileno(), 16 << 20, start)

    def _write(self, values: Mapping[str, Any]) -> None:
        line = json.dumps(values).encode() + b"\n"
        while line:
            try:
                line = line[os.write(self._to, line) :]
            except BlockingIOError:
                select.select([], [self._to], [], max(0.0, min(_TICK, self._left())))
                self._look()
            except BrokenPipeError:
                return  # its end will be seen

    def _read(self) -> None:
        while True:
            try:
                chunk = os.read(self._from, 1 << 16)
            except BlockingIOError:
                return
            if not chunk:
                self._ended = True
                return
            *lines, self._buffer = (self._buffer + chunk).split(b"\n")
            self._lines += lines
            if len(self._buffer) > _LONGEST_LINE:
                raise ConfinedError("invalid", "it sent a line without end")
            if len(self._lines) > 1000:
                return  # as fast as they are taken

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
                if self.refused and os.strerror(errno.EPERM) in detail:  # which says of nothing what it was
                    detail += f" (refused: {', '.join(self.refused)})"
                raise ConfinedError(status, shown(detail, 1000), usage=message.get("usage") is True)
            raise ConfinedError("invalid", "it sent a failure of no known kind")
        return message

    def _refuse(self) -> None:
        """Refuse the system calls that it asks about; each is named once in what it has printed."""
        for name in self._refusals.answer():
            self.refused.append(name)
            line = f"the system call {name} is refused: no code in a confined process needs it\n"
            os.write(self._log.fileno(), line.encode())

    # -- watching --------------------------------------------------------------------------------

    def _left(self) -> float:
        return self._began + self.limits.seconds - time.monotonic()

    def _look(self) -> None:
        """Raise `ConfinedError` where a limit is passed."""
        self._watched = time.monotonic()
        self._refuse()
        if self._left() < 0:
            raise ConfinedError("timeout", f"no result within {self.limits.seconds:g} s")
        full = time.monotonic() - self._looked >= _TREE_SECONDS
        members = [self.process.pid]
        if full and (self.limits.processes or not seccomp()):
            members += _below(self.process.pid)
        memory, threads = (sum(figures) for figures in zip(*map(taken, members), strict=True))
        if memory > self.limits.memory:
            raise ConfinedError(
                "oom",
                f"{show_bytes(memory)} of memory taken, over the limit of {show_bytes(self.limits.memory)}",
            )
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
                f"{show_bytes(written)} in its working folder, over the limit of {show_bytes(self.limits.file_bytes)}",
            )

    def _conclude(self) -> None:
        """Raise `ConfinedError` unless the child, which has closed its pipe, ended well."""
        deadline = time.monotonic() + _END_SECONDS
        while (code := self.process.poll()) is None and time.monotonic() < deadline:
            self._look()
            time.sleep(0.002)
        if code == 0 and not self._buffer:
            return
        said = self.last_lines()
        if code is None:
            detail = "it closed its pipe and went on"
        elif code == 0:
            detail = "it ended in the middle of a message"
        elif -code == signal.SIGXCPU:
            raise ConfinedError("timeout", f"more than {self.limits.cpu_seconds:g} s of processor time taken")
        elif code < 0:
            names = {number.value: number.name for number in signal.Signals}
            detail = f"killed by {names.get(-code, f'signal {-code}')}"
            if -code == signal.SIGKILL and self.limits.cpu_seconds == math.inf:
                if out_of_memory() == self._killed:
                    raise MachineError("its process was killed from outside, by SIGKILL")
                raise ConfinedError("oom", "killed by SIGKILL as the system ran out of memory")
        else:
            detail = f"exit code {code}"
        status: FailureStatus = "oom" if code and tells_of_no_memory(said) else "crashed"
        raise ConfinedError(status, f"{detail}: {said}" if said else detail)

    # -- the end ---------------------------------------------------------------------------------

    def _signal(self, number: int) -> None:
        if self.process.poll() is None:  # else its number may be another's by now
            self.process.send_signal(number)

    def _kill(self) -> None:
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.kill()
        self.process.wait()
        if self.limits.processes or not seccomp():
            _kill_marked(self._mark)

    def _clean(self) -> None:
        hide(-1)
        for descriptor in (self._to, self._from):
            os.close(descriptor)
        self._refusals.close()
        self._log.close()
        remove_folder(self._folder)

    def _environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        if self.device == "cpu":
            kept.setdefault("JAX_PLATFORMS", "cpu")
        folder = str(self.directory)
        return kept | thread_environment(self.threads) | {"HOME": folder, "TMPDIR": folder, _MARK: self._mark}


def _below(number: int) -> list[int]:
    """The processes that a process has started, and theirs."""
    import psutil

    try:
        return [process.pid for process in psutil.Process(number).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def withheld() -> list[Path]:
    """What no confined process reads: the tasks with their data, the cache, and the data sets that libraries bring."""
    import sysconfig

    libraries = {Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")}
    brought = [path for folder in libraries for path in folder.glob("*/datasets/data")]
    return [path.resolve() for path in (shipped("tasks"), cache_folder(), *brought)]


def _kill_marked(mark: str) -> None:
    """Kill what has left its session, wherever it is (where the system refuses no fork), and wait until it is gone.

    One that forks as it is killed leaves another, so that they are looked for until none is found.
    """
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
