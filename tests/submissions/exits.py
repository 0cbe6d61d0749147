"""A rule that ends the interpreter."""

import os
from dataclasses import dataclass

from creditbench.learner import Claims, Learner


@dataclass(frozen=True, kw_only=True)
class Rule(Learner):
    id = "exits"
    name = "exits"
    paper = "none"
    family = "test"
    claims = Claims(memory_in_T="O(T)", memory="O(T n B)")

    def segment(self, ops, cell, params, state, batch, key):
        os._exit(7)
