"""The standard streams as a shell may leave them: closed, full, without a reader, or in a narrow encoding."""

from __future__ import annotations

import io
import os
import sys
from typing import TextIO

from creditbench.errors import UsageError


class _Heedless(io.TextIOWrapper):
    """Standard error that ends no run: if it cannot be written, its lines are lost, and nothing else."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError:
            to_nowhere(2)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError:
            to_nowhere(2)


def prepare() -> None:
    """Set the streams of this process up. Raises `UsageError` if standard output is closed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # Takes the lowest free number, which a file of the run would get otherwise.
            os.open(os.devnull, os.O_RDWR)
    errors = open(2, "wb", buffering=0, closefd=False)  # noqa: SIM115 - open as long as the process is
    encoding = sys.stderr.encoding if sys.stderr else "utf-8"
    sys.stderr = _Heedless(
        io.BufferedWriter(errors), encoding=encoding, errors="backslashreplace", line_buffering=True
    )
    if (out := sys.stdout) is None:
        raise UsageError("standard output is closed: redirect it into a file, or to /dev/null")
    if isinstance(out, io.TextIOWrapper):
        out.reconfigure(errors="backslashreplace")


def to_nowhere(number: int) -> None:
    """Discard the rest of a stream's output, so that Python does not try to write it when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)


def is_real(stream: TextIO) -> bool:
    """Whether a stream is the process's own, and not one that a caller has put in its place."""
    try:
        return stream.fileno() in (1, 2)
    except (OSError, ValueError):
        return False
