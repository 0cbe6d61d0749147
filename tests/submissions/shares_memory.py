"""It takes memory that it can release and still keep: shared memory, mapped from no file."""

import mmap

from creditbench.learner import Claims, Learner, backpropagate

KEPT = []
while len(KEPT) < 64:
    KEPT.append(mmap.mmap(-1, 64 << 20))
    KEPT[-1].write(bytes(64 << 20))
    KEPT[-1].madvise(mmap.MADV_DONTNEED)


class Rule(Learner):
    id = "shares_memory"
    name = "shares_memory"
    paper = "none"
    family = "test"
    claims = Claims()

    def segment(self, ops, cell, params, state, batch, key):
        estimate = backpropagate(ops, cell, params, state["cell"], batch)
        return estimate._replace(state={"cell": estimate.state})
