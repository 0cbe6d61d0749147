"""The claims of a rule, compared with the tables."""

from __future__ import annotations

import dataclasses

from creditbench.leaderboard import statistics
from creditbench.results.version import Results


@dataclasses.dataclass(frozen=True)
class Claim:
    """One claim of a rule, and its outcome in the tables."""

    name: str
    claimed: str
    held: bool | None  #: None: not measured in these tables
    detail: str


def claims(results: Results, learner: str) -> list[Claim]:
    """The claims of a learner, compared with scaling.csv and gradients.csv, else with checks.csv."""
    # SciPy is slow to import.
    from scipy.stats import binom

    said = dict(results.learners.get(learner, {}).get("claims", {}))
    checked = {row.name: row for row in results.checks if row.learner == learner}
    sources = {r.trial.learner_sha256 for r in results.records if r.trial.learner == learner}
    found = []

    def by_check(label: str, nothing: str) -> tuple[bool | None, str]:
        """The result of the check of that name, unless it checked another source than that of the trials."""
        row = checked.get(label)
        if row is None:
            return None, nothing
        if sources and row.learner_sha256 not in sources:
            return (
                None,
                "checked, but the rule has another source since: run creditbench check --results again",
            )
        return row.held, f"creditbench check: {row.detail}"

    for name, label in (("unbiased", "unbiased"), ("online", "online"), ("forward_only", "forward only")):
        special = said.get("without_recurrence", {}).get(name)
        if not said.get(name) and not special:
            continue
        held, detail = by_check(label, "not checked: creditbench check --results")
        if name == "unbiased" and said.get(name):
            own = [row for row in results.gradients if row.learner == learner]
            if own:
                # An exact estimate agrees up to rounding. 2.5 % of intervals from draws lie above the truth.
                biased = sum(row.bias_low > 1e-3 for row in own)
                held = bool(biased <= binom.ppf(0.99, len(own), (1 - statistics.CONFIDENCE) / 2))
                worst = max(own, key=lambda row: row.bias_low)
                detail = (
                    f"a bias is shown in {biased} of {len(own)} places; the largest is {worst.bias:.2g} "
                    f"[{worst.bias_low:.2g}, {worst.bias_high:.2g}], {worst.task} {worst.backend}"
                )
        found.append(Claim(label, "yes" if said.get(name) else "without recurrent weights", held, detail))
    axes = {
        ("algorithm_bytes", "T"): ("memory in T", "memory_in_T"),
        ("time", "n"): ("time of a step", "time"),
        ("algorithm_bytes", "n"): ("memory", "memory"),
    }
    for (quantity, axis), (label, field) in axes.items():
        if field not in said:
            continue
        fits = {
            p.backend: p
            for p in results.scaling
            if (p.learner, p.quantity, p.axis) == (learner, quantity, axis)
        }
        measured = [p for p in fits.values() if p.held is not None]
        detail = "; ".join(
            f"{p.backend}: {axis}^{p.exponent:.2f} [{p.low:.2f}, {p.high:.2f}]" for p in fits.values()
        )
        held = all(bool(p.held) for p in measured) if measured else None
        if held is None:
            held, checked_ = by_check(label.removesuffix(" of a step"), "" if detail else "not measured")
            detail = "; ".join(filter(None, (checked_, detail)))
        special = said.get("without_recurrence", {}).get(field)
        claimed = f"{said[field]}; {special} without recurrent weights" if special else str(said[field])
        found.append(Claim(label, claimed, held, detail))
    return found
