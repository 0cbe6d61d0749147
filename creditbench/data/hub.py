"""A data set of the Hugging Face hub, or a local folder that is laid out as one."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from creditbench.data.loading import PACKED, Splits, check_size, columns_of, quiet_datasets, reason_of
from creditbench.errors import UsageError
from creditbench.machine.folders import cache_folder

HUB = "hf:"  #: how the name of such a source begins


def absolute(source: str) -> str:
    """`source` with an absolute path, so that it names the same data from any working folder.

    >>> absolute("hours.csv") == str(Path("hours.csv").resolve()), absolute("hf:ylecun/mnist")
    (True, 'hf:ylecun/mnist')
    """
    if not source.startswith(HUB):
        return str(Path(source).expanduser().resolve())
    name, config = _name(source)
    if not _is_folder(name):
        return source
    return f"{HUB}{Path(name).expanduser().resolve()}" + (f":{config}" if config else "")


def _name(source: str) -> tuple[str, str | None]:
    """`hf:NAME` or `hf:NAME:CONFIG` as (NAME, CONFIG)."""
    name, _, config = source.removeprefix(HUB).partition(":")
    return name, config or None


def _is_folder(name: str) -> bool:
    return name.startswith((".", "/", "~")) or Path(name).is_dir()


def from_hub(source: str) -> tuple[str, str, Callable[[], Splits]]:
    """(name in messages, fingerprint of the content, function that reads the splits) of a hub data set."""
    name, config = _name(source)
    what = f"hub data set '{name}'" + (f", configuration '{config}'," if config else "")
    if not _is_folder(name):
        # `datasets` keeps a fetched data set under its commit, and finds it there without a network.
        loaded = _load(what, name, config, cache_folder() / "hub")
        fingerprint = "-".join(split._fingerprint for split in loaded.values())
        return what, fingerprint, lambda: _hub_columns(what, loaded)

    folder = Path(name).expanduser()
    fingerprint = repr((config, _fingerprint(what, folder)))

    def columns() -> Splits:
        # `datasets` does not notice that a folder has changed, so its cache of one is thrown away.
        with tempfile.TemporaryDirectory() as temporary:
            loaded = _load(what, str(folder), config, Path(temporary))
            return _hub_columns(what, loaded)

    return what, fingerprint, columns


def _hub_columns(what: str, loaded: Mapping[str, Any]) -> Splits:
    try:
        return {split: columns_of(part, alone=False) for split, part in loaded.items()}
    except (UsageError, MemoryError):
        raise
    except Exception as error:  # decoders raise any kind of error on broken bytes
        raise UsageError(f"{what} cannot be read ({reason_of(error)}): mend it or name another") from None


def _fingerprint(what: str, folder: Path) -> str:
    """The sha256 of a folder's files. Raises UsageError if it is missing, too large or has a packed file."""
    if not folder.is_dir():
        raise UsageError(f"{what} is a folder that does not exist: check the path")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    check_size(what, sum(path.stat().st_size for path in files))
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            if file.read(8).startswith(PACKED):
                raise UsageError(f"{what} has a packed file, '{path.relative_to(folder)}': unpack it first")
            file.seek(0)
            digest.update(repr(path.relative_to(folder).as_posix()).encode())
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _load(what: str, name: str, config: str | None, cache: Path) -> dict[str, Any]:
    """The train split, and the test split if there is one."""
    with quiet_datasets() as datasets:
        try:
            loaded = datasets.load_dataset(name, config, cache_dir=str(cache))
        except Exception as error:  # no network, no such data set, no right to it, bad data in it, ...
            offline = datasets.config.HF_HUB_OFFLINE
            raise _not_loaded(what, Path(name).expanduser().is_dir(), offline, cache, error) from None
    splits = {split: loaded[split] for split in ("train", "test") if split in loaded}
    if "train" not in splits:
        raise UsageError(f"{what} has no train split but {', '.join(loaded)}: name one that has")
    check_size(what, sum(part.data.nbytes for part in splits.values()))
    return splits


def _not_loaded(what: str, local: bool, offline: bool, cache: Path, error: Exception) -> UsageError:
    reason = reason_of(error).partition(" Example of usage")[0]
    if "onfig name is missing" in reason or "BuilderConfig" in reason:
        return UsageError(f"{what} cannot be loaded ({reason}): name one as hf:NAME:CONFIG")
    if local:
        return UsageError(f"{what} cannot be loaded ({reason}): mend the folder or name another")
    embedded = "or leave out --data, and the task takes its embedded data"
    if offline:
        return UsageError(
            f"{what} cannot be loaded: HF_HUB_OFFLINE is set and it is not in '{cache}'; fetch it first, "
            f"with the same command and HF_HUB_OFFLINE=0 where there is a network, {embedded}"
        )
    return UsageError(
        f"{what} cannot be loaded ({reason}): check its name and the network, name a file, {embedded}"
    )
