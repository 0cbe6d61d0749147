"""What holds for `sequential_digits`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits

from creditbench.errors import UsageError
from creditbench.task import Sequences, Task

SPLITS = ("train", "validation", "test")


@pytest.fixture
def digits(tasks: dict[str, type[Task]]) -> type[Task]:
    return tasks["sequential_digits"]


def images_of(sequences: Sequences) -> list[bytes]:
    """Each image's pixels to five digits, as bytes."""
    return [image.round(5).tobytes() for image in sequences.inputs[..., 0].T]


def images(sequences: Sequences) -> list[bytes]:
    """Each image's pixels, in the order read, as bytes."""
    return [image.tobytes() for image in sequences.inputs[..., 0].T]


def test_the_splits_are_all_of_the_images_with_their_labels(digits: type[Task]) -> None:
    source = load_digits()
    expected = {
        (image / 16).astype(np.float32).tobytes(): label
        for image, label in zip(source.data, source.target, strict=True)
    }
    assert len(expected) == 1797
    found: dict[bytes, int] = {}
    for split in SPLITS:
        part = digits(permuted=False).generate(split, 0, 32)
        found |= zip(images(part), part.targets[-1].argmax(-1), strict=True)
    assert found == expected


def test_every_split_has_its_share_of_every_class(digits: type[Task]) -> None:
    whole = np.bincount(load_digits().target)
    for split, share in zip(SPLITS, (0.7, 0.1, 0.2), strict=True):
        counts = digits().generate(split, 0, 32).targets[-1].sum(0)
        assert np.abs(counts - share * whole).max() <= 1


def test_the_class_is_asked_for_at_the_last_pixel(digits: type[Task]) -> None:
    inputs, targets, weights = digits().generate("test", 0, 32)
    assert inputs.shape == (64, 359, 1) and targets.shape == (64, 359, 10)
    assert inputs.min() == 0 and inputs.max() == 1
    assert (targets.sum(-1) == 1).all() and (targets == targets[-1]).all()
    assert weights[-1].all() and not weights[:-1].any()


def test_one_permutation_serves_every_split_and_seed(digits: type[Task]) -> None:
    order = None
    for split, seed in [("test", 0), ("test", 1), ("validation", 0), ("train", 0), ("train", 1)]:
        plain = digits(permuted=False).generate(split, seed, 32).inputs[..., 0]
        permuted = digits(permuted=True).generate(split, seed, 32).inputs[..., 0]
        if order is None:
            rows = {row.tobytes(): number for number, row in enumerate(plain)}
            # Some pixels are blank in every image, and any of them serves.
            order = np.array([rows[row.tobytes()] for row in permuted])
            assert (order != np.arange(64)).sum() > 50
        # The order was found on one split; pixels that are alike there may differ elsewhere.
        varied = plain[order].std(1) > 0.05
        assert varied.sum() > 40
        np.testing.assert_array_equal(plain[order][varied], permuted[varied])


def test_seeds_only_reorder_the_training_images(digits: type[Task]) -> None:
    one, other = (images(digits().generate("train", seed, 32)) for seed in (0, 1))
    assert one != other and sorted(one) == sorted(other)
    classes = digits().generate("train", 0, 32).targets[-1].argmax(-1)
    assert len(set(classes[:32])) >= 7  # a first batch is not all of one class


def test_the_label_is_trained_for_at_every_step_if_asked_for(digits: type[Task]) -> None:
    for split in SPLITS:
        last, every = (digits(scored=scored).generate(split, 0, 32) for scored in ("last", "every"))
        np.testing.assert_array_equal(last.targets, every.targets)
        assert every.weights.all() if split == "train" else (every.weights == last.weights).all()


@pytest.mark.parametrize("split", ["validation", "test"])
def test_solved_is_the_nearest_class_mean(digits: type[Task], split: str) -> None:
    task = digits()
    train, test = task.generate("train", 0, 32), task.generate(split, 0, 32)
    classes = train.targets[-1]
    means = (train.inputs[..., 0] @ classes) / classes.sum(0)  # [64, 10]
    distance = ((test.inputs - means[:, None, :]) ** 2).sum(0)
    outputs = np.zeros_like(test.targets)
    outputs[-1] = -distance
    assert task.score(outputs, test) == pytest.approx(task.solved_score(test), abs=1e-9)
    assert digits(permuted=False).solved_score(
        digits(permuted=False).generate(split, 0, 1)
    ) == task.solved_score(test)


def test_images_that_say_nothing_of_their_class_have_no_solved_score(
    digits: type[Task], tmp_path: Path
) -> None:
    """And a class of which no image trains is never the nearest."""
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 2
    labels[:100] = 1
    noise = rng.permuted(np.tile(np.arange(9), (300, 1)), axis=1).reshape(300, 3, 3)
    np.savez(tmp_path / "t.npz", image=noise, label=labels)
    task = digits(data=str(tmp_path / "t.npz"))
    assert task.solved_score(task.generate("test", 0, 32)) is None
    np.savez(tmp_path / "u.npz", image=noise + 20 * labels[:, None, None], label=labels)
    task = digits(data=str(tmp_path / "u.npz"))
    assert task.solved_score(task.generate("test", 0, 32)) == 1


@pytest.mark.parametrize("kind", ["uint8", "float"])
def test_a_users_images_take_the_place_of_the_embedded_ones(
    digits: type[Task], tmp_path: Path, kind: str
) -> None:
    """28 x 28 pixels, T = 784, as MNIST has."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (200, 28, 28), np.uint8), np.arange(200) % 10
    images[:, 0, 0] = 255
    np.savez(tmp_path / "t.npz", image=images if kind == "uint8" else images / 51, label=labels)
    task = digits(data=str(tmp_path / "t.npz"), permuted=False)
    found = {}
    for split, count in zip(SPLITS, (140, 20, 40), strict=True):
        part = task.generate(split, 0, 32)
        assert part.inputs.shape == (784, count, 1)
        np.testing.assert_array_equal(part.targets[-1].sum(0), count // 10)
        found |= zip(images_of(part), part.targets[-1].argmax(-1), strict=True)
    expected = {
        (image / 255).astype(np.float32).round(5).tobytes(): k
        for image, k in zip(images, labels, strict=True)
    }
    assert found == expected


def test_a_test_split_of_the_data_sets_own_tests(digits: type[Task], tmp_path: Path) -> None:
    rng, folder = np.random.default_rng(0), tmp_path / "hub"
    folder.mkdir()
    (folder / "README.md").write_text("# Digits\n")
    for split, count in (("train", 100), ("test", 30)):
        frame = pd.DataFrame(rng.integers(0, 17, (count, 4)), columns=list("abcd"))
        frame["a"] = 16 if split == "train" else 8
        frame["label"] = np.arange(count) % 10
        frame.to_csv(folder / f"{split}.csv", index=False)
    parts = {split: digits(data=f"hf:{folder}", permuted=False).generate(split, 0, 32) for split in SPLITS}
    assert [part.inputs.shape for part in parts.values()] == [(4, 90, 1), (4, 10, 1), (4, 30, 1)]
    # Scaled by the brightest of the training images.
    assert [set(part.inputs[0].ravel()) for part in parts.values()] == [{1.0}, {1.0}, {0.5}]


@pytest.mark.parametrize("value", [1, "yes", None])
def test_a_bad_field_is_named(digits: type[Task], value: object) -> None:
    with pytest.raises(UsageError, match=f"permuted is {value!r}: set it to true or false"):
        digits(permuted=value)
