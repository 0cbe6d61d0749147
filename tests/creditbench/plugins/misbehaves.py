"""A rule that does harm in the way that its field `how` names, and else is BPTT."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import numpy as np

from creditbench.learner import Claims, Learner, backpropagate


@dataclass(frozen=True, kw_only=True)
class Rule(Learner):
    id = "misbehaves"
    name = "misbehaves"
    paper = "none"
    family = "test"
    claims = Claims()
    how: str = ""

    def segment(self, ops, cell, params, state, batch, key):
        for name in self.how.split("+"):
            HARM[name](ops)
        estimate = backpropagate(ops, cell, params, state["cell"], batch)
        return estimate._replace(state={"cell": estimate.state})


def allocate(ops):
    """Take memory without end, 16 MB at a time."""
    hoard = []
    while True:
        hoard.append(np.ones(1 << 21))
        time.sleep(0.001)


def fork(ops):
    """Leave a child that lives on."""
    if os.fork() == 0:
        time.sleep(600)
        os._exit(0)


def fork_and_allocate(ops):
    """Have a child take the memory."""
    if os.fork() == 0:
        allocate(ops)
    time.sleep(600)


def daemon(ops):
    """Leave a process in a session of its own, whose parent has ended."""
    start = "import subprocess, sys; subprocess.Popen(['sleep', '600'], start_new_session=True)"
    subprocess.run([sys.executable, "-c", start], check=True)


def read_nothing(ops):
    """Read where nothing is."""
    ctypes.string_at(0)


def say(ops):
    """Print lines, of which a log keeps the last."""
    for line in ("one", "two", "three", "", "four"):
        print(line)


HARM = {
    "": lambda ops: None,
    "allocates": allocate,
    "asks": lambda ops: ops.synchronize(ops.from_numpy(np.broadcast_to(np.float32(1), (1 << 40,)))),
    "no_memory": lambda ops: np.ones(1 << 50),
    "sleeps": lambda ops: time.sleep(600),
    "exits": lambda ops: os._exit(3),
    "killed": lambda ops: os.kill(os.getpid(), signal.SIGKILL),
    "segfault": read_nothing,
    "forks": fork,
    "daemon": daemon,
    "fork_allocates": fork_and_allocate,
    "kills_guard": lambda ops: os.kill(os.getppid(), signal.SIGKILL),
    "kills_group": lambda ops: os.killpg(0, signal.SIGKILL),
    "says": say,
}
