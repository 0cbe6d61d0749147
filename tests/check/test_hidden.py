"""Hidden versions of tasks: other sequences, the same difficulty, the same for one secret."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from creditbench.check import hidden
from creditbench.check.hidden import Hidden
from creditbench.plugins import registry

#: Tasks with small data of every kind: regression and classes, streams and episodes, one channel and many.
SMALL = {
    "copy_memory": {"train_sequences": 40, "evaluation_sequences": 20},
    "delayed_match": {"train_sequences": 40, "evaluation_sequences": 20},
    "add_stream": {"steps": 400},
    "flip_flop": {"steps": 400},
    "mackey_glass": {"steps": 400, "washout": 50},
}


def made(tmp_path, name, secret="s"):
    """A task, what was drawn, and the hidden version as a run finds it."""
    plugin = registry.find("tasks", name)
    task = plugin.cls(**SMALL[name])
    drawn = hidden.draw(task, secret)
    path = tmp_path / f"{name}_{secret}.py"
    path.write_text(hidden.as_file(plugin, task, drawn))
    return task, drawn, registry.find("tasks", f"{name}_hidden", [str(path)]).cls()


@pytest.mark.parametrize("name", SMALL)
def test_a_hidden_task_is_another_one_of_the_same_difficulty(tmp_path, name):
    task, drawn, other = made(tmp_path, name)
    assert drawn.changed and drawn == hidden.draw(task, "s") != hidden.draw(task, "t")
    # The same task with these parameters; but for names, all else is the same.
    inner = type(task)(**drawn.parameters)
    one, two = inner.generate("test", 3, 2), other.generate("test", 3, 2)
    for plain, coded, channels in (
        (one.inputs, two.inputs, drawn.inputs),
        (one.targets, two.targets, drawn.outputs),
    ):
        for place, number in enumerate(channels):
            assert np.array_equal(coded[..., place], np.sign(number) * plain[..., abs(number) - 1])
    assert not np.array_equal(one.inputs, two.inputs) or not np.array_equal(one.targets, two.targets)
    assert other.trivial_score(two) == inner.trivial_score(one)
    assert other.solved_score(two) == inner.solved_score(one)
    assert (other.loss, other.metric, other.protocol, other.batch) == (
        task.loss,
        task.metric,
        task.protocol,
        task.batch,
    )
    said = np.random.default_rng(0).standard_normal(two.targets.shape).astype(np.float32)
    coded = np.stack([np.sign(n) * said[..., abs(n) - 1] for n in drawn.outputs], axis=-1)
    assert other.score(coded, two) == inner.score(said, one)
    assert other.score(two.targets, two) == inner.score(one.targets, one)
    trivial, solved = task.trivial_score(one), task.solved_score(one)
    assert abs(other.solved_score(two) - solved) < 0.2 * abs(trivial - solved)


def test_signs_of_outputs_stay_where_the_loss_is_the_cross_entropy(tmp_path):
    for secret in "abcdef":
        _, drawn, other = made(tmp_path, "add_stream", secret)
        assert other.loss == "cross_entropy" and min(drawn.outputs) > 0


def test_no_draw_is_the_public_task():
    """Nor its mirror image, on which an odd network does as well."""
    for secret in map(str, range(20)):
        drawn = hidden.draw(
            registry.find("tasks", "mackey_glass").cls(**SMALL["mackey_glass"]), secret, False
        )
        assert not drawn.changed and (drawn.inputs, drawn.outputs) in [((1,), (-1,)), ((-1,), (1,))]


def test_what_is_harder_is_not_drawn(monkeypatch):
    """Without room for a change of difficulty, no parameter changes."""
    task = registry.find("tasks", "mackey_glass").cls(**SMALL["mackey_glass"])
    monkeypatch.setattr(hidden, "CLOSE", 0.0)
    monkeypatch.setattr(hidden, "_TRIES", 4)
    assert not hidden.draw(task, "s").changed
    values = {field.name: getattr(task, field.name) for field in dataclasses.fields(task)}
    assert hidden.draw(task, "s") == Hidden(values, (), *hidden.draw(task, "s")[2:])
