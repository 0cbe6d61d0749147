"""Every shipped rule in both backends. A new rule is tracked once it is added."""

from creditbench.studies.asv import suite

Rules, Exact, Score = suite(__file__)
