"""It looks for the targets in the data sets that a library brings."""

from importlib.util import find_spec
from pathlib import Path

from creditbench.learner import Claims, Learner, backpropagate

(Path(find_spec("sklearn").origin).parent / "datasets" / "data" / "digits.csv.gz").read_bytes()


class Rule(Learner):
    id = "reads_library_data"
    name = "reads_library_data"
    paper = "none"
    family = "test"
    claims = Claims()

    def segment(self, ops, cell, params, state, batch, key):
        estimate = backpropagate(ops, cell, params, state["cell"], batch)
        return estimate._replace(state={"cell": estimate.state})
