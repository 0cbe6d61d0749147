"""Figures for print, made from records."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from creditbench.record import Record
from creditbench.store import stale

_LINES: dict[str, Any] = {"jax": "-", "torch": ":"}


def curves(records: Sequence[Record], output: Path) -> None:
    """Draw the validation metric against training steps: a panel a task, a colour a rule, a line a backend.

    Lines are medians over seeds, bands reach from the worst to the best seed; a dashed line marks the trivial
    predictor. Stale records are left out, diverged seeds end where they diverged. The suffix of `output` names the
    format (png, pdf, svg).
    """
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D

    fresh = [record for record in records if not stale(record) and record.curve]
    tasks, rules = (sorted({getattr(r.trial, name) for r in fresh}) for name in ("task", "rule"))
    columns = min(2, len(tasks))
    lines = -(-len(tasks) // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(4.2 * columns, 2.7 * lines + 0.5), squeeze=False, layout="constrained"
    )
    colours = dict(zip(rules, matplotlib.color_sequences["tab10"], strict=False))
    for ax, task in zip(axes.flat, tasks, strict=False):
        own = [record for record in fresh if record.trial.task == task]
        for rule in rules:
            for backend, line in _LINES.items():
                seeds = [r for r in own if (r.trial.rule, r.trial.backend) == (rule, backend)]
                if seeds:
                    steps, low, middle, high = _band(seeds)
                    ax.plot(steps, middle, line, color=colours[rule], linewidth=1.3)
                    ax.fill_between(steps, low, high, color=colours[rule], alpha=0.1, linewidth=0)
        trivials = [r.trivial for r in own if r.trivial is not None]
        if trivials:
            trivial = float(np.mean(trivials))
            ax.axhline(trivial, color="0.4", linestyle="--", linewidth=0.8)
            if own[0].metric_direction == "min":
                # Untrained weights may start far above; what matters is the way down from trivial.
                lowest = min(p.validation for r in own for p in r.curve if p.validation is not None)
                ax.set_ylim(0.9 * lowest, min(ax.get_ylim()[1], 1.5 * trivial))
        ax.set(title=task, xlabel="training time steps", ylabel=own[0].metric)
        ax.spines[["top", "right"]].set_visible(False)
    for ax in list(axes.flat)[len(tasks) :]:
        ax.set_visible(False)
    marks = [Line2D([], [], color=colours[rule], label=rule) for rule in rules]
    marks += [Line2D([], [], color="0.2", linestyle=s, label=b) for b, s in _LINES.items()]
    marks.append(Line2D([], [], color="0.4", linestyle="--", linewidth=0.8, label="trivial"))
    figure.legend(
        handles=marks, loc="outside lower center", ncols=min(5, len(marks)), frameon=False, fontsize=8
    )
    figure.savefig(output, dpi=110)
    plt.close(figure)


def _band(seeds: Sequence[Record]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Steps, and worst-to-best band about the median of the seeds that have a finite score there."""
    at: dict[int, list[float]] = {}
    for record in seeds:
        for point in record.curve:
            if point.validation is not None:
                at.setdefault(point.step, []).append(point.validation)
    steps = np.array(sorted(at))
    values = [np.array(at[step]) for step in steps]
    low, middle, high = (np.array([f(v) for v in values]) for f in (np.min, np.median, np.max))
    return steps, low, middle, high


FIGURES = {"curves": curves}
