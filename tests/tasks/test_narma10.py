"""What holds for `narma10`."""

from __future__ import annotations

import numpy as np
import pytest

from creditbench.errors import UsageError
from creditbench.task import Task


@pytest.fixture
def narma10(tasks: dict[str, type[Task]]) -> type[Task]:
    return tasks["narma10"]


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_series_follows_its_equation(narma10: type[Task], split: str) -> None:
    """Step by step from what is shown, which leaves out nothing once ten steps are known."""
    inputs, targets, _ = narma10().generate(split, 3, 2)
    u, y = (array[..., 0].astype(np.float64) for array in (inputs / 4, targets))
    for t in range(10, 500):
        sum_of_ten = sum(y[t - 1 - i] for i in range(10))
        following = 0.3 * y[t - 1] + 0.05 * y[t - 1] * sum_of_ten + 1.5 * u[t - 9] * u[t] + 0.1
        np.testing.assert_allclose(y[t], following, rtol=1e-5)
    assert u.min() >= 0 and u.max() <= 0.5 and u.mean() == pytest.approx(0.25, abs=0.01)


def test_the_system_starts_from_rest(narma10: type[Task]) -> None:
    inputs, targets, _ = narma10(washout=10).generate("train", 0, 1)
    fresh = narma10(washout=10, steps=300).generate("train", 0, 1)
    assert inputs.shape[0] == 5000 and fresh.inputs.shape[0] == 300
    assert 0.1 < targets[0, 0, 0] < 0.6  # ten steps of at least 0.1 each, less what is forgotten


def test_a_row_that_runs_away_is_drawn_anew(narma10: type[Task], monkeypatch: pytest.MonkeyPatch) -> None:
    """A lower bound, which many rows pass, replaces the rare inputs that diverge."""
    import sys

    module = sys.modules[narma10.__module__]
    usual = narma10(steps=300).generate("train", 0, 40).targets[..., 0]
    bound = float(np.median(usual.max(0)))
    monkeypatch.setattr(module, "BOUND", bound)
    inputs, targets, _ = narma10(steps=300).generate("train", 0, 40)
    tame = targets[..., 0]
    kept = usual.max(0) < bound * 0.98  # washout, which is not shown, may pass it too
    assert tame.max() < bound
    same = (usual == tame).all(0)
    assert inputs[:, ~same].max() > 1.99 and inputs[:, ~same].mean() == pytest.approx(1, abs=0.05)
    assert same.any() and not same[usual.max(0) >= bound].any() and same[kept].mean() > 0.8


def test_solved_is_about_half_of_the_best_linear_filter(narma10: type[Task], linear_score) -> None:
    linear = linear_score(narma10(), 40)
    assert linear == pytest.approx(0.38, abs=0.03)
    assert narma10.solved == pytest.approx(linear / 2, rel=0.05)


@pytest.mark.parametrize("field", [{"steps": 255}, {"warmup": -1}, {"washout": 9}, {"steps": 5000.0}])
def test_a_bad_field_is_named(narma10: type[Task], field: dict[str, object]) -> None:
    ((name, value),) = field.items()
    with pytest.raises(UsageError) as error:
        narma10(**field)
    assert f"narma10.{name} is {value!r}: set it to" in str(error.value)
