"""Fixtures of the tests of tasks: `tasks` (id -> class), and `any_task` (each class in turn)."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from creditbench.plugins import registry
from creditbench.task import Task

NO_AEON = "aeon is not installed, which has the data: pip install --no-deps aeon"


def load_tasks() -> dict[str, type[Task]]:
    """The task classes that come with the benchmark, by id."""
    plugins = registry.load("tasks").values()
    return {plugin.id: plugin.cls for plugin in plugins if plugin.source == "builtin"}


def has_data(id: str) -> bool:
    """Whether the task's data are on this machine."""
    return id != "speech_vowels" or importlib.util.find_spec("aeon") is not None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "any_task" in metafunc.fixturenames:
        known = load_tasks()
        params = [
            pytest.param(cls, id=id, marks=[] if has_data(id) else [pytest.mark.skip(reason=NO_AEON)])
            for id, cls in known.items()
        ]
        metafunc.parametrize("any_task", params)


@pytest.fixture(scope="session")
def tasks() -> dict[str, type[Task]]:
    return load_tasks()


@pytest.fixture(scope="session")
def there() -> list[str]:
    """The ids of the tasks whose data are on this machine."""
    return [id for id in load_tasks() if has_data(id)]


@pytest.fixture(scope="session")
def linear_score() -> Callable[..., float]:
    """The score of the best linear filter of the last `lags` inputs, fitted to a stream's train split."""

    def past(inputs: np.ndarray, lags: int) -> np.ndarray:
        """[T, N, lags I + 1]: the inputs now and before, 0 before the start, and a 1."""
        padded = np.concatenate([np.zeros((lags - 1, *inputs.shape[1:])), inputs])
        shifted = [padded[lags - 1 - k :][: len(inputs)] for k in range(lags)]
        return np.concatenate([*shifted, np.ones((*inputs.shape[:2], 1))], axis=-1)

    def score(task: Task, lags: int, seed: int = 0, test_seed: int = 0) -> float:
        train, test = task.generate("train", seed, 4), task.generate("test", test_seed, 4)
        known = past(train.inputs, lags)[lags:]
        known = known.reshape(-1, known.shape[-1])
        said = train.targets[lags:].reshape(len(known), -1)
        # The ridge is too small to matter. It keeps the matrix invertible if inputs depend on each other.
        gram = known.T @ known + 1e-6 * np.eye(known.shape[1])
        return task.score(past(test.inputs, lags) @ np.linalg.solve(gram, known.T @ said), test)

    return score


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder of the tests' own."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CREDITBENCH_CACHE", str(folder))
        yield folder
