"""A rule that does not come back."""

import time
from dataclasses import dataclass

from creditbench.learner import Claims, Learner


@dataclass(frozen=True, kw_only=True)
class Rule(Learner):
    id = "hangs"
    name = "hangs"
    paper = "none"
    family = "test"
    claims = Claims(memory_in_T="O(T)", memory="O(T n B)")

    def segment(self, ops, cell, params, state, batch, key):
        while True:
            time.sleep(0.1)
