"""Small files: read whole or refused with a sentence, and written whole or not at all.

Files that a user names (configurations, tuned files, records, tables) are read here. A pipe, a device, a
folder or a file without end is refused without waiting. A new file is written beside its place and then
renamed.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
import secrets
import stat
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from creditbench.errors import UsageError, reason

#: The most bytes of a file: of a text that people write, and of a table.
MOST_TEXT = 1 << 20
MOST_TABLE = 1 << 30
#: Opens a file to read its bytes. Windows has the last flag alone, without which it would change line ends.
_READ = os.O_RDONLY
for _flag in ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):
    _READ |= getattr(os, _flag, 0)
#: Digits of the longest whole number that fits into 64 bits.
_DIGITS = 20
_PARTS = 64
_DOTTED = re.compile(rf"""(?:(?<![\w-])(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){{{_PARTS - 1}}}""")
#: The deepest nesting of values.
DEPTH = 32

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


class NotAFileError(ValueError):
    """A path is not a file that can be read whole. The message says why, as "it is a pipe"."""


def read(path: str | os.PathLike[str], most: int = MOST_TABLE) -> bytes:
    """The content of a regular file of at most `most` bytes. Raises OSError and `NotAFileError`."""
    try:
        # Opening a pipe must not wait for its writer.
        descriptor = os.open(path, _READ)
    except ValueError as error:  # a path with a zero byte in it
        raise NotAFileError(str(error)) from None
    try:
        found = os.fstat(descriptor)
        _require_regular(found.st_mode)
        # A small file comes in one call, with no buffer between.
        content = os.read(descriptor, min(found.st_size, most) + 1)
        if len(content) != found.st_size:
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                content += file.read(most + 1 - len(content))
    finally:
        os.close(descriptor)
    if len(content) > most:
        raise NotAFileError(f"it has more than {most:,} bytes")
    return content


def _require_regular(mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = next((name for test, name in _KINDS if test(mode)), "something else")
        raise NotAFileError(f"it is {kind} and no regular file")


# -- content -----------------------------------------------------------------------------------------------


def parse_json(content: bytes | str) -> Any:
    """The value of a JSON text. Raises ValueError, also for numbers that are not finite and repeated keys.

    >>> parse_json('{"a": 1, "a": 2}')
    Traceback (most recent call last):
    ValueError: the key 'a' is there twice
    """
    text = content if isinstance(content, str) else content.decode("utf-8-sig")
    try:
        found = json.loads(
            text, parse_constant=_no_number, parse_float=_float, parse_int=_int, object_pairs_hook=_object
        )
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    return found


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no finite number")


def _float(text: str) -> float:
    if not math.isfinite(value := float(text)):
        _no_number(text[:20])
    return value


def _int(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError(f"the number {text[:12]}… has {len(text)} digits")
    return int(text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(n for n in names if names.count(n) > 1)!r} is there twice")
    return found


def parse_toml(content: bytes) -> dict[str, Any]:
    """The tables of a TOML text, with or without a byte order mark. Raises ValueError."""
    text = content.decode("utf-8-sig")
    if _DOTTED.search(text):
        raise ValueError(f"a key has {_PARTS} parts or more")  # tomllib's time grows with their square
    try:
        return require_plain(tomllib.loads(text))
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def read_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The tables of a TOML file. Raises `UsageError` if it cannot be read."""
    try:
        return parse_toml(read(Path(path).expanduser(), MOST_TEXT))
    except (OSError, NotAFileError) as error:
        raise UsageError(f"file '{path}' cannot be read ({reason(error)}): check the path") from None
    except ValueError as error:
        raise UsageError(f"file '{path}' is not TOML ({reason(error)}): mend it") from None


def require_plain(value: Any, depth: int = DEPTH) -> Any:
    """`value`, if JSON can express it: finite numbers of 64 bits, texts that UTF-8 can encode.

    Raises ValueError for any other value.
    """
    if isinstance(value, str):
        value.encode("utf-8")  # raises a ValueError for a lone surrogate
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} is no finite number")
    elif isinstance(value, int):  # and bool
        if not -(2**63) <= value < 2**64:
            raise ValueError("a whole number has more than 64 bits")
    elif isinstance(value, dict | list | tuple):
        if depth == 0:
            raise ValueError("it is nested too deep")
        for inner in value.values() if isinstance(value, dict) else value:
            require_plain(inner, depth - 1)
        for name in value if isinstance(value, dict) else ():
            if not isinstance(name, str):
                raise ValueError(f"the key {name!r} is no text")
            require_plain(name, depth - 1)
    elif value is not None:
        raise ValueError(f"a value is of the type {type(value).__name__}")
    return value


# -- writing -------------------------------------------------------------------------------------------------


def require_picture(output: Path) -> None:
    """Raise `UsageError` if the suffix of a file is not a picture format."""
    if output.suffix not in (".png", ".pdf", ".svg"):
        raise UsageError(f"output '{output}' has no known suffix: end it in .png, .pdf or .svg")


@contextlib.contextmanager
def replacing(*paths: Path, names: bool = True) -> Iterator[list[Path]]:
    """New files beside `paths`, to write in the body. They replace `paths` once all are on the disk.

    Then their names are written through to the disk too, unless the caller does it himself: `names`.
    If the body fails, they are removed and the old files stay. For a link, its target is written. Raises
    OSError, and `NotAFileError` if a path is there and is not a regular file.
    """
    places = []
    for path in paths:
        if "\0" in str(path):
            raise NotAFileError("its name has a zero byte in it")
        place = path.resolve() if path.is_symlink() else path
        with contextlib.suppress(FileNotFoundError):
            _require_regular(place.stat().st_mode)
        places.append(place)
    # With the suffix, because some writers take the format from it.
    new = [place.with_name(f".{secrets.token_hex(6)}.tmp{place.suffix[:16]}") for place in places]
    try:
        for temporary in new:
            # Made here, so that the file has the permissions of the user's umask.
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        yield new
        for temporary, place in zip(new, places, strict=True):
            with contextlib.suppress(FileNotFoundError):
                os.chmod(temporary, stat.S_IMODE(place.stat().st_mode))
            sync(temporary)
        for temporary, place in zip(new, places, strict=True):
            os.replace(temporary, place)
    except BaseException:
        for temporary in new:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        raise
    for folder in {place.parent for place in places} if names else ():
        sync(folder)


def write(path: Path, content: bytes, names: bool = True) -> None:
    """Write a file whole or not at all. Raises as `replacing`."""
    with replacing(path, names=names) as (temporary,):
        temporary.write_bytes(content)


def as_bytes(text: str) -> bytes:
    """A text as UTF-8. Characters that it cannot encode, as in some file names, become escapes."""
    return text.encode("utf-8", "backslashreplace")


@contextlib.contextmanager
def output(what: str, path: Path, cure: str = "name another file") -> Iterator[None]:
    """Turn an error of writing in the body into a `UsageError` with that cure."""
    try:
        yield
    except (OSError, NotAFileError) as error:
        raise UsageError(f"{what} '{path}' cannot be written ({reason(error)}): {cure}") from None


def require_writable(what: str, path: Path, cure: str = "name another file") -> None:
    """Raise `UsageError` if a file could not be written at `path`. A file that is there stays as it is."""
    with output(what, path, cure):
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(_EnoughError), replacing(path) as (temporary,):
            temporary.write_bytes(b"\n" * 4096)
            sync(temporary)
            raise _EnoughError


class _EnoughError(Exception):
    """Ends the body of `replacing` without a new file."""


def sync(path: Path) -> None:
    """Write a file's content, or a folder's names, through to the disk. Raises OSError."""
    if os.name == "nt":  # it syncs no file that is open for reading, and opens no folder
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems cannot sync a folder
            raise
    finally:
        os.close(descriptor)
