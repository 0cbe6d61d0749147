"""It starts threads without end."""

import threading
import time

from creditbench.learner import Claims, Learner, backpropagate

threading.stack_size(1 << 16)
while True:
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()


class Rule(Learner):
    id = "starts_threads"
    name = "starts_threads"
    paper = "none"
    family = "test"
    claims = Claims()

    def segment(self, ops, cell, params, state, batch, key):
        estimate = backpropagate(ops, cell, params, state["cell"], batch)
        return estimate._replace(state={"cell": estimate.state})
