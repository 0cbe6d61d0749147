"""It keeps a file that has no name and no descriptor: a mapping of one page holds it."""

import ctypes
import os
import time

from creditbench.learner import Claims, Learner, backpropagate

with open("part", "wb+") as file:
    file.write(bytes(1 << 20))
    file.flush()
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    held = libc.mmap(None, ctypes.c_size_t(4096), 1, 2, file.fileno(), ctypes.c_long(0))
os.unlink("part")
time.sleep(30)


class Rule(Learner):
    id = "hides_a_file"
    name = "hides_a_file"
    paper = "none"
    family = "test"
    claims = Claims()

    def segment(self, ops, cell, params, state, batch, key):
        estimate = backpropagate(ops, cell, params, state["cell"], batch)
        return estimate._replace(state={"cell": estimate.state})
