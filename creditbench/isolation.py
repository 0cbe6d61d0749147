"""Code that is not trusted, in a process of its own that can do little else than compute.

`Confined` starts one child, which calls a function of this package on an order and talks to its parent in lines of
JSON. What holds it, from the outside in:

- a new session, a scrubbed environment, a working folder that is removed afterwards, no standard input, no inherited
  descriptor but its two pipes and the log; it is killed when its parent ends (Linux);
- limits of the system on processor time, on the size of a file and on open files; no core dumps;
- a watch kept by the parent over wall-clock time, resident memory, processes and the size of the folder;
- on Linux, two confinements that need no privilege and cannot be taken off again. *Landlock* (kernel 5.13; TCP from
  6.7, signals and abstract sockets from 6.12) opens files to it: libraries and this package to read, its own folder to
  write, nothing else; the tasks, their data and the cache are not among them. *seccomp* (x86-64, arm64) refuses new
  processes and programs, sockets, signals to others, and looks into other processes.

The parent cannot be looked into while a child lives (`PR_SET_DUMPABLE`). `confinement` says what this machine has;
`missing` what it lacks.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import io
import json
import math
import os
import platform
import resource
import select
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import IO, Any, cast

from creditbench.errors import (
    ConfinedError,
    FailureStatus,
    UsageError,
    one_line,
    status_of,
    tells_of_no_memory,
)

__all__ = ["Confined", "ConfinedError", "Limits", "Send", "confinement", "missing", "probe", "read_arrays"]

_PACKAGE = Path(__file__).resolve().parent
_TICK = 0.05  # seconds between two looks at a child that says nothing
_TREE_SECONDS = 0.25  # between two looks at its processes and its folder
_END_SECONDS = 5.0  # that it may take to end once it has closed its pipe
_LONGEST_LINE = 16 << 20
_LAST_LINES, _LONGEST_DETAIL = 3, 300
_OPEN_FILES = 256
_MARK = "CREDITBENCH_CONFINED"
#: What the child keeps of the environment. The thread pools' variables are set anew.
_KEPT = (
    *("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH"),
    *("JAX_PLATFORMS", "CUDA_VISIBLE_DEVICES", "XLA_PYTHON_CLIENT_PREALLOCATE"),
)
_BOOT = """
import sys
root = sys.argv.pop(1)
if root not in sys.path:
    sys.path.insert(0, root)
from creditbench.isolation import _child
_child(int(sys.argv.pop(1)), int(sys.argv.pop(1)))
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
        self._lines: list[bytes] = []
        orders, self._to = os.pipe()
        self._from, reports = os.pipe()
        try:
            _hide(+1)
            self._began = time.monotonic()
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-B", "-c", _BOOT, str(_PACKAGE.parent), str(orders), str(reports)],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                cwd=self.directory,
                env=self._environment(),
                pass_fds=(orders, reports),
                start_new_session=True,
            )
        except BaseException:
            self._clean()
            raise
        finally:
            os.close(orders)
            os.close(reports)
        for descriptor in (self._to, self._from):
            os.set_blocking(descriptor, False)
        try:
            self._write(self._start | {"directory": str(self.directory)})
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()
        self._clean()

    # -- talking ---------------------------------------------------------------------------------

    def messages(self) -> Iterator[dict[str, Any]]:
        """What the child sends, until it ends well. Raises `ConfinedError` where it does not.

        The iteration may be left and taken up again.
        """
        while True:
            while self._lines:
                yield self._parse(self._lines.pop(0))
            if self._ended:
                self._conclude()
                return
            select.select([self._from], [], [], max(0.0, min(_TICK, self._left())))
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
            said = "".join(c for c in line[:60].decode(errors="replace") if c.isprintable())
            raise ConfinedError("invalid", f"it sent something that is no message: {said!r}")
        if "failed" in message:
            status, detail = message["failed"], message.get("detail")
            if status in ("oom", "crashed", "invalid") and isinstance(detail, str):
                text = "".join(c for c in detail if c.isprintable())[:1000]
                raise ConfinedError(status, text, usage=message.get("usage") is True)
            raise ConfinedError("invalid", "it sent a failure of no known kind")
        return message

    # -- watching --------------------------------------------------------------------------------

    def _left(self) -> float:
        return self._began + self.limits.seconds - time.monotonic()

    def _look(self) -> None:
        """Raise `ConfinedError` where a limit is passed."""
        self._watched = time.monotonic()
        if self._left() < 0:
            raise ConfinedError("timeout", f"no result within {self.limits.seconds:g} s")
        import psutil

        from creditbench.executors.base import show_bytes

        try:
            members = [psutil.Process(self.process.pid)]
            full = time.monotonic() - self._looked >= _TREE_SECONDS
            if full and (self.limits.processes or not _seccomp()):
                members += members[0].children(recursive=True)
        except psutil.NoSuchProcess:
            return
        taken = 0
        for member in members:
            with contextlib.suppress(psutil.Error):  # it has ended
                taken += member.memory_info().rss
        if taken > self.limits.memory:
            raise ConfinedError(
                "oom",
                f"{show_bytes(taken)} of memory taken, over the limit of {show_bytes(self.limits.memory)}",
            )
        if not full:
            return
        self._looked = time.monotonic()
        if len(members) - 1 > self.limits.processes:
            raise ConfinedError(
                "invalid", f"it started {len(members) - 1} processes, and may start {self.limits.processes}"
            )
        written = _size_of(self._folder) + _unlinked(self.process.pid) - self.given
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
            if -code == signal.SIGKILL:
                detail += " (as the system does when memory runs out)"
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
        if self.limits.processes or not _seccomp():
            _kill_marked(self._mark)

    def _clean(self) -> None:
        _hide(-1)
        for descriptor in (self._to, self._from):
            os.close(descriptor)
        self._log.close()
        remove_folder(self._folder)

    def _environment(self) -> dict[str, str]:
        from creditbench.executors.base import thread_environment

        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        if self.device == "cpu":
            kept.setdefault("JAX_PLATFORMS", "cpu")
        folder = str(self.directory)
        return kept | thread_environment(self.threads) | {"HOME": folder, "TMPDIR": folder, _MARK: self._mark}


# -- what a child may have written -----------------------------------------------------------------------


def read_arrays(path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: str) -> dict[str, Any]:
    """The arrays of an .npz file that a child has written, if they are those expected; nothing in it is run.

    The file may be anything: it is opened only if it is a plain one, and no more is read than what is expected takes.
    Raises `ConfinedError` ("invalid") for anything else.
    """
    import numpy as np

    def refuse(why: str) -> ConfinedError:
        return ConfinedError("invalid", f"the snapshot {why}")

    itemsize = np.dtype(dtype).itemsize
    sizes = {name: itemsize * math.prod(shape) + 4096 for name, shape in shapes.items()}
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise refuse(f"cannot be opened ({error.strerror})") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise refuse("is no plain file")
    with os.fdopen(descriptor, "rb") as file:
        most = sum(sizes.values()) + 4096
        content = file.read(most + 1)
    if len(content) > most:
        raise refuse(f"has more than the {most} bytes that its weights take")
    found = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = [member.filename for member in archive.infolist()]
            if sorted(names) != sorted(f"{name}.npy" for name in shapes):
                raise refuse(f"holds {', '.join(names) or 'nothing'}, not {', '.join(shapes)}")
            for name, shape in shapes.items():
                if archive.getinfo(f"{name}.npy").file_size > sizes[name]:
                    raise refuse(f"has too many bytes for {name} {list(shape)}")
                with archive.open(f"{name}.npy") as member:
                    data = member.read(sizes[name] + 1)
                version = np.lib.format.read_magic(header := io.BytesIO(data))
                if version != (1, 0):
                    raise refuse(f"holds {name} in another format than 1.0")
                is_shape, _, is_dtype = np.lib.format.read_array_header_1_0(header)
                if is_dtype.hasobject:
                    raise refuse(f"holds pickled objects in {name}: it must hold plain numbers")
                if is_shape != shape or is_dtype != np.dtype(dtype):
                    raise refuse(
                        f"has {name} as {is_dtype} {list(is_shape)}, which must be {dtype} {list(shape)}"
                    )
                found[name] = np.load(io.BytesIO(data), allow_pickle=False)
    except ConfinedError:
        raise
    except Exception as error:
        raise refuse(f"is no .npz file ({type(error).__name__}: {str(error)[:100]})") from None
    return found


def _size_of(folder: str) -> int:
    """Bytes that a folder takes on the disk; links are not followed."""
    total, waiting = 0, [folder]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    total += 4096  # of its inode
                    with contextlib.suppress(OSError):
                        total += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
        except OSError:
            continue  # removed since, or closed to its owner
    return total


def _unlinked(number: int) -> int:
    """Bytes of files that a process holds open and that have no name any more (Linux)."""
    total = 0
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{number}/fd"):
            with contextlib.suppress(OSError):
                found = os.stat(f"/proc/{number}/fd/{name}")
                if stat.S_ISREG(found.st_mode) and found.st_nlink == 0:
                    total += found.st_blocks * 512
    return total


def remove_folder(folder: str) -> None:
    """Remove a folder, whatever is in it."""

    def open_up(_: Any, path: str, __: Any) -> None:
        for name in (os.path.dirname(path), path):
            with contextlib.suppress(OSError):
                if not os.path.islink(name):
                    os.chmod(name, 0o700)
        with contextlib.suppress(OSError):
            os.rmdir(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)

    for _ in range(2):  # what could not be opened the first time can be the second
        if os.path.lexists(folder):
            with contextlib.suppress(RecursionError):
                shutil.rmtree(folder, onerror=open_up)
    if os.path.lexists(folder):  # deeper than Python goes
        subprocess.run(["rm", "-rf", "--", folder], stderr=subprocess.DEVNULL, check=False)
    if os.path.lexists(folder):
        print(f"note: the folder {folder} could not be removed", file=sys.stderr, flush=True)


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


# -- the child -------------------------------------------------------------------------------------------


class _Sender:
    """The child's end of the two pipes."""

    def __init__(self, orders: IO[str], reports: IO[str]) -> None:
        self._orders, self._reports = orders, reports

    def __call__(self, **values: Any) -> None:
        """Send a message to the parent."""
        self._reports.write(json.dumps(values) + "\n")
        self._reports.flush()

    def receive(self) -> dict[str, Any] | None:
        """The parent's next message; None when there will be no more."""
        line = self._orders.readline()
        return json.loads(line) if line else None


Send = _Sender


def _child(orders: int, reports: int) -> None:
    """Confine this process, then do what is ordered."""
    for descriptor in (orders, reports):
        os.set_inheritable(descriptor, False)
    send = _Sender(os.fdopen(orders, encoding="utf-8"), os.fdopen(reports, "w", encoding="utf-8"))
    start = send.receive()
    if start is None:
        return
    if sys.platform == "linux":
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != start["parent"]:  # it ended before that was set
            os._exit(1)
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write("700")
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    limits = start["limits"]
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, _OPEN_FILES)
    _limit(resource.RLIMIT_FSIZE, limits["file_bytes"])
    if limits["cpu_seconds"] is not None:
        _limit(resource.RLIMIT_CPU, math.ceil(limits["cpu_seconds"]))
    confine(
        [Path(path) for path in start["readable"]],
        Path(start["directory"]),
        [Path(path) for path in start["withheld"]],
        processes=limits["processes"],
        device=start["device"],
    )
    if not limits["processes"]:
        sys.addaudithook(_refuse)
    module, _, name = start["entry"].partition(":")
    try:
        getattr(import_module(module), name)(start["order"], send)
    except UsageError as error:
        send(failed="invalid", detail=str(error), usage=True)
    except Exception as error:
        import traceback

        traceback.print_exc(file=sys.stderr)
        send(failed=status_of(error), detail=one_line(error))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # what a rule has left to be done at the end is not done


def _limit(which: int, value: int) -> None:
    hard = resource.getrlimit(which)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (value, value))


#: What is refused in words, where Python says beforehand what it is about to do. It is the system that refuses.
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


# -- what the kernel has for it --------------------------------------------------------------------------

_PR_SET_PDEATHSIG, _PR_GET_DUMPABLE, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 3, 4, 38
_hidden = 0  # confined processes that are alive
_dumpable = 1


def _hide(change: int) -> None:
    """Keep other processes of this user from reading this one while one that is not trusted lives (Linux)."""
    global _hidden, _dumpable
    if sys.platform != "linux":
        return
    if _hidden == 0 and change > 0:
        _dumpable = _prctl(_PR_GET_DUMPABLE, 0)
        _prctl(_PR_SET_DUMPABLE, 0)
    _hidden += change
    if _hidden == 0 and change < 0:
        _prctl(_PR_SET_DUMPABLE, _dumpable)


def _prctl(option: int, value: int) -> int:
    return ctypes.CDLL(None, use_errno=True).prctl(option, ctypes.c_ulong(value), 0, 0, 0)


def _syscall(number: int, *args: Any) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    return libc.syscall(ctypes.c_long(number), *(ctypes.c_long(x) if isinstance(x, int) else x for x in args))


def confinement() -> dict[str, Any]:
    """What this machine's kernel has: `landlock`, its version or 0; `seccomp`, whether it is there."""
    return {"landlock": _landlock(), "seccomp": _seccomp()}


def missing() -> str:
    """What confined code is not kept from here, in words; empty where nothing is missing."""
    found, lacks = confinement(), []
    if not found["landlock"]:
        lacks.append("reading and writing files of this user (no Landlock)")
    elif found["landlock"] < 4 and not found["seccomp"]:
        lacks.append("the network (Landlock before its version 4)")
    if not found["seccomp"]:
        lacks.append("starting processes, of which it is noticed soon after")
        if not found["landlock"]:
            lacks.append("the network")
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
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _drop_capabilities()
    if _landlock():
        _apply_landlock(readable, writable, withheld, programs=processes > 0, device=device)
    if _seccomp():
        _apply_seccomp(processes > 0)


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
    kept = 1 << _CAP_DAC_OVERRIDE if _landlock() else 0
    header = struct.pack("=Ii", 0x20080522, 0)
    _syscall(number, ctypes.c_char_p(header), ctypes.c_char_p(struct.pack("=6I", kept, kept, 0, 0, 0, 0)))


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
def _landlock() -> int:
    """The version that the kernel has, or 0."""
    if sys.platform != "linux":
        return 0
    return max(0, _syscall(_CREATE_RULESET, None, 0, 1))


def withheld() -> list[Path]:
    """What no confined process reads: the tasks with their data, the cache, and the data sets that libraries bring."""
    import sysconfig

    from creditbench.data import cache_folder
    from creditbench.registry import shipped

    libraries = {Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")}
    brought = [path for folder in libraries for path in folder.glob("*/datasets/data")]
    return [path.resolve() for path in (shipped("tasks"), cache_folder(), *brought)]


def _apply_landlock(
    readable: Sequence[Path], writable: Path, withheld: Sequence[Path], *, programs: bool, device: str
) -> None:
    version = _landlock()
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
        for pattern in _ACCELERATORS:
            for path in Path("/").glob(pattern[1:]):
                allow(
                    path, _READ_FILE | _READ_DIR | (_WRITE_FILE | _IOCTL_DEV) * str(path).startswith("/dev")
                )
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
    "sched_setaffinity": (203, 122),
    # talk
    "socket": (41, 198),
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
_IN_PART = ("clone", "clone3", "kill", "tgkill", "prlimit64", "prctl", "seccomp")
_LOAD, _JUMP_EQUAL, _JUMP_NOT_LESS, _JUMP_BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_CLONE_THREAD = 0x10000


@cache
def _seccomp() -> bool:
    """Whether the kernel takes filters, and the calls of this machine are known."""
    if sys.platform != "linux" or platform.machine() not in _ARCHITECTURES or sys.maxsize < 2**32:
        return False
    action = ctypes.c_uint32(_ERRNO)
    return _syscall(cast(int, _number("seccomp")), 2, 0, ctypes.byref(action)) == 0


def _number(call: str) -> int | None:
    return _CALLS[call][list(_ARCHITECTURES).index(platform.machine())]


def _filter(processes: bool) -> bytes:
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
        add(
            "clone3", (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)
        )  # its flags lie in memory: the C library takes clone
        add("clone", argument, (_JUMP_BITS, 0, 1, _CLONE_THREAD), yes, no)
        for call in ("kill", "tgkill"):
            add(call, argument, (_JUMP_EQUAL, 0, 1, own), yes, no)
    add("prlimit64", argument, (_JUMP_EQUAL, 2, 0, 0), (_JUMP_EQUAL, 1, 0, own), no, yes)
    add("prctl", argument, (_JUMP_EQUAL, 0, 1, _PR_SET_PDEATHSIG), no, yes)
    program.append(yes)
    return b"".join(struct.pack("=HBBI", *line) for line in program)


def _apply_seccomp(processes: bool) -> None:
    program = _filter(processes)
    buffer = ctypes.create_string_buffer(program)
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
    # All threads alike; and no slower branches, which older kernels would put on the process else.
    _require(_syscall(cast(int, _number("seccomp")), 1, 1 | 4, ctypes.c_char_p(header)), "seccomp")


def probe() -> dict[str, Any]:
    """What a confined process is in fact refused here: name -> True where it is. Raises `ConfinedError`."""
    with tempfile.NamedTemporaryFile() as file:
        order = {"file": file.name, "parent": os.getpid()}
        with Confined("creditbench.isolation:_probe", order, limits=Limits(seconds=30.0)) as child:
            return child.receive()


def _probe(order: Mapping[str, Any], send: _Sender) -> None:
    libc = ctypes.CDLL(None, use_errno=True)

    def refused(attempt: Callable[[], Any]) -> bool:
        try:
            return attempt() == -1
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
