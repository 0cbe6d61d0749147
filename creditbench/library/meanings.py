"""What the columns of frames mean: the comments beside the fields that the columns are."""

from __future__ import annotations

import inspect
import re
from typing import Any

from creditbench.results.measured import CheckResult, GradientQuality, ScalingPoint, Verified
from creditbench.trials.record import Point, Record
from creditbench.trials.trial import Trial

#: Columns that follow from others.
_OF_TRIAL = {
    "trial": "id of the trial",
    "rule": "the learner, with +D or +DD where the cell is decorrelated",
    "backend_version": "of the framework",
    "device_name": "processor or accelerator",
    "seq_len": "steps of an episode; None for a stream",
    "environment": "id of processor, system and versions: `environments.json` of a saved folder",
    "stale": "why a run might yield other numbers now, or empty",
}


def meanings() -> dict[str, dict[str, str]]:
    """Frame -> column -> what it means."""
    trial, record = of_fields(Trial), of_fields(Record)
    return {
        "trials": trial | record | _OF_TRIAL,
        "curves": {name: (trial | record | _OF_TRIAL)[name] for name in (*_OF_POINT, "metric")}
        | of_fields(Point),
        "scaling": of_fields(ScalingPoint),
        "gradients": of_fields(GradientQuality),
        "checks": of_fields(CheckResult),
        "verified": of_fields(Verified),
    }


#: Columns of a curve that say of which trial a row is.
_OF_POINT = ("trial", "task", "rule", "cell", "backend", "seed")


def of_fields(model: Any) -> dict[str, str]:
    """The fields of a class with their comments, `#: …` beside them or on the lines above."""
    found: dict[str, str] = {}
    above: list[str] = []
    for line in inspect.getsource(model).splitlines():
        if comment := re.fullmatch(r" +#: (.*)", line):
            above = [comment[1]]
        elif above and (more := re.fullmatch(r" +# (.*)", line)):
            above.append(more[1])
        else:
            field = re.match(r"    (\w+): .*?(?:#: (.*))?$", line)
            if field and (text := field[2] or " ".join(above)):
                found[field[1]] = text
            above = []
    return found
