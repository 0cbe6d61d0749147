"""What holds for `speech_vowels`."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from creditbench.errors import UsageError
from creditbench.task import Task

SPLITS = ("train", "validation", "test")
needs_aeon = pytest.mark.skipif(
    importlib.util.find_spec("aeon") is None,
    reason="aeon is not installed, which has the data: pip install --no-deps aeon",
)


@pytest.fixture
def speech_vowels(tasks: dict[str, type[Task]]) -> type[Task]:
    return tasks["speech_vowels"]


@needs_aeon
def test_the_utterances_are_those_of_the_file(speech_vowels: type[Task]) -> None:
    """Every utterance of every split, against the lines of aeon's files."""
    folder = (
        Path(importlib.util.find_spec("aeon").submodule_search_locations[0]) / "datasets/data/JapaneseVowels"
    )
    parts = {split: speech_vowels().generate(split, 0, 1) for split in SPLITS}
    for name, splits, count in (("TRAIN", SPLITS[:2], 270), ("TEST", SPLITS[2:], 370)):
        lines = (folder / f"JapaneseVowels_{name}.ts").read_text().split("@data\n")[1].splitlines()
        said = set()
        for line in lines:
            *channels, speaker = line.split(":")
            frames = np.array([[float(v) for v in channel.split(",")] for channel in channels], np.float32)
            said.add((frames.T.tobytes(), int(speaker) - 1))
        found = set()
        for split in splits:
            inputs, targets, weights = parts[split]
            for row in range(inputs.shape[1]):
                last = int(weights[:, row].argmax())
                frames = np.ascontiguousarray(2 * inputs[: last + 1, row])
                found.add((frames.tobytes(), int(targets[last, row].argmax())))
                assert not inputs[last + 1 :, row].any() and weights[:, row].sum() == 1
        assert len(said) == count and found == said


@needs_aeon
def test_every_speaker_has_his_share(speech_vowels: type[Task]) -> None:
    for split, count in (("train", 24), ("validation", 6)):
        counts = speech_vowels().generate(split, 0, 1).targets[-1].sum(0)
        np.testing.assert_array_equal(counts, count)
    assert speech_vowels().generate("train", 0, 1).inputs.shape[:3] == speech_vowels().sizes()[:3]


@needs_aeon
def test_the_seed_orders_the_training_utterances(speech_vowels: type[Task]) -> None:
    one, other = (speech_vowels().generate("train", seed, 1).inputs for seed in (0, 1))
    assert not np.array_equal(one, other)
    assert sorted(row.tobytes() for row in one.swapaxes(0, 1)) == sorted(
        row.tobytes() for row in other.swapaxes(0, 1)
    )


def test_majority_and_the_papers_accuracy(speech_vowels: type[Task]) -> None:
    """Of the 370 utterances of the test split 88 are one speaker's; the data's paper states 94.1%."""
    assert (speech_vowels.trivial, speech_vowels.solved) == (88 / 370, 0.941)


def test_a_missing_package_is_named_with_the_cure(
    speech_vowels: type[Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        UsageError, match=r"aeon, which is not installed: pip install 'creditbench\[speech\]'"
    ):
        speech_vowels().generate("train", 0, 1)
    assert speech_vowels().sizes() == (29, 216, 12, 9)


@needs_aeon
def test_aeon_itself_is_not_imported() -> None:
    """It would compile for seconds."""
    code = (
        "from creditbench.plugins import registry\n"
        "registry.find('tasks', 'speech_vowels').cls().generate('test', 0, 1)\n"
        "import sys; sys.exit('aeon' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0
