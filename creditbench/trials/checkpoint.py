"""Checkpoints: a trial that was cut short goes on where it was cut, bit for bit.

A checkpoint is taken after an evaluation. It has the carry (weights, optimiser's and learner's state), the
curve so far, the weights that were best on validation, and the seconds so far. All else follows from the
trial: data, order, keys. The file is named after the trial, whose id has the sha256 of all sources that can
change its numbers. So a changed rule never meets an old checkpoint.

Nothing in the file is run: it is an .npz of plain arrays, and JSON as bytes in one of them. A confined rule's
state is bytes here, which only its confined process reads.
"""

from __future__ import annotations

import io
import sys
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from creditbench.errors import reason
from creditbench.machine import files
from creditbench.trials.record import Points
from creditbench.trials.trial import Amount, Count, Number, Size, Trial

#: Seconds of a trial between two checkpoints, unless a run asks for others.
SECONDS = 60.0
#: Parts of an environment that decide rounding, or whose seconds are not to be added up.
_ENVIRONMENT = ("cpu", "accelerators", "packages", "precision", "threads", "variables")


def note(line: str) -> None:
    """A note on standard error."""
    print(f"note: {line}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Checkpoints:
    """Where checkpoints lie, one file a trial or group of trials, and how often they are taken."""

    folder: Path
    seconds: float = SECONDS  #: between two of a trial; 0: one at each evaluation
    say: Callable[[str], None] = note

    def path(self, trials: Sequence[Trial]) -> Path:
        """The file of trials that are trained as one program: it has the id of the first."""
        return self.folder / f"{trials[0].id}.npz"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RunSoFar(_Part):
    """One seed's curve, and what else of it the record is made from."""

    curve: Points
    rates: tuple[Amount, ...]  #: steps per second
    best: Number | None  #: the best metric on validation
    diverged_at: Count | None


class SoFar(_Part):
    """What a checkpoint says beside its arrays."""

    version: Literal[1] = 1
    trials: tuple[str, ...]  #: ids
    environment: dict[str, Any]
    done: Size  #: evaluations
    seconds: Amount  #: of training
    duration: Amount  #: seconds of the clock, of all processes so far
    resumed: Count  #: times that the trials went on from a checkpoint before
    runs: tuple[RunSoFar, ...]


@dataclass(frozen=True)
class Checkpoint:
    """The state of training after an evaluation."""

    so_far: SoFar
    carry: Sequence[np.ndarray]  #: as `Blocks.save` gives it
    best: Sequence[Mapping[str, np.ndarray]]  #: the best weights of each run; empty if it has none

    def write(self, path: Path) -> None:
        """Write it whole, in place of an older one. Raises OSError."""
        arrays = {f"carry {i}": array for i, array in enumerate(self.carry)}
        for i, weights in enumerate(self.best):
            arrays |= {f"best {i} {name}": array for name, array in weights.items()}
        about = np.frombuffer(self.so_far.model_dump_json().encode(), np.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(path) as (new,), new.open("wb") as file:
            np.savez(file, allow_pickle=False, about=about, **arrays)

    @classmethod
    def read(cls, path: Path) -> Checkpoint:
        """The checkpoint in a file. Raises OSError, and ValueError if it is broken or of another version."""
        try:
            with np.load(io.BytesIO(files.read(path)), allow_pickle=False) as found:
                arrays = {name: found[name] for name in found.files}
            so_far = SoFar.model_validate_json(arrays.pop("about").tobytes())
            carry = [arrays.pop(f"carry {i}") for i in range(sum(n.startswith("carry ") for n in arrays))]
            best: list[dict[str, np.ndarray]] = [{} for _ in so_far.runs]
            for name, array in arrays.items():
                _, number, weight = name.split(" ", 2)
                best[int(number)][weight] = array
        except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, IndexError, TypeError) as error:
            raise ValueError(f"it is broken: {reason(error)}") from None
        return cls(so_far, carry, best)


def same(environment: Mapping[str, Any]) -> dict[str, Any]:
    """The part of an environment that must not change while a trial is trained."""
    return {name: environment.get(name) for name in _ENVIRONMENT}


def find(
    checkpoints: Checkpoints, trials: Sequence[Trial], environment: Mapping[str, Any]
) -> Checkpoint | None:
    """The checkpoint from which these trials can go on, if there is one; why another is not used is said."""
    path = checkpoints.path(trials)
    try:
        found = Checkpoint.read(path)
        if found.so_far.trials != tuple(trial.id for trial in trials):
            raise ValueError("it is of other trials, which were trained as one program")
        if found.so_far.done >= trials[0].evaluations:
            raise ValueError("its training has ended")
        now = same(environment)
        differing = [name for name, value in now.items() if found.so_far.environment.get(name) != value]
        if differing:
            raise ValueError(f"it was made on another machine or with other versions: {', '.join(differing)}")
        return found
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        unused(checkpoints, path, error)
        return None


def unused(checkpoints: Checkpoints, path: Path, error: Exception) -> None:
    """Say why a checkpoint is not used."""
    checkpoints.say(f"checkpoint '{path}' is not used ({reason(error)}): its trial begins anew")
