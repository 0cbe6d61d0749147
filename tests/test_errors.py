"""A message for whoever gave bad input is a sentence, whatever was given."""

import pytest

from creditbench.errors import UsageError, unknown


@pytest.mark.parametrize("value", ["0" * 5000, "a b " * 2000, "/".join(["folder"] * 800)])
def test_of_a_value_without_end_a_message_has_the_beginning_and_the_end(value):
    said = str(unknown("learner", value, ["bptt"], "creditbench list learners"))
    assert len(said) < 1500 and said.startswith(f"unknown learner '{value[:20]}")
    assert said.endswith("see: creditbench list learners") and "…" in said


def test_a_long_path_is_named_whole():
    path = "/".join(["folder"] * 50)
    assert path in str(UsageError(f"no file {path}: name another"))
