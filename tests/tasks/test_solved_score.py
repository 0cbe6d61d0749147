"""What holds for `solved_score` and `normalise` of any task, the template's among them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from creditbench.check.base import Broken
from creditbench.check.task import TaskSubject, direction
from creditbench.plugins import registry
from creditbench.plugins.templates.task import MyTask
from creditbench.task import Task, linear_score


def changed(cls: type[Task], **parts: object) -> type[Task]:
    """The task with other methods."""
    return dataclasses.dataclass(frozen=True, kw_only=True)(
        type("Changed", (cls,), {"__module__": cls.__module__, **parts})
    )


def checked(cls: type[Task]) -> str:
    return direction(TaskSubject(dataclasses.replace(registry.find("tasks", "adding"), cls=cls)))


def test_the_template_computes_what_is_solved_at_every_delay() -> None:
    for delay in (1, 2, 8):
        task = MyTask(delay=delay)
        test = task.generate("test", 0, 4)
        assert task.solved_score(test) == pytest.approx(task.trivial_score(test) / 10)
        assert task.solved_score(test) == pytest.approx(MyTask.solved, rel=0.05)
    assert checked(MyTask) == "solved 0.0333333 below trivial 0.333333"


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (0.5, r"solved_score is 0\.5 where trivial_score is 0\.3\d+, and must lie below it"),
        (float("nan"), "solved_score returns nan, and must return a finite float, or None"),
        ("0.1", "solved_score returns '0.1', and must return a finite float, or None"),
    ],
)
def test_a_solved_score_that_is_none_is_caught(found: object, said: str) -> None:
    with pytest.raises(Broken, match=said):
        checked(changed(MyTask, solved_score=lambda self, sequences: found))
    assert checked(changed(MyTask, solved_score=lambda self, sequences: None))


def test_a_task_that_says_nothing_else_is_solved_at_its_defaults_alone() -> None:
    cls = changed(MyTask, solved_score=Task.solved_score)
    for task, expected in ((cls(), MyTask.solved), (cls(delay=2), MyTask.solved), (cls(delay=3), None)):
        assert task.solved_score(task.generate("test", 0, 1)) == expected


@pytest.mark.parametrize("solved", [None, 1 / 3, 0.5, float("nan")])
def test_a_scale_upside_down_is_none(solved: float | None) -> None:
    assert MyTask().normalise(0.1, 1 / 3, solved) is None
    assert MyTask().normalise(0.1, 1 / 3, 0.1) == pytest.approx(1)


def test_the_linear_score_is_what_a_filter_of_so_many_inputs_reaches() -> None:
    """The input two steps ago is known to a filter of three inputs, and to one of two nothing is."""
    task = MyTask(delay=2)
    assert linear_score(task, 3) < 1e-12
    assert linear_score(task, 2) == pytest.approx(np.float64(1 / 3), rel=0.03)
