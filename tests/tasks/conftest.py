"""Fixtures of the tests of tasks: `tasks` (id -> class), and `any_task` (each class in turn)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from creditbench import registry
from creditbench.task import Task


def load_tasks() -> dict[str, type[Task]]:
    """The task classes that come with the benchmark, by id."""
    plugins = registry.load("tasks").values()
    return {plugin.id: plugin.cls for plugin in plugins if plugin.source == "builtin"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "any_task" in metafunc.fixturenames:
        known = load_tasks()
        metafunc.parametrize("any_task", known.values(), ids=known)


@pytest.fixture(scope="session")
def tasks() -> dict[str, type[Task]]:
    return load_tasks()


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder of the tests' own."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CREDITBENCH_CACHE", str(folder))
        yield folder
