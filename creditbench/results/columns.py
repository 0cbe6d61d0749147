"""The columns of tables and the axes of figures: one definition for each figure that is shown.

Tables, Markdown, the page and the figures walk the lists of this module. A new figure of a trial takes two
steps: a field of `creditbench.trials.record.Record`, and a `Column` here that is named in the lists of the
views which show it. A view itself computes cells that are not plain figures, such as ranks and how runs
ended, and finds them by `Column.field`.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

#: Shown for a missing figure.
MISSING = "–"
#: The rule that others are compared with.
REFERENCE = "bptt"


@dataclasses.dataclass(frozen=True)
class Column:
    """How one figure is shown."""

    field: str  #: of the record, row or point that has it
    label: str  #: head of its column
    form: str = ".3g"  #: how a number is written
    unit: str = ""  #: of the number as written; empty for a count, a share and a text
    scale: float = 1.0  #: from the field to the unit
    better: Literal["min", "max"] | None = None  #: None: neither, or the task says it
    help: str = ""
    short: str = ""  #: head of its column where room is scarce; empty: `label`
    heading: str = ""  #: head of its column in the page's ranking; empty: the short one
    name: str = ""  #: the figure without a scale, as on the axis of a chart; empty: `label`
    axis: str = ""  #: the same where there is room for more, as in print; empty: `name`
    left: bool = False  #: aligned to the left, as text is
    optional: bool = False  #: left out of a task's table where no trial has it
    infinite: str = MISSING  #: shown for an infinite figure
    changes: tuple[str, str] = ("", "")  #: names of less and more of it, for `COUNTED`

    def __post_init__(self) -> None:
        for name, usual in (("short", "label"), ("heading", "short"), ("name", "label"), ("axis", "name")):
            if not getattr(self, name):
                object.__setattr__(self, name, getattr(self, usual))

    def text(self, value: float | None) -> str:
        """The figure as text, with a stand-in if it is missing or infinite.

        >>> ALGORITHM_BYTES.text(65_536), ALGORITHM_BYTES.text(None)
        ('65.54', '–')
        """
        if value is None or math.isnan(value):
            return MISSING
        return format(value * self.scale, self.form) if math.isfinite(value) else self.infinite


# -- what was run ----------------------------------------------------------------------------------------

TASK = Column("task", "task", left=True)
RULE = Column("rule", "rule", heading="Rule", left=True)
CELL = Column("cell", "cell", left=True, help="the network")
BACKEND = Column("backend", "backend", heading="Backend", left=True)
DEVICE = Column("device", "device", left=True)
SEGMENT = Column("segment", "segment", ".0f", help="steps between updates")
BATCH = Column("batch", "batch", ".0f", help="rows that are trained together")
SEEDS = Column("seeds", "seeds", ".0f", help="runs")
STATUS = Column("status", "status", help="how the runs ended", left=True)

# -- figures of a trial ----------------------------------------------------------------------------------

TEST_SCORE = Column("test_score", "test score", ".4g", help="the task's metric on the test split")
NORMALISED = Column(
    "normalised_score", "normalised", ".3f", better="max", help="0 is the trivial predictor, 1 is solved"
)
FIRING_RATE = Column(
    *("firing_rate", "firing rate", ".3f"),
    help="part of the steps of the test split at which a unit of a spiking cell spikes",
    optional=True,
)
STEPS_TO_TARGET = Column(
    *("steps_to_target", "steps to target", ",.0f"),
    better="min",
    help="until half of the seeds have reached what counts as solved",
    name="training steps",
)
SECONDS_TO_TARGET = Column(
    *("seconds_to_target", "s to target", ".3g", "s"),
    better="min",
    help="of training, until half of the seeds have reached what counts as solved",
    name="training seconds",
)
STEPS_PER_SECOND = Column(
    *("steps_per_second", "steps/s", ",.0f", "steps/s"),
    better="max",
    help="training time steps a second, all sequences of the batch counted as one",
)
RATIO_FORWARD = Column(
    *("ratio_forward", "× forward"),
    better="min",
    help="time of a step over that of the forward pass",
    axis="time of a step, × forward",
    optional=True,
)
RATIO_BPTT = Column(
    "ratio_bptt", "× bptt", better="min", help="time of a step over that of bptt's", optional=True
)
TRAIN_SECONDS = Column("train_seconds", "train s", ".2f", "s", better="min", help="of training alone")
COMPILE_SECONDS = Column(
    *("cold_compile_seconds", "compile s", ".2f", "s"),
    better="min",
    help="of compiling, where the cache had no part in it",
)
FLOPS = Column(
    *("flops_per_step", "MFLOP/step", ".3g", "MFLOP/step", 1e-6),
    better="min",
    help="of an update over its steps, the whole batch's",
    name="FLOPs",
    optional=True,
    changes=("less work", "more work"),
)
ALGORITHM_BYTES = Column(
    *("algorithm_bytes", "algorithm kB", ",.4g", "kB", 1e-3),
    better="min",
    help="what an update needs beyond weights and data",
    short="kB",
    name="algorithm bytes",
    optional=True,
    changes=("smaller", "bigger"),
)

#: Columns of a task: a row a rule.
SUMMARY = (
    *(
        RULE,
        CELL,
        BACKEND,
        SEEDS,
        TEST_SCORE,
        NORMALISED,
        FIRING_RATE,
        STEPS_PER_SECOND,
        RATIO_FORWARD,
        RATIO_BPTT,
    ),
    *(TRAIN_SECONDS, COMPILE_SECONDS, FLOPS, ALGORITHM_BYTES, SEGMENT, BATCH, STATUS),
)
#: Left out of a table, in this order, if the terminal is too narrow.
DISPENSABLE = (
    *(
        COMPILE_SECONDS,
        BATCH,
        SEGMENT,
        FIRING_RATE,
        FLOPS,
        ALGORITHM_BYTES,
        TRAIN_SECONDS,
        RATIO_BPTT,
        RATIO_FORWARD,
    ),
)
#: Left out next, if not even words fit.
DISPENSABLE_LAST = (SEEDS, STEPS_PER_SECOND)
#: Columns of a rule, on the page: a row a task.
BY_TASK = (
    *(
        TASK,
        TEST_SCORE,
        NORMALISED,
        FIRING_RATE,
        STEPS_TO_TARGET,
        SECONDS_TO_TARGET,
        STEPS_PER_SECOND,
        RATIO_FORWARD,
    ),
    *(RATIO_BPTT, ALGORITHM_BYTES, COMPILE_SECONDS, SEEDS),
    Column("machine", "machine", help="the environment of its trials"),
    Column("commands", "made again by", help="the commands that run the trials again"),
)
#: Costs that scores are drawn against.
FRONTS = (RATIO_FORWARD, ALGORITHM_BYTES)
#: Counted until the target is reached; some seeds never reach it.
TARGETS = (STEPS_TO_TARGET, SECONDS_TO_TARGET)
#: Costs of reaching the target, by the name of their performance profile.
COSTS = {"steps": STEPS_TO_TARGET, "seconds": SECONDS_TO_TARGET, "bytes": ALGORITHM_BYTES}
#: Figures without noise: any change is reported.
COUNTED = (ALGORITHM_BYTES, FLOPS)

# -- scores over tasks -----------------------------------------------------------------------------------

RANK = Column(
    *("rank", "rank"),
    help="the ranks that the intervals allow, among the rows of one backend and device",
    heading="Rank",
)
IQM = Column(
    *("iqm", "IQM", ".2f"),
    better="max",
    help="interquartile mean of normalised scores, 95 % interval",
    heading="Score",
)
MEDIAN = Column("median", "median", ".2f", better="max", help="of the tasks' means", heading="Median")
MEAN = Column("mean", "mean", ".2f", better="max", help="of the tasks' means", heading="Mean")
OPTIMALITY_GAP = Column(
    *("optimality_gap", "optimality gap", ".2f"),
    better="min",
    help="optimality gap: how far runs fall short of 1 on average",
    heading="Gap",
)
IMPROVEMENT = Column(
    *("improvement", f"P(> {REFERENCE})", ".2f"),
    better="max",
    help=f"probability that a run beats one of {REFERENCE}",
)
SOLVED = Column(
    *("solved", "solved", ".0f"),
    better="max",
    help="tasks that more than half of the seeds bring to their target",
    heading="Solved",
)
#: Scores over tasks that are shown without an interval.
MEANS = (MEDIAN, MEAN, OPTIMALITY_GAP)
NOTE = Column("note", "note", heading="Note", left=True)

#: Columns of a board: a row a rule, backend and device.
RANKING = (
    *(RANK, RULE, BACKEND, DEVICE, IQM, *MEANS, IMPROVEMENT, SOLVED),
    *(RATIO_FORWARD, RATIO_BPTT, ALGORITHM_BYTES, NOTE),
)

# -- a rule beside a reference ---------------------------------------------------------------------------

DIFFERENCE = Column(
    "difference", "difference", "+.3f", better="max", help="of scores, with its 95 % interval"
)
#: Columns of a comparison with a reference: a row a task, backend and rule.
VERSUS = (
    *(TASK, CELL, BACKEND, RULE),
    Column("studies", "studies", ".0f", help="tuning studies of its runs"),
    SEEDS,
    Column("score", "score", ".4g", help="mean of the test metric"),
    Column("normalised", "normalised", ".3f", better="max", help="mean of the normalised scores"),
    DIFFERENCE,
    Column("p", "p", ".2g", help="of no difference"),
    Column("p_corrected", "p corrected", ".2g", help="of all rows that are asked for (Holm)"),
    Column("verdict", "verdict", left=True),
    Column("reached", "reached", help="runs that reached the reference's level, of all"),
    Column("steps", "steps", ",.0f", better="min", help="until then", infinite="∞"),
    Column("steps_ratio", "× steps", ".2f", better="min", help="over the reference's", infinite="∞"),
    Column("seconds", "seconds", ".2f", "seconds", better="min", help="until then", infinite="∞"),
    Column("seconds_ratio", "× seconds", ".2f", better="min", help="over the reference's", infinite="∞"),
    Column("step_time_ratio", "× step time", ".2f", better="min", help="over the reference's"),
    Column("bytes_ratio", "× bytes", ".2g", better="min", help="algorithm bytes over the reference's"),
)

# -- measurements beside training ------------------------------------------------------------------------

#: Sizes that are swept, by their symbol.
AXES = {"T": "steps T", "n": "hidden units n", "B": "sequences B"}
#: Costs of an update that are measured at each size.
QUANTITIES = {
    "time": Column("time", "seconds", unit="seconds", better="min", axis="seconds an update"),
    "algorithm_bytes": Column("algorithm_bytes", "algorithm bytes", unit="bytes", better="min"),
    "flops": Column("flops", "FLOPs", unit="FLOPs", better="min", axis="FLOPs an update"),
}
EXPONENT = Column(
    "exponent", "exponent", ".2f", help="of the cost in the size, 95 % interval", heading="Exponent"
)
CLAIMED = Column("claimed", "claimed", help="the exponent that the rule claims", heading="Claimed")
#: Columns of sweeps: a row a rule, backend, size and cost.
EXPONENTS = (
    *(RULE, BACKEND),
    Column("axis", "in", heading="In", left=True),
    Column("quantity", "quantity", heading="Quantity", left=True),
    EXPONENT,
    CLAIMED,
    Column("held", "outcome", help="whether the claim holds"),
)
DRAWS_TO_COSINE = Column("draws_to_cosine", "draws to cosine 0.9", ".0f", better="min")
#: Quality of an estimate of the gradient.
GRADIENTS = (
    Column("cosine", "cosine", better="max", axis="cosine of one draw"),
    Column("bias", "bias", better="min", axis="relative bias"),
    Column("variance", "variance", better="min", axis="relative variance"),
    DRAWS_TO_COSINE,
)
#: Columns of estimates of the gradient: a row a rule, backend, task and point.
QUALITY = (
    *(RULE, BACKEND, TASK),
    Column("point", "part of a bptt run", "g", help="after which the estimate was measured"),
    *GRADIENTS,
)
