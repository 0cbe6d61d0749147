"""Files that a child has written. They cannot be trusted."""

from __future__ import annotations

import contextlib
import io
import math
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from creditbench.errors import ConfinedError


def read_bytes(path: Path, most: int) -> bytes:
    """The content of a plain file that a child has written, of at most `most` bytes.

    Raises `ConfinedError` ("invalid") for anything else.
    """

    def refuse(why: str) -> ConfinedError:
        return ConfinedError("invalid", f"the file {path.name} {why}")

    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise refuse(f"cannot be opened ({error.strerror})") from None
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise refuse("is no plain file")
        content = file.read(most + 1)
    if len(content) > most:
        raise refuse(f"has more than {most} bytes")
    return content


def read_arrays(path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: str) -> dict[str, Any]:
    """The expected arrays of an .npz file that a child has written. Nothing in the file is run.

    The file is opened only if it is a plain file, and no more bytes are read than the expected arrays have.
    Raises `ConfinedError` ("invalid") for any other content.
    """
    # The guard of a worker imports this module, and is to stay small.
    import numpy as np

    def refuse(why: str) -> ConfinedError:
        return ConfinedError("invalid", f"the snapshot {shown(why, 300)}")

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
                raise refuse(f"holds {shown(', '.join(names)) or 'nothing'}, not {', '.join(shapes)}")
            for name, shape in shapes.items():
                member = archive.getinfo(f"{name}.npy")
                # Compressed data could become larger than the archive says.
                if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
                    raise refuse(f"has {name} compressed: it must be stored as it is")
                if member.file_size > sizes[name]:
                    raise refuse(f"has too many bytes for {name} {list(shape)}")
                data = archive.read(member)
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
        raise refuse(f"is no .npz file ({type(error).__name__}: {error})") from None
    return found


def size_of(folder: str) -> int:
    """Bytes that a folder takes on the disk. Links are not followed.

    Raises `ConfinedError` ("invalid") if something in it is closed to its owner, or so deep that it has no
    path: files could be hidden there.
    """
    total, waiting = 0, [folder]
    while waiting:
        path = waiting.pop()
        with _looked_at(path, folder), os.scandir(path) as entries:
            for entry in entries:
                total += 4096  # of its inode
                with _looked_at(entry.path, folder):
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
    return total


@contextlib.contextmanager
def _looked_at(path: str, folder: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        pass  # removed since
    except OSError as error:
        inside = shown(os.path.relpath(path, folder))
        raise ConfinedError(
            "invalid", f"{inside} in its working folder cannot be looked at ({error.strerror})"
        ) from None


def shown(text: str, most: int = 100) -> str:
    """A child's text for a message: short, on one line, without control characters."""
    text = "".join(c for c in text if c.isprintable())
    return text if len(text) <= most else text[: most - 1] + "…"


def remove_folder(folder: str) -> None:
    """Remove a folder with any content."""

    def open_up(_: Any, path: str, __: Any) -> None:
        # Closed is either the entry that could not be removed, or its folder. Never go above the top folder.
        for name in (path,) if path == folder else (os.path.dirname(path), path):
            with contextlib.suppress(OSError):
                if not os.path.islink(name):
                    os.chmod(name, 0o700)
        with contextlib.suppress(OSError):
            os.rmdir(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)

    for _ in range(2):  # the first pass may only open closed folders
        if os.path.lexists(folder):
            with contextlib.suppress(RecursionError):
                shutil.rmtree(folder, onerror=open_up)
    if os.path.lexists(folder):  # deeper than Python goes
        subprocess.run(["rm", "-rf", "--", folder], stderr=subprocess.DEVNULL, check=False)
    if os.path.lexists(folder):
        print(f"note: the folder {folder} could not be removed", file=sys.stderr, flush=True)
