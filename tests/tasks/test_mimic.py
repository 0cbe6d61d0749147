"""What holds for `mimic`."""

from __future__ import annotations

import numpy as np
import pytest

from creditbench.errors import UsageError
from creditbench.task import Task


@pytest.fixture
def mimic(tasks: dict[str, type[Task]]) -> type[Task]:
    return tasks["mimic"]


def test_the_teacher_is_a_leaky_tanh_network(mimic: type[Task]) -> None:
    """Against its equations, one unit at a time, with the weights drawn again."""
    task, n = mimic(units=3, washout=0), 3
    inputs, targets, _ = task.generate("train", 0, 1)
    rng = np.random.default_rng(2020)
    W, V, U = (rng.standard_normal(shape) for shape in ((n, n), (4, n), (n, 4)))
    h = np.zeros(n)
    for t in range(50):
        a = [2.0 / np.sqrt(n) * (h @ W[:, i]) + inputs[t, 0] @ V[:, i] / 2 for i in range(n)]
        h = 0.5 * h + 0.5 * np.tanh(a)
        np.testing.assert_allclose(targets[t, 0], h @ U / np.sqrt(n), atol=1e-6)


def test_the_teacher_forgets_where_it_began(mimic: type[Task]) -> None:
    task = mimic()
    signs = 2.0 * np.random.default_rng(0).integers(0, 2, (task.washout + 50, 20, 4)) - 1
    starts = np.random.default_rng(1).uniform(-1, 1, (2, 20, task.units))
    one, other = (task.teach(signs, start) for start in starts)
    assert np.abs(one[0] - other[0]).max() > 0.1
    assert np.abs(one - other)[task.washout :].max() < 1e-6


def test_the_teacher_does_not_depend_on_the_seed(mimic: type[Task], linear_score) -> None:
    """A linear filter fitted to one seed's outputs serves another seed."""
    task = mimic()
    one, other = linear_score(task, 20, seed=0), linear_score(task, 20, seed=0, test_seed=1)
    assert one == pytest.approx(other, rel=0.1)


def test_trivial_is_the_variance_over_many_seeds(mimic: type[Task]) -> None:
    task = mimic()
    variances = [task.trivial_score(task.generate("train", seed, 8)) for seed in range(3)]
    assert np.mean(variances) == pytest.approx(mimic.trivial, rel=0.02)
    assert np.abs(task.generate("train", 0, 8).targets.mean()) < 0.01


def test_solved_is_far_below_the_best_linear_filter(mimic: type[Task], linear_score) -> None:
    linear = linear_score(mimic(), 30)
    assert linear == pytest.approx(0.084, abs=0.01)
    assert mimic.solved == pytest.approx(linear / 8, rel=0.1)


@pytest.mark.parametrize(
    "field", [{"units": 0}, {"gain": 0}, {"gain": 3.0}, {"steps": 250}, {"warmup": -1}, {"washout": 1.5}]
)
def test_a_bad_field_is_named(mimic: type[Task], field: dict[str, object]) -> None:
    ((name, value),) = field.items()
    with pytest.raises(UsageError) as error:
        mimic(**field)
    assert f"mimic.{name} is {value!r}: set it to" in str(error.value)
