"""Fixtures of the tests of boards and tables."""

import pytest


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A file that stands for the source of every imagined rule and task: `tests.creditbench.synthetic`."""
    path = tmp_path_factory.mktemp("source") / "source.py"
    path.write_text("# stands for every rule and task\n")
    return path
