"""Tell whether two stimuli, a delay apart, were the same.

One of 4 stimuli is shown for 2 steps, then nothing for `delay` steps, then a second stimulus for 2 steps: the
same one in half of the episodes, else one of the other three. The answer at the last step is whether they
match. All channels except the first are noisy.

    inputs  [T, N, 5]   1 until the second stimulus, then 0; a channel per stimulus, 1 while it is shown;
                        each of those plus normal noise of 0.1
    targets [T, N, 2]   one-hot: match, no match; at every step
    weights [T, N]      1 at the last step, 0 before

The metric is accuracy. Chance is 0.5. Any predictor that forgets the first stimulus or ignores the second
scores this too. Solved is nine tenths of the way from chance to the ideal observer of the noisy channels, who
makes almost no errors at the default noise: 0.95. A predictor that confuses two of the stimuli scores 0.917.

Source: Miller, Erickson and Desimone (1996), Neural mechanisms of visual working memory in prefrontal
cortex of the macaque, Journal of Neuroscience 16:5154-5167, doi:10.1523/JNEUROSCI.16-16-05154.1996; for
networks Yang et al. (2019), Task representations in neural networks trained to perform many cognitive
tasks, Nature Neuroscience 22:297-306, doi:10.1038/s41593-018-0310-2.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from creditbench.task import Sequences, Split, Task, accuracy

SHOWN = 2  # steps of each stimulus


@dataclasses.dataclass(frozen=True, kw_only=True)
class DelayedMatch(Task):
    """Were two stimuli the same; see the module's text."""

    stimuli: int = 4
    delay: int = 12  #: steps between the stimuli
    noise: float = 0.1  #: standard deviation, above 0, so that no two episodes are alike
    train_sequences: int = 10_000
    evaluation_sequences: int = 2000  #: in validation and in test

    id: ClassVar[str] = "delayed_match"
    name: ClassVar[str] = "Delayed match to sample"
    citation: ClassVar[str] = "Miller et al. (1996), doi:10.1523/JNEUROSCI.16-16-05154.1996"
    version: ClassVar[int] = 1
    protocol: ClassVar[Literal["stream", "episodes"]] = "episodes"
    loss: ClassVar[Literal["mse", "cross_entropy"]] = "cross_entropy"
    metric: ClassVar[str] = "accuracy"
    metric_direction: ClassVar[Literal["min", "max"]] = "max"
    trivial: ClassVar[float] = 0.5
    solved: ClassVar[float] = 0.95
    budgets: ClassVar[dict[str, int]] = {"smoke": 320, "quick": 32_000, "full": 640_000}
    batch: ClassVar[int] = 32
    alpha: ClassVar[float] = 0.5

    def __post_init__(self) -> None:
        self.require_whole(stimuli=2, delay=0, train_sequences=1, evaluation_sequences=1)
        self.require_number("noise", 0, 1)

    def generate(self, split: Split, seed: int, batch: int) -> Sequences:
        """`train_sequences` or `evaluation_sequences` episodes. `batch` is not used."""
        rows = self.train_sequences if split == "train" else self.evaluation_sequences
        rng, steps = self.rng(split, seed), 2 * SHOWN + self.delay
        first, differs = rng.integers(0, self.stimuli, rows), rng.integers(0, 2, rows)
        second = (first + differs * rng.integers(1, self.stimuli, rows)) % self.stimuli
        inputs = np.zeros((steps, rows, 1 + self.stimuli), np.float32)
        inputs[:-SHOWN, :, 0] = 1.0
        inputs[..., 1:] = self.noise * rng.standard_normal((steps, rows, self.stimuli), np.float32)
        inputs[:SHOWN, np.arange(rows), 1 + first] += 1.0
        inputs[-SHOWN:, np.arange(rows), 1 + second] += 1.0
        targets = np.tile(np.eye(2, dtype=np.float32)[differs], (steps, 1, 1))
        weights = np.zeros((steps, rows), np.float32)
        weights[-1] = 1.0
        return Sequences(inputs, targets, weights)

    def score(self, outputs: NDArray[np.float32], sequences: Sequences) -> float:
        """Accuracy at the last step."""
        return accuracy(outputs, sequences)

    def trivial_score(self, sequences: Sequences) -> float:
        """Chance: a constant's accuracy if both answers are equally frequent."""
        return 0.5

    def solved_score(self, sequences: Sequences) -> float:
        """Nine tenths of the way from chance to the ideal observer, for any sequences."""
        return 0.5 + 0.9 * (self.ideal - 0.5)

    @functools.cached_property
    def ideal(self) -> float:
        """The accuracy of an observer that knows how episodes are drawn, on 20,000 fixed ones."""
        rng, k, rows = np.random.default_rng(0), self.stimuli, 20_000
        first, differs = rng.integers(0, k, rows), rng.integers(0, 2, rows)
        second = (first + differs * rng.integers(1, k, rows)) % k
        # Only the sum over a channel's steps matters. The probability that a stimulus was shown is a
        # softmax.
        noise = self.noise * np.sqrt(SHOWN) * rng.standard_normal((2, rows, k))
        sums = SHOWN * np.eye(k)[np.stack([first, second])] + noise
        odds = np.exp((sums - sums.max(-1, keepdims=True)) / self.noise**2)
        shown = odds / odds.sum(-1, keepdims=True)
        match = (shown[0] * shown[1]).sum(-1) > 1 / k
        return float((match != differs).mean())
