"""A rule whose import fails in its fourth line."""

hidden = 0
units = 1 / hidden
