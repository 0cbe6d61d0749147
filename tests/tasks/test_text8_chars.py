"""What holds for `text8_chars`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from creditbench.errors import UsageError
from creditbench.task import Task
from creditbench.trials.grid import Options, make_grid
from creditbench.trials.trainer import run_trials

CHARACTERS = " abcdefghijklmnopqrstuvwxyz"
SPLITS = ("train", "validation", "test")


@pytest.fixture
def text8_chars(tasks: dict[str, type[Task]]) -> type[Task]:
    return tasks["text8_chars"]


@pytest.fixture
def codes(text8_chars: type[Task]) -> list[np.ndarray]:
    """The embedded text's splits as numbers, from what a single row shows."""
    parts = []
    for split in SPLITS:
        inputs, targets, _ = text8_chars().generate(split, 0, 1)
        shown = inputs.swapaxes(0, 1).reshape(-1, 27).argmax(-1)
        parts.append(np.append(shown, targets[-1, -1].argmax()))
    return parts


def said(one_hot: np.ndarray) -> str:
    return "".join(CHARACTERS[k] for k in one_hot.argmax(-1))


@pytest.mark.parametrize("ending", ["txt", "csv", "parquet"])
def test_a_text_is_reduced_to_27_characters(text8_chars: type[Task], tmp_path: Path, ending: str) -> None:
    import pandas as pd

    line = "Ab-c, it's 2 été 10!"
    path = tmp_path / f"t.{ending}"
    if ending == "txt":
        path.write_text(" ".join([line] * 100), encoding="utf-8")
    else:
        getattr(pd.DataFrame({"text": [line] * 100, "other": 1}), f"to_{ending}")(path)
    inputs, targets, weights = text8_chars(data=str(path)).generate("train", 0, 1)
    reduced = "ab c it s two t one zero "
    assert said(inputs[: 3 * len(reduced), 0]) == 3 * reduced
    np.testing.assert_array_equal(targets[:-1], inputs[1:])
    assert weights.all()


def test_the_splits_are_the_text_in_its_order(text8_chars: type[Task], codes: list[np.ndarray]) -> None:
    path = Path(__file__).parents[2] / "tasks" / "data" / "text_kjv.txt"
    letters = [c if c in CHARACTERS else " " for c in path.read_text(encoding="utf-8").lower()]
    reduced = " ".join("".join(letters).split()) + " "
    lengths = [int(0.9 * len(reduced)), int(0.95 * len(reduced)) - int(0.9 * len(reduced))]
    train = "".join(CHARACTERS[k] for k in codes[0])
    assert reduced.startswith(train) and lengths[0] - len(train) <= 1
    validation = "".join(CHARACTERS[k] for k in codes[1])
    assert reduced[lengths[0] :].startswith(validation) and lengths[1] - len(validation) <= 5
    test = "".join(CHARACTERS[k] for k in codes[2])
    assert reduced[sum(lengths) :].startswith(test)


def bits(codes: list[np.ndarray], order: int, extra: float) -> float:
    """Bits per character of test by frequencies of `order`-tuples in train, with `extra` added to counts."""
    places = 27 ** np.arange(order)[::-1]
    train, test = (
        np.lib.stride_tricks.sliding_window_view(part, order) @ places for part in (codes[0], codes[2])
    )
    counts = extra + np.bincount(train, minlength=27**order).reshape(-1, 27).astype(float)
    return float(-np.log2((counts / counts.sum(1, keepdims=True)).ravel()[test]).mean())


def test_trivial_is_the_unigram_and_solved_the_trigram(
    text8_chars: type[Task], codes: list[np.ndarray]
) -> None:
    assert bits(codes, 1, 1.0) == pytest.approx(text8_chars.trivial, abs=0.01)
    assert bits(codes, 2, 1.0) == pytest.approx(3.16, abs=0.01)
    assert bits(codes, 3, 1.0) == pytest.approx(text8_chars.solved, abs=0.02)


@pytest.mark.parametrize(("kind", "order"), [("chain", 2), ("bible", 3)])
def test_solved_is_the_better_of_pairs_and_triples(
    text8_chars: type[Task], tmp_path: Path, kind: str, order: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted one by one; of a text in which a letter hangs on the last one alone, the pairs."""
    import collections
    import sys

    path = Path(__file__).parents[2] / "tasks" / "data" / "text_kjv.txt"
    text = path.read_text(encoding="utf-8")
    if kind == "chain":
        text = "".join(CHARACTERS[1 + k] for k in np.random.default_rng(0).integers(1, 3, 8000).cumsum() % 26)
    (tmp_path / "t.txt").write_text(text, encoding="utf-8")
    task = text8_chars(data=str(tmp_path / "t.txt"))
    counts, contexts = collections.Counter(), collections.Counter()
    train = task._parts["train"].tolist()
    for k in range(order - 1, len(train)):
        counts[tuple(train[k - order + 1 : k + 1])] += 1
        contexts[tuple(train[k - order + 1 : k])] += 1
    test = task.generate("test", 0, 1)
    shown, said, total = test.inputs.argmax(-1), test.targets.argmax(-1), []
    for t, row in zip(*np.nonzero(test.weights), strict=True):
        context = tuple(shown[t - order + 2 : t + 1, row].tolist())
        total.append((counts[*context, int(said[t, row])] + 1) / (contexts[context] + 27))
    assert task.solved_score(test) == pytest.approx(-np.log2(total).mean(), rel=1e-5)
    # Counted a few at a time, they are the same.
    monkeypatch.setattr(sys.modules[text8_chars.__module__], "CHUNK", 1000)
    assert text8_chars(data=str(tmp_path / "t.txt")).solved_score(test) == task.solved_score(test)


def test_the_score_is_in_bits(text8_chars: type[Task]) -> None:
    task = text8_chars()
    test = task.generate("test", 0, 1)
    assert task.score(np.zeros_like(test.targets), test) == pytest.approx(np.log2(27))


def test_a_text_that_is_too_short_and_a_bad_field_are_named(text8_chars: type[Task], tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("abc " * 100)
    with pytest.raises(UsageError, match=r"20 characters of validation .* give a longer text"):
        text8_chars(data=str(tmp_path / "t.txt")).generate("validation", 0, 1)
    with pytest.raises(UsageError, match=r"text8_chars\.data is 5: name a file"):
        text8_chars(data=5)


def test_the_vectors_of_a_long_text_are_made_as_they_are_asked_for(
    text8_chars: type[Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are the same, and so is all that is made of them."""
    module = sys.modules[text8_chars.__module__]
    plain = {split: text8_chars().generate(split, 0, 16) for split in SPLITS}
    monkeypatch.setattr(module, "LARGE", 0)
    monkeypatch.setattr("creditbench.task._SCORED", 5000)
    task = text8_chars()
    steps = np.array([[3, 4, 5], [100, 101, 102]])
    for split, expected in plain.items():
        found = task.generate(split, 0, 16)
        assert isinstance(found.inputs, module.Rows) and not isinstance(found.inputs, np.ndarray)
        for lazy, array in zip(found, expected, strict=True):
            assert lazy.shape == array.shape and lazy.dtype == array.dtype and len(lazy) == len(array)
            for index in (steps, slice(7, 20), (slice(5), slice(1, 2)), -1):
                np.testing.assert_array_equal(lazy[index], array[index])
            np.testing.assert_array_equal(np.asarray(lazy), array)
        monkeypatch.setattr("creditbench.task._SCORED", 1 << 18)
        outputs = np.random.default_rng(0).normal(size=expected.targets.shape).astype(np.float32)
        scores = [text8_chars().score(outputs, expected), text8_chars().trivial_score(expected)]
        scores.append(text8_chars().solved_score(expected))
        monkeypatch.setattr("creditbench.task._SCORED", 5000)
        assert [task.score(outputs, found), task.trivial_score(found), task.solved_score(found)] == scores


def test_a_long_text_trains_as_a_short_one_does(
    text8_chars: type[Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained() -> tuple[object, ...]:
        options = Options(
            tasks=("text8_chars",),
            learners=("bptt",),
            hidden=4,
            budget=50,
            evaluations=1,
            backends=("torch",),
        )
        (record,) = run_trials(make_grid(options).trials)
        assert record.status == "ok", record.status_detail
        return record.test_score, record.trivial, record.solved, [point.loss for point in record.curve]

    # Shorter, because all of it is evaluated.
    monkeypatch.setattr(
        text8_chars, "_parts", {split: codes[:900] for split, codes in text8_chars()._parts.items()}
    )
    plain = trained()
    monkeypatch.setattr(sys.modules[text8_chars.__module__], "LARGE", 0)
    assert trained() == plain


def test_rows_of_validation_and_test_are_not_longer_than_they_need_be(
    text8_chars: type[Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[text8_chars.__module__], "LONGEST", 1000)
    whole, cut = text8_chars()._parts["test"], text8_chars().generate("test", 0, 16)
    assert cut.inputs.shape[:2] == ((len(whole) - 1) // 15, 15) and len(whole) // 1000 == 14
    monkeypatch.setattr(sys.modules[text8_chars.__module__], "EVALUATED", 6001)
    short = text8_chars().generate("test", 0, 16)
    assert short.inputs.shape[:2] == (857, 7)
    np.testing.assert_array_equal(short.inputs[:, 0].argmax(-1), whole[:857])
    assert text8_chars().generate("train", 0, 16).inputs.shape[:2] == (
        (len(text8_chars()._parts["train"]) - 1) // 16,
        16,
    )


def test_a_text_in_another_script_is_named(text8_chars: type[Task], tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("Это просто длинная строка без букв. Yes. " * 800, encoding="utf-8")
    with pytest.raises(
        UsageError, match=r"of its 56000 bytes 2400 become letters a to z: give a text in Latin"
    ):
        text8_chars(data=str(tmp_path / "t.txt")).generate("train", 0, 1)


def test_a_long_text_takes_a_small_multiple_of_itself(text8_chars: type[Task], tmp_path: Path) -> None:
    """12 MB of text: the traced peak of NumPy and Python for a train split and all that follows from it."""
    import tracemalloc

    size = 12_000_000
    letters = np.frombuffer(b"etaoinshrdlucmfwypvbgkjqxz  ", np.uint8)
    (tmp_path / "t.txt").write_bytes(np.random.default_rng(0).choice(letters, size).tobytes())
    task = text8_chars(data=str(tmp_path / "t.txt"))
    tracemalloc.start()
    try:
        train = task.generate("train", 0, 16)
        assert train.inputs.shape[0] > size * 0.8 / 16
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * size
