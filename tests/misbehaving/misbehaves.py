"""A user's task, which is trusted. While it makes a split it does the harm that its field `how` names."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from creditbench.task import Sequences, Task, mse


@dataclass(frozen=True, kw_only=True)
class Misbehaves(Task):
    how: str = ""
    split: str = "test"  #: at which it does harm

    id = "misbehaves"
    name = "Misbehaves"
    citation = "none"
    version = 1
    protocol = "stream"
    loss = "mse"
    metric = "mse"
    metric_direction = "min"
    trivial = 1.0
    solved = 0.05
    budgets: ClassVar[dict[str, int]] = {"smoke": 40, "quick": 40, "full": 40}

    def generate(self, split, seed, batch):
        if split == self.split:
            for name in self.how.split("+"):
                HARM[name]()
        noise = self.rng(split, seed).standard_normal((300, batch, 1), np.float32)
        return Sequences(noise, np.roll(noise, 1, 0), np.ones((300, batch), np.float32))

    def score(self, outputs, sequences):
        return mse(outputs, sequences)

    def trivial_score(self, sequences):
        return float((sequences.targets**2).mean())


def allocate():
    """Take memory without end, 16 MB at a time."""
    hoard = []
    while True:
        hoard.append(np.ones(1 << 21))
        time.sleep(0.001)


def fork():
    """Leave a child that lives on."""
    if os.fork() == 0:
        time.sleep(600)
        os._exit(0)


def fork_and_allocate():
    """Have a child take the memory."""
    if os.fork() == 0:
        allocate()
    time.sleep(600)


def daemon():
    """Leave a process in a session of its own, whose parent has ended."""
    start = "import subprocess, sys; subprocess.Popen(['sleep', '600'], start_new_session=True)"
    subprocess.run([sys.executable, "-c", start], check=True)


def read_nothing():
    """Read where nothing is."""
    ctypes.string_at(0)


def say():
    """Print lines, of which a log keeps the last."""
    for line in ("one", "two", "three", "", "four"):
        print(line)


HARM = {
    "": lambda: None,
    "allocates": allocate,
    "sleeps": lambda: time.sleep(600),
    "exits": lambda: os._exit(3),
    "segfault": read_nothing,
    "forks": fork,
    "daemon": daemon,
    "fork_allocates": fork_and_allocate,
    "kills_guard": lambda: os.kill(os.getppid(), signal.SIGKILL),
    "kills_group": lambda: os.killpg(0, signal.SIGKILL),
    "says": say,
}
