"""A child process: its start, lines of JSON to it and from it, its log, its end.

`Child` is the parent's side, `Send` the child's. This module reports what happens to a process. Limits,
guards, retries and the meaning of a failure are left to the caller.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from creditbench.machine.posix import require_posix
from creditbench.machine.threads import thread_environment

with contextlib.suppress(ImportError):  # Windows has none, and no trial runs there
    import fcntl

_CHUNK, _CHUNKS, _MOST_LINES = 1 << 16, 16, 1000  # bytes per read; reads at a time; the most waiting lines
_LAST_LINES, _LAST_BYTES, _LONGEST_DETAIL = 3, 8192, 300


class Child:
    """A Python process that runs `program`; a context manager that kills and reaps it at the end.

    The program's first two arguments are descriptors: it reads orders from one and writes messages to the
    other (`Send`). It has no standard input. Its output goes to a log, a file without a name.

    Args:
        program: Python's arguments, as ("-m", "package.module") or ("-c", CODE).
        arguments: of the program, after the two descriptors.
        environment: its whole environment, as from `child_environment`; None: that of this process.
        isolated: Python ignores the environment and the user's folders, and writes no bytecode.
        session: it leads a session, which Ctrl-C does not reach, and which is killed as one.
        folder: its working folder; None: that of this process.
        passed: further descriptors that it inherits.
        longest: the most bytes of a line; None: any number.

    Raises:
        OSError: it cannot be started.
        UsageError: no system like this one can start it.
    """

    def __init__(
        self,
        *program: str,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        isolated: bool = False,
        session: bool = True,
        folder: Path | None = None,
        passed: Sequence[int] = (),
        longest: int | None = None,
    ) -> None:
        require_posix("a process that runs a trial or a rule's file")
        self.lines: deque[bytes] = deque()  #: lines that have arrived and wait to be taken
        self.rest = b""  #: the beginning of a line that has not arrived whole
        self.ended = False  #: it has closed its pipe, and all lines have arrived
        self._session, self._longest, self._unsent = session, longest, b""
        with contextlib.ExitStack() as opened, contextlib.ExitStack() as its_own:
            self._log: IO[bytes] = opened.enter_context(tempfile.TemporaryFile(buffering=0))
            fcntl.fcntl(self._log, fcntl.F_SETFL, os.O_APPEND)  # so that it can be emptied
            orders, self._to = os.pipe()
            self._from, reports = os.pipe()
            for descriptor in (self._to, self._from):
                os.set_blocking(descriptor, False)
                opened.callback(os.close, descriptor)
            for descriptor in (orders, reports):
                its_own.callback(os.close, descriptor)
            python = [sys.executable, "-I", "-B"] if isolated else [sys.executable, "-P"]
            self.process = subprocess.Popen(
                [*python, *program, str(orders), str(reports), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                cwd=folder,
                env=environment,
                pass_fds=(orders, reports, *passed),
                start_new_session=session,
            )
            self._opened = opened.pop_all()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.kill()
        finally:
            self._opened.close()

    # -- talking ---------------------------------------------------------------------------------

    def send(self, **values: Any) -> None:
        """Send an order. `push` sends the part that the pipe does not take now."""
        self._unsent += json.dumps(values).encode() + b"\n"
        self.push()

    def push(self) -> bool:
        """Send as much as the pipe takes. Returns whether something is left; never if nobody reads."""
        try:
            while self._unsent:
                self._unsent = self._unsent[os.write(self._to, self._unsent) :]
        except BlockingIOError:
            return True
        except BrokenPipeError:  # the child has ended, as `read` will see
            self._unsent = b""
        return False

    def read(self) -> bool:
        """Read what has arrived, without waiting, into `lines`, `rest`, `ended` and `endless`.

        A long message is read in parts. Returns whether the child has closed its pipe and all is read.
        """
        for _ in range(_CHUNKS):
            if self.ended or self.endless or len(self.lines) > _MOST_LINES:
                return self.ended
            try:
                chunk = os.read(self._from, _CHUNK)
            except BlockingIOError:
                return True
            self.ended = not chunk
            *lines, self.rest = (self.rest + chunk).split(b"\n")
            self.lines += lines
        return self.ended

    @property
    def endless(self) -> bool:
        """Whether it has sent a line that is too long; then nothing more is read."""
        return self._longest is not None and len(self.rest) > self._longest

    def fileno(self) -> int:
        """The descriptor to wait for until something can be read."""
        return self._from

    def wait(self, seconds: float | None, *others: int) -> None:
        """Wait at most `seconds` until it sends or takes something, or one of `others` can be read."""
        writing = [self._to] if self._unsent else []
        select.select([self._from, *others], writing, [], None if seconds is None else max(0.0, seconds))

    def receive(self, seconds: float | None = None) -> dict[str, Any] | None:
        """The next message; None if it has closed its pipe.

        Raises `TimeoutError` if none comes within `seconds`, `ValueError` for a line that is not JSON or too
        long.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            self.push()
            self.read()
            if self.lines:
                return json.loads(self.lines.popleft())
            if self.ended:
                return None
            if self.endless:
                raise ValueError(f"a line of more than {self._longest} bytes")
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError(f"no message within {seconds:g} s")
            self.wait(left)

    def messages(self, seconds: float | None = None) -> Iterator[dict[str, Any]]:
        """Its messages until it closes its pipe. Raises as `receive`; `seconds` is the limit per message."""
        while (message := self.receive(seconds)) is not None:
            yield message

    # -- the log ---------------------------------------------------------------------------------

    def printed(self, start: int = 0, most: int = 1 << 30) -> bytes:
        """Its output after the first `start` bytes, at most `most` bytes."""
        return os.pread(self._log.fileno(), min(most, max(0, self.size() - start)), start)

    def size(self) -> int:
        """The bytes of its output."""
        return os.fstat(self._log.fileno()).st_size

    def note(self, line: str) -> None:
        """Add a line to its output."""
        os.write(self._log.fileno(), line.encode() + b"\n")

    def forget(self) -> None:
        """Empty the log."""
        self._log.truncate(0)

    def last_lines(self, start: int = 0) -> str:
        """The last lines of its output after `start` bytes, as one line of at most 300 characters."""
        text = self.printed(max(start, self.size() - _LAST_BYTES)).decode(errors="replace")
        lines = ["".join(c for c in line if c.isprintable()).strip() for line in text.splitlines()]
        last = " | ".join([line for line in lines if line][-_LAST_LINES:])
        return last if len(last) <= _LONGEST_DETAIL else "…" + last[-_LONGEST_DETAIL:]

    def last_line(self) -> str:
        """The last line of its output, unchanged; empty if there is none."""
        return (self.printed().decode(errors="replace").strip().splitlines() or [""])[-1]

    # -- the end ---------------------------------------------------------------------------------

    def code(self, seconds: float = 0.0) -> int | None:
        """Its exit code, or minus the signal that ended it; None if it still runs after `seconds`."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def signal(self, number: int) -> None:
        """Send it a signal, unless it has ended: then another process may have its number."""
        if self.process.poll() is None:
            self.process.send_signal(number)

    def kill(self) -> None:
        """Kill it, with its session if it leads one, and wait for its end."""
        if self.process.poll() is None:
            if self._session:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self.process.pid, signal.SIGKILL)
            self.process.kill()
        self.process.wait()


_WATCHER = """
import os, select, signal, sys
seconds, process, last = float(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
if not select.select([0], [], [], seconds)[0]:
    os.write(2, last.encode())
    os.kill(process, signal.SIGKILL)
"""


@contextlib.contextmanager
def ended_after(seconds: float, last: str) -> Iterator[None]:
    """Have another process print `last` and kill this one, unless the context ends within `seconds`.

    It ends code in C too, in which Python cannot raise anything.
    """
    words = (str(seconds), str(os.getpid()), last)
    watcher = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _WATCHER, *words], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        watcher.communicate()  # it ends with its input, which ends with this process too


def ending(code: int) -> str:
    """How a process ended, in words.

    >>> ending(3), ending(-9), ending(-99)
    ('exit code 3', 'killed by SIGKILL', 'killed by signal 99')
    """
    if code >= 0:
        return f"exit code {code}"
    names = {number.value: number.name for number in signal.Signals}
    return f"killed by {names.get(-code, f'signal {-code}')}"


def child_environment(
    threads: int, device: str = "cpu", inherited: Mapping[str, str] | None = None
) -> dict[str, str]:
    """`inherited` (None: this process's environment) with the libraries' pools limited to `threads`.

    For the device `cpu`, JAX is limited to the CPU, unless the user has set something else. Otherwise it
    would start every platform that it finds, and take memory on it.
    """
    platform = {"JAX_PLATFORMS": "cpu"} if device == "cpu" else {}
    return platform | dict(os.environ if inherited is None else inherited) | thread_environment(threads)


class Send:
    """The child's end of the two pipes: `send(**values)` sends a message to the parent."""

    def __init__(self, orders: int, reports: int) -> None:
        for descriptor in (orders, reports):
            os.set_inheritable(descriptor, False)
        self._orders = os.fdopen(orders, encoding="utf-8")
        self._reports = os.fdopen(reports, "w", encoding="utf-8")

    def __call__(self, **values: Any) -> None:
        """Send a message to the parent."""
        self.line(json.dumps(values))

    def line(self, text: str) -> None:
        """Send a message that is JSON already."""
        self._reports.write(text + "\n")
        self._reports.flush()

    def receive(self) -> dict[str, Any] | None:
        """The parent's next message; None when there will be no more."""
        line = self._orders.readline()
        return json.loads(line) if line else None
