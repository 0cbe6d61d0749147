"""Drawings of one sequence of a task, for the terminal and for print: inputs, targets and scored steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from creditbench.task import Sequences

_BARS = "▁▂▃▄▅▆▇█"
_SYMBOLS = "0123456789abcdefghijklmnopqrstuvwxyz"
_MARGIN = 12  # characters before the first step of a line


def crop(sequences: Sequences, row: int, first: int, steps: int) -> Sequences:
    """`steps` steps of one row, from `first` on."""
    return Sequences(*(array[first : first + steps, row : row + 1] for array in sequences))


def text(sequences: Sequences, first: int = 0, width: int = 80) -> str:
    """The only row of `sequences` as lines of at most `width` characters; its first step is number `first`.

    A channel is a line of bars, from its least value to its greatest. A one-hot array is one line of symbols:
    the number of the channel in base 36, or a point if no channel is 1. On the line below, a dot marks a
    scored step.
    """
    inputs, targets, weights = (np.asarray(array)[:, 0] for array in sequences)
    lines = [*_lines("inputs", inputs), *_lines("targets", targets)]
    lines.append(("scored", "".join("•" if weight else " " for weight in weights), ""))
    note = max(len(range_) for _, _, range_ in lines)
    across = max(10, width - _MARGIN - note - 1)
    blocks = []
    for start in range(0, len(weights), across):
        end = min(start + across, len(weights))
        block = [f"{label:{_MARGIN}}{drawn[start:end]} {range_}".rstrip() for label, drawn, range_ in lines]
        block.append(f"{'step':{_MARGIN}}{_ruler(first + start, end - start)}".rstrip())
        blocks.append("\n".join(block))
    return "\n\n".join(blocks) + "\n"


def figure(sequences: Sequences, title: str, output: Path, first: int = 0) -> None:
    """Draw the only row of `sequences` into a file, whose suffix names the format.

    Its first step is number `first`. Up to 4 channels are drawn as lines. More channels, or one-hot ones, are
    an image with one row for each channel. Steps that are not scored are hatched on the targets.
    """
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    inputs, targets, weights = (np.asarray(array)[:, 0] for array in sequences)
    heights = [_height(inputs), _height(targets)]
    drawn, axes = plt.subplots(
        2, sharex=True, figsize=(8, sum(heights) + 1), height_ratios=heights, layout="constrained"
    )
    steps = first + np.arange(len(weights))
    for ax, values, name in zip(axes, (inputs, targets), ("inputs", "targets"), strict=True):
        _panel(ax, steps, values)
        ax.set_ylabel(name)
        ax.spines[["top", "right"]].set_visible(False)
    for start, end in _runs(weights == 0):
        axes[1].axvspan(
            first + start - 0.5,
            first + end - 0.5,
            facecolor="none",
            edgecolor="0.6",
            hatch="///",
            linewidth=0,
        )
    axes[0].set_title(title, fontsize=10, loc="left")
    axes[1].set_xlabel("time step" + ("; hatched: not scored" if (weights == 0).any() else ""))
    axes[1].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[1].set_xlim(first - 0.5, first + len(weights) - 0.5)
    drawn.savefig(output, dpi=110)
    plt.close(drawn)


def _panel(ax: Any, steps: NDArray[Any], values: NDArray[Any]) -> None:
    channels = values.shape[1]
    if _is_lines(values):
        few = len(steps) <= 60
        for channel in range(channels):
            ax.plot(
                steps,
                values[:, channel],
                drawstyle="steps-mid",
                linewidth=1.2,
                marker="." if few else None,
                label=str(channel),
            )
        if channels > 1:
            ax.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), title="channel")
        return
    extent = (steps[0] - 0.5, steps[-1] + 0.5, channels - 0.5, -0.5)
    ax.imshow(values.T, aspect="auto", interpolation="nearest", cmap="Greys", extent=extent)
    ax.set_yticks(range(0, channels, -(-channels // 10)))


def _height(values: NDArray[Any]) -> float:
    return 1.6 if _is_lines(values) else min(3.2, 0.6 + 0.16 * values.shape[1])


def _is_lines(values: NDArray[Any]) -> bool:
    return values.shape[1] <= 4 and not (values.shape[1] > 1 and _one_hot(values))


def _one_hot(values: NDArray[Any]) -> bool:
    """Whether every step has one channel at 1, or none, and all others at 0."""
    return bool(((values == 0) | (values == 1)).all() and (values.sum(-1) <= 1).all() and values.any())


def _lines(name: str, values: NDArray[Any]) -> list[tuple[str, str, str]]:
    """(label, one character a step, the range of values) of each line."""
    if 1 < values.shape[1] <= len(_SYMBOLS) and _one_hot(values):
        said = "".join(_SYMBOLS[step.argmax()] if step.any() else "." for step in values)
        return [(name, said, f"one of {values.shape[1]}")]
    lines = []
    for channel in range(values.shape[1]):
        column = values[:, channel].astype(np.float64)
        least, greatest = column.min(), column.max()
        scale = (len(_BARS) - 1) / (greatest - least) if greatest > least else 0.0
        drawn = "".join(_BARS[round((value - least) * scale)] for value in column)
        label = f"{name} {channel}" if values.shape[1] > 1 else name
        lines.append((label, drawn, f"{least:.3g} to {greatest:.3g}"))
    return lines


def _ruler(first: int, steps: int) -> str:
    """The number of every tenth step, at the place of that step."""
    ruler = ""
    for step in range(steps):
        if (first + step) % 10 == 0 and len(ruler) <= step:
            ruler = ruler.ljust(step) + str(first + step)
    return ruler


def _runs(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """(start, end) of each stretch of steps at which `mask` is true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(int)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]
