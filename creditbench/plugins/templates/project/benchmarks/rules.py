"""The rules of the entry points in pyproject.toml, in both backends."""

from creditbench.studies.asv import suite

Rules, Exact, Score = suite(__file__)
