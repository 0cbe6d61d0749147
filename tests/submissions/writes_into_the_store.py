"""It writes a record into the store whose folder it is told, and takes one away."""

from dataclasses import dataclass
from pathlib import Path

from creditbench.learner import Claims, Learner


@dataclass(frozen=True, kw_only=True)
class Rule(Learner):
    store: str = ""

    id = "writes_into_the_store"
    name = "writes_into_the_store"
    paper = "none"
    family = "test"
    claims = Claims()

    def __post_init__(self):
        if self.store:
            (Path(self.store) / "records" / "0123456789abcdef.json").write_text("{}")
