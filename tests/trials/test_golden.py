"""Trainer, tasks and rules together give the same numbers as before.

A change that is meant to change numbers raises `NUMERICS_VERSION` or a task's version. Then write the numbers
again: `python -m tests.trials.test_golden`.
"""

import itertools
import json
import math
from pathlib import Path

import pytest

from creditbench.trials.grid import Options, make_grid
from creditbench.trials.trainer import run_trials
from tests.conftest import thorough

PLACE = Path(__file__).with_name("golden.json")
#: Streams with and without seams, episodes of both losses; rules that need different parts of the trainer.
TASKS = {"mackey_glass": 300, "weather": 400, "adding": 600, "sequential_digits": 640}
LEARNERS = ("bptt", "anp+D", "readout_rls", "uoro")


def train(task, learner, backend):
    """Validation at each evaluation, and the test score."""
    grid = make_grid(
        Options(
            tasks=(task,),
            learners=(learner,),
            backends=(backend,),
            seeds=(3,),
            hidden=8,
            budget=TASKS[task],
            evaluations=2,
        )
    )
    (record,) = run_trials([trial.model_copy(update={"dtype": "float64"}) for trial in grid.trials])
    assert record.status == "ok", record.status_detail
    return [*(point.validation for point in record.curve), record.test_score]


@pytest.mark.parametrize(
    ("task", "learner", "backend"),
    thorough(
        itertools.product(TASKS, LEARNERS, ["jax", "torch"]),
        but=[
            *((task, learner, "jax") for task in TASKS for learner in LEARNERS),
            *((task, learner, "torch") for task in TASKS for learner in ("anp+D", "bptt")),
        ],
    ),
)
def test_the_numbers_are_those_of_before(task, learner, backend):
    expected = json.loads(PLACE.read_text())[f"{task} {learner} {backend}"]
    found = train(task, learner, backend)
    assert all(map(math.isfinite, found)) and found == pytest.approx(expected, rel=1e-7)


if __name__ == "__main__":
    known = {
        f"{task} {learner} {backend}": train(task, learner, backend)
        for task in TASKS
        for learner in LEARNERS
        for backend in ("jax", "torch")
    }
    PLACE.write_text(json.dumps(known, indent=1) + "\n")
